"""LoRA adapters as low-rank task vectors: factors, never the dense product, until someone asks for it.

Read from a folder in PEFT's format: adapter_config.json, and adapter_model.safetensors with `<module>.lora_A.weight`
[r, in] and `<module>.lora_B.weight` [out, r]. A module's change is (alpha / r) · B A, or (alpha / √r) · B A for
rank-stabilised LoRA (arXiv:2312.03732).
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import torch

from mergesearch.checkpoints.load import is_finite
from mergesearch.checkpoints.reader import (
    NOTHING_HELD,
    Checkpoint,
    Held,
    TensorInfo,
    digest_of,
    read_header,
    read_json,
    read_tensor,
)
from mergesearch.errors import CheckpointError

CONFIG_FILE, WEIGHTS_FILE, PICKLE_FILE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"

_FACTOR = re.compile(r"^(?:base_model\.model\.)?(.+)\.lora_([AB])(?:\.[^.]+)?\.weight$")
_CHANGES_ITS_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga", "milora")
"""Starts of `init_lora_weights` after which an adapter belongs to a changed base, not to the one it names."""
_UNSUPPORTED = {
    "use_dora": "DoRA, which also learns a magnitude for each column",
    "lora_bias": "a bias beside the factors",
    "modules_to_save": "whole modules (modules_to_save) beside the factors",
    "trainable_token_indices": "rows of the embedding beside the factors",  # nosec B105  # a sentence
    "target_parameters": "parameters that are no linear layers (target_parameters)",
    "layer_replication": "replicated layers (layer_replication)",
    "alora_invocation_tokens": "activation by tokens (aLoRA), which no weight can hold",
    "use_qalora": "QA-LoRA",
    "use_bdlora": "block-diagonal factors (BD-LoRA)",
    "arrow_config": "routing among adapters (Arrow)",
    "kasa_config": "KaSA",
    "monteclora_config": "MonteCLoRA",
}


@dataclass(frozen=True, eq=False)
class LowRank:
    """A task vector τ = scale · up @ down of one matrix: `up` (out, r), `down` (r, in)."""

    up: torch.Tensor
    down: torch.Tensor
    scale: float

    @property
    def rank(self) -> int:
        """Inner dimension r of the factors."""
        return self.down.shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in) of the matrix that it changes."""
        return self.up.shape[0], self.down.shape[1]

    def dense(self) -> torch.Tensor:
        """τ (out, in) in float32, or float64 for float64 factors."""
        wide = torch.float64 if self.up.dtype == torch.float64 else torch.float32
        return (self.up.to(wide) @ self.down.to(wide)) * self.scale


Adapter: TypeAlias = Mapping[str, LowRank]
"""The base's tensor name -> how an adapter changes it. A tensor that it does not name it leaves alone."""
ExpertTensors: TypeAlias = Mapping[str, torch.Tensor] | Adapter
"""An expert in memory: a state dict, or an adapter."""


def is_adapter(expert: ExpertTensors) -> bool:
    """Whether an expert in memory is an adapter; one that holds nothing is not."""
    return any(isinstance(value, LowRank) for value in expert.values())


@dataclass(frozen=True)
class Module:
    """What an adapter's file holds for one module: the names of its factors, their sizes, and their scale."""

    down: str
    up: str
    rank: int
    shape: tuple[int, int]  # (out, in) of the linear layer
    scale: float


@dataclass(frozen=True, eq=False)
class AdapterFolder:
    """A LoRA adapter in PEFT's format. Opening reads the configuration and the header only."""

    folder: Path
    config: Mapping[str, Any]
    headers: Mapping[str, TensorInfo]
    modules: Mapping[str, Module]  # module name as the trained model had it -> its factors
    _hashes: dict[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def open(cls, folder: Path | str, held: Held = NOTHING_HELD) -> "AdapterFolder":
        """Read adapter_config.json and the header of adapter_model.safetensors, which may be `held` in memory.

        Raises:
            CheckpointError: a file is missing, damaged or a pickle, or the adapter is of a kind that is not supported.
        """
        folder = Path(folder)
        config = read_json(folder / CONFIG_FILE)
        if why := _unsupported(config):
            raise CheckpointError(f"{folder / CONFIG_FILE}: {why}; merge this adapter into its base and give that")
        file = folder / WEIGHTS_FILE
        there = file in held or file.exists()
        if not there and (folder / PICKLE_FILE).exists():
            raise CheckpointError(
                f"{folder / PICKLE_FILE}: is a pickle, which can run code when it is opened, so it is refused. If you "
                f"trust its source, convert it:\n  {_conversion_command(folder)}"
            )
        if not there:
            raise CheckpointError(f"{file}: missing; an adapter's folder has {CONFIG_FILE} and {WEIGHTS_FILE}")
        headers = read_header(file, held.get(file))
        return cls(folder, config, dict(sorted(headers.items())), _modules(file, config, headers))

    @property
    def digest(self) -> str:
        """SHA-256 over the bytes of the configuration and of the weights. Reads every byte once, then remembers."""
        if "digest" not in self._hashes:
            self._hashes["digest"] = digest_of([self.folder / CONFIG_FILE, self.folder / WEIGHTS_FILE])
        return self._hashes["digest"]

    @property
    def numel(self) -> int:
        """Number of entries of all factors."""
        return sum(info.numel for info in self.headers.values())

    def transposed(self, module: str, stored: Sequence[int]) -> bool | None:
        """Whether the base stores a module's matrix as [in, out] (`fan_in_fan_out`, GPT-2's layers); None: neither."""
        out, wide = self.modules[module].shape
        forms = [tuple(stored) == (out, wide), tuple(stored) == (wide, out)]
        flipped = bool(self.config.get("fan_in_fan_out"))
        return flipped if forms[flipped] else not flipped if forms[not flipped] else None

    def load(
        self, targets: Mapping[str, str], base: Checkpoint, dtype: torch.dtype, device: torch.device | str = "cpu"
    ) -> dict[str, LowRank]:
        """The adapter in memory: a base's tensor name -> its change, for `targets` (tensor name -> module).

        Raises:
            CheckpointError: a factor is unreadable, or holds NaN or infinity.
        """
        found = {}
        for name, path in targets.items():
            module = self.modules[path]
            down, up = (self._factor(factor).to(dtype).to(device) for factor in (module.down, module.up))
            if self.transposed(path, base.shape(name)):
                down, up = up.t(), down.t()  # (B A)ᵀ = Aᵀ Bᵀ
            found[name] = LowRank(up, down, module.scale)
        return found

    def _factor(self, name: str) -> torch.Tensor:
        tensor = read_tensor(self.headers[name], name)
        if not is_finite(tensor):
            raise CheckpointError(f"{self.headers[name].file}: tensor {name!r} holds NaN or infinity; train it again")
        return tensor


Expert: TypeAlias = Checkpoint | AdapterFolder
"""What a study's expert may be: a whole model, or an adapter of the base."""


def open_expert(folder: Path | str, held: Held = NOTHING_HELD) -> Expert:
    """The adapter in a folder with an adapter_config.json and no model beside it; else the model.

    Raises:
        CheckpointError: see `AdapterFolder.open` and `Checkpoint.open`.
    """
    folder = Path(folder)
    names = ("model.safetensors", "model.safetensors.index.json")
    model = any(folder / name in held or (folder / name).exists() for name in names)
    is_model = model or not (folder / CONFIG_FILE).exists()
    return Checkpoint.open(folder, held) if is_model else AdapterFolder.open(folder, held)


def _unsupported(config: Mapping[str, Any]) -> str:
    """Why an adapter cannot be read as products of two factors; '' if it can."""
    if config.get("peft_type") != "LORA":
        return f"holds a {config.get('peft_type')!r} adapter, only 'LORA' is supported"
    if (bias := config.get("bias", "none")) != "none":
        return f"trained biases too (bias: {bias!r}), only 'none' is supported"
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.startswith(_CHANGES_ITS_BASE):
        return f"was started by {start!r}, which changes the base too (save it with path_initial_model_for_weight_"\
               "conversion)"  # fmt: skip
    return next((f"uses {what}, which is not supported" for key, what in _UNSUPPORTED.items() if config.get(key)), "")


def _conversion_command(folder: Path) -> str:
    code = (
        "import torch, safetensors.torch as s; "
        f"s.save_file(torch.load({str(folder / PICKLE_FILE)!r}, weights_only=True), {str(folder / WEIGHTS_FILE)!r})"
    )
    return f'python -c "{code}"'


def _modules(file: Path, config: Mapping[str, Any], headers: Mapping[str, TensorInfo]) -> dict[str, Module]:
    """The modules of an adapter by name, sorted.

    Raises:
        CheckpointError: a tensor is no factor of a linear layer, lacks its other half, or has a shape that cannot be.
    """
    halves: dict[str, dict[str, str]] = {}
    for key in headers:
        match = _FACTOR.match(key)
        if match is None or len(headers[key].shape) != 2:
            kind = "an embedding" if "lora_embedding" in key else "a convolution" if match else "no factor"
            raise CheckpointError(
                f"{file}: tensor {key!r} is {kind}; only factors lora_A and lora_B of linear layers are supported"
            )
        halves.setdefault(match[1], {})[match[2]] = key
    found = {}
    for path, pair in sorted(halves.items()):
        if len(pair) < 2:
            raise CheckpointError(f"{file}: module {path!r} has lora_{next(iter(pair))} but not its other factor")
        (rank, wide), (out, other) = headers[pair["A"]].shape, headers[pair["B"]].shape
        said = _by_pattern(config, "rank_pattern", path, config.get("r"))
        if rank != other or rank < 1 or rank != said:
            raise CheckpointError(
                f"{file}: module {path!r} has factors of ranks {rank} and {other}, {CONFIG_FILE} says {said}"
            )
        alpha = float(_by_pattern(config, "alpha_pattern", path, config.get("lora_alpha", 8)))
        scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
        if not math.isfinite(scale):
            raise CheckpointError(f"{file}: module {path!r} has lora_alpha {alpha}, which is not finite")
        found[path] = Module(pair["A"], pair["B"], rank, (out, wide), scale)
    if not found:
        raise CheckpointError(f"{file}: holds no factors lora_A and lora_B")
    return found


def _by_pattern(config: Mapping[str, Any], table: str, module: str, default: Any) -> Any:
    """A module's own rank or alpha, as PEFT finds it: the first pattern that matches the end of its name."""
    for pattern, value in (config.get(table) or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default
