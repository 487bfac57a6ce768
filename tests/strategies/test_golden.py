"""First proposals of every strategy, recorded: a change of them is a change of every study, and must be meant.

To record again: `python tests/strategies/test_golden.py` (with the repository and tests/ on the path).
"""

import json
from pathlib import Path

import numpy as np
import pytest

from mergesearch.plugins import load
from mergesearch.strategies import STRATEGIES
from mergesearch.strategies.base import Observation, Problem
from mergesearch.types import Candidate, Objective

GOLDEN = Path(__file__).with_name("first_proposals.json")


def first_proposals(kind):
    """[origin, point] of the first five candidates of one study with seed 11, each told before the next is asked."""
    of = Problem(4, (Objective("acc", low=0.0, high=1.0),), np.array([0.2, 0.4, 0.6, 0.8]), 30)
    cls = load("strategy", STRATEGIES, kind)
    subject = cls(of, 11, cls.Options())
    proposals = []
    for number in range(5):
        proposal = subject.ask(number)
        candidate = Candidate(number, proposal.point, proposal.origin)
        subject.asked(candidate)
        proposals.append([proposal.origin, proposal.point.tolist()])
        loss = np.array([-1.0 / (1.0 + float(np.sum(np.square(candidate.point - 0.5))))])
        subject.tell(candidate, Observation(loss, np.array([0.01]), np.array([500.0])))
    return proposals


@pytest.mark.parametrize("kind", sorted(STRATEGIES))
def test_first_proposals_are_as_recorded(kind):
    """A strategy begins as it always did; a new one has its first proposals recorded."""
    recorded = json.loads(GOLDEN.read_text())
    assert kind in recorded, f"record the first proposals of {kind!r}: see this file's first lines"
    for (origin, point), (old_origin, old_point) in zip(first_proposals(kind), recorded[kind], strict=True):
        assert origin == old_origin
        assert np.allclose(point, old_point, rtol=0, atol=1e-12)


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps({kind: first_proposals(kind) for kind in sorted(STRATEGIES)}, indent=1) + "\n")
