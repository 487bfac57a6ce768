"""Opening a transformers folder: headers at once, weights one tensor at a time, safetensors only."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from mergesearch.errors import CheckpointError

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"


@dataclass(frozen=True)
class TensorInfo:
    """What a header says of one tensor, and the file it stands in."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    file: Path

    @property
    def numel(self) -> int:
        """Number of elements; 1 for a scalar."""
        count = 1
        for size in self.shape:
            count *= size
        return count


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A transformers folder. Opening reads the configuration and headers only."""

    folder: Path
    config: Mapping[str, Any]
    headers: Mapping[str, TensorInfo]
    _hashes: dict[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def open(cls, folder: Path | str) -> "Checkpoint":
        """Read `config.json` and the headers of `model.safetensors`, or of the shards its index names.

        Raises:
            CheckpointError: a file is missing, damaged, or a pickle; the message has its path.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise CheckpointError(f"{folder}: no such folder; give a transformers folder (config.json + safetensors)")
        config = _json(folder / "config.json")
        tensors: dict[str, TensorInfo] = {}
        for file in _weight_files(folder):
            tensors.update(_header(file))
        if (folder / _INDEX).exists() and not (folder / _SINGLE).exists():
            listed = set(_weight_map(folder))
            if missing := sorted(listed - set(tensors)):
                raise CheckpointError(f"{folder / _INDEX}: lists tensors that no shard holds: {_few(missing)}")
        return cls(folder, config, dict(sorted(tensors.items())))

    @property
    def names(self) -> tuple[str, ...]:
        """Tensor names, sorted. Of tied tensors only the one that is stored."""
        return tuple(self.headers)

    @property
    def tied(self) -> bool:
        """Whether input and output embeddings are one tensor, stored once (transformers' default where unsaid)."""
        text = self.config.get("text_config")
        inner = text.get("tie_word_embeddings") if isinstance(text, dict) else None
        own = self.config.get("tie_word_embeddings")
        return bool(own if own is not None else inner if inner is not None else True)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, from the header."""
        return self._info(name).shape

    def dtype(self, name: str) -> torch.dtype:
        """Stored dtype of a tensor, from the header."""
        return self._info(name).dtype

    def tensor(self, name: str) -> torch.Tensor:
        """One tensor, mapped from its file: pages are read when they are touched.

        Raises:
            CheckpointError: no such tensor, or the file cannot be read.
        """
        info = self._info(name)
        try:
            with safe_open(info.file, framework="pt") as file:
                tensor: torch.Tensor = file.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"{info.file}: tensor {name!r} cannot be read ({error}); copy the file anew"
            ) from None
        return tensor

    @cached_property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(info.numel * info.dtype.itemsize for info in self.headers.values())

    @property
    def digest(self) -> str:
        """SHA-256 over the bytes of `config.json` and of every weight file, in the order of their names.

        Equal digest, equal configuration and weights. The reverse does not hold: the same weights in other shards have
        another digest. Tokenizer and processor files are not covered. Reads every byte once, then remembers.
        """
        if "digest" not in self._hashes:
            total = hashlib.sha256()
            files = {self.folder / "config.json", *(info.file for info in self.headers.values())}
            for file in sorted(files):
                with file.open("rb") as stream:
                    total.update(file.name.encode() + b"\0" + hashlib.file_digest(stream, "sha256").digest())
            self._hashes["digest"] = total.hexdigest()
        return self._hashes["digest"]

    def _info(self, name: str) -> TensorInfo:
        if name not in self.headers:
            hint = "; it may be tied to another tensor" if self.tied else ""
            raise CheckpointError(f"{self.folder}: holds no tensor {name!r}{hint}")
        return self.headers[name]


def _few(names: list[str], limit: int = 4) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(map(repr, names[:limit])) + more


def _json(path: Path) -> dict[str, Any]:
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: missing; a transformers folder has config.json and safetensors") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON ({error})") from None
    if not isinstance(body, dict):
        raise CheckpointError(f"{path}: must hold a JSON object")
    return body


def _weight_map(folder: Path) -> dict[str, str]:
    body = _json(folder / _INDEX).get("weight_map")
    if not isinstance(body, dict) or not body:
        raise CheckpointError(f"{folder / _INDEX}: has no 'weight_map'; save the model again with save_pretrained")
    return body


def _weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder.

    Raises:
        CheckpointError: there are none, with the command that converts a pickle where there is one.
    """
    if (folder / _SINGLE).exists():
        return [folder / _SINGLE]
    if (folder / _INDEX).exists():
        files = [folder / name for name in sorted(set(_weight_map(folder).values()))]
        for file in files:
            if not file.exists():
                raise CheckpointError(f"{file}: missing; {_INDEX} lists it, so copy that shard into the folder")
        return files
    pickles = sorted(p.name for p in folder.iterdir() if p.suffix in {".bin", ".pt", ".pth"})
    if pickles:
        raise CheckpointError(
            f"{folder / pickles[0]}: is a pickle, which can run code when it is opened, so it is refused. If you trust "
            f"its source, convert it:\n  {conversion_command(folder)}"
        )
    raise CheckpointError(f"{folder}: holds no {_SINGLE} and no {_INDEX}; save the model with save_pretrained")


def conversion_command(folder: Path) -> str:
    """The shell command that writes `folder` again as safetensors, through the class its configuration names."""
    names = _json(folder / "config.json").get("architectures") or ["AutoModel"]
    cls = names[0] if isinstance(names, list) else str(names)
    code = f"import transformers as t; t.{cls}.from_pretrained({str(folder)!r}).save_pretrained({str(folder)!r})"
    return f'python -c "{code}"'


def _header(file: Path) -> dict[str, TensorInfo]:
    """Names, shapes and dtypes in one safetensors file.

    Format: 8 bytes with the length n of the header, n bytes of JSON, then the data (safetensors README, "Format").
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if size < 8 or length > size - 8:
                raise ValueError("the header is cut off")
            header = json.loads(stream.read(length))
        tensors, end = {}, 0
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            if entry["dtype"] not in _DTYPES:
                raise CheckpointError(f"{file}: tensor {name!r} has dtype {entry['dtype']}, which is not supported")
            tensors[name] = TensorInfo(tuple(entry["shape"]), _DTYPES[entry["dtype"]], file)
            end = max(end, entry["data_offsets"][1])
        if 8 + length + end != size:
            raise ValueError(f"its header promises {8 + length + end} bytes, the file has {size}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{file}: damaged or not safetensors ({error}); copy or download it anew") from None
    return tensors
