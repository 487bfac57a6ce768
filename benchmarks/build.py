"""Time of building one candidate, against mergekit's in-memory merge and against copying the bytes that must move.

    python benchmarks/build.py [--json FILE] [--repeats 7] [--threads 2] [--skip-mergekit] [--mergekit-python PATH]

Model: Llama in the shape of SmolLM2-135M (hidden 576, MLP 1536, 30 layers, 9 heads, 3 of them key-value, vocabulary
49152, tied), random bfloat16 weights, 3 experts. Every repetition has new coefficients for every layer and expert.

- copies: base and experts are read once and one result is written once, as torch copies of whole tensors. A copy of a
  model reads one model and writes one, so K + 1 reads and 1 write are (K + 2) / 2 model copies.
- mergekit (0.1.5): what its `InMemoryMergeEvaluator` does for a candidate: the tasks of `MergePlanner.plan_in_memory`,
  `Executor.run`, and each tensor copied into the live parameter. Its loaders map the same safetensors files, which the
  page cache holds. It gets the same thread count. It runs in a process of its own, which may be another Python
  (`--mergekit-python`) where its pins do not fit this one; one of its merges follows each round of ours.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

EXPERTS = 3
OPERATORS = ("task_arithmetic", "ties")
DENSITY = 0.5


def make_models(folder: Path) -> list[Path]:
    """Write base and experts as transformers folders; returns their paths, the base first."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3,
        vocab_size=49152, tie_word_embeddings=True, max_position_embeddings=2048, dtype="bfloat16",
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    paths = [folder / "base"]
    model.save_pretrained(paths[0])
    base = {name: p.detach().clone() for name, p in model.named_parameters()}
    for k in range(EXPERTS):
        generator = torch.Generator().manual_seed(k + 1)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                noise = torch.randn(parameter.shape, generator=generator) * 2e-3
                parameter.copy_(base[name].float() + noise)
        paths.append(folder / f"expert{k}")
        model.save_pretrained(paths[-1])
    return paths


def our_builds(paths: list[Path], seed: int) -> dict[str, Callable[[], None]]:
    """One closure for each thing that is timed in this process."""
    from mergesearch.checkpoints.groups import group_tensors
    from mergesearch.checkpoints.load import load_tensors
    from mergesearch.checkpoints.reader import Checkpoint
    from mergesearch.merging import CandidateBuilder, make_operator
    from mergesearch.operators.base import Layout

    opened = [Checkpoint.open(path) for path in paths]
    names = tuple(f"e{k}" for k in range(EXPERTS))
    grouping = group_tensors(opened[0], "block")
    layout = Layout(names, grouping.groups, grouping.group_of)
    # Clones, so that all weights lie in memory and no file is read while we time.
    base, *experts = ({n: t.clone() for n, t in load_tensors(c, list(layout.group_of)).items()} for c in opened)
    live = {name: torch.empty_like(t) for name, t in base.items()}
    shape = (len(layout.groups), EXPERTS)
    rng = np.random.default_rng(seed)

    def build(kind: str) -> Callable[[], None]:
        builder = CandidateBuilder(make_operator(kind, {}), base, experts, layout, live)

        def run() -> None:
            settings = {"coefficient": rng.uniform(0.1, 1.0, shape), "scale": np.ones(shape)}
            if kind == "ties":
                settings["density"] = np.full(shape, DENSITY)
            if builder.build(settings) != len(layout.groups):
                raise SystemExit("a build left groups as they were: not what is to be timed")

        return run

    def copies() -> None:
        for source in (base, experts[0]):
            for name, tensor in source.items():
                live[name].copy_(tensor)
        for name, tensor in experts[1].items():  # (3 + 2) / 2 = 2.5 models
            half = tensor.numel() // 2
            live[name].view(-1)[:half].copy_(tensor.view(-1)[:half])

    return {"copies": copies, **{kind: build(kind) for kind in OPERATORS}}


def timed(function: Callable[[], None]) -> float:
    """Seconds of one call."""
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def mergekit_worker(paths: list[Path], threads: int) -> None:
    """Answer each line 'operator seed' on stdin with the seconds of one in-memory merge. Runs in its own process."""
    from mergekit.architecture import arch_info_for_config
    from mergekit.config import MergeConfiguration
    from mergekit.graph import Executor
    from mergekit.io.tasks import LoaderCache, ReturnTensor
    from mergekit.options import MergeOptions
    from mergekit.plan import MergePlanner
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.set_num_threads(threads)
    options = MergeOptions(quiet=True)
    LoaderCache().setup(options)
    config = AutoConfig.from_pretrained(paths[0])
    architecture = arch_info_for_config(config)
    live = dict(AutoModelForCausalLM.from_pretrained(paths[0], dtype=torch.bfloat16).named_parameters())

    def run(kind: str, seed: int) -> None:
        merge = MergeConfiguration.model_validate(mergekit_config(paths, kind, seed))
        planner = MergePlanner(merge, architecture, options, config)
        planner._plan()
        tasks = [  # as in plan_in_memory, which in 0.1.5 fails a type check of its own; this leaves the check out
            ReturnTensor.model_construct(weight_info=w, tensor_task=t, dtype=w.force_dtype or merge.out_dtype)
            for w, t in planner._tensors
        ]
        written = 0
        with torch.no_grad():
            for task, value in Executor(tasks, math_device="cpu", storage_device="cpu").run(quiet=True):
                if task.weight_info.name in live:
                    live[task.weight_info.name].data.copy_(value, non_blocking=True)
                    written += 1
        if written != len(live):
            raise SystemExit(f"mergekit wrote {written} of {len(live)} tensors")

    for line in sys.stdin:
        kind, seed = line.split()
        print(timed(lambda: run(kind, int(seed))), flush=True)  # noqa: B023 - called at once


def mergekit_config(paths: list[Path], kind: str, seed: int) -> dict[str, object]:
    """A merge with a coefficient for each layer and expert (mergekit interpolates a list over layers)."""
    rng = np.random.default_rng(seed)
    models = []
    for path in paths[1:]:
        parameters: dict[str, object] = {"weight": rng.uniform(0.1, 1.0, 30).tolist()}
        if kind == "ties":
            parameters["density"] = DENSITY
        models.append({"model": str(path), "parameters": parameters})
    return {"merge_method": kind, "base_model": str(paths[0]), "models": models, "dtype": "bfloat16"}


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, list[float]]:
    """Seconds by name, repetitions interleaved so that a busy machine is busy for all alike."""
    torch.set_num_threads(arguments.threads)
    paths = make_models(folder)
    builds = our_builds(paths, seed=0)
    seconds: dict[str, list[float]] = {name: [] for name in builds}
    for name, build in builds.items():  # not timed as a build: compiling, touching memory, trimming once
        seconds[f"first {name}"] = [timed(build)]
    kit = None
    if not arguments.skip_mergekit:
        command = [arguments.mergekit_python, __file__, "--mergekit-worker", *map(str, paths)]
        command += ["--threads", str(arguments.threads)]
        kit = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    for repeat in range(arguments.repeats):
        for turn in range(3):  # each in turn comes first, as whoever follows mergekit finds cold caches
            order = list(builds)[turn:] + list(builds)[:turn]
            for name in order:
                seconds[name].append(timed(builds[name]))
        for kind in OPERATORS if kit else ():
            if kind == "ties" and repeat >= arguments.ties_repeats:
                continue
            assert kit is not None
            assert kit.stdin is not None
            assert kit.stdout is not None
            kit.stdin.write(f"{kind} {repeat}\n")
            kit.stdin.flush()
            answer = kit.stdout.readline()
            if not answer.strip():
                raise SystemExit("the mergekit process ended; its error stands above")
            seconds.setdefault(f"mergekit {kind}", []).append(float(answer))
    if kit is not None and kit.stdin is not None:
        kit.stdin.close()
        kit.wait(timeout=60)
    return seconds


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--ties-repeats", type=int, default=3, help="of mergekit's ties, which is slow")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--skip-mergekit", action="store_true")
    parser.add_argument("--mergekit-python", default=sys.executable)
    parser.add_argument("--mergekit-worker", nargs="+", type=Path, default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.mergekit_worker:
        mergekit_worker(arguments.mergekit_worker, arguments.threads)
        return
    with tempfile.TemporaryDirectory() as folder:
        seconds = measure(arguments, Path(folder))
    copies = min(seconds["copies"]), statistics.median(seconds["copies"])
    rows = {
        name: {"min": min(s), "median": statistics.median(s), "n": len(s), "min / min copies": min(s) / copies[0],
               "median / median copies": statistics.median(s) / copies[1]}
        for name, s in seconds.items()
    }  # fmt: skip
    print(f"{'':26}{'min ms':>10}{'median ms':>12}{'n':>4}{'x copies (min)':>16}{'x copies (median)':>19}")
    for name, row in rows.items():
        print(
            f"{name:26}{row['min'] * 1e3:10.1f}{row['median'] * 1e3:12.1f}{row['n']:4}"
            f"{row['min / min copies']:16.2f}{row['median / median copies']:19.2f}"
        )
    ratios = {
        kind: {key: rows[f"mergekit {kind}"][key] / rows[kind][key] for key in ("min", "median")}
        for kind in OPERATORS
        if f"mergekit {kind}" in rows
    }
    for kind, ratio in ratios.items():
        print(f"{kind}: {ratio['median']:.1f} times as fast as mergekit (medians), {ratio['min']:.1f} (minima)")
    if arguments.json:
        about = {"torch": torch.__version__, "threads": arguments.threads, "machine": platform.machine()}
        body = {"about": about, "rows": rows, "speed over mergekit": ratios, "seconds": seconds}
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(body, indent=1) + "\n")


if __name__ == "__main__":
    main()
