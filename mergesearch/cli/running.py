"""What launch, resume and demo share: live progress, a clean end on Ctrl-C, and what to do next."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import typer

from mergesearch.controller.loop import Progress
from mergesearch.pool.profile import Profile, load_profile
from mergesearch.report.terminal import LiveView, study_panel
from mergesearch.store.open import open_store
from mergesearch.stored import read_stored


def profile(path: Path | None) -> Profile:
    """The workers profile of a file; this process if none is named."""
    return Profile() if path is None else load_profile(path)


@contextmanager
def watched(name: str, url: str) -> Iterator[Callable[[Progress], None]]:
    """Show live progress while a study runs, then its summary. SIGTERM ends it as cleanly as Ctrl-C."""
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        with LiveView(name) as view:
            yield view.update
    except KeyboardInterrupt:
        typer.echo(
            f"\nstopped; every evaluation so far is kept. Go on with: mergesearch resume {name} --store {url}", err=True
        )
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
    from rich.console import Console

    store = open_store(url, create=False)
    Console().print(study_panel(read_stored(store, name)))
    typer.echo(f"next: mergesearch front {name} --store {url}")
    store.close()


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
