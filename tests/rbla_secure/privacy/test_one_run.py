"""The bounds of one run: the figures of the theorem, what they promise, and what they refute."""

import math
from fractions import Fraction

import numpy as np
import pytest

from rbla_secure.errors import PrivacyError
from rbla_secure.privacy.noise import Release
from rbla_secure.privacy.one_run import Guesses, guess, one_run, p_value, refutes_gaussian


def fair(count: int, *, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2, size=count).astype(bool)


@pytest.mark.parametrize(("canaries", "bound"), [(100, 3.490), (500, 5.101), (1000, 5.782), (5000, 7.284)])
def test_with_every_guess_right_the_bound_is_as_large_as_it_gets(canaries: int, bound: float) -> None:
    """At delta 1e-5 and 95 %: figures of another program for the same theorem."""
    coins = fair(canaries, seed=0)

    found = one_run(
        coins.astype(float), coins, delta=1e-5, guesses=canaries if coins.sum() * 2 == canaries else None
    )
    every = Guesses(canaries=canaries, made=canaries, correct=canaries)

    assert found.guesses.correct == found.guesses.made
    assert (
        p_value(every, epsilon=bound - 0.002, delta=1e-5)
        < 0.05
        < p_value(every, epsilon=bound + 0.002, delta=1e-5)
    )


def test_without_delta_every_guess_right_has_a_closed_form() -> None:
    """P[W >= r] = q^r, so the bound is -ln(0.05^(-1/r) - 1)."""
    every = Guesses(canaries=50, made=20, correct=20)
    bound = -math.log(0.05 ** (-1 / 20) - 1)

    assert p_value(every, epsilon=bound, delta=0.0) == pytest.approx(0.05, rel=1e-9)


@pytest.mark.parametrize(
    ("canaries", "made", "correct"), [(12, 8, 7), (40, 10, 5), (9, 9, 9), (30, 30, 21), (7, 3, 0)]
)
def test_the_p_value_is_that_of_exact_arithmetic(canaries: int, made: int, correct: int) -> None:
    """Theorem 5.2 in fractions, with q = 3/4: an oracle that shares no code."""
    delta, rate = Fraction(1, 1000), Fraction(3, 4)
    chance = [math.comb(made, k) * rate**k * (1 - rate) ** (made - k) for k in range(made + 1)]
    reached = sum(chance[correct:], Fraction(0))
    steepest = max(
        (sum(chance[correct - i : correct], Fraction(0)) / i for i in range(1, correct + 1)),
        default=Fraction(0),
    )
    expected = min(Fraction(1), reached + 2 * canaries * delta * steepest)

    guesses = Guesses(canaries=canaries, made=made, correct=correct)

    assert p_value(guesses, epsilon=math.log(3), delta=0.001) == pytest.approx(float(expected), rel=1e-9)


def randomized_response(
    coins: np.ndarray, *, epsilon: float, delta: float, generator: np.random.Generator
) -> np.ndarray:
    """The mechanism that the theorem is tight for: each coin told, rightly with q, and with delta all of them as they are."""
    right = generator.random(len(coins)) < 1 / (1 + math.exp(-epsilon))
    # A coin that the delta of the mechanism gives away scores beyond all that are not.
    given = generator.random(len(coins)) < delta
    return np.where(given, np.where(coins, 3.0, -3.0), np.where(coins == right, 1.0, -1.0))


@pytest.mark.parametrize(("delta", "made"), [(1e-6, 200), (1e-6, 100), (5e-4, 200)])
def test_the_bound_holds_of_a_mechanism_that_spends_exactly_so_much(delta: float, made: int) -> None:
    """Over 300 runs of 200 canaries the truth is refuted in no more than 24 (15 expected at most), a fifth of it in most."""
    generator = np.random.default_rng(0)
    runs = []
    for seed in range(300):
        coins = fair(200, seed=seed)
        scores = randomized_response(coins, epsilon=1.0, delta=delta, generator=generator)
        runs.append(guess(scores, coins, guesses=made))

    assert sum(p_value(run, epsilon=1.0, delta=delta) <= 0.05 for run in runs) <= 24
    assert sum(p_value(run, epsilon=0.2, delta=delta) <= 0.05 for run in runs) > 150


def test_the_gaussian_bound_holds_of_gaussians_and_reads_more_than_the_theorem() -> None:
    """Over 200 runs of 400 canaries: mu 1 is refuted in no more than 16, and 0.4 more often than its epsilon is."""
    generator = np.random.default_rng(0)
    runs = []
    for seed in range(200):
        coins = fair(400, seed=seed)
        runs.append(guess(coins + generator.normal(0, 1, 400), coins, guesses=80))

    assert sum(refutes_gaussian(run, mu=1.0, error=0.05) for run in runs) <= 16
    # A mu of 0.4 is an epsilon of 1.036 at delta 1e-3.
    by_theorem = sum(p_value(run, epsilon=1.036, delta=1e-3) <= 0.05 for run in runs)
    assert sum(refutes_gaussian(run, mu=0.4, error=0.05) for run in runs) > max(100, by_theorem)


def test_a_claim_that_is_refuted_is_refused_and_a_true_one_is_not() -> None:
    """Gaussians of mu 1 against the claim of mu 1, and of a half (epsilon 1.698 at 1e-4)."""
    coins = fair(5000, seed=3)
    found = one_run(coins + np.random.default_rng(3).normal(0, 1, 5000), coins, delta=1e-4)

    found.check(3.804)
    found.check_gaussian(Release(noise_multiplier=1.0, slack=0.0, rho=0.5))
    with pytest.raises(
        PrivacyError, match=r"one run shows epsilon >= .* at delta 0.0001, above the claimed 1.698"
    ):
        found.check(1.698)
    with pytest.raises(PrivacyError, match=r"one run shows mu >= .*, above the claimed 0.500"):
        found.check_gaussian(Release(noise_multiplier=2.0, slack=0.0, rho=0.125))


def test_scores_without_a_canary_in_them_show_nothing() -> None:
    """Coins that the scores know nothing of."""
    found = one_run(np.random.default_rng(1).normal(size=1000), fair(1000, seed=2), delta=1e-5)

    assert found.epsilon == 0
    assert found.mu == 0
    found.check(0.0)


def test_guesses_by_hand() -> None:
    """Two highest in, two lowest out, the middle not guessed; of three guesses two are "in"."""
    scores, coins = np.array([0.0, 5.0, 2.0, 4.0, 1.0]), np.array([False, True, True, False, True])

    assert guess(scores, coins, guesses=4) == Guesses(canaries=5, made=4, correct=2)
    assert guess(scores, coins, guesses=3) == Guesses(canaries=5, made=3, correct=2)
    assert guess(scores, coins, guesses=5).made == 5


def test_no_more_than_nothing_is_refuted_without_a_right_guess() -> None:
    """The recursion's ends: no guess right refutes nothing, all of many right refute a weak claim."""
    assert not refutes_gaussian(Guesses(canaries=10, made=10, correct=0), mu=0.0, error=0.05)
    assert refutes_gaussian(Guesses(canaries=100, made=100, correct=100), mu=1.0, error=0.05)
    assert not refutes_gaussian(Guesses(canaries=100, made=100, correct=100), mu=3.0, error=0.05)


def test_bad_arguments_are_named() -> None:
    """Each with the number that is wrong."""
    scores, coins = np.zeros(4), np.ones(4, dtype=bool)

    with pytest.raises(PrivacyError, match=r"delta=0\.0 and confidence=0\.95 must lie in"):
        one_run(scores, coins, delta=0.0)
    with pytest.raises(PrivacyError, match=r"scores \(4,\) and coins \(3,\)"):
        guess(scores, coins[:3], guesses=2)
    with pytest.raises(PrivacyError, match="scores must be finite"):
        guess(np.full(4, np.nan), coins, guesses=2)
    with pytest.raises(PrivacyError, match=r"guesses=5 must lie in 1..4"):
        guess(scores, coins, guesses=5)
    with pytest.raises(PrivacyError, match="correct=3 of made=2"):
        Guesses(canaries=4, made=2, correct=3)
