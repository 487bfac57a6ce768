"""Studies that begin where an earlier one of the same store came to."""

import logging
from pathlib import Path

import numpy as np
import pytest
from export.small_study import STUDY, make_models, resolved_study

from mergesearch.controller.launch import launch, resolve_stored, resume, spec_digest
from mergesearch.errors import SpecError, StudyNotFound
from mergesearch.store.base import StudyStore
from mergesearch.store.memory import MemoryStore
from mergesearch.stored import describe, read_stored
from mergesearch.study.check import check_study
from mergesearch.study.source import Source, parse_study
from mergesearch.study.spec import StudySpec
from mergesearch.study.warm import warm_start
from mergesearch.types import Candidate, Request, Score, Scored, Split

SHORT = "strategy: {kind: random}\nbudget: {evaluations: 2}\nholdout: {finalists: 1}\nbaselines: {lambdas: []}"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with base, experts and data."""
    made: Path = tmp_path_factory.mktemp("warm")
    make_models(made)
    return made


def text_of(groups: str, name: str = "later", more: str = "", store: str = "memory://") -> str:
    """The small study with other groups, on `later`'s axes."""
    text = STUDY.replace("name: small", f"name: {name}").replace("store: memory://", f"{SHORT}\nstore: '{store}'")
    return text.replace("{groups: block}", f"{{groups: {groups}{more}}}")


def earlier(root: Path, groups: str, table: np.ndarray | None = None, **facts: object) -> tuple[StudyStore, np.ndarray]:
    """A store in which the study 'small' has one scored candidate with random coefficients (G, K), or with `table`."""
    text = text_of(groups, "small")
    resolved = resolved_study(root, text)
    store = MemoryStore()
    described = describe(resolved.space, resolved.objectives, 2, "random", root=str(root), **facts)
    store.create("small", text, "d", 0.0, described)
    if table is None:
        table = np.random.default_rng(3).uniform(0.1, 0.9, (len(resolved.space.groups), 2))
    lease = store.acquire("small", "test", 60.0, 0.0)
    for number, request in ((0, Request()), (1, Request(0.5)), (2, Request())):
        point = resolved.space.encode({"coefficient": table if number == 2 else 0 * table})
        store.ask(lease, Candidate(number, point, request=request, cost=request.share), Split.SEARCH, 0.0)
        score = {0: 0.3, 1: 0.9, 2: 0.5}[number]
        store.tell(lease, number, Split.SEARCH, Scored({"d": Score(score), "l": Score(1 - score)}), 0.0)
    return store, table


def sizes(root: Path, groups: str) -> dict[str, float]:
    """Group -> numbers merged in it."""
    resolved = resolved_study(root, text_of(groups))
    found = dict.fromkeys(resolved.layout.groups, 0.0)
    for tensor, row in resolved.layout.group_of.items():
        found[resolved.layout.groups[row]] += resolved.base.headers[tensor].numel
    return found


def test_finer_groups_take_the_value_of_the_coarser_one(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """From blocks to modules: every module begins at its block's value; one log line says from where."""
    store, table = earlier(root, "block")
    with caplog.at_level(logging.INFO, "mergesearch"):
        started, source = warm_start(resolved_study(root, text_of("module", more=", warm_start: small")), store)
    blocks = resolved_study(root, text_of("block")).space.groups
    values = started.space.decode(started.space.start)["coefficient"]
    for g, group in enumerate(started.space.groups):
        block = next(b for b, name in enumerate(blocks) if group.split(".")[0] == name)
        np.testing.assert_allclose(values[g], table[block], atol=1e-12)
    assert source is not None
    assert (source.study, source.candidate) == ("small", 2)
    assert [r.getMessage() for r in caplog.records] == [
        f"study 'later' starts from candidate 2 of study 'small': {started.space.dim} of {started.space.dim} axes"
    ]


def test_coarser_groups_take_the_mean_by_size(root: Path) -> None:
    """From modules to the whole model, per expert: the mean over all numbers merged."""
    store, table = earlier(root, "module")
    started, _ = warm_start(resolved_study(root, text_of("model", more=", warm_start: small")), store)
    weights = np.array(list(sizes(root, "module").values()))
    values = started.space.decode(started.space.start)["coefficient"]
    np.testing.assert_allclose(values, (weights @ table / weights.sum())[None, :], atol=1e-12)


def test_one_axis_for_all_experts_takes_the_mean_of_them(root: Path) -> None:
    """Axes that fill several cells weigh each by its size."""
    store, table = earlier(root, "module")
    more = ", warm_start: small, coefficient: {low: 0.0, high: 1.0, per: study}"
    started, _ = warm_start(resolved_study(root, text_of("block", more=more)), store)
    weights = np.array(list(sizes(root, "module").values()))
    assert started.space.axes[0].init == pytest.approx(float((weights @ table).mean() / weights.sum()))


def test_what_the_earlier_study_does_not_know_keeps_its_start(root: Path) -> None:
    """A new expert's axes, a new knob's, those that `start` names, and values outside the range, which are clipped."""
    store, _ = earlier(root, "model", np.array([[0.9, 0.2]]))
    more = ", warm_start: small, coefficient: {low: 0.0, high: 0.8, init: 0.3}, start: {'coefficient.other*': 0.7}"
    text = text_of("model", more=more + ", scale: {low: 0.5, high: 1.5, init: 1.25, per: study}")
    text = text.replace(
        "letters: models/letters}", "letters: models/letters, new: models/letters, other: models/digits}"
    )
    started, _ = warm_start(resolved_study(root, text), store)
    begun = {axis.name: axis.init for axis in started.space.axes}
    coefficients = {name.split(".")[1]: value for name, value in begun.items() if name.startswith("coefficient")}
    assert coefficients == {"digits": 0.8, "letters": 0.2, "new": 0.3, "other": 0.7}
    assert begun["scale"] == pytest.approx(1.0)  # held at 1 before, and so known


def test_the_chosen_candidate_comes_first(root: Path) -> None:
    """Before the best on the search split; one that was scored in part alone does not count."""
    for chosen, number in ((0, 0), (1, 2), (None, 2)):
        store, _ = earlier(root, "block", chosen=chosen)
        _, source = warm_start(resolved_study(root, text_of("block", more=", warm_start: small")), store)
        assert source is not None
        assert source.candidate == number


def test_refusals(root: Path) -> None:
    """An unknown study, itself, one with no scores: one sentence each; the study file's other keys stay checked."""
    store, _ = earlier(root, "block")
    cases = {"smal": (StudyNotFound, "did you mean 'small'"), "later": (SpecError, "cannot start from itself")}
    for name, (error, sentence) in cases.items():
        with pytest.raises(error, match=sentence):
            warm_start(resolved_study(root, text_of("block", more=f", warm_start: {name}")), store)
    resolved = resolved_study(root, text_of("block", "empty"))
    store.create(
        "empty", text_of("block", "empty"), "d", 0.0, describe(resolved.space, resolved.objectives, 2, "random")
    )
    with pytest.raises(SpecError, match="study 'empty' has no scored candidate yet"):
        warm_start(resolved_study(root, text_of("block", more=", warm_start: empty")), store)


def test_launch_check_and_resume_agree(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A launch starts there; a resume starts where the launch did, whatever the earlier study came to since; `check`
    shows the same axes."""
    monkeypatch.chdir(root)
    url = f"sqlite:///{tmp_path / 'warm.db'}"
    (root / "small.yaml").write_text(text_of("model", "small", store=url))
    launch("small.yaml").store.close()
    text = text_of("block", more=", warm_start: small", store=url)
    (root / "later.yaml").write_text(text)
    source = Source("later.yaml", text, root)
    checked = check_study(parse_study(source), source)
    assert checked.ok
    assert any("warm start: the axes start where candidate" in f.sentence for f in checked.findings)
    launched = launch("later.yaml")
    first = launched.results.by_origin("start")
    assert first is not None
    begun = launched.results.candidates[first].point
    assert checked.resolved is not None
    assert np.array_equal(checked.resolved.space.start, begun)  # type: ignore[arg-type]
    small = read_stored(launched.store, "small")
    assert small.chosen is not None
    recipe = small.recipe(small.chosen)
    assert recipe is not None
    values = launched.resolved.space.decode(begun)["coefficient"]  # type: ignore[arg-type]
    np.testing.assert_allclose(values, np.tile(recipe.settings["coefficient"], (len(values), 1)), atol=1e-12)
    lease = launched.store.acquire("small", "test", 60.0, 1e12)
    other = next(n for n in small.results.scored if n != small.chosen)
    launched.store.set_facts(lease, {"chosen": other})
    again = resolve_stored(launched.store, "later")
    assert np.array_equal(again.space.start, begun)  # type: ignore[arg-type]
    assert resume("later", launched.store).results.search_told == 2
    assert launched.store.facts("later")["warm_start"] == {"study": "small", "candidate": small.chosen}
    launched.store.close()


def test_studies_without_a_warm_start_are_what_they_were(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is read, nothing moves, and the keys that came later leave a study's digest alone while unset."""
    resolved = resolved_study(root, text_of("block"))
    started, source = warm_start(resolved, MemoryStore())
    assert started is resolved
    assert source is None
    plain, model = spec_digest(resolved), StudySpec.model_dump_json
    monkeypatch.setattr(
        StudySpec, "model_dump_json", lambda spec, exclude: seen.append(model(spec, exclude=exclude)) or seen[0]
    )
    seen: list[str] = []
    assert spec_digest(resolved) == plain
    assert "warm_start" not in seen[0]
    assert "teacher" not in seen[0]
    taught = resolved_study(
        root, text_of("block").replace("    head: digits", "    head: digits\n    teacher: letters")
    )
    monkeypatch.undo()
    assert spec_digest(taught) != plain
