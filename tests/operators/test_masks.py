"""Sums over masks, and the making and counting of masks: compiled loops and torch give the same bits."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mergesearch.operators.base import Layout
from mergesearch.operators.consensus import Consensus, Options
from mergesearch.operators.passes.marks import count_marks, mark_agreed
from mergesearch.operators.passes.stream import Stream

N = 1100
"""Entries: more than two blocks of the compiled loops."""
SEEDS, COUNTS = st.integers(0, 10_000), st.integers(1, 17)
DTYPES = st.sampled_from([torch.bfloat16, torch.float32])


def models(seed: int, count: int, dtype: torch.dtype) -> list[dict[str, torch.Tensor]]:
    """A base and experts with equal and infinite entries and NaN among them; one empty tensor, one of one entry."""
    rng = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(count + 1):
        tensor = torch.randn(N, generator=rng).mul_(4).round_().div_(4)
        tensor[torch.randint(0, N, (6,), generator=rng)] = torch.tensor([np.inf, -np.inf, np.nan, -0.0, 3e38, 0.0])
        found.append({"w": tensor.to(dtype), "none": torch.zeros(0, dtype=dtype), "one": tensor[:1].to(dtype)})
    return found


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors have the same values, NaN at the same places."""
    return bool(((a == b) & (a.signbit() == b.signbit()) | a.isnan() & b.isnan()).all())


@given(seed=SEEDS, count=COUNTS, dtype=DTYPES, average=st.booleans(), apart=st.booleans(), marked=st.booleans())
@settings(max_examples=60, deadline=None)
def test_masked_sums_have_the_same_bits(
    seed: int, count: int, dtype: torch.dtype, average: bool, apart: bool, marked: bool
) -> None:
    """For any number of experts, with weights of 0 among them, averaged or not, others where one expert is alone."""
    every, rng = models(seed, count, dtype), np.random.default_rng(seed)
    weights = np.round(rng.uniform(-1, 2, (3, count)), 1) * (rng.random((3, count)) < 0.7)
    alone = weights * np.where(rng.random((3, count)) < 0.5, 1.5, 1.0) if apart else None
    planes = (-(-count // 8), N)
    masks = {"w": torch.from_numpy(rng.integers(0, 256, planes, dtype=np.uint8))} if marked else {}
    found = []
    for compiled in (True, False):
        into = {name: torch.empty_like(x) for name, x in every[0].items()}
        stream = Stream(every, list(into), compiled)
        stream.masked_sum(list(into), weights, masks, into, average=average, alone=alone)
        found.append(into)
    assert all(same(found[0][name], found[1][name]) for name in every[0])


@given(seed=SEEDS, count=COUNTS, dtype=DTYPES, threshold=st.floats(0.1, 1.0), agreement=st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_agreement_is_found_alike(seed: int, count: int, dtype: torch.dtype, threshold: float, agreement: int) -> None:
    """Thresholds of each expert, an agreement of each tensor."""
    every, rng = models(seed, count, dtype), np.random.default_rng(seed)
    thresholds, agreements = threshold * rng.choice([0.5, 1.0], (3, count)), np.array([agreement, 1.0, 2.0])
    found = []
    for compiled in (True, False):
        masks = {name: torch.full_like(x, 7, dtype=torch.uint8) for name, x in every[0].items()}
        mark_agreed(Stream(every, list(masks), compiled), list(masks), thresholds, agreements, masks)
        found.append(masks)
    assert all(torch.equal(found[0][name], found[1][name]) for name in every[0])


@given(seed=SEEDS, count=COUNTS, threads=st.integers(1, 2))
@settings(max_examples=20, deadline=None)
def test_marks_are_counted_alike(seed: int, count: int, threads: int) -> None:
    """Alone and with others, on any number of threads, as a count of the unpacked bits."""
    rng = np.random.default_rng(seed)
    bits = rng.random((count, 9000)) < 1.5 / count
    mask = torch.zeros((-(-count // 8), 9000), dtype=torch.uint8)
    for k in range(count):
        mask[k // 8] |= torch.from_numpy(bits[k]).to(torch.uint8) << (k % 8)
    number = bits.sum(axis=0)
    wanted = np.stack([(bits & (number == 1)).sum(axis=1), (bits & (number > 1)).sum(axis=1)])
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for compiled in (True, False):
            stream = Stream([{"w": torch.zeros(1)}], ["w"], compiled)
            np.testing.assert_array_equal(count_marks(stream, mask, count), wanted)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("count", [3, 9])
def test_consensus_remakes_only_the_masks_whose_knobs_moved(count: int) -> None:
    """Each tensor has the threshold and agreement of its group; going back gives the same bits."""
    base, *experts = models(1, count, torch.bfloat16)
    layout = Layout(tuple(map(str, range(count))), ("a", "b"), {"w": 0, "none": 0, "one": 1})
    prepared = Consensus(Options()).prepare(base, experts, layout)
    knobs: dict[str, Any] = {"coefficient": 1.0, "threshold": 0.4, "agreement": 2.0, "scale": 0.5}

    def build(threshold: float) -> dict[str, torch.Tensor]:
        tables = {name: np.full((2, count), value) for name, value in knobs.items()}
        tables["threshold"][0] = threshold
        into = {name: torch.empty_like(x) for name, x in base.items()}
        prepared.apply(tables, list(into), into)
        return into

    first, moved, again = build(0.4), build(0.9), build(0.4)
    assert not same(first["w"], moved["w"])
    assert all(same(first[name], again[name]) for name in base)
    assert same(first["one"], moved["one"])
