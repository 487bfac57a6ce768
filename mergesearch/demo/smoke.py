"""The experts of the smoke study: two tiny vision transformers that disagree, made in a few seconds."""

import copy
import hashlib
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from mergesearch.demo.cache import digest, make_once
from mergesearch.demo.data import DATA_FILE, Examples, Task, load_tasks, write_splits
from mergesearch.demo.training import (
    Training,
    TrunkSize,
    freeze_head,
    new_model,
    one_thread,
    save,
    share_trunk,
    tensors,
    train,
)
from mergesearch.types import Split

SMOKE_TASKS = {"a": "digits", "b": "fashion"}  # folder name -> task of the data file
SIZE = TrunkSize(patch=14, hidden=16, layers=2, heads=2, mlp=32, init_range=0.1)
PRETRAINING = Training(steps=100, rate=5e-3)
TUNING = Training(steps=80, rate=5e-3)  # far enough that what helps one task costs the other
PRETRAINING_ROWS = 500
SPLIT_ROWS = {Split.SEARCH: 200, Split.CONFIRM: 200, Split.TEST: 400}
PARTS = ("base", *SMOKE_TASKS, "data")
_FORMAT = 1  # raise it when a change of the code changes the experts


def make_smoke(folder: Path, seed: int) -> None:
    """Make `<folder>/base`, `/a`, `/b` and `/data/<task>-<split>.npz`, unless they stand there already.

    Raises:
        SpecError: `folder` holds sub-folders of these names that mergesearch did not make.
        DataError: the data file of the package is damaged.
    """
    settings = {
        "format": _FORMAT,
        "seed": seed,
        "size": asdict(SIZE),
        "training": [asdict(PRETRAINING), asdict(TUNING), PRETRAINING_ROWS],
        "splits": {split.value: rows for split, rows in SPLIT_ROWS.items()},
        "data": hashlib.sha256(DATA_FILE.read_bytes()).hexdigest(),
    }

    def make(work: Path) -> None:
        with one_thread():
            _make(work, seed)

    make_once(folder, digest(settings), PARTS, make)


def _make(work: Path, seed: int) -> None:
    loaded = load_tasks(tuple(SMOKE_TASKS.values()))
    tasks = {name: _smaller(name, loaded[source]) for name, source in SMOKE_TASKS.items()}
    models = {name: new_model(SIZE, task.classes, seed) for name, task in tasks.items()}
    share_trunk(models)
    generator = torch.Generator().manual_seed(seed)
    first: dict[str, tuple[Tensor, Tensor]] = {name: tensors(task, PRETRAINING_ROWS) for name, task in tasks.items()}
    train(models, first, PRETRAINING, generator, _nothing)
    save(models[next(iter(SMOKE_TASKS))], work / "base")
    for name, task in tasks.items():
        expert = copy.deepcopy(models[name])
        freeze_head(expert)
        train({name: expert}, {name: tensors(task)}, TUNING, generator, _nothing)
        save(expert, work / name)
        write_splits(task, work / "data")


def _nothing() -> None:
    """No progress is shown: it takes seconds."""


def _smaller(name: str, task: Task) -> Task:
    def first(examples: Examples, rows: int) -> Examples:
        return Examples(examples.image[:rows], examples.label[:rows])

    return Task(name, task.classes, task.train, {s: first(e, SPLIT_ROWS[s]) for s, e in task.splits.items()})
