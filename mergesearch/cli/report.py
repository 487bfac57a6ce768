"""mergesearch report"""

from pathlib import Path
from typing import Annotated

import typer

from mergesearch.cli.common import StoreOption, StudyArgument, find


def report(
    study: StudyArgument,
    to: Annotated[Path, typer.Option("--to", help="The HTML file to write.")] = Path("report.html"),
    store: StoreOption = None,
) -> None:
    """Write a study's report: one HTML page that needs nothing else.

    Example: mergesearch report smoke --to runs/smoke/report.html
    """
    from mergesearch.report.html import write_report
    from mergesearch.report.view import read_view

    named = find(study, store)
    write_report(read_view(named.place.open(), named.name), to)
    typer.echo(f"wrote {to}")
