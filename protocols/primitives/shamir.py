"""Shamir secret sharing (Shamir 1979) of 32-byte secrets over the prime field of 2^257 - 93.

A polynomial of degree t - 1 with the secret at 0; a share is its value at the holder's abscissa. Any t shares give the
secret, fewer are independent of it. The field is the smallest of its kind in which every 32-byte string is an element.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from protocols.errors import ShareError
from protocols.primitives.secret import SYSTEM_RANDOM, RandomBytes, Secret

FIELD = 2**257 - 93
SECRET_SIZE = 32
SHARE_SIZE = 33
# 128 bits beyond the field's size: a reduced random integer is uniform up to 2^-128.
_COEFFICIENT_SIZE = 49


def split(
    secret: Secret, *, threshold: int, abscissas: Sequence[int], random_bytes: RandomBytes = SYSTEM_RANDOM
) -> dict[int, Secret]:
    """Return shares of a secret, by abscissa.

    Args:
        secret: 32 bytes.
        threshold: Shares that determine the secret, in 1..len(abscissas).
        abscissas: Distinct positions of the shares, in 1..FIELD-1.
        random_bytes: Source of the coefficients; called once, for (threshold - 1) * 49 bytes.

    Raises:
        ShareError: The arguments break these rules.
    """
    if len(secret) != SECRET_SIZE:
        raise ShareError(f"a secret of {len(secret)} bytes must have {SECRET_SIZE}")
    if not 1 <= threshold <= len(abscissas):
        raise ShareError(f"threshold={threshold} must lie in 1..{len(abscissas)}, the number of shares")
    _check_abscissas(abscissas)
    noise = random_bytes((threshold - 1) * _COEFFICIENT_SIZE)
    polynomial = [
        int.from_bytes(noise[at : at + _COEFFICIENT_SIZE], "big") % FIELD
        for at in range(0, len(noise), _COEFFICIENT_SIZE)
    ]
    polynomial.append(int.from_bytes(secret, "big"))
    return {x: Secret(_evaluate(polynomial, x).to_bytes(SHARE_SIZE, "big")) for x in abscissas}


def _evaluate(polynomial: Sequence[int], x: int) -> int:
    """Evaluate by Horner's rule; the highest coefficient stands first."""
    value = 0
    for coefficient in polynomial:
        value = (value * x + coefficient) % FIELD
    return value


def _check_abscissas(abscissas: Sequence[int]) -> None:
    if len(set(abscissas)) != len(abscissas) or not all(0 < x < FIELD for x in abscissas):
        raise ShareError(f"abscissas {list(abscissas)} must be distinct and not zero")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """Recovery of many secrets from the same holders: the Lagrange coefficients at 0 are computed once."""

    coefficients: Mapping[int, int]

    @classmethod
    def over(cls, abscissas: Sequence[int]) -> Self:
        """Return the recovery for shares of exactly these holders, as many as the threshold."""
        _check_abscissas(abscissas)
        return cls(coefficients={x: _lagrange_at_zero(x, abscissas) for x in abscissas})

    def combine(self, shares: Mapping[int, bytes]) -> Secret:
        """Return the secret.

        Raises:
            ShareError: A share is missing or malformed, or the shares do not belong to one 32-byte secret. Wrong
                shares may also combine to a wrong secret: check it where there is something to check it against.
        """
        if not self.coefficients:
            raise ShareError("no holder gives a share")
        total = 0
        for x, coefficient in self.coefficients.items():
            if x not in shares:
                raise ShareError(f"the share of holder {x} is missing")
            total += coefficient * decode_share(shares[x])
        secret = total % FIELD
        if secret >= 1 << (8 * SECRET_SIZE):
            raise ShareError("the shares do not belong to one secret")
        return Secret(secret.to_bytes(SECRET_SIZE, "big"))


def _lagrange_at_zero(x: int, abscissas: Sequence[int]) -> int:
    """Return the product over the other abscissas y of y / (y - x)."""
    numerator = denominator = 1
    for y in abscissas:
        if y != x:
            numerator = numerator * y % FIELD
            denominator = denominator * (y - x) % FIELD
    return numerator * pow(denominator, -1, FIELD) % FIELD


def decode_share(share: bytes) -> int:
    """Return the field element that a share encodes.

    Raises:
        ShareError: It is none.
    """
    value = int.from_bytes(share, "big")
    if len(share) != SHARE_SIZE or value >= FIELD:
        raise ShareError("a share is no element of the field")
    return value
