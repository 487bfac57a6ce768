"""mergekit's in-memory merge of the same models, in a process of its own that answers with seconds.

It does what mergekit's `InMemoryMergeEvaluator` does for a candidate: the tasks of `MergePlanner.plan_in_memory`,
`Executor.run`, and each tensor copied into the live parameter. Its loaders map the same safetensors files, which the
page cache holds. Its own Python may be another one, where its pins do not fit ours.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

WEIGHT = {"weight": 0.4}
SPARSE = {"weight": 0.4, "density": 0.5}
METHODS: dict[str, tuple[str, dict[str, Any], dict[str, Any], int | None]] = {
    "linear": ("linear", WEIGHT, {}, None),
    "task_arithmetic": ("task_arithmetic", WEIGHT, {}, None),
    "slerp": ("slerp", {}, {"t": 0.4}, 1),
    "nuslerp": ("nuslerp", WEIGHT, {}, 2),
    "multi_slerp": ("multislerp", WEIGHT, {}, None),
    "karcher": ("karcher", {}, {}, None),
    "model_stock": ("model_stock", {}, {}, None),
    "near_swap": ("nearswap", {}, {"t": 1e-3}, 1),
    "arcee_fusion": ("arcee_fusion", {}, {}, 1),
    "ties": ("ties", SPARSE, {}, None),
    "dare_linear": ("dare_linear", SPARSE, {}, None),
    "dare_ties": ("dare_ties", SPARSE, {}, None),
    "della": ("della", {**SPARSE, "epsilon": 0.15}, {}, None),
    "della_linear": ("della_linear", {**SPARSE, "epsilon": 0.15}, {}, None),
    "breadcrumbs": ("breadcrumbs", {**SPARSE, "gamma": 0.01}, {}, None),
    "breadcrumbs_ties": ("breadcrumbs_ties", {**SPARSE, "gamma": 0.01}, {}, None),
    "sce": ("sce", {}, {"select_topk": 0.5}, None),
    "ram": ("ram", {}, {}, None),
    "ram_plus": ("ramplus_tl", {}, {}, None),
}
"""Our kind -> mergekit's method, its parameters of each model and of all, and how many experts it takes."""
BASELESS = ("linear", "karcher", "multi_slerp")


def config(kind: str, paths: list[str]) -> dict[str, Any]:
    """mergekit's configuration of a merge of `paths`, the base first; the same numbers in all layers."""
    method, each, common, limit = METHODS[kind]
    models = [{"model": path, "parameters": each} for path in paths[1:][:limit]]
    if kind == "slerp":
        models.insert(0, {"model": paths[0]})
    body: dict[str, Any] = {"merge_method": method, "models": models, "dtype": "bfloat16", "parameters": common}
    return body if kind in BASELESS else {**body, "base_model": paths[0]}


class Mergekit:
    """The other process. `seconds(kind)` times one merge; None where it has no such method."""

    def __init__(self, python: str, paths: list[Path], threads: int) -> None:
        command = [python, __file__, str(threads), *map(str, paths)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def seconds(self, kind: str) -> float | None:
        """Seconds of one in-memory merge."""
        if kind not in METHODS:
            return None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{kind}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer.strip():
            raise SystemExit("the mergekit process ended; its error stands above")
        return float(json.loads(answer))

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)


def main() -> None:
    """Answer each kind on stdin with the seconds of one merge."""
    import torch
    from mergekit.architecture import arch_info_for_config
    from mergekit.config import MergeConfiguration
    from mergekit.graph import Executor
    from mergekit.io.tasks import LoaderCache, ReturnTensor
    from mergekit.options import MergeOptions
    from mergekit.plan import MergePlanner
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.set_num_threads(int(sys.argv[1]))
    paths = sys.argv[2:]
    options = MergeOptions(quiet=True)
    LoaderCache().setup(options)
    base = AutoConfig.from_pretrained(paths[0])
    architecture = arch_info_for_config(base)
    live = dict(AutoModelForCausalLM.from_pretrained(paths[0], dtype=torch.bfloat16).named_parameters())

    def run(kind: str) -> None:
        merge = MergeConfiguration.model_validate(config(kind, paths))
        planner = MergePlanner(merge, architecture, options, base)
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
        begin = time.perf_counter()
        run(line.strip())
        print(json.dumps(time.perf_counter() - begin), flush=True)


if __name__ == "__main__":
    main()
