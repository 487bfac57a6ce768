"""mergesearch show"""

from typing import Annotated

import typer

from mergesearch.cli.common import JsonOption, Named, StoreOption, StudyArgument, find, print_json


def show(
    study: StudyArgument,
    timing: Annotated[bool, typer.Option("--timing", help="Show where the time went instead.")] = False,
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """Show how a study stands: status, evaluations, best, front, failures, and how well its strategy knows the space.

    With --timing: seconds of waiting, building, scoring and recording, by worker, and evaluations a minute.

    Example: mergesearch show smoke --json
    """
    if timing:
        _show_timing(find(study, store), json)
        return
    from mergesearch.report.table_text import render_table
    from mergesearch.report.terminal import render_show
    from mergesearch.report.view import read_view
    from mergesearch.store.open import open_store

    named = find(study, store)
    found = read_view(open_store(named.store, create=False), named.name)
    if json:
        print_json(found.summary())
        return
    from rich.console import Console

    console = Console()
    console.print(render_show(found))
    if found.results.baselines():
        console.print(render_table(found.comparison()))


def _show_timing(named: Named, json: bool) -> None:
    from mergesearch.report.timing import render_timing, timing_report
    from mergesearch.stored import read_stored

    opened = named.place.open()
    found = read_stored(opened, named.name)
    report = timing_report(found.results, found.record, found.facts, opened.times(named.name))
    if json:
        print_json(report.summary())
        return
    from rich.console import Console

    Console().print(render_timing(report))
