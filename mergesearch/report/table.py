"""The final comparison as a value: base, experts, uniform average, best single λ and the searched merge, by split.

Rules: errors of a mean over T objectives are sqrt(sum (w_t se_t)^2), that is sqrt(sum se^2) / T for equal weights. The
normalised mean is the mean of the ratios score / score of the objective's own expert on the same split; where lower is
better the ratio is turned round, so that above 1 is always better than the expert. A ratio needs an expert's score
above 0 and no score below 0 (a divisor above 0); where that fails there is no normalised mean. Its error takes the
experts' scores as exact.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from mergesearch.report.estimate import Estimate, mean_sign
from mergesearch.report.paired import Difference, difference, shares
from mergesearch.results import BASE, BASELINE, EXPERT, LAMBDA, UNIFORM, Results
from mergesearch.stats import Examples
from mergesearch.types import Direction, Objective, Scored, Split


@dataclass(frozen=True)
class Cells:
    """One row on one split: the objectives' scores in order, their weighted mean, and the mean of score / expert."""

    scores: tuple[Estimate, ...]
    mean: Estimate
    normalised: Estimate | None


@dataclass(frozen=True, eq=False)
class Control:
    """The study of a control: what its row is called, its results, and the candidate that it chose."""

    label: str
    results: Results
    chosen: int | None


@dataclass(frozen=True)
class Row:
    """One merge. `kind` is 'base', 'expert', 'uniform', 'lambda', 'searched' or 'control'. A split not scored is
    absent. `number` is below 0 for a control, which is a candidate of another study."""

    kind: str
    label: str
    number: int
    cells: Mapping[Split, Cells]


@dataclass(frozen=True)
class Gap:
    """Optimism: how much better a merge looked on search than on test, positive is optimistic.

    `uniform` is the same for the uniform average, which nobody selected: what the splits themselves differ by.
    """

    searched: Estimate
    uniform: Estimate | None

    @property
    def is_large(self) -> bool:
        """Above two standard errors."""
        return 0.0 < 2.0 * self.searched.stderr < self.searched.value


@dataclass(frozen=True)
class Comparison:
    """The final table. `differences` holds the searched merge against uniform and best λ, test before confirm."""

    objectives: tuple[Objective, ...]
    rows: tuple[Row, ...]
    differences: tuple[Difference, ...]
    gap: Gap | None

    def rows_on(self, split: Split) -> list[Row]:
        """The rows that were scored on a split."""
        return [row for row in self.rows if split in row.cells]

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        rows = []
        for row in self.rows:
            splits = {
                split.value: {
                    "scores": {o.name: asdict(s) for o, s in zip(self.objectives, cells.scores, strict=True)},
                    "mean": asdict(cells.mean),
                    "normalised": None if cells.normalised is None else asdict(cells.normalised),
                }
                for split, cells in row.cells.items()
            }
            rows.append({"kind": row.kind, "name": row.label, "candidate": row.number, "splits": splits})
        differences = [asdict(d) | {"verdict": d.verdict.value} for d in self.differences]
        return {"rows": rows, "differences": differences, "gap": None if self.gap is None else asdict(self.gap)}


def compare(
    results: Results,
    chosen: int | None = None,
    heads: Mapping[str, str] | None = None,
    examples: Examples | None = None,
    generator: np.random.Generator | None = None,
    controls: Sequence[Control] = (),
) -> Comparison:
    """The final table of a study, finished or not.

    Args:
        chosen: the searched merge; None takes the best on the search split so far.
        heads: objective -> expert whose head it wears; an objective that is not named is compared with the expert of
            its own name, or else with the best expert on the search split.
        examples: per-example scores, for paired differences. `generator`: for the bootstrap; None leaves it out.
        controls: the studies of its controls, a row for each.
    """
    searched = results.best if chosen is None else chosen
    own = own_experts(results, heads or {})
    rows = [
        Row(kind, label, number, cells)
        for kind, label, number in _merges(results, searched)
        if (cells := _cells(results, number, own))
    ]
    rows += _control_rows(results, controls, own)
    differences = []
    if searched is not None:
        for split in (Split.TEST, Split.CONFIRM):
            for row in rows:
                if row.kind in ("uniform", "lambda"):
                    found = difference(results, searched, row.number, row.label, split, examples, generator)
                    differences += [] if found is None else [found]
    return Comparison(results.objectives, tuple(rows), tuple(differences), _gap(results, searched))


def _control_rows(results: Results, controls: Sequence[Control], own: Mapping[str, int]) -> list[Row]:
    """A row for each control that has scored something, in units of this study's experts."""
    rows = []
    for at, control in enumerate(controls):
        number = control.results.best if control.chosen is None else control.chosen
        if number is None or control.results.objectives != results.objectives:
            continue
        cells = _cells(control.results, number, own, results)
        rows.append(Row("control", f"control: {control.label}", -1 - at, cells))
    return rows


def name_of(results: Results, number: int, chosen: int | None = None) -> str:
    """What a candidate is called: 'base', 'expert mnist', 'uniform average', 'λ = 0.3', 'searched #57', '#57'."""
    origin = results.candidates[number].origin
    if origin == BASE:
        return "base"
    if origin == UNIFORM:
        return "uniform average"
    if origin.startswith(EXPERT):
        return f"expert {origin.removeprefix(EXPERT)}"
    if origin.startswith(LAMBDA):
        return f"λ = {origin.removeprefix(LAMBDA)}"
    if origin.startswith(BASELINE):
        return origin.removeprefix(BASELINE)
    return f"searched #{number}" if number == chosen else f"#{number}"


def own_experts(results: Results, heads: Mapping[str, str]) -> dict[str, int]:
    """Objective -> number of its own expert; an objective without one is absent."""
    experts = {o.removeprefix(EXPERT): n for o, n in results.baselines().items() if o.startswith(EXPERT)}
    scored = [n for n in experts.values() if results.outcome(n) is not None]
    own = {}
    for at, objective in enumerate(results.objectives):
        named = experts.get(heads.get(objective.name, objective.name))
        if named is None and scored:
            # Chosen on the search split: choosing on the split that is shown would be a leak.
            named = min(scored, key=lambda n: (_loss(results, n, at), n))
        if named is not None:
            own[objective.name] = named
    return own


def _loss(results: Results, number: int, at: int) -> float:
    values = results.losses(number)
    return float("inf") if values is None else float(values[at])


def _merges(results: Results, searched: int | None) -> list[tuple[str, str, int]]:
    """Kind, label and number of every row, in order."""
    baselines = results.baselines()
    rows = [("base", n) for o, n in baselines.items() if o == BASE]
    rows += [("expert", n) for o, n in baselines.items() if o.startswith(EXPERT)]
    rows += [("uniform", n) for o, n in baselines.items() if o == UNIFORM]
    best = results.best_lambda()
    rows += [] if best is None else [("lambda", best)]
    rows += [] if searched is None else [("searched", searched)]
    return [
        (kind, ("best " if kind == "lambda" else "") + name_of(results, number, searched), number)
        for kind, number in rows
    ]


def _cells(results: Results, number: int, own: Mapping[str, int], units: Results | None = None) -> dict[Split, Cells]:
    """Scores of a candidate by split; `units` are the results that hold the experts `own`, None: the same."""
    found = {}
    for split in Split:
        outcome = results.outcome(number, split)
        if outcome is not None:
            scores = tuple(
                Estimate(outcome.scores[o.name].value, outcome.scores[o.name].stderr) for o in results.objectives
            )
            experts = {name: (units or results).outcome(n, split) for name, n in own.items()}
            found[split] = Cells(
                scores, mean(results.objectives, outcome), _normalised(results.objectives, scores, experts)
            )
    return found


def mean(objectives: tuple[Objective, ...], outcome: Scored) -> Estimate:
    """Weighted mean of an outcome's scores; see `mean_sign` for its direction."""
    scores = [outcome.scores[o.name] for o in objectives]
    weights = shares(objectives)
    losses = np.array([o.loss(s.value) for o, s in zip(objectives, scores, strict=True)])
    errors = np.array([s.stderr for s in scores])
    return Estimate(mean_sign(objectives) * float(weights @ losses), float(np.sqrt(np.sum((weights * errors) ** 2))))


def _normalised(
    objectives: tuple[Objective, ...], scores: tuple[Estimate, ...], experts: Mapping[str, Scored | None]
) -> Estimate | None:
    ratios, errors = [], []
    for objective, score in zip(objectives, scores, strict=True):
        expert = experts.get(objective.name)
        unit = 0.0 if expert is None else expert.scores[objective.name].value
        if unit <= 0.0 or score.value < 0.0:
            return None
        if objective.direction is Direction.MAX:
            ratios.append(score.value / unit)
            errors.append(score.stderr / unit)
        elif score.value > 0.0:
            ratios.append(unit / score.value)
            errors.append(unit * score.stderr / score.value**2)
        else:
            return None
    return Estimate(float(np.mean(ratios)), float(np.sqrt(np.sum(np.square(errors)))) / len(ratios))


def _gap(results: Results, searched: int | None) -> Gap | None:
    uniform = results.by_origin(UNIFORM)
    mine = None if searched is None else _optimism(results, searched)
    return None if mine is None else Gap(mine, None if uniform is None else _optimism(results, uniform))


def _optimism(results: Results, number: int) -> Estimate | None:
    search, test = (results.outcome(number, split) for split in (Split.SEARCH, Split.TEST))
    if search is None or test is None:
        return None
    a, b = mean(results.objectives, search), mean(results.objectives, test)
    better = -mean_sign(results.objectives)
    return Estimate(better * (a.value - b.value), float(np.hypot(a.stderr, b.stderr)))
