"""Strategies that look for a front with processes: qlog_nehvi, parego, mm_mo."""

import warnings

import numpy as np
import pytest

from mergesearch.errors import SpecError
from mergesearch.pareto import front, hypervolume
from mergesearch.strategies.base import Observation, Problem, rng
from mergesearch.strategies.mm_mo import MmMo, crossed, least_informed
from mergesearch.strategies.parego import Parego, tchebycheff
from mergesearch.strategies.qlog_nehvi import QLogNehvi
from mergesearch.strategies.random import Random
from mergesearch.strategies.surrogates.gaussian_process import Hyper, posterior
from mergesearch.types import Candidate, Direction, Objective

FAST = {
    QLogNehvi: {"draws": 64, "restarts": 1, "iterations": 5, "samples": 16, "starts": 2},
    Parego: {"draws": 256, "restarts": 2, "starts": 2},
    MmMo: {"pool": 4, "draws": 64, "samples": 16, "starts": 2},
    Random: {},
}


def objectives(count):
    """So many losses."""
    return tuple(Objective(f"o{j}", Direction.MIN) for j in range(count))


def two_bowls(point):
    """Losses (2,) of two quadratics with different optima: a front between 0.3 and 0.7 on all axes."""
    return np.array([np.mean(np.square(point - 0.3)), np.mean(np.square(point - 0.7))])


def searched(kind, dim, evaluations, function=two_bowls, count=2, seed=0, seeds=(), **options):
    """A strategy after so many evaluations, and their losses (n, M)."""
    of = Problem(dim, objectives(count), np.full(dim, 0.4), evaluations, seeds=seeds)
    subject = kind(of, seed, kind.Options(**{**FAST[kind], **options}))
    losses = []
    for number in range(evaluations):
        proposal = subject.ask(number)
        candidate = Candidate(number, proposal.point, proposal.origin)
        subject.asked(candidate)
        losses.append(function(candidate.point))
        subject.tell(candidate, Observation(losses[-1], np.full(count, 1e-3), np.ones(count)))
    return subject, np.array(losses)


@pytest.mark.parametrize("kind", [QLogNehvi, Parego, MmMo])
def test_beats_random(kind):
    """More hypervolume than Sobol points from 20 evaluations of four axes, at both of two seeds."""
    for seed in range(2):
        ours, theirs = (hypervolume(searched(k, 4, 20, seed=seed)[1], np.full(2, 0.2)) for k in (kind, Random))
        assert ours > 1.03 * theirs


@pytest.mark.parametrize("kind", [QLogNehvi, MmMo])
def test_more_than_four_objectives_are_refused(kind):
    """With a sentence that says what to use."""
    with pytest.raises(SpecError, match="the study has 5: use 'parego'"):
        kind(Problem(3, objectives(5), np.full(3, 0.5), 40), 0, kind.Options())


def test_parego_takes_six_objectives():
    """It goes on and its points stay in the cube."""
    centres = np.linspace(0.2, 0.8, 6)
    subject, losses = searched(Parego, 3, 20, lambda x: np.array([np.mean(np.square(x - c)) for c in centres]), 6)
    assert losses.shape == (20, 6)
    assert np.all((subject.recommend() >= 0) & (subject.recommend() <= 1))


def test_tchebycheff_golden():
    """f = (.3, .8), w = (.5, .5) gives .4275 (pareto card 10); its slopes are those of differences."""
    f, w = np.array([[0.3, 0.8]]), np.full(2, 0.5)
    value, slope = tchebycheff(f, w)
    assert value[0] == pytest.approx(0.4275, abs=1e-12)
    assert np.allclose(slope, [[0.025, 0.525]])


def test_seeds_are_evaluated_first():
    """Seeds of the problem follow the start."""
    seeds = (np.zeros(3), np.ones(3))
    subject = Parego(Problem(3, objectives(2), np.full(3, 0.5), 40, seeds=seeds), 0, Parego.Options())
    assert [subject.ask(n).origin for n in range(4)] == ["start", "seed", "seed", "design"]
    assert np.array_equal(subject.ask(2).point, seeds[1])


def test_pending_points_are_avoided():
    """Six asks without a result keep apart."""
    subject, _ = searched(QLogNehvi, 3, 16)
    batch = []
    for number in range(16, 22):
        batch.append(subject.ask(number).point)
        subject.asked(Candidate(number, batch[-1], "sample"))
    assert min(np.linalg.norm(a - b) for i, a in enumerate(batch) for b in batch[:i]) > 1e-3


def test_the_reference_is_a_tenth_beyond_its_base():
    """In units where the best seen is 1 and 0 the start, or the worse of it and the worst on the front."""
    subject, losses = searched(Parego, 3, 16)
    models = subject._models
    means = models.means()
    best, start = means.min(axis=0), means[0]
    assert np.allclose(models.reference(0.1, "start"), start + 0.1 * (start - best))
    worst = np.maximum(start, means[front(means)].max(axis=0))
    assert np.allclose(models.reference(0.1, "front"), worst + 0.1 * (worst - best))
    assert np.allclose(start, losses[0], atol=0.01)


def test_torch_state_is_left_alone():
    """Its global generator is where it was."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch

    before = torch.get_rng_state()
    searched(QLogNehvi, 3, 14)
    assert torch.equal(before, torch.get_rng_state())


def test_three_objectives_and_failures():
    """The exact acquisition takes three objectives, and a failed point is not proposed again."""
    subject, _ = searched(QLogNehvi, 2, 12, lambda x: np.append(two_bowls(x), x[0]), 3)
    point = subject.ask(12).point
    subject.asked(Candidate(12, point, "sample"))
    subject.tell(Candidate(12, point, "sample"), None)
    assert np.abs(subject.ask(13).point - point).max() > 1e-6


def test_the_importance_prior_says_when_it_cannot_help():
    """Without geometry a note says so."""
    subject = QLogNehvi(Problem(3, objectives(2), np.full(3, 0.5), 40), 0, QLogNehvi.Options(importance_prior=True))
    assert "no effect" in subject.notes()[0]


def test_crossover_takes_at_least_one_axis():
    """Each member of the pool changes on one axis or more; two elites are too few."""
    pool, draw = np.full((50, 3), 0.5), rng(0, 0)
    elites = np.array([[0.1, 0.2, 0.3], [0.9, 0.8, 0.7], [0.0, 0.1, 0.05]])
    mixed = crossed(pool, elites, draw)
    assert np.all(np.any(mixed != pool, axis=1))
    assert np.any(mixed == pool)
    assert np.all((mixed >= 0) & (mixed <= 1))
    assert np.array_equal(crossed(pool, elites[:2], draw), pool)


def test_the_screen_keeps_what_is_least_known():
    """Of points near and far from the results the far half stays."""
    known = posterior(np.array([[0.1], [0.2]]), np.zeros((2, 1)), np.full(2, 1e-4), Hyper(np.full(1, 0.2)))
    kept = least_informed([known], np.zeros((0, 1)), np.array([[0.1], [0.9], [0.2], [0.7], [0.4]]))
    assert sorted(kept[:, 0]) == [0.4, 0.7, 0.9]
    kept = least_informed([known], np.array([[0.9]]), np.array([[0.9], [0.5]]))
    assert kept.tolist() == [[0.5]]


@pytest.mark.parametrize("option", [{"weak_to_strong": False}, {"screen": "none"}])
def test_mm_mo_goes_without_its_extras(option):
    """Each can be switched off, and changes what is proposed."""
    with_, without = searched(MmMo, 3, 14)[0], searched(MmMo, 3, 14, **option)[0]
    assert not np.array_equal(with_.ask(14).point, without.ask(14).point)
