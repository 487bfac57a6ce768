"""Any optimizer of Nevergrad by its name, one objective (several as a weighted sum). To compare, or to try another.

Rapin and Teytaud, https://github.com/facebookresearch/nevergrad. What it does not have is added here: resuming. An
optimizer is rebuilt from the log when a point is asked for, has a generator of its own, and the recorded points count:
one that differs from what it proposed is told to it as somebody else's. Optimizers that wait for a result before they
can go on (Cobyla, Powell, ...) are refused.
"""

import random
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, cast, final

import numpy as np
from pydantic import Field, PositiveInt, field_validator

from mergesearch.plugins import PluginOptions, did_you_mean
from mergesearch.strategies.base import Observation, Problem, Proposal, Strategy, rng, weighted_loss
from mergesearch.strategies.turns import Turns
from mergesearch.types import Candidate, Vector

_DEFAULT = "LargeCMA"  # best of 14 by the true value found, over noisy quadratics of 24 and 96 axes
_TRIES = 5  # asks for a point that is not a copy of a known one
_JITTER = 0.01  # then one is moved by this much, in unit-cube widths


class Options(PluginOptions):
    """`optimizer`: its name in Nevergrad's registry. `sigma0`: standard deviation of a mutation, in unit-cube widths;
    the CMA variants begin with a multiple of it (LargeCMA: 0.9 times, from 18 axes on 0.45 times). `workers`: how many
    evaluations at a time it plans for (the study may run any number)."""

    optimizer: str = _DEFAULT
    sigma0: float = Field(default=0.2, gt=0, le=1)
    workers: PositiveInt = 2

    @field_validator("optimizer")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name == _DEFAULT:
            return name  # Nevergrad takes seconds to load: not for the usual case
        known = _usable()
        if name not in known:
            reason = " waits for each result" if name in _registry() else " is unknown to Nevergrad"
            raise ValueError(f"optimizer {name!r}{reason}{did_you_mean(name, known)}")
        fault = _fault(name)
        if fault:
            raise ValueError(f"optimizer {name!r} cannot be used here: {fault}")
        return name


@dataclass(frozen=True, eq=False)
class _Entry:
    """A log entry: `point` (D,) was announced (`loss` None) or told (its weighted loss; NaN: it failed)."""

    number: int
    point: Vector
    own: bool
    loss: float | None = None


@final
class Nevergrad(Strategy):
    """Strategy; see `strategies/base.py` for the contract.

    The start is evaluated first and told as somebody else's point. A failure is told as the worst loss so far.
    """

    Options: ClassVar[type[PluginOptions]] = Options
    MULTI_OBJECTIVE: ClassVar[bool] = False

    def __init__(self, problem: Problem, seed: int, options: PluginOptions) -> None:
        self._problem, self._seed, self._options = problem, seed, cast(Options, options)
        self._turns = Turns()
        self._log: list[_Entry] = []
        self._told = self._failed = 0
        self._twin: _Twin | None = None

    def ask(self, number: int) -> Proposal | None:
        """Never None."""
        turn = self._turns.of(number)
        if turn == 0:
            return Proposal(self._problem.start, "start")
        place = turn - max(self._turns.taken, 1)
        return Proposal(self._current().ahead(place, number), "sample")

    def asked(self, candidate: Candidate) -> None:
        """Records which point was announced."""
        self._turns = self._turns.after(candidate)
        if candidate.point is not None:
            self._log.append(_Entry(candidate.number, candidate.point, candidate.origin == "sample"))

    def tell(self, candidate: Candidate, observation: Observation | None) -> None:
        """Records a result."""
        if candidate.point is None:
            return
        self._told += 1
        self._failed += observation is None
        loss = float("nan") if observation is None else weighted_loss(self._problem, observation.losses)
        self._log.append(_Entry(candidate.number, candidate.point, candidate.origin == "sample", loss))

    def recommend(self) -> Vector | None:
        """What the optimizer recommends; None before anything was told."""
        return self._current().recommend() if self._told > self._failed else None

    def diagnostics(self) -> Mapping[str, float]:
        """Counts of told and failed candidates."""
        return {"told": float(self._told), "failed": float(self._failed)}

    def _current(self) -> "_Twin":
        """Nevergrad's optimizer at the end of the log. It is built again when it was asked what was not announced."""
        while True:
            if self._twin is None:
                self._twin = _Twin(self._problem, self._seed, self._options)
            if all(self._twin.follow(entry) for entry in self._log[self._twin.position :]):
                return self._twin
            self._twin = None


@final
class _Twin:
    """Nevergrad's optimizer as of a position in the log, and what it was asked beyond it."""

    def __init__(self, problem: Problem, seed: int, options: Options) -> None:
        self.position = 0
        self._seed, self._dim = seed, problem.dim
        self._pending: dict[int, Any] = {}
        self._ahead: list[Any] = []
        self._known: set[bytes] = set()
        self._worst: float | None = None
        registry = _registry()
        self._world = _World(int(rng(seed, 0).integers(2**31)))
        with self._world.entered():
            import nevergrad

            array = nevergrad.p.Array(init=self._padded(problem.start), lower=0.0, upper=1.0)
            array.set_mutation(sigma=options.sigma0)
            array.random_state = np.random.RandomState(int(rng(seed, 1).integers(2**31)))
            budget = max(int(problem.evaluations), 2)
            self._native = registry[options.optimizer](array, budget=budget, num_workers=options.workers)

    def follow(self, entry: _Entry) -> bool:
        """Takes in the next log entry. False: it was asked for more than was announced before a result came."""
        if entry.loss is not None and self._ahead:
            return False
        self.position += 1
        with self._world.entered():
            if entry.loss is None:
                self._announce(entry)
            else:
                self._tell(entry, entry.loss)
        return True

    def ahead(self, place: int, number: int) -> Vector:
        """The point (D,) it proposes as the `place`-th after those announced, from 0."""
        with self._world.entered():
            while len(self._ahead) <= place:
                self._ahead.append(self._ask())
        point = self._point(self._ahead[place])
        if point.tobytes() in self._known or any(_same(self._point(c), point) for c in self._ahead[:place]):
            step = _JITTER * rng(self._seed, number, purpose=1).standard_normal(len(point))
            point = np.abs(np.clip(point + step, -1.0, 2.0))
            point = np.where(point > 1.0, 2.0 - point, point)  # reflected at the faces: never clipped to a copy
        return point

    def recommend(self) -> Vector:
        """Its recommendation (D,)."""
        generator = self._native.parametrization.random_state
        before = generator.get_state()
        with self._world.entered():
            point = self._point(self._native.provide_recommendation())
        generator.set_state(before)
        return point

    def _padded(self, point: Vector) -> Vector:
        """A single axis gets a second one without effect: with one, the CMA variants turn to a package that is missing
        and stay there for every optimizer of the process."""
        return np.append(point, 0.5) if self._dim == 1 else np.array(point)

    def _point(self, candidate: Any) -> Vector:
        return np.clip(np.asarray(candidate.value, dtype=np.float64), 0.0, 1.0)[: self._dim]

    def _ask(self) -> Any:
        candidate = self._native.ask()
        for _ in range(_TRIES):
            point = self._point(candidate)
            if point.tobytes() not in self._known and not any(_same(self._point(c), point) for c in self._ahead):
                break
            candidate = self._native.ask()
        return candidate

    def _announce(self, entry: _Entry) -> None:
        if entry.own:
            candidate = self._ahead.pop(0) if self._ahead else self._ask()
            if np.allclose(
                self._point(candidate), entry.point, rtol=0.0, atol=1e-9
            ):  # a stage's round trip is not exact
                self._pending[entry.number] = candidate
        self._known.add(entry.point.tobytes())

    def _tell(self, entry: _Entry, loss: float) -> None:
        if np.isnan(loss):
            if self._worst is None:
                return
            loss = self._worst
        self._worst = loss if self._worst is None else max(loss, self._worst)
        candidate = self._pending.pop(entry.number, None)
        if candidate is None:
            candidate = self._native.parametrization.spawn_child(new_value=self._padded(entry.point))
        from nevergrad.common.errors import TellNotAskedNotSupportedError

        try:
            self._native.tell(candidate, loss)
        except TellNotAskedNotSupportedError:
            return  # an optimizer that learns from its own points alone


def _same(a: Vector, b: Vector) -> bool:
    return a.tobytes() == b.tobytes()


@final
class _World:
    """Global random states of its own: some optimizers draw from numpy's or Python's, and must find the same there.

    Within `entered` they stand in for the process' own, which are put back. Warnings are dropped there, too: Nevergrad
    warns of its own business, and adds filters to the global list.
    """

    def __init__(self, seed: int) -> None:
        self._numpy: Any = np.random.RandomState(seed).get_state()
        self._python: Any = random.Random(seed).getstate()

    @contextmanager
    def entered(self) -> Iterator[None]:
        before = np.random.get_state(), random.getstate()  # noqa: NPY002
        np.random.set_state(self._numpy)  # noqa: NPY002
        random.setstate(self._python)
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                yield
        finally:
            self._numpy, self._python = np.random.get_state(), random.getstate()  # noqa: NPY002
            np.random.set_state(before[0])  # noqa: NPY002
            random.setstate(before[1])


def _registry() -> Mapping[str, Any]:
    with _World(0).entered():
        import nevergrad
    return cast(Mapping[str, Any], nevergrad.optimizers.registry)


def _usable() -> list[str]:
    """Names of the optimizers that can be asked again before they are told."""
    waits = ("recast", "no_parallelization")
    return sorted(n for n, o in _registry().items() if not any(getattr(o, flag, False) for flag in waits))


def _fault(name: str) -> str:
    """Why an optimizer cannot be used: what it raises when asked twice; '' if nothing."""
    registry = _registry()
    with _World(0).entered():
        try:
            native = registry[name](3, budget=20, num_workers=2)
            native.ask()
            native.ask()
        except Exception as error:  # noqa: BLE001 (hundreds of classes, some of packages that are missing)
            return f"{type(error).__name__}: {error}"
    return ""
