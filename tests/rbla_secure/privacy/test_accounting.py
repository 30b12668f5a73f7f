"""Epsilons agree with implementations that share no code with ours, and never lie below an exact value."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from dp_accounting.pld import privacy_loss_distribution as pld
from hypothesis import given
from hypothesis import strategies as st
from scipy import special

from rbla_secure.errors import PrivacyError
from rbla_secure.privacy.accounting import (
    SampledSteps,
    epsilon,
    epsilon_by_renyi,
    epsilon_of_steps,
    noise_multiplier_for,
)
from rbla_secure.privacy.discrete_gaussian import TOTAL_VARIATION
from rbla_secure.privacy.noise import SMOOTHING, Release
from rbla_secure.privacy.noise.distributed import DistributedDiscreteGaussian
from rbla_secure.privacy.shares import BandShares
from tests.support.properties import PROPERTY


def gaussian(multiplier: float, *, slack: float = 0.0) -> Release:
    return Release(noise_multiplier=multiplier, slack=slack, rho=1 / (2 * multiplier**2))


def log_delta_of(multiplier: float, eps: float) -> float:
    """The privacy profile of a Gaussian (Balle and Wang 2018, Theorem 8), written out with log-cdfs."""
    a = special.log_ndtr(1 / (2 * multiplier) - eps * multiplier)
    b = eps + special.log_ndtr(-1 / (2 * multiplier) - eps * multiplier)
    return float(a + np.log1p(-np.exp(min(b - a, -1e-15))))


def exact_epsilon(multiplier: float, delta: float) -> float:
    """By bisection."""
    low, high = 0.0, 1.0
    while log_delta_of(multiplier, high) > math.log(delta):
        low, high = high, 2 * high
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if log_delta_of(multiplier, middle) > math.log(delta) else (low, middle)
    return high


def renyi_epsilon(rho: float, delta: float) -> float:
    """The best zero-concentrated conversion (Canonne, Kamath, Steinke 2020, Proposition 12), on a grid of orders."""
    orders = np.concatenate([np.linspace(1.001, 20, 40_000), np.linspace(20, 2000, 40_000)])
    curve = rho * orders + np.log1p(-1 / orders) - (math.log(delta) + np.log(orders)) / (orders - 1)
    return float(curve.min())


@pytest.mark.parametrize("multiplier", [0.5, 1.0, 4.0, 16.0])
@pytest.mark.parametrize("rounds", [1, 20, 300])
@pytest.mark.parametrize("delta", [1e-3, 1e-5, 1e-9])
def test_gaussian_rounds_spend_the_exact_epsilon(multiplier: float, rounds: int, delta: float) -> None:
    """Within a millionth of an independent bisection, and not below it."""
    ours = epsilon([gaussian(multiplier)] * rounds, delta)
    exact = exact_epsilon(multiplier / math.sqrt(rounds), delta)

    assert exact <= ours <= exact * (1 + 1e-6) + 1e-9


def test_unequal_rounds_agree_with_a_privacy_loss_distribution() -> None:
    """Three different rounds, composed numerically by another accountant, within one percent."""
    multipliers = (2.0, 3.5, 5.0)
    losses = [pld.from_gaussian_mechanism(z, value_discretization_interval=1e-3) for z in multipliers]
    theirs = losses[0].compose(losses[1]).compose(losses[2]).get_epsilon_for_delta(1e-5)

    assert epsilon(map(gaussian, multipliers), 1e-5) == pytest.approx(theirs, rel=0.01)


@pytest.mark.parametrize("sigma", [4.0, 9.0, 30.0])
def test_the_discrete_gaussian_is_never_reported_below_its_exact_value(sigma: float) -> None:
    """One coordinate, where the exact privacy loss distribution of the integers is known: ours is at or above it."""
    sensitivity = 3
    exact = pld.from_discrete_gaussian_mechanism(
        sigma, sensitivity=sensitivity, value_discretization_interval=1e-4
    )
    scaled = Release(
        noise_multiplier=math.sqrt(sigma**2 - SMOOTHING**2) / sensitivity, slack=1e-12, rho=math.nan
    )

    for delta in (1e-3, 1e-5):
        # The library rounds losses up by at most its interval.
        assert epsilon([scaled], delta) >= exact.get_epsilon_for_delta(delta) - 2e-4
        assert epsilon([scaled], delta) <= exact.get_epsilon_for_delta(delta) * (1.25 if sigma == 4 else 1.05)


@pytest.mark.parametrize("rounds", [1, 20, 300])
def test_the_concentrated_road_agrees_with_its_formula_and_is_looser(rounds: int) -> None:
    """The Renyi accountant over zCDP events is within one percent of the optimum of its own bound, above the exact one."""
    releases = [gaussian(8.0)] * rounds

    theirs = epsilon_by_renyi(releases, 1e-5)

    assert theirs == pytest.approx(renyi_epsilon(rounds / 128, 1e-5), rel=0.01)
    assert epsilon(releases, 1e-5) < theirs < 1.25 * epsilon(releases, 1e-5)


def test_a_distributed_mechanism_spends_what_theorem_1_allows_at_most() -> None:
    """The exact road and the published theorem bound the same release; the exact one is the tighter."""
    mechanism = DistributedDiscreteGaussian.fitting(
        bound=0.06,
        clip_norm=1.5,
        dimension=500,
        noise_multiplier=4.0,
        bands=(BandShares(length=500, uploaders=20, counted=20),),
        members=20,
        ring_bits=32,
    )
    releases = [mechanism.event({0: 20})] * 50

    assert epsilon(releases, 1e-5) == pytest.approx(exact_epsilon(4 / math.sqrt(50), 1e-5), rel=1e-4)
    assert (
        epsilon(releases, 1e-5)
        < epsilon_by_renyi(releases, 1e-5)
        == pytest.approx(renyi_epsilon(50 / 32, 1e-5), rel=0.01)
    )


def test_slack_is_paid_for() -> None:
    """Probabilities that are off by a factor cost twice its logarithm in epsilon, and a factor of delta."""
    plain, loose = epsilon([gaussian(2.0)], 1e-5), epsilon([gaussian(2.0, slack=0.1)], 1e-5)

    assert loose == pytest.approx(epsilon([gaussian(2.0)], 1e-5 * math.exp(-0.1)) + 0.2)
    assert loose > plain + 0.2


def drawn(multiplier: float, variation: float) -> Release:
    return replace(gaussian(multiplier), total_variation=variation)


def worst_log_delta(multiplier: float, variation: float, eps: float) -> float:
    """Two neighbours' laws at a distance of `variation` from those of a Gaussian mechanism, as bad as they can be.

    On the set where the loss is above epsilon, one law has so much more mass and its neighbour so much less.
    """
    return math.log(math.exp(log_delta_of(multiplier, eps)) + (1 + math.exp(eps)) * variation)


def first_epsilon(log_delta: Callable[[float], float], delta: float, low: float) -> float:
    """The smallest epsilon above `low` at which a log-delta is at most this, by bisection after steps of a hundredth."""
    high = low
    while log_delta(high) > math.log(delta):
        low, high = high, high + 0.01
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if log_delta(middle) > math.log(delta) else (low, middle)
    return high


@pytest.mark.parametrize(("multiplier", "variation"), [(1.0, 1e-8), (1.0, 5e-8), (2.0, 1e-7), (0.7, 1e-9)])
def test_the_samplers_error_is_taken_off_delta_on_both_sides(multiplier: float, variation: float) -> None:
    """Not below the epsilon of the worst laws, and at it. Taken off once, as if one side were exact, the figure is too small."""
    delta = 1e-5
    bare = exact_epsilon(multiplier, delta)
    truth = first_epsilon(lambda eps: worst_log_delta(multiplier, variation, eps), delta, bare)

    ours = epsilon([drawn(multiplier, variation)], delta)
    once = exact_epsilon(multiplier, delta - variation)

    assert truth <= ours <= truth * (1 + 1e-6)
    assert bare < once < truth * (1 - 1e-3)


def test_the_samplers_errors_of_rounds_add_up() -> None:
    """Ten rounds of a tenth each are one of the whole, at either level; the slack is paid beside it."""
    rounds = [drawn(3.0 * math.sqrt(10), 1e-8)] * 10
    whole = epsilon([drawn(3.0, 1e-7)], 1e-5)
    assert epsilon(rounds, 1e-5) == pytest.approx(whole, abs=1e-8)
    assert epsilon([*rounds, replace(drawn(1e9, 0.0), slack=0.01)], 1e-5) > whole + 0.02
    for rate in (1.0, 0.1):
        parts = [
            SampledSteps(noise_multiplier=6.0, sample_rate=rate, steps=10, slack=5e-4, total_variation=1e-8)
        ] * 3
        one = SampledSteps(
            noise_multiplier=6.0, sample_rate=rate, steps=30, slack=1.5e-3, total_variation=3e-8
        )
        bare = SampledSteps(noise_multiplier=6.0, sample_rate=rate, steps=30)
        spent = epsilon_of_steps(parts, 1e-5)
        assert spent == pytest.approx(epsilon_of_steps([one], 1e-5), abs=1e-8)
        left = 1e-5 - (1 + math.exp(spent)) * 3e-8
        assert spent == pytest.approx(epsilon_of_steps([bare], left * math.exp(-1.5e-3)) + 3e-3, abs=1e-6)


@pytest.mark.parametrize("variation", [1e-5, 0.9e-5, 2e-7, 1.0])
def test_where_the_sampler_leaves_nothing_of_delta_nothing_is_claimed(variation: float) -> None:
    """Infinite, whichever way epsilon is computed; the control is a sampler that is close enough."""
    steps = SampledSteps(noise_multiplier=1.0, sample_rate=1.0, steps=1, total_variation=variation)

    assert epsilon([drawn(1.0, variation)], 1e-5) == math.inf
    assert epsilon_by_renyi([drawn(1.0, variation)], 1e-5) == math.inf
    assert epsilon_of_steps([steps], 1e-5) == math.inf
    assert epsilon_by_renyi([gaussian(1.0)], 1e-5) < epsilon_by_renyi([drawn(1.0, 1e-9)], 1e-5) < math.inf


def test_the_samplers_error_costs_nothing_that_shows() -> None:
    """A thousand rounds of a million clients' draws of a million values; epsilons beyond what it can claim are infinite."""
    variation = 1e15 * TOTAL_VARIATION

    for multiplier in (0.05, 0.1, 1.0, 10.0):
        spent = epsilon([drawn(multiplier, variation)], 1e-9)
        assert 0 <= spent - epsilon([gaussian(multiplier)], 1e-9) < 1e-8
    assert 700 < epsilon([gaussian(0.02)], 1e-9) < math.inf
    assert epsilon([drawn(0.02, variation)], 1e-9) == math.inf


def test_nothing_spends_nothing_and_no_noise_spends_everything() -> None:
    """The two ends of the scale."""
    assert epsilon([], 1e-5) == 0
    assert epsilon([gaussian(1.0), Release(noise_multiplier=0, slack=0, rho=math.inf)], 1e-5) == math.inf
    assert epsilon_by_renyi([Release(noise_multiplier=0, slack=0, rho=math.inf)], 1e-5) == math.inf


@PROPERTY
@given(target=st.floats(0.05, 50), rounds=st.integers(1, 500))
def test_calibration_errs_on_the_private_side(target: float, rounds: int) -> None:
    """The calibrated noise meets the target, and a thousandth less would not."""
    multiplier = noise_multiplier_for(target, delta=1e-5, releases=rounds)

    assert epsilon([gaussian(multiplier)] * rounds, 1e-5) <= target
    assert epsilon([gaussian(0.999 * multiplier)] * rounds, 1e-5) > target


@pytest.mark.parametrize("delta", [0.0, 1.0, -1.0, math.nan])
def test_a_delta_out_of_range_is_refused(delta: float) -> None:
    """Delta is a probability strictly between 0 and 1."""
    with pytest.raises(PrivacyError, match="delta="):
        epsilon([gaussian(1.0)], delta)
    with pytest.raises(PrivacyError, match="delta="):
        epsilon_by_renyi([gaussian(1.0)], delta)


@pytest.mark.parametrize("multiplier", [1e-155, 1e-300, 5e-324])
def test_noise_whose_square_is_no_number_hides_nothing(multiplier: float) -> None:
    """Epsilon is infinite, as without noise."""
    assert epsilon([Release(noise_multiplier=multiplier, slack=0.0, rho=0.0)], 1e-5) == math.inf
    steps = SampledSteps(noise_multiplier=multiplier, sample_rate=1.0, steps=3)
    assert epsilon_of_steps([steps], 1e-5) == math.inf
