"""mergesearch studies"""

from mergesearch.cli.common import DEFAULT_STORE, JsonOption, StoreOption, print_json


def studies(store: StoreOption = None, json: JsonOption = False) -> None:
    """List the studies of a store, newest first.

    Example: mergesearch studies --store sqlite:///runs/mergesearch.db
    """
    from mergesearch.cli.summary import summary
    from mergesearch.report.terminal import studies_table
    from mergesearch.store.open import open_store
    from mergesearch.stored import read_stored

    opened = open_store(store or DEFAULT_STORE, create=False)
    found = [read_stored(opened, record.name) for record in opened.studies()]
    if json:
        print_json([summary(study) for study in found])
        return
    from rich.console import Console

    Console().print(studies_table(found))
