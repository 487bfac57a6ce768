"""Studies that are scored outside, for tests: a controller in a process of its own, and scorers."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TypeVar

from mergesearch.store.base import StudyStore

T = TypeVar("T")
ROOT = Path(__file__).parents[2]
STUDY = """\
name: outside
axes:
  temperature: {{low: 0.01, high: 10.0, scale: log, init: 1.0}}
  depth: {{low: 1, high: 12, kind: whole}}
objectives:
  - {{name: accuracy, direction: max, low: 0.0, high: 1.0}}
  - {{name: seconds, direction: min}}
strategy: {{kind: random, seed: 0}}
budget: {{evaluations: {evaluations}}}
"""
PROFILE = "pool: external\noffers: 4\nlease_seconds: {lease}\n"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def until(true: Callable[[], T], seconds: float = 60.0) -> T:
    """What `true` gives once it is true."""
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.02)
    return found


def documented(language: str) -> str:
    """The first example of docs/external.md in a language."""
    text = (ROOT / "docs" / "external.md").read_text(encoding="utf-8")
    return str(re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)[0])


def files(folder: Path, evaluations: int = 20, lease: float = 60.0) -> None:
    """The study file and the workers profile."""
    (folder / "study.yaml").write_text(STUDY.format(evaluations=evaluations))
    (folder / "external.yaml").write_text(PROFILE.format(lease=lease))


@contextmanager
def process(*command: str, folder: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is gone at the end, whatever happens."""
    started = subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    try:
        yield started
    finally:
        if started.poll() is None:
            started.kill()
        started.wait()


# What `mergesearch launch` and `resume` do with a study without models, without the time that importing torch takes.
CONTROLLER = """\
import sys
from pathlib import Path
from mergesearch.controller.black_box import launch_black_box, resume_black_box, stored_black_box
from mergesearch.pool.profile import load_profile
from mergesearch.store.open import open_store
from mergesearch.study.outside import parse_outside
from mergesearch.study.text import Source
store, workers = open_store(sys.argv[2]), load_profile(Path("external.yaml"))
if sys.argv[1] == "launch":
    source = Source("study.yaml", Path("study.yaml").read_text(), Path.cwd())
    launch_black_box(parse_outside(source), source, store, workers)
else:
    resume_black_box(stored_black_box(store, "outside"), store, workers)
sys.exit("torch was imported" if "torch" in sys.modules else 0)
"""


def controller(folder: Path, store: str, what: str = "launch") -> AbstractContextManager[subprocess.Popen[bytes]]:
    """A controller of the study in a process of its own: 'launch' or 'resume'."""
    return process(sys.executable, "-c", CONTROLLER, what, store, folder=folder)


def launched(folder: Path, store: str) -> AbstractContextManager[subprocess.Popen[bytes]]:
    """The same by the command line."""
    words = ("launch", "study.yaml", "--workers", "external.yaml", "--store", store)
    return process(sys.executable, "-m", "mergesearch", *words, folder=folder)


def offered(store: StudyStore, name: str = "outside") -> bool:
    """Whether the study is there and has something to do."""
    return any(record.name == name for record in store.studies()) and store.offers.free(name)
