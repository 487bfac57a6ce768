"""SQLite on a network file system is refused.

A real network mount cannot be had where these tests run, so they read the texts that Linux shows for such mounts.
"""

from pathlib import Path

import pytest

from mergesearch.errors import StoreError
from mergesearch.store import network
from mergesearch.store.network import mounts, network_kind
from mergesearch.store.open import open_store

MOUNTS = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
40 27 0:50 / /home rw,relatime shared:1 master:2 - nfs4 server:/home rw,vers=4.2,addr=10.0.0.1
41 40 8:1 / /home/me/scratch rw - xfs /dev/sdb1 rw
42 27 0:51 / /mnt/my\\040share rw - cifs //server/share rw
43 27 0:52 / /data rw - ext4 /dev/sdc rw
44 43 0:53 / /data rw - lustre mgs@tcp:/data rw
45 27 0:54 / /mnt/ssh rw - fuse.sshfs me@host: rw
46 27 0:55 / /media/usb rw - fuseblk /dev/sdd1 rw
this line is none
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/tmp/study.db", None),
        ("/home/me/runs/study.db", "nfs4"),
        ("/homework/study.db", None),
        ("/home/me/scratch/study.db", None),
        ("/home/me/scratchy/study.db", "nfs4"),
        ("/home/me/scratch/../study.db", "nfs4"),
        ("/mnt/my share/study.db", "cifs"),
        ("/data/study.db", "lustre"),
        ("/mnt/ssh/a/b/study.db", "fuse.sshfs"),
        ("/media/usb/study.db", None),
    ],
)
def test_the_mount_that_holds_a_path_decides(path: str, kind: str | None) -> None:
    """The longest mount point that leads to the path, the last of those on one point, tells the file system."""
    assert network_kind(Path(path), MOUNTS) == kind


def test_a_link_to_a_network_is_seen_through(tmp_path: Path) -> None:
    """Symbolic links are followed before the mounts are looked at."""
    (tmp_path / "runs").symlink_to("/home/me")
    assert network_kind(tmp_path / "runs" / "study.db", MOUNTS) == "nfs4"


def test_this_machines_mounts_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What this machine shows is understood; a system that shows nothing refuses nothing."""
    assert network_kind(tmp_path / "study.db", mounts()) is None
    monkeypatch.setattr(network, "MOUNTS", tmp_path / "missing")
    assert network_kind(Path("/home/study.db"), mounts()) is None


@pytest.mark.parametrize("query", ["", "?mode=ro"])
def test_a_store_on_a_network_is_refused_with_the_reason(
    query: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sentence: where, what kind, why, and the two ways out; nothing is made there."""
    (tmp_path / "mountinfo").write_text(f"27 1 0:50 / {tmp_path} rw - nfs server:/ rw\n")
    monkeypatch.setattr(network, "MOUNTS", tmp_path / "mountinfo")
    with pytest.raises(StoreError) as error:
        open_store(f"sqlite:///{tmp_path}/new/study.db{query}")
    for part in (f"{tmp_path}/new/study.db", "(nfs)", "locks", "local disk", "postgresql://user@host"):
        assert part in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "new").exists()
