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
    from mergesearch.store.open import open_store
    from mergesearch.stored import read_stored

    named = find(study, store)
    opened = open_store(named.store, create=False)
    write_report(read_stored(opened, named.name), lambda n, split: opened.examples(named.name, n, split), to)
    typer.echo(f"wrote {to}")
