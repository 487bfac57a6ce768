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
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Observing:
    """What the options say. Without a --log option only warnings are logged."""

    log_format: LogFormat | None = None
    log_file: Path | None = None
    log_level: LogLevel | None = None
    metrics_port: int | None = None
    metrics_host: str = LOOPBACK

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
        SpecError: the log file cannot be written, or the port of the metrics is taken.
    """
    from mergesearch.observe.logs import LogObserver, logging_to
    from mergesearch.observe.metrics import MetricsObserver

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
        try:
            yield observers
        finally:
            if (record := _record(named)) is not None:
                log.ended(record)


def _record(named: Named) -> StudyRecord | None:
    """How the study stands; None where the store cannot tell, which an error on its way out says."""
    try:
        store = named.place.open()
        try:
            return store.study(named.name)
        finally:
            store.close()
    except StoreError:
        return None
