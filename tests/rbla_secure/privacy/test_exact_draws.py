"""The sampler's law, to a thousand bits: what it decides, what it draws for that, and how far it is from the one it claims."""

import hashlib
import math
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.primitives.prg import UniformStream
from rbla_secure.privacy import discrete_gaussian as sampler
from rbla_secure.privacy.discrete_gaussian import MAX_SIGMA, TOTAL_VARIATION, discrete_gaussian
from tests.support.exact_numbers import exp_bits
from tests.support.properties import PROPERTY

BITS = 960
# Far below what is compared.
FINE = 1250


class Scripted(UniformStream):
    """A stream of 64-bit words that a test has chosen, and of 32-bit words before them."""

    def __init__(self, *words: int, low: int | None = None) -> None:
        self._left = [word.to_bytes(8, "little") for word in words]
        self._low = low

    def words(self, count: int) -> npt.NDArray[np.uint32]:
        if self._low is not None:
            low, self._low = self._low, None
            return np.array([low], dtype=np.uint32)
        data = b"".join(self._left.pop(0) for _ in range(count // 2))
        return np.frombuffer(data, dtype="<u4")

    @property
    def unread(self) -> int:
        return len(self._left)


def digits(number: int) -> list[int]:
    """960 bits as words, the highest first."""
    return [number >> (BITS - 64 * at) & (2**64 - 1) for at in range(1, BITS // 64 + 1)]


def exponent_of(sigma: float, fraction: int, whole: int) -> Fraction:
    """The acceptance's exponent, from the paper: u/t + (|y| - sigma^2/t)^2 / (2 sigma^2)."""
    scale, variance = Fraction(scale_of(sigma)), Fraction(sigma) ** 2
    return fraction / scale + (fraction + whole * scale - variance / scale) ** 2 / (2 * variance)


def scale_of(sigma: float) -> int:
    return int(2 ** max(0, round(math.log2(sigma))))


def proposal(sigma: float, fraction: int, whole: int, acceptance: int) -> tuple[list[int], int]:
    """What comes of one proposal whose acceptance has these 960 bits; and how many words of them were not read."""
    between = (exp_bits(Fraction(whole), 64) + exp_bits(Fraction(whole + 1), 64)) // 2
    stream = Scripted(between, *digits(acceptance), low=fraction)
    return sampler._accepted(sigma, 1, stream).tolist(), stream.unread


def floats_alone(sigma: float, fraction: int, whole: int, word: int) -> bool:
    """The acceptance as a comparison in double precision, which it was."""
    scale = scale_of(sigma)
    magnitude = np.int64(fraction + whole * scale)
    exponent = np.int64(fraction) / scale + (magnitude - sigma * sigma / scale) ** 2 / (2 * sigma * sigma)
    return bool(np.uint64(word) * 2.0**-64 < np.exp(-exponent))


@PROPERTY
@given(
    sigma=st.floats(0.3, 3e6) | st.floats(0.3, 3.0),
    position=st.floats(0, 1, exclude_max=True),
    whole=st.integers(0, 6),
    past=st.integers(-3, 3),
)
def test_an_acceptance_is_decided_as_by_exact_numbers(
    sigma: float, position: float, whole: int, past: int
) -> None:
    """Next to its bound, in the first 64 bits, in the next ones and in the last: accepted below it and not from it on."""
    fraction = int(position * scale_of(sigma))
    bound = exponent_of(sigma, fraction, whole)
    for bits in (64, 128, BITS):
        edge = exp_bits(bound, bits)
        below = (edge + past) << (BITS - bits) if bits < BITS else edge + 2 * past
        # Where the bound is 1 every word is accepted, and none is next to it.
        if below < 0 or edge >> bits or (bits, past) in {(64, 0), (128, 0), (BITS, 0)}:
            continue
        drawn, unread = proposal(sigma, fraction, whole, below)
        assert bool(drawn) is (past < 0), (bits, past)
        assert unread == BITS // 64 - bits // 64
        assert drawn in ([], [fraction + whole * scale_of(sigma)])


def test_floats_alone_decide_some_of_them_wrongly() -> None:
    """The control: of the words on either side of a bound, double precision has many on the wrong one."""
    cases = [
        (sigma, number % scale_of(sigma), number % 3) for sigma in (0.9, 4.3, 77.7) for number in range(40)
    ]
    wrong = 0
    for sigma, fraction, whole in cases:
        edge = exp_bits(exponent_of(sigma, fraction, whole), 64)
        wrong += not floats_alone(sigma, fraction, whole, max(0, edge - 1))
        wrong += floats_alone(sigma, fraction, whole, min(edge + 1, 2**64 - 1))

    assert wrong > len(cases) / 4


@PROPERTY
@given(sigma=st.floats(0.3, MAX_SIGMA), position=st.floats(0, 1, exclude_max=True), whole=st.integers(0, 44))
def test_floats_are_as_close_as_the_argument_says(sigma: float, position: float, whole: int) -> None:
    """Of the bound: with the exponential's own error less than 1.2 * 2^-48, so that `_NEAR` is more than enough."""
    scale = scale_of(sigma)
    fraction = int(position * scale)
    magnitude = np.array([fraction + whole * scale], dtype=np.int64)
    found = sampler._floating_bound(sigma, scale, np.array([fraction], dtype=np.int64), magnitude)[0]

    exact = exp_bits(exponent_of(sigma, fraction, whole), 64 + 60)
    assert (
        abs(Fraction(found) - Fraction(exact, 2**60)) < Fraction(1.2) * 2**16 < sampler._NEAR / Fraction(1.5)
    )


def test_the_exponential_is_as_good_as_is_taken_for_granted() -> None:
    """Sixteen units in the last place are allowed; it takes one."""
    exponents = np.concatenate([np.linspace(0, 45, 1501), np.random.default_rng(1).uniform(0, 45, 1500)])

    errors = [
        abs(Fraction(value) * 2**200 / exp_bits(Fraction(exponent), 200) - 1)
        for exponent, value in zip(exponents, np.exp(-exponents), strict=True)
    ]

    assert 0 < max(errors) < Fraction(1, 2**51) < Fraction(1, 2**48)


@pytest.mark.parametrize("error", [-12 * 2.0**-52, -(2.0**-52), 2.0**-52, 12 * 2.0**-52])
def test_another_exponential_draws_the_same_from_the_same_words(
    monkeypatch: pytest.MonkeyPatch, error: float
) -> None:
    """Two machines whose exponentials differ: the same integers, and the stream goes on at the same place."""
    cases = [
        (sigma, number % scale_of(sigma), number % 3) for sigma in (0.9, 4.3, 77.7) for number in range(20)
    ]
    words = [
        max(0, exp_bits(exponent_of(*case), 64) + past) << (BITS - 64)
        for case in cases
        for past in (-1, 0, 1)
    ]
    words = [
        word + (exp_bits(exponent_of(*case), 128) % 2**64 << (BITS - 128))
        for word, case in zip(words, [case for case in cases for _ in range(3)], strict=True)
    ]
    each = [case for case in cases for _ in range(3)]
    ours = [proposal(*case, word) for case, word in zip(each, words, strict=True)]
    here = sampler._floating_bound

    monkeypatch.setattr(sampler, "_floating_bound", lambda *given: here(*given) * (1 + error))
    theirs = [proposal(*case, word) for case, word in zip(each, words, strict=True)]

    assert ours == theirs
    assert {unread for _, unread in ours} == {14, 12}
    # The control: floats alone, as they were, part ways.
    monkeypatch.setattr(sampler, "_NEAR", -1.0)
    assert [proposal(*case, word) for case, word in zip(each, words, strict=True)] != ours


@pytest.mark.parametrize("k", [1, 2, 7, 43, 44, 45, 46, 60, 89, 200, 443, 600])
def test_the_laplace_part_has_no_end_that_shows(k: int) -> None:
    """The v of a proposal reaches any k: below exp(-k), by the last of 960 bits, it is k; at it, one less. It ended at 44 before."""
    edge = exp_bits(Fraction(k), BITS)
    for number, wanted in ((edge - 3, k), (edge + 3, k - 1)):
        if number < 0:
            continue
        first, *rest = digits(number)
        stream = Scripted(*rest)
        drawn = sampler._geometric(np.array([first], dtype=np.uint64), stream)
        assert drawn.tolist() == [wanted]
        assert stream.unread == 0


def test_a_number_of_zeros_alone_comes_to_an_end() -> None:
    """After 960 bits it counts as above everything that is smaller."""
    drawn = sampler._geometric(np.array([0], dtype=np.uint64), Scripted(*[0] * 14))

    assert drawn.tolist() == [665]


def test_the_first_words_are_exact() -> None:
    """The table of the fast way is that of exact numbers, to the last bit."""
    assert sampler._EDGES.tolist() == [0, *(exp_bits(Fraction(k), 64) for k in range(44, 0, -1))]


def law(sigma: float, *, bits: int, most: int) -> dict[int, int]:
    """The law of the algorithm, in units of 2^-FINE: numbers of so many bits, and no v above `most`."""
    scale = scale_of(sigma)
    edges = [
        1 << bits,
        *(int(sampler._leading(sampler._bound(Fraction(k)), bits)) for k in range(1, most + 1)),
        0,
    ]
    masses: dict[int, int] = {}
    for whole in range(most + 1):
        for fraction in range(scale):
            accepted = sampler._leading(sampler._bound(exponent_of(sigma, fraction, whole)), bits)
            mass = (edges[whole] - edges[whole + 1]) * accepted
            masses[fraction + whole * scale] = mass
    total = 2 * sum(masses.values()) - masses[0]
    return {y: (mass << FINE) // total for y, mass in masses.items()}


def claimed(sigma: float, reach: int) -> dict[int, int]:
    """N_Z(0, sigma^2) on the integers from 0 on, in units of 2^-FINE."""
    weights = {y: exp_bits(Fraction(y * y) / (2 * Fraction(sigma) ** 2), FINE + 64) for y in range(reach + 1)}
    total = 2 * sum(weights.values()) - weights[0]
    return {y: (weight << FINE) // total for y, weight in weights.items()}


def distance(one: dict[int, int], other: dict[int, int]) -> Fraction:
    """Total variation, over both signs."""
    off = sum((2 if y else 1) * abs(one.get(y, 0) - other.get(y, 0)) for y in one.keys() | other.keys())
    return Fraction(off, 2 ** (FINE + 1))


@pytest.mark.parametrize("sigma", [0.75, 1.0, 2.3])
def test_the_exact_law_is_within_the_stated_distance(sigma: float) -> None:
    """Computed to 1,250 bits. With the numbers of 64 bits and the end at 44 of before it is further away by 2^800 and more."""
    truth = claimed(sigma, math.ceil(45 * sigma))  # beyond is less than 2^-FINE

    ours = distance(law(sigma, bits=BITS, most=665), truth)
    before = distance(law(sigma, bits=64, most=44), truth)

    assert Fraction(2) ** -975 < ours < Fraction(TOTAL_VARIATION) / 5
    assert before > Fraction(TOTAL_VARIATION) * 2**800


def test_no_factor_holds_in_the_tail() -> None:
    """Why the sampler's error is no slack: with 64 bits the tail's probabilities are 0 where they should not be, or off by a factor.

    At the law's integers 8 sigma out a bound of 2^-45, which was claimed, fails; a distance of 2^-60 holds.
    """
    sigma = 1.0
    truth, drawn = claimed(sigma, 60), law(sigma, bits=64, most=44)

    ratios = {y: Fraction(drawn.get(y, 0), truth[y]) for y in truth if truth[y]}
    assert any(abs(ratios[y] - 1) > Fraction(1, 2**45) for y in range(7, 12))
    assert ratios[20] == 0
    assert distance(drawn, truth) < Fraction(1, 2**60)


def test_the_stated_distance_follows_from_its_parts() -> None:
    """Comparisons of a proposal times proposals of a draw; the share accepted is at least what the argument takes."""
    for sigma in [*np.geomspace(0.05, 3.9, 150), 2.0**-0.5, 2.0**0.5 * 0.9999999, 1e3, 2.0**30]:
        scale = scale_of(sigma)
        theta = max(
            1 + 2 * sum(math.exp(-(x**2) / (2 * sigma**2)) for x in range(1, 60)),
            math.sqrt(2 * math.pi) * sigma,
        )
        share = (1 - math.exp(-1)) / (2 * scale) * math.exp(-((sigma / scale) ** 2) / 2) * theta
        assert share > (0.4 if sigma >= 2**-0.5 else 0.2)
    assert exp_bits(Fraction(665), BITS) > 0 == exp_bits(Fraction(666), BITS)
    assert 5 * 667 * Fraction(1, 2**959) < Fraction(TOTAL_VARIATION)


# SHA-256 of 100,000 draws by the sampler that compared floats: seeds that were shared give the same noise.
PINNED = {
    0.3: "e9b22dd473cfba3ac0d21606b2665765",
    1.0: "71b3895ced05960d93af4d6abc294cf6",
    4.0: "154cbdd54fc00b7c6dca3f126ef26f62",
    11.3: "fe9eaa076076fd5e08feb47f46f31624",
    12345.678: "05a7449e7f787ad552b87743cc5a1ac2",
    7.7e7: "b184486e2cbeb334c39a504901fec6f3",
    MAX_SIGMA: "25a044a43413b40ca894c7ce71f9369f",
}


@pytest.mark.parametrize("sigma", PINNED)
def test_the_integers_of_a_stream_are_what_they_were(sigma: float) -> None:
    """At every scale, across chunks."""
    drawn: Any = discrete_gaussian(sigma, 100_000, UniformStream((7).to_bytes(16, "big")))

    assert hashlib.sha256(drawn.astype("<i8").tobytes()).hexdigest().startswith(PINNED[sigma])
