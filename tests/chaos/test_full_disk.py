"""A full disk: one sentence, exit 4, what was told stays; with space again the study goes on to the same end."""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from chaos.child import Script
from chaos.harness import assert_only_grew, assert_whole, calm, create, picture, quietly_kill, until
from chaos.nursery import Ended, Nursery
from chaos.small_disk import SmallDisk, small_disk
from postgres import Server

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]

FILLS = 4


def run_until_full(nursery: Nursery, script: Script, fill: Callable[[], None], before: int) -> Ended:
    """Fill the disk when the study has told something new; how its controller ends."""
    pid = nursery.start(script)
    try:
        until("something new is told", lambda: len(picture(script)) > before + 6, 30)
        fill()
        ended = nursery.wait(pid, 60)
        assert ended is not None, "the controller did not notice that the disk is full"
        return ended
    finally:
        quietly_kill(pid)


def fill_and_free(nursery: Nursery, script: Script, disk: SmallDisk, leave: int) -> list[object]:
    """Fill and free the disk some times over; the log so far."""
    log: list[object] = picture(script)
    for _ in range(FILLS):
        ended = run_until_full(nursery, script, lambda: disk.fill(leave), len(log))
        assert ended.code == 4, ended
        errors = [line for line in ended.said.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, ended.said
        assert "full" in errors[0]
        assert "nothing that was recorded is lost" in errors[0]
        disk.empty()
        log = assert_only_grew(log, script)  # type: ignore[arg-type]
    return log


def test_a_full_disk_below_sqlite(tmp_path: Path, nursery: Nursery, calm_nursery: Nursery) -> None:
    """Four times over, wherever in a write the space ends."""
    with small_disk(tmp_path / "disk", 8 * 2**20) as disk:
        script = create(Script(f"sqlite:///{disk.folder}/s.db", budget=400.0, strategy="random", dim=64))
        log = fill_and_free(nursery, script, disk, 0)
        assert nursery.run(script).code == 0
        assert_whole(script)
        log = assert_only_grew(log, script)  # type: ignore[arg-type]
        assert log == calm(calm_nursery, script, url=f"sqlite:///{tmp_path}/calm.db")


def test_a_sqlite_file_at_its_limit(tmp_path: Path, nursery: Nursery, calm_nursery: Nursery) -> None:
    """`max_pages` limits the file as a quota does, without root; a resume with a higher limit goes on."""
    script = create(Script(f"sqlite:///{tmp_path}/s.db", budget=120.0, strategy="random", dim=64))
    log = picture(script)
    pages = (tmp_path / "s.db").stat().st_size // 4096
    for _ in range(3):
        pages += 7
        ended = nursery.run(replace(script, url=f"{script.url}?max_pages={pages}"))
        assert ended.code == 4, ended
        assert f"its limit of {pages} pages is reached" in ended.said
        assert ended.said.count("\n") == 1, ended.said
        log = assert_only_grew(log, script)
    assert nursery.run(script).code == 0
    assert_whole(script)
    assert assert_only_grew(log, script) == calm(calm_nursery, script, url=f"sqlite:///{tmp_path}/calm.db")


@pytest.fixture
def served_disk(postgres: Server) -> Iterator[tuple[SmallDisk, str]]:
    """A small disk with a database on it, and the database's URL."""
    # Not below pytest's own folder, which it closes to the server's user.
    with tempfile.TemporaryDirectory(prefix="ms-disk-") as place:
        Path(place).chmod(0o755)
        with small_disk(Path(place, "disk"), 24 * 2**20, "postgres") as disk:
            yield from database_on(disk, postgres)


def database_on(disk: SmallDisk, postgres: Server) -> Iterator[tuple[SmallDisk, str]]:
    """A database on that disk, dropped afterwards."""
    name = postgres.new_database()
    with postgres.admin() as connection:
        connection.execute(f"CREATE TABLESPACE small LOCATION '{disk.folder}'")
        connection.execute(f"ALTER DATABASE {name} SET TABLESPACE small")
    try:
        yield disk, postgres.url(name)
    finally:
        disk.empty()
        with postgres.admin() as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
            connection.execute("DROP TABLESPACE small")


@pytest.mark.postgres
def test_a_full_disk_below_postgresql(
    served_disk: tuple[SmallDisk, str], tmp_path: Path, nursery: Nursery, calm_nursery: Nursery
) -> None:
    """Four times over; the server lives on, and says in one sentence what the matter is."""
    disk, url = served_disk
    script = create(Script(url, budget=300.0, strategy="random", dim=64))
    log = fill_and_free(nursery, script, disk, 0)
    assert nursery.run(script).code == 0
    assert_whole(script)
    log = assert_only_grew(log, script)  # type: ignore[arg-type]
    assert log == calm(calm_nursery, script, url=f"sqlite:///{tmp_path}/calm.db")
