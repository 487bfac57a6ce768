"""What a study tells its strategy, and what it says when it cannot."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from adapters import random_factors, write_adapter
from export.small_study import STUDY, make_models, resolved_study

import mergesearch
from mergesearch.errors import SpecError
from mergesearch.pool.base import Job
from mergesearch.store.open import open_store
from mergesearch.strategies.base import Need
from mergesearch.strategies.random import Random
from mergesearch.study.check import check_study
from mergesearch.study.problem import gradients_of, make_problem, missing
from mergesearch.study.source import Source, parse_study
from mergesearch.types import Candidate, Request, Scored, Split

NEEDY = STUDY.replace("store: memory://", "strategy: {kind: random}\nbudget: {evaluations: 4, gradient_cost: 2.5}")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with base, experts, adapters and data."""
    made: Path = tmp_path_factory.mktemp("study")
    make_models(made)
    write_adapter(made / "low", random_factors({"vit.layers.1.attention.q_proj": (16, 16)}, 2, 1))
    return made


@pytest.fixture
def needs_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """`random`, as if it needed gradients."""
    monkeypatch.setattr(Random, "NEEDS", frozenset({Need.GRADIENTS}))


def test_a_study_offers_its_losses_and_its_space(root: Path) -> None:
    """The labelled loss first; those with a teacher as well, since each objective wears its own expert's head."""
    resolved = resolved_study(root, NEEDY)
    problem = make_problem(resolved)
    assert problem.gradients[0] == "loss"
    assert {"loss", "entropy", "kl"} <= set(problem.gradients)
    assert problem.gradient_cost == 2.5
    assert problem.space is resolved.space
    assert problem.geometry is None
    assert missing(resolved) == ""


def test_geometry_is_read_where_it_is_needed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """(G, K, K) in the order of the space's groups and experts."""
    monkeypatch.setattr(Random, "NEEDS", frozenset({Need.GEOMETRY}))
    resolved = resolved_study(root, NEEDY)
    geometry = make_problem(resolved).geometry
    assert geometry is not None
    assert geometry.gram.shape == (len(resolved.space.groups), 2, 2)
    assert np.all(geometry.gram[:, 0, 0] > 0)
    assert np.all(geometry.base > 0)
    sizes = [resolved.base.headers[name].numel for name in resolved.layout.group_of]
    assert geometry.sizes.sum() == sum(sizes)


def test_gradients_with_respect_to_the_axes_are_exact(root: Path) -> None:
    """Through the resolved study's own worker: central differences of the loss along some axes agree."""
    resolved = resolved_study(root, NEEDY)
    setup = replace(resolved.worker_setup("cpu"), dtype="float64")
    worker = type(resolved.worker("cpu"))(setup)()
    point = np.clip(resolved.space.start + 0.02, 0, 1)

    def outcome(at: np.ndarray, gradient: str = "loss") -> Scored:
        candidate = Candidate(0, at, request=Request(gradient=gradient))
        found = worker.evaluate(Job(0, Split.SEARCH, resolved.recipe(candidate), candidate.request, candidate.point))
        assert isinstance(found, Scored), found
        return found

    gradients = outcome(point).gradients
    step = 1e-2
    for axis in (0, resolved.space.dim - 1):
        move = step * np.eye(resolved.space.dim)[axis]
        ends = [outcome(point + sign * move).metrics for sign in (1, -1)]
        for name in ("d", "l"):
            slope = (ends[0][name]["loss"].value - ends[1][name]["loss"].value) / (2 * step)
            assert gradients[name][axis] == pytest.approx(slope, rel=5e-2, abs=5e-4)


@pytest.mark.usefixtures("needs_gradients")
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("operator: task_arithmetic", "operator: ties"), "operator Ties gives no gradients"),
        (("operator: task_arithmetic", "operator: lora_soups"), "gradients"),
    ],
)
def test_gradients_that_are_not_to_be_had_are_said_before_loading(
    root: Path, monkeypatch: pytest.MonkeyPatch, change: tuple[str, str], sentence: str
) -> None:
    """`check` and `launch` say which operator or objective has none and what to do, at the strategy's line; nothing is
    recorded."""
    monkeypatch.chdir(root)
    assert change[0] in NEEDY
    text = NEEDY.replace(*change)
    if "lora_soups" in text:
        text = text.replace("models/digits", "low").replace("models/letters", "low")
        text = (
            text.replace("    head: digits\n", "")
            .replace("    head: letters\n", "")
            .replace('  heads: ["classifier.*"]\n', "")
        )
    resolved = resolved_study(root, text)
    assert gradients_of(resolved) == ()
    assert sentence in missing(resolved)
    assert "take strategy 'auto'" in missing(resolved)
    source = Source("small.yaml", text, root)
    checked = check_study(parse_study(source), source)
    line = text[: text.index("kind: random")].count("\n") + 1
    assert any(f"small.yaml:{line}:" in f.sentence and sentence in f.sentence for f in checked.findings)
    assert not checked.ok
    (root / "needy.yaml").write_text(text)
    store = open_store("memory://")
    with pytest.raises(SpecError, match="asks for gradients, which this study does not have"):
        mergesearch.launch(root / "needy.yaml", store=store)
    assert store.studies() == []


def test_a_teacher_is_an_expert_of_the_study(root: Path) -> None:
    """It reaches the worker; an unknown one is refused with its line and a guess."""
    text = NEEDY.replace("    head: digits", "    head: digits\n    teacher: letters")
    assert [o.teacher for o in resolved_study(root, text).worker_setup().objectives] == ["letters", None]
    with pytest.raises(SpecError, match="no expert is called 'lettres'; did you mean 'letters'"):
        resolved_study(root, text.replace("teacher: letters", "teacher: lettres"))
