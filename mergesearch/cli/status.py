"""mergesearch status"""

from typing import Annotated, Any

import typer

from mergesearch.cli.common import JsonOption, StoreOption, find, place, print_json


def status(
    study: Annotated[
        str | None, typer.Argument(help="A study's name or file [default: all of the store].", show_default=False)
    ] = None,
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """Show how studies stand: status, evaluations, who runs each and whether they still do, what was asked of them.

    Works from any machine that reaches the store. Exits with 0 if the store answers.

    Example: mergesearch status smoke --json
    """
    from mergesearch.cli.holding import standing

    if study is None:
        opened = place(store).open()
        names = [record.name for record in opened.studies()]
    else:
        named = find(study, store)
        opened = named.place.open()
        names = [opened.study(named.name).name]
    rows = [standing(opened, name) for name in names]
    opened.close()
    if json:
        print_json(rows[0] if study else rows)
        return
    from rich.console import Console

    Console().print(_table(rows) if rows else "no studies yet")


def _table(rows: list[dict[str, Any]]) -> Any:
    from rich.table import Table

    table = Table("study", "status", "evaluations", "controller", "busy", "asked for", "message")
    for row in rows:
        busy = "" if row["busy_share"] is None else f"{row['busy_share']:.0%}"
        done = f"{row['evaluations']}/{row['budget']:g}"
        wishes = ", ".join(row["asked_for"])
        table.add_row(row["name"], row["status"], done, row["controller"], busy, wishes, row["message"])
    return table
