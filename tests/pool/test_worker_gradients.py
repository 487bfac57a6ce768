"""Promises of windows and gradients of a worker that builds and scores merges."""

import dataclasses
import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from test_merge_worker import SIZES, make_study
from tiny import make_images, make_vit

from mergesearch.checkpoints.adapter import open_expert
from mergesearch.checkpoints.reader import Checkpoint
from mergesearch.memory import memory_needed
from mergesearch.merging import make_operator
from mergesearch.operators.base import Layout
from mergesearch.pool.base import Job
from mergesearch.pool.gradients import differentiable_losses
from mergesearch.pool.worker import MergeWorker, ObjectiveSetup, WorkerSetup
from mergesearch.recipe import Recipe
from mergesearch.space import KnobRange, SearchSpace, build_space
from mergesearch.types import Failed, Request, Scored, Split

LOSSES = ("loss", "kl", "entropy", "alignment")


def space_of(setup: WorkerSetup, operator: str = "task_arithmetic", knobs: Sequence[str] = ()) -> SearchSpace:
    """The space of an operator's searched knobs, or of some, in every group."""
    layout, offered = setup.layout, make_operator(operator, {}).KNOBS
    searched = {
        k.name: KnobRange(k.low, k.top(2), k.start(2), k.per, k.scale)
        for k in offered
        if k.name in knobs or (not knobs and k.searched)
    }
    return build_space(offered, layout.experts, layout.groups, searched, {})


def with_space(setup: WorkerSetup, operator: str = "task_arithmetic", knobs: Sequence[str] = ()) -> WorkerSetup:
    """The setup with a space."""
    return dataclasses.replace(setup, space=space_of(setup, operator, knobs))


@pytest.fixture(scope="module", params=["vit", "bert"])
def setup(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> WorkerSetup:
    """A study of two tasks for each architecture, with its space."""
    return with_space(make_study(tmp_path_factory.mktemp(f"gradient-{request.param}"), request.param))


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> WorkerSetup:
    """One study, for promises that do not depend on the architecture."""
    return with_space(make_study(tmp_path_factory.mktemp("gradient-alone"), "vit"))


def job(
    setup: WorkerSetup, request: Request, seed: int = 0, split: Split = Split.SEARCH, kind: str = "task_arithmetic"
) -> Job:
    """A job at a random point well inside the cube."""
    assert setup.space is not None
    point = np.random.default_rng(seed).uniform(0.2, 0.6, setup.space.dim)
    return at(setup, request, point, split, kind)


def at(
    setup: WorkerSetup, request: Request, point: np.ndarray, split: Split = Split.SEARCH, kind: str = "task_arithmetic"
) -> Job:
    """A job at a point."""
    assert setup.space is not None
    work = Recipe(kind, setup.layout.experts, setup.layout.groups, setup.space.decode(point))
    return Job(0, split, work, request, point)


def scored(worker: MergeWorker, given: Job) -> Scored:
    """The outcome, which must be Scored."""
    outcome = worker.evaluate(given)
    assert isinstance(outcome, Scored), outcome
    return outcome


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_are_the_differences_of_the_loss(setup: WorkerSetup, loss: str) -> None:
    """Of each objective's mean loss over the window, along random directions of the unit cube, in float64."""
    setup = dataclasses.replace(setup, dtype="float64")
    worker, request = MergeWorker(setup), Request(0.5, 0.25, loss)
    given = job(setup, request)
    outcome = scored(worker, given)
    assert given.point is not None
    assert list(outcome.gradients) == ["one", "two"]
    for seed in range(2):
        along = np.random.default_rng(seed).normal(size=given.point.shape)
        ends = [scored(worker, at(setup, request, given.point + h * along)) for h in (5e-3, -5e-3)]
        for name, gradient in outcome.gradients.items():
            assert (gradient.dtype, gradient.shape) == (np.float64, given.point.shape)
            # Losses are float32, so differences are good to about 1e-5 here.
            wanted = (ends[0].metrics[name][loss].value - ends[1].metrics[name][loss].value) / 1e-2
            assert gradient @ along == pytest.approx(wanted, rel=2e-2, abs=1e-5 + 5e-3 * np.abs(gradient).max())


def test_a_gradient_comes_with_the_scores_of_its_window(setup: WorkerSetup) -> None:
    """Every metric and example as without a gradient, up to rounding; the loss itself under its name."""
    worker = MergeWorker(setup)
    plain = scored(worker, job(setup, Request(0.5, 0.75)))
    for loss in LOSSES:
        outcome = scored(worker, job(setup, Request(0.5, 0.75, loss)))
        for name in ("one", "two"):
            np.testing.assert_allclose(outcome.examples[name], plain.examples[name], rtol=1e-4, atol=1e-5)
            assert set(outcome.metrics[name]) == {"accuracy", "loss", loss}
            assert outcome.metrics[name][loss].n == 12
            assert outcome.metrics[name]["loss"].value == pytest.approx(plain.metrics[name]["loss"].value, abs=1e-4)
        assert not plain.gradients


def test_windows_are_parts_of_the_whole(setup: WorkerSetup) -> None:
    """Neighbouring windows share no example and leave none out; the whole has the bits of a job without a request."""
    worker = MergeWorker(setup)
    whole, plain = (scored(worker, job(setup, r)) for r in (Request(), Request(1.0, 0.0)))
    parts = [scored(worker, job(setup, Request(0.25, i / 4))) for i in range(4)]
    for name, values in whole.examples.items():
        assert values.tobytes() == plain.examples[name].tobytes()
        joined = np.concatenate([part.examples[name] for part in parts])
        np.testing.assert_allclose(joined, values, rtol=1e-4, atol=1e-5)
        assert parts[0].scores[name].n == SIZES["search"] // 4


def test_a_gradient_leaves_no_trace(vit: WorkerSetup) -> None:
    """Neither gradients nor the teacher's weights stay: the next candidate has the bits of a fresh worker, and the same
    gradient is the same to the bit whatever came before."""
    worker = MergeWorker(vit)
    fresh = scored(worker, job(vit, Request()))
    first = {loss: scored(worker, job(vit, Request(0.5, 0.0, loss), 1)) for loss in LOSSES}
    assert all(p.grad is None and not p.requires_grad for p in worker._model.parameters())
    again = scored(worker, job(vit, Request()))
    other = MergeWorker(pickle.loads(pickle.dumps(vit)))
    for name in fresh.examples:
        assert again.examples[name].tobytes() == fresh.examples[name].tobytes()
        for loss in reversed(LOSSES):
            gradient = scored(other, job(vit, Request(0.5, 0.0, loss), 1)).gradients[name]
            assert gradient.tobytes() == first[loss].gradients[name].tobytes()


def test_the_expert_itself_is_nearest_to_its_teacher(vit: WorkerSetup) -> None:
    """Where the merge is an expert its own objective has kl and alignment 0 and no slope; the other has some."""
    setup = dataclasses.replace(vit, space=space_of(vit, knobs=("coefficient",)))
    assert setup.space is not None
    values = {"coefficient": np.tile([1.0, 0.0], (len(setup.layout.groups), 1))}
    point, worker = setup.space.encode(values), MergeWorker(setup)
    for loss in ("kl", "alignment"):
        outcome = scored(worker, at(setup, Request(1.0, 0.0, loss), point))
        assert outcome.metrics["one"][loss].value == pytest.approx(0.0, abs=1e-6)
        assert outcome.metrics["two"][loss].value > 1e-3
        assert np.abs(outcome.gradients["one"]).max() < 1e-3 * np.abs(outcome.gradients["two"]).max()


def test_each_split_has_lessons_of_its_own_and_objectives_of_one_head_share_them(
    vit: WorkerSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A teacher is asked once for each split, head and loss."""
    one = vit.objectives[0]
    both = (one, dataclasses.replace(one, name="one-loss", metric="loss"))
    worker = MergeWorker(dataclasses.replace(vit, objectives=both))
    asked: list[str] = []
    become = MergeWorker._become
    monkeypatch.setattr(MergeWorker, "_become", lambda self, name: (asked.append(name), become(self, name))[1])
    for split in (Split.SEARCH, Split.SEARCH, Split.CONFIRM):
        outcome = scored(worker, job(vit, Request(1.0, 0.0, "kl"), split=split))
        assert np.array_equal(outcome.gradients["one"], outcome.gradients["one-loss"])
    assert asked == ["one", "one"]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_lower_dtype_gives_about_the_same_gradient(vit: WorkerSetup, dtype: str) -> None:
    """Gradients of a model in half precision point where those of float32 do."""
    for loss in LOSSES:
        exact, rough = (
            scored(MergeWorker(dataclasses.replace(vit, dtype=d)), job(vit, Request(gradient=loss))).gradients["two"]
            for d in (None, dtype)
        )
        assert exact @ rough > 0.95 * np.linalg.norm(exact) * np.linalg.norm(rough)


@pytest.mark.parametrize("kind", ["linear", "dare_linear", "breadcrumbs", "tsv_m", "iso_c"])
def test_other_operators_have_gradients_too(vit: WorkerSetup, kind: str) -> None:
    """Along a random direction in the space of their searched knobs, and of `scale`."""
    setup = dataclasses.replace(with_space(vit, kind), dtype="float64")
    worker, given = MergeWorker(setup), job(setup, Request(gradient="loss"), kind=kind)
    outcome = scored(worker, given)
    assert given.point is not None
    along = np.random.default_rng(1).normal(size=given.point.shape)
    ends = [scored(worker, at(setup, Request(), given.point + h * along, kind=kind)) for h in (5e-3, -5e-3)]
    for name, gradient in outcome.gradients.items():
        wanted = (ends[0].metrics[name]["loss"].value - ends[1].metrics[name]["loss"].value) / 1e-2
        assert gradient @ along == pytest.approx(wanted, rel=2e-2, abs=1e-5 + 5e-3 * np.abs(gradient).max())


def test_what_cannot_be_derived_is_one_sentence(vit: WorkerSetup, tmp_path: Path) -> None:
    """No space, no point, another operator, an unknown loss, no teacher, a scorer or a rebuilt model without losses."""
    loss, worker = Request(gradient="loss"), MergeWorker(vit)
    head = vit.objectives[0]
    sized = (head, ObjectiveSetup("size", "stored_bytes", {}, "megabytes"))
    rebuilt = (dataclasses.replace(head, rebuild="one"),)
    untaught = (dataclasses.replace(head, data={**head.data, "path": "base.npz"}, head=None),)
    make_images(vit.root / "base.npz", 60, 3)
    kl = Request(gradient="kl")
    cases = [
        (MergeWorker(dataclasses.replace(vit, space=None)), job(vit, loss), "gradients are taken at a point"),
        (worker, dataclasses.replace(job(vit, loss), point=None), "gradients are taken at a point"),
        (worker, dataclasses.replace(job(vit, loss), work=np.zeros(2)), "holds plain values"),
        (worker, job(with_space(vit, "ties"), loss, kind="ties"), "operator Ties gives no gradients; take one that"),
        (
            worker,
            job(vit, Request(gradient="lose")),
            "has no differentiable loss 'lose', scorer 'image_classification'",
        ),
        (MergeWorker(dataclasses.replace(vit, objectives=sized)), job(vit, loss), "'size' has no gradient: scorer 'st"),
        (MergeWorker(dataclasses.replace(vit, objectives=rebuilt)), job(vit, loss), "'one' has no gradient: it is sco"),
        (
            MergeWorker(dataclasses.replace(vit, objectives=untaught)),
            job(vit, kl),
            "'kl' needs an expert to learn from",
        ),
    ]
    for there, given, sentence in cases:
        outcome = there.evaluate(given)
        assert isinstance(outcome, Failed)
        assert outcome.kind == "EvaluationError"
        assert sentence in outcome.message
    scored(worker, job(vit, loss))
    other = dataclasses.replace(untaught[0], teacher="two")  # of 5 classes, under the base's head of 3
    named = MergeWorker(dataclasses.replace(vit, objectives=(other,)))
    outcome = named.evaluate(job(vit, kl))
    assert isinstance(outcome, Failed)
    assert "teaches knows 5 classes, the merged model 3: let the objective wear" in outcome.message
    scored(named, job(vit, Request(gradient="entropy")))


def test_a_gradient_that_is_not_finite_has_failed(vit: WorkerSetup, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the objective's name; finite losses do not hide it."""
    worker = MergeWorker(vit)
    parameter = worker._parameters["vit.layernorm.weight"]
    handle = None
    parameter.requires_grad_(True)
    handle = parameter.register_hook(lambda gradient: gradient * float("nan"))
    try:
        outcome = worker.evaluate(job(vit, Request(gradient="loss")))
    finally:
        handle.remove()
    assert isinstance(outcome, Failed)
    assert (outcome.kind, outcome.message) == ("not_finite", "objective 'one': the gradient of loss is not finite")
    broken = job(vit, Request(gradient="kl"))
    assert isinstance(broken.work, Recipe)
    huge = {**broken.work.settings, "coefficient": np.full_like(broken.work.settings["coefficient"], 1e38)}
    outcome = worker.evaluate(dataclasses.replace(broken, work=dataclasses.replace(broken.work, settings=huge)))
    assert isinstance(outcome, Failed)
    assert outcome.kind == "not_finite"
    scored(worker, job(vit, Request(gradient="kl")))


def test_what_a_study_can_offer_is_known_before_anything_is_loaded(vit: WorkerSetup) -> None:
    """Losses that all objectives have, 'loss' first; none for operators, scorers or objectives without gradients."""
    experts = {name: open_expert(path) for name, path in vit.experts.items()}
    task = make_operator("task_arithmetic", {})
    assert differentiable_losses(task, vit, experts) == LOSSES
    untaught = dataclasses.replace(vit.objectives[0], name="base", head=None)
    mixed = dataclasses.replace(vit, objectives=(*vit.objectives, untaught))
    assert differentiable_losses(task, mixed, experts) == ("loss", "entropy")
    assert differentiable_losses(make_operator("ties", {}), vit, experts) == ()
    sized = dataclasses.replace(vit, objectives=(ObjectiveSetup("size", "stored_bytes", {}, "megabytes"),))
    assert differentiable_losses(task, sized, experts) == ()
    rebuilt = dataclasses.replace(vit, objectives=(dataclasses.replace(vit.objectives[0], rebuild="one"),))
    assert differentiable_losses(task, rebuilt, experts) == ()


def test_the_memory_plan_counts_gradients(vit: WorkerSetup) -> None:
    """One more copy of the merged tensors."""
    base = Checkpoint.open(vit.base)
    layout: Layout = vit.layout
    plain, more = (memory_needed(base, [base], layout, gradients=flag) for flag in (False, True))
    merged = sum(base.headers[n].numel * base.headers[n].dtype.itemsize for n in layout.group_of)
    assert more.needed - plain.needed == merged


def test_one_graph_lives_at_a_time(tmp_path: Path) -> None:
    """Twice the batches take no more memory: what one kept for its backward pass is gone when the next begins."""
    base, expert = make_vit(tmp_path / "base"), make_vit(tmp_path / "one", 1)
    make_images(tmp_path / "one.npz", 80)
    sizes = {"search": 64, "confirm": 8, "test": 8}
    data = {"path": "one.npz", "sizes": sizes, "batch_size": 8}
    names = Checkpoint.open(base).names
    layout = Layout(("one",), ("g",), {n: 0 for n in names if not n.startswith("classifier")})
    objective = ObjectiveSetup("one", "image_classification", data, "accuracy", "one")
    setup = WorkerSetup(base, {"one": expert}, ("classifier.*",), layout, (objective,), tmp_path, device="cpu")
    worker = MergeWorker(with_space(setup))
    saved, most = 0, []

    class Kept:
        """Counts what is kept."""

        def __init__(self, tensor: torch.Tensor) -> None:
            nonlocal saved
            self.tensor = tensor
            saved += 1
            most.append(saved)

        def __del__(self) -> None:
            nonlocal saved
            saved -= 1

    peaks = []
    for share in (1 / 8, 1.0):
        most.clear()
        with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.tensor):
            scored(worker, job(with_space(setup), Request(share, 0.0, "loss")))
        peaks.append(max(most))
    assert peaks[0] == peaks[1]
