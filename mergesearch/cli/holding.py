"""Whether a controller works on a study, and asking it for something: what status, pause and cancel share."""

import time
from typing import Any

import typer

from mergesearch.cli.common import Named
from mergesearch.controller.owner import is_dead, owner_name
from mergesearch.errors import LeaseError
from mergesearch.report.holding import Holder, holder
from mergesearch.store.base import Command, StudyRecord, StudyStore
from mergesearch.stored import read_stored
from mergesearch.types import Status

POLL_SECONDS = 0.5
LEASE_SECONDS = 10.0  # for taking back a wish that nobody is left to obey
NOBODY = 1  # exit code where no controller can obey


def standing(store: StudyStore, name: str) -> dict[str, Any]:
    """How a study stands, as JSON values."""
    found = read_stored(store, name)
    record, now = found.record, store.clock()
    held = holder(record, now)
    usage = found.facts.get("usage")
    share = usage.get("share") if isinstance(usage, dict) else None
    return {
        "name": name,
        "status": record.status.value,
        "evaluations": found.results.search_told,
        "budget": found.budget,
        "controller": _said(record, held, now),
        "owner": held.where if held else None,
        "lease_until": held.until if held else None,
        "alive": bool(held and held.alive),
        "asked_for": [command.action for command in store.open_commands(name)],
        "busy_share": share,
        "message": record.message,
    }


def _said(record: StudyRecord, held: Holder | None, now: float) -> str:
    if held is None:
        return "none"
    if held.alive:
        return f"{held.where}, lease for {held.until - now:.0f} s more"
    hint = "; resume it" if record.status is Status.RUNNING else ""
    return f"{held.where} is gone{hint}"


def ask(named: Named, action: str, *, wait: bool, timeout: float) -> None:
    """Ask a study's controller for something, and with `wait` until it has obeyed; at most `timeout` seconds.

    Exits with 1, and leaves no wish behind, if no controller holds the study or the one that did is gone; with 1 and
    the wish left standing if the time is over.
    """
    store = named.place.open()
    record = store.study(named.name)
    held = holder(record, store.clock())
    if held is None or not held.alive:
        typer.echo(f"study {named.name!r} is not running (it is {_state(record)}): nothing to {action}", err=True)
        raise typer.Exit(NOBODY)
    command = store.command(named.name, action)
    if not wait:
        typer.echo(f"asked {held.where} to {action} study {named.name!r}; see: mergesearch status {named.typed}")
        return
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        record = store.study(named.name)
        if not _open(store, named.name, command) and record.status is not Status.RUNNING:
            typer.echo(f"study {named.name!r} is {_state(record)}")
            return
        now_held = holder(record, store.clock())
        if now_held is None or not now_held.alive:
            _take_back(store, named.name, command)
            record = store.study(named.name)
            typer.echo(f"study {named.name!r}: its controller ended before it obeyed; it is {_state(record)}", err=True)
            raise typer.Exit(NOBODY)
        time.sleep(POLL_SECONDS)
    typer.echo(
        f"study {named.name!r} did not {action} within {timeout:g} s; the wish stands, and is obeyed when the "
        "evaluations that run now are done",
        err=True,
    )
    raise typer.Exit(NOBODY)


def _open(store: StudyStore, name: str, command: Command) -> bool:
    return any(other.id == command.id for other in store.open_commands(name))


def _take_back(store: StudyStore, name: str, command: Command) -> None:
    """Finish a wish that nobody is left to obey, so that it stops no later controller."""
    if not _open(store, name, command):
        return
    gone = store.study(name).owner
    try:
        lease = store.acquire(name, owner_name(), LEASE_SECONDS, replacing=gone if is_dead(gone) else "")
    except LeaseError:
        return  # another controller came; it finishes wishes older than itself
    try:
        store.finish_command(lease, command)
    finally:
        store.release(lease)


def _state(record: StudyRecord) -> str:
    return f"{record.status.value}: {record.message}" if record.message else record.status.value
