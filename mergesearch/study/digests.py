"""What an evaluation's scores are known by in every study of a store: one digest for each objective.

Equal digests mean the same weights, answering the same examples, counted the same way. They cover what a study decides
(models, layout, recipe, data, scorer, how much of it is read), not the machine: scores of a GPU and of a CPU differ in
their last digits, and one stands for the other here as it does for a worker that replaces another.
"""

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import TypeAlias, final

from mergesearch.errors import DataError
from mergesearch.merging import make_operator
from mergesearch.plugins import load, parse_options
from mergesearch.pool.setup import ObjectiveSetup, WorkerSetup, make_scorers
from mergesearch.scorers import SCORERS
from mergesearch.scorers.base import BuildScorer
from mergesearch.scorers.data import DataOptions, split_paths
from mergesearch.scorers.image_classification import Options as ImageOptions
from mergesearch.scorers.tables import TABLE_SUFFIXES, read_columns
from mergesearch.study.resolve import ResolvedStudy
from mergesearch.types import Candidate, Request, Split

Digests: TypeAlias = Mapping[str, str]

VERSION = 1
"""Raise it when building or scoring changes in what it gives: older scores are then not taken any more."""

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx", ".md")
_BLOCK = 2**20


@final
class StudyDigests:
    """(candidate, split) -> objective -> digest; empty for what is not to be shared.

    Not shared is a window that continues another, whose recorded scores come of two jobs, and whatever an objective's
    scorer reads that is not known here: a kind whose options are no `DataOptions`.
    """

    def __init__(self, resolved: ResolvedStudy) -> None:
        self._resolved = resolved
        self._setup = resolved.worker_setup()

    def __call__(self, candidate: Candidate, split: Split) -> Digests:
        """Raises SpecError for a candidate that has no recipe, DataError or CheckpointError for files that are gone."""
        request = candidate.request if split is Split.SEARCH else Request()
        if request.continues is not None or any(what is None for what in self._objectives.values()):
            return {}
        built = self._resolved.recipe(candidate).digest(self._models)
        seen = [split.value, request.share.hex(), request.offset.hex(), request.gradient]
        space = self._space if request.gradient else ""
        return {name: _of(what, built, seen, space) for name, what in self._objectives.items()}

    @cached_property
    def _models(self) -> Mapping[str, str]:
        """Digests of all that a live model is made of, whatever the recipe: weights, layout, heads, its class."""
        layout, setup = self._setup.layout, self._setup
        groups = {tensor: layout.groups[row] for tensor, row in layout.group_of.items()}
        worn = [o.head for o in setup.objectives if o.head is not None and not _builds(o)]
        skeleton = f"expert:{worn[0]}" if worn else "base"
        more = {"layout": _of(groups, list(setup.heads)), "skeleton": skeleton, "dtype": str(setup.dtype)}
        merge = self._resolved.spec.merge
        more["operator"] = _source(type(make_operator(merge.operator, merge.options)))
        if given := merge.options.get("statistics"):  # files that an operator reads beside the models
            more["statistics"] = _of({name: digest_of_file(Path(path)) for name, path in given.items()})
        return {**self._resolved.digests(), **more}

    @cached_property
    def _space(self) -> str:
        return _of(self._resolved.space.to_dict())

    @cached_property
    def _objectives(self) -> Mapping[str, str | None]:
        """What decides an objective's scores beside the candidate; None where it is not known."""
        return {objective.name: _objective(self._setup, objective) for objective in self._setup.objectives}


def example_counter(resolved: ResolvedStudy) -> Callable[[Request], int]:
    """Counts the search examples that a request has scored, over all objectives; those that share a scorer count once.

    The data are looked at when it is first called.
    """

    @cache
    def counts() -> tuple[int, ...]:
        scorers = make_scorers(resolved.worker_setup()).values()
        return tuple(scorer.count(Split.SEARCH) for scorer in scorers if not isinstance(scorer, BuildScorer))

    return lambda request: sum(len(request.rows(count)) for count in counts())


def _builds(objective: ObjectiveSetup) -> bool:
    return hasattr(load("scorer", SCORERS, objective.scorer), "score_build")


def _objective(setup: WorkerSetup, objective: ObjectiveSetup) -> str | None:
    said = [VERSION, objective.scorer, objective.metric, objective.head, objective.rebuild, objective.taught_by]
    said.append(_source(load("scorer", SCORERS, objective.scorer)))
    if _builds(objective):
        return _of(said, dict(objective.data))
    options = parse_options(
        f"objective {objective.name!r}: data", load("scorer", SCORERS, objective.scorer).Options, objective.data
    )
    if not isinstance(options, DataOptions):
        return None
    paths = split_paths(options, setup.root)
    files = list(paths.values())
    shared = [files.index(path) for path in files]  # which splits divide one file's rows between them
    data = {split.value: _content(path, options) for split, path in paths.items()}
    model = setup.experts[objective.head] if objective.head is not None else setup.base
    return _of(said, options.model_dump(mode="json", exclude={"path"}), shared, data, setup.seed, _processor(model))


def _content(path: Path, options: DataOptions) -> str:
    """Digest of a data file, or of all files of a folder; of a table of images, with the images."""
    if path.is_dir():
        return _tree(path)
    if isinstance(options, ImageOptions) and path.suffix.lower() in TABLE_SUFFIXES:
        images = read_columns(path, [options.image])[options.image]
        return _of(digest_of_file(path), [digest_of_file(path.parent / str(image)) for image in images])
    return digest_of_file(path)


def _processor(model: Path) -> str:
    """Digest of a model folder's configuration, tokenizer and image processor."""
    files = sorted(p for p in model.iterdir() if p.is_file() and p.suffix.lower() not in _WEIGHTS)
    return _of({p.name: digest_of_file(p) for p in files if not p.name.startswith(".")})


def _source(plugin: type) -> str:
    """Digest of the file that a plug-in stands in: who changes it wants new scores."""
    return digest_of_file(Path(inspect.getfile(plugin)))


def _tree(folder: Path) -> str:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return _of({str(p.relative_to(folder)): digest_of_file(p) for p in files})


def digest_of_file(path: Path) -> str:
    """SHA-256 of a file's bytes, remembered in this process for as long as its size and time stay what they are.

    Raises:
        DataError: it cannot be read.
    """
    try:
        found = path.stat()
        return _read(path, found.st_size, found.st_mtime_ns)
    except OSError as error:
        raise DataError(f"data file {str(path)!r} cannot be read: {error.strerror}") from None


@cache
def _read(path: Path, _size: int, _mtime: int) -> str:
    body = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            body.update(block)
    return body.hexdigest()


def _of(*values: object) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
