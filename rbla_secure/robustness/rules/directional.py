"""Rules that compare directions with a trusted one."""

import numpy as np
import numpy.typing as npt

from rbla_secure.errors import RobustnessError
from rbla_secure.robustness.rules.matrix import Matrix, Vector, check_matrix, check_vector, columns, combine


def cosines(x: Matrix, *, reference: Vector) -> npt.NDArray[np.float64]:
    """The cosine between each row and the reference, shape (n,); 0 for a row of zeros.

    With the previous aggregate as reference this is a score; it can be led astray by slow drift, and there is none in
    the first round.

    Raises:
        RobustnessError: The reference is zero or does not fit, or `x` is no finite matrix.
    """
    check_matrix(x)
    check_vector("reference", reference, x)
    if not reference.any():
        raise RobustnessError("the reference must not be zero: it has no direction")
    inner, lengths = scaled_products(x, unit_vector(reference))
    return np.divide(inner, lengths, out=np.zeros(len(x)), where=lengths > 0)


def fltrust(x: Matrix, *, reference: Vector) -> Vector:
    """sum_i t_i x_i ||reference|| / ||x_i|| / sum_i t_i, with trust t_i = max(0, cos(x_i, reference)).

    Stands against any f, as far as the reference is right: an update computed on a small trusted data set. Source:
    Cao et al. 2021 (NDSS), arXiv 2012.13995, algorithm 2. The zero vector where no row points along the reference.

    Raises:
        RobustnessError: As :func:`cosines`.
    """
    trust = np.maximum(0.0, cosines(x, reference=reference))
    total = trust.sum()
    if not total:
        return np.zeros(x.shape[1])
    return combine(trust / total * rescaled(x, reference), x)


def rescaled(x: Matrix, reference: Vector) -> npt.NDArray[np.float64]:
    """The factor that gives each row the length of the reference; 0 for a row of zeros."""
    _, lengths = scaled_products(x, reference)
    factors = np.divide(_length(reference), lengths, out=np.zeros(len(x)), where=lengths > 0)
    return np.asarray(factors / _scales(x))


def unit_vector(reference: Vector) -> Vector:
    """The reference over its length, without overflow on the way."""
    scaled = reference / np.abs(reference).max()
    return np.asarray(scaled / _length(scaled))


def scaled_products(x: Matrix, reference: Vector) -> tuple[Vector, Vector]:
    """Inner product with the reference, and length, of each row over its largest value: nothing can overflow."""
    scales = _scales(x)
    inner, squares = np.zeros(len(x)), np.zeros(len(x))
    for part in columns(x):
        chunk = x[:, part] / scales[:, None]
        inner += chunk @ reference[part]
        squares += np.square(chunk, out=chunk).sum(axis=1)
    return inner, np.sqrt(squares)


def _scales(x: Matrix) -> Vector:
    """The largest magnitude in each row, shape (n,); 1 for a row of zeros."""
    found = np.zeros(len(x))
    for part in columns(x):
        np.maximum(found, np.abs(x[:, part]).max(axis=1), out=found)
    found[found == 0] = 1.0
    return found


def _length(vector: Vector) -> float:
    return float(np.sqrt(np.square(vector).sum()))
