"""Real merges to search: base + sum of lambda times task vector by layer group, scored on small real test sets.

Names are '<pool>-<granularity>-<objectives>', such as 'gentle-block-4'. An axis is one expert's lambda in one group,
in [0, 1], starting at 1/K. Objectives are accuracies: of each task, or of two pairs of tasks. In hypervolumes the base
is 0 and a task's own expert 1 (scores on all splits together; a headroom below .05 counts as .05), the reference -0.1:
all of it fixed before any search. Exact gradients come by one backward pass.
"""

import functools
import heapq
import time
from pathlib import Path

import numpy as np
import search_vit
import torch
from numpy.typing import NDArray
from search_models import Pool, load_pool
from search_runs import shown_front
from torch import Tensor
from torch.nn import functional

from mergesearch.pareto import HypervolumeTracker, hypervolume
from mergesearch.results import BASE, EXPERT, MARGIN
from mergesearch.space import Knob, KnobRange, Per, Scale, SearchSpace, build_space
from mergesearch.strategies.base import Geometry, Observation
from mergesearch.types import Candidate, Objective, Request, Split, Vector

LEAST_HEADROOM = 0.05
FRONT_CAP = 16  # points of a front that are scored on the confirm and test splits, those that add most on search
PAIRS = ((0, 2), (1, 3))
LOSSES = ("loss", "kl", "entropy")


class RealMerge:
    """Target; values and exact gradients of one pool at one granularity."""

    def __init__(self, name: str, pool: Pool, granularity: str, objectives: int) -> None:
        self.name, self.pool = name, pool
        groups, of = pool.grouped(granularity)
        self._order_by_group(groups, of)
        tasks = pool.tasks
        self.tasks_of = tuple((t,) for t in range(len(tasks))) if objectives == len(tasks) else PAIRS
        self.objectives = tuple(Objective("+".join(tasks[t] for t in o), low=0.0, high=1.0) for o in self.tasks_of)
        knob = Knob("coefficient", 0.0, 1.0, None)
        span = KnobRange(0.0, 1.0, 1.0 / len(tasks), Per.EXPERT_GROUP, Scale.LINEAR)
        self.space: SearchSpace | None = build_space((knob,), tasks, groups, {"coefficient": span}, {})
        self.dim, self.start = self.space.dim, self.space.start
        self.seeds = tuple(self.space.encode({"coefficient": np.eye(len(tasks))[[k]]}) for k in range(len(tasks)))
        self.gradients: tuple[str, ...] = LOSSES
        self.gradient_cost = 3.0
        self.checkpoints = (30, 60, 125, 300, 500, 1000)
        self._teacher = self._expert_logits()
        self._held_out: dict[tuple[bytes, Split], Vector] = {}
        self.base, self.expert = self._scores_of(None), self._scores_of("own")
        self.headroom = np.maximum(self.expert - self.base, LEAST_HEADROOM)

    def observe(self, candidate: Candidate, examples: bool = False) -> Observation:
        """Accuracies on the search split's rows that the request names; losses and gradients where it asks."""
        assert candidate.point is not None
        request = candidate.request
        trunk = self._merged(self._lambdas(candidate.point))
        if request.gradient:
            correct, guides, gradients = self._with_gradient(trunk, request)
            slopes = self._pull(gradients, candidate.point)
        else:
            with torch.inference_mode():
                correct = self._correct(trunk, Split.SEARCH, request)
        rows = [torch.cat([correct[t] for t in o]).numpy() for o in self.tasks_of]
        accuracy = np.array([np.mean([correct[t].mean().item() for t in o]) for o in self.tasks_of])
        n = np.array([float(len(row)) for row in rows])
        stderr = np.sqrt(np.maximum(accuracy * (1 - accuracy), 1e-4) / n)
        each = tuple(-row.astype(np.float32) for row in rows) if examples else None
        if not request.gradient:
            return Observation(-accuracy, stderr, n, examples=each)
        mean = np.array([[t in o for t in range(len(correct))] for o in self.tasks_of], dtype=np.float64)
        mean /= mean.sum(axis=1, keepdims=True)  # (M, tasks)
        return Observation(-accuracy, stderr, n, mean @ guides, mean @ slopes, each)

    def geometry(self) -> Geometry | None:
        """Inner products of the task vectors by group."""
        gram = torch.stack([tau.double() @ tau.double().T for tau in self._tau]).numpy()
        base = np.array([float(part.double() @ part.double()) for part in self._base])
        return Geometry(gram, base, np.array([float(len(part)) for part in self._base]))

    def baselines(self) -> tuple[tuple[str, Observation], ...]:
        """The base and every expert on the search split."""
        assert self.space is not None
        base = self.space.encode({"coefficient": np.zeros((1, len(self.space.experts)))})
        points = [(BASE, base), *zip((f"{EXPERT}{name}" for name in self.space.experts), self.seeds, strict=True)]
        return tuple((origin, self.observe(Candidate(0, point))) for origin, point in points)

    def accuracies(self, point: Vector, split: Split) -> Vector:
        """Objective scores (M,) of a point on a whole split, remembered."""
        key = (point.tobytes(), split)
        if key not in self._held_out:
            with torch.inference_mode():
                correct = self._correct(self._merged(self._lambdas(point)), split, Request())
            each = [c.mean().item() for c in correct]
            self._held_out[key] = np.array([np.mean([each[t] for t in o]) for o in self.tasks_of])
        return self._held_out[key]

    def worth(self, points: NDArray[np.float64], losses: NDArray[np.float64], chosen: Vector) -> dict[str, float]:
        """Hypervolume of the front on the search split, of its `FRONT_CAP` best points on every split, and the mean
        accuracy of the chosen point on every split."""
        shown = shown_front(losses)
        gains = self._gains(-losses[shown]) if len(shown) else np.zeros((0, len(self.objectives)))
        reference = np.full(len(self.objectives), MARGIN)
        row = {"hv_search": hypervolume(-gains, reference), "front": float(len(shown))}
        row["hv_above_.3"] = hypervolume(losses[shown], np.full(len(self.objectives), -0.3)) if len(shown) else 0.0
        picks = shown[_most(-gains, reference, FRONT_CAP)] if len(shown) else shown
        for split in (Split.CONFIRM, Split.TEST):
            scores = np.array([self.accuracies(points[i], split) for i in picks]).reshape(
                len(picks), len(self.objectives)
            )
            row[f"hv_{split}"] = hypervolume(-self._gains(scores), reference) if len(picks) else 0.0
        for split in Split:
            row[f"mean_{split}"] = float(self.accuracies(chosen, split).mean())
        return row

    def gradient_ratio(self, repeats: int = 5) -> float:
        """CPU time of an evaluation with a gradient over one without; on a busy machine up to a quarter off."""
        taken = []
        for request in (Request(), Request(gradient="loss")):
            self.observe(Candidate(0, self.start, request=request))
            begun = time.process_time()
            for number in range(repeats):
                self.observe(Candidate(number, self.start, request=request))
            taken.append(time.process_time() - begun)
        return taken[1] / taken[0]

    def _order_by_group(self, groups: tuple[str, ...], of: NDArray[np.int64]) -> None:
        """Per group: flat base (P_g,), task vectors (K, P_g) and the tensors in them."""
        sizes = [shape.numel() for shape in self.pool.shapes.values()]
        base, experts = self.pool.base.split(sizes), self.pool.experts.split(sizes, dim=1)
        rows = [np.flatnonzero(of == g) for g in range(len(groups))]
        self._base = [torch.cat([base[i] for i in row]) for row in rows]
        self._tau = [torch.cat([experts[i] for i in row], 1) - self._base[g] for g, row in enumerate(rows)]
        names = list(self.pool.shapes)
        self._layout = [[(names[i], self.pool.shapes[names[i]]) for i in row] for row in rows]

    def _lambdas(self, point: Vector) -> Tensor:
        assert self.space is not None
        return torch.from_numpy(self.space.decode(point)["coefficient"].astype(np.float32))  # (G, K)

    def _merged(self, lambdas: Tensor) -> list[Tensor]:
        """Flat weights of each group, (P_g,)."""
        return [base + row @ tau for base, tau, row in zip(self._base, self._tau, lambdas, strict=True)]

    def _named(self, trunk: list[Tensor]) -> dict[str, Tensor]:
        found = {}
        for flat, layout in zip(trunk, self._layout, strict=True):
            parts = flat.split([shape.numel() for _, shape in layout])
            found |= {name: part.view(shape) for (name, shape), part in zip(layout, parts, strict=True)}
        return found

    def _logits(self, weights: dict[str, Tensor], task: str, image: Tensor) -> Tensor:
        return functional.linear(search_vit.features(weights, image, self.pool.attention_heads), *self.pool.heads[task])

    def _rows(self, task: str, split: Split, request: Request) -> Tensor:
        count = len(self.pool.data[task][split][1])
        rows = request.rows(count)
        return torch.from_numpy(rows if request.continues is None else np.arange(rows[-1] + 1))

    def _correct(self, trunk: list[Tensor], split: Split, request: Request) -> list[Tensor]:
        """1.0 where the merge is right, for each task (n,)."""
        weights, found = self._named(trunk), []
        for task in self.pool.tasks:
            rows = self._rows(task, split, request)
            image, label = self.pool.data[task][split]
            found.append((self._logits(weights, task, image[rows]).argmax(1) == label[rows]).float())
        return found

    def _with_gradient(
        self, trunk: list[Tensor], request: Request
    ) -> tuple[list[Tensor], NDArray[np.float64], NDArray[np.float64]]:
        """Right or wrong as `_correct`, losses (tasks,), their gradients by settings (tasks, G, K)."""
        correct, losses, gradients = [], [], []
        for index, task in enumerate(self.pool.tasks):
            weights = {name: value.detach().requires_grad_() for name, value in self._named(trunk).items()}
            rows = self._rows(task, Split.SEARCH, request)
            image, label = self.pool.data[task][Split.SEARCH]
            total, right = 0.0, []
            for part in rows.split(search_vit.chunk(weights)):
                logits = self._logits(weights, task, image[part])
                loss = _loss(request.gradient, logits, label[part], self._teacher[index][part]) / len(rows)
                loss.backward()  # type: ignore[no-untyped-call]
                total += loss.item()
                right.append((logits.detach().argmax(1) == label[part]).float())
            slopes = []
            for tau, layout in zip(self._tau, self._layout, strict=True):
                grad = torch.cat([weights[name].grad.flatten() for name, _ in layout])  # type: ignore[union-attr]
                slopes.append((tau @ grad).double().numpy())
            correct.append(torch.cat(right))
            losses.append(total)
            gradients.append(np.array(slopes))
        return correct, np.array(losses), np.array(gradients)

    def _pull(self, gradients: NDArray[np.float64], point: Vector) -> NDArray[np.float64]:
        assert self.space is not None
        return np.array([self.space.pull_back(point, {"coefficient": table}) for table in gradients])

    def _expert_logits(self) -> list[Tensor]:
        found = []
        with torch.inference_mode():
            for task, flat in zip(self.pool.tasks, self.pool.experts, strict=True):
                weights = self.pool.named(flat)
                found.append(self._logits(weights, task, self.pool.data[task][Split.SEARCH][0]).clone())
        return [logits.detach().clone() for logits in found]

    def _scores_of(self, which: str | None) -> Vector:
        """Objective scores (M,) over all splits of the base, or of every task's own expert."""
        each = []
        with torch.inference_mode():
            for k, task in enumerate(self.pool.tasks):
                weights = self.pool.named(self.pool.experts[k] if which else self.pool.base)
                image, label = (torch.cat([self.pool.data[task][s][part] for s in Split]) for part in (0, 1))
                each.append((self._logits(weights, task, image).argmax(1) == label).float().mean().item())
        return np.array([np.mean([each[t] for t in o]) for o in self.tasks_of])

    def _gains(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Scores (n, M) in units where the base is 0 and the expert 1."""
        return (scores - self.base) / self.headroom


def _loss(kind: str, logits: Tensor, label: Tensor, teacher: Tensor) -> Tensor:
    """The sum of a differentiable loss over a batch."""
    if kind == "loss":
        return functional.cross_entropy(logits, label, reduction="sum")
    log = logits.log_softmax(1)
    if kind == "kl":
        return functional.kl_div(log, teacher.log_softmax(1), reduction="sum", log_target=True)
    return -(log.exp() * log).sum()


def _most(losses: NDArray[np.float64], reference: Vector, cap: int) -> NDArray[np.int64]:
    """Up to `cap` rows that add most hypervolume, greedily (lazily: what a row adds only falls)."""
    tracker, picked = HypervolumeTracker(reference), []
    heap = [(-tracker.contribution(row), i) for i, row in enumerate(losses)]
    heapq.heapify(heap)
    while heap and len(picked) < cap:
        _, i = heapq.heappop(heap)
        gain = tracker.contribution(losses[i])
        if gain <= 0.0:
            continue
        if heap and gain < -heap[0][0] - 1e-15:
            heapq.heappush(heap, (-gain, i))
            continue
        tracker = tracker.add(losses[i])
        picked.append(i)
    return np.array(picked, dtype=np.int64)


@functools.lru_cache(maxsize=2)
def real_merge(name: str, seed: int, cache: Path) -> RealMerge:
    """The setting of a name. The demo's pools are those of seed 0, made once; digits are made anew for each seed."""
    pool, granularity, objectives = name.split("-")
    return RealMerge(name, load_pool(pool, seed if pool == "digits" else 0, cache), granularity, int(objectives))
