"""mergesearch import"""

from pathlib import Path
from typing import Annotated

import typer

FORMATS = ("mergekit",)


def import_(
    format: Annotated[str, typer.Argument(help="Whose file it is: mergekit.", show_default=False)],
    file: Annotated[Path, typer.Argument(help="A merge config or a mergekit-evolve config.", show_default=False)],
    to: Annotated[
        Path | None, typer.Option("--to", help="Study file to write [default: print it].", show_default=False)
    ] = None,
) -> None:
    """Turn another tool's merge into a study file; what a study cannot say is refused by name.

    Example: mergesearch import mergekit mergekit.yaml --to studies/mine.yaml
    """
    from mergesearch.errors import SpecError
    from mergesearch.plugins import did_you_mean
    from mergesearch.study.mergekit import import_mergekit

    if format not in FORMATS:
        raise SpecError(f"there is no import from {format!r}{did_you_mean(format, FORMATS)}")
    draft = import_mergekit(file)
    if to is None:
        typer.echo(draft.to_yaml(), nl=False)
        return
    try:
        with to.open("x", encoding="utf-8") as written:
            written.write(draft.to_yaml())
    except FileExistsError:
        raise SpecError(f"{to} exists already; name a new file") from None
    except OSError as error:
        raise SpecError(f"cannot write {str(to)!r}: {error.strerror}") from None
    typer.echo(f"study {draft.name} written to {to}")
    for note in draft.notes:
        typer.echo(f"note: {note}")
    for path in draft.missing:
        typer.echo(f"note: {path!r} is no folder here: download the model and write its folder")
    typer.echo(f"next: fill in 'objectives' in {to}, then mergesearch check {to}")
