"""What a sink is: a place of another program, such as TensorBoard's folder, that a study's figures are written to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol

from mergesearch.plugins import PluginOptions

LARGEST_NAME = 8
"""Digits of a study's key that stand in names of folders and runs."""


@dataclass(frozen=True)
class Point:
    """One evaluation as figures. `step` counts the study's evaluations of all splits as they were told, from 1 on;
    `time` is when this was seen, Unix seconds; `failure` a sentence if it failed. Values are finite."""

    step: int
    time: float
    values: Mapping[str, float]
    failure: str = ""


@dataclass(frozen=True)
class Heading:
    """Which study it is: `key` is the same for each resume and no other study's. `config` holds plain values, `spec`
    the study file's text, both without passwords."""

    name: str
    key: str
    config: Mapping[str, str | int | float] = field(default_factory=dict)
    spec: str = ""

    @property
    def label(self) -> str:
        """A name for a folder or a run, of this study alone."""
        return f"{self.name}-{self.key[:LARGEST_NAME]}"


class Sink(Protocol):
    """One study in one place. All calls come from one thread, first to last: built, `write`, `close`.

    Building opens the place, or goes on with what an earlier controller of the study wrote there: `last` is then the
    last step that it holds (0 for nothing), and no point up to it is written again. Steps grow. Any exception ends the
    writing; the study goes on. Nothing may stay behind after `close`: no thread, no process.
    """

    PACKAGE: ClassVar[str]
    """The module that must be installed; its extra has the sink's kind."""
    Options: ClassVar[type[PluginOptions]]

    def __init__(self, options: PluginOptions, folder: Path, heading: Heading) -> None: ...

    @property
    def last(self) -> int: ...

    def write(self, points: Sequence[Point]) -> None: ...

    def close(self, status: str, summary: Mapping[str, str | float]) -> None:
        """`status` as in the store, 'done' or another; `summary` is what the study came to."""
        ...
