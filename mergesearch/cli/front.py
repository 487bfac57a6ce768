"""mergesearch front"""

from pathlib import Path
from typing import Annotated

import typer

from mergesearch.cli.common import JsonOption, StoreOption, StudyArgument, find, print_json


def front(
    study: StudyArgument,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Write a picture of the front (.png, .svg, .pdf).")
    ] = None,
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """List the merges that no other merge beats in every objective.

    Example: mergesearch front smoke --plot front.png
    """
    from mergesearch.cli.summary import candidate_row
    from mergesearch.report.view import read_view

    named = find(study, store)
    found = read_view(named.place.open(), named.name)
    if plot is not None:
        from mergesearch.report.plot import plot_front

        plot_front(found.results, plot, chosen=found.chosen)
    if json:
        print_json([candidate_row(found.results, number) for number in found.results.front])
        return
    from rich.console import Console

    from mergesearch.report.terminal import render_front

    Console().print(render_front(found))
    if plot is not None:
        typer.echo(f"wrote {plot}")
