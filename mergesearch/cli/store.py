"""mergesearch store info, gc, export, export-optuna"""

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from mergesearch.cli.common import JsonOption, StoreOption, find, place, print_json

OptionalStudy = Annotated[str | None, typer.Argument(help="The study's name, or its study file.", show_default=False)]


class TableFormat(StrEnum):
    """What a table is written as."""

    CSV = "csv"
    JSON = "json"
    PARQUET = "parquet"


def info(store: StoreOption = None, json: JsonOption = False) -> None:
    """Show what a store holds: its version and size, studies by status, evaluations, the biggest studies.

    Example: mergesearch store info --store sqlite:///runs/mergesearch.db
    """
    import time

    from mergesearch.observe.passwords import hide_passwords
    from mergesearch.report.stores import read_store, render_store

    meant = place(store)
    found = read_store(meant.open(), hide_passwords(meant.url), time.time())
    if json:
        print_json(found.summary())
        return
    from rich.console import Console

    Console().print(render_store(found))


def gc(
    study: Annotated[
        list[str] | None, typer.Option("--study", help="Delete this study; may be repeated.", show_default=False)
    ] = None,
    status: Annotated[
        str | None,
        typer.Option("--status", help="Delete studies of these statuses, such as failed,stopped.", show_default=False),
    ] = None,
    older_than: Annotated[
        str | None,
        typer.Option("--older-than", help="Of those, the ones unchanged for so long: 30d, 12h.", show_default=False),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Delete it; without, only show what would go.")] = False,
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """Delete studies, controls of deleted studies and records of lost files; give the space back to the disk.

    Shows what would go unless --yes is given. A study that a controller holds is never touched. What a deleted study
    had scored is also gone from the cache of evaluations.

    Example: mergesearch store gc --status failed,stopped --older-than 30d --yes
    """
    from mergesearch.export.cleaning import carry_out, choice, plan
    from mergesearch.report.size import size
    from mergesearch.report.stores import render_plan

    chosen = choice(study or [], status, older_than)
    opened = place(store).open()
    planned = plan(opened, chosen, opened.clock())
    gone, (before, after) = carry_out(opened, planned) if yes else ([], (0, 0))
    if json:
        body = {
            "studies": [{"study": d.record.name, "why": d.why, "bytes": d.amount.bytes} for d in planned.studies],
            "kept": [{"study": k.record.name, "why": k.why} for k in planned.kept],
            "artifacts": [{"study": name, "path": a.path} for name, a in planned.artifacts],
            "bytes": planned.bytes,
            "deleted": gone if yes else None,
            "before": before if yes else None,
            "after": after if yes else None,
        }
        print_json(body)
        return
    from rich.console import Console

    Console().print(render_plan(planned))
    if yes:
        typer.echo(f"deleted {_counted(len(gone))}; the store went from {size(before)} to {size(after)}")
    else:
        what = f"{_counted(len(planned.studies))}, about {size(planned.bytes)}"
        typer.echo(f"{what}; nothing was deleted: add --yes to delete and to give free space back")


def _counted(studies: int) -> str:
    return "1 study" if studies == 1 else f"{studies} studies"


def export(
    study: OptionalStudy = None,
    to: Annotated[Path | None, typer.Option("--to", help="File to write.", show_default=False)] = None,
    every: Annotated[bool, typer.Option("--all", help="Every study of the store.")] = False,
    form: Annotated[
        TableFormat | None,
        typer.Option("--format", help="What to write [default: as the file's name ends].", show_default=False),
    ] = None,
    examples: Annotated[bool, typer.Option("--examples", help="With per-example values (JSON, Parquet).")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")] = False,
    store: StoreOption = None,
) -> None:
    """Write a study's evaluations as a table, one row each: coefficients, scores, seconds, failures.

    JSON is one object a line.

    Example: mergesearch store export smoke --to smoke.parquet
    """
    from mergesearch.errors import SpecError
    from mergesearch.export.tables import Format, study_table, write_tables
    from mergesearch.stored import read_stored

    if (study is None) == (not every) or to is None:
        raise SpecError("name one study or --all, and the file to write with --to")
    ending = to.suffix.lstrip(".").replace("jsonl", "json")
    if form is None and ending not in list(Format):
        raise SpecError(f"--to {to}: the name ends with none of .csv, .json and .parquet; say --format")
    if to.exists() and not force:
        raise SpecError(f"{to} is there already; name another file, or replace it with --force")
    written = Format(form.value if form else ending)
    if written is Format.CSV and examples:
        raise SpecError("CSV has no place for per-example values; write --format parquet or json")
    named = None if study is None else find(study, store)
    opened = (place(store) if named is None else named.place).open()
    names = [named.name] if named else [record.name for record in reversed(opened.studies())]
    tables = [
        study_table(read_stored(opened, name), opened.times(name), partial(opened.examples, name) if examples else None)
        for name in names
    ]
    if not tables:
        raise SpecError("the store holds no study yet; there is nothing to write")
    typer.echo(f"{write_tables(tables, written, to)} evaluations written to {to}")


def export_optuna(
    study: Annotated[str, typer.Argument(help="The study's name, or its study file.", show_default=False)],
    to: Annotated[
        str,
        typer.Option("--to", help="URL of an Optuna database, or path of a journal file.", show_default=False),
    ],
    store: StoreOption = None,
) -> None:
    """Write a study as an Optuna storage, which optuna-dashboard opens and `optuna.load_study` loads.

    A journal file is written and opened faster than a database where there are many axes.

    Example: mergesearch store export-optuna smoke --to sqlite:///optuna.db
    """
    from mergesearch.export.optuna_storage import export_optuna as write
    from mergesearch.observe.passwords import hide_passwords
    from mergesearch.stored import read_stored

    named = find(study, store)
    opened = named.place.open()
    count = write(read_stored(opened, named.name), opened.times(named.name), to)
    typer.echo(f"{count} candidates of {named.name} written to {hide_passwords(to)}")
