"""Whether a path lies on a network file system, where SQLite's locks and shared memory do not hold."""

import re
from pathlib import Path
from typing import Final

KINDS: Final = frozenset({
    "nfs", "nfs4", "cifs", "smb", "smb2", "smb3", "smbfs", "ncpfs", "afs", "coda", "lustre", "gpfs", "beegfs", "ceph",
    "gfs", "gfs2", "ocfs2", "orangefs", "pvfs2", "panfs", "glusterfs", "9p", "fuse.sshfs", "fuse.glusterfs",
    "fuse.ceph", "fuse.ceph-fuse", "fuse.nfs", "fuse.smbnetfs", "fuse.s3fs", "fuse.gcsfuse", "fuse.rclone",
    "fuse.goofys", "fuse.mount-s3", "fuse.blobfuse2", "fuse.juicefs", "fuse.JuiceFS", "fuse.mfs", "fuse.moosefs",
    "fuse.curlftpfs", "fuse.davfs", "fuse.hdfs", "fuse.seaweedfs",
})  # fmt: skip
MOUNTS: Final = Path("/proc/self/mountinfo")


def mounts() -> str:
    """The mounts that this process sees, as Linux writes them; '' on other systems, where nothing is known."""
    try:
        return MOUNTS.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""


def network_kind(path: Path, mountinfo: str) -> str | None:
    """The kind of network file system that `path` lies on, by the text of /proc/self/mountinfo; None if on none.

    Symbolic links are followed; the path need not exist. Of mounts on one point the last one covers the others.
    """
    place = path.resolve()
    best, kind = -1, ""
    for line in mountinfo.splitlines():
        head, separator, tail = line.partition(" - ")
        fields = head.split(" ")
        if not separator or len(fields) < 5 or not tail:
            continue
        point = Path(re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), fields[4]))
        if place.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), tail.split(" ")[0]
    return kind if kind in KINDS else None
