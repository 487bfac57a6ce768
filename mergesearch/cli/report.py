"""mergesearch report"""

from pathlib import Path
from typing import Annotated

import typer

from mergesearch.cli.common import StoreOption, StudyArgument, find


def report(
    study: StudyArgument,
    to: Annotated[Path, typer.Option("--output", "-o", "--to", help="The HTML file to write.")] = Path("report.html"),
    static: Annotated[
        bool, typer.Option("--static", help="Pictures instead of charts: a small file without any script.")
    ] = False,
    models: Annotated[
        bool, typer.Option("--models", help="Also read the models: norms and angles of the experts' changes.")
    ] = False,
    store: StoreOption = None,
) -> None:
    """Write a study's report: one HTML page that needs nothing else, no network either.

    Example: mergesearch report smoke -o runs/smoke/report.html
    """
    from mergesearch.report.background import read_report
    from mergesearch.report.html import write_report

    named = find(study, store)
    view, background = read_report(named.place.open(), named.name, models=models)
    write_report(view, to, background, static=static)
    typer.echo(f"wrote {to}")
