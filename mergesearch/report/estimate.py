"""A number with its standard error, and how numbers of an objective are written."""

import math
from dataclasses import dataclass

from mergesearch.types import Direction, Objective

NOTHING = "–"


@dataclass(frozen=True)
class Estimate:
    """A value and its standard error; 0.0 where the error is not known."""

    value: float
    stderr: float = 0.0


@dataclass(frozen=True)
class Unit:
    """How a quantity is written: shares (bounded by 0 and 1) as percent, everything else with four digits."""

    percent: bool

    @property
    def suffix(self) -> str:
        """' %' or nothing: what stands behind a heading."""
        return " %" if self.percent else ""

    def number(self, value: float, signed: bool = False) -> str:
        """A bare number, with its sign where `signed`."""
        if not math.isfinite(value):
            return str(value)
        sign = "+" if signed else ""
        return format(100.0 * value, f"{sign}.1f") if self.percent else format(value, f"{sign}.4g")

    def error(self, stderr: float) -> str:
        """'±1.2'; nothing where the error is not known."""
        if not stderr > 0.0:
            return ""
        return "±" + (format(100.0 * stderr, ".1f") if self.percent else format(stderr, ".2g"))

    def estimate(self, estimate: Estimate | None, signed: bool = False) -> str:
        """'73.8±1.2'; a dash for None."""
        if estimate is None:
            return NOTHING
        return self.value(estimate, signed) + self.error(estimate.stderr)

    def value(self, estimate: Estimate, signed: bool = False) -> str:
        """The value alone, to the digit that its error reaches."""
        if self.percent or not 1e-6 < estimate.stderr < 1e3:
            return self.number(estimate.value, signed)
        decimals = max(0, 1 - math.floor(math.log10(estimate.stderr)))
        return format(estimate.value, f"{'+' if signed else ''}.{decimals}f")


PERCENT = Unit(True)


def unit_of(objective: Objective) -> Unit:
    """Percent for a metric between 0 and 1."""
    return Unit(objective.low == 0.0 and objective.high == 1.0)


def mean_unit(objectives: tuple[Objective, ...]) -> Unit:
    """Percent where every objective is written in percent."""
    return Unit(all(unit_of(o).percent for o in objectives))


def mean_sign(objectives: tuple[Objective, ...]) -> float:
    """Factor from a weighted mean of losses to the mean that is shown.

    1 where every objective is minimised; else -1: higher is better, and what is minimised counts negative.
    """
    return 1.0 if all(o.direction is Direction.MIN for o in objectives) else -1.0


def better(objective: Objective) -> str:
    """An arrow in the direction in which the score improves."""
    return "↑" if objective.direction is Direction.MAX else "↓"


def units_sentence(objectives: tuple[Objective, ...]) -> str:
    """'scores in % ± standard error', or which of them are in percent."""
    percent = [unit_of(o).percent for o in objectives]
    if all(percent):
        return "scores in % ± standard error"
    return "scores ± standard error" + (", metrics from 0 to 1 in %" if any(percent) else "")


def duration(seconds: float) -> str:
    """'850 ms', '12.3 s', '4 min 05 s', '3 h 07 min'."""
    if not math.isfinite(seconds) or seconds < 0:
        return NOTHING
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
