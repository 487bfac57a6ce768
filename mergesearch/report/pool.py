"""The pool of a study: base and experts with their digests, how large and how alike the experts' changes are.

Digests stand in the store since the launch. Sizes and angles need every weight: they are read where a report asks for
them, tensor by tensor.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mergesearch.recipe import Recipe
from mergesearch.report.estimate import NOTHING
from mergesearch.report.grid import Grid, grid

LINEAR = ("task_arithmetic", "lora_soups")
SHOWN_DIGITS = 16
MOST_COSINES = 24


@dataclass(frozen=True, eq=False)
class Geometry:
    """Products <τ_i, τ_j> (G, K, K) of the experts' changes of the merged tensors by layer group, the base's own
    <θ0, θ0> (G,), and how many numbers are merged."""

    experts: tuple[str, ...]
    gram: NDArray[np.float64]
    base: NDArray[np.float64]
    numbers: float

    def displacement(self, recipe: Recipe) -> float | None:
        """‖θ_merged − θ0‖ / ‖θ0‖ of a recipe; None for an operator whose merge is no weighted sum of the changes."""
        if recipe.operator not in LINEAR or recipe.options.get("normalize") or recipe.experts != self.experts:
            return None
        table = recipe.settings.get("coefficient")
        if table is None or table.shape != self.gram.shape[:2]:
            return None
        weights = table * recipe.settings.get("scale", np.ones_like(table))
        squared = float(np.einsum("gi,gij,gj->", weights, self.gram, weights))
        return float(np.sqrt(max(squared, 0.0) / self.base.sum()))


@dataclass(frozen=True, eq=False)
class Pool:
    """What is known of a study's models. `digests`: 'base' and 'expert:<name>', empty for a study of before they were
    kept; `paths` as the study file has them; `findings` sentences of the pre-flight checks; `missing` says what is not
    known, and how to learn it."""

    paths: Mapping[str, str]
    digests: Mapping[str, str]
    findings: Sequence[str] = ()
    geometry: Geometry | None = None
    missing: Sequence[str] = ()


def stored_pool(spec: Mapping[str, Any], facts: Mapping[str, Any], name: str) -> Pool | None:
    """What the store alone knows; None for a black box, which has no models."""
    models = spec.get("models")
    if not isinstance(models, Mapping):
        return None
    experts = models.get("experts")
    paths = {"base": str(models.get("base", ""))}
    paths |= {f"expert:{k}": str(v) for k, v in experts.items()} if isinstance(experts, Mapping) else {}
    kept, checked = facts.get("models"), facts.get("preflight")
    digests = {str(k): str(v) for k, v in kept.items()} if isinstance(kept, Mapping) else {}
    findings = [f"at launch: {sentence}" for sentence in checked] if isinstance(checked, list) else []
    how = f"`mergesearch report {name} --models` reads the models and adds them"
    missing = [f"Norms of the experts' changes and the angles between them are not kept in the store: {how}."]
    if not digests:
        missing.append(f"The models' digests were not kept when this study was launched: {how}.")
    if not findings:
        missing.append("What the pre-flight checks said was not kept: `mergesearch check` says it again.")
    return Pool(paths, digests, findings, None, missing)


def pool_grids(pool: Pool) -> list[Grid]:
    """A table of the models, and one of the angles where they are known."""
    geometry = pool.geometry
    total = None if geometry is None else geometry.gram.sum(axis=0)
    whole = 0.0 if geometry is None else float(geometry.base.sum())
    rows = []
    for name, path in pool.paths.items():
        digest = pool.digests.get(name, "")[:SHOWN_DIGITS] or NOTHING
        size = share = NOTHING
        if total is not None and geometry is not None:
            expert = name.removeprefix("expert:")
            at = geometry.experts.index(expert) if expert in geometry.experts and name != "base" else None
            squared = whole if at is None else float(total[at, at])
            size = f"{np.sqrt(squared):.4g}"
            share = NOTHING if at is None or whole == 0.0 else f"{np.sqrt(squared / whole):.4g}"
        rows.append([name.replace("expert:", "expert "), path, digest, size, share])
    heads = ("model", "path", "SHA-256 of the weights", "norm", "‖τ‖ / ‖θ0‖")
    note = "Norm: ‖θ0‖ of the base's merged tensors; of an expert ‖τ‖, its change of them."
    if geometry is not None:
        note += f" {geometry.numbers:,.0f} numbers are merged."
    grids = [grid("Base and experts", heads, rows, note)]
    if total is not None and geometry is not None and 1 < len(geometry.experts) <= MOST_COSINES:
        grids.append(_cosines(geometry.experts, total))
    return grids


def _cosines(experts: Sequence[str], total: NDArray[np.float64]) -> Grid:
    norms = np.sqrt(np.diag(total))
    scale = np.outer(norms, norms)
    cosines = np.divide(total, scale, out=np.zeros_like(total), where=scale > 0)
    rows = [[name, *(f"{value:.3f}" for value in row)] for name, row in zip(experts, cosines, strict=True)]
    note = "1: the experts change the weights the same way; 0: they do not touch each other; below 0: they conflict."
    return grid("Cosine between the experts' changes", ("", *experts), rows, note)
