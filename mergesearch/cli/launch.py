"""mergesearch launch"""

from typing import Annotated, TypeAlias

import typer

from mergesearch.cli.common import FileArgument, StoreOption, WorkersOption, find_file
from mergesearch.cli.observing import (
    LOOPBACK,
    SINK_DIR,
    LogFileOption,
    LogFormatOption,
    LogLevelOption,
    MetricsHostOption,
    MetricsPortOption,
    Observing,
    SinkDirOption,
    SinkOption,
    observed,
)

DetachOption: TypeAlias = Annotated[
    bool, typer.Option("--detach", help="On a cluster ('jobs' in the profile): submit the job and return.")
]


def launch(
    context: typer.Context,
    file: FileArgument,
    workers: WorkersOption = None,
    store: StoreOption = None,
    detach: DetachOption = False,
    log_format: LogFormatOption = None,
    log_file: LogFileOption = None,
    log_level: LogLevelOption = None,
    metrics_port: MetricsPortOption = None,
    metrics_host: MetricsHostOption = LOOPBACK,
    sink: SinkOption = None,
    sink_dir: SinkDirOption = SINK_DIR,
) -> None:
    """Launch the study of a file and run it to its end. Ctrl-C stops it cleanly; `mergesearch resume` goes on.

    With a profile that names a cluster's Jobs URL the controller runs there and this command shows its log: Ctrl-C
    then only stops looking.

    Example: mergesearch launch studies/smoke.yaml --workers workers/laptop.yaml
    """
    from mergesearch.cli.running import profile, watched
    from mergesearch.controller.launch import launch as run

    named = find_file(file, store)
    if detach or workers:
        from mergesearch.cli.remote import cluster, launch_there

        if there := cluster(workers, detach):
            launch_there(there, named, file, context, detach)
            return
    observing = Observing(log_format, log_file, log_level, metrics_port, metrics_host, tuple(sink or ()), sink_dir)
    with observed(named, observing) as more, watched(named, plain=observing.on_stderr) as view:
        run(file, workers=profile(workers), store=named.place.open(create=True), observers=[view, *more])
