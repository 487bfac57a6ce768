"""A live transformers model and its tensors under the names that its checkpoint files use.

transformers renames tensors while it loads some architectures (a vision transformer's
'vit.encoder.layer.0.output.dense' is 'vit.layers.0.mlp.fc2' in memory), and names them back when it saves. Recipes and
layer groups use the files' names; this is where the two meet.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import torch
import transformers
from transformers.core_model_loading import revert_weight_conversion
from transformers.utils import logging as transformers_logging

from mergesearch.checkpoints.reader import Checkpoint
from mergesearch.errors import CheckpointError
from mergesearch.plugins import did_you_mean
from mergesearch.pool.spread import spread

Head: TypeAlias = Mapping[str, torch.nn.Parameter]
"""Name in memory -> a parameter that stands there while the model wears this head."""


def load_model(
    folder: Path,
    architectures: Sequence[str],
    device: torch.device | Sequence[torch.device],
    dtype: str | None,
    held: Checkpoint | None = None,
) -> torch.nn.Module:
    """The model in a folder, in eval mode, without gradients. `dtype` None: as its files have it.

    `architectures` is what the folder's config.json says under that name; the first is built. Over several devices the
    model is spread. `held`: the folder opened, if its weights are in memory and not in the folder.

    Raises:
        CheckpointError: transformers does not know the class, or cannot load the folder.
    """
    name = architectures[0] if architectures else ""
    kind = getattr(transformers, name, None) if name else None
    if kind is None:
        said = f"architectures says {name!r}, which transformers {transformers.__version__} does not know"
        raise CheckpointError(
            f"model folder {str(folder)!r}: config.json "
            + (said if name else "has no 'architectures'; add the class name")
        )
    with _quiet():
        try:
            if held is None:
                model: torch.nn.Module = kind.from_pretrained(
                    str(folder), local_files_only=True, use_safetensors=True, dtype=dtype or "auto"
                )
            else:
                config = transformers.AutoConfig.from_pretrained(str(folder), local_files_only=True)  # nosec B615  # a folder
                # A copy: transformers takes the tensors as they are, and these may not be written to.
                own = {name: held.tensor(name).clone() for name in held.names}
                model = kind.from_pretrained(None, config=config, state_dict=own, dtype=dtype or "auto")
        except (OSError, ValueError, RuntimeError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            first = str(error).strip().splitlines()[0]
            raise CheckpointError(f"model folder {str(folder)!r}: transformers cannot load it: {first}") from error
        model = model.eval().requires_grad_(False)
        if isinstance(device, torch.device):
            return model.to(device)
        spread(model, device)
        return model


def names_in_memory(model: torch.nn.Module, names: Sequence[str]) -> Mapping[str, str]:
    """For each of the files' tensor `names` that the model holds whole, its name in memory.

    A tensor that is only a slice of a live one (fused projections, stacked experts) has none.
    """
    state = model.state_dict()
    place_of = {_place(tensor): name for name, tensor in state.items()}
    reverted = revert_weight_conversion(model, dict(state))
    found = {}
    for name in names:
        if name in state:
            found[name] = name
        elif name in reverted and _place(reverted[name]) in place_of:
            found[name] = place_of[_place(reverted[name])]
    return found


def names_in_files(base: Checkpoint) -> Mapping[str, str]:
    """Name in memory -> name in the files, for each tensor that a base's class holds whole. Reads no weight.

    Raises:
        CheckpointError: transformers does not know the class.
    """
    names = base.config.get("architectures") or [""]
    kind = getattr(transformers, names[0], None)
    if kind is None:
        raise CheckpointError(f"{base.folder / 'config.json'}: transformers does not know the class {names[0]!r}")
    with _quiet(), torch.device("meta"):
        config = transformers.AutoConfig.from_pretrained(str(base.folder), local_files_only=True)  # nosec B615  # a folder
        model = kind(config)
    state = dict(model.state_dict())
    memory = {id(tensor): name for name, tensor in state.items()}  # tensors without memory: known by themselves
    reverted = revert_weight_conversion(model, state)
    return {memory[id(t)]: name for name, t in reverted.items() if id(t) in memory and name in base.headers}


def live_tensors(model: torch.nn.Module, names: Sequence[str]) -> Mapping[str, torch.Tensor]:
    """The live tensors under the files' `names`; writing into them changes the model.

    Raises:
        CheckpointError: a name has no live tensor of its own.
    """
    state = model.state_dict()
    memory = names_in_memory(model, names)
    missing = [name for name in names if name not in memory]
    if missing:
        raise CheckpointError(
            f"{len(missing)} tensor(s) of the checkpoint have no place of their own in {type(model).__name__}, "
            f"the first is {missing[0]!r}{did_you_mean(missing[0], state)}"
        )
    return {name: state[memory[name]] for name in names}


def live_parameters(model: torch.nn.Module, live: Mapping[str, torch.Tensor]) -> Mapping[str, torch.nn.Parameter]:
    """The parameters behind the live tensors, under the same names; a buffer has none."""
    parameters = {_place(parameter): parameter for parameter in model.parameters() if parameter.numel()}
    return {name: parameters[_place(tensor)] for name, tensor in live.items() if _place(tensor) in parameters}


def make_head(model: torch.nn.Module, tensors: Mapping[str, torch.Tensor]) -> Head:
    """A head to `wear`, from tensors under the files' names, where its modules stand; shapes may differ from the
    model's own.

    Raises:
        CheckpointError: the model has no module for a tensor.
    """
    memory = names_in_memory(model, list(tensors))
    head = {}
    for name, tensor in tensors.items():
        place = memory.get(name, name)
        module = place.rpartition(".")[0]
        if not any(module == path for path, _ in model.named_modules()):
            raise CheckpointError(f"head tensor {name!r} fits nowhere in {type(model).__name__}: no module {module!r}")
        like = next(model.get_submodule(module).parameters(), next(model.parameters()))
        head[place] = torch.nn.Parameter(tensor.to(like.device), requires_grad=False)
    return head


def wear(model: torch.nn.Module, head: Head) -> None:
    """Put a head in place, by reference."""
    for place, parameter in head.items():
        module, _, attribute = place.rpartition(".")
        setattr(model.get_submodule(module), attribute, parameter)


def _place(tensor: torch.Tensor) -> tuple[object, ...]:
    """Which memory a tensor is. Tied names share it: either one stands for both."""
    return tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' progress bars, which would run through the live display."""
    shown = transformers_logging.is_progress_bar_enabled()
    level = transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if shown:
            transformers_logging.enable_progress_bar()
