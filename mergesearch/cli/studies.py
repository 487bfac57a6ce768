"""mergesearch studies"""

from mergesearch.cli.common import JsonOption, StoreOption, place, print_json


def studies(store: StoreOption = None, json: JsonOption = False) -> None:
    """List the studies of a store, newest first.

    Example: mergesearch studies --store sqlite:///runs/mergesearch.db
    """
    from mergesearch.report.terminal import render_studies
    from mergesearch.report.view import read_view

    opened = place(store).open()
    found = [read_view(opened, record.name) for record in opened.studies()]
    if json:
        print_json([study.summary() for study in found])
        return
    from rich.console import Console

    counts = {study.record.name: study.results.search_told for study in found}
    Console().print(render_studies([study.record for study in found], opened.clock(), counts))
