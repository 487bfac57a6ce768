"""Two machines, that is two network namespaces, and the link between them cut."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from chaos.child import Script
from chaos.harness import assert_whole, create, goes_on, hurry, quietly_kill, scorings, until
from chaos.nursery import Nursery
from chaos.ray_nodes import QUICK, Cluster, actors, cluster

pytestmark = [pytest.mark.chaos, pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(240)]

HERE, THERE = "10.213.77.1", "10.213.77.2"
NAME = "chaos-there"
NEAR, FAR = "chaos-near", "chaos-far"


def ip(*arguments: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
    """Run `ip`."""
    return subprocess.run(["ip", *arguments], check=check, capture_output=True, text=True)


@dataclass(frozen=True)
class Link:
    """The link between this machine and the other."""

    def cut(self) -> None:
        """Nothing comes through, and nobody is told."""
        ip("link", "set", NEAR, "down")

    def mend(self) -> None:
        """It comes through again."""
        ip("link", "set", NEAR, "up")


@contextmanager
def linked() -> Iterator[Link]:
    """A namespace with a link to it; both gone afterwards."""
    clean_up()
    try:
        ip("netns", "add", NAME)
        ip("link", "add", NEAR, "type", "veth", "peer", "name", FAR, "netns", NAME)
        ip("addr", "add", f"{HERE}/24", "dev", NEAR)
        ip("link", "set", NEAR, "up")
        for command in (
            ("addr", "add", f"{THERE}/24", "dev", FAR),
            ("link", "set", FAR, "up"),
            ("link", "set", "lo", "up"),
        ):
            ip("-n", NAME, *command)
        yield Link()
    finally:
        clean_up()


def clean_up() -> None:
    """Remove what a killed test has left."""
    ip("link", "del", NEAR, check=False)
    ip("netns", "del", NAME, check=False)


@pytest.fixture
def two_machines() -> Iterator[tuple[Cluster, Link]]:
    """A head here and a node there, one core each."""
    try:
        with linked():
            pass
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", "") or str(error)
        pytest.skip(f"this machine allows no network namespaces ({said.strip()}): needs root and `ip netns`")
    with linked() as link, cluster(1, HERE) as made:
        made.add(1, THERE, ("ip", "netns", "exec", NAME))
        yield made, link


def test_a_link_that_is_cut_and_mended(two_machines: tuple[Cluster, Link], tmp_path: Path, nursery: Nursery) -> None:
    """Cut for a moment, and for longer than Ray waits for a node: what was lost runs elsewhere, each evaluation is
    told once, a result that comes late does no harm, and the study ends by itself."""
    made, link = two_machines
    script = create(
        Script(
            f"sqlite:///{tmp_path}/s.db",
            str(tmp_path / "marks"),
            strategy="random",
            pool={"pool": "ray", "address": made.address, "workers": "auto"},
            environment=QUICK,
            cluster=made.folder,
            seconds=0.3,
            budget=200.0,
            failures=3,
        )
    )
    pid = nursery.start(script)
    try:
        until("both machines work", lambda: len(actors(made.folder)) == 2 and scorings(script) >= 8, 90)
        there = {one.pid for one in made.nodes[1].family()}
        assert there & set(actors(made.folder))
        link.cut()
        cut = time.monotonic()
        until("a moment", lambda: time.monotonic() - cut > 1.5, 10)
        link.mend()
        goes_on(script, 6)
        link.cut()
        cut = time.monotonic()
        until("the node is given up", lambda: time.monotonic() - cut > 8.0, 20)
        goes_on(script, 3)
        link.mend()
        goes_on(script, 3)
        hurry(script)
        ended = nursery.wait(pid, 90)
        assert ended is not None
        assert ended.code == 0, ended.said
    finally:
        quietly_kill(pid)
    found = assert_whole(script)
    assert found.failed == 0
    assert scorings(script) <= len(found.outcomes) + 4
    scored_by = {int(line) for line in Path(script.marks).read_text().split()}
    assert scored_by & there, "the other machine scored nothing"
