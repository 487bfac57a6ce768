"""mergesearch list"""

from typing import Annotated, Any

import typer

from mergesearch.cli.about import summary
from mergesearch.cli.common import JsonOption, print_json


def list_plugins(
    family: Annotated[str, typer.Argument(help="operators, strategies, scorers or sinks.", show_default=False)],
    json: JsonOption = False,
    markdown: Annotated[bool, typer.Option(help="Print the page docs/<family>.md.")] = False,
) -> None:
    """List what a study file or --sink may name, with options, knobs and metrics as the code declares them.

    Example: mergesearch list strategies
    """
    from rich.console import Console
    from rich.table import Table

    from mergesearch.errors import SpecError
    from mergesearch.observe.sinks import SINKS
    from mergesearch.operators import OPERATORS
    from mergesearch.plugins import did_you_mean
    from mergesearch.scorers import SCORERS
    from mergesearch.strategies import STRATEGIES

    if markdown:
        typer.echo(_page(family), nl=False)
        return
    tables = {"operators": OPERATORS, "strategies": STRATEGIES, "scorers": SCORERS, "sinks": SINKS}
    if family not in tables:
        raise SpecError(f"there is no list of {family!r}{did_you_mean(family, tables)}")
    rows = [describe(family, kind, table) for kind, table in [(k, tables[family]) for k in tables[family]]]
    if json:
        print_json(rows)
        return
    grid = Table("kind", "what it is", "options and knobs", title=family, show_lines=True)
    for row in rows:
        about = "\n".join(line for line in (row["doc"], row["source"]) if line)
        grid.add_row(row["kind"], about, "\n".join(row["options"] + row["knobs"] + row["metrics"]))
    Console().print(grid)


def _page(family: str) -> str:
    from mergesearch.cli.operators_page import operators_page
    from mergesearch.cli.strategies_page import strategies_page
    from mergesearch.errors import SpecError

    pages = {"operators": operators_page, "strategies": strategies_page}
    if family not in pages:
        raise SpecError(f"--markdown is for {' and '.join(pages)}, there is no page of {family}")
    return pages[family]()


def describe(family: str, kind: str, table: dict[str, str]) -> dict[str, Any]:
    """One plug-in: the first line of its file's docstring, its options with defaults, its knobs or metrics."""
    from mergesearch.plugins import load

    plugin = load(family, table, kind)
    return {
        "kind": kind,
        "doc": summary(plugin),
        "source": f"{source.where} ({source.checked.value})" if (source := getattr(plugin, "SOURCE", None)) else "",
        "options": [_option(name, field) for name, field in plugin.Options.model_fields.items()],
        "knobs": [_knob(knob) for knob in getattr(plugin, "KNOBS", ())],
        "metrics": [f"metric {name} ({m.direction.value})" for name, m in getattr(plugin, "METRICS", {}).items()]
        + [_loss(name, loss) for name, loss in getattr(plugin, "LOSSES", {}).items()],
    }


def _option(name: str, field: Any) -> str:
    default = "required" if field.is_required() else f"default {field.get_default(call_default_factory=True)!r}"
    return f"{name} ({default})" + (f": {field.description}" if field.description else "")


def _loss(name: str, loss: Any) -> str:
    wants = " and ".join(word for word in ("labels", "teacher") if getattr(loss, word))
    return f"differentiable loss {name}" + (f" (needs {wants})" if wants else " (needs neither labels nor teacher)")


def _knob(knob: Any) -> str:
    init = "1/K" if knob.init is None else f"{knob.init:g}"
    high = "K" if knob.high is None else f"{knob.high:g}"
    whole = " whole" if knob.whole else ""
    return f"knob {knob.name}{whole} [{knob.low:g}, {high}] from {init} per {knob.per.value}: {knob.doc}"
