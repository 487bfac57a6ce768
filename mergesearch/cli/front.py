"""mergesearch front"""

from pathlib import Path
from typing import Annotated

import typer

from mergesearch.cli.common import JsonOption, StoreOption, StudyArgument, find, print_json


def front(
    study: StudyArgument,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", help="Write a picture of the front (.png, .svg, .pdf).", show_default=False),
    ] = None,
    x: Annotated[
        str | None, typer.Option("--x", help="With --plot: the objective to the right.", show_default=False)
    ] = None,
    y: Annotated[str | None, typer.Option("--y", help="With --plot: the one upwards.", show_default=False)] = None,
    split: Annotated[str, typer.Option("--split", help="With --plot: search, confirm or test.")] = "search",
    errors: Annotated[bool, typer.Option("--errors", help="With --plot: one standard error to each side.")] = False,
    title: Annotated[str, typer.Option("--title", help="What stands above the picture.", show_default=False)] = "",
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """List the merges that no other merge beats in every objective.

    Example: mergesearch front smoke --plot front.png --errors
    """
    from mergesearch.cli.summary import candidate_row
    from mergesearch.errors import SpecError
    from mergesearch.plugins import did_you_mean
    from mergesearch.report.view import read_view
    from mergesearch.types import Split

    splits = [s.value for s in Split]
    if split not in splits:
        raise SpecError(f"--split {split!r} is unknown{did_you_mean(split, splits)}")
    if plot is None and (x or y or errors or title or split != Split.SEARCH):
        raise SpecError("--x, --y, --split, --errors and --title are about the picture: add --plot front.png")
    named = find(study, store)
    found = read_view(named.place.open(), named.name)
    if plot is not None:
        from mergesearch.report.plot import plot_front

        plot_front(found.results, plot, x, y, Split(split), found.chosen, errors, title)
    if json:
        print_json([candidate_row(found.results, number) for number in found.results.front])
        return
    from rich.console import Console

    from mergesearch.report.terminal import render_front

    Console().print(render_front(found))
    if plot is not None:
        typer.echo(f"wrote {plot}")
