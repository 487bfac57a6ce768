"""Promises of the rules that all pools share: how often a job is tried."""

from dataclasses import replace

import numpy as np

from mergesearch.pool.base import Job
from mergesearch.pool.jobs import Ticket, finished, one_sentence
from mergesearch.types import Failed, Score, Scored, Split, Timing

TICKET = Ticket(Job(7, Split.TEST, np.zeros(1)), submitted=10.0)


def test_two_dead_workers_end_a_job() -> None:
    """On machines that live on, the second worker that dies of a job is the last."""
    once = TICKET.started().lost(machine_lives=True)
    assert isinstance(once, Ticket)
    twice = once.started().lost(machine_lives=True)
    assert isinstance(twice, Failed)
    assert (twice.kind, "died 2 times" in twice.message) == ("worker_lost", True)


def test_three_lost_machines_end_a_job() -> None:
    """A lost machine is not the job's fault: it has three attempts."""
    ticket = TICKET
    for _ in range(2):
        again = ticket.started().lost(machine_lives=False)
        assert isinstance(again, Ticket)
        ticket = again
    last = ticket.started().lost(machine_lives=False)
    assert isinstance(last, Failed)
    assert (last.kind, last.message) == ("worker_lost", "its worker or machine was lost in each of 3 attempts")


def test_losses_of_both_kinds_add_up() -> None:
    """After a dead worker and two lost machines a job has had its three attempts."""
    ticket = replace(TICKET, attempts=2, kills=1).started().lost(machine_lives=False)
    assert isinstance(ticket, Failed)
    assert ticket.message == "its worker or machine was lost in each of 3 attempts"


def test_a_result_says_how_long_the_job_waited_and_where_it_ran() -> None:
    """The time in the queue and the worker's name are added; the worker's own times stay."""
    outcome = Scored({"a": Score(1.0)}, timing=Timing(build=1.0, score=2.0))
    result = finished(TICKET, outcome, started=13.5, worker="here:1")
    assert (result.job, result.attempt) == (TICKET.job, 1)
    assert result.outcome.timing == Timing(3.5, 1.0, 2.0)
    assert result.outcome.worker == "here:1"


def test_a_result_counts_attempts_and_gpu_seconds() -> None:
    """The attempt is that of the ticket; GPU-seconds are build and score times the GPUs of the worker."""
    outcome = Scored({"a": Score(1.0)}, timing=Timing(build=1.0, score=2.0))
    result = finished(TICKET.started().started(), outcome, started=10.0, worker="here:1", gpus=0.5)
    assert (result.attempt, result.outcome.timing.gpu) == (2, 1.5)


def test_a_death_says_what_is_known_of_it() -> None:
    """Where Ray's memory monitor ended the worker, the message names that."""
    last = replace(TICKET, kills=1).started().lost(machine_lives=True, why="its machine ran out of memory")
    assert isinstance(last, Failed)
    assert last.message == "its worker process died 2 times while it ran (its machine ran out of memory)"


def test_messages_are_one_line() -> None:
    """Line breaks become blanks, long texts are cut, an empty text is the class name."""
    assert one_sentence(ValueError("a\n  b")) == "a b"
    assert len(one_sentence(ValueError("x" * 9999))) == 500
    assert one_sentence(KeyError()) == "KeyError"
