"""TensorBoard: an event file in a folder for each study; `tensorboard --logdir FOLDER` shows them together.

Written with TensorBoard's own record format, without torch. One event holds all figures of an evaluation, so that a
crash leaves none half-written.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, final

from mergesearch.observe.sinks.base import Heading, Point
from mergesearch.plugins import PluginOptions

FILES = "events.out.tfevents.*"


class TensorBoardOptions(PluginOptions):
    """TensorBoard needs none: its folder is --sink-dir's `tensorboard`."""


@final
class TensorBoard:
    """Sink; see `mergesearch.observe.sinks.base` for the contract."""

    PACKAGE: ClassVar[str] = "tensorboard"
    Options: ClassVar[type[PluginOptions]] = TensorBoardOptions

    def __init__(self, options: PluginOptions, folder: Path, heading: Heading) -> None:  # noqa: ARG002
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        place = folder / heading.label
        place.mkdir(parents=True, exist_ok=True)
        files = sorted(place.glob(FILES))
        self._event = Event
        self._last = max((step for file in files for step in _steps(file)), default=0)
        # TensorBoard reads a folder's files in the order of their names.
        number = len(files) + 1
        self._file = open(place / f"events.out.tfevents.{int(time.time()):010d}.{number:04d}", "xb")  # noqa: SIM115
        self._writer = RecordWriter(self._file)
        self._put(Event(wall_time=time.time(), file_version="brain.Event:2"))
        if not files:
            config = "".join(f"| {key} | {value} |\n" for key, value in heading.config.items())
            self._text("config", f"| | |\n|-|-|\n{config}\n```yaml\n{heading.spec}\n```", 0)
        self._file.flush()

    @property
    def last(self) -> int:
        return self._last

    def write(self, points: Sequence[Point]) -> None:
        for point in points:
            event = self._event(wall_time=point.time, step=point.step)
            for name, value in point.values.items():
                event.summary.value.add(tag=name, simple_value=value)
            if point.failure:
                self._add_text(event, "failure", point.failure)
            self._put(event)
            self._last = point.step
        self._file.flush()

    def close(self, status: str, summary: Mapping[str, str | float]) -> None:
        rows = "".join(f"| {key} | {value} |\n" for key, value in summary.items())
        self._text("ended", f"| | |\n|-|-|\n| status | {status} |\n{rows}", self._last)
        self._file.close()

    def _put(self, event: Any) -> None:
        self._writer.write(event.SerializeToString())

    def _text(self, tag: str, text: str, step: int) -> None:
        event = self._event(wall_time=time.time(), step=step)
        self._add_text(event, tag, text)
        self._put(event)

    def _add_text(self, event: Any, tag: str, text: str) -> None:
        from tensorboard.plugins.text.metadata import create_summary_metadata
        from tensorboard.util.tensor_util import make_tensor_proto

        event.summary.value.add(
            tag=tag,
            metadata=create_summary_metadata(display_name=None, description=""),
            tensor=make_tensor_proto([text.encode()]),
        )


def _steps(file: Path) -> Iterator[int]:
    """Steps in an event file, up to its end or where a crash cut it off."""
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event

    for record in RawEventFileLoader(str(file)).Load():
        yield Event.FromString(record).step
