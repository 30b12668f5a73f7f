"""Screening: which encrypted updates are rejected before they are added, and what is released of them.

Beside its BFV ciphertexts a client sends a CKKS copy of the same values. From it two numbers are computed without a key, the
squared norm and the inner product with a public direction, each in one ciphertext; the decryptor opens those two numbers
and tells a verdict, or the values to three decimals. One verdict per client and session, only of clients on the fixed list,
and no client counts in a sum that was not screened.

What the two numbers are, nothing in a ciphertext says. So where there is a verifier, it alone computes them: from the copy
that the client's receipt names, and from the mean of the sums that the decryptor opened last; it signs them, and the decryptor
opens nothing else. An aggregator then learns the two numbers and no other: under `values` the length of every update and one
linear function of it, to a thousandth, along a direction that it knows.

Whoever is in a sum has a say in the next direction. A round of which the server discards a sum (out of the range of as many honest
inputs, or with something in its padding) gives none, and where updates are screened every band that may be opened is opened, or none.
Inside that range integers are not bounded one by one: one client of eight that fills it at a single coordinate, where updates
spread by 0.046 input bounds, has it read of every other update to 0.006 (root mean square); three colluders in a band
of four holders to 0.003; and as many as the threshold, which is more than half of a cohort, summed alone, to a thousandth. One
client that keeps to its own bound tells no more than a guess (`test_screening_direction.py`).

Without a verifier the aggregator computes them, and may have any two numbers opened in their place: whatever it likes of
whomever it likes. What bounds it: two values per client and session, a cosine in [-1, 1] and a norm up to the largest,
both to three decimals; or under `verdicts` one of three outcomes. Anything else lets out no value.

Caveats. Nothing proves that the copy and the summed ciphertexts hold the same update, and a forged copy can lie about its
norm (CKKS slots are complex; values beyond the modulus wrap): screening binds faulty clients, not malicious ones. The
numbers themselves tell something of each update. CKKS is approximate: what the decryptor lets out is rounded, and the
aggregator never sees a raw decryption (Li and Micciancio 2021).
"""

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, unique
from typing import Final, Self, final

import numpy as np
import numpy.typing as npt

from protocols.errors import InputError, ScreeningError, SessionError
from protocols.session import Segment

RealVector = npt.NDArray[np.float64]

# CKKS with N = 8192, coefficients [60, 40, 60]: one multiplication; 160 bits, where the Homomorphic Encryption Standard
# allows 218 for 128 bits of security. Primes as SEAL's CoeffModulus::Create gives them.
DEGREE: Final = 8192
MODULI: Final = (1_152_921_504_606_748_673, 1_099_511_480_321, 1_152_921_504_606_830_593)
CIPHERTEXT_MODULI: Final = MODULI[:-1]
SCALAR_MODULI: Final = MODULI[:1]
SLOTS: Final = DEGREE // 2
# Decimals of what is let out: enough for a filter, too few for the noise of an approximate decryption to show.
STEP: Final = 1e-3
_FORM: Final = struct.Struct("<ddBI")
FORM_SIZE: Final = _FORM.size


@unique
class ScreeningRelease(Enum):
    """The information that the decryptor releases about a screened update."""

    VERDICTS = "verdicts"
    VALUES = "values"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Screening:
    """The screening rule.

    Args:
        max_norm: The largest L2 norm, in units of the session's input bound.
        min_cosine: The least cosine to the direction, where there is one; -1 lets everything pass.
        release: The information that the decryptor releases beside the verdict.
        ignored_tail: Values at the end of every segment that are no part of the update (statistics).

    Raises:
        SessionError: A number is out of its range.
    """

    max_norm: float
    min_cosine: float = -1.0
    release: ScreeningRelease = ScreeningRelease.VERDICTS
    ignored_tail: int = 0

    def __post_init__(self) -> None:
        if not (0 < self.max_norm < math.inf and -1 <= self.min_cosine <= 1):
            raise SessionError(
                f"max_norm={self.max_norm} must be positive and finite, min_cosine={self.min_cosine} in [-1, 1]"
            )

    def to_bytes(self) -> bytes:
        """Return the canonical bytes, which a session is bound to."""
        release = list(ScreeningRelease).index(self.release)
        return _FORM.pack(self.max_norm, self.min_cosine, release, self.ignored_tail)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Inverse of :meth:`to_bytes`. Raises SessionError."""
        max_norm, min_cosine, release, tail = _FORM.unpack(data)
        if release >= len(ScreeningRelease):
            raise SessionError(f"release={release} must be below {len(ScreeningRelease)}")
        return cls(
            max_norm=max_norm,
            min_cosine=min_cosine,
            release=list(ScreeningRelease)[release],
            ignored_tail=tail,
        )

    def judge(self, *, squared_norm: float, projection: float | None) -> "Screened":
        """Return the verdict on one update.

        Numbers that no update within the rule can have (a norm beyond the largest, a product beyond the norm, or what is no
        number) let out nothing but that they are such, whichever of it they are: whoever has something else opened in
        their place learns one of three verdicts, and no value.

        Args:
            squared_norm: Squared L2 norm of the update, in squared units of the input bound.
            projection: Its inner product with the unit direction; None where there is none.
        """
        # By Cauchy and Schwarz; both to the accuracy of what is let out, which is far coarser than CKKS's.
        lawful = -STEP <= squared_norm <= self.max_norm**2
        norm = math.sqrt(max(squared_norm, 0.0)) if lawful else 0.0
        if not lawful or not (projection is None or abs(projection) <= norm + STEP):
            return Screened(
                reason=f"its norm exceeds {self.max_norm:g} input bounds, or its numbers are not those of an update"
            )
        cosine = None
        if projection is not None:
            cosine = max(-1.0, min(1.0, projection / norm)) if norm > STEP else 0.0
        reason = ""
        if cosine is not None and not cosine >= self.min_cosine:
            reason = f"its cosine to the previous step is below {self.min_cosine:g}"
        if self.release is ScreeningRelease.VERDICTS:
            return Screened(reason=reason)
        rounded = None if cosine is None else round(cosine / STEP) * STEP
        return Screened(reason=reason, norm=round(norm / STEP) * STEP, cosine=rounded)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Screened:
    """The information that the aggregator gets about one update.

    Args:
        reason: Why it is rejected; empty if it passes.
        norm: L2 norm in input bounds, to three decimals; None where only verdicts are released.
        cosine: Cosine to the direction, to three decimals; None where ``norm`` is, and without a direction.
    """

    reason: str
    norm: float | None = None
    cosine: float | None = None

    def check(self) -> None:
        """Refuse a rejected update.

        Raises:
            ScreeningError: The update is rejected.
        """
        if self.reason:
            raise ScreeningError(self.reason)


def ciphertexts(segments: tuple[Segment, ...], screening: Screening) -> int:
    """Return how many CKKS ciphertexts a client of these segments sends."""
    return -(-_length(segments, screening) // SLOTS)


def rows(values: Mapping[int, RealVector], segments: tuple[Segment, ...], screening: Screening) -> RealVector:
    """Return the update in whole rows of slots, padded with zeros: shape (ciphertexts, SLOTS).

    Full rows matter: a sum over all slots then stands in every slot, and no partial sum in any.

    Args:
        values: By segment index: the values, tails included.
        segments: The client's segments.
        screening: The rule.

    Raises:
        InputError: A segment is missing or has another length.
    """
    filled = np.zeros(ciphertexts(segments, screening) * SLOTS)
    at = 0
    for segment in segments:
        part = values.get(segment.index)
        if part is None or part.shape != (segment.length,):
            raise InputError(f"segment {segment.index}: the vector must have {segment.length} values")
        end = at + segment.length - screening.ignored_tail
        filled[at:end] = part[: segment.length - screening.ignored_tail]
        at = end
    return filled.reshape(-1, SLOTS)


def unit_direction(
    values: Mapping[int, RealVector], segments: tuple[Segment, ...], screening: Screening
) -> RealVector | None:
    """Return a public direction in whole rows, of length 1 over a client's own segments; None if it is zero there."""
    direction = rows(values, segments, screening)
    norm = float(np.sqrt((direction**2).sum()))
    return direction / norm if norm > 0 and math.isfinite(norm) else None


def _length(segments: tuple[Segment, ...], screening: Screening) -> int:
    return sum(segment.length - screening.ignored_tail for segment in segments)
