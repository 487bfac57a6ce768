"""What launch and resume do when the profile names a cluster's Jobs URL: the controller runs there, as a job."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
import yaml

from mergesearch.cli.common import DEFAULT_STORE, STORE_VARIABLE, Named
from mergesearch.errors import SpecError
from mergesearch.pool.profile import load_profile
from mergesearch.store.urls import refuse_password
from mergesearch.study.limits import LIMITS

HERE = ("workers", "store", "detach")  # options of launch and resume that mean something on this side


@dataclass(frozen=True)
class Cluster:
    """A cluster to run controllers on: its Jobs URL, the folder where relative paths start there, and the text of the
    profile that a controller on the cluster itself uses."""

    jobs: str
    root: str
    profile: str
    path: Path


def cluster(path: Path | None, detach: bool) -> Cluster | None:
    """The cluster that a workers profile names under `jobs`; None if the study is to run from this process.

    Raises SpecError if the profile is wrong, or names no cluster and `detach` is asked for.
    """
    body: dict[str, Any] = {}
    if path is not None:
        load_profile(path)
        body = yaml.safe_load(path.read_text(encoding="utf-8"))
    if path is None or not body.get("jobs"):
        if detach:
            raise SpecError("--detach needs a workers profile with 'jobs: http://head:8265': a cluster to leave it to")
        return None
    there = {key: value for key, value in body.items() if key not in ("jobs", "root")} | {"address": "auto"}
    return Cluster(body["jobs"], body["root"], yaml.safe_dump(there, sort_keys=False), path)


def launch_there(cluster: Cluster, named: Named, file: Path, context: typer.Context, detach: bool) -> None:
    """Launch a study file on the cluster: the file travels, the models and the data are there."""
    arguments = ["launch", "files:study.yaml", *_store(named), *_forwarded(context)]
    files = {"study.yaml": file.read_text(encoding="utf-8")}
    _run(cluster, named, arguments, files, detach=detach, follow=False)


def resume_there(cluster: Cluster, named: Named, context: typer.Context, detach: bool) -> None:
    """Go on with a study on the cluster, or follow the job that works on it."""
    arguments = ["resume", named.name, *_store(named), *_forwarded(context)]
    raised = any(context.params.get(limit) is not None for limit in LIMITS)
    _run(cluster, named, arguments, {}, detach=detach, follow=True, raised=raised)


def _store(named: Named) -> list[str]:
    """The --store of the job; nothing where the cluster's environment says it. Raises SpecError for 'memory://'."""
    place = named.place
    if not place.given:
        typer.echo(f"the store is what {STORE_VARIABLE} says on the cluster, else {DEFAULT_STORE} there", err=True)
        return []
    refuse_password(place.url)
    if place.url.startswith("memory:"):
        raise SpecError(f"store {place.url!r} ends with the controller's process on the cluster; name a database there")
    if place.url.startswith("sqlite"):
        typer.echo(
            f"note: store {place.url!r} is a file on the cluster's head: status, pause, resume and cancel work only "
            "there; a PostgreSQL store is reached from everywhere",
            err=True,
        )
    return ["--store", place.url]


def _forwarded(context: typer.Context) -> list[str]:
    """The options of the command that was typed, but for those that mean something on this side only."""
    words: list[str] = []
    for option in context.command.params:
        value = context.params.get(option.name or "")
        if option.param_type_name != "option" or option.name in HERE or value is None or value == option.default:
            continue
        if isinstance(value, list | tuple):
            words += [word for one in value for word in (option.opts[0], str(one))]
            continue
        if isinstance(value, bool):
            words.append(option.opts[0] if value else option.secondary_opts[0])
        else:
            words += [option.opts[0], str(value)]
    return words


def _run(
    cluster: Cluster,
    named: Named,
    arguments: Sequence[str],
    files: Mapping[str, str],
    *,
    detach: bool,
    follow: bool,
    raised: bool = False,
) -> None:
    """Start `mergesearch ARGUMENTS` on the cluster and follow its log to its end. Exits with the job's own code.

    With `follow`, a job that works on this study already is followed instead; it would not hear of a `raised` budget.
    """
    from mergesearch.pool.ray.jobs import Jobs

    jobs, name = Jobs(cluster.jobs), named.name
    store = hashlib.sha256((named.place.url if named.place.given else "").encode()).hexdigest()[:16]
    job = jobs.running(name, store)
    again = f"mergesearch resume {name} --workers {cluster.path}"
    if job and not follow:
        raise SpecError(f"job {job} of this cluster works on study {name!r} already; follow it with: {again}")
    if job and raised:
        raise SpecError(
            f"job {job} of this cluster works on study {name!r} and does not hear of new limits: "
            f"mergesearch pause {name} --wait, then resume it with them"
        )
    if job:
        typer.echo(f"job {job} works on study {name!r} already; this is its log", err=True)
    else:
        travelling = {**files, "workers.yaml": cluster.profile}
        job = jobs.submit(name, store, cluster.root, [*arguments, "--workers", "files:workers.yaml"], travelling)
        typer.echo(f"job {job} was submitted to {cluster.jobs}", err=True)
    wishes = "".join(f"\n  {verb} it: mergesearch {verb} {name}" for verb in ("pause", "cancel"))
    hints = f"  follow it: {again}{wishes}"
    if detach:
        typer.echo(hints)
        return
    try:
        code = jobs.follow(job, lambda text: typer.echo(text, nl=False))
    except KeyboardInterrupt:
        typer.echo(f"\ndetached; the study goes on as job {job}\n{hints}", err=True)
        raise
    raise typer.Exit(code)
