"""mergesearch resume"""

import typer

from mergesearch.cli.common import StoreOption, StudyArgument, WorkersOption, find
from mergesearch.cli.launch import DetachOption
from mergesearch.cli.limits import (
    EvaluationsOption,
    ExamplesOption,
    GpuSecondsOption,
    HoursOption,
    PlateauOption,
    TargetOption,
    limits,
)
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


def resume(
    context: typer.Context,
    study: StudyArgument,
    workers: WorkersOption = None,
    store: StoreOption = None,
    detach: DetachOption = False,
    evaluations: EvaluationsOption = None,
    examples: ExamplesOption = None,
    gpu_seconds: GpuSecondsOption = None,
    hours: HoursOption = None,
    target: TargetOption = None,
    plateau: PlateauOption = None,
    log_format: LogFormatOption = None,
    log_file: LogFileOption = None,
    log_level: LogLevelOption = None,
    metrics_port: MetricsPortOption = None,
    metrics_host: MetricsHostOption = LOOPBACK,
    sink: SinkOption = None,
    sink_dir: SinkDirOption = SINK_DIR,
) -> None:
    """Go on with a study where its log ends: after Ctrl-C, a pause, a failure, or a crash.

    A study that is done goes on when its budget is raised; the new limits stand from then on.

    With a profile that names a cluster's Jobs URL it goes on there; a study that is running there is followed.

    Example: mergesearch resume smoke --evaluations 400
    """
    from mergesearch.cli.running import profile, watched
    from mergesearch.controller.launch import resume as run

    raised = limits(evaluations, examples, gpu_seconds, hours, target, plateau)
    named = find(study, store)
    if detach or workers:
        from mergesearch.cli.remote import cluster, resume_there

        if there := cluster(workers, detach):
            resume_there(there, named, context, detach)
            return
    opened = named.place.open()
    observing = Observing(log_format, log_file, log_level, metrics_port, metrics_host, tuple(sink or ()), sink_dir)
    with observed(named, observing) as more, watched(named, plain=observing.on_stderr) as view:
        run(named.name, opened, workers=profile(workers), observers=[view, *more], limits=raised)
