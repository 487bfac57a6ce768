"""Candidates are built in little memory beside the models, and from models that are mapped, not loaded.

Memory is that of a process, so each test starts one: this file, run as a script, is the child.
"""

import hashlib
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mergesearch.checkpoints.reader import read_header, read_tensor
from mergesearch.merging import make_operator
from mergesearch.operators.base import Layout, Prepared
from mergesearch.operators.passes import stream as _stream

NAMES = tuple(f"w{i}" for i in range(8))
SIZE = 4_000_000  # of each tensor: 64 MB of bfloat16 in a model
EXPERTS = 3
KINDS = ("task_arithmetic", "ties", "breadcrumbs", "sce")
SPARE = 64 << 20
"""Bytes that a process may take beside the models and what it had before."""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")


def noise(models: list[dict[str, torch.Tensor]]) -> None:
    """Fill models in place: a base, and experts near it."""
    generator = torch.Generator().manual_seed(0)
    for name, base in models[0].items():
        base.normal_(generator=generator).mul_(0.05)
        for expert in models[1:]:
            expert[name].normal_(generator=generator).mul_(0.01).add_(base)


def empty_models(size: int) -> list[dict[str, torch.Tensor]]:
    """A base and experts, of whatever memory held."""
    return [{name: torch.empty(size, dtype=torch.bfloat16) for name in NAMES} for _ in range(EXPERTS + 1)]


def mapped(file: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file as a worker gets them."""
    return {name: read_tensor(info, name) for name, info in read_header(file).items()}


def prepare(kind: str, models: list[dict[str, torch.Tensor]]) -> Prepared:
    """An operator with the models of one layer group each."""
    layout = Layout(("x", "y", "z"), NAMES, {name: i for i, name in enumerate(NAMES)})
    return make_operator(kind, {}).prepare(models[0], models[1:], layout)


def build(kind: str, prepared: Prepared, live: dict[str, torch.Tensor], seed: int) -> str:
    """Write a random candidate; returns a digest of it."""
    rng = np.random.default_rng(seed)
    tables = {knob.name: np.full((len(NAMES), EXPERTS), knob.start(EXPERTS)) for knob in make_operator(kind, {}).KNOBS}
    tables |= {
        knob: rng.uniform(0.1, 0.9, (len(NAMES), EXPERTS)) for knob in ("coefficient", "density") if knob in tables
    }
    prepared.apply(tables, NAMES, live)
    digest = hashlib.blake2b()
    for tensor in live.values():
        digest.update(tensor.view(torch.uint8).numpy())
    return digest.hexdigest()


def warm_up(kinds: list[str]) -> None:
    """Load the compiled loops and start the threads: what a process takes once, whatever it merges."""
    torch.set_num_threads(2)
    models = empty_models(5000)
    noise(models)
    live = {name: torch.empty_like(tensor) for name, tensor in models[0].items()}
    limit, _stream._COMPILED_FROM = _stream._COMPILED_FROM, 0
    for kind in kinds:
        prepared = prepare(kind, models)
        build(kind, prepared, live, 0)
        build(kind, prepared, live, 1)
    _stream._COMPILED_FROM = limit


def status(key: str) -> int:
    """Bytes of a line of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


def child_mapped(folder: Path, limited: bool) -> dict[str, Any]:
    """Build from mapped files; if `limited`, with no room for the experts. Says whether loading them failed."""
    kinds = ["task_arithmetic", "ties"]
    warm_up(kinds)
    models = [mapped(folder / f"{i}.safetensors") for i in range(EXPERTS + 1)]
    live = {name: torch.zeros(SIZE, dtype=torch.bfloat16) for name in NAMES}
    if limited:
        limit = status("VmData") + SPARE
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    found: dict[str, Any] = {}
    for kind in kinds:
        prepared = prepare(kind, models)
        found[kind] = [build(kind, prepared, live, seed) for seed in (1, 2)]
    try:
        loaded = [{name: tensor.clone() for name, tensor in model.items()} for model in models[1:]]
        found["fits"] = len(loaded) == EXPERTS
    except (RuntimeError, MemoryError):
        found["fits"] = False
    return found


def child_peak(kinds: list[str]) -> dict[str, Any]:
    """The most memory, in bytes, that building three candidates with each operator took over that of the models."""
    warm_up(kinds)
    models = empty_models(SIZE)
    noise(models)
    live = {name: torch.zeros(SIZE, dtype=torch.bfloat16) for name in NAMES}
    found: dict[str, Any] = {"models": status("VmRSS")}
    for kind in kinds:  # in the order of what they take: a process knows only the highest peak so far
        prepared = prepare(kind, models)
        for seed in (1, 2, 3):
            build(kind, prepared, live, seed)
        # Not getrusage: its peak is the parent's, if that was higher when it forked.
        found[kind] = status("VmHWM") - found["models"]
    return found


def run(*arguments: str) -> dict[str, Any]:
    """What a child found."""
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_models_that_do_not_fit_in_memory_are_streamed_from_their_files(tmp_path: Path) -> None:
    """With a limit under which the experts cannot be loaded, candidates are those of a process without a limit."""
    models = empty_models(SIZE)
    noise(models)
    for i, model in enumerate(models):
        save_file(model, tmp_path / f"{i}.safetensors")
    del models
    limited, free = run("mapped", str(tmp_path), "limited"), run("mapped", str(tmp_path), "free")
    assert free.pop("fits")
    assert not limited.pop("fits")
    assert limited == free


def test_building_takes_less_than_64_mb_beside_the_models() -> None:
    """First candidate and later ones, with all that is remembered between them, for 320 MB of models."""
    found = run("peak", *KINDS)
    assert found["models"] > 5 * len(NAMES) * SIZE * 2  # they lie in memory, so what is measured is what comes on top
    assert all(found[kind] < SPARE for kind in KINDS), found


if __name__ == "__main__":
    mode, *rest = sys.argv[1:]
    answer = child_mapped(Path(rest[0]), rest[1] == "limited") if mode == "mapped" else child_peak(rest)
    sys.stdout.write(json.dumps(answer) + "\n")
