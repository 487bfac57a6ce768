"""The calls into Ray that a pool makes; each runs where `Link.call` puts it."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import ray
from ray import exceptions as ray_errors

from mergesearch.pool.ray.slots import Slot

# What ray.get raises when the process, its machine, or the result on it is gone.
LOST: Final = (
    ray_errors.RayActorError,
    ray_errors.WorkerCrashedError,
    ray_errors.OutOfMemoryError,
    ray_errors.NodeDiedError,
    ray_errors.ObjectLostError,
)


def hand_over(slots: Sequence[Slot]) -> None:
    """Send each worker its job, under the job's name."""
    for slot in slots:
        assert slot.ticket is not None, "a job is handed over with its ticket"
        job = slot.ticket.job
        slot.pending = slot.actor.evaluate.options(name=job.name).remote(job, slot.turn)


def ask_last(slots: Sequence[Slot]) -> None:
    """Ask each worker for its last outcome."""
    for slot in slots:
        slot.pending = slot.actor.last.remote()


def gone(slots: Sequence[Slot], timeout: float) -> list[Slot]:
    """Which of these idle workers have died; one that does not answer in time is not among them."""
    asked = {slot.actor.here.remote(): slot for slot in slots}
    done, _ = ray.wait(list(asked), num_returns=len(asked), timeout=timeout)
    return [asked[ref] for ref in done if isinstance(_value(ref), LOST)]


def answers(refs: Sequence[Any], timeout: float) -> list[tuple[Any, object]]:
    """The calls that have ended, waiting for the first: each with its value or what it raised."""
    done, _ = ray.wait(list(refs), num_returns=1, timeout=timeout)
    if done and len(refs) > 1:
        done, _ = ray.wait(list(refs), num_returns=len(refs), timeout=0)
    return [(ref, _value(ref)) for ref in done]


def _value(ref: Any) -> object:
    try:
        return ray.get(ref)
    except ray_errors.RayError as error:
        return error


def kill(actor: Any) -> None:
    """End a worker's process."""
    with suppress(ray_errors.RayError, ValueError):  # it may be gone already
        ray.kill(actor, no_restart=True)


def end_quietly() -> None:
    """Leave a cluster that is gone: takes a while, and may fail."""
    with suppress(Exception):
        ray.shutdown()


def node_is_gone(error: Exception) -> bool:
    """Whether Ray says of a lost actor that its machine went first."""
    return isinstance(error, ray_errors.NodeDiedError) or "node has died" in str(error) or "node died" in str(error)


def why_lost(error: Exception) -> str:
    """What is known of a worker's death, in a few words."""
    memory = isinstance(error, ray_errors.OutOfMemoryError) or "running low on memory" in str(error)
    return "its machine ran out of memory" if memory else "out of memory, a crash?"
