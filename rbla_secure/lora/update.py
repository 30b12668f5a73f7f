"""The types of an update on its way from client to average: one per step, so that no step can be skipped.

    ClientUpdate --clip--> BoundedUpdate --pack--> PackedUpdate --quantize--> integers --sum, dequantize--> BandTotal

An unclipped update cannot be packed: :func:`rbla_secure.lora.bands.pack` takes only a `BoundedUpdate`, and one whose
norm exceeds its bound cannot be constructed. Bounded and packed updates keep copies that cannot be written to: what was
checked is what leaves. A type says what its holder can see: the first three are private to a
client, a `BandTotal` is a sum over all surviving holders of a band.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from rbla_secure.errors import UpdateError

UpdateRows = npt.NDArray[np.float64]
RealVector = npt.NDArray[np.float64]

# Scaling a float64 vector down to norm C and measuring it again may disagree in the last digits.
NORM_TOLERANCE = 1e-9
_MATRIX = 2


def l2_norm(values: npt.NDArray[np.float64]) -> float:
    """The L2 norm over all values; infinity where the squares overflow.

    Not by BLAS: its threads would make the last digits, and on a busy machine the time, depend on how many there are.
    """
    with np.errstate(over="ignore"):
        return math.sqrt(float(np.square(values).sum()))


def _check(rows: UpdateRows, weight: float) -> None:
    if rows.ndim != _MATRIX or not rows.size:
        raise UpdateError(f"update of shape {rows.shape} must be (rank >= 1, row_length >= 1)")
    if not np.isfinite(rows).all():
        raise UpdateError(
            "the update is not finite (NaN or infinity): lower the learning rate or check the data"
        )
    _check_weight(weight)


def _check_weight(weight: float) -> None:
    if not 0.0 <= weight <= 1.0:
        raise UpdateError(f"weight={weight} must lie in [0, 1]")


def _fixed(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return a read-only copy; later changes of the original do not reach it."""
    copy = np.array(values)
    copy.setflags(write=False)
    return copy


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClientUpdate:
    """Local adapter minus broadcast adapter, as its client sees it. Private.

    Args:
        rows: Shape (rank of the client, row_length), float64, finite.
        weight: The client's weight in every row it holds, in [0, 1].
    """

    rows: UpdateRows
    weight: float

    def __post_init__(self) -> None:
        _check(self.rows, self.weight)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BoundedUpdate:
    """A client's update with an L2 norm of at most `clip_norm` over all rows and layers together. Private.

    Guarantees: ``norm(rows) <= clip_norm`` (to 1e-9 relative); with ``weight <= 1`` its contribution to any sum is
    bounded by ``clip_norm`` too. ``rows`` is a copy of what was given and read-only.

    Raises:
        UpdateError: The rows are misshapen, not finite or too long, or the weight is not in [0, 1].
    """

    rows: UpdateRows
    weight: float
    clip_norm: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", _fixed(self.rows))  # before the checks: they are about what is kept
        _check(self.rows, self.weight)
        norm = l2_norm(self.rows)
        # Written so that a bound that is no number bounds nothing.
        if not norm <= self.clip_norm * (1 + NORM_TOLERANCE):
            raise UpdateError(
                f"norm={norm:.6g} must be <= clip_norm={self.clip_norm:.6g}: clip the update first"
            )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PackedUpdate:
    """A bounded update, weighted and cut into rank bands. Private.

    Args:
        bands: By band index: weight * rows of that band, flattened row by row, float64; kept as read-only copies.
        weight: The client's weight, in [0, 1].
        norm_bound: What the L2 norm of all bands together does not exceed (to 1e-9 relative): weight * clip_norm.

    Raises:
        UpdateError: The weight is not in [0, 1], or the bands are longer than the bound or not finite.
    """

    bands: Mapping[int, RealVector]
    weight: float
    norm_bound: float

    def __post_init__(self) -> None:
        kept = {index: _fixed(values) for index, values in self.bands.items()}
        object.__setattr__(self, "bands", MappingProxyType(kept))
        _check_weight(self.weight)
        norm = math.hypot(*map(l2_norm, kept.values()))
        # Written so that what is no number is refused.
        if not norm <= self.norm_bound * (1 + NORM_TOLERANCE):
            raise UpdateError(f"norm={norm:.6g} of the packed bands must be <= {self.norm_bound:.6g}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BandTotal:
    """The sums of one band over its surviving holders.

    Args:
        weighted_sum: Sum of weight * rows, flattened row by row, float64.
        weight: Sum of the weights: the public count of surviving holders where all weights are one.
        cut_off: Weightless mean share of coordinates that did not fit the per-coordinate bound, as the clients claim it:
            nothing follows from it. None where noise hides what depends on the data.
    """

    weighted_sum: RealVector
    weight: float
    cut_off: float | None
