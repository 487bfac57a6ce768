"""Opening a transformers folder: headers at once, weights one tensor at a time, safetensors only."""

import hashlib
import json
import mmap
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

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
Held: TypeAlias = Mapping[Path, NDArray[np.uint8]]
"""Weight files that are in memory and not on this disk: path -> all bytes (n,), not to be written to."""
NOTHING_HELD: Held = MappingProxyType({})
_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"


@dataclass(frozen=True)
class TensorInfo:
    """What a header says of one tensor, and the file it stands in; `offset`: bytes before its first entry there.

    `held` are the file's bytes where they are in memory: then there need be no file.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    file: Path
    offset: int = 0
    held: NDArray[np.uint8] | None = field(default=None, repr=False, compare=False)

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
    def open(cls, folder: Path | str, held: Held = NOTHING_HELD) -> "Checkpoint":
        """Read `config.json` and the headers of `model.safetensors`, or of the shards its index names.

        Weight files of the folder that are `held` are read from memory; its other files are on disk.

        Raises:
            CheckpointError: a file is missing, damaged, or a pickle; the message has its path.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise CheckpointError(f"{folder}: no such folder; give a transformers folder (config.json + safetensors)")
        config = read_json(folder / "config.json")
        tensors: dict[str, TensorInfo] = {}
        for file in _weight_files(folder, held):
            tensors.update(read_header(file, held.get(file)))
        if (folder / _INDEX).exists() and not _is_there(folder / _SINGLE, held):
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
        return read_tensor(self._info(name), name)

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
            held = {info.file: info.held for info in self.headers.values() if info.held is not None}
            files = {self.folder / "config.json", *(info.file for info in self.headers.values())}
            self._hashes["digest"] = digest_of(files, held)
        return self._hashes["digest"]

    @property
    def on_disk(self) -> bool:
        """Whether the folder holds the weights; if not, they are in memory alone."""
        return all(info.held is None for info in self.headers.values())

    def _info(self, name: str) -> TensorInfo:
        if name not in self.headers:
            hint = "; it may be tied to another tensor" if self.tied else ""
            raise CheckpointError(f"{self.folder}: holds no tensor {name!r}{hint}")
        return self.headers[name]


def _few(names: list[str], limit: int = 4) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(map(repr, names[:limit])) + more


def read_tensor(info: TensorInfo, name: str) -> torch.Tensor:
    """One tensor of a safetensors file, mapped read-only: writing to it would end the process. Of a file that is held
    in memory, a view of that memory.

    Only its own pages are mapped. They are no private memory, so that a limit on the process's memory does not count
    them and the system may drop them at any time; a mapping by safetensors itself is writable, and counted.

    Raises:
        CheckpointError: the file cannot be read, or has become shorter than its header said.
    """
    nbytes = info.numel * info.dtype.itemsize
    if nbytes == 0:
        return torch.empty(info.shape, dtype=info.dtype)
    if info.held is not None:
        return _view(info, info.held, info.offset)
    start = info.offset - info.offset % mmap.ALLOCATIONGRANULARITY
    try:
        with info.file.open("rb") as file:
            size = info.offset - start + nbytes
            pages = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ, offset=start)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{info.file}: tensor {name!r} cannot be read ({error}); copy the file anew") from None
    return _view(info, pages, info.offset - start)


def _view(info: TensorInfo, memory: Any, offset: int) -> torch.Tensor:
    """A tensor of bytes in memory, without a copy where they are aligned to its entries."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given buffer is not writable", UserWarning)
        flat = torch.frombuffer(memory, dtype=info.dtype, count=info.numel, offset=offset)
    return (flat if flat.data_ptr() % info.dtype.itemsize == 0 else flat.clone()).view(info.shape)


def digest_of(files: Iterable[Path], held: Held = NOTHING_HELD) -> str:
    """SHA-256 over the names and the bytes of files, in the order of their paths."""
    total = hashlib.sha256()
    for file in sorted(files):
        if file in held:
            total.update(file.name.encode() + b"\0" + hashlib.sha256(held[file].data).digest())
            continue
        with file.open("rb") as stream:
            total.update(file.name.encode() + b"\0" + hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a model's folder.

    Raises:
        CheckpointError: the file is missing, or holds something else.
    """
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
    body = read_json(folder / _INDEX).get("weight_map")
    if not isinstance(body, dict) or not body:
        raise CheckpointError(f"{folder / _INDEX}: has no 'weight_map'; save the model again with save_pretrained")
    return body


def _is_there(file: Path, held: Held) -> bool:
    return file in held or file.exists()


def _weight_files(folder: Path, held: Held = NOTHING_HELD) -> list[Path]:
    """The safetensors files of a folder.

    Raises:
        CheckpointError: there are none, with the command that converts a pickle where there is one.
    """
    if _is_there(folder / _SINGLE, held):
        return [folder / _SINGLE]
    if (folder / _INDEX).exists():
        files = [folder / name for name in sorted(set(_weight_map(folder).values()))]
        for file in files:
            if not _is_there(file, held):
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
    names = read_json(folder / "config.json").get("architectures") or ["AutoModel"]
    cls = names[0] if isinstance(names, list) else str(names)
    code = f"import transformers as t; t.{cls}.from_pretrained({str(folder)!r}).save_pretrained({str(folder)!r})"
    return f'python -c "{code}"'


def _length(held: NDArray[np.uint8]) -> int:
    """Bytes of the header of a safetensors file in memory."""
    return int.from_bytes(held[:8].tobytes(), "little")


def read_header(file: Path, held: NDArray[np.uint8] | None = None) -> dict[str, TensorInfo]:
    """Names, shapes and dtypes in one safetensors file; `held`: its bytes, where they are in memory.

    Format: 8 bytes with the length n of the header, n bytes of JSON, then the data (safetensors README, "Format").
    """
    try:
        size = file.stat().st_size if held is None else held.nbytes
        with file.open("rb") if held is None else BytesIO(held[: 8 + _length(held)].tobytes()) as stream:
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
            first, last = entry["data_offsets"]
            begin = 8 + length + first
            tensors[name] = TensorInfo(tuple(entry["shape"]), _DTYPES[entry["dtype"]], file, begin, held)
            if last - first != tensors[name].numel * tensors[name].dtype.itemsize:
                raise ValueError(f"tensor {name!r} has {last - first} bytes, not those of its shape")
            end = max(end, last)
        if 8 + length + end != size:
            raise ValueError(f"its header promises {8 + length + end} bytes, the file has {size}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{file}: damaged or not safetensors ({error}); copy or download it anew") from None
    return tensors
