"""The machinery of strategies that ask for a gradient on a batch of examples, step when told, and check now and then.

One trajectory, its steps one after another. The windows of a step are asked for at the iterate and averaged: as many
as the caller wants before the first of them comes back (synchronous data parallelism), never asynchronous Adam. Each
gradient is taken at a point of its own, 0.001 of the unit cube off the iterate: the mean over a run is the gradient of
a loss smoothed by that much, and no point is recorded twice. The order of examples is fixed; windows tile it, in
another order in every epoch. Where the budget gives large windows, workers that are free at once share one out.

Full plain evaluations of past iterates ('monitor') say which was best; the start is always among them. Three guards:
the loss rises while its gradient is followed (a wrong sign, or steps too long): back to the best monitored point with
shorter steps, and at the second time no gradient is followed any more; two monitored iterates in a row that are worse
than the start by more than the noise: stop; gradients that fail several times in a row: half the way back. After a
stop, and when its budget of gradients is spent, it tries scale factors per expert around the best point; one of these
must win by half a standard error to be recommended, since the luckiest of many is not as good as it looks.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final

import numpy as np
from numpy.typing import NDArray

from mergesearch.strategies.base import Observation, Problem, Proposal, rng
from mergesearch.strategies.learning.monitor import Monitor, rises
from mergesearch.strategies.learning.natural import Natural
from mergesearch.strategies.learning.rules import Pace, Rule, Settings
from mergesearch.strategies.turns import Turns
from mergesearch.types import Candidate, Request, Vector

_JITTER = 1e-3
_MOST = 8  # windows of one step, where the caller decides
_EVERY = 10  # steps between two looks at the trend of the loss
_ROW, _HOPELESS = 3, 9  # failed gradients in a row after which it backs off, and after which it gives them up
_ORDER, _SHAKE, _TAIL = 1, 2, 3  # purposes of random numbers


@dataclass
class _Step:
    """The step under way: windows asked and not failed, those still out, what came back by number, and its share."""

    index: int = 0
    asked: int = 0
    out: int = 0
    closed: bool = False
    share: float = 0.0
    results: dict[int, tuple[NDArray[np.float64], Vector]] = field(default_factory=dict)


@final
class Learner:
    """Asks, steps and monitors for one `Rule`. Its state is a function of the log; the calls are a strategy's."""

    def __init__(self, problem: Problem, seed: int, settings: Settings, rule: Rule, natural: Natural) -> None:
        self._problem, self._seed, self._settings = problem, seed, settings
        self._rule, self._natural = rule, natural
        self._monitor = Monitor(problem, settings.monitor)
        cost = Request(gradient=settings.monitor).cost(problem.gradient_cost)
        self._checks = int(np.clip(0.12 * problem.evaluations / cost, 2, 8))
        kept = 1.0 + cost * (1 + self._checks)  # the recommended point, the start and the checks
        self._budget = max(problem.evaluations - kept, 0.3 * problem.evaluations)
        self._turns, self._step = Turns(), _Step()
        self._pending: dict[int, int] = {}  # candidate number -> step index of a gradient, -1 of anything else
        self._due: list[Vector] = []
        self._busiest = self._checked = self._windows = self._row = self._alarms = self._samples = self._failed = 0
        self._spent, self._shrink, self._stopped = 0.0, 1.0, False
        self._good = np.array(rule.values)
        self._path: list[Vector] = []
        self._guides: list[float] = []  # of each step since the last restart
        self._foreseen = 0.0  # change of the loss that the gradients promised since then
        self._scales: Vector | None = None
        self._examples = math.inf
        self._notes: list[str] = []
        if not settings.loss:
            self.stop("the study gives no gradients")

    def ask(self, number: int) -> Proposal | None:
        """Checks that are due, then windows of the step; None while a full step is awaited."""
        ahead = max(number - self._turns.following, 0)
        if self._turns.taken == 0:
            if ahead == 0:
                return Proposal(self._problem.start, "start", Request(gradient=self._settings.monitor))
            ahead -= 1
        if ahead < len(self._due):
            return Proposal(self._due[ahead], "monitor", Request(gradient=self._settings.monitor))
        ahead -= len(self._due)
        if ahead < (room := self._room()) or (room and not self._pending):
            point = self._natural.point(self._rule.values)
            return Proposal(self._shaken(point, number, _JITTER), "gradient", self._request(ahead))
        return self._sample(number) if self._over or not self._pending else None

    def asked(self, candidate: Candidate) -> None:
        """Remembers what the candidate is for."""
        self._turns = self._turns.after(candidate)
        if candidate.point is None:
            return
        self._pending[candidate.number] = -1
        self._busiest = max(self._busiest, len(self._pending))
        if candidate.origin == "monitor" and self._due:
            self._due.pop(0)
        elif candidate.origin == "gradient" and candidate.request.gradient == self._settings.loss and not self._over:
            self._pending[candidate.number] = self._step.index
            self._spent += candidate.request.cost(self._problem.gradient_cost)
            self._windows += 1
            self._step.asked += 1
            self._step.out += 1

    def tell(self, candidate: Candidate, observation: Observation | None) -> None:
        """Adds one result; steps when all windows of the step are back."""
        step = self._pending.pop(candidate.number, -1)
        if candidate.point is None:
            return
        self._failed += observation is None
        self._samples += candidate.origin == "sample"
        if observation is not None and candidate.request.complete:
            self._examples = min(self._examples, max(float(observation.n.min()), 1.0))
            if self._monitor.add(candidate, observation):
                self._samples = 0
            self._guard()
        if step == self._step.index and not self._stopped:
            self._window(candidate, observation)

    def recommend(self) -> Vector | None:
        """The best monitored point, the start among them; None before any came back."""
        best = self._monitor.best
        return None if best is None else best.point

    def diagnostics(self) -> Mapping[str, float]:
        """Steps, share of the gradient budget spent, windows in an epoch, the loss it follows, bounds, failures."""
        best, start = self._monitor.best, self._monitor.start
        return {
            "steps": float(self._step.index),
            "progress": min(self._spent / self._budget, 1.0),
            "windows_per_epoch": float(self._parts()),
            "guide": self._guides[-1] if self._guides else 0.0,
            "at_bounds": self._natural.at_bounds(self._rule.values),
            "gain": start.loss - best.loss if best and start else 0.0,
            "monitored": float(self._monitor.count),
            "stopped": float(self._stopped),
            "failed": float(self._failed),
            **self._rule.diagnostics(),
        }

    def notes(self) -> tuple[str, ...]:
        """What it decided, oldest first."""
        return tuple(self._notes)

    def stop(self, why: str) -> None:
        """Follows no gradient from now on; later calls change nothing."""
        if not self._stopped:
            self._stopped = True
            self._due.clear()
            self._notes.append(f"{why}; no gradient is followed any further, the best monitored point is kept")

    def converged(self, why: str) -> None:
        """Follows no gradient from now on, as there is nothing left to win; checks what is not yet checked."""
        if not self._stopped:
            self._finish()
            self._stopped = True
            self._notes.append(f"{why}: no gradient is followed any further")

    @property
    def active(self) -> bool:
        """Whether it still follows gradients."""
        return not self._over

    @property
    def _over(self) -> bool:
        return self._stopped or (self._spent >= self._budget * (1.0 - 1e-9) and self._step.asked == 0)

    def _planned(self) -> int:
        """Windows that tile the examples, for one worker: as the steps aimed at and the least batch have it."""
        share = self._budget / (self._problem.gradient_cost * self._settings.steps)
        return max(math.floor(1.0 / max(share, self._least) + 1e-9), 1)

    def _parts(self) -> int:
        """Windows that tile the examples. Workers seen to be free at once share out what would be one window."""
        if not math.isfinite(self._examples):
            return max(self._planned(), _MOST)
        return max(self._planned(), min(self._busiest, _MOST, math.floor(1.0 / self._least + 1e-9)))

    @property
    def _least(self) -> float:
        """Smallest share of the examples in a window."""
        return self._settings.batch / self._examples if math.isfinite(self._examples) else 0.05

    def _request(self, ahead: int) -> Request:
        parts = self._parts()
        epoch, place = divmod(self._windows + ahead, parts)
        order = rng(self._seed, epoch, _ORDER).permutation(parts)
        return Request(1.0 / parts, float(order[place]) / parts, self._settings.loss)

    def _room(self) -> int:
        """Further windows that the step may take now."""
        if self._over:
            return 0
        left = math.ceil((self._budget - self._spent) * self._parts() / self._problem.gradient_cost - 1e-9)
        if self._settings.batches_per_step is not None:
            return max(min(self._settings.batches_per_step - self._step.asked, left), 0)
        most = min(_MOST, self._parts())  # the same examples twice would be no better than once
        return 0 if self._step.closed else max(min(most - self._step.asked, left), 0)

    def _shaken(self, point: Vector, number: int, width: float) -> Vector:
        """A point beside this one, reflected at the walls."""
        moved = np.abs(point + width * rng(self._seed, number, _SHAKE).standard_normal(len(point)))
        return np.asarray(np.clip(np.where(moved > 1.0, 2.0 - moved, moved), 0.0, 1.0))

    def _sample(self, number: int) -> Proposal:
        """Scale factors per expert of the best point, nearer to it the more of them were of no use."""
        best = self._monitor.best
        values = self._natural.values(self._problem.start if best is None else best.point)
        width = max(0.1 * 0.93**self._samples, 0.01)
        generator = rng(self._seed, number, _TAIL)
        factors = 1.0 + width * generator.standard_normal(self._natural.experts + 1)  # the last: all other axes, held
        factors[-1] = 1.0
        noise = 0.1 * width * np.minimum(self._natural.high - self._natural.low, 1.0)
        noise = np.where(self._natural.expert >= 0, noise, 0.0) * generator.standard_normal(len(values))
        point = self._natural.point(values * factors[self._natural.expert] + noise)
        return Proposal(self._shaken(point, number, _JITTER), "sample")

    def _window(self, candidate: Candidate, observation: Observation | None) -> None:
        """Takes in one window of the step under way."""
        step = self._step
        step.out -= 1
        step.closed = True
        found = None if observation is None else (observation.gradients, observation.guides)
        if found is None or found[0] is None or found[1] is None or not np.isfinite([*found[0].flat, *found[1]]).all():
            step.asked -= 1
            self._failure()
        else:
            assert candidate.point is not None
            self._row = 0
            step.results[candidate.number] = self._natural.gradients(candidate.point, found[0]), found[1]
            step.share += candidate.request.share
        if self._stopped or self._step is not step or step.out:
            return
        spent = self._spent >= self._budget * (1.0 - 1e-9)
        if step.results and (spent or step.asked >= (self._settings.batches_per_step or 1)):
            self._move(list(zip(*(step.results[n] for n in sorted(step.results)), strict=True)))
        elif not step.results:
            self._step = _Step(step.index + 1)  # all of them failed: the next windows
        if spent:
            self._finish()

    def _failure(self) -> None:
        self._row += 1
        if self._row >= _HOPELESS:
            self.stop(f"the gradient could not be evaluated {self._row} times in a row")
        elif self._row % _ROW == 0:
            self._back(0.5 * (self._rule.values + self._good))

    def _move(self, found: list[tuple[NDArray[np.float64], ...]]) -> None:
        """Steps with the mean over the windows."""
        gradients, guides = np.mean(found[0], axis=0), np.mean(found[1], axis=0)
        if self._scales is None:
            level = np.abs(guides)
            self._scales = np.maximum(level, max(0.05 * level.mean(), 1e-12))
        weights = np.array([o.weight for o in self._problem.objectives])
        weights = weights / weights.sum()
        if self._settings.balance:
            weights = weights / self._scales
        before = np.array(self._rule.values)
        self._good = before
        progress, share = self._spent / self._budget, self._step.share
        before_it = max(progress - share * self._problem.gradient_cost / self._budget, 0.0)
        self._rule.step(gradients, weights, Pace(before_it, share * self._planned(), self._shrink))
        self._path.append(np.array(self._rule.values))
        self._guides.append(float(weights @ guides))
        self._foreseen += float(weights @ gradients @ (self._rule.values - before))
        self._step = _Step(self._step.index + 1)
        self._look()
        if progress >= (self._checked + 1) / self._checks and not self._complete and not self._over:
            self._checked = math.floor(progress * self._checks + 1e-9)
            self._check(self._rule.values)

    @property
    def _complete(self) -> bool:
        """Whether a gradient's evaluation is a check by itself."""
        return self._parts() == 1 and self._settings.monitor in ("", self._settings.loss)

    def _look(self) -> None:
        """Compares what the gradients promised with what the loss did."""
        if len(self._guides) % _EVERY or self._foreseen >= 0.0 or not rises(self._guides):
            return
        self._alarms += 1
        seen = f"the loss {self._settings.loss!r} rose over {len(self._guides)} steps along its own gradient"
        if self._alarms > 1:
            self.stop(f"{seen}, again: the gradient is wrong, or the loss too noisy")
            return
        self._shrink *= 0.3
        best = self._monitor.best
        self._back(self._good if best is None else self._natural.values(best.point))
        self._notes.append(f"{seen}; back to the best monitored point, with steps 0.3 as long")

    def _back(self, values: Vector) -> None:
        """Goes on from other values; windows that are still out do not count."""
        self._rule.restart(values)
        self._guides, self._foreseen = [], 0.0
        self._step = _Step(self._step.index + 1)

    def _check(self, values: Vector) -> None:
        point = self._natural.point(values)
        if not self._monitor.knows(point) and not any(np.array_equal(point, other) for other in self._due):
            self._due.append(point)

    def _finish(self) -> None:
        """The gradient budget is spent: check the last iterate and the mean of the last third."""
        if self._path and not self._stopped:
            self._check(self._path[-1])
            self._check(np.mean(self._path[-max(len(self._path) // 3, 1) :], axis=0))

    def _guard(self) -> None:
        row = 5 if self._complete else 2  # every step is a check where gradients come with complete evaluations
        if self._settings.guarded and self.active and self._monitor.worse(row):
            self.stop(f"{row} monitored iterates in a row were worse than the start by more than the noise")
