"""Fixed point: exact in expectation, bounded in length, and the same integers for the same key."""

import math
from collections.abc import Iterable
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.primitives.prg import UniformStream
from protocols.ring import IntegerVector
from rbla_secure.lora.bands import pack, rank_bands
from rbla_secure.lora.update import ClientUpdate, PackedUpdate
from rbla_secure.privacy.clipping import clip
from rbla_secure.privacy.quantize import Quantizer, dequantize, dequantize_weighted, quantize, statistics
from tests.support.properties import PROPERTY

KEY = bytes(range(16))
BANDS = rank_bands([1, 3])
GRIDS = st.builds(Quantizer, bits=st.integers(2, 32), bound=st.floats(1e-3, 1e3))


class Scripted(UniformStream):
    """A stream that gives the same word over and over, one list entry per draw, and counts the draws."""

    def __init__(self, words: Iterable[int]) -> None:
        super().__init__(KEY)
        self._words = iter(words)
        self.draws = 0

    def words(self, count: int) -> np.ndarray:
        self.draws += 1
        return np.full(count, next(self._words), dtype=np.uint32)


def packed(values: object, *, norm_bound: float | None = None, weight: float = 1.0) -> PackedUpdate:
    """One band of these values; by default their own length is the bound."""
    vector = np.asarray(values, dtype=np.float64)
    bound = float(np.linalg.norm(vector)) if norm_bound is None else norm_bound
    return PackedUpdate(bands={0: vector}, weight=weight, norm_bound=bound)


def stream(number: int = 0) -> UniformStream:
    return UniformStream(number.to_bytes(16, "big"))


def values_of(integers: dict[int, IntegerVector]) -> IntegerVector:
    """All bands without their statistics, one after the other."""
    return np.concatenate([integers[index][:-1] for index in sorted(integers)])


def norm(integers: Iterable[int]) -> float:
    return math.sqrt(sum(int(value) ** 2 for value in integers))


def test_rounding_is_unbiased() -> None:
    """The mean of many draws is the value itself; rounding to the nearest would be told apart."""
    grid = Quantizer(bits=4, bound=7.0)  # one unit is 1.0
    values = np.array([0.0, 0.1, -0.1, 0.5, -2.25, 3.75, 2.0, -1.9])
    draws = 4000
    rounding = stream()

    # The bound is far above the length, so no draw is ever repeated and none is favoured.
    sums = sum(values_of(quantize(packed(values, norm_bound=100.0), grid, rounding)) for _ in range(draws))

    fraction = values - np.floor(values)
    # Five standard errors of a mean of Bernoulli draws: fails once in two million coordinates.
    tolerance = 5 * np.sqrt(fraction * (1 - fraction) / draws) + 1e-12
    assert (np.abs(sums / draws - values) <= tolerance).all()
    assert (np.abs(np.rint(values) - values) > tolerance).sum() == 6


def test_a_value_on_the_grid_stays() -> None:
    """Whole multiples of a unit, the ends included, are never moved."""
    grid = Quantizer(bits=4, bound=7.0)
    values = np.arange(-7.0, 8.0)

    draws = [values_of(quantize(packed(values), grid, stream(number))).tolist() for number in range(20)]

    assert draws == [list(range(-7, 8))] * 20


@PROPERTY
@given(
    grid=GRIDS,
    values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30),
    weight=st.floats(0, 1),
    key=st.binary(min_size=16, max_size=16),
)
def test_every_integer_is_within_the_levels(
    grid: Quantizer, values: list[float], weight: float, key: bytes
) -> None:
    """Values, weight and cut-off share alike fit the bits that the plan reserves."""
    integers = quantize(packed(values, weight=weight), grid, UniformStream(key), weighted=True)

    levels = 2 ** (grid.bits - 1) - 1
    assert integers[0].dtype == np.int64
    assert integers[0].shape == (len(values) + 2,)
    assert -levels <= integers[0].min() <= integers[0].max() <= levels
    assert integers[0][-2:].min() >= 0


@PROPERTY
@given(
    grid=GRIDS,
    norm_bound=st.floats(1e-3, 1e3),
    dimension=st.integers(1, 60),
    seed=st.integers(0, 2**32 - 1),
)
def test_no_rounding_exceeds_the_bound(grid: Quantizer, norm_bound: float, dimension: int, seed: int) -> None:
    """A vector at its bound leaves with at most the rounded bound, whatever its direction."""
    direction = np.random.default_rng(seed).standard_normal(dimension)
    values = direction * (norm_bound / np.linalg.norm(direction))

    integers = quantize(packed(values, norm_bound=norm_bound), grid, stream(seed))

    limit = grid.rounded_norm_bound(norm_bound, dimension)
    assert norm(values_of(integers)) <= limit * (1 + 1e-12)


def test_a_draw_that_is_too_long_is_repeated() -> None:
    """Rounding everything up would leave the bound, so it is drawn again until it does not."""
    grid = Quantizer(bits=8, bound=127.0)
    rounding = Scripted([0, 0, 2**32 - 1])  # up, up, down

    integers = quantize(packed([0.01] * 100), grid, rounding)

    assert norm([1] * 100) > grid.rounded_norm_bound(0.1, 100)
    assert values_of(integers).tolist() == [0] * 100
    assert rounding.draws == 3


def test_rounding_goes_towards_zero_rather_than_leave_the_bound() -> None:
    """Randomness that always rounds up never gives a vector that is too long, and no error, which would tell of the values."""
    grid = Quantizer(bits=8, bound=127.0)
    rounding = Scripted([0] * 1000)

    integers = quantize(packed([0.01] * 99 + [-1.5]), grid, rounding)

    assert values_of(integers).tolist() == [0] * 99 + [-1]
    assert rounding.draws == 200


@PROPERTY
@given(grid=GRIDS, length=st.floats(0, 1e3), dimension=st.integers(1, 10**7))
def test_the_bound_is_that_of_the_paper(grid: Quantizer, length: float, dimension: int) -> None:
    """Kairouz, Liu, Steinke 2021, equation (6) with beta = exp(-1/2), worked out in fifty digits."""
    with localcontext() as context:
        context.prec = 50
        beta = Decimal(-1) / 2
        beta = beta.exp()
        scaled = Decimal(2 ** (grid.bits - 1) - 1) / Decimal(grid.bound) * Decimal(length)
        root = Decimal(dimension).sqrt()
        spread = (2 * (1 / beta).ln()).sqrt() * (scaled + root / 2)
        expected = float(min(scaled + root, (scaled**2 + Decimal(dimension) / 4 + spread).sqrt()))

    found = grid.rounded_norm_bound(length, dimension)

    assert found == pytest.approx(expected, rel=1e-12)


CLIP = 0.8
ROW_LENGTH = 40


def client_integers(number: int, *, clip_norm: float = CLIP) -> dict[int, IntegerVector]:
    """A client of rank 3 that is far too long before the clip."""
    rows = np.random.default_rng(number).standard_normal((3, ROW_LENGTH))
    update = pack(clip(ClientUpdate(rows=rows, weight=1.0), clip_norm=clip_norm), BANDS)
    return quantize(update, Quantizer(bits=16, bound=0.5), stream(number))


@pytest.mark.parametrize("leaver", range(5))
def test_one_client_moves_the_sum_by_at_most_the_sensitivity(leaver: int) -> None:
    """Sums with a client and with zeros in its place differ by at most the rounded norm bound over all bands."""
    limit = Quantizer(bits=16, bound=0.5).rounded_norm_bound(CLIP, 3 * ROW_LENGTH)

    everyone = sum(values_of(client_integers(number)) for number in range(5))
    without = sum(values_of(client_integers(number)) for number in range(5) if number != leaver)

    assert norm(everyone - without) <= limit


def test_twice_the_clip_breaks_the_sensitivity() -> None:
    """The same comparison fails for a client that clips at twice the norm, so it does measure the clip."""
    limit = Quantizer(bits=16, bound=0.5).rounded_norm_bound(CLIP, 3 * ROW_LENGTH)

    rest = sum(values_of(client_integers(number)) for number in range(1, 5))
    with_cheat = rest + values_of(client_integers(0, clip_norm=2 * CLIP))

    assert norm(with_cheat - rest) > limit


@pytest.mark.parametrize(
    ("values", "share"),
    [
        ([0.5, -0.5, 0.0, 0.1], 0.0),
        ([0.5000001, -0.5, 0.0, 0.1], 0.25),
        ([9.0, -9.0, 0.0, -1.0], 0.75),
        ([1.0] * 4, 1.0),
    ],
)
def test_what_is_cut_off_is_counted(values: list[float], share: float) -> None:
    """Coordinates beyond the bound land on it, and their share travels with the band."""
    grid = Quantizer(bits=16, bound=0.5)

    integers = quantize(packed(values), grid, stream())
    total = dequantize(integers, grid, holders={0: 1})[0]

    expected = [max(-0.5, min(0.5, value)) for value in values]
    assert total.weighted_sum == pytest.approx(np.array(expected), abs=0.5 / 32767)
    assert total.cut_off == pytest.approx(share, abs=0.5 / 32767)


def test_the_cut_off_share_is_a_mean_over_holders() -> None:
    """Of two holders, one with half of its coordinates cut off, the band reports a quarter."""
    grid = Quantizer(bits=16, bound=0.5)
    first, second = (
        quantize(packed([9.0, 0.1]), grid, stream(1)),
        quantize(packed([0.1, 0.1]), grid, stream(2)),
    )

    total = dequantize({0: first[0] + second[0]}, grid, holders={0: 2})[0]

    assert total.cut_off == pytest.approx(0.25, abs=1 / 32767)


@PROPERTY
@given(bits=st.integers(2, 32), weights=st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_weights_and_their_sums_agree_exactly(bits: int, weights: list[float]) -> None:
    """A weight on the grid is an integer of units, so the sum of weights is the weight of the sum."""
    grid = Quantizer(bits=bits, bound=1.0)
    levels = 2 ** (bits - 1) - 1

    rounded = [grid.round_weight(weight) for weight in weights]
    integers = [
        quantize(packed([0.0], weight=weight), grid, stream(), weighted=True)[0] for weight in rounded
    ]
    total = dequantize_weighted({0: sum(integers)}, grid, holders={0: len(weights)})[0]

    units = [int(vector[-2]) for vector in integers]
    assert rounded == [unit / levels for unit in units]
    assert total.weight == float(Fraction(sum(units), levels))
    for weight, unit in zip(weights, units, strict=True):
        # The product is rounded to a float before it is rounded to an integer: next to a half it may go the other way.
        nearest = Fraction(1, 2) + Fraction(levels, 2**52)
        assert abs(Fraction(weight) * levels - unit) <= nearest or (unit == 1 and weight > 0)
        assert (unit == 0) == (weight == 0)


@PROPERTY
@given(
    grid=GRIDS,
    seed=st.integers(0, 2**32 - 1),
    weights=st.lists(st.floats(0, 1), min_size=1, max_size=6),
)
def test_the_sum_of_integers_is_the_sum_of_updates(grid: Quantizer, seed: int, weights: list[float]) -> None:
    """Dequantized, the integer sum differs from the weighted sum by less than one grid step per client."""
    generator = np.random.default_rng(seed)
    vectors = [generator.uniform(-grid.bound, grid.bound, size=7) for _ in weights]
    rounded = [grid.round_weight(weight) for weight in weights]

    integers = [
        quantize(packed(weight * vector, weight=weight), grid, stream(seed + number), weighted=True)[0]
        for number, (weight, vector) in enumerate(zip(rounded, vectors, strict=True))
    ]
    total = dequantize_weighted({0: sum(integers)}, grid, holders={0: len(weights)})[0]

    expected = sum(weight * vector for weight, vector in zip(rounded, vectors, strict=True))
    step = grid.bound / (2 ** (grid.bits - 1) - 1)
    assert (np.abs(total.weighted_sum - expected) <= len(weights) * step * (1 + 1e-9)).all()
    assert total.cut_off == 0.0


def test_the_key_decides_the_rounding() -> None:
    """One key gives one vector of integers, another key another one."""
    grid = Quantizer(bits=8, bound=1.0)
    values = np.random.default_rng(0).uniform(-1, 1, 200)

    first = quantize(packed(values), grid, UniformStream(KEY))[0]
    again = quantize(packed(values), grid, UniformStream(KEY))[0]
    other = quantize(packed(values), grid, UniformStream(KEY[::-1]))[0]

    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()


def test_each_band_carries_its_own_statistics() -> None:
    """Values stay in their band, followed by the weight and by that band's share of cut-off coordinates."""
    grid = Quantizer(bits=16, bound=1.0)
    update = PackedUpdate(
        bands={1: np.array([1.0, -1.0, 5.0, 0.0]), 0: np.array([0.0, 1.0])}, weight=1.0, norm_bound=10.0
    )

    integers = quantize(update, grid, stream(), weighted=True)
    unweighted = quantize(update, grid, stream())

    assert unweighted[0].tolist() == [0, 32767, 0]
    assert integers[0].tolist() == [0, 32767, 32767, 0]
    assert integers[1].tolist() == [32767, -32767, 32767, 0, 32767, round(32767 / 4)]


@PROPERTY
@given(
    seed=st.integers(0, 2**32 - 1),
    scale=st.sampled_from([1e-3, 0.05, 3.0]),
    weight=st.floats(0, 1),
    weighted=st.booleans(),
)
def test_all_integers_of_a_client_stay_within_the_whole_bound(
    seed: int,
    scale: float,
    weight: float,
    weighted: bool,  # noqa: FBT001
) -> None:
    """Values and statistics together, over two bands, are never longer than is stated for both."""
    grid, rows = Quantizer(bits=16, bound=0.06), np.random.default_rng(seed).normal(size=(4, 6)) * scale
    bands = rank_bands([2, 4])
    update = pack(clip(ClientUpdate(rows=rows, weight=grid.round_weight(weight)), clip_norm=0.01), bands)

    integers = quantize(update, grid, stream(seed), weighted=weighted)

    count = len(bands) * statistics(weighted=weighted)
    whole = grid.whole_norm_bound(update.norm_bound, rows.size, statistics=count)
    assert norm(np.concatenate(list(integers.values()))) <= whole * (1 + 1e-12)


def test_a_weight_is_longer_than_the_values_it_weighs() -> None:
    """Sixteen values of length 0.01 are 5461 units long at most, and one weight 32767: the bound of values is not that of all."""
    grid = Quantizer(bits=16, bound=0.06)
    update = pack(clip(ClientUpdate(rows=np.full((1, 16), 0.5), weight=1.0), clip_norm=0.01), rank_bands([1]))

    whole = norm(quantize(update, grid, stream(), weighted=True)[0])

    assert grid.rounded_norm_bound(0.01, 16) < 5500
    assert 33_000 < whole <= grid.whole_norm_bound(0.01, 16, statistics=2)


def test_a_client_without_weight_adds_nothing() -> None:
    """Zero weight gives zeros everywhere, whatever the randomness."""
    grid = Quantizer(bits=8, bound=1.0)

    integers = quantize(packed([0.0] * 5, norm_bound=0.0, weight=0.0), grid, stream(), weighted=True)

    assert integers[0].tolist() == [0] * 7
