"""What several commands share: their options, finding a study, printing JSON."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

DEFAULT_STORE = "sqlite:///runs/mergesearch.db"

StudyArgument: TypeAlias = Annotated[
    str, typer.Argument(help="The study's name, or its study file.", show_default=False)
]
FileArgument: TypeAlias = Annotated[Path, typer.Argument(help="A study file.", show_default=False)]
StoreOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--store", help=f"URL of the store [default: the study file's, or {DEFAULT_STORE}].", show_default=False
    ),
]
JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
WorkersOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--workers",
        help="A profile of workers/, such as workers/laptop.yaml [default: this process].",
        show_default=False,
    ),
]


@dataclass(frozen=True)
class Named:
    """A study's name and the URL of the store it stands in."""

    name: str
    store: str


def find(study: str, store: str | None) -> Named:
    """What the arguments STUDY and --store mean. A study file gives both its name and its store."""
    if study.endswith((".yaml", ".yml")):
        from mergesearch.study.source import read_study

        spec, _ = read_study(Path(study))
        return Named(spec.name, store or spec.store)
    return Named(study, store or DEFAULT_STORE)


def print_json(body: Any) -> None:
    """Print a value as JSON; numbers that JSON does not know become null."""
    typer.echo(json.dumps(_plain(body), indent=2))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
