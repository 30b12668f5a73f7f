"""Exponentials to any number of bits, by integers alone: they share no code with what they are held against."""

from fractions import Fraction

_GUARD = 64


def exp_bits(exponent: Fraction, bits: int) -> int:
    """floor(2^bits exp(-exponent)) to the last unit or two, for an exponent of at least 0.

    The exponent is halved until it is below 2^-8, its exponential is summed up as a power series, and squared as often.
    """
    halvings = max(0, (exponent.numerator // exponent.denominator).bit_length() + 8)
    precision = bits + 2 * halvings + _GUARD
    one = 1 << precision
    small = (exponent.numerator << precision) // (exponent.denominator << halvings)
    total, term, number = one, one, 0
    while term:
        number += 1
        term = (term * small >> precision) // number
        total += -term if number % 2 else term
    for _ in range(halvings):
        total = total * total >> precision
    return total >> precision - bits
