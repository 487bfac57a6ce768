"""What all gradient learners promise: steps, batches, workers, guards, replay."""

import numpy as np
import pytest
from strategies.learning import EXAMPLES, Bowl, again, run, space

from mergesearch.errors import SpecError
from mergesearch.strategies.base import Observation
from mergesearch.strategies.learning.monitor import Monitor, rises
from mergesearch.strategies.make import make_strategy
from mergesearch.types import Candidate

KINDS = {
    "adamerging": {"loss": "loss"},
    "atlas": {},
    "expert_merging": {},
    "frank_wolfe": {"mode": "soft", "keep": 3},
    "self_positioning": {},
}


def bowl(**more):
    """Three experts in four groups: the best weights keep the start's sum, so that every learner can come near."""
    return Bowl(np.tile([0.6, 0.25, 0.05], 4), space(), **more)


@pytest.mark.parametrize("kind", KINDS)
def test_gains_from_noisy_batches(kind):
    """With small noisy batches each ends far below the start (median of 3 seeds), within its budget."""
    gains = []
    for seed in range(3):
        done = run(kind, bowl(), 60, seed=seed, **KINDS[kind])
        start = done.told("start")[0]
        gains.append(bowl().metric(done.strategy.recommend()) / bowl().metric(start.point))
        assert done.spent <= 59.0
        assert len(done.told("monitor")) >= 2
        assert done.told("gradient")[1].request.share < 1.0
    assert np.median(gains) < 0.35, gains


@pytest.mark.parametrize("kind", KINDS)
def test_every_loss_can_be_chosen(kind):
    """'kl', which needs no labels, serves every learner; one that is not offered is refused with what is."""
    done = run(kind, bowl(), 40, **{**KINDS[kind], "loss": "kl"})
    assert {c.request.gradient for c in done.told("gradient")} == {"kl"}
    assert bowl().metric(done.strategy.recommend()) < 0.6 * bowl().metric(done.told("start")[0].point)
    with pytest.raises(SpecError, match="set its option loss"):
        make_strategy(kind, bowl().problem(), 0, {"loss": "kll"})
    with pytest.raises(SpecError, match="loss"):
        make_strategy(kind, bowl().problem(gradients=("alien",)), 0, {**KINDS[kind], "loss": "loss"})


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_signs_are_found(kind):
    """Gradients of the wrong sign: it says so, stops to follow them, and recommends nothing worse than the start."""
    done = run(kind, bowl(sign=-1.0), 60, **KINDS[kind])
    notes = done.strategy.notes()
    assert any("rose" in note or "worse than the start" in note for note in notes), notes
    assert any("no gradient is followed any further" in note for note in notes), notes
    assert bowl().metric(done.strategy.recommend()) <= bowl().metric(done.told("start")[0].point)
    assert done.told("sample")  # it goes on by values


@pytest.mark.parametrize("kind", KINDS)
def test_a_loss_that_does_not_serve_the_metric(kind):
    """A loss whose bottom is far from the metric's: the monitored start is recommended, or something better."""
    other = bowl(hidden=np.full(12, 0.3))
    done = run(kind, other, 60, **KINDS[kind])
    assert other.metric(done.strategy.recommend()) <= other.metric(done.told("start")[0].point) + 1e-12
    assert any("worse than the start" in note for note in done.strategy.notes())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("workers", [2, 5, 20])
def test_workers_share_a_step(kind, workers):
    """Several workers evaluate windows of one step, which do not overlap; the run gets as far for the same cost."""
    done = run(kind, bowl(), 60, workers=workers, **KINDS[kind])
    assert bowl().metric(done.strategy.recommend()) < 0.5 * bowl().metric(done.told("start")[0].point)
    first = [c for what, c, _ in done.log if what == "asked" and c.origin == "gradient"][: min(workers - 1, 3)]
    rows = np.concatenate([c.request.rows(EXAMPLES) for c in first])
    assert len(np.unique(rows)) == len(rows)
    assert len({c.point.tobytes() for c in first}) == len(first)


@pytest.mark.parametrize("kind", KINDS)
def test_a_replay_goes_on_the_same(kind):
    """A strategy told the log alone proposes, recommends, reports and notes the same, bit for bit, at any moment."""
    options = KINDS[kind]
    done = run(kind, bowl(fails=lambda number: number % 7 == 3), 40, workers=3, **options)
    for stop in (1, 9, len(done.log) // 2, len(done.log)):
        one, two = (again(kind, bowl().problem(40), done.log[:stop], **options) for _ in range(2))
        a, b = one.ask(1000), two.ask(1000)
        assert (a is None) == (b is None)
        assert a is None or (a.point.tobytes(), a.request) == (b.point.tobytes(), b.request)
    assert one.recommend().tobytes() == done.strategy.recommend().tobytes()
    assert dict(one.diagnostics()) == dict(done.strategy.diagnostics())
    assert one.notes() == done.strategy.notes()


@pytest.mark.parametrize("kind", KINDS)
def test_asking_leaves_no_trace(kind):
    """Asks that nobody announces, also while a step is awaited, change nothing; None comes only while one is."""
    of, target, options = bowl().problem(40), bowl(), KINDS[kind]
    calm, disturbed = (make_strategy(kind, of, 0, options) for _ in range(2))
    busy, number, waits = [], 0, 0
    while number < 60:
        for other in (number + 2, number, number + 7):
            disturbed.ask(other)
        a, b = calm.ask(number), disturbed.ask(number)
        assert (a is None) == (b is None)
        if a is not None and len(busy) < 3:
            assert (a.point.tobytes(), a.request, a.origin) == (b.point.tobytes(), b.request, b.origin)
            busy.append(Candidate(number, a.point, a.origin, a.request))
            number += 1
            for subject in (calm, disturbed):
                subject.asked(busy[-1])
            continue
        assert busy
        waits += a is None
        candidate = busy.pop(0)
        for subject in (calm, disturbed):
            subject.tell(candidate, target(candidate))
    assert waits


def test_the_order_of_results_within_a_step_does_not_matter():
    """Windows that come back in another order give the same iterate to the last bit."""
    of = bowl().problem()
    ends = []
    for backwards in (False, True):
        subject = make_strategy("atlas", of, 0, {})
        done = run("atlas", bowl(), of=of, workers=4)
        asked = [c for what, c, _ in done.log if what == "asked"][:5]
        for candidate in asked:
            subject.asked(candidate)
        told = [asked[0], *(reversed(asked[1:]) if backwards else asked[1:])]
        for candidate in told:
            subject.tell(candidate, bowl()(candidate))
        ends.append(subject.ask(5).point.tobytes())
    assert ends[0] == ends[1]


def test_a_fixed_number_of_batches_per_step():
    """`batches_per_step: 3` steps after three gradients, with one worker as with many; no fourth is asked for."""
    for workers in (1, 6):
        done = run("atlas", bowl(), 40, workers=workers, batches_per_step=3)
        counts = [c.number for c in done.told("gradient")]
        assert done.strategy.diagnostics()["steps"] == pytest.approx(len(counts) / 3, abs=1.0)
    subject = make_strategy("atlas", bowl().problem(), 0, {"batches_per_step": 3})
    for number in range(4):
        proposal = subject.ask(number)
        subject.asked(Candidate(number, proposal.point, proposal.origin, proposal.request))
    assert subject.ask(4) is None


def test_failed_gradients_are_tried_on_other_examples():
    """After a failure the next window is asked for; if all fail it gives gradients up, and values go on."""
    done = run("atlas", bowl(fails=lambda number: number in (3, 4)), 40)
    assert len({c.request.offset for c in done.told("gradient")[2:5]}) == 3
    assert bowl().metric(done.strategy.recommend()) < 0.5 * bowl().metric(done.told("start")[0].point)

    class Broken(Bowl):
        def __call__(self, candidate):
            return None if candidate.request.gradient else super().__call__(candidate)

    broken = Broken(bowl().best, space())
    done = run("atlas", broken, 60)
    assert any("could not be evaluated" in note for note in done.strategy.notes())
    assert broken.metric(done.strategy.recommend()) <= broken.metric(done.told("start")[0].point)


def test_failures_shrink_back_to_the_last_good_point():
    """Three failures in a row: the next gradient is asked for half the way back."""
    subject = make_strategy("atlas", bowl().problem(), 0, {"learning_rate": 0.2})
    points = []
    for number in range(12):
        proposal = subject.ask(number)
        candidate = Candidate(number, proposal.point, proposal.origin, proposal.request)
        points.append(proposal.point)
        subject.asked(candidate)
        subject.tell(candidate, None if number in (4, 5, 6) else bowl()(candidate))
    step = np.linalg.norm(points[6] - points[3])
    assert np.linalg.norm(points[7] - points[3]) < 0.7 * step


def test_not_a_number_counts_as_failed():
    """A gradient with NaN in it changes nothing."""

    class Sick(Bowl):
        def __call__(self, candidate):
            found = super().__call__(candidate)
            if found.gradients is not None and candidate.number % 3 == 0:
                found.gradients[0, 0] = np.nan
            return found

    done = run("atlas", Sick(bowl().best, space()), 60)
    assert bowl().metric(done.strategy.recommend()) < 0.4 * bowl().metric(done.told("start")[0].point)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("evaluations", [1, 2, 4, 9, 0.5])
def test_tiny_budgets_end_with_the_start_or_better(kind, evaluations):
    """Any budget ends, and what is recommended is not below the start."""
    done = run(kind, bowl(), evaluations, **KINDS[kind])
    if evaluations >= 2:
        assert bowl().metric(done.strategy.recommend()) <= bowl().metric(done.told("start")[0].point)


@pytest.mark.parametrize("kind", KINDS)
def test_large_budgets_take_all_examples(kind):
    """Where the budget has room for it every gradient is taken on all examples, which are checks by themselves."""
    done = run(kind, bowl(noise=0.05), 400, **KINDS[kind])
    assert {c.request.share for c in done.told("gradient")} == {1.0}
    assert len(done.told("monitor")) <= 2
    assert bowl().metric(done.strategy.recommend()) < 0.3 * bowl().metric(done.told("start")[0].point)


def test_workers_share_out_large_windows():
    """Where one worker would take all examples, three take a part each and step as often for the same cost."""
    alone, three = run("atlas", bowl(noise=0.05), 400), run("atlas", bowl(noise=0.05), 400, workers=3)
    shares = [c.request.share for c in three.told("gradient")[20:]]
    assert set(shares) == {1.0 / 3.0}
    steps = [done.strategy.diagnostics()["steps"] for done in (alone, three)]
    assert steps[1] == pytest.approx(steps[0], rel=0.1)
    assert three.spent <= 399.0


def test_a_lucky_sample_needs_a_margin():
    """A random point that looks a little better than an iterate, by less than the noise, is not recommended."""
    of = bowl().problem()
    monitor = Monitor(of, "")
    for number, (origin, loss) in enumerate([("start", 1.0), ("monitor", 0.9), ("sample", 0.89)]):
        candidate = Candidate(number, np.full(12, 0.1 * number), origin)
        monitor.add(candidate, Observation(np.full(2, loss), np.full(2, 0.1), np.full(2, 50.0)))
    assert monitor.best.origin == "monitor"
    monitor.add(
        Candidate(3, np.full(12, 0.5), "sample"), Observation(np.full(2, 0.8), np.full(2, 0.1), np.full(2, 50.0))
    )
    assert monitor.best.number == 3


def test_windows_tile_the_examples_in_every_epoch():
    """Each example counts once in an epoch, in another order in the next."""
    done = run("atlas", bowl(), 60)
    parts = int(done.strategy.diagnostics()["windows_per_epoch"])
    windows = [c.request for c in done.told("gradient")]
    orders = []
    for epoch in (1, 2):
        inside = windows[epoch * parts : (epoch + 1) * parts]
        assert np.array_equal(np.sort(np.concatenate([r.rows(EXAMPLES) for r in inside])), np.arange(EXAMPLES))
        orders.append([r.offset for r in inside])
    assert parts > 2
    assert orders[0] != orders[1]


def test_an_unlabelled_monitor_reads_no_metric():
    """`monitor: kl`: checks are evaluations with kl, and the metric, whatever it says, decides nothing."""
    mean = bowl(hidden=np.full(12, 0.95))
    done = run("adamerging", mean, 60, loss="entropy", monitor="kl")
    assert {c.request.gradient for c in done.told("monitor")} == {"kl"}
    assert done.told("start")[0].request.gradient == "kl"
    assert bowl().metric(done.strategy.recommend()) < 0.5 * bowl().metric(done.told("start")[0].point)


def test_without_gradients_it_says_so():
    """A problem without gradients is refused when a strategy is made, and searched by values if it gets that far."""
    of = bowl().problem(gradients=())
    with pytest.raises(SpecError, match="gradients"):
        make_strategy("atlas", of, 0, {})


def test_rises_is_sure_before_it_speaks():
    """A clear rise is seen, noise and falls are not."""
    noise = np.random.default_rng(0).standard_normal((200, 20))
    assert rises(list(np.arange(20.0) + noise[0]))
    assert not rises(list(-np.arange(20.0) + noise[0]))
    assert not rises([1.0] * 20)
    assert sum(rises(list(row)) for row in noise) <= 2
