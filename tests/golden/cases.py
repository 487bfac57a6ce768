"""The golden cases: each one run of a reference implementation that nobody here wrote."""

import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

import mergesearch.merging as merging

FOLDER = Path(os.environ.get("MERGESEARCH_GOLDEN", Path(__file__).parent / "data"))


@dataclass(frozen=True)
class Case:
    """One entry of the index."""

    entry: dict[str, Any]

    @property
    def id(self) -> str:
        """Its name."""
        return self.entry["id"]

    @property
    def operator(self) -> str:
        """The operator in the words of the index."""
        return self.entry["operator"]

    @property
    def params(self) -> dict[str, Any]:
        """Parameters in the words of the index."""
        return self.entry["params"]

    @property
    def weights(self) -> Any:
        """Weights: a list, a mapping of tensor name to list, or None."""
        return self.entry.get("weights_by_tensor") or self.entry.get("weights")

    @property
    def groups(self) -> str:
        """The layer groups that the weights need."""
        return "tensor" if self.entry.get("weights_by_tensor") else "model"

    def path(self, relative: str) -> Path:
        """A file of the folder."""
        return FOLDER / relative

    @cached_property
    def base(self) -> dict[str, torch.Tensor]:
        """The base."""
        return load_file(FOLDER / self.entry["inputs"]["base"])

    @cached_property
    def experts(self) -> list[dict[str, torch.Tensor]]:
        """The experts (or adapters), in order."""
        inputs = self.entry["inputs"]
        return [load_file(FOLDER / path) for path in inputs.get("experts") or inputs.get("adapters")]

    @cached_property
    def expected(self) -> dict[str, torch.Tensor]:
        """All that the reference recorded."""
        return load_file(FOLDER / self.entry["output"])

    def merge(self, kind: str, coefficients: Any, **options: Any) -> dict[str, torch.Tensor]:
        """`mergesearch.merge` of the case's models."""
        return merging.merge(kind, self.base, self.experts, coefficients, groups=self.groups, **options)

    def wrong(self, key: str, got: torch.Tensor) -> torch.Tensor:
        """Where `got` is beyond the tolerance of the recorded tensor."""
        wanted, tolerance = self.expected[key].double(), self.entry["tolerance"]
        return (got.double() - wanted).abs() > tolerance["atol"] + tolerance["rtol"] * wanted.abs()


CASES = [Case(entry) for entry in json.loads((FOLDER / "index.json").read_text())["cases"]]
