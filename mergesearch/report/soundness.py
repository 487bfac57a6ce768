"""Can the numbers be trusted: agreement of rungs, flips against the baselines, distance from the base, failures."""

from collections import Counter, defaultdict

import numpy as np
from scipy.stats import kendalltau

from mergesearch.report.estimate import NOTHING
from mergesearch.report.grid import Grid, grid
from mergesearch.report.pool import Pool
from mergesearch.report.table import Comparison, Row
from mergesearch.report.view import StudyView
from mergesearch.results import Results
from mergesearch.types import Failed, Split

FEWEST_PAIRS = 5
TRUSTED_TAU = 0.6
MOST_KINDS = 20


def rung_grid(results: Results) -> Grid | None:
    """Kendall's τ between weighted losses on a share of the examples and, of the same merges, on all of them; None
    where the search never scored on a share."""
    pairs: dict[float, list[tuple[float, float]]] = defaultdict(list)
    partial = False
    for number, candidate in results.candidates.items():
        partial = partial or not candidate.request.complete
        final = results.weighted(number)
        if candidate.request.continues is None or not candidate.request.complete or final is None:
            continue
        earlier: int | None = candidate.request.continues
        while earlier is not None:
            loss, request = results.weighted(earlier), results.candidates[earlier].request
            if loss is not None:
                pairs[round(request.covers, 4)].append((loss, final))
            earlier = request.continues
    if not partial:
        return None
    rows = []
    for share, found in sorted(pairs.items()):
        tau = float(kendalltau(*np.array(found).T).statistic) if len(found) >= FEWEST_PAIRS else float("nan")
        shown = NOTHING if not np.isfinite(tau) else f"{tau:.2f}"
        verdict = "too few to tell" if not np.isfinite(tau) else "trusted" if tau >= TRUSTED_TAU else "low"
        rows.append([f"{100 * share:.4g} %", str(len(found)), shown, verdict])
    note = "Do scores on a share of the examples rank merges as all of them do? Stopping early is trusted from "
    note += f"τ = {TRUSTED_TAU} on. Only merges that went on to all examples are counted, which lowers τ."
    if not rows:
        note = "The search scored some merges on a share of the examples; none of them went on to all."
    return grid("Agreement of rungs", ("share", "merges", "Kendall's τ", ""), rows, note)


def flip_grid(view: StudyView, comparison: Comparison) -> Grid | None:
    """Of the examples that the searched merge and another row answer differently, which way; None without examples
    of right (1) and wrong (0), on the last held-out split."""
    mine = next((row for row in comparison.rows if row.kind == "searched"), None)
    if mine is None or view.examples is None:
        return None
    for split in (Split.TEST, Split.CONFIRM):
        others = [row for row in comparison.rows_on(split) if row.kind in ("base", "uniform", "lambda", "expert")]
        rows = [cells for row in others if (cells := _flips(view, mine, row, split)) is not None]
        if rows and split in mine.cells:
            heads = ("against", "examples", "now right", "now wrong", "changed")
            note = "Over all objectives whose examples are right or wrong. A small difference of scores may hide many "
            note += "flips: the merge then answers other examples rightly, not more of them."
            return grid(f"Flips of the searched merge, {split.value} split", heads, rows, note)
    return None


def _flips(view: StudyView, mine: Row, other: Row, split: Split) -> list[str] | None:
    assert view.examples is not None
    if split not in mine.cells:
        return None
    one, two = view.examples(mine.number, split), view.examples(other.number, split)
    total = gained = lost = 0
    for name, values in one.items():
        before = two.get(name)
        if before is None or len(before) != len(values) or not _binary(values) or not _binary(before):
            continue
        total += len(values)
        gained += int(np.sum((values == 1) & (before == 0)))
        lost += int(np.sum((values == 0) & (before == 1)))
    if not total:
        return None
    share = [f"{100 * count / total:.1f} %" for count in (gained, lost, gained + lost)]
    return [other.label, f"{total:,}", *share]


def _binary(values: object) -> bool:
    return bool(np.isin(np.asarray(values), (0.0, 1.0)).all())


def figures(view: StudyView, pool: Pool | None, displacement: float | None) -> list[tuple[str, str]]:
    """What else a reviewer asks, in words; what is not known is said."""
    rows = []
    if pool is not None:
        shown = "not known: only `--models` reads the weights" if pool.geometry is None else None
        shown = shown or (
            f"{displacement:.4g} of ‖θ0‖"
            if displacement is not None
            else "not known for this operator, which is no sum"
        )
        rows.append(("distance from the base, ‖θ − θ0‖", shown))
    rows.append(("truncated answers", _truncation(view)))
    again = "none differed" if view.repeats is None else view.repeats.sentence
    rows.append(("evaluations repeated", again))
    rows.append(("retries of lost jobs", "not kept in the store; the log of `launch` says them"))
    rows.append(("search seeds", "1: this study alone; claims about a strategy need 5 (`mergesearch serve` compares)"))
    return rows


def _truncation(view: StudyView) -> str:
    """The share of answers that were cut off, by whichever metric a scorer gives for it."""
    outcome = None if view.searched is None else view.results.outcome(view.searched)
    found = {} if outcome is None else {o: m["truncated"] for o, m in outcome.metrics.items() if "truncated" in m}
    if not found:
        return "no scorer of this study generates text"
    return ", ".join(f"{name} {100 * score.value:.1f} %" for name, score in found.items())


def failure_grid(results: Results) -> Grid | None:
    """Failed evaluations by kind; None without any."""
    kinds = Counter(o.kind for o in results.outcomes.values() if isinstance(o, Failed))
    if not kinds:
        return None
    rows = [[kind, str(count)] for kind, count in kinds.most_common(MOST_KINDS)]
    return grid("Failures by kind", ("kind", "evaluations"), rows)
