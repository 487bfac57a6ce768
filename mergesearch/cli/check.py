"""mergesearch check"""

from collections.abc import Iterable
from typing import Annotated, Any

import typer

from mergesearch.cli.common import FileArgument, JsonOption, StoreOption, place, print_json


def check(
    file: FileArgument,
    time: Annotated[bool, typer.Option("--time", help="Time one candidate and estimate the whole study.")] = False,
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """Check a study before it is launched: its file, its models' headers, its data, its axes, its memory.

    With --json each finding has the line of the study file that it is about.

    Example: mergesearch check studies/smoke.yaml --time
    """
    from rich.console import Console
    from rich.table import Table

    from mergesearch.errors import SpecError
    from mergesearch.study.check import check_study, file_findings, time_candidate
    from mergesearch.study.kinds import BlackBoxSpec, check_black_box, read_any

    try:
        spec, source = read_any(file)
    except SpecError as error:
        if not json:
            raise
        print_json({"ok": False, "findings": _rows(file_findings(error, str(file)))})
        raise typer.Exit(error.exit_code) from None
    said = spec.store if "store" in spec.model_fields_set else None
    if isinstance(spec, BlackBoxSpec):
        checked = check_black_box(spec, source)
    else:
        checked = check_study(spec, source, place(store or said).open)
    seconds = time_candidate(checked.resolved) if time and checked.ok and checked.resolved else None
    evaluations = spec.budget.evaluations + len(checked.resolved.baselines if checked.resolved else ())
    if json:
        print_json(
            {
                "ok": checked.ok,
                "findings": _rows(checked.findings),
                "axes": [] if checked.space is None else [vars(axis) for axis in checked.space.axes],
                "seconds_per_candidate": seconds,
            }
        )
        raise typer.Exit(0 if checked.ok else 1)
    for finding in checked.findings:
        typer.echo(f"{finding.level.value:>7}  {finding.sentence}")
    if checked.space is not None:
        grid = Table("", "axis", "low", "high", "start", title=f"{checked.space.dim} axes")
        for i, axis in enumerate(checked.space.axes):
            scale = "" if axis.scale.value == "linear" else f" ({axis.scale.value})"
            grid.add_row(str(i), axis.name + scale, f"{axis.low:g}", f"{axis.high:g}", f"{axis.init:g}")
        Console().print(grid)
    if seconds is not None:
        minutes = seconds * evaluations / 60
        typer.echo(f"{seconds:.2f} s for one candidate; about {minutes:.1f} min for {evaluations} on one worker")
    raise typer.Exit(0 if checked.ok else 1)


def _rows(findings: Iterable[Any]) -> list[dict[str, object]]:
    return [{"level": f.level.value, "sentence": f.sentence, "line": f.line} for f in findings]
