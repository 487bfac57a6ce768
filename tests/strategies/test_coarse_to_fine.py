"""Coarse to fine: blocks of axes split where the evidence says so, and nothing known is lost on the way."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mergesearch.plugins import parse_options
from mergesearch.space import Knob, KnobRange, Per, Scale, build_space
from mergesearch.strategies.base import Observation, Problem
from mergesearch.strategies.coarse_to_fine import CoarseToFine
from mergesearch.strategies.tied import coarsest, halves
from mergesearch.types import Candidate, Objective

ONE = (Objective("loss", "min"),)
GROUPS = tuple(f"L{i}" for i in range(8))


def space(experts=("a", "b"), groups=GROUPS):
    """Coefficients in [0, 1] for each expert and group, starting at 0.3."""
    knob = Knob("coefficient", 0.0, 1.0, 0.3, searched=True)
    axes = {"coefficient": KnobRange(0.0, 1.0, 0.3, Per.EXPERT_GROUP, Scale.LINEAR)}
    return build_space([knob], experts, groups, axes, {})


def make(target, evaluations=120, gradients=(), **options):
    """The strategy on a bowl around `target` (G, K)."""
    described = space()
    of = Problem(described.dim, ONE, described.start, evaluations, gradients=gradients, space=described)
    aim = described.encode({"coefficient": target})
    subject = CoarseToFine(of, 0, parse_options("coarse_to_fine", CoarseToFine.Options, options))
    return of, subject, aim


def play(of, subject, aim, noise=0.002):
    """Ask and tell until the budget is spent; returns the candidates."""
    random, spent, candidates = np.random.default_rng(0), 0.0, []
    while True:
        number = len(candidates)
        proposal = subject.ask(number)
        cost = proposal.request.cost(of.gradient_cost)
        if spent + cost > of.evaluations:
            return candidates
        spent += cost
        candidate = Candidate(number, proposal.point, proposal.origin, proposal.request, cost)
        candidates.append(candidate)
        subject.asked(candidate)
        value = np.array([float(np.mean(np.square(candidate.point - aim))) + noise * random.standard_normal()])
        guides = gradients = None
        if candidate.request.gradient:
            guides, gradients = value, (2.0 * (candidate.point - aim) / of.dim)[None]
        subject.tell(candidate, Observation(value, np.array([noise]), np.array([500.0]), guides, gradients))


def target(deep_a=0.8, deep_b=0.3):
    """Expert a wants 0.2 in the first half of the layers and `deep_a` in the second, b 0.3 and `deep_b`."""
    table = np.full((8, 2), 0.3)
    table[:4, 0], table[4:, 0], table[4:, 1] = 0.2, deep_a, deep_b
    return table


@pytest.mark.parametrize("gradients", [(), ("loss",)])
def test_the_split_that_matters_is_made_and_said(gradients):
    """Expert a is split amid its layers, b is not; the note names it; the end is near the optimum."""
    of, subject, aim = make(target(), gradients=gradients, sure=3.0)
    candidates = play(of, subject, aim)
    assert {c.origin for c in candidates} >= {"start", "probe"}
    level = subject._levels[1].blocks
    assert level.count == 3
    assert len(set(level.of[:8].tolist())) in (2, 3)  # axes run group by group: a and b of L0, of L1 ...
    assert "coefficient.a" in subject.notes()[0]
    assert "coefficient.b" not in subject.notes()[0]
    assert np.abs(subject.recommend() - aim).mean() < 0.12


def test_without_evidence_nothing_is_split():
    """A target that is the same in all layers: a note says that the groups stay as they are."""
    of, subject, aim = make(target(0.2, 0.3), sure=4.0)
    play(of, subject, aim)
    assert all("no evidence" in note for note in subject.notes())
    assert subject._levels[-1].blocks.count == 2


def test_a_gradient_that_failed_keeps_the_plain_schedule():
    """The probe failed: every block is split, as a plain staged search would."""
    _, subject, _ = make(target(), evaluations=30, gradients=("loss",))
    for number in range(28):
        proposal = subject.ask(number)
        candidate = Candidate(number, proposal.point, proposal.origin, proposal.request)
        subject.asked(candidate)
        failed = proposal.origin == "probe"
        subject.tell(candidate, None if failed else Observation(np.array([0.1]), np.array([0.0]), np.array([1.0])))
    assert subject._levels[1].blocks.count == 4


def test_what_a_coarse_level_learnt_is_told_to_the_next():
    """All results of the first level can be expressed by the second, and count as told there."""
    of, subject, aim = make(target(), sure=2.0)
    play(of, subject, aim)
    first, second = subject._levels[0], subject._levels[1]
    assert second.inner.diagnostics()["told"] >= first.inner.diagnostics()["told"]


@given(st.integers(1, 12), st.integers(0, 2**16))
def test_blocks_express_what_they_gather(dim, seed):
    """Any point becomes expressible once blocks are laid around it; splitting keeps that."""
    generator = np.random.default_rng(seed)
    point = generator.random(dim)
    of = Problem(dim, ONE, np.full(dim, 0.5), 10)
    blocks = coarsest(of).around(point)
    assert blocks.count == 1
    assert blocks.can_express(point)
    finer = blocks.split([(left, right) for _, left, right in halves(blocks, of)])
    assert finer.count == min(2, dim)
    assert finer.can_express(point)
    gradient = generator.normal(size=(2, dim))
    assert np.allclose(finer.pull_back(gradient).sum(axis=1), gradient.sum(axis=1))


def test_blocks_begin_with_one_for_each_expert():
    """Of a merge's space: one block for each knob and expert; halves lie in the order of depth."""
    described = space()
    of = Problem(described.dim, ONE, described.start, 10, space=described)
    blocks = coarsest(of)
    assert blocks.count == 2
    block, left, right = next(halves(blocks, of))
    names = [axis.name for axis in described.axes]
    assert sorted(n for n, x in zip(names, left, strict=True) if x) == [f"coefficient.a.L{i}" for i in range(4)]
    assert block == 0
    assert left.sum() == right.sum() == 4
