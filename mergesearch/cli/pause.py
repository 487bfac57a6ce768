"""mergesearch pause"""

from mergesearch.cli.common import StoreOption, StudyArgument, TimeoutOption, WaitOption, find


def pause(
    study: StudyArgument, store: StoreOption = None, wait: WaitOption = False, timeout: TimeoutOption = 600.0
) -> None:
    """Ask a study's controller to stop once the evaluations that run now are done; `mergesearch resume` goes on.

    Works from any machine that reaches the store. Exits with 1 if no controller works on the study.

    Example: mergesearch pause smoke --wait
    """
    from mergesearch.cli.holding import ask

    ask(find(study, store), "pause", wait=wait, timeout=timeout)
