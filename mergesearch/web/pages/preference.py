"""The front as the browser needs it to move along it: no more merges than some preference picks."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mergesearch.report.charts.points import factors, points
from mergesearch.report.estimate import Estimate, better, unit_of
from mergesearch.report.view import StudyView, knee
from mergesearch.types import Vector

MOST: Final = 2000
TRIED: Final = 2048


def scale_of(view: StudyView, losses: NDArray[np.float64]) -> Vector:
    """What one unit of each objective (M,) is: from base to best expert, or the front's span without those."""
    normalisation = view.results.normalisation()
    if normalisation is not None:
        return np.asarray(normalisation.zero - normalisation.one, dtype=np.float64)
    span = np.ptp(losses, axis=0) if len(losses) else np.ones(len(view.results.objectives))
    return np.where(span > 0, span, 1.0)


def preference(view: StudyView) -> dict[str, Any] | None:
    """JSON values: `objectives`, and for each merge its `numbers`, `scaled` losses (0 is the front's best), its scores
    as `shown` and as `texts`. None for one objective or an empty front.

    The merge with the least sum of weight times `scaled` is what the API's `prefer` picks.
    """
    results = view.results
    if len(results.objectives) < 2 or not results.front:
        return None
    front = points(view)
    front = front.only(front.front)
    scale = scale_of(view, front.losses)
    scaled = (front.losses - front.losses.min(axis=0)) / scale
    at, kept = knee(results), np.arange(len(front.numbers))
    if len(kept) > MOST:
        special = [n for n in (at, view.searched) if n is not None]
        kept = np.union1d(winners(scaled), np.flatnonzero(np.isin(front.numbers, special)))
    front, scaled = front.only(kept), scaled[kept]
    units = [unit_of(o) for o in results.objectives]
    rows = zip(front.scores.tolist(), front.errors.tolist(), strict=True)
    return {
        "objectives": [f"{o.name}{u.suffix} {better(o)}" for o, u in zip(results.objectives, units, strict=True)],
        "weights": [o.weight for o in results.objectives],
        "numbers": front.numbers.tolist(),
        "scaled": [[float(f"{v:.6g}") for v in row] for row in scaled.tolist()],
        "shown": [[float(f"{v:.6g}") for v in row] for row in (front.scores * factors(results.objectives)).tolist()],
        "texts": [
            [u.estimate(Estimate(v, e)) + u.suffix for u, v, e in zip(units, values, errors, strict=True)]
            for values, errors in rows
        ],
        "knee": at,
    }


def winners(scaled: NDArray[np.float64], tried: int = TRIED) -> NDArray[np.int64]:
    """Rows of losses (n, M) that one of many preferences picks; those for a single objective are among them."""
    count = scaled.shape[1]
    generator = np.random.Generator(np.random.Philox(0))
    weights = np.vstack([np.eye(count), np.full((1, count), 1.0 / count), generator.dirichlet(np.ones(count), tried)])
    columns = np.ascontiguousarray(scaled.T)
    found = [np.argmin(part @ columns, axis=1) for part in np.array_split(weights, 64)]
    return np.unique(np.concatenate(found))


@dataclass(frozen=True)
class Pick:
    """The merge that a preference picks, its scores as written."""

    number: int
    scores: tuple[tuple[str, str], ...]


def pick(view: StudyView) -> Pick | None:
    """What the study's own weights pick: where the sliders begin. None where there is no front."""
    found = preference(view)
    if found is None:
        return None
    sums = np.array(found["scaled"]) @ np.array(found["weights"])
    at = int(np.argmin(sums))
    return Pick(found["numbers"][at], tuple(zip(found["objectives"], found["texts"][at], strict=True)))
