"""What launch, resume and demo share: live progress, a clean end on Ctrl-C, and what to do next."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import typer
from rich.console import Console

from mergesearch.cli.common import Named
from mergesearch.controller.observer import Observer
from mergesearch.pool.profile import Profile, load_profile
from mergesearch.report.live import LiveView
from mergesearch.report.terminal import render_show
from mergesearch.report.view import read_view


def profile(path: Path | None) -> Profile:
    """The workers profile of a file; this process if none is named."""
    return Profile() if path is None else load_profile(path)


@contextmanager
def watched(named: Named, *, plain: bool = False) -> Iterator[Observer]:
    """Show live progress while a study runs, then its summary. SIGTERM ends it as cleanly as Ctrl-C.

    `plain`: no moving panel even on a terminal, since a log is written there.
    """
    console = Console()
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        with LiveView(Console(force_terminal=False) if plain else console, named.name) as view:
            yield view
    except KeyboardInterrupt:
        typer.echo(
            f"\nstopped; every evaluation so far is kept. Go on with: mergesearch resume {named.typed}", err=True
        )
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
    store = named.place.open()
    console.print(render_show(read_view(store, named.name)))
    typer.echo(f"next: mergesearch front {named.typed}")
    store.close()


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
