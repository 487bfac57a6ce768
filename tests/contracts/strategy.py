"""What every strategy promises (`mergesearch/strategies/base.py`). Each check takes the kind of one strategy."""

import random
import subprocess
import sys
from dataclasses import dataclass, field

import numpy as np
import pytest

from mergesearch.errors import SpecError
from mergesearch.plugins import load, parse_options
from mergesearch.strategies import STRATEGIES
from mergesearch.strategies.base import Observation, Problem
from mergesearch.types import Candidate, Direction, Objective

ONE = (Objective("acc", low=0.0, high=1.0),)
TWO = (Objective("acc", low=0.0, high=1.0, weight=2.0), Objective("cost", Direction.MIN, low=0.0))


# options that change how long a strategy thinks, not what it promises
QUICK = {
    "map": {"generations": 3},
    "gp": {"draws": 64, "restarts": 1, "starts": 2, "fantasies": 4},
    "mm_mo": {"startup": 24, "pool": 2, "draws": 32, "samples": 8, "starts": 2},
    "parego": {"draws": 64, "restarts": 1, "starts": 2, "fantasies": 4},
    "qlog_nehvi": {"startup": 24, "draws": 32, "restarts": 1, "iterations": 2, "samples": 8, "starts": 2},
    "smac": {"startup": 20, "trees": 3, "draws": 64},
}
WITH_TORCH = frozenset({"mm_mo", "qlog_nehvi"})  # strategies whose Gaussian processes are BoTorch's
EXAMPLES = 40  # behind each objective of `observe`


def problem(dim=3, objectives=ONE, evaluations=40):
    """A problem whose start is not the middle of the cube, with gradients to be had."""
    return Problem(dim, objectives, np.linspace(0.3, 0.4, dim), evaluations, gradients=("loss", "kl", "entropy"))


def strategy(kind, of, seed=7, **options):
    """A strategy with checked options."""
    cls = load("strategy", STRATEGIES, kind)
    return cls(of, seed, parse_options(f"strategy {kind}", cls.Options, {**QUICK.get(kind, {}), **options}))


def observe(of, candidate, shape=lambda losses, number: losses, sign=1.0):
    """Losses of a smooth bowl with its bottom at 0.6, the same whenever a point is told, and what else was asked for.

    The guides are the bowl itself, the losses are seen through a link. `shape(losses, number)` may spoil the losses,
    `sign` the gradients.
    """
    m, dim = len(of.objectives), of.dim
    distance = float(np.mean(np.square(candidate.point - 0.6)))
    losses = shape(np.array([-1.0 / (1.0 + distance), distance + float(candidate.point[0])])[:m], candidate.number)
    guides = gradients = None
    if candidate.request.gradient:
        slope = 2.0 * (candidate.point - 0.6) / dim
        guides = np.array([distance, distance + float(candidate.point[0])])[:m]
        gradients = sign * np.array([slope, slope + np.eye(dim)[0]])[:m]
    rows = candidate.request.rows(EXAMPLES) if candidate.request.continues is None else np.arange(EXAMPLES)
    wave = np.sin(np.arange(EXAMPLES) + 7.0 * candidate.point.sum())
    wave = 0.05 * (wave - wave.mean())
    examples = tuple((loss + wave[rows]).astype(np.float32) for loss in losses)
    n = np.full(m, float(len(rows)))
    return Observation(losses, 0.05 / np.sqrt(n), n, guides, gradients, examples)


@dataclass
class Session:
    """A study in memory: `workers` candidates are evaluated at a time and end in a shuffled order."""

    of: Problem
    subject: object
    workers: int = 1
    fails: tuple[int, ...] = ()
    lost: tuple[int, ...] = ()  # never told, until nothing else is left to do
    shape: object = staticmethod(lambda losses, number: losses)
    sign: float = 1.0
    log: list = field(default_factory=list)
    busy: list = field(default_factory=list)
    number: int = 0

    def ask(self):
        """Ask, record and announce the next candidate."""
        proposal = self.subject.ask(self.number)
        if proposal is None:
            assert self.busy, "None is only allowed while something asked is not yet told"
            return None
        cost = proposal.request.cost(self.of.gradient_cost)
        self.announce(Candidate(self.number, proposal.point, proposal.origin, proposal.request, cost))
        return proposal

    def announce(self, candidate):
        """Record a candidate and start its evaluation."""
        self.log.append(("asked", candidate, None))
        self.subject.asked(candidate)
        self.busy.append(candidate)
        self.number = candidate.number + 1

    def tell(self):
        """End one evaluation."""
        there = [c for c in self.busy if c.number not in self.lost] or self.busy
        candidate = there[random.Random(self.number).randrange(len(there))]
        self.busy.remove(candidate)
        failed = candidate.number in (*self.fails, *self.lost)
        scored = candidate if candidate.point is not None else Candidate(candidate.number, self.of.start)
        observation = None if failed else observe(self.of, scored, self.shape, self.sign)
        self.log.append(("told", candidate, observation))
        self.subject.tell(candidate, observation)

    def run(self, evaluations):
        """Ask and tell until `evaluations` more were asked; some may still be running."""
        proposals = []
        while len(proposals) < evaluations:
            proposal = self.ask() if len(self.busy) < self.workers else None
            if proposal is None:
                self.tell()
            else:
                proposals.append(proposal)
        return proposals


def replay(log, subject):
    """Tell a strategy the log, asking it nothing."""
    for what, candidate, observation in log:
        if what == "asked":
            subject.asked(candidate)
        else:
            subject.tell(candidate, observation)
    return subject


def same(a, b):
    """True where two proposals agree to the last bit, or both wait."""
    if a is None or b is None:
        return a is b
    return a.origin == b.origin and a.point.tobytes() == b.point.tobytes()


def check_starts_at_the_start(kind):
    """The first proposal is the problem's start, whatever the seed, and does not move with it."""
    of = problem()
    for seed in (0, 1):
        first = strategy(kind, of, seed).ask(0)
        assert first.origin == "start"
        assert first.point.tobytes() == of.start.tobytes()


def check_points_are_in_the_cube(kind):
    """Every proposal is a float64 vector (D,) in the unit cube, with results told in any order and some failing."""
    for dim, evaluations in ((1, 25), (3, 40), (12, 45)):
        of = problem(dim, evaluations=evaluations)
        of = Problem(dim, of.objectives, np.where(np.arange(dim) % 2, 0.0, 0.95), evaluations)
        session = Session(of, strategy(kind, of), workers=4, fails=(2, 5, 6, 20))
        for proposal in session.run(evaluations):
            assert proposal.point.shape == (dim,)
            assert proposal.point.dtype == np.float64
            assert np.all((proposal.point >= 0.0) & (proposal.point <= 1.0))
            assert proposal.origin


def check_asking_changes_nothing(kind):
    """Asking twice gives the same point, and asks in between leave no trace in what follows."""
    of = problem()
    calm, disturbed = Session(of, strategy(kind, of), workers=3), Session(of, strategy(kind, of), workers=3)
    for _ in range(40):
        for number in (disturbed.number, disturbed.number + 3, disturbed.number):
            disturbed.subject.ask(number)
        disturbed.subject.recommend()
        disturbed.subject.diagnostics()
        assert same(calm.subject.ask(calm.number), disturbed.subject.ask(disturbed.number))
        calm.run(1)
        disturbed.run(1)


def check_replay_is_exact(kind):
    """A strategy that was only told the log proposes, recommends and reports the same as the undisturbed one."""
    for objectives in (ONE, TWO):
        of = problem(objectives=objectives)
        session = Session(of, strategy(kind, of), workers=3, fails=(4, 9))
        for stop in (0, 1, 7, 16, 30, 39):
            session.run(stop - session.number)
            resumed = replay(session.log, strategy(kind, of))
            for ahead in (0, 1):
                number = session.number + ahead
                assert same(resumed.ask(number), session.subject.ask(number))
            recommended, again = session.subject.recommend(), resumed.recommend()
            assert (recommended is None) == (again is None)
            assert recommended is None or recommended.tobytes() == again.tobytes()
            assert dict(resumed.diagnostics()) == dict(session.subject.diagnostics())


def check_the_stored_point_wins(kind):
    """In a replay the recorded point counts, even where the strategy would propose another one now."""
    of = problem()
    subject = strategy(kind, of)
    session = Session(of, subject, workers=2)
    for _ in range(30):
        proposal = subject.ask(session.number)
        moved = np.clip(proposal.point + 1e-3, 0.0, 1.0)
        session.announce(Candidate(session.number, moved, proposal.origin))
        if len(session.busy) == 2:
            session.tell()
    assert same(replay(session.log, strategy(kind, of)).ask(30), subject.ask(30))


def check_a_batch_is_distinct(kind):
    """Eight asks without a result give eight different points, announced one by one or all at the end."""
    of = problem()
    session = Session(of, strategy(kind, of), workers=8)
    points = {session.ask().point.tobytes() for _ in range(8)}
    assert len(points) == 8
    ahead = strategy(kind, of)
    assert {ahead.ask(number).point.tobytes() for number in range(8)} == points


def check_a_late_batch_is_distinct(kind):
    """Eight asks in a row give eight new points after results are in, too."""
    of = problem()
    session = Session(of, strategy(kind, of))
    before = {p.point.tobytes() for p in session.run(30)}
    session.workers = 9
    batch = {p.point.tobytes() for p in session.run(8)}
    assert len(batch) == 8
    assert not batch & before


def check_failures_are_survived(kind):
    """A study in which every candidate fails goes on; one that failed first recovers."""
    of = problem()
    session = Session(of, strategy(kind, of), workers=2, fails=tuple(range(40)))
    assert len(session.run(40)) == 40
    recovering = Session(of, strategy(kind, of), workers=2, fails=tuple(range(12)))
    assert len(recovering.run(40)) == 40
    assert all(np.isfinite(v) for v in recovering.subject.diagnostics().values())


def check_foreign_candidates_are_welcome(kind):
    """Candidates of others (a recommended point, a baseline without a point) are announced and told like its own."""
    of = problem()
    session = Session(of, strategy(kind, of))
    for number, origin in enumerate(("baseline:base", "baseline:expert:a", "baseline:expert:b", "baseline:uniform")):
        session.announce(Candidate(number, None, origin))
        session.tell()
    assert session.ask().origin == "start"
    session.run(15)
    session.announce(Candidate(session.number, np.full(3, 0.61), "recommended"))
    session.announce(Candidate(session.number, np.ones(3), "elsewhere"))
    while session.busy:
        session.tell()
    session.run(15)
    assert same(replay(session.log, strategy(kind, of)).ask(40), session.subject.ask(40))


def check_tells_without_announcement_are_survived(kind):
    """A candidate told though it was never announced does no harm."""
    of = problem()
    subject = strategy(kind, of)
    for number in range(20):
        candidate = Candidate(number, np.full(3, number / 20), "elsewhere")
        subject.tell(candidate, observe(of, candidate))
    assert subject.ask(20) is not None


def check_seeds_differ(kind):
    """Another seed gives other points after the start, the same seed the same ones."""
    of = problem()
    points = [Session(of, strategy(kind, of, seed)).run(2)[1].point.tobytes() for seed in (0, 1, 0)]
    assert points[0] == points[2] != points[1]


def check_global_random_state_is_left_alone(kind):
    """Neither numpy's nor Python's global generator is read or written."""
    of = problem(objectives=TWO, evaluations=20)
    states = []
    for seed in (1, 2):
        np.random.seed(seed)  # noqa: NPY002 (the point of the test)
        random.seed(seed)
        ours, theirs = np.random.get_state(), random.getstate()  # noqa: NPY002
        session = Session(of, strategy(kind, of))
        states.append([p.point.tobytes() for p in session.run(20)])
        after = np.random.get_state()  # noqa: NPY002
        assert np.array_equal(ours[1], after[1])
        assert ours[2:] == after[2:]
        assert random.getstate() == theirs
    assert states[0] == states[1]


def check_nothing_is_shared_with_the_caller(kind):
    """Writing into a proposal or a recommendation changes neither the strategy nor the problem."""
    of = problem()
    before = of.start.copy()
    clean, soiled = Session(of, strategy(kind, of)), Session(of, strategy(kind, of))
    for _ in range(30):
        proposal = soiled.subject.ask(soiled.number)
        for point in (None if proposal is None else proposal.point, soiled.subject.recommend()):
            if point is not None and point.flags.writeable and point is not of.start:
                point[:] = 0.123
        a, b = clean.run(1)[0], soiled.run(1)[0]
        assert same(a, b)
    assert np.array_equal(of.start, before)


def check_recommendation_and_diagnostics(kind):
    """It recommends a point of the cube or None, and reports finite floats, at any moment."""
    for objectives in (ONE, TWO):
        of = problem(objectives=objectives, evaluations=30)
        session = Session(of, strategy(kind, of), workers=2)
        for _ in range(30):
            point = session.subject.recommend()
            assert point is None or (point.shape == (3,) and np.all((point >= 0) & (point <= 1)))
            figures = session.subject.diagnostics()
            assert all(isinstance(v, float) and np.isfinite(v) for v in figures.values()), figures
            session.run(1)


def check_spoiled_losses_are_survived(kind):
    """Constant losses, one constant objective, huge and tiny ones, and half of the candidates failing."""
    shapes = (
        lambda losses, number: np.zeros_like(losses),
        lambda losses, number: np.append(losses[:-1], 0.25),
        lambda losses, number: losses * 1e12,
        lambda losses, number: losses * 1e-12,
        lambda losses, number: np.round(losses, 1),
    )
    for shape in shapes:
        for objectives in (ONE, TWO):
            of = problem(objectives=objectives)
            session = Session(of, strategy(kind, of), workers=2, fails=tuple(range(1, 40, 2)), shape=shape)
            for proposal in session.run(36):
                assert np.all((proposal.point >= 0.0) & (proposal.point <= 1.0))
            assert all(np.isfinite(v) for v in session.subject.diagnostics().values())
            point = session.subject.recommend()
            assert point is None or np.all((point >= 0.0) & (point <= 1.0))


def check_axes_without_effect_are_survived(kind):
    """Of twelve axes only the first matters; the others stay in the cube and the budget ends."""
    of = problem(12)
    session = Session(of, strategy(kind, of), workers=3, shape=lambda losses, number: losses)
    assert len(session.run(40)) == 40


def check_lost_results_are_survived(kind):
    """Every fourth result never comes, until the pool gives it up as failed; the study goes on meanwhile."""
    of = problem()
    session = Session(of, strategy(kind, of), workers=20, lost=tuple(range(3, 40, 4)))
    assert len(session.run(40)) == 40


def check_a_second_tell_does_no_harm(kind):
    """A result that is told twice leaves a strategy that goes on."""
    of = problem()
    session = Session(of, strategy(kind, of))
    for _ in range(20):
        session.run(1)
        while session.busy:
            session.tell()
        candidate, observation = session.log[-1][1], session.log[-1][2]
        session.subject.tell(candidate, observation)
    assert len(session.run(10)) == 10


def check_wrong_gradients_are_survived(kind):
    """Gradients of the wrong sign: the budget ends with points of the cube; whoever trusts gradients says something."""
    of = problem()
    session = Session(of, strategy(kind, of), sign=-1.0)
    proposals = session.run(40)
    assert all(np.all((p.point >= 0.0) & (p.point <= 1.0)) for p in proposals)


def check_notes_only_grow(kind):
    """Notes are sentences; what was once said stays said."""
    of = problem(objectives=TWO)
    session, before = Session(of, strategy(kind, of)), ()
    for _ in range(6):
        session.run(5)
        notes = session.subject.notes()
        assert all(isinstance(note, str) and note for note in notes)
        assert notes[: len(before)] == before
        before = notes


def check_tiny_budgets(kind):
    """A budget of one evaluation, or more asks than the budget, are no error."""
    of = problem(evaluations=1)
    assert len(Session(of, strategy(kind, of)).run(12)) == 12


def check_options_are_strict(kind):
    """An unknown option is refused with a sentence."""
    with pytest.raises(SpecError, match="unknown key"):
        strategy(kind, problem(), no_such_option=1)


def check_it_is_silent_and_light(kind):
    """It prints nothing but its one warning of a small budget, and brings in neither ray nor SQLAlchemy.

    Nor torch, unless its models are BoTorch's.
    """
    heavy = {"ray", "sqlalchemy"} | (set() if kind in WITH_TORCH else {"torch"})
    script = (
        f"import sys; sys.path[:0] = {[p for p in sys.path if p]!r}\n"
        "from contracts.strategy import Session, problem, strategy\n"
        f"of = problem(evaluations=25); Session(of, strategy({kind!r}, of)).run(25)\n"
        f"sys.exit(', '.join({heavy!r} & set(sys.modules)) or 0)\n"
    )
    command = [sys.executable, "-W", "error::UserWarning", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    lines = [line for line in done.stderr.splitlines() if "evaluations are few" not in line]
    assert (done.returncode, done.stdout, [line for line in lines if line]) == (0, "", [])


CHECKS = [check for name, check in sorted(globals().items()) if name.startswith("check_")]
