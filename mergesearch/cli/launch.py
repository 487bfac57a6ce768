"""mergesearch launch"""

from mergesearch.cli.common import FileArgument, StoreOption, WorkersOption


def launch(file: FileArgument, workers: WorkersOption = None, store: StoreOption = None) -> None:
    """Launch the study of a file and run it to its end. Ctrl-C stops it cleanly; `mergesearch resume` goes on.

    Example: mergesearch launch studies/smoke.yaml --workers workers/laptop.yaml
    """
    from mergesearch.cli.running import profile, watched
    from mergesearch.controller.launch import launch as run
    from mergesearch.store.open import open_store
    from mergesearch.study.source import read_study

    spec, _ = read_study(file)
    url = store or spec.store
    with watched(spec.name, url) as watch:
        run(file, workers=profile(workers), store=open_store(url), watch=watch)
