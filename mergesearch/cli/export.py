"""mergesearch export"""

from pathlib import Path
from typing import Annotated

import typer

from mergesearch.cli.common import JsonOption, StoreOption, StudyArgument, find, print_json


def export(
    study: StudyArgument,
    to: Annotated[Path, typer.Option("--to", help="Folder to write; it must be new or empty.", show_default=False)],
    best: Annotated[bool, typer.Option("--best", help="The candidate the study chose (the default).")] = False,
    candidate: Annotated[int | None, typer.Option("--candidate", help="This candidate.", show_default=False)] = None,
    knee: Annotated[bool, typer.Option("--knee", help="The knee of the front.")] = False,
    prefer: Annotated[
        str | None, typer.Option("--prefer", help="Weights of the objectives, such as a=0.7,b=0.3.", show_default=False)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier export in the folder.")] = False,
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """Write a candidate as a checkpoint that transformers loads, with recipe.yaml, mergekit.yaml and a model card.

    Example: mergesearch export smoke --knee --to exports/smoke
    """
    from mergesearch.controller.launch import resolve_stored
    from mergesearch.errors import SpecError
    from mergesearch.export import export_study
    from mergesearch.export.select import select
    from mergesearch.report.plot import plot_front
    from mergesearch.stored import read_stored

    if sum([best, candidate is not None, knee, prefer is not None]) > 1:
        raise SpecError("name one of --best, --candidate, --knee and --prefer")
    named = find(study, store)
    opened = named.place.open()
    found = read_stored(opened, named.name)
    number = select(found, candidate=candidate, knee=knee, prefer=prefer)
    written = export_study(resolve_stored(opened, named.name), found, opened, number, to, plot=plot_front, force=force)
    if json:
        print_json({"candidate": number, "paths": [str(p) for p in written.paths], "notes": list(written.notes)})
        return
    typer.echo(f"candidate {number} written to {to}")
    for note in written.notes:
        typer.echo(f"note: {note}")
