"""The final table for a terminal."""

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from mergesearch.report.estimate import NOTHING, PERCENT, Estimate, Unit, better, mean_unit, unit_of, units_sentence
from mergesearch.report.paired import Verdict
from mergesearch.report.table import Cells, Comparison
from mergesearch.types import Split

TITLES = {
    Split.TEST: "test: read once",
    Split.CONFIRM: "confirm: chose the finalist",
    Split.SEARCH: "search: tuned on this",
}
VERDICT_STYLES = {Verdict.BETTER: "green", Verdict.WORSE: "red", Verdict.NOISE: "yellow", Verdict.UNKNOWN: "dim"}


class ComparisonText:
    """Rich renderable of a comparison: a table for each split that has scores, test first, then what they mean."""

    def __init__(self, comparison: Comparison) -> None:
        self._comparison = comparison

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        comparison = self._comparison
        if not comparison.rows:
            yield Text("Nothing to compare yet: no baseline and no candidate has been scored.", style="dim")
            return
        for split in (Split.TEST, Split.CONFIRM, Split.SEARCH):
            if comparison.rows_on(split):
                yield from (_table(comparison, split, console, options.max_width), Text())
        yield notes(comparison)


def render_table(comparison: Comparison) -> RenderableType:
    """The final table, as narrow as the console asks: errors move to a second line, then objectives go."""
    return ComparisonText(comparison)


def _table(comparison: Comparison, split: Split, console: Console, width: int) -> Table:
    for stacked, objectives in ((False, True), (True, True)):
        table = _draw(comparison, split, stacked, objectives)
        if console.measure(table).maximum <= width:
            return table
    return _draw(comparison, split, False, False)


def _draw(comparison: Comparison, split: Split, stacked: bool, objectives: bool) -> Table:
    table = Table(title=TITLES[split], title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("")
    units = columns(comparison)
    for name, _ in units if objectives else units[-2:]:
        table.add_column(Text(name), justify="right", header_style="bold", no_wrap=True)
    top = leaders(comparison, split)
    for row in comparison.rows_on(split):
        values = estimates(row.cells[split])
        texts = [
            _cell(value, unit, row.number in best, stacked)
            for value, (_, unit), best in zip(values, units, top, strict=True)
        ]
        style = "bold cyan" if row.kind == "searched" else ""
        table.add_row(Text(row.label, style=style, no_wrap=True), *(texts if objectives else texts[-2:]))
    return table


def _cell(value: Estimate | None, unit: Unit, best: bool, stacked: bool) -> Text:
    if value is None:
        return Text(NOTHING, style="dim")
    text = Text(unit.value(value), style="bold green" if best else "")
    error = unit.error(value.stderr)
    return text.append(("\n" if stacked and error else "") + error, style="not bold dim")


def columns(comparison: Comparison) -> list[tuple[str, Unit]]:
    """Heading and unit of every column: the objectives, 'mean', 'norm.'."""
    objectives = comparison.objectives
    named = [(f"{o.name} {better(o)}", unit_of(o)) for o in objectives]
    return [*named, ("mean", mean_unit(objectives)), ("norm.", PERCENT)]


def estimates(cells: Cells) -> list[Estimate | None]:
    """A row's cells in the order of `columns`."""
    return [*cells.scores, cells.mean, cells.normalised]


def leaders(comparison: Comparison, split: Split) -> list[set[int]]:
    """For every column the candidates with its best value."""
    rows = comparison.rows_on(split)
    signs = [o.loss(1.0) for o in comparison.objectives]
    signs += [1.0 if all(s > 0 for s in signs) else -1.0, -1.0]
    found = []
    for column, sign in enumerate(signs):
        values = [(sign * e.value, r.number) for r in rows if (e := estimates(r.cells[split])[column]) is not None]
        least = min((v for v, _ in values), default=0.0)
        found.append({number for v, number in values if v == least})
    return found


def notes(comparison: Comparison) -> Group:
    """What the columns are, and the sentences on differences and optimism."""
    unit = mean_unit(comparison.objectives)
    lines = [Text(legend(comparison), style="dim")]
    for difference in comparison.differences:
        lines.append(Text(difference.sentence(unit), style=VERDICT_STYLES[difference.verdict]))
    gap = gap_sentence(comparison)
    lines += [Text(gap)] if gap else []
    return Group(*lines)


def legend(comparison: Comparison) -> str:
    """What the numbers are."""
    sentence = units_sentence(comparison.objectives)
    text = f"{sentence[0].upper()}{sentence[1:]}; norm. = mean of score / own expert's score, in %."
    if len({o.direction for o in comparison.objectives}) > 1:
        text += " Mean: higher is better, scores to be minimised count negative."
    return text


def gap_sentence(comparison: Comparison) -> str:
    """How optimistic the search score was; '' until the test split is scored."""
    gap, unit = comparison.gap, mean_unit(comparison.objectives)
    if gap is None:
        return ""
    text = f"optimism, search − test: {unit.estimate(gap.searched, True)} for the searched merge"
    if gap.uniform is not None:
        text += f", {unit.estimate(gap.uniform, True)} for the uniform average"
    return text + ("; more than two errors: trust the test score only." if gap.is_large else ".")
