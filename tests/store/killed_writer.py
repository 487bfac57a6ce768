"""Run by test_store_kill.py: for each line read, forks a writer that asks and tells until it is killed.

Forking spares each writer the imports, so that twenty kills take seconds. A writer says on stdout what the store had
acknowledged, one line at a time, straight to the pipe.
"""

import os
import sys

from contracts.store import point, scored

from mergesearch.store.open import open_store
from mergesearch.types import Asked, Candidate, Split


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())


def write_until_killed(url: str, now: float) -> None:
    """Take over the study, tell what a killed writer left untold, then ask and tell new candidates for ever."""
    store = open_store(url)
    lease = store.acquire("digits", f"writer:{os.getpid()}", 60.0, now)
    open_asks = set()
    for event in store.events("digits"):
        (open_asks.add if isinstance(event, Asked) else open_asks.discard)(event.candidate.number)
    number = max((event.candidate.number for event in store.events("digits")), default=-1) + 1
    for left in sorted(open_asks):
        store.tell(lease, left, Split.SEARCH, scored(left), now)
        say(f"told {left}")
    while True:
        store.ask(lease, Candidate(number, point(number)), Split.SEARCH, now)
        say(f"asked {number}")
        store.tell(lease, number, Split.SEARCH, scored(number), now)
        say(f"told {number}")
        number += 1


for round_number, _ in enumerate(sys.stdin, start=1):
    child = os.fork()
    if child == 0:
        write_until_killed(sys.argv[1], 1000.0 * round_number)
    say(f"pid {child}")
    _, status = os.waitpid(child, 0)
    say(f"dead {os.waitstatus_to_exitcode(status)}")
