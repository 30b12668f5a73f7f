"""The one clip: whatever comes in, what comes out has at most the clip norm."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as stnp

from rbla_secure.errors import UpdateError
from rbla_secure.lora.update import BoundedUpdate, ClientUpdate
from rbla_secure.privacy.clipping import clip
from tests.support.properties import PROPERTY

ROWS = stnp.arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(1, 6)), elements=st.floats(-1e3, 1e3))


def update(rows: object, *, weight: float = 1.0) -> ClientUpdate:
    return ClientUpdate(rows=np.asarray(rows, dtype=np.float64), weight=weight)


def norm(bounded: BoundedUpdate) -> float:
    """In exact arithmetic up to the last square root."""
    return math.sqrt(sum(Fraction(value) ** 2 for value in bounded.rows.ravel().tolist()))


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([[0.0, 0.0]], [[0.0, 0.0]]),  # 0
        ([[0.3, 0.4]], [[0.3, 0.4]]),  # below the norm
        ([[0.6, 0.8]], [[0.6, 0.8]]),  # exactly at the norm
        ([[3.0], [-4.0]], [[0.6], [-0.8]]),  # above: one clip over all rows
        ([[1e200, 0.0], [0.0, 0.0]], [[1.0, 0.0], [0.0, 0.0]]),  # its square is no float
        ([[-3e307, 4e307]], [[-0.6, 0.8]]),  # nor is its norm's
        ([[1e-200, 0.0]], [[1e-200, 0.0]]),  # its square is zero
        ([[5e-324]], [[5e-324]]),  # the smallest float
    ],
)
def test_the_clip_table(rows: list[list[float]], expected: list[list[float]]) -> None:
    """Short updates stay as they are to the bit, long ones keep their direction at the clip norm."""
    given_update = update(rows)

    result = clip(given_update, clip_norm=1.0)

    if np.array_equal(rows, expected):
        assert result.rows.tobytes() == np.asarray(expected).tobytes()
    assert result.rows == pytest.approx(np.asarray(expected), rel=1e-12, abs=0.0)
    assert result.clip_norm == 1.0


@PROPERTY
@given(rows=ROWS, clip_norm=st.floats(1e-6, 1e6), weight=st.floats(0, 1))
def test_no_update_leaves_longer_than_the_norm(rows: np.ndarray, clip_norm: float, weight: float) -> None:
    """The length is bounded in exact arithmetic, the direction is kept and the weight is not applied yet."""
    before = math.sqrt(sum(Fraction(value) ** 2 for value in rows.ravel().tolist()))

    result = clip(update(rows, weight=weight), clip_norm=clip_norm)

    assert norm(result) <= clip_norm * (1 + 1e-9)
    assert norm(result) == pytest.approx(min(before, clip_norm), rel=1e-9)
    assert result.rows * max(before, clip_norm) == pytest.approx(rows * clip_norm, rel=1e-9, abs=1e-9)
    assert result.weight == weight


def test_all_rows_share_one_clip() -> None:
    """A row is shortened because of the others: the norm is one of the whole update, not of each row."""
    rows = np.full((100, 1), 0.5)

    result = clip(update(rows), clip_norm=1.0)

    assert norm(result) == pytest.approx(1.0)
    assert result.rows == pytest.approx(np.full((100, 1), 0.1))


def test_the_update_itself_is_left_alone() -> None:
    """Clipping makes a new array."""
    before = update([[3.0, 4.0]])

    clip(before, clip_norm=1.0)

    assert before.rows.tolist() == [[3.0, 4.0]]


@pytest.mark.parametrize("clip_norm", [0.0, -1.0, math.nan, math.inf, -math.inf])
def test_a_norm_that_bounds_nothing_is_refused(clip_norm: float) -> None:
    """Only a positive finite number bounds an update and lets something through."""
    given_update = update([[1.0]])

    with pytest.raises(UpdateError, match=f"clip_norm={clip_norm} must be a positive finite number"):
        clip(given_update, clip_norm=clip_norm)
