"""mergesearch check"""

from typing import Annotated

import typer

from mergesearch.cli.common import FileArgument, JsonOption, print_json


def check(
    file: FileArgument,
    time: Annotated[bool, typer.Option("--time", help="Time one candidate and estimate the whole study.")] = False,
    json: JsonOption = False,
) -> None:
    """Check a study before it is launched: its file, its models' headers, its data, its axes, its memory.

    Example: mergesearch check studies/smoke.yaml --time
    """
    from rich.console import Console
    from rich.table import Table

    from mergesearch.study.check import check_study, time_candidate
    from mergesearch.study.source import read_study

    spec, source = read_study(file)
    checked = check_study(spec, source)
    seconds = time_candidate(checked.resolved) if time and checked.ok and checked.resolved else None
    evaluations = spec.budget.evaluations + len(checked.resolved.baselines if checked.resolved else ())
    if json:
        print_json(
            {
                "ok": checked.ok,
                "findings": [{"level": f.level.value, "sentence": f.sentence} for f in checked.findings],
                "axes": [] if checked.resolved is None else [vars(axis) for axis in checked.resolved.space.axes],
                "seconds_per_candidate": seconds,
            }
        )
        raise typer.Exit(0 if checked.ok else 1)
    for finding in checked.findings:
        typer.echo(f"{finding.level.value:>7}  {finding.sentence}")
    if checked.resolved is not None:
        grid = Table("", "axis", "low", "high", "start", title=f"{checked.resolved.space.dim} axes")
        for i, axis in enumerate(checked.resolved.space.axes):
            scale = "" if axis.scale.value == "linear" else f" ({axis.scale.value})"
            grid.add_row(str(i), axis.name + scale, f"{axis.low:g}", f"{axis.high:g}", f"{axis.init:g}")
        Console().print(grid)
    if seconds is not None:
        minutes = seconds * evaluations / 60
        typer.echo(f"{seconds:.2f} s for one candidate; about {minutes:.1f} min for {evaluations} on one worker")
    raise typer.Exit(0 if checked.ok else 1)
