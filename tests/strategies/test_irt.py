"""Estimates of a full score from a prefix: the golden of the card, and that they beat the plain mean."""

import numpy as np
import pytest

from mergesearch.strategies.surrogates.irt import Items, ability_of, fit_items, gmp_irt, mp_irt, regressed


def test_the_golden_of_the_card():
    """bayesian.md card 4: θ = (.28, .62), P = .596283 .744216 .695085, mp-IRT .675957, gmp-IRT .612979."""
    items = Items(np.array([[1, 0.5], [0.8, 1.2], [0.3, 2]]), np.array([0.2, -0.1, 0.5]))
    ability = 0.4 * np.array([1, 0.2]) + 0.6 * np.array([-0.2, 0.9])
    assert np.allclose(ability, [0.28, 0.62])
    assert np.allclose(items.chances(ability), [0.596283, 0.744216, 0.695085], atol=1e-6)
    assert mp_irt(items, ability, 0.55, 20, 1000) == pytest.approx(0.675957, abs=1e-6)
    assert gmp_irt(items, ability, 0.55, 20, 1000) == pytest.approx(0.612979, abs=1e-6)


def simulated(models=60, items=300, seed=0):
    """Answers (models, items) of 0 and 1 from two abilities."""
    generator = np.random.default_rng(seed)
    truth = Items(generator.normal([1.0, 0.5], 0.5, (items, 2)), generator.normal(0, 1.2, items))
    abilities = generator.normal(0, 0.8, (models, 2))
    chances = np.array([truth.chances(theta) for theta in abilities])
    return (generator.random(chances.shape) < chances).astype(float)


def test_fitted_items_estimate_better_than_the_plain_mean():
    """From 40 of 300 answers, over unseen models, the estimate errs less than the mean of what was seen.

    By a tenth here: 40 answers say little about an ability, whatever is known of the items.
    """
    plain, estimated = [], []
    for seed in range(4):
        right = simulated(seed=seed)
        items, seen = fit_items(right[:40]), 40
        unseen = Items(items.a[seen:], items.b[seen:])
        for row in right[40:]:
            accuracy = float(row[:seen].mean())
            guess = gmp_irt(unseen, ability_of(items, row[:seen]), accuracy, seen, len(row))
            plain.append(accuracy - row.mean())
            estimated.append(guess - row.mean())
    assert np.std(estimated) < 0.95 * np.std(plain)


def test_items_are_finite_where_all_or_none_answer_right():
    """An item that every candidate solves, or none, gets finite parameters; one candidate alone is no error."""
    for right in (np.ones((5, 4)), np.zeros((5, 4)), np.array([[1.0, 0.0, 1.0]])):
        items = fit_items(right)
        assert np.isfinite(items.a).all()
        assert np.isfinite(items.b).all()
        assert np.isfinite(ability_of(items, right[0])).all()


def test_the_regression_is_exact_where_the_rest_is_a_shift_and_honest_where_it_knows_nothing():
    """The difference between prefix and whole is learnt from others; without others the error is infinite."""
    parts = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    estimate, deviation = regressed(0.35, parts, parts + 0.05)
    assert estimate == pytest.approx(0.40)
    assert deviation == pytest.approx(0.0, abs=1e-9)
    assert regressed(0.35, parts[:1], parts[:1] + 0.05)[0] == pytest.approx(0.40)
    assert regressed(0.35, parts[:0], parts[:0]) == (0.35, np.inf)
