"""Reaching a Ray cluster, and what it has room for."""

import logging
import math
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import ray
from ray import exceptions as ray_errors

from mergesearch.errors import PoolError
from mergesearch.pool.jobs import one_sentence
from mergesearch.pool.ray.link import Address, answers
from mergesearch.pool.ray.options import Elastic, Options

LOCAL_WORKERS: Final = 4  # 'auto' takes no more of a laptop
OBJECT_STORE_BYTES: Final = 100 * 2**20  # jobs and outcomes are small; Ray's own default is a third of the memory
CLIENT: Final = "ray://"

_ENVIRONMENT: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",  # Ray reports its usage over the network otherwise
    "RAY_gcs_rpc_server_reconnect_timeout_s": "86400",  # after 60 Ray would end this process
}
"""What Ray can be told by its environment only, and reads when it connects."""


@dataclass(frozen=True)
class Node:
    """A living machine of the cluster, and what it has in all: CPU, GPU, memory and object_store_memory in bytes."""

    id: str
    resources: Mapping[str, float]


def connect(options: Options, held: int = 0) -> bool:
    """Reach the cluster; True if it was started for this pool. `held`: bytes that its object store must hold.

    Raises:
        PoolError: nobody answers, or this machine cannot start a Ray.
    """
    if ray.is_initialized():
        return False
    address = options.address
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == "local":
        least = options.workers.min if isinstance(options.workers, Elastic) else options.workers
        cpus = max(_cores(), math.ceil((0 if least == "auto" else least) * options.cpus_per_worker))
        store = OBJECT_STORE_BYTES + held
        quiet |= {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": store}
    try:
        for door in _given(address):
            if not answers(door):  # Ray itself would try for minutes
                raise ConnectionError(f"nobody listens at {door[0]}:{door[1]}")
        with _environment(_ENVIRONMENT), _own_sigterm():
            ray.init(address=address, **quiet)
    except (ConnectionError, RuntimeError, TimeoutError, ValueError, OSError, ray_errors.RayError) as error:
        raise PoolError(_unreachable(address, error)) from error
    return address == "local"


def _unreachable(address: str, error: Exception) -> str:
    if address == "local":
        return f"this machine cannot start Ray: {one_sentence(error)}"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ray_errors.AuthenticationError) or "AuthenticationError" in str(cause):
            return (
                f"the Ray cluster at address {address!r} wants a token: set RAY_AUTH_MODE=token, with the cluster's "
                "token in ~/.ray/auth_token or in RAY_AUTH_TOKEN"
            )
        cause = cause.__cause__
    return (
        f"no Ray cluster answers at address {address!r}: {one_sentence(error)}; start one with `ray start --head`, or "
        "say `address: local`"
    )


def doors(options: Options) -> list[Address]:
    """Where a connected cluster listens: through a client its server; else the head, and this machine's own node."""
    if options.address.startswith(CLIENT) and ray.util.client.ray.is_connected():
        return _given(options.address)
    context = ray.get_runtime_context()
    own = next((n for n in ray.nodes() if n["NodeID"] == context.get_node_id()), None)
    found = [_address(context.gcs_address)]
    if own is not None:
        found.append((own["NodeManagerAddress"], int(own["NodeManagerPort"])))
    return found


def living() -> list[Node]:
    """The machines that live."""
    return [Node(n["NodeID"], n["Resources"]) for n in ray.nodes() if n["Alive"]]


def room(needs: Mapping[str, float], nodes: Sequence[Node]) -> int:
    """How many workers fit on the nodes; one worker stands on one node."""
    # Ray counts resources in ten-thousandths.
    return sum(
        min(math.floor(node.resources.get(kind, 0.0) / need + 1e-4) for kind, need in needs.items()) for node in nodes
    )


def wanted(options: Options, nodes: Sequence[Node]) -> int:
    """How many workers there shall be now. Raises PoolError if that many, or one of 'auto', do not fit."""
    fit, asked = room(options.needs, nodes), options.workers
    if isinstance(asked, Elastic):
        most = asked.max if asked.max is not None else LOCAL_WORKERS if options.address == "local" else math.inf
        return max(asked.min, int(min(fit, most)))
    least = 1 if asked == "auto" else asked
    if fit < least:
        raise PoolError(
            f"{least} worker(s) of {_amounts(options.needs, options.needs)} do not fit: the cluster at address "
            f"{options.address!r} has {_amounts(_total(nodes), options.needs)} on {len(nodes)} node(s)"
        )
    if asked != "auto":
        return asked
    return min(fit, LOCAL_WORKERS) if options.address == "local" else fit


def check_store(options: Options, nodes: Sequence[Node], held: int) -> None:
    """Whether the object store of each node that gets workers can hold the models. Raises PoolError."""
    for node in nodes:
        has = node.resources.get("object_store_memory", 0.0)
        if room(options.needs, [node]) and has < held:
            raise PoolError(
                f"models: object_store needs {held / 2**30:.2f} GiB of object store on each node, one has "
                f"{has / 2**30:.2f} GiB: start Ray there with --object-store-memory={held}, or say models: files"
            )


def _amounts(amounts: Mapping[str, float], needs: Mapping[str, float]) -> str:
    """'0.5 CPU and 1 GPU', with the memory where it is asked for."""
    text = f"{amounts.get('CPU', 0):g} CPU and {amounts.get('GPU', 0):g} GPU"
    return f"{text} and {amounts.get('memory', 0) / 2**30:.3g} GiB" if "memory" in needs else text


def _total(nodes: Sequence[Node]) -> dict[str, float]:
    kinds = {kind for node in nodes for kind in node.resources}
    return {kind: sum(node.resources.get(kind, 0.0) for node in nodes) for kind in kinds}


def _given(address: str) -> list[Address]:
    """The door in 'host:port' or 'ray://host:port'; none in other addresses."""
    host, _, port = address.removeprefix(CLIENT).rpartition(":")
    return [_address(address.removeprefix(CLIENT))] if host and port.isdigit() and "/" not in host else []


def _address(text: str) -> Address:
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """These variables, where the user has not set them, for as long as Ray reads them."""
    added = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep what this process does on SIGTERM: Ray would end it at once, before its study is marked as stopped."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread can change it, so Ray does not either
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
