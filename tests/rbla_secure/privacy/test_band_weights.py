"""Weights of rank bands: that they are the best, what they save, and that the length of an update keeps its meaning."""

import math

import numpy as np
import pytest

from rbla_secure.errors import PrivacyError
from rbla_secure.privacy.band_weights import expected_signal, least_noise_weights, noise_energy

# Ranks 2, 4, 8 and 16 with 20, 12, 6 and 2 holders, as in docs/privacy-analysis.md.
RANGES = ((0, 2), (2, 4), (4, 8), (8, 16))
HOLDERS = (20, 12, 6, 2)
COSTS = tuple((stop - start) / count**2 for (start, stop), count in zip(RANGES, HOLDERS, strict=True))


@pytest.mark.parametrize("decay", [0.0, 0.5, 1.0, 2.0])
def test_no_other_weights_of_the_same_length_leave_less_noise(decay: float) -> None:
    """Against a thousand drawn at random, and in the closed form of the least energy."""
    signals = expected_signal(RANGES, decay)
    weights = least_noise_weights(COSTS, signals)
    least = noise_energy(COSTS, weights)

    assert sum(w * w * s for w, s in zip(weights, signals, strict=True)) == pytest.approx(
        sum(signals), rel=1e-6
    )
    closed = sum(math.sqrt(c * s) for c, s in zip(COSTS, signals, strict=True)) ** 2 / sum(signals)
    assert least == pytest.approx(closed, rel=1e-6)
    generator = np.random.default_rng(0)
    for _ in range(1000):
        drawn = np.exp(generator.normal(0, 1, len(COSTS)))
        drawn *= math.sqrt(sum(signals) / np.sum(drawn**2 * signals))
        assert noise_energy(COSTS, drawn) >= least * (1 - 1e-6)


def test_the_energies_of_four_tiers() -> None:
    """Twenty clients whose update is spread evenly: 29 % less; where its square falls as 1 / row, 65 %."""
    saved = {
        decay: 1
        - noise_energy(COSTS, least_noise_weights(COSTS, expected_signal(RANGES, decay))) / sum(COSTS)
        for decay in (0.0, 1.0)
    }

    assert saved == pytest.approx({0.0: 0.286, 1.0: 0.647}, abs=1e-3)


def test_where_noise_lies_as_the_signal_does_all_weights_are_one() -> None:
    """Costs in proportion to signals: nothing is gained, and nothing changes."""
    assert least_noise_weights((0.5, 1.0, 2.0), (1.0, 2.0, 4.0)) == (1.0, 1.0, 1.0)


def test_signal_is_summed_over_rows() -> None:
    """Rows count from 1, so that a decay of 1 gives the first row 1 and the third a third."""
    assert expected_signal(((0, 1), (1, 3)), 1.0) == pytest.approx((1.0, 1 / 2 + 1 / 3))
    assert expected_signal(((0, 2), (2, 6)), 0.0) == (2.0, 4.0)


@pytest.mark.parametrize(
    ("costs", "signals"), [((), ()), ((1.0,), (1.0, 2.0)), ((1.0, 0.0), (1.0, 1.0)), ((1.0,), (math.nan,))]
)
def test_what_is_no_cost_or_signal_is_refused(costs: tuple[float, ...], signals: tuple[float, ...]) -> None:
    """By name, before a weight of zero or infinity takes a band out of the bound."""
    with pytest.raises(PrivacyError, match="bands must be"):
        least_noise_weights(costs, signals)
