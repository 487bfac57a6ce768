"""Inner products of task vectors against plain sums over whole models."""

from pathlib import Path

import numpy as np
import pytest
import torch
from adapters import random_factors, write_adapter
from safetensors.torch import load_file, save_file
from tiny import make_vit

from mergesearch.checkpoints import geometry
from mergesearch.checkpoints.adapter import open_expert
from mergesearch.checkpoints.groups import group_tensors
from mergesearch.checkpoints.reader import Checkpoint
from mergesearch.errors import CheckpointError


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_whole_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    """By group, in float64, whatever the size of the pieces; symmetric; sizes are numbers merged."""
    folders = [make_vit(tmp_path / "base", seed=0, dtype=dtype)]
    folders += [make_vit(tmp_path / f"e{i}", seed=i, base=folders[0], dtype=dtype) for i in (1, 2)]
    base, *experts = (Checkpoint.open(folder) for folder in folders)
    grouping = group_tensors(base, "block", ["classifier.*"])
    monkeypatch.setattr(geometry, "_CHUNK", 100)
    gram, norm, sizes = geometry.inner_products(
        base, dict(zip("ab", experts, strict=True)), grouping.group_of, len(grouping.groups)
    )
    tensors = [{n: t.double() for n, t in load_file(f / "model.safetensors").items()} for f in folders]
    for row in range(len(grouping.groups)):
        names = [name for name, group in grouping.group_of.items() if group == row]
        own = torch.cat([tensors[0][name].flatten() for name in names])
        changes = torch.stack([torch.cat([t[name].flatten() for name in names]) - own for t in tensors[1:]])
        np.testing.assert_allclose(gram[row], (changes @ changes.T).numpy(), rtol=1e-10)
        np.testing.assert_allclose(norm[row], float(own @ own), rtol=1e-10)
        assert sizes[row] == own.numel()
    assert gram.dtype == norm.dtype == sizes.dtype == np.float64
    assert np.array_equal(gram, gram.transpose(0, 2, 1))


def test_adapters(tmp_path: Path) -> None:
    """The same numbers as of their dense changes, also where only one of them changes a matrix."""
    folder = make_vit(tmp_path / "base")
    name = "vit.encoder.layer.{}.attention.attention.query"
    made = {
        "one": random_factors({name.format(i): (16, 16) for i in (0, 1)}, 2, 1, 0.7),
        "two": random_factors({name.format(1): (16, 16)}, 4, 2, 0.7),
    }
    experts = {who: open_expert(write_adapter(tmp_path / who, factors)) for who, factors in made.items()}
    base = Checkpoint.open(folder)
    group_of = {f"{name.format(i)}.weight": i for i in (0, 1)}
    gram, _, sizes = geometry.inner_products(base, experts, group_of, 2)
    for row in (0, 1):
        dense = [
            (2 * factors[name.format(row)][1].double() @ factors[name.format(row)][0].double()).flatten()
            if name.format(row) in factors
            else torch.zeros(256, dtype=torch.float64)
            for factors in made.values()
        ]
        changes = torch.stack(dense)
        np.testing.assert_allclose(gram[row], (changes @ changes.T).numpy(), rtol=1e-6, atol=1e-12)
    assert sizes.tolist() == [256, 256]


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    """With the file and the tensor's name."""
    folder = make_vit(tmp_path / "base")
    other = make_vit(tmp_path / "other", seed=1, base=folder)
    tensors = load_file(other / "model.safetensors")
    first = sorted(name for name in tensors if "layer.0" in name)[0]
    tensors[first].view(-1)[3] = float("nan")
    save_file(tensors, other / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match="holds NaN or infinity"):
        geometry.inner_products(Checkpoint.open(folder), {"o": Checkpoint.open(other)}, {first: 0}, 1)
