"""A made-up study in a store, with failures, held-out splits, a baseline, a share of the examples, an open ask."""

import numpy as np

from mergesearch.space import Axis, Scale, SearchSpace
from mergesearch.store.base import Lease, StudyStore
from mergesearch.stored import describe
from mergesearch.types import Candidate, Direction, Failed, Objective, Request, Score, Scored, Split, Status, Timing

AXES = (
    Axis("coefficient.a.L0", 0.0, 1.5, 0.3),
    Axis("density", 0.01, 1.0, 0.5, Scale.LOG),
    Axis("keep", 0.05, 0.95, 0.5, Scale.LOGIT),
    Axis("rank", 1.0, 8.0, 4.0, whole=True),
    Axis("cost", -2.0, 2.0, 0.0),
)
SPACE = SearchSpace(AXES)
OBJECTIVES = (Objective("acc", low=0.0, high=1.0), Objective("loss", Direction.MIN))
BASE = "baseline:base"
EXAMPLES = 12


def scored(value: float, examples: bool = True) -> Scored:
    """An outcome with a score of that value for both objectives, metrics and per-example values."""
    own = {o.name: Score(value, 0.125, EXAMPLES) for o in OBJECTIVES}
    metrics = {"acc": {"accuracy": own["acc"], "entropy": Score(2 * value, 0.5, EXAMPLES)}}
    values = {o.name: np.linspace(0, value, EXAMPLES, dtype=np.float32) for o in OBJECTIVES} if examples else {}
    return Scored(own, metrics, values, timing=Timing(0.5, 0.25, 2.0, 0.0625, 4.5), worker="w1")


def fill(store: StudyStore, name: str = "made", count: int = 6, status: Status = Status.DONE) -> None:
    """Write the study: #0 the base, then `count` points; #3 fails, #4 has a quarter of the examples, the last is open;
    #1 is also confirmed and tested, and chosen."""
    store.create(name, "name: made", "digest", None, describe(SPACE, OBJECTIVES, 60, "map"))
    lease = store.acquire(name, "test", 60.0)
    generator = np.random.default_rng(0)
    candidates = [Candidate(0, None, BASE)]
    for n in range(1, count + 1):
        request = Request(share=0.25) if n == 4 else Request()
        candidates.append(Candidate(n, generator.uniform(size=SPACE.dim), "sample", request, request.share))
    for candidate in candidates:
        store.ask(lease, candidate, Split.SEARCH)
        if candidate.number == count:
            break
        failed = Failed("timeout", "took longer than 3 s", Timing(0.5, 3.0), "w2")
        store.tell(
            lease, candidate.number, Split.SEARCH, failed if candidate.number == 3 else scored(candidate.number / 10)
        )
    _hold_out(store, lease, candidates[1])
    store.set_facts(lease, {"chosen": 1})
    store.set_status(lease, status, "")
    store.release(lease)


def _hold_out(store: StudyStore, lease: Lease, candidate: Candidate) -> None:
    for split, value in ((Split.CONFIRM, 0.11), (Split.TEST, 0.12)):
        store.ask(lease, candidate, split)
        store.tell(lease, candidate.number, split, scored(value))
