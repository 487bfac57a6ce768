"""Saved stores, one per schema version: `store_v1.sql` and so on, texts that SQLite can read in.

Each was written by the version itself, with `python tests/upgrade/saved.py`; a file, once committed, never changes. A
change of the schema adds a file and, where old rows read differently, what that version should now read as.
"""

import sqlite3
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mergesearch.store.base import Artifact, StudyStore
from mergesearch.store.open import open_store
from mergesearch.store.schema import SCHEMA_VERSION
from mergesearch.types import Candidate, Failed, Request, Score, Scored, Split, Status, Timing

FOLDER = Path(__file__).parent


def fill_v1(store: StudyStore) -> None:
    """The studies that `store_v1.sql` holds. Never change this: the saved file would no longer match."""
    store.create("empty", "", "d0", 1000.0)
    store.create("digits-3", "name: digits-3\nstrategy: {kind: cma_es}\n# größer", "d1", 1001.0)
    lease = store.acquire("digits-3", "old-host:1", 60.0, 1002.0)
    store.set_status(lease, Status.RUNNING, "", 1002.5)
    store.ask(lease, Candidate(0, None, "baseline:average"), Split.SEARCH, 1003.0)
    store.ask(lease, Candidate(1, np.array([0.0, 1 / 3, 1.0]), "start"), Split.SEARCH, 1004.0)
    own = {"mnist": Score(0.75, 0.125, 8), "cost": Score(-0.1)}
    metrics = {"mnist": {"accuracy": own["mnist"], "loss": Score(2.5, 0.0, 8)}}
    examples = {"mnist": np.array([1, 1, 0, 1, 1, 0, 1, 1], dtype=np.float32)}
    store.tell(
        lease, 1, Split.SEARCH, Scored(own, metrics, examples, timing=Timing(0.5, 0.25, 2.0), worker="gpu-1"), 1005.0
    )
    store.tell(lease, 0, Split.SEARCH, Failed("ValueError", "label 'ü' is unknown", Timing(), "gpu-2"), 1006.0)
    store.ask(lease, Candidate(1, np.array([0.0, 1 / 3, 1.0])), Split.CONFIRM, 1007.0)
    lease = store.renew(lease, 60.0, 1008.0)
    store.set_facts(lease, {"chosen": 1, "r2": {"mnist": 0.5}})
    store.finish_command(lease, store.command("digits-3", "pause", 1009.0), 1010.0)
    store.command("digits-3", "cancel", 1011.0)
    store.add_artifact("digits-3", Artifact(1, "export", "out/merged", "ab" * 32, 1012.0))


def fill_v2(store: StudyStore) -> None:
    """The studies that `store_v2.sql` holds: those of before, and one with requests and gradients. Never change it."""
    fill_v1(store)
    store.create("windows", "", "d2", 1020.0)
    lease = store.acquire("windows", "old-host:2", 60.0, 1021.0)
    point = np.array([0.25, 1 / 3])
    store.ask(lease, Candidate(0, point, "start", Request(gradient="loss"), 3.0), Split.SEARCH, 1022.0)
    store.ask(lease, Candidate(1, point, "race", Request(0.25), 0.25), Split.SEARCH, 1023.0)
    own = {"mnist": Score(0.5, 0.125, 8), "cost": Score(0.25)}
    metrics = {"mnist": {"accuracy": own["mnist"], "loss": Score(1.5, 0.25, 8)}}
    gradients = {"mnist": np.array([1 / 3, -5e-324]), "cost": np.array([np.nan, -np.inf])}
    store.tell(lease, 0, Split.SEARCH, Scored(own, metrics, {}, gradients), 1024.0)
    store.tell(lease, 1, Split.SEARCH, Scored(own), 1025.0)
    store.ask(lease, Candidate(2, point, "race", Request(0.75, 0.25, continues=1), 0.75), Split.SEARCH, 1026.0)


def fill_v3(store: StudyStore) -> None:
    """The studies that `store_v3.sql` holds: those of before, and one with all timings, digests, repeats. Never change
    it."""
    fill_v2(store)
    store.create("cached", "", "d3", 1030.0)
    lease = store.acquire("cached", "old-host:3", 60.0, 1031.0)
    for number in range(2):
        store.ask(lease, Candidate(number, np.array([0.5, number / 3])), Split.SEARCH, 1032.0)
    own = {"mnist": Score(0.5, 0.125, 8), "cost": Score(0.25)}
    metrics = {"mnist": {"accuracy": own["mnist"], "loss": Score(1.5, 0.25, 8)}}
    examples = {"mnist": np.array([0, 1, 0, 1], dtype=np.float32)}
    outcome = Scored(own, metrics, examples, {}, Timing(0.5, 0.25, 2.0, 0.125, 4.5), "gpu-1")
    store.tell(lease, 0, Split.SEARCH, outcome, 1033.0, {"mnist": "ab" * 32, "cost": "cd" * 32})
    store.tell(lease, 1, Split.SEARCH, Failed("timeout", "too slow"), 1034.0, {"mnist": "ef" * 32})
    late = Scored({"mnist": Score(0.625, 0.125, 8), "cost": Score(0.25)}, worker="gpu-2")
    store.tell(lease, 0, Split.SEARCH, late, 1035.0)
    store.tell(lease, 0, Split.SEARCH, Failed("worker_lost", "gone"), 1036.0)
    store.tell(lease, 1, Split.SEARCH, late, 1037.0)


def fill_v4(store: StudyStore) -> None:
    """The studies that `store_v4.sql` holds: those of before, and one that is scored outside. Never change it."""
    fill_v3(store)
    store.create("outside", "", "d4", 1040.0)
    lease = store.acquire("outside", "old-host:4", 60.0, 1041.0)
    for number in range(4):
        store.ask(lease, Candidate(number, np.array([number / 3])), Split.SEARCH, 1042.0)
        store.offers.put("outside", number, Split.SEARCH, f'{{"values": [{number}]}}', f"key{number}", 1043.0)
    token = store.offers.lease("outside", "größe", 2, 5.0, 1044.0)[0].token
    own = {"mnist": Score(0.5, 0.125, 8), "cost": Score(-1 / 3)}
    metrics = {"mnist": {"accuracy": own["mnist"], "loss": Score(1.5, 0.25, 8)}}
    examples = {"mnist": np.array([0, 1, 1 / 3], dtype=np.float32)}
    gradients = {"cost": np.array([1 / 3])}
    outcome = Scored(own, metrics, examples, gradients, Timing(score=2.5), "größe")
    store.offers.tell("outside", 0, Split.SEARCH, token, outcome, 1045.0)
    store.offers.lease("outside", "second", 1, 60.0, 1050.0)
    store.offers.tell("outside", 0, Split.SEARCH, token, Failed("OSError", "no file"), 1051.0)


FILLS: dict[int, Callable[[StudyStore], None]] = {1: fill_v1, 2: fill_v2, 3: fill_v3, 4: fill_v4}


def save(target: Path) -> None:
    """Write a store of the present schema as SQL text."""
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(f"sqlite:///{folder}/study.db")
        FILLS[SCHEMA_VERSION](store)
        store.close()
        connection = sqlite3.connect(f"{folder}/study.db")
        target.write_text("\n".join(connection.iterdump()) + "\n", encoding="utf-8")
        connection.close()


if __name__ == "__main__":
    wanted = FOLDER / f"store_v{SCHEMA_VERSION}.sql"
    if wanted.exists():
        sys.exit(f"{wanted} is there already, and saved stores never change")
    save(wanted)
