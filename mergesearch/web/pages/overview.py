"""What the pages say of a study in a few words and figures."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from mergesearch.report.estimate import NOTHING, duration
from mergesearch.store.base import StudyRecord
from mergesearch.web.api.studies import StudyRow, row_of
from mergesearch.web.figures import Figures

WIDTH, HEIGHT, EDGE = 110, 28, 2
AGES: Final = ((86400, "day"), (3600, "hour"), (60, "minute"))
LONG_AGO: Final = 14 * 86400


@dataclass(frozen=True)
class Row:
    """One study of the table: the API's `answer`, and what of it is said in words. `spark` are the corners of a line
    of 110 by 28 pixels; `best` is a text such as '#57 (mean 73.8±1.2 %)'."""

    answer: StudyRow
    best: str
    spark: str

    @property
    def done(self) -> float:
        """Share of the budget that is used, at most 1."""
        budget, cost = self.answer.budget or 0.0, self.answer.cost or 0.0
        return min(1.0, cost / budget) if budget > 0 else 0.0

    @property
    def by(self) -> str:
        """Who launched the study; where that was not kept, the machine whose controller works on it, or ''."""
        return self.answer.by or who(self.answer.owner or "")


def row(record: StudyRecord, figures: Figures | None, now: float) -> Row:
    """A line of the table; its figures are None while the log is being read."""
    curve = figures.volume.curve if figures else ()
    best = figures.best.text if figures and figures.best else NOTHING
    return Row(row_of(record, figures, now), best, sparkline(range(len(curve)), curve))


def who(owner: str) -> str:
    """The machine of a controller 'host:pid:…'."""
    return owner.partition(":")[0]


def age(since: float, now: float | None = None) -> str:
    """'just now', '5 minutes ago', '3 hours ago', '12 days ago', '2026-03-14'."""
    passed = (time.time() if now is None else now) - since
    if passed < 60:
        return "just now"
    if passed >= LONG_AGO:
        return time.strftime("%Y-%m-%d", time.gmtime(since))
    size, word = next((size, word) for size, word in AGES if passed >= size)
    number = int(passed // size)
    return f"{number} {word}{'' if number == 1 else 's'} ago"


def moment(seconds: float) -> str:
    """'2026-03-14 09:26:53 UTC'."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def sparkline(x: Sequence[float] | np.ndarray[Any, Any], y: Sequence[float] | np.ndarray[Any, Any]) -> str:
    """Corners of a stepped line, 'x,y x,y ...', as the attribute `points` of an SVG polyline; '' for none.

    At most one step for each pixel.
    """
    places, heights = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if len(places) == 0:
        return ""
    span, rise = float(np.ptp(places)) or 1.0, float(np.ptp(heights)) or 1.0
    across = EDGE + (WIDTH - 2 * EDGE) * (places - places[0]) / span
    up = HEIGHT - EDGE - (HEIGHT - 2 * EDGE) * (heights - heights.min()) / rise
    kept = np.append(np.flatnonzero(np.diff(across.astype(int))), len(across) - 1)
    corners: list[str] = []
    last = up[0]
    for px, py in zip(across[kept].tolist(), up[kept].tolist(), strict=True):
        corners += [f"{px:.1f},{last:.1f}", f"{px:.1f},{py:.1f}"]
        last = py
    return " ".join([f"{EDGE},{up[0]:.1f}", *corners, f"{WIDTH - EDGE},{last:.1f}"])


def count(number: float) -> str:
    """'12,000', '37.5'."""
    return f"{number:,.10g}"


FILTERS: Final = {"duration": duration, "age": age, "moment": moment, "count": count}
"""What templates can put behind a '|'."""
