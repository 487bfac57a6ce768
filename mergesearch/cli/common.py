"""What several commands share: their options, finding a study, printing JSON."""

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from mergesearch.store.base import StudyStore

DEFAULT_STORE = "sqlite:///runs/mergesearch.db"
STORE_VARIABLE = "MERGESEARCH_STORE"

StudyArgument: TypeAlias = Annotated[
    str, typer.Argument(help="The study's name, or its study file.", show_default=False)
]
FileArgument: TypeAlias = Annotated[Path, typer.Argument(help="A study file.", show_default=False)]
StoreOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--store",
        help=f"URL of the store [default: the study file's, else ${STORE_VARIABLE}, else {DEFAULT_STORE}].",
        show_default=False,
    ),
]
JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
WaitOption: TypeAlias = Annotated[bool, typer.Option("--wait", help="Wait until the controller has obeyed.")]
TimeoutOption: TypeAlias = Annotated[
    float, typer.Option("--timeout", min=0.0, help="With --wait: seconds to wait at most.")
]
WorkersOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--workers",
        help="A profile of workers/, such as workers/laptop.yaml [default: this process].",
        show_default=False,
    ),
]


@dataclass(frozen=True)
class Place:
    """The store that a command means. `secret`: its URL comes from the environment, may hold a password, and is shown
    to nobody; `given`: an argument or a study file names it."""

    url: str
    given: bool = True
    secret: bool = False

    @property
    def option(self) -> str:
        """' --store URL' for a command to type next; nothing where it is found without."""
        return f" --store {self.url}" if self.given else ""

    def open(self, *, create: bool = False) -> StudyStore:
        """The open store; see `open_store`."""
        from mergesearch.store.open import open_store

        return open_store(self.url, create=create, secret=self.secret)


@dataclass(frozen=True)
class Named:
    """A study's name and the store it stands in."""

    name: str
    place: Place

    @property
    def store(self) -> str:
        """The store's URL."""
        return self.place.url

    @property
    def typed(self) -> str:
        """What to type after a command to mean this study."""
        return f"{self.name}{self.place.option}"


def find(study: str, store: str | None) -> Named:
    """What the arguments STUDY and --store mean. A study file gives its name and, if it says one, its store."""
    if study.endswith((".yaml", ".yml")):
        return find_file(Path(study), store)
    return Named(study, place(store))


def find_file(path: Path, store: str | None) -> Named:
    """The study of a file. Raises SpecError if the file cannot be one."""
    from mergesearch.study.kinds import read_any

    spec, _ = read_any(path)
    said = spec.store if "store" in spec.model_fields_set else None
    return Named(spec.name, place(store or said))


def place(store: str | None) -> Place:
    """The store of an argument or a study file, else the environment's, else the default one."""
    if store:
        return Place(store)
    if url := os.environ.get(STORE_VARIABLE):
        return Place(url, given=False, secret=True)
    return Place(DEFAULT_STORE, given=False)


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
