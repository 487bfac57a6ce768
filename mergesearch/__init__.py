"""mergesearch: search the coefficients of a model merge.

The public names; everything else may change. They are imported when first used, so that the command line starts fast.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "MergesearchError": "mergesearch.errors",
    "Recipe": "mergesearch.recipe",
    "SearchSpace": "mergesearch.space",
    "launch": "mergesearch.controller.launch",
    "merge": "mergesearch.merging",
    "open_store": "mergesearch.store.open",
    "read_study": "mergesearch.study.source",
    "resume": "mergesearch.controller.launch",
    "search": "mergesearch.controller.search",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'mergesearch' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)
