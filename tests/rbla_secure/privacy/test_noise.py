"""The mechanisms: sensitivity, share scales, room in the ring, and what a release spends."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.primitives.prg import UniformStream
from protocols.ring import RING_BITS, capacity
from rbla_secure.config.choices import Adjacency
from rbla_secure.errors import PrivacyError
from rbla_secure.privacy import noise
from rbla_secure.privacy.discrete_gaussian import MAX_SIGMA, TOTAL_VARIATION, discrete_gaussian
from rbla_secure.privacy.noise import Release
from rbla_secure.privacy.noise.central import CentralGaussian
from rbla_secure.privacy.noise.distributed import DistributedDiscreteGaussian
from rbla_secure.privacy.quantize import Quantizer
from rbla_secure.privacy.shares import BandShares, convolution_slack
from tests.support.properties import PROPERTY

BANDS = (
    BandShares(length=400, uploaders=10, counted=9),
    BandShares(length=200, uploaders=5, counted=4),
)


def fitted(**changes: Any) -> DistributedDiscreteGaussian:
    fields: dict[str, Any] = {
        "bound": 0.06,
        "clip_norm": 1.5,
        "dimension": 600,
        "noise_multiplier": 1.0,
        "bands": BANDS,
        "members": 10,
        "ring_bits": 32,
    }
    return DistributedDiscreteGaussian.fitting(**(fields | changes))


def central(**changes: Any) -> CentralGaussian:
    fields: dict[str, Any] = {
        "quantizer": Quantizer(bits=16, bound=0.06),
        "clip_norm": 1.5,
        "dimension": 600,
        "noise_multiplier": 1.0,
        "bands": BANDS,
        "members": 10,
    }
    return CentralGaussian(**(fields | changes))


def test_the_sensitivity_is_the_rounded_bound_of_the_largest_update() -> None:
    """Not the clip norm: rounding can lengthen a vector, and the mechanism counts it."""
    mechanism = fitted()

    bound = mechanism.quantizer.rounded_norm_bound(1.5, 600)
    assert mechanism.sensitivity(Adjacency.ZERO_OUT) == bound > 1.5 * mechanism.quantizer.scale
    assert mechanism.variance() == pytest.approx(bound**2)


def test_the_shares_of_every_band_add_up_to_the_target() -> None:
    """A thin band has larger shares: those counted on make up one and the same variance."""
    mechanism = fitted(noise_multiplier=2.5)

    for index, band in enumerate(BANDS):
        assert band.counted * mechanism.share_std(index) ** 2 == pytest.approx(mechanism.variance())
    assert mechanism.share_std(1) == pytest.approx(1.5 * mechanism.share_std(0))


def test_a_release_spends_what_its_least_noised_band_hides() -> None:
    """With every counted share present the claim holds; a band that lost half of them decides for all."""
    mechanism = fitted(noise_multiplier=2.0)

    assert mechanism.event({0: 9, 1: 4}).noise_multiplier == pytest.approx(2.0, rel=1e-9)
    assert mechanism.event({0: 9, 1: 2}).noise_multiplier == pytest.approx(2.0 / math.sqrt(2), rel=1e-9)
    assert mechanism.event({0: 9}).noise_multiplier == pytest.approx(2.0, rel=1e-9)
    assert mechanism.event({0: 10, 1: 5}).noise_multiplier > 2.0


def test_a_release_without_unknown_noise_spends_everything() -> None:
    """If all that is left of a band is colluders, nothing hides an update; without an open band nothing is spent."""
    mechanism = fitted()

    assert mechanism.event({0: 5, 1: 0}).noise_multiplier == 0
    assert mechanism.event({}) == noise.NOTHING
    assert central().event({}) == noise.NOTHING


def test_distributed_noise_costs_as_much_as_central_noise() -> None:
    """At 32 bits the two differ by less than a thousandth in the noise that a claim needs, and in what it spends."""
    distributed = fitted(noise_multiplier=3.0).event({0: 9, 1: 4})
    reference = central(noise_multiplier=3.0).event({0: 10, 1: 5})

    assert distributed.noise_multiplier == pytest.approx(reference.noise_multiplier, rel=1e-3)
    # In the units of an update: the noise on a sum against z C.
    mechanism = fitted(noise_multiplier=3.0)
    assert math.sqrt(mechanism.variance()) / mechanism.quantizer.scale == pytest.approx(3.0 * 1.5, rel=1e-3)


def test_the_slack_is_negligible_but_counted() -> None:
    """What separates integers from a continuous Gaussian costs less than 1e-29 of epsilon here."""
    slack = fitted().event({0: 9, 1: 4}).slack

    assert 0 < slack < 1e-29


def test_every_draw_that_the_observer_does_not_know_counts() -> None:
    """The sampler's error, times coordinates, times shares: all uploaders' against a reader, the unknown against a server."""
    mechanism = fitted()

    def draws(release: Release) -> float:
        return release.total_variation / TOTAL_VARIATION

    assert draws(mechanism.event({0: 9, 1: 4})) == 400 * 9 + 200 * 4
    assert draws(mechanism.event({0: 9, 1: 4}, known=2)) == 400 * 7 + 200 * 2
    assert draws(mechanism.event({0: 9, 1: 2}, known=2)) == 400 * 7
    assert draws(mechanism.event({0: 9})) == 400 * 9
    assert draws(central().event({0: 9, 1: 4})) == 400 + 200
    assert draws(noise.NOTHING) == 0


RANGE = r"noise of .* integer units at clip norm 1\.5 must be <= 1\.07e\+09, the most that is drawn: lower quantization\.bits"


def test_noise_that_cannot_be_drawn_is_refused_when_the_mechanism_is_built() -> None:
    """By name, at whichever clip norm; it was found out once the sums were open."""
    grid = Quantizer(bits=24, bound=0.06)
    most = MAX_SIGMA / central(quantizer=grid).sensitivity(Adjacency.ZERO_OUT)

    central(quantizer=grid, noise_multiplier=0.999999 * most)
    with pytest.raises(PrivacyError, match=RANGE):
        central(quantizer=grid, noise_multiplier=1.000001 * most)
    with pytest.raises(PrivacyError, match="at clip norm 3 must be"):
        replace(central(quantizer=grid, noise_multiplier=0.999999 * most), clip_norm=3.0)


@PROPERTY
@given(
    kind=st.sampled_from(("central", "distributed")),
    multiplier=st.floats(1e-3, 1e6),
    clip_norm=st.floats(1e-3, 1e6),
    bits=st.integers(2, 32),
    recovered=st.integers(0, 3),
    count_noise=st.sampled_from((0.0, 1e7)),
)
def test_no_draw_of_a_mechanism_that_was_built_is_refused(  # noqa: PLR0917  # what hypothesis draws
    kind: str, multiplier: float, clip_norm: float, bits: int, recovered: int, count_noise: float
) -> None:
    """Every component of every band, whatever the grid: shares, their removable parts, the server's noise."""
    bands = tuple(replace(band, recovered=recovered) for band in BANDS)
    fields = {
        "clip_norm": clip_norm,
        "noise_multiplier": multiplier,
        "count_noise": count_noise,
        "bands": bands,
    }
    try:
        if kind == "central":
            mechanism: noise.GaussianMechanism = central(quantizer=Quantizer(bits=bits, bound=0.06), **fields)
        else:
            mechanism = fitted(**fields)
    except PrivacyError:
        return

    for band in range(len(bands)):
        for std in mechanism.component_stds(band):
            assert len(discrete_gaussian(std, 1, UniformStream(bytes(16)))) == 1


@PROPERTY
@given(
    bits=st.sampled_from(RING_BITS),
    members=st.integers(2, 200),
    multiplier=st.floats(0.3, 30),
    clip_norm=st.floats(0.01, 100),
    bound=st.floats(0.001, 10),
)
def test_no_sum_can_leave_the_ring(
    bits: int, members: int, multiplier: float, clip_norm: float, bound: float
) -> None:
    """Signals at their bound plus ten standard deviations of every share stay below a quarter of the modulus."""
    bands = (BandShares(length=100, uploaders=members, counted=members),)
    try:
        mechanism = fitted(
            bands=bands,
            members=members,
            ring_bits=bits,
            noise_multiplier=multiplier,
            clip_norm=clip_norm,
            bound=bound,
            dimension=100,
        )
    except PrivacyError:
        return

    tail = members * math.ceil(10 * mechanism.share_std(0))
    assert members * mechanism.quantizer.levels + tail <= capacity(1, bits=bits)
    assert mechanism.share_std(0) >= 4


def test_the_grid_is_the_finest_that_fits() -> None:
    """One bit more would take more than half of the ring."""
    mechanism = fitted()

    with pytest.raises(PrivacyError, match="more than half of the 32-bit ring"):
        replace(mechanism, quantizer=Quantizer(bits=mechanism.quantizer.bits + 1, bound=0.06))


def test_a_ring_without_room_is_refused() -> None:
    """Sixteen bits do not hold a hundred large shares of four units and more."""
    with pytest.raises(PrivacyError, match="no grid of 2 to 32 bits has room for 100 clients"):
        fitted(
            members=100,
            ring_bits=16,
            bands=(BandShares(length=9, uploaders=100, counted=1),),
            noise_multiplier=200.0,
        )


def test_absence_cannot_be_claimed_of_distributed_noise() -> None:
    """Add-or-remove is the central mechanism's claim alone."""
    assert central().sensitivity(Adjacency.ADD_OR_REMOVE) == central().sensitivity(Adjacency.ZERO_OUT)
    with pytest.raises(PrivacyError, match="add-or-remove cannot be claimed of distributed noise"):
        fitted().sensitivity(Adjacency.ADD_OR_REMOVE)


def test_a_share_below_four_units_is_refused() -> None:
    """Discrete shares that are too narrow do not add up to a discrete Gaussian."""
    with pytest.raises(PrivacyError, match=r"a noise share of .* must be >= 4"):
        replace(fitted(), quantizer=Quantizer(bits=2, bound=0.06), noise_multiplier=0.1)
    with pytest.raises(PrivacyError, match=r"noise of .* must be >= 4"):
        central(quantizer=Quantizer(bits=2, bound=0.06), noise_multiplier=0.1)


@pytest.mark.parametrize("counted", [0, -3, 11])
def test_shares_that_nobody_adds_cannot_be_counted(counted: int) -> None:
    """A band counts on at least one share and on no more than are uploaded."""
    with pytest.raises(PrivacyError, match=r"noise shares must lie in 1\.\.10"):
        BandShares(length=1, uploaders=10, counted=counted)


def test_the_count_costs_what_adaptive_clipping_says() -> None:
    """Values and a vote that turns round together spend the target: 1/z^2 = 1/z_values^2 + 1/sigma_b^2."""
    counting = fitted(noise_multiplier=1.0, count_noise=5.0)
    sigma = math.sqrt(counting.variance())

    values = sigma / counting.quantizer.rounded_norm_bound(1.5, 600)
    assert values == pytest.approx((1 - 1 / 25) ** -0.5, rel=1e-6)
    assert sigma / (2 * counting.count_unit) == pytest.approx(5.0, rel=1e-5)
    assert counting.event({0: 9, 1: 4}).noise_multiplier == pytest.approx(1.0, rel=1e-9)


def test_a_count_that_alone_would_spend_more_is_refused() -> None:
    """Noise on the count must leave something for the values."""
    with pytest.raises(PrivacyError, match="must be below 1, the noise of the count"):
        fitted(noise_multiplier=1.0, count_noise=1.0)


def test_the_smoothing_sum_is_as_flat_as_the_proof_says() -> None:
    """For every centre, sum_x exp(-(x - y)^2 / 2 s^2) is sqrt(2 pi) s to within eta: checked at a scale where it shows."""
    integers = np.arange(-60, 61)
    for s in (0.5, 0.7, 1.0):
        eta = 2 * math.exp(-2 * math.pi**2 * s**2)
        sums = [np.exp(-((integers - y) ** 2) / (2 * s**2)).sum() for y in np.linspace(0, 1, 101)]
        ratio = np.array(sums) / (math.sqrt(2 * math.pi) * s) - 1
        assert np.abs(ratio).max() <= eta * (1 + 1e-2)
        assert np.abs(ratio).max() >= eta / 2


def test_a_sum_of_shares_is_as_close_to_a_discrete_gaussian_as_tau() -> None:
    """The exact law of a sum of three narrow shares, by convolution, is within e^tau of the wide one everywhere."""
    shares, std = 3, 0.9
    reach = np.arange(-40, 41)

    def law(sigma: float) -> Any:
        weights = np.exp(-(reach**2) / (2 * sigma**2))
        return weights / weights.sum()

    summed = np.convolve(np.convolve(law(std), law(std)), law(std))
    centre = slice(len(summed) // 2 - 12, len(summed) // 2 + 13)
    wide = law(std * math.sqrt(shares))[len(reach) // 2 - 12 : len(reach) // 2 + 13]

    distance = np.abs(np.log(summed[centre] / wide)).max()
    assert 1e-6 < distance <= convolution_slack(shares, std)


@pytest.mark.parametrize(("multiplier", "bits"), [(1e-6, 32), (0.3, 24), (1.0, 24), (4.9999, 14)])
def test_the_count_is_noised_as_much_as_it_says(multiplier: float, bits: int) -> None:
    """Noise of the sums' own standard deviation is `count_noise` on the count, up to the unit's rounding down."""
    grid = Quantizer(bits=bits, bound=0.06)
    counting = central(noise_multiplier=multiplier, count_noise=5.0, quantizer=grid)

    per_client = 2 * counting.count_unit  # from not clipped to clipped
    assert math.sqrt(counting.variance()) == pytest.approx(
        5.0 * per_client, rel=2 / counting.count_unit + 1e-6
    )


def test_noise_next_to_nothing_is_too_little_and_not_an_error_of_arithmetic() -> None:
    """Squares of a small multiplier vanish: it is refused by name all the same."""
    with pytest.raises(PrivacyError, match="noise of 0 integer units"):
        central(noise_multiplier=1e-300, count_noise=5.0)
