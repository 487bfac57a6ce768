"""The schema of workers/*.yaml: which pool runs a study's evaluations, and with how many workers of what size."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import ValidationError

from mergesearch.errors import PoolError, SpecError
from mergesearch.plugins import Fault, did_you_mean, faults, load
from mergesearch.pool import POOLS
from mergesearch.pool.base import WorkerFactory, WorkerOptions, WorkerPool
from mergesearch.store.base import StudyStore

EXTERNAL: Final = "external"
"""The kind whose workers are not ours: it needs the study's store, and no factory."""


@dataclass(frozen=True)
class Profile:
    """A checked workers profile: the pool's kind and its options; by itself, this process. `name` says where it comes
    from."""

    pool: str = "inline"
    options: WorkerOptions = field(default_factory=WorkerOptions)
    name: str = ""

    @property
    def device(self) -> str:
        """'auto', 'cpu' or 'cuda', for the worker's setup."""
        return self.options.device

    @property
    def threads_per_worker(self) -> int | None:
        """Computing threads of a worker, for its setup; None: what the machine or the pool gives it."""
        return self.options.threads_per_worker


def load_profile(path: Path) -> Profile:
    """The profile in a workers/*.yaml file.

    Raises:
        SpecError: it is missing, is not YAML, or has keys, kinds or values that cannot be; with the line of each.
    """
    try:
        text = path.read_text(encoding="utf-8")
        body = yaml.safe_load(text)
    except OSError as error:
        raise SpecError(f"cannot read workers profile {str(path)!r}: {error.strerror}") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise SpecError(f"{path}:{line}: not valid YAML: {error.problem}") from None
    if not isinstance(body, dict):
        raise SpecError(f"{path}:1: a workers profile is a mapping that begins with 'pool: inline' or 'pool: ray'")
    return parse_profile(body, str(path), _lines(text))


def parse_profile(body: Mapping[str, Any], name: str, lines: Mapping[str, int] | None = None) -> Profile:
    """The profile in a mapping. `lines` gives the line of each key for messages. Raises SpecError."""
    options = dict(body)
    kind = options.pop("pool", None)
    known = ", ".join(POOLS)
    if not isinstance(kind, str):
        raise SpecError(_at(name, lines, Fault((), f"key 'pool' is missing; it is one of {known}")))
    if kind not in POOLS:
        raise SpecError(_at(name, lines, Fault(("pool",), f"pool {kind!r} is unknown{did_you_mean(kind, POOLS)}")))
    schema: type[WorkerOptions] = load("pool", POOLS, kind).Options
    try:
        return Profile(kind, schema.model_validate(options), name)
    except ValidationError as error:
        raise SpecError("\n".join(_at(name, lines, fault) for fault in faults(schema, error))) from None


def open_pool(profile: Profile, factory: WorkerFactory, store: StudyStore | None = None) -> WorkerPool:
    """A pool of the profile's kind whose workers `factory` builds; `store` is the study's, needed by kind 'external',
    whose workers are programs elsewhere. Raises PoolError if it cannot start."""
    kind = load("pool", POOLS, profile.pool)
    if profile.pool == EXTERNAL and store is None:
        raise PoolError("pool 'external' offers the evaluations of a study in a store; launch a study with it")
    pool: WorkerPool = kind(profile.options, store if profile.pool == EXTERNAL else factory)
    return pool


def _at(name: str, lines: Mapping[str, int] | None, fault: Fault) -> str:
    key = str(fault.path[0]) if fault.path else ""
    line = (lines or {}).get(key)
    return f"{name}:{line}: {fault.sentence}" if line else f"{name}: {fault.sentence}"


def _lines(text: str) -> Mapping[str, int]:
    """The line, counted from 1, of each key at the top of a YAML mapping."""
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return {str(key.value): key.start_mark.line + 1 for key, _ in pairs}
