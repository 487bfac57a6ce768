"""The front on every split: where its merges stand on search, confirm and test, indicators, and picks by preference."""

import numpy as np
from numpy.typing import NDArray

from mergesearch import indicators, pareto
from mergesearch.export.select import by_preference
from mergesearch.report.estimate import NOTHING, Estimate, better, mean_unit, unit_of
from mergesearch.report.grid import Cell, Grid, grid
from mergesearch.report.table import mean
from mergesearch.report.view import StudyView, knee, marks
from mergesearch.results import MARGIN, Normalisation, Results
from mergesearch.types import Score, Split

HELD_OUT = (Split.CONFIRM, Split.TEST)
MOST_ENTRIES = 20_000_000
"""Of the table of distances between two fronts; above, IGD+ is left out."""


def split_grid(view: StudyView) -> Grid | None:
    """The merges of the search that were also scored on a held-out split: their scores side by side."""
    results = view.results
    held = sorted({n for n in results.scored for split in HELD_OUT if results.outcome(n, split) is not None})
    if not held:
        return None
    rows: list[tuple[Cell, ...]] = []
    words, marked = marks(view), -1
    for number in held:
        marked = len(rows) if number == view.searched else marked
        for split in Split:
            outcome = results.outcome(number, split)
            if outcome is None:
                continue
            label = f"#{number} {words.get(number, '')}".strip()
            cells = [Cell(label), Cell(split.value)]
            for objective in results.objectives:
                score, unit = outcome.scores[objective.name], unit_of(objective)
                cells.append(Cell(unit.value(_score(score)), unit.error(score.stderr)))
            average, own = mean(results.objectives, outcome), mean_unit(results.objectives)
            rows.append((*cells, Cell(own.value(average), own.error(average.stderr))))
    note = "Scores on the search split are optimistic: these merges were picked for them."
    heads = ("merge", "split", *(f"{o.name}{unit_of(o).suffix} {better(o)}" for o in results.objectives), "mean")
    return Grid("Finalists on every split", heads, tuple(rows), marked, note)


def indicator_grid(view: StudyView) -> Grid | None:
    """Hypervolume and IGD+ of the study and its controls on search and confirm; None before the baselines are scored.

    One normalisation for all: the study's own (base 0, best expert 1, search split), reference point -0.1.
    """
    normalisation = view.results.normalisation()
    if normalisation is None or len(view.results.objectives) < 2:
        return None
    methods = [("this study", view.results)]
    methods += [(f"control: {c.label}", c.results) for c in view.controls if _comparable(c.results, view.results)]
    rows, sizes = [], []
    for split in (Split.SEARCH, Split.CONFIRM):
        fronts = {label: _front(results, split, normalisation) for label, results in methods}
        filled = [front for front in fronts.values() if len(front)]
        if not filled:
            continue
        union = np.vstack(filled)
        reference = union[pareto.front(union)]
        sizes.append(f"{len(reference)} on {split.value}")
        best = _volume(reference)
        for label, front in fronts.items():
            if len(front):
                volume = _volume(front)
                share = NOTHING if volume is None or not best else f"{volume / best:.3f}"
                near = NOTHING
                if front.size * len(reference) <= MOST_ENTRIES:
                    near = f"{indicators.inverted_generational_distance_plus(front, reference):.4f}"
                shown = NOTHING if volume is None else f"{volume:.4f}"
                rows.append([label, split.value, str(len(front)), shown, share, near])
    heads = ("method", "split", "merges", "hypervolume ↑", "of the reference", "IGD+ ↓")
    note = (
        "Hypervolume: how much of the space between the base (0) and the best experts (1) the front covers, measured "
    )
    note += "from -0.1. IGD+: how far it is on average from the reference front, the best merges of all methods here "
    note += f"({' and '.join(sizes)}). On confirm only the finalists count."
    return grid("Indicators", heads, rows, note) if rows else None


def picks_grid(view: StudyView) -> Grid | None:
    """The knee, and what a preference for each objective, and for none, picks of the front."""
    results = view.results
    if len(results.objectives) < 2 or not results.front:
        return None
    names = [o.name for o in results.objectives]
    wishes = [("the knee", knee(results)), ("all alike", by_preference(results, dict.fromkeys(names, 1.0)))]
    wishes += [
        (f"mostly {name}", by_preference(results, {n: 3.0 if n == name else 1.0 for n in names})) for name in names
    ]
    wishes += [(f"only {name}", by_preference(results, {name: 1.0})) for name in names]
    rows = []
    for words, number in wishes:
        outcome = None if number is None else results.outcome(number)
        if outcome is not None:
            shown = [unit_of(o).estimate(_score(outcome.scores[o.name])) for o in results.objectives]
            rows.append([words, f"#{number}", *shown])
    heads = ("wish", "merge", *(f"{o.name}{unit_of(o).suffix} {better(o)}" for o in results.objectives))
    note = "The knee: the merge where giving up a little of one objective buys least of another. 'Mostly' weighs one "
    note += "objective three times as much as each other one. Search split."
    return grid("Picks by preference", heads, rows, note)


def _score(score: Score) -> Estimate:
    return Estimate(score.value, score.stderr)


def _comparable(one: Results, other: Results) -> bool:
    return one.objectives == other.objectives


def _front(results: Results, split: Split, normalisation: Normalisation) -> NDArray[np.float64]:
    """Normalised losses (n, M) of what the search scored on a split and nothing there dominates."""
    if split is Split.SEARCH:
        return normalisation.scaled(results.front_losses)
    found = [values for n in results.scored if (values := results.losses(n, split)) is not None]
    if not found:
        return np.zeros((0, len(results.objectives)))
    table = np.array(found)
    return normalisation.scaled(table[pareto.front(table)])


def _volume(front: NDArray[np.float64]) -> float | None:
    count = front.shape[1]
    return pareto.hypervolume(front, np.full(count, MARGIN)) if count <= pareto.EXACT_UP_TO else None
