"""The merged weights as folders that transformers loads."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from mergesearch.building import CandidateBuilder
from mergesearch.checkpoints.adapted import load_adapted
from mergesearch.checkpoints.adapter import AdapterFolder, Expert, ExpertTensors
from mergesearch.checkpoints.compare import is_head
from mergesearch.checkpoints.reader import Checkpoint
from mergesearch.errors import CheckpointError
from mergesearch.export.files import (
    copy_beside_weights,
    plan_shards,
    set_dtype,
    shard_name,
    tensor_bytes,
    write_index,
    write_shard,
)
from mergesearch.export.folder import check_space, link_or_copy
from mergesearch.merging import make_operator
from mergesearch.operators.base import Layout
from mergesearch.pool.live import names_in_files
from mergesearch.pool.worker import whole_model
from mergesearch.recipe import Recipe

SHARD_BYTES = 5_000_000_000
ROOT = ""
"""Stands for the export's own folder where a head's name would name a subfolder."""


@dataclass(frozen=True, eq=False)
class MergePlan:
    """What to build and in which form.

    `heads` are patterns of tensors that are not merged. `worn` are the experts whose heads are wanted, each once: every
    one gets a subfolder with its head, its config and its files. Without any, or with one and no tensor kept apart,
    there is one model, in the folder itself.
    """

    recipe: Recipe
    layout: Layout
    base: Checkpoint
    experts: Mapping[str, Expert]
    heads: tuple[str, ...]
    worn: tuple[str, ...]

    @property
    def folders(self) -> dict[str, str]:
        """Expert whose head is worn ('' for none) -> its subfolder ('' for the export's folder itself)."""
        if self.worn and (self.heads or len(self.worn) > 1):
            return {name: name for name in self.worn}
        return {ROOT: ROOT}

    @property
    def ordered_experts(self) -> list[Expert]:
        """The experts in the order of the layout."""
        return [self.experts[name] for name in self.layout.experts]

    @property
    def vocabulary(self) -> int | None:
        """Rows of the embeddings, None where the configuration has none."""
        text = self.base.config.get("text_config")
        config = text if isinstance(text, dict) else self.base.config
        size = config.get("vocab_size")
        return size if isinstance(size, int) else None

    def source(self, head: str) -> Checkpoint:
        """Whose config, tokenizer and processor go with a head: its expert's; without one the base's."""
        name = head or next(iter(self.worn), ROOT)
        return whole_model(name, self.experts) if name else self.base

    def is_head(self, tensor: str) -> bool:
        """True for tensors that are kept apart."""
        return is_head(tensor, self.heads)


def build(plan: MergePlan) -> dict[str, torch.Tensor]:
    """Every tensor of the merge but the heads kept apart, under the files' names, in the base's order and dtypes.

    What is not merged (integer buffers) is the base's.

    Raises:
        CheckpointError: an expert lacks a tensor. EvaluationError: these settings cannot be built.
    """
    base = {name: plan.base.tensor(name) for name in plan.layout.group_of}
    experts = [_expert(plan, name, base) for name in plan.layout.experts]
    live = {name: torch.empty_like(tensor) for name, tensor in base.items()}
    for name, leader in tied_twice(plan).items():
        live[name] = live[leader]  # as in a loaded model, where the two are one
    operator = make_operator(plan.recipe.operator, plan.recipe.options)
    CandidateBuilder(operator, base, experts, plan.layout, live).build(plan.recipe.settings)
    wanted = [name for name in plan.base.names if name in live or _is_shared(plan, name)]
    return {name: live[name] if name in live else plan.base.tensor(name) for name in wanted}


def _expert(plan: MergePlan, name: str, base: Mapping[str, torch.Tensor]) -> ExpertTensors:
    """An expert's merged tensors in the base's dtypes, or an adapter's factors."""
    model = plan.experts[name]
    if isinstance(model, AdapterFolder):
        return load_adapted(model, plan.base, f"expert {name!r}", base, partial(names_in_files, plan.base))
    return {n: model.tensor(n).to(tensor.dtype) for n, tensor in base.items()}


def tied_twice(plan: MergePlan) -> dict[str, str]:
    """Merged tensors that a file stores a second time though the model ties them -> the first name of the two.

    transformers ties what the configuration says where both copies are equal; it saves them once, others save them
    twice. Found by equal values in the base and in every expert.
    """
    if not plan.base.tied:
        return {}
    whole = [model for model in plan.ordered_experts if not isinstance(model, AdapterFolder)]
    by_shape: dict[tuple[int, ...], list[str]] = {}
    for name in plan.layout.group_of:
        by_shape.setdefault(plan.base.shape(name), []).append(name)
    found: dict[str, str] = {}
    for shape, names in by_shape.items():
        if len(shape) != 2 or shape[0] != plan.vocabulary:
            continue
        for i, name in enumerate(names):
            for leader in names[:i]:
                models = (plan.base, *whole)
                if leader not in found and all(torch.equal(m.tensor(leader), m.tensor(name)) for m in models):
                    found.setdefault(name, leader)
    return found


def _is_shared(plan: MergePlan, name: str) -> bool:
    """True for an unmerged tensor of the base that every exported model has too."""
    return not plan.is_head(name) and all(name in plan.source(head).headers for head in plan.folders)


def write_checkpoint(plan: MergePlan, folder: Path, shard_bytes: int = SHARD_BYTES) -> dict[str, Path]:
    """Build the merge and write its model folders into `folder`; returns head ('' for none) -> model folder.

    The body's shards are written once and hard-linked into every further folder; a head is the last shard of its own.

    Raises:
        CheckpointError: too little room on the disk. Else as `build`.
    """
    body = build(plan)
    dtype = next(t.dtype for t in body.values() if t.is_floating_point())
    heads = {head: _head(plan, head, dtype) for head in plan.folders}
    shards = plan_shards({name: tensor_bytes(t) for name, t in body.items()}, shard_bytes)
    check_space(folder, sum(map(tensor_bytes, [*body.values(), *(t for h in heads.values() for t in h.values())])))
    written: dict[str, Path] = {}
    for head, name in plan.folders.items():
        place = folder / name
        place.mkdir(exist_ok=True)
        copy_beside_weights(plan.source(head).folder, place)
        set_dtype(place, str(dtype).removeprefix("torch."))
        every = shards + ([list(heads[head])] if heads[head] else [])
        for at, names in enumerate(every):
            path = place / shard_name(at, len(every))
            first = next(iter(written.values())) / path.name if written else path
            if at < len(shards) and first.exists():
                link_or_copy(first, path)
            else:
                write_shard(path, {n: body[n] if at < len(shards) else heads[head][n] for n in names})
        if len(every) > 1:
            total = sum(map(tensor_bytes, [*body.values(), *heads[head].values()]))
            write_index(place, every, total)
        written[head] = place
    return written


def _head(plan: MergePlan, head: str, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The tensors kept apart of the expert `head`, in the body's dtype; none where nothing is kept apart."""
    if not plan.heads:
        return {}
    source = plan.source(head)
    found = {name: source.tensor(name) for name in source.names if plan.is_head(name)}
    if head and not found:
        raise CheckpointError(f"expert {head!r} has no tensor that matches {', '.join(plan.heads)}: it has no head")
    return {name: t.to(dtype) if t.is_floating_point() else t for name, t in found.items()}
