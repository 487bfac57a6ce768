"""The search benchmark measures what it says, charges everyone alike, and goes on where it was stopped."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mergesearch.strategies.base import Observation
from mergesearch.types import Candidate, Request, Split

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import search  # noqa: E402
import search_tables  # noqa: E402
from search_bias import TABLE, selection_bias  # noqa: E402
from search_blackboxes import black_box  # noqa: E402
from search_merges import real_merge  # noqa: E402
from search_ours import run_ours  # noqa: E402
from search_overhead import measure  # noqa: E402
from search_peers import run_peer  # noqa: E402
from search_runs import BudgetSpent, Recorder  # noqa: E402

BOXES = ("quad1-8", "quad2-8", "quad3-8", "sat2-8", "dtlz3-8", "zdt1-8", "zdt2-8")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Where pools are made."""
    return tmp_path_factory.mktemp("pool")


@pytest.fixture(scope="module")
def merge(cache):
    """The digits setting, made anew: a base, four experts, and their test sets."""
    return real_merge("digits-block-4", 0, cache)


def call(folder, *more):
    """The entry, as a user calls it."""
    command = [sys.executable, str(BENCHMARKS / "search.py"), "--results", str(folder / "results" / "search.jsonl")]
    command += ["--docs", str(folder / "docs"), "--problems", "quad2-4", "--budget", "30", "--workers", "1", *more]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def test_the_entry_runs_reports_and_goes_on(tmp_path):
    """One line a run; a second call has nothing to do; the page shows ours and the peer."""
    methods = ("--methods", "ours/random,pycma_mean:start", "--seeds", "0", "1")
    assert "4 runs to do" in call(tmp_path, *methods)
    rows = [json.loads(line) for line in (tmp_path / "results" / "search.jsonl").read_text().splitlines()]
    assert {(row["method"], row["seed"]) for row in rows} == {
        (method, seed) for method in ("ours/random", "pycma_mean:start") for seed in (0, 1)
    }
    assert all(29 <= row["spent"] <= 30 for row in rows)
    page = (tmp_path / "docs" / "benchmarks.md").read_text()
    assert "| pycma_mean |" in page
    assert "| random |" in page
    assert (tmp_path / "docs" / "benchmarks" / "search-black-boxes.svg").exists()
    found = search.lines(tmp_path / "results" / "search.jsonl")
    wanted = search.jobs(["quad2-4"], ["ours/random", "pycma_mean:start"], [0, 1], 30)
    assert {job.key for job in wanted} == {
        search.Job(*[r[k] for k in ("problem", "method", "seed", "budget")]).key for r in found
    }


def test_a_torn_line_is_left_out(tmp_path):
    """A run that was killed while writing is run again."""
    row = {"problem": "quad2-4", "method": "random:start", "seed": 0, "budget": 30, "format": search.FORMAT}
    path = tmp_path / "lines.jsonl"
    path.write_text(json.dumps(row) + "\n" + json.dumps({**row, "seed": 1})[:40])
    assert [found["seed"] for found in search.lines(path)] == [0]


@pytest.mark.parametrize("name", BOXES)
def test_black_box_gradients_are_exact(name):
    """They agree with central differences of the guide."""
    box, step = black_box(name, 1), 1e-6
    point = np.random.default_rng(0).uniform(0.1, 0.9, box.dim)
    shifts = step * np.eye(box.dim)
    slopes = (box.guide(point + shifts) - box.guide(point - shifts)).T / (2 * step)
    assert box.jacobian(point) == pytest.approx(slopes, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("name", BOXES[1:])
def test_no_front_beats_the_true_one(name):
    """Hypervolumes are shares of the true front's: random points have less, and the share is below 1."""
    box = black_box(name, 0)
    points = np.random.default_rng(0).random((200, box.dim))
    share = box.worth(points, box.function(points), box.start)["hv"]
    assert 0.0 <= share < 1.0


def test_noise_falls_with_examples_and_continues():
    """A part of the examples is noisier; continuing it gives what the whole would have given."""
    box = black_box("quad1-8", 0)
    whole = box.observe(Candidate(3, box.start))
    half = box.observe(Candidate(3, box.start, request=Request(share=0.5)))
    rest = box.observe(Candidate(4, box.start, request=Request(share=0.5, offset=0.5, continues=3)))
    assert half.stderr[0] == pytest.approx(whole.stderr[0] * np.sqrt(2))
    assert rest.losses == pytest.approx(whole.losses)


def test_the_budget_is_charged_alike():
    """A gradient costs three; what does not fit is refused, for everyone; checkpoints count only what fitted in."""
    box = black_box("quad2-8", 0)
    recorder = Recorder(box, 32)
    run_peer("random:start", recorder, 0)
    assert recorder.evaluations == recorder.spent == 32
    with pytest.raises(BudgetSpent):
        recorder(box.start)
    assert recorder.figures()[0]["evaluations"] == 30
    recorder = Recorder(box, 100)
    recorder.add(Candidate(0, box.start, request=Request(gradient="loss"), cost=3.0))
    assert (recorder.spent, recorder.with_gradient) == (3.0, 1)


def test_ours_keeps_one_evaluation_for_its_recommendation():
    """The last evaluation is the recommended point, and the budget holds."""
    recorder = Recorder(black_box("quad1-8", 0), 60)
    strategy = run_ours("ours/cma_es", recorder, 0)
    assert recorder.spent == 60
    assert recorder.points[-1] == pytest.approx(strategy.recommend())


def test_experts_are_better_than_the_base_on_their_own_tasks(merge):
    """The setting is sound: every expert gains on its task, and the start is not the end."""
    assert np.all(merge.expert > merge.base + 0.1)
    assert merge.start == pytest.approx(np.full(merge.dim, 0.25))


def test_merges_and_logits_are_those_of_the_real_code(merge, cache):
    """The lean forward pass is transformers' own; the merge of one expert alone is that expert, of none the base."""
    import torch
    from transformers import ViTForImageClassification

    task, head = merge.pool.tasks[1], merge.pool.tasks[0]
    image = merge.pool.data[task][Split.TEST][0][:20]
    for part, point, of in ((task, merge.seeds[1], task), ("base", np.zeros(merge.dim), head)):
        model = ViTForImageClassification.from_pretrained(cache / "digits-0" / part).eval()
        weights = merge._named(merge._merged(merge._lambdas(point)))
        with torch.inference_mode():
            expected = model(pixel_values=image).logits
            assert torch.allclose(merge._logits(weights, of, image), expected, atol=1e-4)


def test_merges_are_task_arithmetic(merge):
    """Base plus the sum of lambda times task vector, tensor by tensor."""
    point = np.random.default_rng(0).uniform(0.0, 0.6, merge.dim)
    weights = merge._named(merge._merged(merge._lambdas(point)))
    names, of = merge.pool.grouped("block")
    coefficients = merge.space.decode(point)["coefficient"]
    base, experts = merge.pool.named(merge.pool.base), [merge.pool.named(flat) for flat in merge.pool.experts]
    assert len(names) == coefficients.shape[0] == 5
    for name, group in zip(merge.pool.shapes, of, strict=True):
        changes = [float(c) * (e[name] - base[name]) for c, e in zip(coefficients[group], experts, strict=True)]
        assert weights[name].numpy() == pytest.approx((base[name] + sum(changes)).numpy(), abs=1e-5)


@pytest.mark.parametrize("loss", ["loss", "kl", "entropy"])
def test_gradients_of_real_merges_agree_with_differences(merge, loss):
    """Every loss, for every task, along a random direction."""
    generator = np.random.default_rng(1)
    point, direction = generator.uniform(0.1, 0.4, merge.dim), generator.standard_normal(merge.dim)
    direction *= 0.02 / np.linalg.norm(direction)

    def seen(at) -> Observation:
        return merge.observe(Candidate(0, at, request=Request(gradient=loss)))

    slopes = seen(point).gradients @ direction
    ahead, behind = seen(point + direction).guides, seen(point - direction).guides
    assert slopes == pytest.approx((ahead - behind) / 2, rel=0.02, abs=2e-5)


def test_a_part_of_the_examples_continues_to_the_whole(merge):
    """Half and the rest give the score of all, per example too."""
    whole = merge.observe(Candidate(0, merge.start), examples=True)
    rest = merge.observe(Candidate(1, merge.start, request=Request(0.5, 0.5, continues=0)), examples=True)
    assert rest.losses == pytest.approx(whole.losses)
    assert [len(e) for e in rest.examples] == [len(e) for e in whole.examples] == [200] * 4
    assert [len(e) for e in merge.observe(Candidate(2, merge.start, request=Request(0.5)), True).examples] == [100] * 4


def test_real_runs_report_every_split(merge):
    """Hypervolume and mean accuracy on search, confirm and test at each checkpoint."""
    recorder = Recorder(merge, 30)
    run_peer("random:start", recorder, 0)
    figures = recorder.figures()[-1]
    assert {f"{what}_{split}" for what in ("hv", "mean") for split in Split} <= set(figures)
    assert 0.3 < figures["mean_test"] < 1.0


@pytest.mark.parametrize(("candidates", "examples"), sorted(TABLE))
def test_selection_bias(candidates, examples):
    """The table of evaluation.md section 10 within 10 %, and the confirm split removes the bias."""
    found = selection_bias(candidates, examples, repeats=600)
    assert found.search == pytest.approx(TABLE[candidates, examples], rel=0.1)
    assert abs(found.confirm) < 0.1 * found.search


def test_overhead_is_measured_at_each_mark():
    """One mean and one greatest time for each number of evaluations."""
    row = measure("random", 24, marks=(5, 10))
    assert [mark["after"] for mark in row["marks"]] == [5, 10]


def test_bars_compare_equal_costs():
    """The best peer is chosen by the figure that counts, at the cost asked for."""

    def line(method, value):
        figures = [{"cost": c, "hv_search": value * c / 1000} for c in (125, 1000)]
        return {"problem": "digits-block-4", "method": method, "seed": 0, "budget": 1000, "figures": figures}

    runs = search_tables.by_run([line("a:start", 0.1), line("b:start", 0.2), line("ours/auto+gradients", 1.76)])
    assert search_tables.best_peer(runs, "digits-block-4", 1000) == "b:start"
    assert "1.100, level at 125" in search_tables.gradient_bar(runs)
