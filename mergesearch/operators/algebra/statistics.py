"""Statistics of the experts that were measured beforehand, one safetensors file for each expert."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from mergesearch.checkpoints.load import is_finite
from mergesearch.checkpoints.reader import TensorInfo, read_header, read_tensor
from mergesearch.errors import CheckpointError, SpecError
from mergesearch.plugins import did_you_mean

Headers = Mapping[str, TensorInfo]


def open_statistics(kind: str, paths: Mapping[str, str], experts: Sequence[str]) -> list[Headers]:
    """What each expert's file holds, in the order of `experts`.

    Raises:
        SpecError: an expert has no file, or a file is given for a name that is no expert.
        CheckpointError: a file is missing or damaged.
    """
    if odd := [name for name in paths if name not in experts]:
        raise SpecError(f"operator {kind!r}: statistics: no expert is called {odd[0]!r}{did_you_mean(odd[0], experts)}")
    if missing := [name for name in experts if name not in paths]:
        raise SpecError(f"operator {kind!r}: statistics: expert {missing[0]!r} has no file; give one for every expert")
    for name in experts:
        if not Path(paths[name]).is_file():
            raise CheckpointError(f"operator {kind!r}: statistics of expert {name!r}: no file {paths[name]!r}")
    return [read_header(Path(paths[name])) for name in experts]


def statistic(headers: Headers, expert: str, name: str, shape: Sequence[int], what: str) -> torch.Tensor:
    """The tensor `name` of an expert's file, mapped. `what` says in a message what it is.

    Raises:
        CheckpointError: it is missing, of another shape, or not finite.
    """
    if name not in headers:
        raise CheckpointError(f"statistics of expert {expert!r} hold no {what} {name!r}; measure them for every expert")
    if headers[name].shape != tuple(shape):
        found = f"is {headers[name].shape}, it must be {tuple(shape)}"
        raise CheckpointError(f"statistics of expert {expert!r}: {what} {name!r} {found}")
    tensor = read_tensor(headers[name], name)
    if not tensor.is_floating_point() or not is_finite(tensor):
        raise CheckpointError(f"statistics of expert {expert!r}: {what} {name!r} is not all finite floats")
    return tensor
