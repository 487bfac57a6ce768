"""Which files a merge worker reads, and the same worker where they stand in one folder of another machine.

For machines that share no disk. Weights are kept apart from the rest: they need no place on a disk there.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from mergesearch.checkpoints.adapter import open_expert
from mergesearch.errors import DataError
from mergesearch.plugins import load, parse_options
from mergesearch.pool.setup import ObjectiveSetup, WorkerSetup
from mergesearch.scorers import SCORERS
from mergesearch.scorers.data import DataOptions, split_paths
from mergesearch.scorers.tables import read_columns
from mergesearch.types import Split

WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".onnx", ".h5", ".msgpack", ".ckpt")
"""Suffixes of files in a model folder that are sent as weights, if they are the model's, or not at all."""


@dataclass(frozen=True)
class Parcel:
    """A worker's files: its name inside the folder -> where it stands here. `setup` has names for paths."""

    setup: WorkerSetup
    weights: Mapping[str, Path]
    files: Mapping[str, Path]

    @property
    def nbytes(self) -> int:
        """Bytes of all files."""
        return sum(path.stat().st_size for path in (*self.weights.values(), *self.files.values()))


def pack(setup: WorkerSetup) -> Parcel:
    """What to send.

    Raises:
        CheckpointError, DataError: a file is missing, or an image of a table stands outside the table's folder.
        SpecError: an unknown scorer or option.
    """
    weights: dict[str, Path] = {}
    files: dict[str, Path] = {}
    folders: dict[Path, str] = {}
    for folder in (setup.base, *setup.experts.values()):
        if folder.resolve() in folders:
            continue
        name = folders[folder.resolve()] = f"models/{len(folders)}"
        own = {info.file for info in open_expert(folder).headers.values()}
        weights |= {f"{name}/{file.name}": file for file in sorted(own)}
        rest = (file for file in sorted(folder.iterdir()) if file.is_file() and file.suffix not in WEIGHTS)
        files |= {f"{name}/{file.name}": file for file in rest}
    places: dict[Path, str] = {}
    objectives = tuple(_objective(setup, objective, places, files) for objective in setup.objectives)
    moved = replace(
        setup,
        base=Path(folders[setup.base.resolve()]),
        experts={name: Path(folders[path.resolve()]) for name, path in setup.experts.items()},
        root=Path("."),
        objectives=objectives,
    )
    return Parcel(moved, weights, files)


def stand(setup: WorkerSetup, folder: Path) -> WorkerSetup:
    """A packed setup whose files stand in `folder`."""
    experts = {name: folder / path for name, path in setup.experts.items()}
    return replace(setup, base=folder / setup.base, experts=experts, root=folder / setup.root)


def _objective(
    setup: WorkerSetup, objective: ObjectiveSetup, places: dict[Path, str], files: dict[str, Path]
) -> ObjectiveSetup:
    """The objective with the data's names for their paths; notes its files. One that reads no data stays as it is."""
    kind = load("scorer", SCORERS, objective.scorer)
    options = parse_options(f"objective {objective.name!r}: data", kind.Options, objective.data)
    if not isinstance(options, DataOptions):
        return objective
    paths = split_paths(options, setup.root)
    for path in paths.values():
        if path not in places:
            # Under its own name, since scorers go by the suffix, and apart from others of that name.
            places[path] = f"data/{len(places)}/{path.name}"
            files |= {
                str(PurePosixPath(places[path]).parent / inside): file
                for inside, file in _data_files(path, getattr(options, "image", None))
            }
    return replace(objective, data={**objective.data, "path": {split.value: places[paths[split]] for split in Split}})


def _data_files(path: Path, image: str | None) -> Iterator[tuple[str, Path]]:
    """The files of a data path, with their names inside its parent: a folder's, or a table's and its images'."""
    if path.is_dir():
        yield from ((str(file.relative_to(path.parent)), file) for file in sorted(path.rglob("*")) if file.is_file())
        return
    if not path.is_file():
        raise DataError(f"data file {str(path)!r} does not exist")
    yield path.name, path
    if image is None or path.suffix.lower() == ".npz":
        return
    for place in dict.fromkeys(map(str, read_columns(path, [image])[image])):
        file = PurePosixPath(place)
        if file.is_absolute() or ".." in file.parts:
            raise DataError(
                f"data file {str(path)!r}: image {place!r} stands outside the table's folder, so it cannot be sent to "
                "other machines: move it beside the table, or share the disk and say 'models: files'"
            )
        yield str(file), path.parent / file
