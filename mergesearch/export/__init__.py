"""From a study's results to what leaves the store: a merged checkpoint with its card, tables, an Optuna storage.

The names are imported when first used: looking into a store needs no torch.
"""

from importlib import import_module
from typing import Any

_PUBLIC = {
    "ExportResult": "mergesearch.export.export",
    "export_study": "mergesearch.export.export",
    "rebuild": "mergesearch.export.rebuilding",
}

__all__ = ["ExportResult", "export_study", "rebuild"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'mergesearch.export' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)
