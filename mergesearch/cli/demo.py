"""mergesearch demo"""

from pathlib import Path
from typing import Annotated

import typer

from mergesearch.cli.common import WorkersOption


def demo(
    which: Annotated[
        str, typer.Argument(help="vision (minutes) or smoke (only makes the experts, in seconds).")
    ] = "vision",
    workers: WorkersOption = None,
) -> None:
    """Make real experts from real data, search their merge, report it, export it, and score the export again.

    Experts and study are kept under runs/: a second demo goes on where the first one ended.

    Example: mergesearch demo
    """
    from mergesearch.errors import SpecError
    from mergesearch.plugins import did_you_mean

    if which == "smoke":
        from mergesearch.demo.smoke import make_smoke

        make_smoke(Path("runs/smoke"), seed=0)
        typer.echo("tiny experts are in runs/smoke; next: mergesearch launch studies/smoke.yaml")
        return
    if which != "vision":
        raise SpecError(f"demo {which!r} is unknown{did_you_mean(which, ['vision', 'smoke'])}")
    from mergesearch.cli.demo_vision import vision

    vision(workers)
