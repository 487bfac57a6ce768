"""A store with a study that merges: coefficients by layer group and expert, examples, an export, a failure."""

import numpy as np

from mergesearch.results import BASE, EXPERT, UNIFORM
from mergesearch.space import Knob, KnobRange, Per, Scale, build_space
from mergesearch.store.base import Artifact, Lease, StudyStore
from mergesearch.stored import describe
from mergesearch.types import Candidate, Direction, Failed, Objective, Score, Scored, Split, Status, Timing

SPEC = (
    "name: {name}\nmodels:\n  base: models/base\n  experts: {{{experts}}}\nmerge: {{operator: ties, heads: {heads}}}\n"
)
KNOBS = [Knob("coefficient", 0.0, 1.5, 0.3, searched=True), Knob("density", 0.05, 1.0, 0.5), Knob("scale", 0, 2, 1.0)]
SECRET = "/srv/secret/exports/first"


def fill_merge(
    store: StudyStore,
    name: str = "merge",
    *,
    groups: int = 4,
    experts: tuple[str, ...] = ("a", "b", "c"),
    evaluations: int = 12,
    keep: bool = True,
    heads: str = "[]",
) -> list[int]:
    """Baselines, the search (its last evaluation fails), one candidate on every split, chosen and exported; the
    numbers of the search's candidates. `keep`: per-example values too. Objectives are the experts', and 'cost'."""
    aims = (*(Objective(e, low=0.0, high=1.0) for e in experts), Objective("cost", Direction.MIN))
    ranges = {
        "coefficient": KnobRange(0.0, 1.5, 0.3, Per.EXPERT_GROUP, Scale.LINEAR),
        "density": KnobRange(0.05, 1.0, 0.5, Per.GROUP, Scale.LINEAR),
    }
    space = build_space(KNOBS, experts, [f"L{i}" for i in range(groups)], ranges, {})
    spec = SPEC.format(name=name, experts=", ".join(f"{e}: models/{e}" for e in experts), heads=heads)
    facts = describe(space, aims, float(evaluations), "cma_es", merge={"operator": "ties", "options": {}})
    store.create(name, spec, "", facts=facts)
    lease = store.acquire(name, "here:1:1:test", 600.0)
    skills = [np.full(len(aims), 0.5) for _ in range(len(experts) + 2)]
    for k in range(len(experts)):
        skills[1 + k][k] = 0.9
    for number, origin in enumerate([BASE, *(f"{EXPERT}{e}" for e in experts), UNIFORM]):
        for split in (Split.SEARCH, Split.TEST):
            _evaluate(store, lease, Candidate(number, None, origin), split, aims, skills[number], keep)
    generator = np.random.default_rng(0)
    numbers = list(range(len(skills), len(skills) + evaluations))
    for number in numbers:
        point = np.clip(space.start + generator.normal(0.0, 0.2, space.dim), 0.0, 1.0)
        candidate = Candidate(number, space.start if number == numbers[0] else point)
        if number == numbers[-1]:
            store.ask(lease, candidate, Split.SEARCH)
            store.tell(lease, number, Split.SEARCH, Failed("RuntimeError", "out of memory <b>here</b>"))
            continue
        skill = np.clip(0.65 + generator.normal(0.0, 0.1, len(aims)), 0.05, 0.95)
        for split in Split if number == numbers[1] else (Split.SEARCH,):
            _evaluate(store, lease, candidate, split, aims, skill, keep)
    store.add_artifact(name, Artifact(numbers[1], "export", SECRET, "ab" * 32, 1.7e9))
    store.set_facts(lease, {"chosen": numbers[1]})
    store.set_status(lease, Status.DONE, "")
    store.release(lease)
    return numbers


def _evaluate(
    store: StudyStore,
    lease: Lease,
    candidate: Candidate,
    split: Split,
    aims: tuple[Objective, ...],
    skill: np.ndarray,
    keep: bool,
) -> None:
    scores, examples = {}, {}
    for at, aim in enumerate(aims):
        draw = np.random.default_rng([at, list(Split).index(split)])
        values = 2.0 - skill[at] + draw.normal(0, 0.3, 300) if aim.name == "cost" else draw.random(200) < skill[at]
        values = values.astype(np.float32)
        error = float(values.std() / np.sqrt(len(values)))
        scores[aim.name] = Score(float(values.mean(dtype=np.float64)), error, len(values))
        examples[aim.name] = values
    store.ask(lease, candidate, split)
    told = Scored(scores, {}, examples if keep else {}, timing=Timing(0.5, 1.0, 2.0, 0.01), worker="w0")
    store.tell(lease, candidate.number, split, told)
