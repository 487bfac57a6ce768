"""mergesearch coefficients"""

from pathlib import Path
from typing import Annotated

import typer

from mergesearch.cli.common import JsonOption, StoreOption, StudyArgument, find, print_json


def coefficients(
    study: StudyArgument,
    candidate: Annotated[int | None, typer.Option("--candidate", help="This candidate.", show_default=False)] = None,
    best: Annotated[bool, typer.Option("--best", help="The candidate the study chose (the default).")] = False,
    knee: Annotated[bool, typer.Option("--knee", help="The knee of the front.")] = False,
    prefer: Annotated[
        str | None, typer.Option("--prefer", help="Weights of the objectives, such as a=0.7,b=0.3.", show_default=False)
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Draw a heat map (.png, .svg, .pdf).", show_default=False)
    ] = None,
    title: Annotated[str, typer.Option("--title", help="What stands above the picture.", show_default=False)] = "",
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """Show what a merge is made of: each knob's value for every layer group and expert.

    Example: mergesearch coefficients smoke --knee --plot coefficients.png
    """
    from mergesearch.errors import SpecError
    from mergesearch.export.select import select
    from mergesearch.report.coefficients import coefficients_of, plot_coefficients
    from mergesearch.report.view import view_of
    from mergesearch.stored import read_stored

    if sum([best, candidate is not None, knee, prefer is not None]) > 1:
        raise SpecError("name one of --candidate, --best, --knee and --prefer")
    named = find(study, store)
    opened = named.place.open()
    found = read_stored(opened, named.name)
    number = select(found, candidate=candidate, knee=knee, prefer=prefer)
    view = view_of(opened, found)
    tables, space = coefficients_of(view, number)
    if plot is not None:
        plot_coefficients(view, number, plot, title)
    if json:
        knobs = {knob: dict(zip(space.groups, table.tolist(), strict=True)) for knob, table in tables.items()}
        print_json({"candidate": number, "experts": space.experts, "coefficients": knobs})
        return
    from rich.console import Console

    from mergesearch.report.terminal import render_coefficients

    typer.echo(f"candidate {number} of study {named.name}")
    Console().print(render_coefficients(view, number))
    if plot is not None:
        typer.echo(f"wrote {plot}")
