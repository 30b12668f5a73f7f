"""Vectors in the ring Z_{2^32}: unsigned 32-bit words whose addition wraps.

A sum of n integers of magnitude at most b is recovered exactly by the centred lift when n * b < 2^31; that limit,
`capacity`, is checked when a session is constructed, because a wrapped sum is silently wrong.

>>> centred(to_ring(np.array([-3])) + to_ring(np.array([1])))
array([-2])
"""

import numpy as np
import numpy.typing as npt

RING_BITS = 32
MAX_SUM = 2**31 - 1

RingVector = npt.NDArray[np.uint32]
IntegerVector = npt.NDArray[np.int64]


def capacity(summands: int) -> int:
    """The largest magnitude that each of so many integers may have for their sum to be recovered exactly."""
    return MAX_SUM // summands


def to_ring(values: IntegerVector) -> RingVector:
    """Signed integers as ring elements, in a fresh array."""
    return values.astype(np.int64, copy=False).astype(np.uint32)


def centred(vector: RingVector) -> IntegerVector:
    """The representatives in [-2^31, 2^31)."""
    return vector.view(np.int32).astype(np.int64)
