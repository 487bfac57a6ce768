"""What launch, resume and demo share: live progress, a clean end on Ctrl-C, and what to do next."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import typer
from rich.console import Console

from mergesearch.controller.loop import Progress
from mergesearch.pool.profile import Profile, load_profile
from mergesearch.report.live import LiveView
from mergesearch.report.terminal import render_show
from mergesearch.report.view import read_view
from mergesearch.store.open import open_store


def profile(path: Path | None) -> Profile:
    """The workers profile of a file; this process if none is named."""
    return Profile() if path is None else load_profile(path)


@contextmanager
def watched(name: str, url: str) -> Iterator[Callable[[Progress], None]]:
    """Show live progress while a study runs, then its summary. SIGTERM ends it as cleanly as Ctrl-C."""
    console = Console()
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        with LiveView(console, name) as view:
            yield view
    except KeyboardInterrupt:
        typer.echo(
            f"\nstopped; every evaluation so far is kept. Go on with: mergesearch resume {name} --store {url}", err=True
        )
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
    store = open_store(url, create=False)
    console.print(render_show(read_view(store, name)))
    typer.echo(f"next: mergesearch front {name} --store {url}")
    store.close()


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
