"""How the loops of `compiled_*.py` are compiled and kept on disk."""

import hashlib
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba import njit

HERE = Path(__file__).parent


def compiled(function: Any) -> Any:
    """`function` compiled to run without the interpreter lock; kept on disk where a cache can be written.

    numba renews what it kept when the file of a function changes, but not when a function that it calls from another
    file does. So the folder is named after all the sources: a change of any of them compiles everything anew.
    """
    dispatcher = njit(nogil=True, error_model="numpy", boundscheck=False)(function)
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(_folder())
    try:
        with suppress(RuntimeError):  # no writable place for the cache: compile anew in each process
            dispatcher.enable_caching()
    finally:
        numba.config.CACHE_DIR = before
    return dispatcher


@cache
def _folder() -> Path:
    """Beside the sources' own compiled files; numba takes its usual places where that cannot be written."""
    digest = hashlib.sha256()
    for file in sorted(HERE.glob("compil*.py")):
        digest.update(file.read_bytes())
    return HERE / "__pycache__" / f"loops-{digest.hexdigest()[:16]}"
