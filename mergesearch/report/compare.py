"""Several studies side by side: the indicators of their fronts against one reference front, in one unit.

Normalised once, by the base and the best experts of the first study that has scored them; the reference front Z is
what no merge of any compared study dominates, on the confirm split where all have scores there, else on the search
split. Another study changes Z: every row is made anew.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mergesearch import indicators, pareto
from mergesearch.errors import SpecError
from mergesearch.report.charts.volumes import SAMPLES
from mergesearch.report.comparing import Front, Group, Sketch, aligned, grouped
from mergesearch.report.reached import first_reached
from mergesearch.results import MARGIN, Normalisation
from mergesearch.types import Split

Table = NDArray[np.float64]

MOST_ROWS: Final = 800
"""Of longer fronts an even part is taken: the indicators look at all pairs of rows."""
EXACT_ROWS: Final = {2: 100_000, 3: 5_000, 4: 250, 5: 80, 6: 40}
"""Objectives -> rows up to which the hypervolume is exact; what takes longer is estimated from a fixed seed."""
MOST_TOGETHER: Final = 12_000
"""Rows of all fronts above which an even part of each makes the reference front."""
BLOCK: Final = 128
MOST_WEIGHTS: Final = 20_000


@dataclass(frozen=True)
class Indicator:
    """A column of the table. `higher` says which way is better, None where neither is."""

    key: str
    label: str
    higher: bool
    meaning: str


INDICATORS: Final = (
    Indicator(
        "hypervolume",
        "HV",
        True,
        "how much of the space from the base (a little below it) up to the front is covered",
    ),
    Indicator(
        "relative_hypervolume",
        "HV / HV(Z)",
        True,
        "its hypervolume as a share of the reference front's; 1 is all of it",
    ),
    Indicator("gd", "GD", False, "mean distance from its merges to the reference front; says nothing of gaps"),
    Indicator(
        "igd",
        "IGD",
        False,
        "mean distance from the reference front to its merges; gaps count, but a better front may score worse",
    ),
    Indicator("gd_plus", "GD+", False, "as GD, but only what a merge is worse by counts"),
    Indicator("igd_plus", "IGD+", False, "as IGD, but only what a merge is worse by counts: prefer it to IGD"),
    Indicator("r2", "R2", False, "mean distance to the ideal over evenly spread preferences"),
    Indicator(
        "additive_epsilon", "ε+", False, "the least shift of all its scores that reaches the whole reference front"
    ),
    Indicator(
        "multiplicative_epsilon",
        "ε×",
        False,
        "the least factor on all its scores that reaches the whole reference front; needs scores above 0",
    ),
    Indicator(
        "spread",
        "spread Δ",
        False,
        "how unevenly its merges lie and how far its ends are from the reference's; two objectives only",
    ),
    Indicator("spacing", "spacing", False, "how unequal the distances between neighbouring merges are; 0 is even"),
)


@dataclass(frozen=True)
class Row:
    """One study: its front's size, of how many scored merges, and an indicator's value by key (None: not defined)."""

    study: str
    group: str
    seed: int | None
    strategy: str
    front: int
    scored: int
    values: Mapping[str, float | None]


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of an indicator over the studies of a group."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class GroupRow:
    """The studies of a group together; an indicator that some of them lack is absent."""

    label: str
    studies: tuple[str, ...]
    values: Mapping[str, Spread]


@dataclass(frozen=True, eq=False)
class Compared:
    """A comparison. `coverage[i][j]` is the share of study j's front that study i's weakly dominates, `win_rate[i][j]`
    the share of (merge of i, merge of j, objective) in which i's is better; rows are in the order of `rows`.

    `units` says by what was normalised, `why_split` why this split; `reference` is |Z|, `thinned` whether a front was
    too long for all pairs of rows; `missing` are studies without a scored merge on the split.
    """

    objectives: tuple[str, ...]
    split: Split
    why_split: str
    units: str
    reference: int
    thinned: bool
    rows: tuple[Row, ...]
    groups: tuple[GroupRow, ...]
    coverage: tuple[tuple[float, ...], ...]
    win_rate: tuple[tuple[float, ...], ...]
    missing: tuple[str, ...]


def compare(found: Sequence[Sketch], groups: Sequence[str] = (), split: Split | None = None) -> Compared:
    """The table. `groups`: see `grouped`; `split`: None for confirm where all have it, else search.

    Raises:
        SpecError: different objectives, a single objective, groups that cannot be, nothing scored on the split.
    """
    sketches = aligned(found)
    if not sketches:
        raise SpecError("name at least one study to compare")
    if len(sketches[0].objectives) < 2:
        raise SpecError(
            f"a front needs two objectives, study {sketches[0].name!r} has {sketches[0].objectives[0].name!r} alone; "
            "compare the convergence of such studies instead"
        )
    chosen, why = split_for(sketches, split)
    fronts = {s.name: s.fronts[chosen] for s in sketches if chosen in s.fronts}
    if not fronts:
        raise SpecError(f"none of these studies has a scored merge on the {chosen.value} split yet")
    many = sum(len(f.losses) for f in fronts.values()) > MOST_TOGETHER
    union = undominated([thinned(f.losses) if many else f.losses for f in fronts.values()])
    normalisation, units = units_for(sketches, union)
    whole = np.unique(union, axis=0)
    reference = _Reference.of(normalisation, whole)
    by_study = grouped(sketches, groups)
    label_of = {name: group.label for group in by_study for name in group.studies}
    rows = tuple(
        Row(s.name, label_of[s.name], s.seed, s.strategy, len(f.numbers), f.scored, reference.values(f))
        for s in sketches
        if (f := fronts.get(s.name)) is not None
    )
    scaled = [normalisation.scaled(thinned(fronts[row.study].losses)) for row in rows]
    return Compared(
        objectives=tuple(o.name for o in sketches[0].objectives),
        split=chosen,
        why_split=why,
        units=units,
        reference=len(whole),
        thinned=max(len(f.losses) for f in [*fronts.values()]) > MOST_ROWS or len(whole) > MOST_ROWS,
        rows=rows,
        groups=tuple(_group_row(group, rows) for group in by_study if len(group.studies) > 1),
        coverage=tuple(tuple(indicators.coverage(a, b) for b in scaled) for a in scaled),
        win_rate=tuple(tuple(indicators.win_rate(a, b) for b in scaled) for a in scaled),
        missing=tuple(s.name for s in sketches if s.name not in fronts),
    )


def split_for(found: Sequence[Sketch], split: Split | None = None) -> tuple[Split, str]:
    """The split that studies are compared on, and why."""
    if split is not None:
        return split, "as asked"
    without = [s.name for s in found if Split.CONFIRM not in s.fronts]
    if not without:
        return Split.CONFIRM, "all of them have scores there, which no search has seen"
    several = f"{len(without)} of the studies have" if len(without) > 1 else f"study {without[0]} has"
    return (
        Split.SEARCH,
        f"{several} no scores on the confirm split; scores that a search has seen are a little too good",
    )


def units_for(found: Sequence[Sketch], union: Table) -> tuple[Normalisation, str]:
    """One normalisation for all, and what it is."""
    for one in found:
        if one.normalisation is not None:
            return (
                one.normalisation,
                f"the base is 0 and the best expert 1 of each objective, as study {one.name} scored them",
            )
    objectives = found[0].objectives
    if all(o.low is not None and o.high is not None for o in objectives):
        ends = np.array([[o.loss(float(o.low or 0.0)), o.loss(float(o.high or 0.0))] for o in objectives])
        return Normalisation(ends.max(axis=1), ends.min(axis=1)), "the worst value of each objective is 0, its best 1"
    one, zero = union.min(axis=0), union.max(axis=0)
    return (
        Normalisation(np.where(zero > one, zero, one + 1.0), one),
        "the worst of all fronts is 0 and the best 1, since no study scored base and experts: another study changes it",
    )


def undominated(fronts: Sequence[Table]) -> Table:
    """Rows of several fronts (n_i, M) that no row of another one dominates; within a front none dominates another."""
    kept = []
    for i, rows in enumerate(fronts):
        alive = np.ones(len(rows), dtype=bool)
        for others in (*fronts[:i], *fronts[i + 1 :]):
            for start in range(0, len(rows), BLOCK):
                block = rows[start : start + BLOCK, None, :]
                beaten = np.all(others <= block, axis=2) & np.any(others < block, axis=2)  # (block, others)
                alive[start : start + BLOCK] &= ~np.any(beaten, axis=1)
        kept.append(rows[alive])
    return np.vstack(kept)


def thinned(rows: Table, most: int = MOST_ROWS) -> Table:
    """At most `most` rows (n, M), evenly spread along the first objective; the ends stay."""
    if len(rows) <= most:
        return rows
    order = np.lexsort(rows.T[::-1])
    return rows[order[np.linspace(0, len(rows) - 1, most).round().astype(np.int64)]]


def volume(scaled: Table) -> float:
    """Hypervolume of normalised losses (n, M): exact for few rows, else estimated from a fixed seed."""
    count = scaled.shape[1]
    bound = np.full(count, MARGIN)
    if len(scaled) <= EXACT_ROWS.get(count, 0):
        return pareto.hypervolume(scaled, bound)
    inside = scaled[(scaled < bound).all(axis=1)]
    if len(inside) == 0:
        return 0.0
    ideal = inside.min(axis=0)
    drawn = ideal + np.random.Generator(np.random.Philox(0)).random((SAMPLES, count)) * (bound - ideal)
    return float((first_reached(inside, drawn) < len(inside)).mean() * np.prod(bound - ideal))


@dataclass(frozen=True, eq=False)
class _Reference:
    """Z, raw and normalised, and what is the same for every study: its hypervolume, the ideal, the weights of R2."""

    normalisation: Normalisation
    raw: Table
    scaled: Table
    volume: float
    weights: Table | None

    @classmethod
    def of(cls, normalisation: Normalisation, whole: Table) -> "_Reference":
        raw = thinned(whole)
        count = raw.shape[1]
        parts = 10 if count == 2 else 4 if count <= 6 else 2
        weights = indicators.simplex_weights(count, parts) if (parts + 1) ** (count - 1) <= MOST_WEIGHTS else None
        return cls(normalisation, raw, normalisation.scaled(raw), volume(normalisation.scaled(whole)), weights)

    def values(self, front: Front) -> dict[str, float | None]:
        """Every indicator of a front by key; None where it is not defined."""
        raw = thinned(front.losses)
        rows, targets, ideal = self.normalisation.scaled(raw), self.scaled, self.scaled.min(axis=0)
        own = volume(self.normalisation.scaled(front.losses))
        made: dict[str, Callable[[], float] | None] = {
            "hypervolume": lambda: own,
            "relative_hypervolume": (lambda: own / self.volume) if self.volume > 0.0 else None,
            "gd": lambda: indicators.generational_distance(rows, targets),
            "igd": lambda: indicators.inverted_generational_distance(rows, targets),
            "gd_plus": lambda: indicators.generational_distance_plus(rows, targets),
            "igd_plus": lambda: indicators.inverted_generational_distance_plus(rows, targets),
            "r2": partial(indicators.r2, rows, ideal, self.weights) if self.weights is not None else None,
            "additive_epsilon": lambda: indicators.additive_epsilon(rows, targets),
            "multiplicative_epsilon": lambda: indicators.multiplicative_epsilon(raw, self.raw),
            "spread": (lambda: indicators.spread(rows, targets)) if rows.shape[1] == 2 else None,
            "spacing": (lambda: indicators.spacing(rows)) if len(rows) > 2 else None,
        }
        return {key: _value(make) for key, make in made.items()}


def _value(make: Callable[[], float] | None) -> float | None:
    """None where the indicator is not defined for these fronts."""
    if make is None:
        return None
    try:
        value = make()
    except SpecError:  # scores of either sign have no multiplicative epsilon
        return None
    return value if np.isfinite(value) else None


def _group_row(group: Group, rows: Sequence[Row]) -> GroupRow:
    own = [row for row in rows if row.study in group.studies]
    values: dict[str, Spread] = {}
    for indicator in INDICATORS:
        found = [value for row in own if (value := row.values[indicator.key]) is not None]
        if len(found) == len(own) and own:
            low, median, high = np.percentile(found, [25.0, 50.0, 75.0])
            values[indicator.key] = Spread(float(median), float(low), float(high))
    return GroupRow(group.label, tuple(row.study for row in own), values)
