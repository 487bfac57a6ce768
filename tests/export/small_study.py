"""A small study on tiny vision transformers, evaluated by a real worker, for the tests of exports."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tiny import make_images, make_vit

from mergesearch.pool.base import Job
from mergesearch.results import Results
from mergesearch.store.base import StudyStore
from mergesearch.store.open import open_store
from mergesearch.stored import StoredStudy, describe, read_stored
from mergesearch.study.resolve import ResolvedStudy, resolve
from mergesearch.study.source import Source, parse_study
from mergesearch.types import Candidate, Scored, Split

STUDY = """
name: small
models:
  base: models/base
  experts: {digits: models/digits, letters: models/letters}
merge:
  operator: task_arithmetic
  heads: ["classifier.*"]
space: {groups: block}
objectives:
  - name: d
    scorer: image_classification
    data: {path: d.npz, sizes: {search: 40, confirm: 20, test: 30}}
    head: digits
  - name: l
    scorer: image_classification
    data: {path: l.npz, sizes: {search: 40, confirm: 20, test: 30}}
    head: letters
    metric: loss
store: memory://
"""


@dataclass(frozen=True, eq=False)
class Small:
    """A study, its store and its log: base, both experts, the average, and two candidates of the search."""

    file: Path
    resolved: ResolvedStudy
    store: StudyStore
    stored: StoredStudy

    @property
    def results(self) -> Results:
        """Its folded log."""
        return self.stored.results


def make_models(root: Path, dtype: torch.dtype = torch.float32) -> None:
    """Base and two experts with 3 and 5 classes of their own, and data for each."""
    base = make_vit(root / "models" / "base", seed=0, labels=2, dtype=dtype)
    make_vit(root / "models" / "digits", seed=1, labels=["0", "1", "2"], base=base, dtype=dtype)
    make_vit(root / "models" / "letters", seed=2, labels=list("abcde"), base=base, dtype=dtype)
    make_images(root / "d.npz", 90, labels=3, seed=3)
    make_images(root / "l.npz", 90, labels=5, seed=4)


def resolved_study(root: Path, text: str = STUDY) -> ResolvedStudy:
    """The study file in `root`, resolved."""
    return resolve(parse_study(Source("small.yaml", text, root)), root)


def make_study(root: Path, dtype: torch.dtype = torch.float32) -> Small:
    """The small study with its models and data, evaluated."""
    make_models(root, dtype)
    return evaluated(root, STUDY)


def evaluated(root: Path, text: str) -> Small:
    """The study `text` with a log of real evaluations; base and last candidate are scored on every split."""
    (root / "small.yaml").write_text(text)
    resolved = resolved_study(root, text)
    name = resolved.spec.name
    store = open_store("memory://")
    facts = describe(resolved.space, resolved.objectives, resolved.spec.budget.evaluations, resolved.spec.strategy.kind)
    store.create(name, text, "digest", 0.0, facts)
    lease = store.acquire(name, "test", 60.0, 0.0)
    worker = resolved.worker("cpu")()
    generator = np.random.default_rng(0)
    origins = [o for o in resolved.baselines if "lambda" not in o or o.endswith(":0.3")]
    candidates = [Candidate(n, None, origin) for n, origin in enumerate(origins)]
    candidates += [Candidate(len(origins) + n, generator.uniform(size=resolved.space.dim)) for n in range(2)]
    for candidate in candidates:
        for split in Split if candidate.number in (0, len(candidates) - 1) else (Split.SEARCH,):
            store.ask(lease, candidate, split, 0.0)
            outcome = worker.evaluate(Job(candidate.number, split, resolved.recipe(candidate)))
            assert isinstance(outcome, Scored), outcome
            store.tell(lease, candidate.number, split, outcome, 0.0)
    store.set_facts(lease, {"chosen": candidates[-1].number})
    return Small(root / "small.yaml", resolved, store, read_stored(store, name))


def new_process(script: str, *arguments: str, cwd: Path) -> str:
    """What a script prints in a new Python process, with this test's import paths."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cwd, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
