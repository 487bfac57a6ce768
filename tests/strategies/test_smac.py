"""SMAC3's forest: better than chance on steps, and nothing of SMAC's habits is left behind."""

import logging
import os
import random
import subprocess
import sys
import tempfile
import threading

import numpy as np
import pytest
from contracts.strategy import ONE, TWO, Session, problem, strategy

from mergesearch.errors import SpecError
from mergesearch.strategies import smac
from mergesearch.strategies.base import Observation, Problem
from mergesearch.types import Candidate

QUICK = {"trees": 10, "draws": 400}
BOTTOM = np.tile([0.5, 0.17, 0.67, 0.33], 4)


def steps(point):
    """A staircase of six steps an axis, with a cliff."""
    return float(np.sum(np.square(np.floor(6.0 * point) / 6.0 - BOTTOM)) + 0.5 * (point[0] > 0.6) * (point[1] > 0.4))


def run(kind, seed, evaluations=40, **options):
    """The least loss found."""
    of = Problem(16, ONE, np.full(16, 0.5), evaluations)
    subject, losses = strategy(kind, of, seed, **options), []
    for number in range(evaluations):
        proposal = subject.ask(number)
        candidate = Candidate(number, proposal.point, proposal.origin)
        subject.asked(candidate)
        losses.append(steps(proposal.point))
        subject.tell(candidate, Observation(np.array(losses[-1:]), np.zeros(1), np.ones(1)))
    return min(losses)


def begun(of, results=20, **options):
    """A strategy beyond its start-up."""
    session = Session(of, strategy("smac", of, **{"startup": 8, **QUICK, **options}))
    session.run(results)
    return session


def loggers():
    """Levels and handlers of everything that logs, the root first."""
    entries = [logging.root, *(e for _, e in sorted(logging.root.manager.loggerDict.items()) if hasattr(e, "handlers"))]
    return [(entry.name, entry.level, tuple(entry.handlers), entry.propagate) for entry in entries]


def test_beats_random_on_steps():
    """Median of three seeds, 40 evaluations of 16 axes: clearly less than what random points find."""
    ours = np.median([run("smac", seed, **QUICK) for seed in range(3)])
    assert ours < 0.85 * np.median([run("random", seed) for seed in range(3)])


def test_it_says_what_to_install(monkeypatch):
    """Without the package the study is refused before anything is evaluated."""
    monkeypatch.setattr(smac, "find_spec", lambda name: None)
    with pytest.raises(SpecError, match=r"pip install 'mergesearch\[smac\]'"):
        strategy("smac", problem())


def test_nothing_is_left_behind(tmp_path, monkeypatch, capfd):
    """No file, thread, logger, random number or word of an ask remains."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    session = begun(problem(), 10)  # SMAC is loaded
    before, state, threads = loggers(), random.getstate(), threading.active_count()
    session.run(5)
    session.subject.recommend()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert list((tmp_path / "temporary").iterdir()) == []
    assert (loggers(), random.getstate(), threading.active_count()) == (before, state, threads)
    assert capfd.readouterr() == ("", "")


def test_another_process_proposes_the_same():
    """Loading SMAC leaves loggers and random numbers as they were, and strings' hashes do not decide."""
    script = (
        f"import sys, random, logging; sys.path[:0] = {[p for p in sys.path if p]!r}\n"
        "from contracts.strategy import Session, problem, strategy\n"
        "of = problem(evaluations=40); session = Session(of, strategy('smac', of, startup=8, trees=5, draws=300))\n"
        "session.run(11)\n"
        "state = random.getstate()\n"
        "points = [p.point.tobytes().hex() for p in session.run(4)]\n"
        "assert 'smac' in sys.modules and state == random.getstate()\n"
        "names = ('distributed', 'tornado', 'bokeh')\n"
        "assert not [n for n in names if logging.getLogger(n).handlers or not logging.getLogger(n).propagate]\n"
        "print(points)\n"
    )
    both = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in ("1", "2")
    ]
    (one, fault), (two, _) = (process.communicate(timeout=100) for process in both)
    assert fault == ""
    assert one == two != ""


def test_a_replay_does_not_load_it():
    """Telling a log needs no SMAC: a study resumes at once."""
    script = (
        f"import sys; sys.path[:0] = {[p for p in sys.path if p]!r}\n"
        "from contracts.strategy import observe, problem, strategy, Candidate\n"
        "import numpy as np\n"
        "of = problem(evaluations=300); subject = strategy('smac', of)\n"
        "for number in range(300):\n"
        "    candidate = Candidate(number, np.full(3, number / 300), 'sample')\n"
        "    subject.asked(candidate); subject.tell(candidate, observe(of, candidate))\n"
        "sys.exit('smac' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_failed_points_are_left():
    """Where evaluations fail beyond x0 = 0.6, later points keep to that border, though the loss falls beyond it."""
    of = Problem(2, ONE, np.full(2, 0.4), 50)
    subject, asked = strategy("smac", of, **QUICK, interleave=0.0), []
    for number in range(40):
        proposal = subject.ask(number)
        candidate = Candidate(number, proposal.point, proposal.origin)
        subject.asked(candidate)
        asked.append(proposal.point[0])
        loss = np.array([-proposal.point[0]])
        subject.tell(candidate, None if asked[-1] > 0.6 else Observation(loss, np.zeros(1), np.ones(1)))
    assert np.median(asked[20:]) < 0.75


def test_the_interleaved_points_are_marked():
    """With `interleave` 1 every proposal is a random one and says so; with 0 none is."""
    of = problem()
    assert begun(of, interleave=1.0).subject.ask(20).origin == "random"
    assert all(begun(of, interleave=0.0).subject.ask(number).origin == "sample" for number in range(20, 24))


def test_several_objectives_are_weighted():
    """Of two objectives the weights decide: the recommendation is among the least weighted losses."""
    of = problem(objectives=TWO, evaluations=40)
    session = begun(of, 40)
    results = [(told.losses @ [2 / 3, 1 / 3], told.point) for told in session.subject._told.results]
    losses = np.array([loss for loss, _ in results])
    chosen = [loss for loss, point in results if np.array_equal(point, session.subject.recommend())]
    assert chosen[0] <= np.quantile(losses, 0.2)
