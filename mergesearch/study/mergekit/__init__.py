"""mergekit's configurations: what its words mean in ours, and how its files become study files."""

from mergesearch.study.mergekit.draft import Draft
from mergesearch.study.mergekit.reading import import_mergekit

__all__ = ["Draft", "import_mergekit"]
