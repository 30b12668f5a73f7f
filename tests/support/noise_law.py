"""Whether a sample has the standard deviation that is claimed for it: a test that can say no."""

import math

import numpy as np
import numpy.typing as npt

# Six standard errors: a right claim is rejected about twice in a billion times.
_ERRORS = 6.0


def has_std(sample: npt.NDArray[np.int64] | npt.NDArray[np.float64], claimed: float) -> bool:
    """Whether zero-mean Gaussian noise of this standard deviation could well have given the sample."""
    ratio = math.sqrt(float(np.mean(np.square(sample, dtype=np.float64)))) / claimed
    return abs(ratio - 1) < _ERRORS / math.sqrt(2 * sample.size)


def tells_wrong_scales(size: int) -> bool:
    """Whether a sample of this size is enough to reject 2/3 and 3/2 of the right scale."""
    return _ERRORS / math.sqrt(2 * size) < 1 / 4
