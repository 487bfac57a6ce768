"""A warm start: the recipe that an earlier study came to, as the start of this study's space."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mergesearch.checkpoints.adapter import AdapterFolder
from mergesearch.checkpoints.groups import group_tensors
from mergesearch.errors import SpecError
from mergesearch.results import RECOMMENDED
from mergesearch.space import SearchSpace
from mergesearch.store.base import StudyStore
from mergesearch.stored import StoredStudy, read_stored
from mergesearch.study.resolve import ResolvedStudy
from mergesearch.study.source import Source, parse_study

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class WarmStart:
    """Where a warm start came from: the earlier study's name and its candidate."""

    study: str
    candidate: int


def warm_start(resolved: ResolvedStudy, store: StudyStore) -> tuple[ResolvedStudy, WarmStart | None]:
    """The study with its axes begun where `space.warm_start` of the same store came to; unchanged where that is unset.

    It is the chosen candidate, else the recommended one, else the best so far. Values go from group to group through
    the tensors: an axis takes the mean over the tensors it merges, weighted by their sizes, of what the earlier recipe
    gave to each. Where the earlier one has no such knob, expert or tensor, and where `space.start` names the axis, the
    axis keeps its own start.

    Raises:
        StudyNotFound: no such study in the store.
        SpecError: it is this study, has no scored candidate yet, searched a black box, or its groups do not fit.
    """
    name, spec = resolved.spec.space.warm_start, resolved.spec
    if name is None:
        return resolved, None
    if name == spec.name:
        raise SpecError(f"space.warm_start: study {name!r} cannot start from itself; name an earlier study")
    earlier = read_stored(store, name)
    results = earlier.results
    firsts = (earlier.chosen, results.by_origin(RECOMMENDED), results.best)
    found = [
        n for n in firsts if n is not None and results.outcome(n) is not None and results.candidates[n].request.complete
    ]
    point = results.candidates[found[0]].point if found else None
    if point is None or not earlier.space.slots:
        why = "has no scored candidate yet" if earlier.space.slots else "searched a black box, which has no recipe"
        raise SpecError(f"space.warm_start: study {name!r} {why}; name another study, or leave warm_start out")
    space, moved = _moved(resolved, earlier, earlier.space.decode(point))
    _LOG.info(
        "study %r starts from candidate %d of study %r: %d of %d axes", spec.name, found[0], name, moved, space.dim
    )
    return replace(resolved, space=space), WarmStart(name, found[0])


def started_as_stored(resolved: ResolvedStudy, stored: SearchSpace) -> ResolvedStudy:
    """The study with its axes begun where they began at its launch, whatever the earlier study came to since."""
    if resolved.spec.space.warm_start is None:
        return resolved
    begun = {axis.name: axis.init for axis in stored.axes}
    axes = tuple(replace(axis, init=begun.get(axis.name, axis.init)) for axis in resolved.space.axes)
    return replace(resolved, space=replace(resolved.space, axes=axes))


def _moved(
    resolved: ResolvedStudy, earlier: StoredStudy, settings: Mapping[str, NDArray[np.float64]]
) -> tuple[SearchSpace, int]:
    """The space with the starts that follow from an earlier recipe, and how many axes it says something of."""
    space, shared = resolved.space, _shared_sizes(resolved, earlier)
    total, weight = np.zeros(space.dim), np.zeros(space.dim)
    columns = {expert: k for k, expert in enumerate(earlier.space.experts)}
    for slot in space.slots:
        if slot.knob not in settings:
            continue
        for k, expert in enumerate(space.experts):
            rows = np.flatnonzero(slot.axis[:, k] >= 0)
            if expert in columns:
                np.add.at(total, slot.axis[rows, k], (shared @ settings[slot.knob][:, columns[expert]])[rows])
                np.add.at(weight, slot.axis[rows, k], shared.sum(axis=1)[rows])
    held = [any(fnmatchcase(axis.name, pattern) for pattern in resolved.spec.space.start) for axis in space.axes]
    axes, moved = list(space.axes), 0
    for i, axis in enumerate(axes):
        if weight[i] > 0 and not held[i]:
            value = min(max(total[i] / weight[i], axis.low), axis.high)
            axes[i] = replace(axis, init=float(round(value)) if axis.whole else float(value))
            moved += 1
    return replace(space, axes=tuple(axes)), moved


def _shared_sizes(resolved: ResolvedStudy, earlier: StoredStudy) -> NDArray[np.float64]:
    """(G, G'): how many numbers a group of this study shares with each group of the earlier one."""
    spec = parse_study(Source(f"study {earlier.record.name!r} in the store", earlier.record.spec, Path()))
    merged = resolved.layout.group_of
    adapters = any(isinstance(expert, AdapterFolder) for expert in resolved.experts.values())
    try:
        before = group_tensors(resolved.base, spec.space.groups, spec.merge.heads, sorted(merged) if adapters else None)
    except SpecError as error:
        raise SpecError(
            f"space.warm_start: the groups of study {earlier.record.name!r} do not fit this base: {error}"
        ) from None
    rows = {group: i for i, group in enumerate(earlier.space.groups)}
    shared = np.zeros((len(resolved.layout.groups), len(rows)))
    for tensor, group in merged.items():
        row = rows.get(before.groups[before.group_of[tensor]]) if tensor in before.group_of else None
        if row is not None:
            shared[group, row] += resolved.base.headers[tensor].numel
    return shared
