"""Operators that keep a code of each expert: their rebuilt models and their size as objectives of a study."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny import make_images, make_vit

from mergesearch.checkpoints.groups import group_tensors
from mergesearch.checkpoints.reader import Checkpoint
from mergesearch.errors import SpecError
from mergesearch.operators.base import Layout
from mergesearch.pool.base import Job
from mergesearch.pool.worker import MergeWorker, ObjectiveSetup, WorkerSetup
from mergesearch.recipe import Recipe
from mergesearch.study.source import Source, parse_study
from mergesearch.types import Scored, Split

SIZES = {"search": 24, "confirm": 8, "test": 16}
HEADS = ("classifier.*",)
STUDY = """
name: small
models: {base: b, experts: {one: x, two: y}}
merge: {operator: OPERATOR, heads: ["classifier.*"]}
objectives:
  - {name: one, scorer: image_classification, data: {path: one.npz}, head: one, rebuild: one}
  - {name: size, scorer: stored_bytes}
"""


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> WorkerSetup:
    """A base and two experts; each task is scored merged and rebuilt; the size is an objective."""
    root = tmp_path_factory.mktemp("compression")
    base = make_vit(root / "base", 0)
    experts = {}
    for seed, name in enumerate(("one", "two"), start=1):
        experts[name] = make_vit(root / name, seed, 3, base)
        make_images(root / f"{name}.npz", 60, 3, seed)
    objectives = [ObjectiveSetup("size", "stored_bytes", {}, "megabytes")]
    for name in experts:
        data = {"path": f"{name}.npz", "sizes": SIZES}
        merged = ObjectiveSetup(f"{name}-merged", "image_classification", data, "loss", name)
        objectives += [replace(merged, name=f"{name}-rebuilt", rebuild=name), merged]
    grouping = group_tensors(Checkpoint.open(base), "model", HEADS)
    layout = Layout(tuple(experts), grouping.groups, grouping.group_of)
    return WorkerSetup(base, experts, HEADS, layout, tuple(objectives), root, device="cpu", threads=1)


def score(worker: MergeWorker, setup: WorkerSetup, operator: str, **knobs: float) -> Scored:
    """The worker's result for one recipe of an operator, all knobs equal in all groups."""
    tables = {name: np.full((1, 2), value) for name, value in knobs.items()}
    recipe = Recipe(operator, setup.layout.experts, setup.layout.groups, tables)
    outcome = worker.evaluate(Job(0, Split.SEARCH, recipe))
    assert isinstance(outcome, Scored), outcome
    return outcome


def test_each_objective_is_scored_on_its_own_model(setup: WorkerSetup) -> None:
    """Rebuilt and merged models differ; each scores alike whatever stood in the live model before."""
    worker = MergeWorker(setup)
    first = score(worker, setup, "emr", scale=0.5)
    assert first.scores["one-rebuilt"] != first.scores["one-merged"]
    alone = tuple(o for o in setup.objectives if o.name in ("two-rebuilt", "one-merged"))
    fewer = score(MergeWorker(replace(setup, objectives=alone)), setup, "emr", scale=0.5)
    assert fewer.scores == {o.name: first.scores[o.name] for o in alone}
    score(worker, setup, "task_arithmetic", coefficient=0.3)
    assert score(worker, setup, "emr", scale=0.5).scores == first.scores
    assert score(worker, setup, "emr", scale=0.2).scores["one-rebuilt"] == first.scores["one-rebuilt"]


def test_size_is_what_is_kept_beside_the_base(setup: WorkerSetup) -> None:
    """A plain merge counts as a model of its own, without a standard error; masks and a shared change cost more."""
    worker = MergeWorker(setup)
    plain = score(worker, setup, "task_arithmetic", coefficient=0.3).scores["size"]
    base = Checkpoint.open(setup.base)
    entries = sum(base.headers[name].numel for name in setup.layout.group_of)
    assert plain.value == pytest.approx(4 * entries / 1e6)
    assert (plain.stderr, plain.n) == (0.0, 1)
    coded = score(worker, setup, "emr", scale=0.5).scores["size"]
    assert coded.value == pytest.approx((4 + 2 / 8) * entries / 1e6, rel=1e-2)


def test_a_study_that_cannot_rebuild_is_refused() -> None:
    """An operator that keeps nothing of single experts is named, with those that do."""
    parse_study(Source("s.yaml", STUDY.replace("OPERATOR", "emr"), Path()))
    with pytest.raises(
        SpecError, match=r"'rebuild: one' cannot be done of operator 'ties'.*those that do: .*emr"
    ) as info:
        parse_study(Source("s.yaml", STUDY.replace("OPERATOR", "ties"), Path()))
    assert "scorer 'stored_bytes' is one number for all candidates of operator 'ties'" in str(info.value)
    with pytest.raises(SpecError, match="no expert is called 'three'"):
        parse_study(
            Source("s.yaml", STUDY.replace("OPERATOR", "emr").replace("rebuild: one", "rebuild: three"), Path())
        )
