"""What several charts draw: the search's merges as columns, those with a name, texts that show a merge's scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mergesearch import pareto
from mergesearch.errors import SpecError
from mergesearch.plugins import did_you_mean
from mergesearch.report.estimate import better, unit_of
from mergesearch.report.table import name_of
from mergesearch.report.view import StudyView, knee
from mergesearch.results import BASE, EXPERT, UNIFORM
from mergesearch.types import Objective, Split, Vector

BLUE, ORANGE, GREEN, PURPLE, RED, SKY = "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9"
GREY, SLATE = "#8c959f", "#6e7781"  # seen on white and on black
MOST_FRONT: Final = 2000
MOST_OTHERS: Final = 1000
TEXT_OBJECTIVES: Final = 8
LONGEST: Final = 40
CONFIG: Final = {"autosize": True, "hovermode": "closest"}


@dataclass(frozen=True, eq=False)
class Points:
    """The search's merges scored on a split, in the order they were told: `numbers` (n,), `scores`, `errors` and
    `losses` (n, M), whether each is on the `front` (n,)."""

    numbers: NDArray[np.int64]
    scores: NDArray[np.float64]
    errors: NDArray[np.float64]
    losses: NDArray[np.float64]
    front: NDArray[np.bool_]

    def only(self, rows: NDArray[Any]) -> "Points":
        """Some of them, by index or mask."""
        return Points(self.numbers[rows], self.scores[rows], self.errors[rows], self.losses[rows], self.front[rows])


@dataclass(frozen=True, eq=False)
class Named:
    """A merge with a name and its scores and errors (M,). `kind`: base, expert, uniform, lambda, knee or chosen."""

    kind: str
    text: str
    number: int
    scores: Vector
    errors: Vector


def points(view: StudyView, split: Split = Split.SEARCH) -> Points:
    """Every merge of the search with all objectives scored on `split`; the front is among those."""
    results = view.results
    columns = results.columns(split)
    searched = np.array(results.scored, dtype=np.int64)
    rows = np.isin(columns.numbers, searched) & np.isfinite(columns.scores).all(axis=1)
    numbers, scores = columns.numbers[rows], columns.scores[rows]
    losses = scores * signs(results.objectives)
    front = np.zeros(len(numbers), dtype=bool)
    if split is Split.SEARCH:
        front = np.isin(numbers, np.array(results.front, dtype=np.int64))
    elif len(numbers):
        front[pareto.front(losses)] = True
    return Points(numbers, scores, np.nan_to_num(columns.errors[rows]), losses, front)


def signs(objectives: Sequence[Objective]) -> Vector:
    """Factors (M,) from scores to losses."""
    return np.array([o.loss(1.0) for o in objectives])


def factors(objectives: Sequence[Objective]) -> Vector:
    """Factors (M,) from scores to what is written: 100 where an objective is in percent."""
    return np.array([100.0 if unit_of(o).percent else 1.0 for o in objectives])


def thinned(rows: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """At most `most` of `rows`, evenly spread and always the same ones; first and last stay."""
    if len(rows) <= most:
        return rows
    return rows[np.unique(np.linspace(0, len(rows) - 1, most).round().astype(np.int64))]


def named(view: StudyView, split: Split) -> list[Named]:
    """The merges with a name that were scored on `split`: baselines, the knee, the chosen one (or the best so far)."""
    results = view.results
    best = results.best_lambda()
    found: list[tuple[str, str, int]] = []
    for origin, number in results.baselines().items():
        if origin == BASE:
            found.append(("base", "base", number))
        elif origin == UNIFORM:
            found.append(("uniform", "uniform average", number))
        elif origin.startswith(EXPERT):
            found.append(("expert", f"expert {origin.removeprefix(EXPERT)}", number))
    found += [] if best is None else [("lambda", f"best single {name_of(results, best)}", best)]
    at = knee(results)
    found += [] if at is None else [("knee", f"knee #{at}", at)]
    if view.searched is not None:
        word = "best so far" if view.chosen is None else "chosen"
        found.append(("chosen", f"{word} #{view.searched}", view.searched))
    rows = []
    for kind, text, number in found:
        outcome = results.outcome(number, split)
        if outcome is None or any(o.name not in outcome.scores for o in results.objectives):
            continue
        scores = [outcome.scores[o.name] for o in results.objectives]
        values, errors = np.array([s.value for s in scores]), np.array([s.stderr for s in scores])
        rows.append(Named(kind, text, number, values, np.nan_to_num(errors)))
    return rows


def plain(text: str, longest: int = LONGEST) -> str:
    """A text as Plotly shows it letter by letter: it would take '<' and '&' for markup. Cut where it is long."""
    short = text if len(text) <= longest else text[: longest - 1] + "…"
    return short.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def heading(objective: Objective) -> str:
    """What stands at an axis: name, unit, the direction in which it improves."""
    return f"{plain(objective.name)}{unit_of(objective).suffix} {better(objective)}"


def texts(objectives: Sequence[Objective], names: Sequence[str], found: Points | Named) -> list[str]:
    """For each merge its name and its scores, a line each, as Plotly's hover shows them."""
    scores, errors = np.atleast_2d(found.scores), np.atleast_2d(found.errors)
    shown = objectives[:TEXT_OBJECTIVES]
    more = f"<br>… {len(objectives) - len(shown)} more" if len(shown) < len(objectives) else ""
    made = []
    units = [(plain(o.name), unit_of(o)) for o in shown]
    for name, values, spreads in zip(names, scores.tolist(), errors.tolist(), strict=True):
        lines = [
            f"{title}: {unit.number(value)}{unit.error(spread)}{unit.suffix}"
            for (title, unit), value, spread in zip(units, values, spreads, strict=False)
        ]
        made.append("<br>".join([f"<b>{plain(name, 60)}</b>", *lines]) + more)
    return made


def limits(values: NDArray[np.float64], margin: float = 0.06) -> list[float]:
    """Ends of an axis that holds `values`, with a margin; 0 to 1 for none."""
    if len(values) == 0:
        return [0.0, 1.0]
    low, high = float(values.min()), float(values.max())
    span = high - low or abs(high) * 0.1 or 1.0
    return [low - margin * span, high + margin * span]


def numbers(values: NDArray[Any]) -> list[Any]:
    """Six significant digits, which no screen tells from all of them, None for what is not finite."""
    if values.dtype.kind != "f":
        return list(values.tolist())
    return [float(f"{v:.6g}") if np.isfinite(v) else None for v in values.tolist()]


def split_of(options: Mapping[str, str]) -> Split:
    """The option 'split', search by default. Raises SpecError."""
    given = options.get("split") or Split.SEARCH.value
    if given not in {s.value for s in Split}:
        raise SpecError(f"split {given!r} is unknown; there are {', '.join(s.value for s in Split)}")
    return Split(given)


def objective_at(objectives: Sequence[Objective], name: str) -> int:
    """Which objective is called so. Raises SpecError."""
    known = [o.name for o in objectives]
    if name not in known:
        raise SpecError(f"no objective is called {name!r}{did_you_mean(name, known)}")
    return known.index(name)


def flag(options: Mapping[str, str], name: str) -> bool:
    """Whether an option is switched on: '1', 'true', 'on' or 'yes'."""
    return options.get(name, "").lower() in ("1", "true", "on", "yes")
