"""mergesearch resume"""

from mergesearch.cli.common import StoreOption, StudyArgument, WorkersOption, find


def resume(study: StudyArgument, workers: WorkersOption = None, store: StoreOption = None) -> None:
    """Go on with a study where its log ends: after Ctrl-C, a pause, a failure, or a crash.

    Example: mergesearch resume smoke
    """
    from mergesearch.cli.running import profile, watched
    from mergesearch.controller.launch import resume as run
    from mergesearch.store.open import open_store

    named = find(study, store)
    opened = open_store(named.store, create=False)
    with watched(named.name, named.store) as watch:
        run(named.name, opened, workers=profile(workers), watch=watch)
