"""The search space: named axes, and the one mapping from the unit cube to an operator's settings.

A *knob* is what an operator offers (a coefficient, a density). An *axis* is one searched number: a knob of one expert
in one layer group, or of a whole study. Strategies see the unit cube and nothing else.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mergesearch.errors import SpecError
from mergesearch.plugins import did_you_mean
from mergesearch.types import Vector, frozen_array

Settings: TypeAlias = Mapping[str, NDArray[np.float64]]
"""knob name -> (G, K): its value in each of G layer groups for each of K experts."""


class Per(StrEnum):
    """By what a knob may vary."""

    STUDY = "study"
    EXPERT = "expert"
    GROUP = "group"
    EXPERT_GROUP = "expert_group"

    @property
    def coarser(self) -> "tuple[Per, ...]":
        """What a knob that may vary by this may vary by in a study: this, or less finely."""
        return tuple(Per) if self is Per.EXPERT_GROUP else tuple(dict.fromkeys((Per.STUDY, self)))


class Scale(StrEnum):
    """How an axis runs from `low` to `high`: evenly, evenly in log x, or evenly in log(x / (1 - x))."""

    LINEAR = "linear"
    LOG = "log"
    LOGIT = "logit"


def _forward(scale: Scale, value: float) -> float:
    if scale is Scale.LOG:
        return math.log(value)
    if scale is Scale.LOGIT:
        return math.log(value / (1.0 - value))
    return value


@dataclass(frozen=True)
class Knob:
    """A number that an operator offers. `init=None` means 1/K for K experts, `high=None` K. `per` is the finest it may
    vary by; `searched` says whether a study that does not name it searches it (the coefficients) or holds it at
    `init`; a `whole` knob takes whole numbers only."""

    name: str
    low: float
    high: float | None
    init: float | None
    per: Per = Per.EXPERT_GROUP
    scale: Scale = Scale.LINEAR
    searched: bool = False
    doc: str = ""
    whole: bool = False

    def top(self, experts: int) -> float:
        """The upper end of the range for that many experts."""
        return float(experts) if self.high is None else self.high

    def start(self, experts: int) -> float:
        """Where a search begins for that many experts, within the range."""
        return min(1.0 / experts if self.init is None else self.init, self.top(experts))


@dataclass(frozen=True)
class Axis:
    """One searched number with its range in natural units; `init` is where a search starts. A `whole` axis takes each
    of its whole numbers over an equal share of the unit interval."""

    name: str
    low: float
    high: float
    init: float
    scale: Scale = Scale.LINEAR
    whole: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise SpecError(f"axis {self.name!r}: low {self.low} must be below high {self.high}")
        if not self.low <= self.init <= self.high:
            raise SpecError(f"axis {self.name!r}: init {self.init} must lie in [{self.low}, {self.high}]")
        if self.scale is Scale.LOG and self.low <= 0:
            raise SpecError(f"axis {self.name!r}: a log scale needs low > 0, got {self.low}")
        if self.scale is Scale.LOGIT and not (self.low > 0 and self.high < 1):
            raise SpecError(f"axis {self.name!r}: a logit scale needs 0 < low and high < 1")
        if self.whole and self.scale is not Scale.LINEAR:
            raise SpecError(f"axis {self.name!r}: whole numbers run on a linear scale, not {self.scale.value!r}")
        if self.whole and not all(float(x).is_integer() for x in (self.low, self.high, self.init)):
            raise SpecError(
                f"axis {self.name!r} takes whole numbers: low {self.low}, high {self.high}, init {self.init}"
            )

    def value(self, unit: float) -> float:
        """Natural value of a coordinate in [0, 1]; exactly `low` and `high` at the ends."""
        if unit <= 0.0:
            return self.low
        if unit >= 1.0:
            return self.high
        if self.whole:
            return min(math.floor(self.low + unit * (self.high - self.low + 1.0)), self.high)
        a, b = _forward(self.scale, self.low), _forward(self.scale, self.high)
        inner = a + unit * (b - a)
        if self.scale is Scale.LOG:
            inner = math.exp(inner)
        elif self.scale is Scale.LOGIT:
            inner = 1.0 / (1.0 + math.exp(-inner))
        return min(max(inner, self.low), self.high)

    def slope(self, unit: float) -> float:
        """Change of the natural value with the coordinate; 0.0 for whole numbers, which have none."""
        if self.whole:
            return 0.0
        span = _forward(self.scale, self.high) - _forward(self.scale, self.low)
        value = self.value(unit)
        return span * {Scale.LINEAR: 1.0, Scale.LOG: value, Scale.LOGIT: value * (1.0 - value)}[self.scale]

    def unit(self, value: float) -> float:
        """Coordinate in [0, 1] of a natural value; values outside the range are clipped to it."""
        clipped = min(max(value, self.low), self.high)
        if self.whole:
            return min(max((round(clipped) - self.low + 0.5) / (self.high - self.low + 1.0), 0.0), 1.0)
        a, b = _forward(self.scale, self.low), _forward(self.scale, self.high)
        return min(max((_forward(self.scale, clipped) - a) / (b - a), 0.0), 1.0)


@dataclass(frozen=True, eq=False)
class KnobSlots:
    """Where a knob's (G, K) values come from: `axis[g, k]` is an axis index, or -1 for the constant `value[g, k]`."""

    knob: str
    axis: NDArray[np.int64]
    value: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SearchSpace:
    """Ordered axes, and for a merge the slots that they fill. The order is fixed and printed by `mergesearch check`."""

    axes: tuple[Axis, ...]
    experts: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    slots: tuple[KnobSlots, ...] = field(default=())

    def __post_init__(self) -> None:
        if not self.axes:
            raise SpecError("the search space has no axis: every knob is held; free one under 'space'")

    @classmethod
    def box(cls, dim: int, low: float, high: float) -> "SearchSpace":
        """`dim` plain axes 'x0', 'x1', ... in [low, high], starting at the middle."""
        if dim < 1:
            raise SpecError(f"a box needs at least 1 axis, got dim={dim}")
        return cls(tuple(Axis(f"x{i}", low, high, (low + high) / 2) for i in range(dim)))

    @property
    def dim(self) -> int:
        """Number of searched numbers D."""
        return len(self.axes)

    @property
    def start(self) -> Vector:
        """The point (D,) of every axis' `init`: the known good recipe that a search begins with."""
        return frozen_array([axis.unit(axis.init) for axis in self.axes])

    def values(self, point: Vector) -> Vector:
        """Natural values (D,) of a point (D,) in the unit cube."""
        self._check(point)
        return np.array([axis.value(float(u)) for axis, u in zip(self.axes, point, strict=True)])

    def point(self, values: Vector) -> Vector:
        """Point (D,) of natural values (D,), clipped to the box."""
        self._check(values)
        return np.array([axis.unit(float(v)) for axis, v in zip(self.axes, values, strict=True)])

    def decode(self, point: Vector) -> dict[str, NDArray[np.float64]]:
        """Settings of a point: knob -> (G, K). Empty for a plain box."""
        values = self.values(point)
        return {s.knob: np.where(s.axis >= 0, values[np.maximum(s.axis, 0)], s.value) for s in self.slots}

    def slopes(self, point: Vector) -> Vector:
        """Change of each natural value (D,) with its coordinate of a point (D,): what the chain rule multiplies by."""
        self._check(point)
        return np.array([axis.slope(float(u)) for axis, u in zip(self.axes, point, strict=True)])

    def pull_back(self, point: Vector, gradient: Settings) -> Vector:
        """Gradient (D,) with respect to a point (D,), from that with respect to its settings, knob -> (G, K).

        Cells that share an axis add up. A knob that `gradient` does not name counts as flat.
        """
        total = np.zeros(self.dim)
        for slot in self.slots:
            if slot.knob in gradient:
                moved = slot.axis >= 0
                np.add.at(total, slot.axis[moved], np.broadcast_to(gradient[slot.knob], slot.axis.shape)[moved])
        return total * self.slopes(point)

    def encode(self, settings: Settings) -> Vector:
        """The point nearest to `settings`: each axis takes the mean of the slots it fills, clipped to its range.

        A knob that `settings` does not name stays at `init`.
        """
        values = np.array([axis.init for axis in self.axes])
        for slot in self.slots:
            if slot.knob not in settings:
                continue
            given = np.broadcast_to(settings[slot.knob], slot.axis.shape)
            for index in np.unique(slot.axis[slot.axis >= 0]):
                values[index] = float(given[slot.axis == index].mean())
        return self.point(values)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `from_dict` gives back an equal space."""
        return {
            "axes": [[a.name, a.low, a.high, a.init, a.scale.value, *([True] if a.whole else [])] for a in self.axes],
            "experts": list(self.experts),
            "groups": list(self.groups),
            "slots": {s.knob: {"axis": s.axis.tolist(), "value": s.value.tolist()} for s in self.slots},
        }

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> "SearchSpace":
        """Inverse of `to_dict`."""
        axes = tuple(
            Axis(name, low, high, init, Scale(scale), *whole) for name, low, high, init, scale, *whole in body["axes"]
        )
        slots = tuple(
            KnobSlots(knob, np.array(slot["axis"], dtype=np.int64), np.array(slot["value"], dtype=np.float64))
            for knob, slot in body["slots"].items()
        )
        return cls(axes, tuple(body["experts"]), tuple(body["groups"]), slots)

    def _check(self, vector: Vector) -> None:
        if vector.shape != (self.dim,):
            raise SpecError(f"a point of this space has shape ({self.dim},), got {vector.shape}")


@dataclass(frozen=True)
class KnobRange:
    """What a study says of one knob: the range of its axes, where they start, and by what it varies."""

    low: float
    high: float
    init: float
    per: Per
    scale: Scale
    whole: bool = False


def build_space(
    knobs: Sequence[Knob],
    experts: Sequence[str],
    groups: Sequence[str],
    searched: Mapping[str, KnobRange],
    held: Mapping[str, float],
    fix: Mapping[str, float] | None = None,
    tie: Sequence[Sequence[str]] = (),
    start: Mapping[str, float] | None = None,
) -> SearchSpace:
    """The space of an operator's `knobs` over experts x groups.

    Args:
        searched: knobs that are axes. `held`: knobs at one value. A knob in neither is held at its `init`.
        fix: axis name, or a pattern with `*`, -> the value it is held at. Axis names are 'knob[.expert][.group]'.
        tie: lists of names or patterns; the axes of one list become one axis, named after the first.
        start: axis name or pattern -> where a search begins there; of several that match, the last counts.

    Raises:
        SpecError: a pattern that matches no axis, a start outside its axis' range, or an empty space.
    """
    shape = (len(groups), len(experts))
    axes: list[Axis] = []
    slots = []
    for knob in knobs:
        index = np.full(shape, -1, dtype=np.int64)
        value = np.full(shape, held.get(knob.name, knob.start(len(experts))))
        if knob.name in searched:
            span = searched[knob.name]
            names: dict[str, int] = {}
            for g, group in enumerate(groups):
                for k, expert in enumerate(experts):
                    name = _axis_name(knob.name, span.per, expert, group)
                    if name not in names:
                        names[name] = len(axes)
                        axes.append(Axis(name, span.low, span.high, span.init, span.scale, span.whole))
                    index[g, k] = names[name]
        slots.append(KnobSlots(knob.name, index, value))
    for pattern, begin in (start or {}).items():
        for i in _matching(axes, pattern, "start"):
            axes[i] = replace(axes[i], init=float(begin))
    return _held_and_tied(axes, slots, tuple(experts), tuple(groups), fix or {}, tie)


def _axis_name(knob: str, per: Per, expert: str, group: str) -> str:
    parts = {Per.STUDY: [], Per.EXPERT: [expert], Per.GROUP: [group], Per.EXPERT_GROUP: [expert, group]}[per]
    return ".".join([knob, *parts])


def _matching(axes: Sequence[Axis], pattern: str, where: str) -> list[int]:
    found = [i for i, axis in enumerate(axes) if fnmatchcase(axis.name, pattern)]
    if not found:
        raise SpecError(f"space.{where}: {pattern!r} matches no axis{did_you_mean(pattern, [a.name for a in axes])}")
    return found


def _held_and_tied(
    axes: list[Axis],
    slots: list[KnobSlots],
    experts: tuple[str, ...],
    groups: tuple[str, ...],
    fix: Mapping[str, float],
    tie: Sequence[Sequence[str]],
) -> SearchSpace:
    leader = list(range(len(axes)))
    for names in tie:
        members = sorted({i for name in names for i in _matching(axes, name, "tie")})
        for i in members:
            leader[i] = leader[members[0]]
    constant: dict[int, float] = {}
    for pattern, value in fix.items():
        for i in _matching(axes, pattern, "fix"):
            constant[leader[i]] = float(value)
    kept = [i for i in range(len(axes)) if leader[i] == i and i not in constant]
    new_index = {old: new for new, old in enumerate(kept)}
    filled = []
    for slot in slots:
        index, table = slot.axis.copy(), slot.value.copy()
        for position, old in np.ndenumerate(slot.axis):
            if old >= 0:
                head = leader[old]
                index[position] = new_index.get(head, -1)
                table[position] = constant.get(head, table[position])
        index.setflags(write=False)
        table.setflags(write=False)
        filled.append(KnobSlots(slot.knob, index, table))
    return SearchSpace(tuple(axes[i] for i in kept), experts, groups, tuple(filled))
