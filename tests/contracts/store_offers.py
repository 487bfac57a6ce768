"""What every study store promises of evaluations that are made outside."""

import json
import threading
from dataclasses import astuple, replace

import pytest
from contracts.store import CONFIRM, SEARCH, begin, same, scored

from mergesearch.errors import LeaseError, NotOffered, StudyNotFound
from mergesearch.store.base import StudyStore
from mergesearch.store.offering import Answer, Offer, Receipt, State
from mergesearch.types import Failed, Score, Scored, Split, Timing

NAME = "digits"


def plain_answer(answer: Answer) -> tuple[object, ...]:
    """An answer as values that compare, per-example values included; ids differ from store to store."""
    outcome = answer.outcome
    arrays = []
    if isinstance(outcome, Scored):
        arrays = [[(n, v.dtype, v.tobytes()) for n, v in m.items()] for m in (outcome.examples, outcome.gradients)]
    held = (answer.holder, answer.attempt, answer.offered, answer.leased, answer.told)
    scores = (outcome.scores, outcome.metrics) if isinstance(outcome, Scored) else astuple(outcome)
    return answer.number, answer.split, held, scores, arrays, outcome.timing, outcome.worker


def offered(store: StudyStore, count: int = 3) -> None:
    """A study with some offers of t=100."""
    begin(store, NAME)
    for number in range(count):
        store.offers.put(NAME, number, SEARCH, json.dumps({"number": number}), f"key{number}", 100.0)


def other(value: float) -> Scored:
    """Scores of another evaluation."""
    return replace(scored(1), scores={"mnist": Score(value, 0.01, 40), "fashion": Score(1 / 3, 0.0, 7)})


def test_an_offer_is_put_once(store: StudyStore) -> None:
    """Putting it again changes nothing, whatever became of it; other splits are offers of their own."""
    offered(store, 1)
    first = Offer(0, SEARCH, '{"number": 0}', "key0", offered=100.0)
    assert store.offers.waiting(NAME) == [first]
    assert store.offers.put(NAME, 0, SEARCH, "other", "other", 200.0) == first
    (leased,) = store.offers.lease(NAME, "w", 1, 60.0, 101.0)
    assert store.offers.put(NAME, 0, SEARCH, "other", "other", 200.0) == leased
    store.offers.tell(NAME, 0, SEARCH, leased.token, scored(0), 102.0)
    assert store.offers.put(NAME, 0, SEARCH, "other", "other", 200.0) == replace(leased, state=State.TOLD, body="")
    store.offers.put(NAME, 0, CONFIRM, "{}", "key", 201.0)
    assert store.offers.counts(NAME) == {State.OPEN: 1, State.LEASED: 0, State.TOLD: 1}


def test_a_told_offer_with_nothing_to_take_is_offered_anew(store: StudyStore) -> None:
    """What the log still waits for is never lost: not when it was withdrawn, not when its answer was taken."""
    offered(store, 2)
    offers = store.offers
    (mine, _) = offers.lease(NAME, "ann", 2, 10.0, 101.0)
    offers.tell(NAME, 0, SEARCH, mine.token, scored(0), 102.0)
    offers.take(NAME, offers.answers(NAME))
    offers.withdraw(NAME)
    for number in (0, 1):
        fresh = offers.put(NAME, number, SEARCH, "again", "fresh", 103.0, 5.0)
        assert fresh == Offer(number, SEARCH, "again", "fresh", offered=103.0, seconds=5.0)
    zero, one = offers.lease(NAME, "bob", 2, None, 104.0)
    assert (zero.until, one.until, zero.holders) == (109.0, 109.0, ("bob",))
    assert offers.renew(NAME, 0, SEARCH, zero.token, None, 105.0).until == 110.0
    assert offers.tell(NAME, 0, SEARCH, zero.token, scored(0), 106.0) is Receipt.FIRST


def test_offers_are_leased_oldest_first_and_once(store: StudyStore) -> None:
    """Nobody gets what another holds; a lease that ran out is given on, with a new token and one more holder."""
    offered(store)
    offers = store.offers
    one = offers.lease(NAME, "ann", 2, 10.0, 101.0)
    assert [(o.number, o.holders, o.leased, o.until, o.state) for o in one] == [
        (n, ("ann",), 101.0, 111.0, State.LEASED) for n in (0, 1)
    ]
    assert [o.number for o in offers.lease(NAME, "bob", 5, 100.0, 102.0)] == [2]
    assert not offers.free(NAME, 110.9)
    assert offers.lease(NAME, "cid", 5, 10.0, 110.9) == []
    assert offers.free(NAME, 111.0)
    two = offers.lease(NAME, "cid", 1, 10.0, 111.0)
    assert [(o.number, o.holders) for o in two] == [(0, ("ann", "cid"))]
    assert one[0].token != two[0].token
    assert [two[0].attempt(token) for token in (one[0].token, two[0].token, "", "key0.0", "key0.3", "key1.1")] == [
        1, 2, 0, 0, 0, 0,
    ]  # fmt: skip
    assert offers.counts(NAME) == {State.OPEN: 0, State.LEASED: 3, State.TOLD: 0}
    begin(store, "another")
    assert (offers.waiting("another"), offers.free("another"), offers.lease("another", "w", 1, 1.0)) == ([], False, [])


def test_an_answer_is_kept_bit_for_bit_until_it_is_taken(store: StudyStore) -> None:
    """Scores, metrics, arrays, times and who told it come back; taken answers do not, others stay."""
    offered(store)
    for offer in store.offers.lease(NAME, "ann", 3, 10.0, 101.0):
        outcome = Failed("OSError", "no\0 file", Timing(1.0), "w") if offer.number == 2 else scored(offer.number)
        assert store.offers.tell(NAME, offer.number, SEARCH, offer.token, outcome, 103.0) is Receipt.FIRST
    zero, one, two = store.offers.answers(NAME)
    assert (one.number, one.split, one.holder, one.attempt) == (1, SEARCH, "ann", 1)
    assert (one.offered, one.leased, one.told) == (100.0, 101.0, 103.0)
    assert same(one.outcome, scored(1))
    assert isinstance(one.outcome, Scored)
    assert {n: v.tobytes() for n, v in one.outcome.examples.items()} == {
        n: v.tobytes() for n, v in scored(1).examples.items()
    }
    assert two.outcome == Failed("OSError", "no\N{REPLACEMENT CHARACTER} file", Timing(1.0), "w")
    for _ in range(2):
        store.offers.take(NAME, [zero, two])
    assert [plain_answer(a) for a in store.offers.answers(NAME)] == [plain_answer(one)]
    assert store.offers.waiting(NAME) == []


def test_a_repeated_answer_is_known_by_its_scores(store: StudyStore) -> None:
    """Equal scores again write nothing, also after they were taken; others are kept beside the first, once each."""
    offered(store, 2)
    offers = store.offers
    first, second = offers.lease(NAME, "ann", 2, 10.0, 101.0)
    (late,) = offers.lease(NAME, "bob", 1, 60.0, 120.0)
    assert offers.tell(NAME, 0, SEARCH, first.token, scored(1), 121.0) is Receipt.FIRST  # its lease had run out
    for token in (first.token, late.token):
        again = replace(scored(1), metrics={}, timing=Timing(9.0), worker="other")
        assert offers.tell(NAME, 0, SEARCH, token, again, 122.0) is Receipt.AGAIN
    for _ in range(2):
        assert offers.tell(NAME, 0, SEARCH, late.token, other(0.75), 123.0) is Receipt.OTHER
    found = offers.answers(NAME)
    assert [(a.number, a.holder, a.attempt, a.told) for a in found] == [(0, "ann", 1, 121.0), (0, "bob", 2, 123.0)]
    offers.take(NAME, found)
    assert offers.tell(NAME, 0, SEARCH, first.token, scored(1), 124.0) is Receipt.AGAIN
    assert offers.tell(NAME, 0, SEARCH, first.token, other(0.75), 124.0) is Receipt.OTHER
    assert offers.answers(NAME) == []
    assert offers.tell(NAME, 1, SEARCH, second.token, Failed("a", "b"), 125.0) is Receipt.FIRST
    assert offers.tell(NAME, 1, SEARCH, second.token, Failed("c", "d"), 125.0) is Receipt.AGAIN
    assert offers.tell(NAME, 1, SEARCH, second.token, scored(1), 125.0) is Receipt.OTHER


def test_a_lease_is_prolonged_by_its_holder_alone(store: StudyStore) -> None:
    """Also after it ran out, as long as nobody took it over; not when it was told."""
    offered(store, 1)
    offers = store.offers
    (mine,) = offers.lease(NAME, "ann", 1, 10.0, 101.0)
    assert offers.renew(NAME, 0, SEARCH, mine.token, 10.0, 105.0) == replace(mine, until=115.0)
    assert offers.lease(NAME, "bob", 1, 10.0, 112.0) == []
    assert offers.renew(NAME, 0, SEARCH, mine.token, 10.0, 120.0).until == 130.0
    (theirs,) = offers.lease(NAME, "bob", 1, 10.0, 131.0)
    with pytest.raises(LeaseError, match="bob works on it now"):
        offers.renew(NAME, 0, SEARCH, mine.token, 10.0, 132.0)
    offers.tell(NAME, 0, SEARCH, theirs.token, scored(1), 133.0)
    with pytest.raises(LeaseError, match="told already"):
        offers.renew(NAME, 0, SEARCH, theirs.token, 10.0, 134.0)


def test_what_was_never_offered_or_given_out_is_refused(store: StudyStore) -> None:
    """Unknown studies, candidates and tokens are named, and nothing is written."""
    offered(store, 1)
    offers = store.offers
    with pytest.raises(NotOffered, match="candidate 7 is not offered on split 'search'"):
        offers.tell(NAME, 7, SEARCH, "key0.1", scored(1), 101.0)
    with pytest.raises(NotOffered, match="candidate 0 is not offered on split 'test'"):
        offers.renew(NAME, 0, Split.TEST, "key0.1", 1.0, 101.0)
    for token in ("key0.1", "", "x", "key0.", "key0.-1"):
        with pytest.raises(NotOffered, match="that token was never given out"):
            offers.tell(NAME, 0, SEARCH, token, scored(1), 101.0)
    for call in (
        lambda: offers.put("digts", 0, SEARCH, "", "k"),
        lambda: offers.waiting("digts"),
        lambda: offers.counts("digts"),
        lambda: offers.free("digts"),
        lambda: offers.lease("digts", "w", 1, 1.0),
        lambda: offers.renew("digts", 0, SEARCH, "", 1.0),
        lambda: offers.tell("digts", 0, SEARCH, "", scored(1)),
        lambda: offers.answers("digts"),
        lambda: offers.withdraw("digts"),
    ):
        with pytest.raises(StudyNotFound, match="did you mean 'digits'"):
            call()
    assert offers.answers(NAME) == []


def test_withdrawn_offers_are_given_to_nobody(store: StudyStore) -> None:
    """What was leased may still be told."""
    offered(store)
    (mine,) = store.offers.lease(NAME, "ann", 1, 10.0, 101.0)
    for _ in range(2):
        store.offers.withdraw(NAME)
    assert (store.offers.waiting(NAME), store.offers.free(NAME)) == ([], False)
    assert store.offers.tell(NAME, 0, SEARCH, mine.token, scored(0), 102.0) is Receipt.FIRST


def test_offers_go_with_their_study(store: StudyStore) -> None:
    """A removed study leaves none behind, and a token of it is worth nothing in a new one of that name."""
    offered(store, 2)
    (mine, _) = store.offers.lease(NAME, "ann", 2, 10.0, 101.0)
    store.offers.tell(NAME, 0, SEARCH, mine.token, scored(0), 102.0)
    store.remove(NAME)
    begin(store, NAME)
    assert (store.offers.waiting(NAME), store.offers.answers(NAME)) == ([], [])
    assert sum(store.offers.counts(NAME).values()) == 0
    store.offers.put(NAME, 0, SEARCH, "{}", "fresh", 200.0)
    store.offers.lease(NAME, "bob", 1, 10.0, 201.0)
    with pytest.raises(NotOffered, match="that token was never given out"):
        store.offers.tell(NAME, 0, SEARCH, mine.token, scored(0), 202.0)


def test_many_at_once_share_the_offers(store: StudyStore) -> None:
    """Threads that lease and tell at the same time: each offer is held and told once."""
    offered(store, 12)
    got: list[int] = []

    def scorer(name: str) -> None:
        while found := store.offers.lease(NAME, name, 2, 60.0):
            for offer in found:
                got.append(offer.number)
                assert store.offers.tell(NAME, offer.number, SEARCH, offer.token, scored(1)) is Receipt.FIRST

    threads = [threading.Thread(target=scorer, args=(f"w{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == list(range(12))
    assert sorted(a.number for a in store.offers.answers(NAME)) == list(range(12))
