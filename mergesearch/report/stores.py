"""What `mergesearch store` shows: what a store holds, and what a cleaning would take."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mergesearch.export.cleaning import Plan
from mergesearch.export.inside import Amount, amount
from mergesearch.report.estimate import duration
from mergesearch.report.size import size
from mergesearch.store.base import StudyRecord, StudyStore
from mergesearch.stored import read_stored
from mergesearch.types import Status

BIGGEST = 5
SQLITE = "sqlite:///"
BACKUPS = (".bak", ".backup")


@dataclass(frozen=True)
class StoreView:
    """What a store holds. `shown` is its URL without a password; `backup` the newest copy that lies beside a SQLite
    file, its path and its age in seconds."""

    shown: str
    facts: Mapping[str, object]
    studies: Sequence[tuple[StudyRecord, Amount]]
    backup: tuple[Path, float] | None

    @property
    def by_status(self) -> dict[str, int]:
        """Status -> how many studies."""
        counted = {status.value: sum(r.status is status for r, _ in self.studies) for status in Status}
        return {status: count for status, count in counted.items() if count}

    def total(self, part: str) -> int:
        """Sum over the studies of one of `Amount`'s numbers."""
        return sum(getattr(held, part) for _, held in self.studies)

    @property
    def biggest(self) -> list[tuple[StudyRecord, Amount]]:
        """The studies that take most, biggest first."""
        return sorted(self.studies, key=lambda pair: -pair[1].bytes)[:BIGGEST]

    def summary(self) -> dict[str, object]:
        """Plain values for JSON."""
        return {
            "url": self.shown,
            **self.facts,
            "studies": len(self.studies),
            "by_status": self.by_status,
            **{part: self.total(part) for part in ("candidates", "evaluations", "scored", "failed", "open", "repeats")},
            "biggest": [
                {"study": r.name, "status": r.status.value, "evaluations": a.evaluations, "bytes": a.bytes}
                for r, a in self.biggest
            ],
            "backup": None if self.backup is None else {"path": str(self.backup[0]), "seconds": self.backup[1]},
        }


def read_store(store: StudyStore, shown: str, now: float) -> StoreView:
    """What `store` holds now; reads the whole log of every study."""
    studies = [(r, amount(read_stored(store, r.name), len(store.repeats(r.name)))) for r in store.studies()]
    return StoreView(shown, store.info(), studies, _backup(shown, now))


def _backup(shown: str, now: float) -> tuple[Path, float] | None:
    if not shown.startswith(SQLITE):
        return None
    path = Path(shown.removeprefix(SQLITE).partition("?")[0])
    copies = [p for p in path.parent.glob(f"{path.stem}*") if p.suffix in BACKUPS] if path.parent.is_dir() else []
    newest = max(copies, key=lambda p: p.stat().st_mtime, default=None)
    return None if newest is None else (newest, max(0.0, now - newest.stat().st_mtime))


def render_store(view: StoreView) -> RenderableType:
    """A grid of facts, and the biggest studies."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row("store", Text(view.shown, style="bold"))
    for key in ("kind", "schema"):
        if key in view.facts:
            grid.add_row(key, Text(str(view.facts[key])))
    if isinstance(held := view.facts.get("bytes"), int | float):
        grid.add_row("size", size(held))
    counts = ", ".join(f"{count} {status}" for status, count in view.by_status.items())
    grid.add_row("studies", f"{len(view.studies)}" + (f": {counts}" if counts else ""))
    grid.add_row("candidates", str(view.total("candidates")))
    told = ", ".join(f"{view.total(part)} {part}" for part in ("scored", "failed", "open"))
    grid.add_row("evaluations", f"{view.total('evaluations')}: {told}")
    grid.add_row("repeats", str(view.total("repeats")))
    grid.add_row("backup", _backup_text(view))
    parts: list[RenderableType] = [grid]
    if view.studies:
        parts += [Text(), _studies_table(view.biggest)]
    return Group(*parts)


def _backup_text(view: StoreView) -> str:
    if view.backup is not None:
        return f"{view.backup[0].name}, {duration(view.backup[1])} old"
    if view.shown.startswith(SQLITE):
        return "none beside the file (*.backup); make one: docs/operations.md, Backup"
    return "see docs/operations.md, Backup"


def _studies_table(studies: Sequence[tuple[StudyRecord, Amount]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("biggest studies", "status", "evaluations", "about"):
        table.add_column(name, header_style="bold", justify="right" if name in ("evaluations", "about") else "left")
    for record, held in studies:
        table.add_row(Text(record.name, overflow="fold"), record.status.value, str(held.evaluations), size(held.bytes))
    return table


def render_plan(plan: Plan) -> RenderableType:
    """What would go, why, and how much that is; what stays although it was chosen."""
    if not (plan.studies or plan.kept or plan.artifacts):
        return Text("nothing to delete", style="dim")
    table = Table(box=None, pad_edge=False)
    for name in ("study", "why", "evaluations", "about"):
        table.add_column(name, header_style="bold", justify="right" if name in ("evaluations", "about") else "left")
    for doomed in plan.studies:
        figures = str(doomed.amount.evaluations), size(doomed.amount.bytes)
        table.add_row(Text(doomed.record.name, overflow="fold"), Text(doomed.why), *figures)
    parts: list[RenderableType] = [table] if plan.studies else []
    parts += [Text(f"kept: {kept.record.name}, {kept.why}", style="yellow") for kept in plan.kept]
    parts += [Text(f"record of a lost file: {name} #{a.candidate} {a.path}") for name, a in plan.artifacts]
    return Group(*parts)
