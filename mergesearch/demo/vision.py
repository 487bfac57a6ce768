"""The experts of the default demo: one small vision transformer, tuned for each of four image tasks.

A base is pretrained briefly on all tasks with one linear head each; the heads are then frozen, and each expert is the
trunk tuned on one task. 'gentle' experts stay near the base and merge well; 'strong' ones move far and interfere.
"""

import copy
import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from threading import Lock
from typing import Literal, TypeAlias

import torch
from transformers import ViTForImageClassification

from mergesearch.demo.cache import digest, is_made, make_once
from mergesearch.demo.data import DATA_FILE, TASKS, Task, load_tasks, write_splits
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

Variant: TypeAlias = Literal["gentle", "strong"]
Progress: TypeAlias = Callable[[str], None]
"""Takes a sentence now and then, from whichever thread is at work, one at a time."""

# transformers' own 0.02 suits a hidden size of 768: at 96 the base then reaches a mean accuracy of .57, with 0.04 .72.
SIZE = TrunkSize(patch=7, hidden=96, layers=6, heads=4, mlp=288, init_range=0.04)
PRETRAINING = Training(steps=400, rate=1e-3)
PRETRAINING_ROWS = 1000  # of each task: the base is to know the tasks, not to master them
TUNING: dict[Variant, Training] = {
    "gentle": Training(steps=150, rate=3e-4),
    "strong": Training(steps=150, rate=1e-3),
}
PARTS = ("base", *TASKS, "data")
_FORMAT = 1  # raise it when a change of the code changes the experts


def experts_made(folder: Path, seed: int, variant: Variant = "gentle") -> bool:
    """Whether `folder` already holds what `make_experts` would make."""
    return is_made(folder, _wanted(seed, variant), PARTS)


def make_experts(
    folder: Path, seed: int, variant: Variant = "gentle", progress: Progress | None = None, threads: int = 2
) -> None:
    """Make `<folder>/base`, `<folder>/<task>` and `<folder>/data/<task>-<split>.npz`, unless they stand there already.

    Up to `threads` experts are tuned at a time, one thread of torch each, so that the same seed gives the same weights
    on one machine whatever `threads` is. About 90 seconds of CPU.

    Raises:
        SpecError: `folder` holds sub-folders of these names that mergesearch did not make.
        DataError: the data file of the package is damaged.
    """
    report = progress or _silent

    def make(work: Path) -> None:
        tasks = load_tasks()
        steps = _Steps(PRETRAINING.steps + len(tasks) * TUNING[variant].steps, report)
        models = _pretrained(tasks, seed, steps.step)
        save(models[TASKS[0]], work / "base")
        for name, expert in _tune_all(models, tasks, TUNING[variant], seed, threads, steps.step).items():
            save(expert, work / name)
            write_splits(tasks[name], work / "data")

    if not make_once(folder, _wanted(seed, variant), PARTS, make):
        report(f"the base and the {variant} experts stand in {folder}, made before")


def _silent(message: str) -> None:
    """No progress shown."""


class _Steps:
    """Counts training steps over threads, and says how many are done every hundred."""

    def __init__(self, total: int, report: Progress) -> None:
        self._done, self._total, self._report, self._lock = 0, total, report, Lock()

    def step(self) -> None:
        with self._lock:
            self._done += 1
            if self._done % 100 == 0 or self._done == self._total:
                stage = "pretraining the base" if self._done <= PRETRAINING.steps else "tuning the experts"
                self._report(f"{stage}: {self._done} of {self._total} training steps done")


def _wanted(seed: int, variant: Variant) -> str:
    settings = {
        "format": _FORMAT,
        "seed": seed,
        "variant": variant,
        "size": asdict(SIZE),
        "pretraining": asdict(PRETRAINING),
        "rows": PRETRAINING_ROWS,
        "tuning": asdict(TUNING[variant]),
        "data": hashlib.sha256(DATA_FILE.read_bytes()).hexdigest(),
    }
    return digest(settings)


def _generator(seed: int, stage: int) -> torch.Generator:
    """Batches of one stage (0 pretraining, then the tasks); stages of one seed do not share a stream."""
    return torch.Generator().manual_seed(1000 * seed + stage)


def _pretrained(tasks: dict[str, Task], seed: int, on_step: Callable[[], None]) -> dict[str, ViTForImageClassification]:
    """One model a task, all with the same trunk."""
    models = {name: new_model(SIZE, task.classes, seed) for name, task in tasks.items()}
    share_trunk(models)
    data = {name: tensors(task, PRETRAINING_ROWS) for name, task in tasks.items()}
    with one_thread():
        train(models, data, PRETRAINING, _generator(seed, 0), on_step)
    return models


def _tune_all(
    models: dict[str, ViTForImageClassification],
    tasks: dict[str, Task],
    training: Training,
    seed: int,
    threads: int,
    on_step: Callable[[], None],
) -> dict[str, ViTForImageClassification]:
    """The experts. At this size two runs side by side are faster than one after the other with two threads each."""

    def tune(stage: int, name: str) -> ViTForImageClassification:
        expert = copy.deepcopy(models[name])
        freeze_head(expert)
        torch.set_num_threads(1)  # a new thread starts with as many as there are cores; restored below, once for all
        train({name: expert}, {name: tensors(tasks[name])}, training, _generator(seed, stage), on_step)
        return expert

    with one_thread(), ThreadPoolExecutor(threads) as pool:
        futures = {name: pool.submit(tune, stage, name) for stage, name in enumerate(tasks, start=1)}
        return {name: future.result() for name, future in futures.items()}
