"""Whether a controller still lives is told from its process alone."""

import os
import subprocess
import sys

from mergesearch.controller.owner import is_dead, owner_name


def changed(owner: str, part: int, value: str) -> str:
    """An owner's name with one of its four parts replaced."""
    parts = owner.rsplit(":", 3)
    parts[part] = value
    return ":".join(parts)


def test_a_process_that_lives_is_not_dead() -> None:
    """Its own name, told twice, tells that it lives."""
    assert not is_dead(owner_name())
    assert owner_name() != owner_name()


def test_a_process_that_has_ended_is_dead() -> None:
    """Another process's name, once it has ended; and a number that another process has since."""
    code = "from mergesearch.controller.owner import owner_name; print(owner_name())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert is_dead(done.stdout.strip())
    mine = owner_name()
    start = mine.rsplit(":", 3)[2]
    assert is_dead(changed(mine, 2, "1" + start))


def test_of_another_machine_boot_or_container_nobody_can_say() -> None:
    """A number of a process means nothing there, even where the machines share a name."""
    mine = owner_name()
    ticks, boot, namespace = mine.rsplit(":", 3)[2].split("-")
    gone = changed(mine, 1, "4194303")
    assert is_dead(gone)
    for elsewhere in (f"{ticks}-00000000-{namespace}", f"{ticks}-{boot}-1", ticks, "1763800000.12"):
        assert not is_dead(changed(gone, 2, elsewhere))
    assert not is_dead(changed(gone, 0, "another-host"))
    assert not is_dead(f"no owner {os.getpid()}")
