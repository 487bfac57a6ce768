"""The database's clock decides: machines whose clocks are hours apart agree on who holds a study."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from contracts.store import SEARCH, point, url_of

from mergesearch.errors import LeaseError
from mergesearch.store.open import open_store
from mergesearch.types import Candidate

# A process whose clock is wrong by as much as its argument says.
OWNER = """
import datetime, sys, time
shift, real = float(sys.argv[2]), time.time
time.time = lambda: real() + shift
from mergesearch.errors import LeaseError
from mergesearch.store.open import open_store
store = open_store(sys.argv[1])
for line in sys.stdin:
    word, owner = line.split()
    try:
        if word == "acquire":
            lease = store.acquire("digits", owner, 60.0)
        elif word == "renew":
            lease = store.renew(lease, 60.0)
        elif word == "pass":
            lease = store.renew(lease, 0.0)
        print(lease.until, flush=True)
    except LeaseError as error:
        print("refused", error, flush=True)
"""


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new store of each kind that several processes can share."""
    return url_of(request.param, tmp_path, request)


def test_two_owners_whose_clocks_are_hours_apart(url: str) -> None:
    """Whoever is hours ahead does not take a lease that runs, whoever is behind does not keep one that ran out, and
    times in the log go forward."""
    store = open_store(url)
    store.create("digits", "", "")
    owners = {
        name: subprocess.Popen(
            [sys.executable, "-c", OWNER, url, shift], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for name, shift in (("ahead", "10800"), ("behind", "-10800"))
    }

    def say(word: str, owner: str) -> str:
        process = owners[owner]
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{word} {owner}\n")
        process.stdin.flush()
        return process.stdout.readline().strip()

    try:
        for first, second in (("ahead", "behind"), ("behind", "ahead")):
            assert float(say("acquire", first)) == pytest.approx(time.time() + 60.0, abs=5.0)
            refused = say("acquire", second)
            assert refused.startswith(f"refused study 'digits' is being run by {first} until ")
            assert any(f"({left} s from now)" in refused for left in range(55, 61))
            assert float(say("renew", first)) == pytest.approx(time.time() + 60.0, abs=5.0)
            assert say("acquire", second).startswith("refused")
            say("pass", first)  # its lease ends now
            assert float(say("acquire", second)) == pytest.approx(time.time() + 60.0, abs=5.0)
            say("pass", second)
    finally:
        for process in owners.values():
            process.communicate()
    assert store.study("digits").seconds < 60.0
    store.close()


def test_this_process_may_have_any_clock(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of this machine's clock changes nothing that the store keeps."""
    store = open_store(url)
    store.create("digits", "", "")
    lease = store.acquire("digits", "host:1", 60.0)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    store.ask(lease, Candidate(0, point(0)), SEARCH)
    assert store.renew(lease, 60.0).until >= lease.until
    with pytest.raises(LeaseError):
        store.remove("digits")
    monkeypatch.setattr(time, "time", lambda: 1e11)
    with pytest.raises(LeaseError):
        store.acquire("digits", "host:2", 60.0)
    assert store.study("digits").seconds < 60.0
    store.close()
