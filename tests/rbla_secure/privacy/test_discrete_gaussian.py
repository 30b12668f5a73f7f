"""The sampler has the law it claims, for every scale, from nothing but the bytes it is given."""

import math
import time

import numpy as np
import opendp.prelude as dp
import pytest
from scipy import stats

from protocols.primitives.prg import UniformStream
from rbla_secure.errors import PrivacyError
from rbla_secure.privacy.discrete_gaussian import MAX_SIGMA, discrete_gaussian
from tests.support.noise_law import has_std, tells_wrong_scales

DRAWS = 200_000


def stream(number: int = 0) -> UniformStream:
    return UniformStream(number.to_bytes(16, "big"))


def exact_masses(sigma: float) -> dict[int, float]:
    """The law itself, from its definition."""
    reach = range(-math.ceil(12 * sigma) - 1, math.ceil(12 * sigma) + 2)
    weights = {x: math.exp(-(x**2) / (2 * sigma**2)) for x in reach}
    return {x: weight / sum(weights.values()) for x, weight in weights.items()}


def p_value(draws: np.ndarray, sigma: float) -> float:
    """Of a chi-square test against the exact masses; cells with fewer than five expected draws are one."""
    masses = {x: mass for x, mass in exact_masses(sigma).items() if mass * len(draws) >= 5}
    seen = [int((draws == x).sum()) for x in masses]
    expected = [mass * len(draws) for mass in masses.values()]
    rest, rest_expected = len(draws) - sum(seen), len(draws) - sum(expected)
    if rest_expected > 1e-6:
        seen, expected = [*seen, rest], [*expected, rest_expected]
    return float(stats.chisquare(seen, np.array(expected) * (sum(seen) / sum(expected))).pvalue)


@pytest.mark.parametrize("sigma", [0.3, 0.75, 1.0, 1.5, 4.0, 11.3])
def test_the_law_is_the_discrete_gaussian(sigma: float) -> None:
    """A chi-square test over all integers accepts the scale, and rejects nine tenths of it."""
    draws = discrete_gaussian(sigma, DRAWS, stream(1))

    assert p_value(draws, sigma) > 1e-6
    assert p_value(draws, 0.9 * sigma) < 1e-6


@pytest.mark.parametrize("sigma", [50.0, 3e5, 7.7e7, MAX_SIGMA])
def test_large_scales_have_the_right_spread_and_no_favoured_bit(sigma: float) -> None:
    """At any scale the spread is right, its two thirds and three halves are rejected, and the low bits are fair."""
    draws = discrete_gaussian(sigma, DRAWS, stream(2))

    assert tells_wrong_scales(DRAWS)
    assert has_std(draws, sigma)
    assert not has_std(draws, sigma * 2 / 3)
    assert not has_std(draws, sigma * 3 / 2)
    assert stats.kstest(draws, "norm", args=(0, sigma)).pvalue > 1e-6
    # Six standard errors of a fair coin.
    assert abs((draws & 1).mean() - 0.5) < 3 / math.sqrt(DRAWS)


def test_it_agrees_with_an_exact_sampler() -> None:
    """A sampler in rational arithmetic that shares no code with ours draws from the same law."""
    dp.enable_features("contrib")
    sigma, count = 4.0, 4000
    space = dp.vector_domain(dp.atom_domain(T=int)), dp.l2_distance(T=float)
    oracle = dp.m.make_gaussian(*space, scale=sigma)

    theirs = np.array(oracle([0] * count))
    ours = discrete_gaussian(sigma, count, stream(3))

    edges = range(-8, 10)
    table = [np.histogram(np.clip(draws, -8, 8), bins=edges)[0] for draws in (theirs, ours)]
    assert stats.chi2_contingency(table).pvalue > 1e-6
    wrong = np.histogram(np.clip(discrete_gaussian(1.5 * sigma, count, stream(3)), -8, 8), bins=edges)[0]
    assert stats.chi2_contingency([table[0], wrong]).pvalue < 1e-6


def test_the_bytes_decide_the_draws() -> None:
    """The same bytes give the same noise, others give other noise, and the stream moves on."""
    first = stream(4)
    one, two = discrete_gaussian(9.0, 1000, first), discrete_gaussian(9.0, 1000, first)

    assert one.tolist() == discrete_gaussian(9.0, 1000, stream(4)).tolist()
    assert one.tolist() != two.tolist()
    assert one.tolist() != discrete_gaussian(9.0, 1000, stream(5)).tolist()


def test_neighbouring_draws_are_independent() -> None:
    """No correlation between a draw and the next ones, across the internal chunks too."""
    draws = discrete_gaussian(20.0, DRAWS, stream(6)).astype(np.float64)

    for lag in (1, 2, 3, 17):
        correlation = np.corrcoef(draws[:-lag], draws[lag:])[0, 1]
        assert abs(correlation) < 6 / math.sqrt(DRAWS)


def test_none_are_drawn_where_none_are_wanted() -> None:
    """A count of zero is an empty vector."""
    assert discrete_gaussian(1.0, 0, stream()).shape == (0,)


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.nan, math.inf, 2 * MAX_SIGMA])
def test_a_scale_out_of_range_is_refused(sigma: float) -> None:
    """A scale that cannot be sampled is refused by name."""
    with pytest.raises(PrivacyError, match="sigma="):
        discrete_gaussian(sigma, 1, stream())


def test_a_million_draws_take_less_than_a_third_of_a_second() -> None:
    """The budget of the design, in processor time, best of three."""
    seconds = []
    for number in range(3):
        begin = time.process_time()
        discrete_gaussian(1e5, 10**6, stream(number))
        seconds.append(time.process_time() - begin)

    assert min(seconds) <= 0.3
