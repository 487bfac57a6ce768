"""Who launched a study is kept with it."""

import getpass
import socket

import pytest

from mergesearch.controller.owner import person


def test_a_user_without_a_name_is_known_by_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """In some containers no user has a name: a study is launched all the same."""
    assert person().endswith(f"@{socket.gethostname()}")

    def nameless() -> str:
        raise OSError("No username set in the environment")

    monkeypatch.setattr(getpass, "getuser", nameless)
    assert person() == socket.gethostname()
