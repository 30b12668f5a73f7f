"""How figures of privacy are written for people: never better than they are.

An epsilon, a noise multiplier that is needed and every other upper bound is rounded up, a lower bound and what is left of a
budget down, to three decimals; below 0.01 to three significant digits, so that nothing above 0 reads as 0.000. Limits and
deltas are written in full. What is for machines (`--json`, ledgers) is not rounded at all.
"""

import decimal
import math
from decimal import Decimal
from typing import Final

_DECIMALS, _SIGNIFICANT = 3, 3
# From here on three decimals have three significant digits less than what they leave out is worth.
_SMALL: Final = Decimal("0.01")
# Below it powers of ten are easier to read.
_TINY: Final = Decimal("0.0001")
# Digits of the largest float before the point, and some after it.
_PRECISION: Final = 320


def rounded_up(value: float) -> str:
    """Format an upper bound: read back, it is `value` or more."""
    return _rounded(value, decimal.ROUND_CEILING)


def rounded_down(value: float) -> str:
    """Format a lower bound, or what is left: read back, it is `value` or less."""
    return _rounded(value, decimal.ROUND_FLOOR)


def exact(value: float) -> str:
    """Format a limit or a delta: read back, it is `value`."""
    return repr(float(value)).removesuffix(".0")


def _rounded(value: float, rounding: str) -> str:
    if not math.isfinite(value):
        return f"{value}"
    # The shortest decimal that reads back as the number: 9.1 is 9.100, not the 9.101 of its binary fraction.
    number = Decimal(repr(float(value)))
    places = _DECIMALS
    if number and abs(number) < _SMALL:
        places = _SIGNIFICANT - 1 - number.adjusted()
    context = decimal.Context(prec=_PRECISION, rounding=rounding)
    found = number.quantize(Decimal(1).scaleb(-places), context=context)
    return f"{found:.{_SIGNIFICANT - 1}e}" if found and abs(found) < _TINY else f"{found:f}"
