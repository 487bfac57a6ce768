"""What DARE, DELLA and their counter-based masks promise beyond the contract."""

import hashlib
import json
import os

import numpy as np
import pytest
import torch
from golden.cases import CASES, Case
from hypothesis import given, settings
from hypothesis import strategies as st

from mergesearch.errors import EvaluationError
from mergesearch.merging import make_operator, merge
from mergesearch.operators.base import Layout
from mergesearch.operators.passes import counter_random as _counter_random
from mergesearch.operators.passes import stream as _stream
from mergesearch.operators.passes import thinned as _thinned
from mergesearch.operators.passes.chunked import CHUNK
from mergesearch.operators.passes.random_pass import RandomPass
from mergesearch.operators.passes.row_ranks import row_ranks
from mergesearch.operators.passes.stream import Stream

KINDS = ("dare_linear", "dare_ties", "della", "della_linear")
NAME = "model.layers.0.mlp.up_proj.weight"
KEY, OTHER = _counter_random.keys(0, ["math", "code"], NAME)
N = 1 << 20
State = dict[str, torch.Tensor]


def models(shape: tuple[int, ...], count: int, seed: int = 0, grain: float = 0.0) -> tuple[State, dict[str, State]]:
    """A float64 base and named experts; `grain`: changes are rounded to multiples of it, so that many are equal."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(shape, generator=generator, dtype=torch.float64)
    base = (base / grain).round() * grain if grain else base
    experts = {}
    for k in range(count):
        change = 0.1 * torch.randn(shape, generator=generator, dtype=torch.float64)
        experts[f"e{k}"] = {"w": base + ((change / grain).round() * grain if grain else change)}
    return {"w": base}, experts


def python_word(seed: int, expert: str, tensor: str, j: int) -> int:
    """The word as the module's docstring defines it, in Python's integers."""
    digest = hashlib.blake2b(json.dumps([seed, expert, tensor]).encode(), digest_size=8).digest()
    key0, key1 = (int.from_bytes(digest[i : i + 4], "little") for i in (0, 4))

    x = j + key0 & 0xFFFFFFFF
    x = (x ^ x >> 17) * 0xED5AD4BB & 0xFFFFFFFF
    x = (x ^ x >> 11 ^ (key1 + 0x9E3779B9 * (j >> 32) & 0xFFFFFFFF)) * 0xAC4C1B51 & 0xFFFFFFFF
    x = (x ^ x >> 15) * 0x31848BAB & 0xFFFFFFFF
    return x ^ x >> 14


def words(key: np.ndarray, begin: int, end: int) -> list[int]:
    """Words as Python integers."""
    return [x & 0xFFFFFFFF for x in _counter_random.words(key, begin, end).tolist()]


def test_words_never_change() -> None:
    """Recorded keys and words: a recipe that names a seed must mean the same masks in every version."""
    assert KEY.tolist() == [3240458035, 3723729646]
    assert _counter_random.keys(7, ["math"], "w").tolist() == [[1909754497, 3627798213]]
    assert words(KEY, 0, 4) == [2721266689, 3660844935, 975869496, 1018332920]
    assert words(OTHER, 0, 4) == [1978069171, 2279562563, 1861180425, 548836731]
    assert words(KEY, 2**32 - 2, 2**32 + 2) == [1102370842, 1309839940, 3754619426, 3562321241]


@given(seed=st.integers(-3, 9), expert=st.text(max_size=4), tensor=st.text(max_size=4), j=st.integers(0, 2**34))
@settings(max_examples=100, deadline=None)
def test_words_follow_their_definition(seed: int, expert: str, tensor: str, j: int) -> None:
    """Torch's int32 arithmetic gives what Python's integers give, beyond 2^32 entries too; no chunk shows."""
    key = _counter_random.keys(seed, [expert], tensor)[0]
    assert words(key, j, j + 1) == [python_word(seed, expert, tensor, j)]
    u = float(_counter_random.uniforms(key, j, j + 1))
    assert u == (words(key, j, j + 1)[0] >> 8) / 2**24
    assert _counter_random.uniforms(key, max(j - 3, 0), j + 2)[min(j, 3)] == u


@pytest.mark.parametrize("begin", [0, 12345, 2**32 - 700])
def test_compiled_loops_draw_the_same_numbers(begin: int) -> None:
    """At a probability of u itself, and next above it, the compiled loops drop and keep; across 2^32 entries too."""
    from mergesearch.operators.passes import compiled_random as _compiled_random

    count = 1400
    u = _counter_random.uniforms(KEY, begin, begin + count)
    ones, zeros = torch.ones(count), torch.zeros(count)
    # Addresses as if the tensors had begun `begin` entries earlier: only entries from `begin` on are read.
    address = np.array([[x.data_ptr() - 4 * begin] for x in (zeros, ones, zeros)])
    span = (np.array([0, begin + count]), begin, begin + count)
    for p in (float(u[0]), float(u[count // 2]), float(u[-1]), 0.5, 1.0, 0.0):
        for threshold in (np.float32(p), np.nextafter(np.float32(p), np.float32(2))):
            sums = np.zeros((1, 1), dtype=np.int64)
            odds = np.array([[[threshold, 0]]], dtype=np.float32)
            one = np.ones((1, 1), dtype=np.float32)
            none = np.zeros((1, 1), dtype=np.int64)
            samples = (np.zeros(0, np.float32), np.zeros(0, np.uint16), np.zeros(0, np.uint8))
            tables = (address, none, KEY[None, None], odds, none)
            _compiled_random.kept_sizes(tables, one, one > 0, span, samples, sums)
            assert sums[0, 0] == int((u < float(threshold)).sum())


@pytest.mark.parametrize("p", [0.05, 0.3, 0.5, 0.95])
def test_the_kept_share_is_the_density_and_masks_are_nested(p: float) -> None:
    """Within 5 standard errors; what is kept at p is kept at any larger p; 0 keeps nothing and 1 everything."""
    u = _counter_random.uniforms(KEY, 0, N)
    kept = u < np.float32(p)
    assert abs(int(kept.sum()) - p * N) < 5 * (N * p * (1 - p)) ** 0.5
    assert not (kept & ~(u < p * 1.01)).any()
    assert not (u < 0.0).any()
    assert (u < 1.0).all()


def test_numbers_are_uniform() -> None:
    """Chi-square over the 256 values of each of the three upper bytes of the words."""
    drawn = _counter_random.words(KEY, 0, N)
    for shift in (8, 16, 24):
        counts = torch.bincount(drawn >> shift & 255, minlength=256).double()
        chi = float(((counts - N / 256) ** 2 / (N / 256)).sum())
        assert abs(chi - 255) < 5 * (2 * 255) ** 0.5


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_masks_are_independent_of_neighbours_experts_tensors_and_seeds(p: float) -> None:
    """Correlations of masks at many lags, and between streams that differ in one word of their key's name."""

    def centred(seed: int, expert: str, tensor: str) -> torch.Tensor:
        key = _counter_random.keys(seed, [expert], tensor)[0]
        return (_counter_random.uniforms(key, 0, N) < np.float32(p)).double() - p

    def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
        return float((a * b).mean()) / (p * (1 - p)) * len(a) ** 0.5  # in standard errors

    mask = centred(0, "math", NAME)
    lags = [*range(1, 40), 64, 128, 256, 511, 512, 513, 576, 1024, 1536, 4096, 65535, 65536]
    assert max(abs(correlation(mask[:-lag], mask[lag:])) for lag in lags) < 5
    for other in (("code", NAME, 0), ("math", NAME.replace("0", "1"), 0), ("math", NAME, 1), (NAME, "math", 0)):
        stream = centred(other[2], other[0], other[1])
        assert max(abs(correlation(mask, stream.roll(lag))) for lag in (0, 1, 2, 3, 576)) < 5
    triple = float((mask[:-2] * mask[1:-1] * mask[2:]).mean()) / (p * (1 - p)) ** 1.5 * N**0.5
    assert abs(triple) < 5


def formula(
    base: State, experts: dict[str, State], kind: str, rescale: str, normalize: bool, knobs: dict
) -> torch.Tensor:
    """The merge of one float64 tensor 'w' by a direct evaluation of the cards."""
    changes, w = [], knobs["coefficient"]
    for k, (name, expert) in enumerate(experts.items()):
        tau, density = expert["w"] - base["w"], knobs["density"][k]
        p = torch.full_like(tau, density)
        if kind.startswith("della"):
            epsilon = max(min(knobs["epsilon"][k], min(density, 1 - density) - 0.01), 0.0)
            rows = tau.abs().reshape(-1, tau.shape[-1] if tau.dim() else 1)
            rank = rows.argsort(dim=1, stable=True).argsort(dim=1).reshape(tau.shape)
            if rows.shape[1] > 1:
                p = density - epsilon + 2 * epsilon * rank / (rows.shape[1] - 1)
        u = _counter_random.uniforms(_counter_random.keys(3, [name], "w")[0], 0, tau.numel()).reshape(tau.shape)
        kept = torch.where(u < p.float(), tau, 0.0)
        if rescale == "l1_norm" and kept.any():
            kept = kept * (tau.abs().sum() / kept.abs().sum())
        elif rescale in ("inverse_density", "inverse_probability"):
            kept = torch.where(kept == 0, 0.0, kept / p)
        changes.append(w[k] * kept)
    stack, shares = torch.stack(changes), torch.tensor(w, dtype=torch.float64)
    total = stack.sum(dim=0)
    total = torch.where(total.abs() < 1e-6, 0.0, total)  # opposite changes cancel
    divisor = shares.sum().expand_as(total)
    if kind in ("dare_ties", "della"):
        sign = torch.where(total >= 0, 1.0, -1.0)
        agrees = stack.sign() == sign
        total = (stack * agrees).sum(dim=0)
        divisor = (shares.view(-1, *[1] * total.dim()) * agrees).sum(dim=0)
    if normalize:
        total = total / torch.where(divisor == 0, 1.0, divisor)  # all coefficients 0: nothing is added
    return base["w"] + knobs["scale"] * total


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_matches_a_direct_evaluation_of_the_formula(kind: str, data: st.DataObject) -> None:
    """Masks, ranks, rescaling, election, normalisation and scale as the cards say, in float64."""
    shape = data.draw(st.sampled_from([(), (1,), (40,), (7, 1), (1, 9), (12, 11), (3, 4, 5)]))
    count = data.draw(st.integers(1, 4))
    base, experts = models(shape, count, data.draw(st.integers(0, 99)), data.draw(st.sampled_from([0.0, 0.0625])))
    weight = st.sampled_from([0.0, 0.25, 1.0, 1.5])
    share = st.sampled_from([0.0, 0.02, 0.3, 0.5, 0.9, 1.0])
    knobs = {
        "coefficient": data.draw(st.lists(weight, min_size=count, max_size=count)),
        "density": data.draw(st.lists(share, min_size=count, max_size=count)),
        "scale": data.draw(st.floats(0, 2)),
    }
    rules = ["none", "l1_norm", "inverse_density"]
    if kind.startswith("della"):
        knobs["epsilon"] = data.draw(st.lists(st.floats(0, 0.5), min_size=count, max_size=count))
        rules[2] = "inverse_probability"
    rescale, normalize = data.draw(st.sampled_from(rules)), data.draw(st.booleans())
    wanted = formula(base, experts, kind, rescale, normalize, knobs)
    got = merge(kind, base, experts, knobs, rescale=rescale, normalize=normalize, seed=3)["w"]
    # p is float32, so 1/p is exact to 1e-7 only; so are the sums that the kept magnitudes are rescaled by.
    torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_permuted_experts_keep_their_masks(kind: str) -> None:
    """Experts in another order, with their names and settings, give the same merge but for the order of sums."""
    base, experts = models((30, 20), 3)
    knobs = {"coefficient": {"e0": 0.5, "e1": 0.7, "e2": 1.1}, "density": {"e0": 0.3, "e1": 0.6, "e2": 0.8}}
    straight = merge(kind, base, experts, knobs)["w"]
    turned = merge(kind, base, {name: experts[name] for name in ("e2", "e0", "e1")}, knobs)["w"]
    torch.testing.assert_close(turned, straight, rtol=1e-12, atol=1e-12)
    renamed = merge(kind, base, {name.upper(): expert for name, expert in experts.items()}, [0.5, 0.7, 1.1])["w"]
    assert not torch.equal(renamed, straight)


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_density_drops_nothing(kind: str) -> None:
    """Density 1 is the merge without dropping, whatever epsilon says; one expert at 1 is that expert; 0 the base."""
    base, experts = models((30, 20), 3)
    plain = "ties" if kind in ("dare_ties", "della") else "task_arithmetic"
    full = {"coefficient": [0.5, 0.7, 1.1], "density": 1.0, "scale": 0.9}
    wanted = merge(plain, base, experts, {k: v for k, v in full.items() if plain == "ties" or k != "density"},
                   normalize=False)  # fmt: skip
    torch.testing.assert_close(merge(kind, base, experts, full, normalize=False)["w"], wanted["w"])
    alone = {"coefficient": [0.0, 1.0, 0.0], "density": 1.0, "scale": 1.0}
    torch.testing.assert_close(merge(kind, base, experts, alone)["w"], experts["e1"]["w"])
    assert torch.equal(merge(kind, base, experts, 0.0)["w"], base["w"])


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_draws_other_masks_and_the_same_seed_the_same(kind: str) -> None:
    """Two calls agree in every bit; another seed does not."""
    base, experts = models((30, 20), 2)
    first, again, other = (merge(kind, base, experts, 1.0, seed=seed)["w"] for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_dare_without_rescaling_shrinks_the_update() -> None:
    """At density 0.5 the mean change halves; both rescalings bring it back, `l1_norm` to the very sum of magnitudes."""
    base, experts = {"w": torch.zeros(100_000)}, {"e": {"w": torch.full((100_000,), 0.5)}}
    knobs = {"coefficient": 1.0, "density": 0.5}
    means = {r: float(merge("dare_linear", base, experts, knobs, rescale=r)["w"].double().mean())
             for r in ("none", "inverse_density", "l1_norm")}  # fmt: skip
    assert means["none"] == pytest.approx(0.25, rel=0.02)
    assert means["inverse_density"] == pytest.approx(0.5, rel=0.02)
    assert means["l1_norm"] == pytest.approx(0.5, rel=1e-6)


@pytest.mark.parametrize("scale", [1.0, 1e-12])
@pytest.mark.parametrize("kind", KINDS)
def test_the_l1_rule_does_not_depend_on_the_size_of_the_changes(kind: str, scale: float) -> None:
    """Changes a million million times smaller are rescaled alike: no absolute epsilon; a zero expert is left alone."""
    base = {"w": torch.zeros(200, 10, dtype=torch.float64)}
    change = models((200, 10), 1, 4)[1]["e0"]["w"]
    experts = {"e0": {"w": change * scale}, "zero": {"w": base["w"]}}
    got = merge(kind, base, experts, {"coefficient": 1.0, "scale": 1.0, "density": 0.4}, rescale="l1_norm")["w"]
    assert float(got.abs().sum()) == pytest.approx(float(change.abs().sum()) * scale, rel=1e-6)


def test_sums_are_remembered_for_what_did_not_change() -> None:
    """A new density of one expert in one group measures that expert there again, and nothing else."""
    base = {name: torch.randn(40, 30) for name in ("a", "b")}
    experts = [{n: t + 0.1 * torch.randn(40, 30) for n, t in base.items()} for _ in range(2)]
    operator = make_operator("dare_ties", {"rescale": "l1_norm"})
    prepared = operator.prepare(base, experts, Layout(("x", "y"), ("g", "h"), {"a": 0, "b": 1}))
    tables = {"coefficient": np.ones((2, 2)), "density": np.full((2, 2), 0.5), "scale": np.ones((2, 2))}
    into = {n: torch.empty_like(t) for n, t in base.items()}
    prepared.apply(tables, ["a", "b"], into)
    asked: list[tuple[list[str], list[list[bool]]]] = []
    measure = prepared._pass.sizes

    def spy(names, odds, units, wanted, masks):
        asked.append((list(names), wanted.tolist()))
        return measure(names, odds, units, wanted, masks)

    prepared._pass.sizes = spy
    prepared.apply(tables, ["a", "b"], into)
    tables["density"][1, 0] = 0.7
    prepared.apply(tables, ["a", "b"], into)
    assert asked == [(["b"], [[True, False]])]
    fresh = {n: torch.empty_like(t) for n, t in base.items()}
    operator.prepare(base, experts, Layout(("x", "y"), ("g", "h"), {"a": 0, "b": 1})).apply(tables, ["a", "b"], fresh)
    assert all(torch.equal(fresh[n], into[n]) for n in base)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_ranks_are_those_of_a_stable_sort(compiled: bool, dtype: torch.dtype, data: st.DataObject) -> None:
    """Rows in any number, equal magnitudes in their order, on both paths."""
    width, rows = data.draw(st.integers(1, 30)), data.draw(st.integers(1, 5))
    values = st.sampled_from([0.0, -0.0, 0.5, -0.5, 1e-30, 2.0]) | st.floats(-1, 1, width=32)
    flat = data.draw(st.lists(values, min_size=width * rows, max_size=width * rows))
    expert = torch.tensor(flat, dtype=torch.float32).to(dtype).view(rows, width)
    stream = Stream([{"w": torch.zeros_like(expert)}, {"w": expert}], ["w"], compiled=compiled)
    ranks = row_ranks(stream, {"w": expert.shape}, 1)["w"].to(torch.int64).view(rows, width)
    assert torch.equal(ranks, expert.float().abs().argsort(dim=1, stable=True).argsort(dim=1))


def test_rows_too_long_for_sixteen_bits_are_ranked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row of more than 65536 entries beside a short one: both paths agree, and the memory is declared."""
    base = {"long": torch.zeros(70_000), "short": torch.zeros(3, 5), "none": torch.zeros(0, 4)}
    generator = torch.Generator().manual_seed(0)
    experts = {"e": {n: torch.randn(t.shape, generator=generator) for n, t in base.items()}}
    assert make_operator("della", {}).extra_bytes({n: tuple(t.shape) for n, t in base.items()}, 2) == 560_060
    assert make_operator("dare_ties", {}).extra_bytes({"long": (70_000,)}, 2) == 0
    results = []
    for limit in (0, 1 << 62):
        monkeypatch.setattr(_stream, "_COMPILED_FROM", limit)
        results.append(merge("della", base, experts, {"density": 0.5, "epsilon": 0.4}))
    assert all(torch.equal(results[0][n], results[1][n]) for n in base)
    small, large = experts["e"]["long"].abs().argsort().chunk(2)
    kept = results[0]["long"] != 0
    assert int(kept[small].sum()) == pytest.approx(0.3 * 35_000, rel=0.05)
    assert int(kept[large].sum()) == pytest.approx(0.7 * 35_000, rel=0.05)


def test_epsilon_is_clipped_to_what_the_density_allows() -> None:
    """An epsilon beyond min(density, 1 - density) - 0.01 acts as that, so that every point can be built."""
    base, experts = models((30, 20), 2)
    for density, limit in ((0.2, 0.19), (0.9, 0.09), (0.005, 0.0)):
        clipped, exact = (merge("della", base, experts, {"density": density, "epsilon": e})["w"] for e in (0.49, limit))
        torch.testing.assert_close(clipped, exact)


def test_what_cannot_be_built_is_refused() -> None:
    """A density that is no share, an epsilon below 0, and coefficients below 0 where signs are elected and averaged."""
    base, experts = models((3, 4), 2)
    for density in (-0.1, 1.5):
        with pytest.raises(EvaluationError, match=rf"dare_linear: a density is a share in \[0, 1\], got {density}"):
            merge("dare_linear", base, experts, {"density": density})
    with pytest.raises(EvaluationError, match="della: an epsilon is at least 0"):
        merge("della", base, experts, {"epsilon": -0.1})
    with pytest.raises(EvaluationError, match="coefficients must be at least 0, except with normalize: false"):
        merge("della", base, experts, [1.0, -1.0])
    merge("dare_ties", base, experts, [1.0, -1.0])
    merge("della_linear", base, experts, [1.0, -1.0], normalize=True)


def test_recorded_masks_replace_the_draws_for_more_than_eight_experts() -> None:
    """Masks drawn elsewhere, in two planes of bits, give what our own draws give where they are the same."""
    base, experts = models((6, 5), 11)
    names = [f"e{k}" for k in range(11)]
    stream = Stream([base, *experts.values()], ["w"])
    planes = torch.zeros(2, 30, dtype=torch.uint8)
    for k, name in enumerate(names):
        kept = _counter_random.uniforms(_counter_random.keys(0, [name], "w")[0], 0, 30) < 0.5
        planes[k // 8] |= kept.to(torch.uint8) << (k % 8)
    odds = np.zeros((1, 11, 2), dtype=np.float32)
    odds[..., 0] = 0.5
    results = []
    for recorded in (None, {"w": planes}):
        into = {"w": torch.empty_like(base["w"])}
        RandomPass(stream, names, 0, {}, recorded).sum(["w"], np.ones((1, 11)), odds, into, inverse=False)
        results.append(into["w"])
    assert torch.equal(*results)


def test_scratch_masks_show_in_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Masks passed on from measuring, in one batch or many or none, give the bits that drawing twice gives."""
    shapes = {"a": (40, 30), "b": (31,), "c": (), "d": (0, 4), "e": (50, 20)}
    generator = torch.Generator().manual_seed(2)
    base = {n: torch.randn(s, generator=generator) for n, s in shapes.items()}
    experts = [{n: t + 0.1 * torch.randn(t.shape, generator=generator) for n, t in base.items()} for _ in range(10)]
    for kind in ("dare_linear", "della"):
        results = []
        for limit, scratch in ((1 << 62, 1 << 25), (0, 1 << 25), (0, 2100), (0, 0)):
            monkeypatch.setattr(_stream, "_COMPILED_FROM", limit)
            monkeypatch.setattr(_thinned, "_SCRATCH", scratch)
            results.append(merge(kind, base, experts, {"density": 0.4}, rescale="l1_norm"))
        assert all(torch.equal(result[n], results[0][n]) for result in results for n in shapes)


STATISTICS = [case for case in CASES if "draws" in case.params]


@pytest.mark.parametrize("case", STATISTICS, ids=lambda case: case.id)
def test_mean_and_kept_share_are_those_of_the_reference(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """|mean - aux/mean| within z standard errors over 400 seeds, and so the kept share; mean and variance are exact."""
    monkeypatch.setitem(CHUNK, "cpu", 1 << 16)
    names = [key.removeprefix("aux/mean/") for key in case.expected if key.startswith("aux/mean/")]
    base, experts = {n: case.base[n] for n in names}, [{n: e[n] for n in names} for e in case.experts]
    z, p, draws, count = case.entry["tolerance"]["z"], case.params["density"], case.params["draws"], 400
    knobs = {"coefficient": case.weights, "density": p, "scale": case.params["lambda"]}
    sums = {n: torch.zeros(t.shape, dtype=torch.float64) for n, t in base.items()}
    squares = {n: torch.zeros(t.shape, dtype=torch.float64) for n, t in base.items()}
    kept = changed = 0
    for seed in range(count):
        merged = merge("dare_linear", base, experts, knobs, rescale=case.params["rescale_rule"], seed=seed)
        alone = merge("dare_linear", base, experts[:1], {"coefficient": 1.0, "density": p}, seed=seed)
        for n in names:
            sums[n] += merged[n].double()
            squares[n] += (merged[n].double() - base[n].double()).square()
            changed += int((experts[0][n] != base[n]).sum())
            kept += int((alone[n] != base[n]).sum())
    for n in names:
        mean, variance = case.expected[f"aux/mean/{n}"].double(), case.expected[f"aux/variance/{n}"].double()
        bound = z * (variance / count + variance / draws).sqrt() + 1e-7
        assert ((sums[n] / count - mean).abs() <= bound).all()
        shift = sums[n] / count - base[n].double()
        ratio = ((squares[n] / count - shift.square()).sum() / variance.sum()).item()
        assert ratio == pytest.approx(1.0, abs=0.05)
    error = (p * (1 - p) / changed) ** 0.5
    reference = float(case.expected["aux/kept_fraction"])
    assert abs(kept / changed - p) <= z * error
    assert abs(kept / changed - reference) <= z * error * (1 + count / draws) ** 0.5 + 1e-6


def test_there_is_a_statistical_case() -> None:
    """The folder that comes with the repository holds one."""
    assert STATISTICS or "MERGESEARCH_GOLDEN" in os.environ
