"""mergesearch show"""

from mergesearch.cli.common import JsonOption, StoreOption, StudyArgument, find, print_json


def show(study: StudyArgument, store: StoreOption = None, json: JsonOption = False) -> None:
    """Show how a study stands: status, evaluations, best, front, failures, and how well its strategy knows the space.

    Example: mergesearch show smoke --json
    """
    from mergesearch.cli.summary import summary
    from mergesearch.report.table import comparison, render_table
    from mergesearch.report.terminal import study_panel
    from mergesearch.store.open import open_store
    from mergesearch.stored import read_stored

    named = find(study, store)
    opened = open_store(named.store, create=False)
    found = read_stored(opened, named.name)
    if json:
        print_json(summary(found))
        return
    from rich.console import Console

    console = Console()
    console.print(study_panel(found))
    if found.results.baselines():
        console.print(render_table(comparison(found, lambda n, split: opened.examples(named.name, n, split))))
