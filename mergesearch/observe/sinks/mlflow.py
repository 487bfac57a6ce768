"""MLflow: a run for each study, in a file store in a folder, or on a tracking server.

`MLFLOW_ALLOW_FILE_STORE=true mlflow ui --backend-store-uri FOLDER` shows the file store, which MLflow keeps for those
who ask for it by that variable. Needs mlflow-skinny 3 alone.
"""

import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, final

from pydantic import Field

from mergesearch.observe.sinks.base import Heading, Point
from mergesearch.plugins import PluginOptions

FORBIDDEN = re.compile(r"[^\w\-. :/]")  # in the name of a metric
KEY_TAG = "mergesearch.key"
METRICS_AT_ONCE = 900  # a server takes 1000
LONGEST_PARAM = 500
FAILURES_KEPT = 1000


class MlflowOptions(PluginOptions):
    """Where the runs go."""

    project: str = Field("mergesearch", description="the experiment that holds the runs")
    uri: str = Field(
        "", pattern=r"^$|^[a-z][a-z0-9+.-]*://", description="a server, such as http://127.0.0.1:5000; else the folder"
    )


@final
class Mlflow:
    """Sink; see `mergesearch.observe.sinks.base` for the contract."""

    PACKAGE: ClassVar[str] = "mlflow"
    Options: ClassVar[type[PluginOptions]] = MlflowOptions

    def __init__(self, options: PluginOptions, folder: Path, heading: Heading) -> None:
        assert isinstance(options, MlflowOptions)
        with _environment():
            from mlflow import MlflowClient
            from mlflow.entities import Metric, Param

            self._metric = Metric
            if not options.uri:
                folder.mkdir(parents=True, exist_ok=True)
            uri = options.uri or folder.absolute().as_uri()
            self._client: Any = MlflowClient(tracking_uri=uri, registry_uri=uri)
            experiment = self._client.get_experiment_by_name(options.project)
            place = self._client.create_experiment(options.project) if experiment is None else experiment.experiment_id
            found = self._client.search_runs([place], f"tags.`{KEY_TAG}` = '{heading.key}'", max_results=1)
            self._seen: dict[str, int] = {}  # metric -> its last step
            self._failures: list[str] = []
            if found:
                self._run = found[0].info.run_id
                self._client.update_run(self._run, status="RUNNING")
                for name in found[0].data.metrics:
                    history = self._client.get_metric_history(self._run, name)
                    self._seen[name] = max(metric.step for metric in history)
            else:
                tags = {KEY_TAG: heading.key, "mergesearch.study": heading.name}
                self._run = self._client.create_run(place, run_name=heading.name, tags=tags).info.run_id
                params = [Param(key, str(value)[:LONGEST_PARAM]) for key, value in heading.config.items()]
                self._client.log_batch(self._run, params=params)
                self._client.log_text(self._run, heading.spec, "study.yaml")
        self._last = min(self._marks(), default=0)

    def _marks(self) -> list[int]:
        """Up to where what every point has was written: a crash may have fallen between two metrics."""
        return [step for name, step in self._seen.items() if name.startswith("evaluations/")]

    @property
    def last(self) -> int:
        return self._last

    def write(self, points: Sequence[Point]) -> None:
        metrics = [
            self._metric(name, value, int(1000 * point.time), point.step)
            for point in points
            for name, value in ((FORBIDDEN.sub("_", name), value) for name, value in point.values.items())
            if point.step > self._seen.get(name, 0)
        ]
        for begin in range(0, len(metrics), METRICS_AT_ONCE):
            self._client.log_batch(self._run, metrics=metrics[begin : begin + METRICS_AT_ONCE])
        for metric in metrics:
            self._seen[metric.key] = metric.step
        failures = [f"step {point.step}: {point.failure}" for point in points if point.failure]
        if failures:
            self._failures = [*self._failures, *failures][-FAILURES_KEPT:]
            self._client.set_tag(self._run, "last_failure", failures[-1])
        self._last = points[-1].step

    def close(self, status: str, summary: Mapping[str, str | float]) -> None:
        for key, value in {"status": status, **summary}.items():
            self._client.set_tag(self._run, f"mergesearch.{key.replace('/', '.')}", str(value))
        if self._failures:
            self._client.log_text(self._run, "\n".join(self._failures) + "\n", f"failures-{int(time.time())}.txt")
        ended = {"done": "FINISHED", "failed": "FAILED"}.get(status, "KILLED")
        self._client.set_terminated(self._run, ended)


@contextmanager
def _environment() -> Iterator[None]:
    """MLflow reads these when it is imported and when a store is opened: no report of its use, and a file store."""
    wanted = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ALLOW_FILE_STORE": "true"}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
