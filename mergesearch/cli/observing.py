"""The log and the metrics of launch and resume: their options, and who observes the study."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from mergesearch.cli.common import Named
from mergesearch.controller.observer import Observer
from mergesearch.errors import StoreError
from mergesearch.store.base import StudyRecord


class LogFormat(StrEnum):
    """How a line of the log is written."""

    TEXT = "text"
    JSON = "json"


class LogLevel(StrEnum):
    """What is worth a line: 'info' is a line per evaluation, 'warning' failures and repeats."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


LogFormatOption: TypeAlias = Annotated[
    LogFormat | None,
    typer.Option("--log-format", help="Log a line per evaluation, as text or as JSON.", show_default=False),
]
LogFileOption: TypeAlias = Annotated[
    Path | None, typer.Option("--log-file", help="Log to this file [default: stderr].", show_default=False)
]
LogLevelOption: TypeAlias = Annotated[
    LogLevel | None,
    typer.Option("--log-level", help="[default: info with another --log option, else warning]", show_default=False),
]
MetricsPortOption: TypeAlias = Annotated[
    int | None,
    typer.Option("--metrics-port", help="Serve Prometheus metrics on this port.", show_default=False, min=0, max=65535),
]
MetricsHostOption: TypeAlias = Annotated[
    str, typer.Option("--metrics-host", help="Address that the metrics are served on; 0.0.0.0 for all.")
]
SinkOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--sink",
        metavar="KIND[:OPTION=VALUE,...]",
        help="Also write to wandb, mlflow or tensorboard; may be given several times. Options: mergesearch list sinks.",
        show_default=False,
    ),
]
SinkDirOption: TypeAlias = Annotated[
    Path, typer.Option("--sink-dir", help="Folder for what sinks write, a subfolder for each kind.")
]
LOOPBACK = "127.0.0.1"
SINK_DIR = Path("runs/sinks")


@dataclass(frozen=True)
class Observing:
    """What the options say. Without a --log option only warnings are logged."""

    log_format: LogFormat | None = None
    log_file: Path | None = None
    log_level: LogLevel | None = None
    metrics_port: int | None = None
    metrics_host: str = LOOPBACK
    sinks: tuple[str, ...] = ()
    sink_dir: Path = SINK_DIR

    @property
    def asked(self) -> bool:
        """Whether a log was asked for."""
        return any(option is not None for option in (self.log_format, self.log_file, self.log_level))

    @property
    def on_stderr(self) -> bool:
        """Whether the log takes the place of the live panel on a terminal: lines between its frames would tear it."""
        return self.asked and self.log_file is None


@contextmanager
def observed(named: Named, options: Observing) -> Iterator[Sequence[Observer]]:
    """The observers that the options ask for, while a study runs.

    Raises:
        SpecError: the log file cannot be written, the port of the metrics is taken, or a sink is unknown or its package
            not installed.
    """
    from mergesearch.observe.logs import LogObserver, logging_to
    from mergesearch.observe.metrics import MetricsObserver
    from mergesearch.observe.sinks.open import choose, known_of

    chosen = [choose(text, options.sink_dir) for text in options.sinks]

    level = options.log_level or (LogLevel.INFO if options.asked else LogLevel.WARNING)
    with ExitStack() as stack:
        stack.enter_context(
            logging_to(options.log_file, as_json=options.log_format is LogFormat.JSON, level=level.value)
        )
        log = LogObserver()
        observers: list[Observer] = [log]
        if options.metrics_port is not None:
            served = stack.enter_context(MetricsObserver(options.metrics_port, options.metrics_host))
            typer.echo(f"metrics: http://{served.host}:{served.port}/metrics", err=True)
            observers.append(served)
        sinks = [stack.enter_context(sink.observer(lambda name: known_of(named.place.open, name))) for sink in chosen]
        try:
            yield [*observers, *sinks]
        finally:
            if (record := _record(named, named.name)) is not None:
                log.ended(record)
            for sink in sinks:
                if sink.study and (record := _record(named, sink.study)) is not None:
                    sink.ended(record.status.value)


def _record(named: Named, name: str) -> StudyRecord | None:
    """How a study of the store stands; None where the store cannot tell, which an error on its way out says."""
    try:
        store = named.place.open()
        try:
            return store.study(name)
        finally:
            store.close()
    except StoreError:
        return None
