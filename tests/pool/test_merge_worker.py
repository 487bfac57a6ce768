"""Promises of the worker that builds and scores merges, on tiny random models."""

import dataclasses
import json
import pickle
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from contracts.pool import finish
from safetensors.torch import load_file, save_file
from tiny import make_images, make_text, make_texts, make_vit
from transformers import AutoModelForImageClassification, AutoModelForSequenceClassification

from mergesearch.checkpoints.groups import group_tensors
from mergesearch.checkpoints.reader import Checkpoint
from mergesearch.errors import CheckpointError, DataError, MergesearchError, PoolError, SpecError
from mergesearch.operators.base import Layout
from mergesearch.plugins import load, parse_options
from mergesearch.pool.base import Job
from mergesearch.pool.inline import InlinePool, WorkerOptions
from mergesearch.pool.profile import open_pool, parse_profile
from mergesearch.pool.worker import MergeWorker, ObjectiveSetup, WorkerSetup, mean_score
from mergesearch.recipe import Recipe
from mergesearch.scorers import SCORERS
from mergesearch.scorers.base import ScorerContext
from mergesearch.types import Failed, Scored, Split

SIZES = {"search": 24, "confirm": 8, "test": 16}
HEADS = ("classifier.*", "pre_classifier.*")
CLASSES = {"one": 3, "two": 5}


def make_study(root: Path, kind: str) -> WorkerSetup:
    """A base and two experts with heads of 3 and 5 classes, data for each, and an objective for each."""
    base = make_vit(root / "base", 0) if kind == "vit" else make_text(root / "base", 0, kind=kind)
    experts = {}
    for seed, (name, labels) in enumerate(CLASSES.items(), start=1):
        if kind == "vit":
            experts[name] = make_vit(root / name, seed, labels, base)
            make_images(root / f"{name}.npz", 60, labels, seed)
        else:
            experts[name] = make_text(root / name, seed, labels, base, kind=kind)
            make_texts(root / f"{name}.csv", 60, labels, seed)
    suffix, scorer = ("npz", "image_classification") if kind == "vit" else ("csv", "text_classification")
    objectives = tuple(
        ObjectiveSetup(name, scorer, {"path": f"{name}.{suffix}", "sizes": SIZES}, metric, name)
        for name, metric in (("one", "accuracy"), ("two", "loss"))
    )
    grouping = group_tensors(Checkpoint.open(base), "block", HEADS)
    layout = Layout(tuple(experts), grouping.groups, grouping.group_of)
    return WorkerSetup(base, experts, HEADS, layout, objectives, root, device="cpu", threads=1)


@pytest.fixture(scope="module", params=["vit", "bert", "distilbert"])
def setup(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> WorkerSetup:
    """A study for each architecture."""
    return make_study(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> WorkerSetup:
    """One study, for promises that do not depend on the architecture."""
    return make_study(tmp_path_factory.mktemp("vit-alone"), "vit")


def recipe(setup: WorkerSetup, seed: int = 0, operator: str = "task_arithmetic") -> Recipe:
    """Random coefficients for each group and expert."""
    layout = setup.layout
    shape = (len(layout.groups), len(layout.experts))
    settings = {"coefficient": np.random.default_rng(seed).uniform(0.1, 0.9, shape)}
    rest = {"task_arithmetic": {"scale": 1.0}, "linear": {"base_weight": 0.0}, "ties": {"density": 0.5, "scale": 1.0}}
    settings |= {knob: np.full(shape, value) for knob, value in rest[operator].items()}
    return Recipe(operator, layout.experts, layout.groups, settings)


def scored(worker: MergeWorker, work: Recipe, split: Split = Split.SEARCH) -> Scored:
    """The outcome, which must be Scored."""
    outcome = worker.evaluate(Job(0, split, work))
    assert isinstance(outcome, Scored), outcome
    return outcome


def values(outcome: Scored) -> dict[str, bytes]:
    """Per-example values to the bit."""
    return {name: array.tobytes() for name, array in outcome.examples.items()}


def merged_by_hand(setup: WorkerSetup, work: Recipe, head: str, folder: Path) -> torch.nn.Module:
    """Task arithmetic in the files' own tensors, saved with one expert's head, and loaded by transformers."""
    shutil.copytree(setup.experts[head], folder)
    files = {name: load_file(path / "model.safetensors") for name, path in setup.experts.items()}
    base = load_file(setup.base / "model.safetensors")
    result = dict(files[head])
    for name, group in setup.layout.group_of.items():
        change = sum(
            float(work.settings["coefficient"][group, k]) * (files[expert][name] - base[name])
            for k, expert in enumerate(setup.layout.experts)
        )
        result[name] = base[name] + change
    save_file(result, folder / "model.safetensors", {"format": "pt"})
    image = setup.objectives[0].scorer == "image_classification"
    kind = AutoModelForImageClassification if image else AutoModelForSequenceClassification
    model: torch.nn.Module = kind.from_pretrained(str(folder)).eval()
    return model


def test_scores_are_those_of_the_saved_and_reloaded_merge(setup: WorkerSetup, tmp_path: Path) -> None:
    """A candidate built in place scores as the same weights do when transformers loads them from disk."""
    work = recipe(setup)
    outcome = scored(MergeWorker(setup), work, Split.TEST)
    for objective in setup.objectives:
        assert objective.head
        model = merged_by_hand(setup, work, objective.head, tmp_path / objective.name)
        plugin = load("scorer", SCORERS, objective.scorer)
        context = ScorerContext(tmp_path / objective.name, setup.root, setup.seed)
        scorer = plugin(parse_options("data", plugin.Options, objective.data), context)
        expected = scorer.score(model, Split.TEST)
        np.testing.assert_allclose(outcome.examples[objective.name], expected[objective.metric], rtol=1e-4, atol=1e-5)
        for metric, array in expected.items():
            assert outcome.metrics[objective.name][metric].value == pytest.approx(float(array.mean()), abs=1e-5)


def test_one_expert_alone_is_that_expert(setup: WorkerSetup) -> None:
    """Coefficient 1 for one expert and 0 for the other gives the expert's own scores, up to float32 rounding."""
    layout = setup.layout
    shape = (len(layout.groups), 2)
    settings = {"coefficient": np.tile([0.0, 1.0], (shape[0], 1)), "scale": np.ones(shape)}
    outcome = scored(MergeWorker(setup), Recipe("task_arithmetic", layout.experts, layout.groups, settings))
    image = setup.objectives[0].scorer == "image_classification"
    kind = AutoModelForImageClassification if image else AutoModelForSequenceClassification
    objective = setup.objectives[1]
    plugin = load("scorer", SCORERS, objective.scorer)
    context = ScorerContext(setup.experts["two"], setup.root, setup.seed)
    scorer = plugin(parse_options("data", plugin.Options, objective.data), context)
    own = scorer.score(kind.from_pretrained(str(setup.experts["two"])).eval(), Split.SEARCH)
    np.testing.assert_allclose(outcome.examples["two"], own["loss"], rtol=1e-4, atol=1e-5)


def test_an_outcome_is_complete(setup: WorkerSetup) -> None:
    """Score, error and n of the objective's metric, every other metric, per-example values, and seconds."""
    outcome = scored(MergeWorker(setup), recipe(setup))
    assert list(outcome.scores) == ["one", "two"]
    for name, metric in (("one", "accuracy"), ("two", "loss")):
        array = outcome.examples[name]
        assert array.shape == (24,)
        assert array.dtype == np.float32
        assert outcome.scores[name] == mean_score(array) == outcome.metrics[name][metric]
        assert set(outcome.metrics[name]) == {"accuracy", "loss"}
    assert outcome.timing.build > 0
    assert outcome.timing.score > 0


def test_the_standard_error_of_accuracy_is_binomial() -> None:
    """std / sqrt(n) of zeros and ones is sqrt(p (1 - p) / n)."""
    score = mean_score(np.array([1, 1, 1, 0], dtype=np.float32))
    assert (score.value, score.n) == (0.75, 4)
    assert score.stderr == pytest.approx((0.75 * 0.25 / 4) ** 0.5)


def test_same_recipe_same_bits_whatever_came_before(vit: WorkerSetup) -> None:
    """Another candidate, another operator or a failed one in between changes no bit; nor does a new worker."""
    worker = MergeWorker(vit)
    first = values(scored(worker, recipe(vit)))
    scored(worker, recipe(vit, 1))
    assert values(scored(worker, recipe(vit))) == first
    for operator in ("linear", "ties"):
        assert values(scored(worker, recipe(vit, 0, operator))) != first
        assert values(scored(worker, recipe(vit))) == first
    work = recipe(vit)
    broken = Recipe("linear", work.experts, work.groups, {"coefficient": 0 * work.settings["coefficient"]})
    assert isinstance(worker.evaluate(Job(0, Split.SEARCH, broken)), Failed)
    assert values(scored(worker, recipe(vit))) == first
    assert values(scored(MergeWorker(vit), recipe(vit))) == first


def test_objectives_of_one_head_share_their_pass(vit: WorkerSetup) -> None:
    """Two metrics of one task come from the same examples and the same logits."""
    one = vit.objectives[0]
    both = (one, dataclasses.replace(one, name="one-loss", metric="loss"))
    outcome = scored(MergeWorker(dataclasses.replace(vit, objectives=both)), recipe(vit))
    assert outcome.metrics["one"] == outcome.metrics["one-loss"]
    assert outcome.scores["one-loss"] == outcome.metrics["one"]["loss"]


def test_a_merge_that_is_not_finite_has_failed(vit: WorkerSetup) -> None:
    """Coefficients that blow up the logits are not_finite, with the objective's name, also where the metric is
    accuracy."""
    work = recipe(vit)
    settings = {**work.settings, "coefficient": np.full_like(work.settings["coefficient"], 1e38)}
    outcome = MergeWorker(vit).evaluate(Job(0, Split.SEARCH, dataclasses.replace(work, settings=settings)))
    assert isinstance(outcome, Failed)
    assert (outcome.kind, outcome.message) == ("not_finite", "objective 'one': accuracy is not finite on search")


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"operator": "tie"}, "SpecError", "operator 'tie' is unknown; did you mean 'ties'"),
        ({"experts": ("two", "one")}, "EvaluationError", "not, in this order, those of the study"),
    ],
)
def test_a_recipe_that_cannot_be_built_has_failed(
    vit: WorkerSetup, change: Mapping[str, object], kind: str, message: str
) -> None:
    """The candidate is Failed with one sentence; the next one is scored."""
    worker = MergeWorker(vit)
    outcome = worker.evaluate(Job(0, Split.SEARCH, dataclasses.replace(recipe(vit), **change)))
    assert isinstance(outcome, Failed)
    assert outcome.kind == kind
    assert message in outcome.message
    plain = worker.evaluate(Job(0, Split.SEARCH, np.zeros(3)))
    assert isinstance(plain, Failed)
    scored(worker, recipe(vit))


def test_a_setup_travels_between_processes(vit: WorkerSetup) -> None:
    """It pickles, and the copy's worker gives the same bits."""
    copy = pickle.loads(pickle.dumps(vit))
    assert values(scored(MergeWorker(copy), recipe(vit))) == values(scored(MergeWorker(vit), recipe(vit)))


def test_a_lower_dtype_is_kept(vit: WorkerSetup) -> None:
    """With dtype bfloat16 the live model and its heads are of that type, and scores are near those of float32."""
    exact = scored(MergeWorker(vit), recipe(vit))
    rough = scored(MergeWorker(dataclasses.replace(vit, dtype="bfloat16")), recipe(vit))
    assert values(exact) != values(rough)
    np.testing.assert_allclose(rough.examples["two"], exact.examples["two"], rtol=0.1, atol=0.1)


def nan_expert(root: Path) -> None:
    """One entry of an expert is NaN."""
    path = root / "two" / "model.safetensors"
    tensors = load_file(path)
    tensors["vit.layernorm.weight"][3] = float("nan")
    save_file(tensors, path, {"format": "pt"})


@pytest.mark.parametrize(
    ("spoil", "error", "sentence"),
    [
        (nan_expert, CheckpointError, "two.*'vit.layernorm.weight' holds NaN"),
        (lambda root: (root / "two.npz").unlink(), DataError, "two.npz' does not exist"),
        (lambda root: make_images(root / "two.npz", 60, 9), DataError, r"label \d in 'label' is not known"),
        (lambda root: shutil.rmtree(root / "two"), MergesearchError, "two"),
        (lambda root: (root / "one" / "preprocessor_config.json").unlink(), CheckpointError, "preprocessor_config"),
    ],
)
def test_what_cannot_be_loaded_stops_the_study(tmp_path: Path, spoil: object, error: type, sentence: str) -> None:
    """A worker that cannot start says why with its own sentence, which the pool passes on."""
    setup = make_study(tmp_path, "vit")
    spoil(tmp_path)  # type: ignore[operator]
    with pytest.raises(error, match=sentence):
        MergeWorker(setup)
    pool = InlinePool(WorkerOptions(), lambda: MergeWorker(setup))
    with pytest.raises(PoolError, match=sentence):
        pool.submit(Job(0, Split.SEARCH, recipe(setup)))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"heads": ("score.*",)}, "no tensor matches merge.heads 'score"),
        ({"device": "cuda"}, "worker sees no GPU"),
        ({"objectives": (ObjectiveSetup("one", "image_clasification", {}, "accuracy", "one"),)}, "did you mean"),
        (
            {"objectives": (ObjectiveSetup("one", "image_classification", {"path": "one.npz"}, "acc", "one"),)},
            "no metric 'acc'",
        ),
    ],
)
def test_a_setup_that_cannot_be_is_refused(vit: WorkerSetup, change: Mapping[str, object], sentence: str) -> None:
    """Heads, device, scorer and metric are checked before anything runs."""
    if "device" in change and torch.cuda.is_available():
        return
    with pytest.raises((CheckpointError, PoolError, SpecError), match=sentence):
        MergeWorker(dataclasses.replace(vit, **change))


def test_a_base_of_another_purpose_will_do(tmp_path: Path) -> None:
    """A base with another head, pretrained as a language model, merges under the experts' classification heads."""
    setup = make_study(tmp_path, "bert")
    work = recipe(setup)
    expected = scored(MergeWorker(setup), work)
    tensors = load_file(setup.base / "model.safetensors")
    body = {name: tensor for name, tensor in tensors.items() if not name.startswith("classifier")}
    save_file({**body, "cls.predictions.bias": torch.zeros(19)}, setup.base / "model.safetensors", {"format": "pt"})
    config = json.loads((setup.base / "config.json").read_text())
    (setup.base / "config.json").write_text(json.dumps({**config, "architectures": ["BertForMaskedLM"]}))
    outcome = scored(MergeWorker(dataclasses.replace(setup, heads=("classifier.*", "cls.*"))), work)
    assert values(outcome) == values(expected)


@pytest.mark.ray
@pytest.mark.slow
def test_workers_of_every_pool_agree_to_the_bit(vit: WorkerSetup) -> None:
    """The same recipes give the same per-example values in this process and in two processes of a Ray pool."""
    results = {}
    for profile in ({"pool": "inline"}, {"pool": "ray", "workers": 2, "cpus_per_worker": 0.5, "threads_per_worker": 1}):
        pool = open_pool(parse_profile(profile, "test"), partial(MergeWorker, vit))
        try:
            for number in range(6):
                pool.submit(Job(number, Split.SEARCH, recipe(vit, number % 4)))
            results[profile["pool"]] = finish(pool, 6)
        finally:
            pool.close()
    inline, ray = (
        [values(r.outcome) for r in results[kind] if isinstance(r.outcome, Scored)] for kind in ("inline", "ray")
    )
    assert len(inline) == 6
    assert inline == ray
