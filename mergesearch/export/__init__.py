"""From a study's results to a merged checkpoint: which candidate, its folder, its provenance, its card, its scores."""

from mergesearch.export.export import ExportResult, export_study
from mergesearch.export.rebuilding import rebuild

__all__ = ["ExportResult", "export_study", "rebuild"]
