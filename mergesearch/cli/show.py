"""mergesearch show"""

from mergesearch.cli.common import JsonOption, StoreOption, StudyArgument, find, print_json


def show(study: StudyArgument, store: StoreOption = None, json: JsonOption = False) -> None:
    """Show how a study stands: status, evaluations, best, front, failures, and how well its strategy knows the space.

    Example: mergesearch show smoke --json
    """
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
