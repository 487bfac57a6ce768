"""What a comparison needs of one study, small enough to keep: its fronts by split, and how it got there.

Objectives are compared by name and direction. Curves keep the merges that changed something, since they stand still
between them.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import yaml
from numpy.typing import NDArray

from mergesearch.errors import SpecError
from mergesearch.report.charts.points import points
from mergesearch.report.estimate import better
from mergesearch.report.view import StudyView
from mergesearch.results import Normalisation
from mergesearch.types import Objective, Split, Vector

ASIDE: Final = ("name", "store", "cache", "controls", "control_of")
"""Keys of a study file that decide nothing about how its search goes."""
KEPT_FACTS: Final = ("space", "objectives", "strategy", "merge", "heads", "budget")


@dataclass(frozen=True, eq=False)
class Front:
    """A study's non-dominated merges on a split: `numbers` (n,) and `losses` (n, M); `scored` is among how many."""

    numbers: NDArray[np.int64]
    losses: NDArray[np.float64]
    scored: int


@dataclass(frozen=True, eq=False)
class Steps:
    """Merges of a search, in order, at which a curve may turn: the evaluation (from 1) and the cost at which they were
    told (k,), their losses (k, M)."""

    evaluations: Vector
    costs: Vector
    losses: NDArray[np.float64]

    def x(self, against: str) -> Vector:
        """Where they stand on an axis of 'evaluations' or of 'cost'."""
        return self.costs if against == "cost" else self.evaluations


@dataclass(frozen=True, eq=False)
class Sketch:
    """One study in a comparison. `alike` is equal for studies that differ in their seed and name only; `ends` are its
    last evaluation and its cost."""

    name: str
    strategy: str
    status: str
    seed: int | None
    alike: str
    objectives: tuple[Objective, ...]
    normalisation: Normalisation | None
    fronts: Mapping[Split, Front]
    entering: Steps
    improving: Steps
    ends: tuple[float, float]

    def end(self, against: str) -> float:
        """Where its curve ends on an axis."""
        return self.ends[1 if against == "cost" else 0]


def sketch(view: StudyView, facts: Mapping[str, Any]) -> Sketch:
    """What a comparison needs of a study; `facts` are its store's."""
    results, found = view.results, points(view)
    count = len(found.numbers)
    costs = np.array(results.costs) if len(results.costs) == count else np.arange(1.0, count + 1.0)
    weights = np.array([o.weight for o in results.objectives])
    weighted = found.losses @ weights
    best = np.minimum.accumulate(weighted) if count else weighted
    improving = np.flatnonzero(np.diff(best, prepend=np.inf) < 0)

    def steps(rows: NDArray[np.int64]) -> Steps:
        return Steps((rows + 1).astype(np.float64), costs[rows], found.losses[rows])

    seed, alike = identity(view.record.spec, facts)
    return Sketch(
        name=view.record.name,
        strategy=view.strategy,
        status=view.record.status.value,
        seed=seed,
        alike=alike,
        objectives=results.objectives,
        normalisation=results.normalisation(),
        fronts={split: front for split in Split if (front := _front(view, split)) is not None},
        entering=steps(results.entered[0].astype(np.int64)),
        improving=steps(improving),
        ends=(float(count), float(costs[-1]) if count else 0.0),
    )


def _front(view: StudyView, split: Split) -> Front | None:
    found = points(view, split)
    if not len(found.numbers):
        return None
    kept = found.only(found.front)
    return Front(kept.numbers, kept.losses, len(found.numbers))


def identity(spec: str, facts: Mapping[str, Any]) -> tuple[int | None, str]:
    """A study's seed, None where its file names none, and a digest of everything else that decides its search."""
    try:
        body = yaml.safe_load(spec)
    except yaml.YAMLError:
        body = None
    seed = None
    file: dict[str, Any] = {}
    if isinstance(body, Mapping):
        file = {str(k): v for k, v in body.items() if k not in ASIDE}
        strategy = file.get("strategy")
        if isinstance(strategy, Mapping):
            given = strategy.get("seed")
            seed = given if isinstance(given, int) else None
            file["strategy"] = {k: v for k, v in strategy.items() if k != "seed"}
    known = {key: facts[key] for key in KEPT_FACTS if key in facts}
    text = json.dumps([file, known], sort_keys=True, default=str)
    return seed, hashlib.sha256(text.encode()).hexdigest()


def aligned(found: Sequence[Sketch]) -> list[Sketch]:
    """The same studies, all with their objectives in the order of the first one's.

    Raises:
        SpecError: two of them have different objectives; the sentence says which.
    """
    if not found:
        return []
    first = found[0]
    wanted = {o.name: o.direction for o in first.objectives}
    made = []
    for other in found:
        theirs = {o.name: o.direction for o in other.objectives}
        if theirs != wanted:
            raise SpecError(_differ(first, other))
        order = [[o.name for o in other.objectives].index(name) for name in wanted]
        made.append(other if order == sorted(order) else _reordered(other, order))
    return made


def _differ(a: Sketch, b: Sketch) -> str:
    mine, theirs = ({o.name: better(o) for o in s.objectives} for s in (a, b))
    differing = [n for n in dict.fromkeys([*mine, *theirs]) if mine.get(n) != theirs.get(n)]
    lists = [", ".join(f"{name} {arrow}" for name, arrow in found.items()) for found in (mine, theirs)]
    return (
        f"studies {a.name!r} and {b.name!r} cannot be compared, since their objectives differ in "
        f"{', '.join(map(repr, differing))}: {a.name!r} has {lists[0]}, {b.name!r} has {lists[1]}; take one away"
    )


def _reordered(found: Sketch, order: list[int]) -> Sketch:
    def steps(given: Steps) -> Steps:
        return Steps(given.evaluations, given.costs, given.losses[:, order])

    units = found.normalisation
    return Sketch(
        name=found.name,
        strategy=found.strategy,
        status=found.status,
        seed=found.seed,
        alike=found.alike,
        objectives=tuple(found.objectives[i] for i in order),
        normalisation=None if units is None else Normalisation(units.zero[order], units.one[order]),
        fronts={s: Front(f.numbers, f.losses[:, order], f.scored) for s, f in found.fronts.items()},
        entering=steps(found.entering),
        improving=steps(found.improving),
        ends=found.ends,
    )


@dataclass(frozen=True)
class Group:
    """Studies that are shown as one: one line, or a band where there are several."""

    label: str
    studies: tuple[str, ...]


def grouped(found: Sequence[Sketch], asked: Sequence[str] = ()) -> list[Group]:
    """The groups of studies, in the order of their first ones.

    Args:
        asked: 'seeds' (the default: those that differ in seed and name only), 'none', 'strategy', or
            'LABEL:study,study' for groups by hand; studies that none of these names are alone.

    Raises:
        SpecError: an unknown way, a study that is not compared, or one in two groups.
    """
    by_hand = [way for way in asked if ":" in way]
    ways = [way for way in asked if ":" not in way and way]
    if len(ways) > 1 or (ways and ways[0] not in ("seeds", "none", "strategy")):
        raise SpecError(f"group by seeds, none or strategy, or by hand with LABEL:study,study; not {', '.join(ways)!r}")
    label_of: dict[str, str] = {}
    known = [s.name for s in found]
    for text in by_hand:
        label, _, names = text.partition(":")
        for name in (n.strip() for n in names.split(",") if n.strip()):
            if name not in known:
                raise SpecError(f"group {label!r} names study {name!r}, which is not compared; add it first")
            if name in label_of:
                raise SpecError(f"study {name!r} stands in the groups {label_of[name]!r} and {label!r}; choose one")
            label_of[name] = label.strip() or "group"
    way = ways[0] if ways else ("none" if by_hand else "seeds")
    members: dict[tuple[str, str], list[Sketch]] = {}
    for one in found:
        if one.name in label_of:
            key = ("hand", label_of[one.name])
        else:
            key = {"seeds": ("seeds", one.alike), "strategy": ("strategy", one.strategy)}.get(way, ("none", one.name))
        members.setdefault(key, []).append(one)
    return [Group(_label(key, own), tuple(s.name for s in own)) for key, own in members.items()]


def _label(key: tuple[str, str], own: Sequence[Sketch]) -> str:
    if key[0] == "hand":
        return key[1]
    if len(own) == 1:
        return own[0].name
    common = _common(own)
    return f"{key[1] if key[0] == 'strategy' else common} ({len(own)} studies)"


def _common(own: Sequence[Sketch]) -> str:
    """What the names of a group begin with, else the strategy of the first."""
    names = [s.name for s in own]
    short = min(names, key=len)
    at = next((i for i in range(len(short)) if len({name[i] for name in names}) > 1), len(short))
    return short[:at].rstrip("-_.0123456789") or own[0].strategy or names[0]
