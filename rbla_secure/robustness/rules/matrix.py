"""The input of every rule: what it must be, and how to walk through it without copying it whole."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from rbla_secure.errors import RobustnessError

Matrix = npt.NDArray[np.floating[Any]]
Vector = npt.NDArray[np.float64]

# 32 MiB as float64: large against the cost of a step in Python, small against the matrix.
CHUNK_VALUES = 1 << 22
_MATRIX = 2


def columns(x: Matrix) -> Iterator[slice]:
    """Consecutive ranges of columns, each of at most CHUNK_VALUES values (one column at least)."""
    n, d = x.shape
    width = max(1, CHUNK_VALUES // n)
    for start in range(0, d, width):
        yield slice(start, min(start + width, d))


def check_matrix(x: Matrix) -> None:
    """Refuse what no rule can judge: one NaN would otherwise pass through a sort as the largest value.

    Raises:
        RobustnessError: `x` is not a real matrix of at least one row and one column, or is not finite.
    """
    if x.ndim != _MATRIX or not x.size:
        raise RobustnessError(f"matrix of shape {x.shape} must be (clients >= 1, length >= 1)")
    if not np.issubdtype(x.dtype, np.floating):
        raise RobustnessError(f"matrix of dtype {x.dtype} must be of floating point")
    for part in columns(x):
        finite = np.isfinite(x[:, part])
        if not finite.all():
            row = int(np.argmin(finite.all(axis=1)))
            raise RobustnessError(f"row {row} is not finite (NaN or infinity): every value must be")


def check_vector(name: str, vector: Vector, x: Matrix) -> None:
    """Refuse a vector that does not fit the matrix.

    Raises:
        RobustnessError: It is of another length than the rows of `x`, or not finite.
    """
    if vector.shape != (x.shape[1],):
        raise RobustnessError(f"{name} of shape {vector.shape} must be ({x.shape[1]},) as the rows are")
    if not np.isfinite(vector).all():
        raise RobustnessError(f"{name} is not finite (NaN or infinity): every value must be")


def check_count(rule: str, n: int, f: int, *, at_least: int) -> None:
    """Refuse to promise what n vectors cannot keep against f bad ones.

    Raises:
        RobustnessError: f is negative, or n is smaller than `at_least`.
    """
    if f < 0:
        raise RobustnessError(f"{rule}: f={f} must not be negative")
    if n < at_least:
        raise RobustnessError(f"{rule}: n={n} vectors cannot stand against f={f}: n >= {at_least} is needed")


def check_positive(name: str, value: float) -> None:
    """Refuse a radius, bound or count that is not a positive finite number.

    Raises:
        RobustnessError: It is not.
    """
    if not (np.isfinite(value) and value > 0):
        raise RobustnessError(f"{name}={value} must be a positive finite number")


def combine(coefficients: Vector, x: Matrix) -> Vector:
    """sum_i coefficients_i x_i, in float64, chunk by chunk.

    Not by BLAS: its last digits depend on how many threads there are, and these are the digits of averages.
    """
    found = np.empty(x.shape[1])
    for part in columns(x):
        found[part] = np.einsum("i,ij->j", coefficients, x[:, part].astype(np.float64))
    return found


def mean(x: Matrix) -> Vector:
    """The plain mean. Breakdown point 0: one row moves it anywhere.

    Raises:
        RobustnessError: `x` is no finite matrix.
    """
    check_matrix(x)
    return combine(np.full(len(x), 1 / len(x)), x)


def row_norms(x: Matrix, center: Vector | None = None) -> Vector:
    """||x_i - center|| of every row, shape (n,); infinity where the squares overflow."""
    squares = np.zeros(len(x))
    with np.errstate(over="ignore"):
        for part in columns(x):
            chunk = x[:, part].astype(np.float64)
            if center is not None:
                chunk -= center[part]
            squares += np.square(chunk, out=chunk).sum(axis=1)
    return np.sqrt(squares)
