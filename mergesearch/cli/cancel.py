"""mergesearch cancel"""

from mergesearch.cli.common import StoreOption, StudyArgument, TimeoutOption, WaitOption, find


def cancel(
    study: StudyArgument, store: StoreOption = None, wait: WaitOption = False, timeout: TimeoutOption = 600.0
) -> None:
    """Ask a study's controller to stop at once; what was evaluated is kept, and `mergesearch resume` goes on.

    Works from any machine that reaches the store. Exits with 1 if no controller works on the study.

    Example: mergesearch cancel smoke --wait
    """
    from mergesearch.cli.holding import ask

    ask(find(study, store), "cancel", wait=wait, timeout=timeout)
