"""Made-up studies for the reports: a known trade-off between experts, its log written through the memory store."""

import io
from dataclasses import replace

import numpy as np
from rich.console import Console

from mergesearch.report.view import StudyView, read_view
from mergesearch.results import BASE, EXPERT, LAMBDA, UNIFORM, Results
from mergesearch.space import Knob, KnobRange, Per, Scale, build_space
from mergesearch.store.memory import MemoryStore
from mergesearch.stored import describe
from mergesearch.types import Candidate, Direction, Failed, Objective, Score, Scored, Split, Status, Timing

NAMES = ("mnist", "fashion", "digits", "letters")
GROUPS = ("embed", "L0", "L1", "L2", "L3", "L4", "L5", "norm")
PER_SPLIT = {Split.SEARCH: 300, Split.CONFIRM: 200, Split.TEST: 600}
BASES = np.array([0.70, 0.70, 0.89, 0.47])
GAINS = np.array([0.15, 0.07, 0.05, 0.27])
KNOB = Knob("coefficient", 0.0, 1.5, 0.3, searched=True)


def space(count, groups=GROUPS):
    """Coefficients of `count` experts in `groups`."""
    ranges = {"coefficient": KnobRange(0.0, 1.5, 0.3, Per.EXPERT_GROUP, Scale.LINEAR)}
    return build_space([KNOB], NAMES[:count], groups, ranges, {})


def chances(table):
    """Chance (K,) of a right answer on each task for coefficients (G, K): helped by the own, hurt by the others."""
    mean = table.mean(axis=0)
    others = mean.sum() - mean
    return np.clip(BASES[: len(mean)] + GAINS[: len(mean)] * (2 * mean - mean**2) - 0.09 * others**1.5, 0.02, 0.99)


def scored(names, table, split, seconds=1.0, bounded=True, keep=True):
    """The outcome of coefficients (G, K) on a split; every candidate meets the same examples."""
    scores, examples = {}, {}
    for task, (name, chance) in enumerate(zip(names, chances(table), strict=True)):
        draw = np.random.default_rng([7, task, list(Split).index(split)]).random(PER_SPLIT[split])
        values = (draw < chance).astype(np.float32)
        values = values if bounded else (0.1 + 2.0 * (1.0 - values)).astype(np.float32)
        value = float(values.mean(dtype=np.float64))
        scores[name] = Score(value, float(values.std() / np.sqrt(len(values))), len(values))
        examples[name] = values
    return Scored(scores, {}, examples if keep else {}, timing=Timing(0.02, 0.03, seconds), worker="worker-0")


def text_of(renderable, width=80):
    """What a terminal of that width shows."""
    file = io.StringIO()
    Console(width=width, force_terminal=False, file=file).print(renderable)
    return file.getvalue()


class Study:
    """Writes a study's log step by step; `view` is what a report reads of it."""

    def __init__(self, objectives=4, bounded=True, keep=True, name="vision-4", names=NAMES):
        way, high = (Direction.MAX, 1.0) if bounded else (Direction.MIN, None)
        self.names = names[:objectives]
        self.objectives = tuple(Objective(n, way, low=0.0, high=high) for n in self.names)
        self.space = space(max(objectives, 2))
        self.bounded, self.keep = bounded, keep
        self.store = MemoryStore()
        self.store.create(name, "name: made-up", "digest", 0.0, describe(self.space, self.objectives, 60, "map"))
        self.lease = self.store.acquire(name, "test", 60.0, 0.0)
        self.name, self.count = name, 0

    def evaluate(self, candidate, table, split=Split.SEARCH, failed=None):
        """Ask and tell one evaluation."""
        self.store.ask(self.lease, candidate, split, 1.0)
        outcome = scored(self.names, table[:, : len(self.names)], split, 1.0, self.bounded, self.keep)
        self.store.tell(self.lease, candidate.number, split, failed or outcome, 2.0)

    def add(self, table, origin="sample", point=None, failed=None):
        """A new candidate on the search split; returns it."""
        candidate = Candidate(self.count, point, origin)
        self.count += 1
        self.evaluate(candidate, table, failed=failed)
        return candidate, table

    def baselines(self):
        """Base, experts, uniform average and some single λ: origin -> (candidate, table)."""
        count = len(self.space.experts)
        rows = {BASE: np.zeros(count), UNIFORM: np.full(count, 1 / count)}
        rows |= {f"{EXPERT}{n}": np.eye(count)[k] for k, n in enumerate(self.space.experts)}
        rows |= {f"{LAMBDA}{v:g}": np.full(count, v) for v in (0.1, 0.2, 0.3, 0.5, 1.0)}
        return {origin: self.add(np.tile(row, (len(GROUPS), 1)), origin) for origin, row in rows.items()}

    def search(self, evaluations, fail_every=0, seed=0):
        """Candidates around the start, ever nearer to it, every `fail_every`-th of them failed."""
        generator = np.random.default_rng(seed)
        found = []
        for i in range(evaluations):
            reach = 0.5 if i < evaluations / 2 else 0.25
            shift = generator.normal(0, reach * 0.5, self.space.dim)
            lean = np.tile(generator.normal(0, reach, len(self.space.experts)), len(GROUPS))
            point = np.clip(self.space.start + (0 if i == 0 else 1) * 0.35 * (shift + lean), 0, 1)
            failed = None
            if fail_every and i % fail_every == fail_every - 1:
                failed = Failed("not_finite", f"objective 'mnist' scored nan at <evaluation {i}> & more")
            table = self.space.decode(point)["coefficient"]
            added = self.add(table, "start" if i == 0 else "sample", point, failed)
            found += [] if failed else [added]
        return found

    def finish(self, baselines, finalists):
        """Confirm finalists and baselines, test the first and the baselines; the last facts and status."""
        for candidate, table in [*finalists, *baselines]:
            self.evaluate(candidate, table, Split.CONFIRM)
        for candidate, table in [*finalists[:1], *baselines]:
            self.evaluate(candidate, table, Split.TEST)
        diagnostics = {f"r2.{name}": 0.93 - 0.11 * k for k, name in enumerate(self.names)}
        chosen = finalists[0][0].number if finalists else None
        self.store.set_facts(self.lease, {"chosen": chosen, "diagnostics": diagnostics | {"population": 40}})
        self.store.set_status(self.lease, Status.DONE, "", 3.0)

    def view(self, budget=60) -> StudyView:
        """What a report reads."""
        return replace(read_view(self.store, self.name), budget=budget)


def finished(objectives=4, evaluations=60, fail_every=0, bounded=True, keep=True) -> StudyView:
    """A whole study with baselines, confirm and test splits."""
    study = Study(objectives, bounded, keep)
    baselines = study.baselines()
    found = study.search(evaluations, fail_every)
    results = Results(study.objectives, study.store.events(study.name))
    ranked = sorted(found, key=lambda pair: results.weighted(pair[0].number))
    shown = [pair for origin, pair in baselines.items() if not origin.startswith(LAMBDA)]
    shown.append(next(pair for pair in baselines.values() if pair[0].number == results.best_lambda()))
    study.finish(shown, ranked[:4])
    return study.view(evaluations)


def unfinished(objectives=2, evaluations=12, baselines=False) -> StudyView:
    """A study that is still searching."""
    study = Study(objectives)
    if baselines:
        study.baselines()
    study.search(evaluations)
    return study.view(40)


def empty(objectives=2) -> StudyView:
    """A study in which nothing has happened."""
    return Study(objectives).view()
