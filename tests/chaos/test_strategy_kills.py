"""Every strategy proposes the same points in a study that was killed as in one that was not."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
from chaos.child import Script
from chaos.harness import assert_only_grew, assert_whole, calm, create
from chaos.nursery import Nursery
from contracts.strategy import QUICK, WITH_TORCH

from mergesearch.strategies import STRATEGIES

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(120)]

STEPS = ("before ask", "after ask", "scoring", "arrived", "before tell", "after tell")


@pytest.mark.parametrize("kind", STRATEGIES)
def test_a_killed_study_has_the_points_of_an_undisturbed_one(
    kind: str, tmp_path: Path, nursery: Nursery, calm_nursery: Nursery
) -> None:
    """Four kills early, late and in between: the log of asks and tells is the same to the last bit."""
    script = create(
        Script(
            f"sqlite:///{tmp_path}/killed.db",
            strategy=kind,
            options=QUICK.get(kind, {}),
            budget=36.0,
            baselines=("baseline:base",),
            finalists=0,
        )
    )
    draw, log = random.Random(kind), []
    for _ in range(2 if kind in WITH_TORCH else 4):
        # A gradient costs as much as three evaluations, so that some strategies make no more than twelve of them.
        ended = nursery.run(replace(script, at=draw.choice(STEPS), nth=draw.randint(1, 3)))
        assert ended.code == -9, ended.said
        log = assert_only_grew(log, script)
    if kind not in WITH_TORCH:
        ended = nursery.run(replace(script, at="sql", nth=draw.randint(100, 200)))
        assert ended.code in (0, -9), ended.said
    ended = nursery.run(script)
    assert ended.code == 0, ended.said
    assert_whole(script)
    assert assert_only_grew(log, script) == calm(calm_nursery, script, url=f"sqlite:///{tmp_path}/calm.db")
