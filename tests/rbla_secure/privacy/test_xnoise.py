"""Noise that is added and removed again: its components telescope, what stays has the target variance, and no slack hides."""

import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.ring import RING_BITS, capacity
from rbla_secure.errors import PrivacyError
from rbla_secure.privacy.discrete_gaussian import TOTAL_VARIATION
from rbla_secure.privacy.noise import SMOOTHING_SLACK
from rbla_secure.privacy.noise.distributed import DistributedDiscreteGaussian
from rbla_secure.privacy.quantize import Quantizer
from rbla_secure.privacy.shares import MIN_SHARE, BandShares, convolution_slack
from tests.support.properties import PROPERTY

Law = npt.NDArray[np.float64]


@st.composite
def bands(draw: st.DrawFn) -> tuple[BandShares, int]:
    """A band and its colluders, at least one share of which is not made good."""
    counted = draw(st.integers(1, 300))
    colluders = draw(st.integers(0, 20))
    recovered = draw(st.integers(0, min(255, counted - 1)))
    return BandShares(
        length=50, uploaders=counted + colluders, counted=counted, recovered=recovered
    ), colluders


def fitted(*shares: BandShares, **changes: Any) -> DistributedDiscreteGaussian:
    fields: dict[str, Any] = {
        "bound": 0.06,
        "clip_norm": 1.5,
        "dimension": 600,
        "noise_multiplier": 2.0,
        "bands": shares,
        "members": max(band.uploaders for band in shares),
        "ring_bits": 32,
    }
    return DistributedDiscreteGaussian.fitting(**(fields | changes))


def total(divisors: tuple[int, ...]) -> Fraction:
    """The variance of these components in units of the target, exactly."""
    return sum((Fraction(1, divisor) for divisor in divisors), Fraction(0))


@PROPERTY
@given(bands())
def test_components_telescope(case: tuple[BandShares, int]) -> None:
    """The first 1 + k of them are a share of m - k, in exact arithmetic; all of them are one of m - T."""
    band, _ = case

    assert len(band.divisors) == 1 + band.recovered
    for missing in range(band.recovered + 1):
        assert total(band.kept(missing)) == Fraction(1, band.counted - missing)
    assert total(band.kept(band.uploaders)) == Fraction(1, band.counted - band.recovered)
    assert min(band.divisors) > 0


@PROPERTY
@given(case=bands(), data=st.data())
def test_unknown_survivors_keep_exactly_the_target(case: tuple[BandShares, int], data: st.DataObject) -> None:
    """Up to the bound, if all colluders survive; more if some of them are among the missing; beyond the bound less."""
    band, colluders = case
    missing = data.draw(st.integers(0, band.counted - 1))
    gone = data.draw(st.integers(0, min(colluders, missing)))

    unknown = band.uploaders - missing - (colluders - gone)
    left = unknown * total(band.kept(missing))

    if missing <= band.recovered:
        assert left == 1 + gone * Fraction(1, band.counted - missing) >= 1
    else:
        assert left == Fraction(band.counted - missing + gone, band.counted - band.recovered)


@PROPERTY
@given(case=bands(), data=st.data())
def test_a_release_spends_the_target_up_to_the_bound_and_more_beyond(
    case: tuple[BandShares, int], data: st.DataObject
) -> None:
    """With D <= T drop-outs the multiplier is the planned one; with more, that of what really stays."""
    band, colluders = case
    missing = data.draw(st.integers(0, band.counted - 1))
    mechanism = fitted(band)

    spent = mechanism.event({0: band.uploaders - missing}, known=colluders)

    short = Fraction(band.counted - missing, band.counted - band.recovered)
    factor = 1.0 if missing <= band.recovered else math.sqrt(short)
    assert spent.noise_multiplier == pytest.approx(2.0 * factor, rel=1e-4)
    assert spent.noise_multiplier <= 2.0 * factor * (1 + 1e-12)
    # The sampler's error counts for every component that stays and is not known, and is no factor.
    drawn = (band.counted - missing) * len(band.kept(missing))
    assert spent.total_variation == band.length * drawn * TOTAL_VARIATION
    assert spent.slack == pytest.approx(band.length * SMOOTHING_SLACK, rel=1e-9)


def test_the_least_noised_band_decides() -> None:
    """One band within its bound and one beyond: the second one's shortfall is what a release spends."""
    mechanism = fitted(
        BandShares(length=9, uploaders=10, counted=10, recovered=3),
        BandShares(length=9, uploaders=6, counted=6, recovered=1),
    )

    assert mechanism.event({0: 7, 1: 5}).noise_multiplier == pytest.approx(2.0, rel=1e-6)
    assert mechanism.event({0: 7, 1: 4}).noise_multiplier == pytest.approx(2.0 * math.sqrt(4 / 5), rel=1e-6)
    assert mechanism.event({0: 7, 1: 1}, known=1).noise_multiplier == 0


def test_a_share_is_all_of_its_components() -> None:
    """What a client adds has the variance S / (m - T), of which the first component alone has S / m."""
    band = BandShares(length=9, uploaders=12, counted=10, recovered=4)
    mechanism = fitted(band)

    stds = mechanism.component_stds(0)

    assert stds[0] == math.sqrt(mechanism.variance() / 10)
    assert stds[1] == math.sqrt(mechanism.variance() / 90)
    assert mechanism.share_std(0) == pytest.approx(math.sqrt(mechanism.variance() / 6))
    assert fitted(replace(band, recovered=0)).component_stds(0)[1:] == ()


@PROPERTY
@given(case=bands(), bits=st.sampled_from(RING_BITS))
def test_room_in_the_ring_covers_all_components(case: tuple[BandShares, int], bits: int) -> None:
    """An input's bound has ten standard deviations of the whole share, and the smallest component four units."""
    band, _ = case
    try:
        mechanism = fitted(band, ring_bits=bits)
    except PrivacyError:
        return

    whole = math.sqrt(mechanism.variance() / (band.counted - band.recovered))
    assert mechanism.input_bound >= mechanism.quantizer.levels + 10 * whole * (1 - 1e-12)
    assert band.uploaders * mechanism.input_bound <= capacity(1, bits=bits)
    assert min(mechanism.component_stds(0)) >= MIN_SHARE


def test_a_component_below_four_units_is_refused() -> None:
    """The grid must carry the smallest component, not only the share."""
    band = BandShares(length=9, uploaders=100, counted=100, recovered=30)
    coarse = Quantizer(bits=4, bound=0.06)

    assert replace(fitted(replace(band, recovered=0)), quantizer=coarse).share_std(0) > MIN_SHARE
    with pytest.raises(
        PrivacyError, match=r"a component of a noise share of .* smaller privacy.recovered-dropout"
    ):
        replace(fitted(band), quantizer=coarse)


@pytest.mark.parametrize("recovered", [-1, 5, 6])
def test_a_band_needs_one_share_that_is_not_made_good(recovered: int) -> None:
    """As many drop-outs as counted shares leave nobody to make them good."""
    with pytest.raises(PrivacyError, match=r"must lie in 0\.\.4"):
        BandShares(length=9, uploaders=6, counted=5, recovered=recovered)


# --- sums of unequal discrete Gaussians ---


def law(std: float, reach: int) -> Law:
    """The exact probabilities of a discrete Gaussian on -reach..reach."""
    values = np.arange(-reach, reach + 1)
    weights = np.exp(-(values**2) / (2 * std**2))
    return np.asarray(weights / weights.sum())


@pytest.mark.parametrize(
    "stds", [(0.6, 0.6), (0.6, 2.0), (0.5, 0.7, 1.1), (0.55, 0.55, 0.6, 3.0), (0.8, 0.7)]
)
def test_a_sum_of_unequal_components_is_as_close_as_the_slack_says(stds: tuple[float, ...]) -> None:
    """Exact laws, convolved, at scales where the distance shows; at four units nothing of it is left."""
    reach = 60
    summed = np.ones(1)
    for std in stds:
        summed = np.convolve(summed, law(std, reach))
    wide = law(math.hypot(*stds), reach * len(stds))
    window = math.ceil(4 * math.hypot(*stds))
    centre = slice(len(summed) // 2 - window, len(summed) // 2 + window + 1)

    distance = np.abs(np.log(summed[centre] / wide[centre])).max()

    assert 1e-9 < distance <= convolution_slack(len(stds), min(stds))
    assert convolution_slack(10**6, MIN_SHARE) < 1e-60
    assert convolution_slack(1, 0.5) == convolution_slack(0, 0.5) == 0


def test_the_order_of_summation_cannot_matter_more_than_the_slack() -> None:
    """A fine component beside a coarse one has the harmonic mean's smoothness, never less than half of the smallest."""
    for first in (16.0, 40.0, 1e4):
        for second in (16.0, 17.0, 1e8):
            assert first * second / (first + second) >= min(first, second) / 2
