"""mergesearch score"""

from pathlib import Path
from typing import Annotated

import typer

from mergesearch.cli.common import FileArgument, JsonOption, print_json


def score(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint, such as an exported folder.", show_default=False)],
    file: FileArgument,
    split: Annotated[str, typer.Option("--split", help="search, confirm or test.")] = "test",
    json: JsonOption = False,
) -> None:
    """Score a checkpoint on a study's objectives: an export scores what the study's store says.

    Example: mergesearch score exports/smoke studies/smoke.yaml --split test
    """
    from mergesearch.errors import SpecError
    from mergesearch.export.score import score_checkpoint
    from mergesearch.plugins import did_you_mean
    from mergesearch.study.resolve import resolve
    from mergesearch.study.source import read_study
    from mergesearch.types import Split

    if split not in list(Split):
        raise SpecError(f"--split {split!r} is unknown{did_you_mean(split, list(Split))}")
    spec, source = read_study(file)
    scores = score_checkpoint(checkpoint, resolve(spec, source.root), Split(split))
    if json:
        print_json({name: {"value": s.value, "stderr": s.stderr, "n": s.n} for name, s in scores.items()})
        return
    for objective in spec.objectives:
        if objective.name not in scores:
            typer.echo(f"{objective.name}: left out, a checkpoint does not show it")
    for name, s in scores.items():
        typer.echo(f"{name}: {s.value:.4f} ± {s.stderr:.4f} ({s.n} examples)")
