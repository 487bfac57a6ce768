"""Weights & Biases: a run for each study, kept in a folder (`wandb sync` sends it later), or sent with mode=online.

Offline, nothing tries the network. A resumed study continues under the run's id: `wandb sync` joins its parts.
"""

import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, final

from pydantic import Field

from mergesearch.observe.sinks.base import Heading, Point
from mergesearch.plugins import PluginOptions

HEADER_BYTES, BLOCK_BYTES = 7, 32768  # of the log that LevelDB made known: crc32, length, kind; then the file's blocks
FULL, FIRST, LAST = 1, 2, 4


class WandbOptions(PluginOptions):
    """Where the runs go."""

    project: str = Field("mergesearch", description="the project that holds the runs")
    mode: Literal["offline", "online"] = Field("offline", description="online sends everything to W&B's servers")
    entity: str | None = Field(None, description="the user or team that owns the project, with mode=online")


@final
class Wandb:
    """Sink; see `mergesearch.observe.sinks.base` for the contract."""

    PACKAGE: ClassVar[str] = "wandb"
    Options: ClassVar[type[PluginOptions]] = WandbOptions

    def __init__(self, options: PluginOptions, folder: Path, heading: Heading) -> None:
        assert isinstance(options, WandbOptions)
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # read when its service starts
        import wandb

        folder.mkdir(parents=True, exist_ok=True)
        name = heading.key[:16]
        self._last = max(_steps(folder, name), default=0)
        self._wandb: Any = wandb
        self._run: Any = wandb.init(
            project=options.project,
            entity=options.entity,
            id=name,
            name=heading.name,
            dir=str(folder),
            mode=options.mode,
            resume="allow" if options.mode == "online" else None,
            config={**heading.config, "study.yaml": heading.spec},
            reinit="create_new",
            settings=wandb.Settings(
                silent=True,
                console="off",
                disable_git=True,
                disable_code=True,
                disable_job_creation=True,
                x_disable_meta=True,
                x_disable_stats=True,
                x_disable_machine_info=True,
                x_save_requirements=False,
            ),
        )
        if options.mode == "online":
            self._last = max(self._last, self._run.step - 1)

    @property
    def last(self) -> int:
        return self._last

    def write(self, points: Sequence[Point]) -> None:
        for point in points:
            failure = {"failure": point.failure} if point.failure else {}
            self._run.log({**point.values, **failure}, step=point.step)
            self._last = point.step

    def close(self, status: str, summary: Mapping[str, str | float]) -> None:
        try:
            self._run.summary.update({"status": status, **summary})
            self._run.finish(0 if status == "done" else 1)
        finally:
            self._wandb.teardown()  # ends its service process


def _steps(folder: Path, name: str) -> Iterator[int]:
    """The steps that a run's earlier files hold."""
    from wandb.proto.wandb_internal_pb2 import Record

    for file in sorted(folder.glob(f"wandb/*/run-{name}.wandb")):
        for data in records(file.read_bytes()):
            record = Record.FromString(data)
            if record.WhichOneof("record_type") == "history":
                yield record.history.step.num


def records(data: bytes) -> Iterator[bytes]:
    """The records of a .wandb file's bytes, up to its end or where a crash cut it off.

    A file of LevelDB's log format, in blocks of 32 KiB; its first block begins with W&B's own header of 7 bytes.
    """
    at, parts = HEADER_BYTES, b""
    while at + HEADER_BYTES <= len(data):
        left = BLOCK_BYTES - at % BLOCK_BYTES
        if left < HEADER_BYTES:  # no header fits: the block's rest is empty
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        begin, at = at + HEADER_BYTES, at + HEADER_BYTES + length
        if kind not in (1, 2, 3, 4) or at > len(data):
            return
        parts = data[begin:at] if kind in (FULL, FIRST) else parts + data[begin:at]
        if kind in (FULL, LAST):
            yield parts
