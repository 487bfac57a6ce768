"""Models and data through Ray's object store: sent once to each node, read by its workers without a copy.

Bytes travel as numpy arrays, of which `ray.get` gives views of the node's one copy; a torch tensor would be copied by
every worker. Small files and data, which other libraries open by their path, are written to a folder of the node,
once for all its workers, and removed by the next worker that finds nobody using it.
"""

import fcntl
import os
import pickle  # nosec B403  # between our own processes, see below
import shutil
import tempfile
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, Protocol, runtime_checkable

import numpy as np
import ray
from numpy.typing import NDArray

from mergesearch.errors import PoolError
from mergesearch.pool.base import Worker
from mergesearch.pool.setup import WorkerSetup

_PREFIX: Final = "mergesearch-"
_USED: Final = ".used"
_WRITING: Final = ".writing"
_DONE: Final = ".done"
_KEPT: list[IO[bytes]] = []  # locks of this process: held until it ends


@runtime_checkable
class MergeFactory(Protocol):
    """A factory of merge workers, of which it is known what they read."""

    @property
    def setup(self) -> WorkerSetup:
        """What its workers are built from."""
        ...

    def __call__(self) -> Worker: ...


@dataclass(frozen=True)
class Parcels:
    """What a worker on another machine is built from: references to bytes in the object store."""

    token: str
    setup: bytes
    weights: tuple[tuple[str, Any], ...]  # name -> all bytes of the file
    files: tuple[tuple[str, int], ...]  # name -> its length in `blob`, one after the other
    blob: Any


def packed_bytes(factory: object) -> int:
    """Bytes that the object store of each node must hold for these workers, with some room for jobs and outcomes."""
    from mergesearch.pool.parcels import pack

    return int(pack(_known(factory).setup).nbytes * 1.05)


def send(factory: object) -> Parcels:
    """Put all that the workers read into the object store. Raises what `parcels.pack` raises."""
    from mergesearch.pool.parcels import pack

    parcel = pack(_known(factory).setup)
    files = {name: path.read_bytes() for name, path in parcel.files.items()}
    return Parcels(
        uuid.uuid4().hex[:12],
        pickle.dumps(parcel.setup),
        tuple((name, ray.put(_mapped(path))) for name, path in parcel.weights.items()),
        tuple((name, len(body)) for name, body in files.items()),
        ray.put(np.frombuffer(b"".join(files.values()), dtype=np.uint8)),
    )


def unpack(parcels: Parcels, all_gpus: bool) -> Worker:
    """The worker, on a node that has none of its files on a disk; over all GPUs that it sees, or on one device."""
    from mergesearch.pool.parcels import stand
    from mergesearch.pool.worker import MergeWorker

    folder = _folder(parcels)
    arrays = ray.get([ref for _, ref in parcels.weights])
    held = {folder / name: array for (name, _), array in zip(parcels.weights, arrays, strict=True)}
    setup = stand(pickle.loads(parcels.setup), folder)  # nosec B301  # what our controller put into its cluster
    return over_all_gpus(setup, held) if all_gpus else MergeWorker(setup, held)


def over_all_gpus(setup: WorkerSetup, held: Mapping[Path, NDArray[np.uint8]] | None = None) -> Worker:
    """A worker whose live model is spread over the GPUs that Ray lent this process."""
    import torch

    from mergesearch.pool.worker import MergeWorker

    count = torch.cuda.device_count() if setup.device != "cpu" else 0
    devices = [torch.device("cuda", i) for i in range(count)] if count > 1 else None
    return MergeWorker(setup, held or {}, devices)


def sweep() -> None:
    """Remove the folders of this machine that no process uses any more."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError), (folder / _USED).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)


def _known(factory: object) -> MergeFactory:
    if not isinstance(factory, MergeFactory):
        raise PoolError("models: object_store is for studies of models; this one calls a function: say models: files")
    return factory


def _mapped(path: Path) -> NDArray[np.uint8]:
    """A file's bytes, read while they are copied."""
    return np.asarray(np.memmap(path, dtype=np.uint8, mode="r"))


def _folder(parcels: Parcels) -> Path:
    """The node's folder with the small files, written by the first worker that comes; it stays while one lives."""
    sweep()
    folder = Path(tempfile.gettempdir()) / f"{_PREFIX}{parcels.token}"
    _KEPT.append(_use(folder))
    with (folder / _WRITING).open("ab") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        if not (folder / _DONE).exists():
            _write(parcels, folder)
            (folder / _DONE).touch()
    return folder


def _use(folder: Path) -> IO[bytes]:
    """Make the folder and mark it as used, for as long as the file that is returned stays open."""
    while True:
        folder.mkdir(mode=0o700, exist_ok=True)
        with suppress(FileNotFoundError):  # swept in between
            file = (folder / _USED).open("ab")
            fcntl.flock(file, fcntl.LOCK_SH)
            if (folder / _USED).stat().st_ino == os.fstat(file.fileno()).st_ino:
                return file
            file.close()


def _write(parcels: Parcels, folder: Path) -> None:
    blob, start = ray.get(parcels.blob), 0
    for name, length in parcels.files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(blob[start : start + length])
        start += length
    for name, _ in parcels.weights:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
