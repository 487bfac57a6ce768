"""The line that lists and pages say of a plug-in."""

import inspect
from typing import Any


def summary(plugin: Any) -> str:
    """First line of the docstring of a plug-in's class where it speaks for itself, else of its file."""
    own, whole = ((inspect.getdoc(of) or "").split("\n")[0] for of in (plugin, inspect.getmodule(plugin)))
    return whole if not own or "; see `" in own else own
