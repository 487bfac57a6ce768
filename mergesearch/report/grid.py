"""Tables as texts, for a page."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Cell:
    """One cell of a table: its text, its error in smaller type, and whether it is the column's best."""

    text: str
    error: str = ""
    best: bool = False


@dataclass(frozen=True)
class Grid:
    """A table as texts: `marked` is the row (counted from 0) that stands out, `note` a sentence below it."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    marked: int = -1
    note: str = ""


def grid(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], note: str = "", marked: int = -1) -> Grid:
    """A table of plain texts."""
    return Grid(title, tuple(columns), tuple(tuple(Cell(text) for text in row) for row in rows), marked, note)
