"""Promises of the inline pool beyond the contract."""

from functools import partial

import numpy as np
import pytest

from mergesearch.pool.base import Job, WorkerOptions
from mergesearch.pool.function import FunctionWorker
from mergesearch.pool.inline import InlinePool
from mergesearch.types import Scored, Split, Vector


def test_ctrl_c_goes_through_and_the_job_is_not_lost() -> None:
    """An interrupted job stays queued: whoever goes on polling gets it."""
    interrupts = [True]

    def function(values: Vector) -> dict[str, float]:
        if interrupts:
            interrupts.pop()
            raise KeyboardInterrupt
        return {"sum": float(values.sum())}

    pool = InlinePool(WorkerOptions(), partial(FunctionWorker, function, ("sum",)))
    pool.submit(Job(0, Split.SEARCH, np.ones(2)))
    with pytest.raises(KeyboardInterrupt):
        pool.poll(1.0)
    (result,) = pool.poll(1.0)
    assert isinstance(result.outcome, Scored)
    assert pool.size == 1


def test_the_worker_is_built_when_it_is_first_needed() -> None:
    """Opening a pool loads nothing; one worker serves all jobs."""
    built = []

    def factory() -> FunctionWorker:
        built.append(1)
        return FunctionWorker(lambda values: {"sum": 0.0}, ("sum",))

    pool = InlinePool(WorkerOptions(), factory)
    assert not built
    for number in range(3):
        pool.submit(Job(number, Split.SEARCH, np.ones(2)))
        pool.poll(0.0)
    assert len(built) == 1
