"""The one clip: whatever comes in, what comes out has at most the clip norm."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as stnp

from rbla_secure.errors import UpdateError
from rbla_secure.lora.update import BoundedUpdate, ClientUpdate
from rbla_secure.privacy.clipping import clip, clip_per_layer, followed_norm, is_unclipped, nearest_norm
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


def parts(rows: npt.NDArray[np.float64]) -> list[npt.NDArray[np.float64]]:
    """The two layers of the rows below, by hand."""
    return [rows[:, :3], rows[:, 3:]]


LAYERS = {"first": (slice(0, 2), slice(2, 3)), "second": (slice(3, 4), slice(4, 6))}


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6])
def test_per_layer_every_layer_has_its_part_of_the_norm(scale: float) -> None:
    """No layer is longer than clip_norm / sqrt(layers), the whole not longer than clip_norm, and short layers stay."""
    rows = np.random.default_rng(0).normal(size=(4, 6)) * scale
    rows[:, 3:] *= 1e-6

    bounded = clip_per_layer(ClientUpdate(rows=rows, weight=1.0), LAYERS, clip_norm=1.0)

    first, second = parts(bounded.rows)
    limit = 1 / np.sqrt(2)
    assert np.linalg.norm(first) <= limit * (1 + 1e-12)
    assert np.linalg.norm(bounded.rows) <= 1 + 1e-12
    if np.linalg.norm(rows[:, 3:]) <= limit:
        assert second.tolist() == rows[:, 3:].tolist()
    if scale > 1e-3:
        assert np.linalg.norm(first) == pytest.approx(limit)


@pytest.mark.parametrize(("norm", "unclipped"), [(0.0, True), (0.999, True), (1.001, False), (1e200, False)])
def test_a_client_counts_whether_it_was_clipped(norm: float, unclipped: bool) -> None:  # noqa: FBT001
    """What it tells under noise is whether its update is short enough, also where squares would overflow."""
    rows = np.zeros((2, 3))
    rows[1, 2] = norm

    assert is_unclipped(ClientUpdate(rows=rows, weight=1.0), clip_norm=1.0) == unclipped


def test_the_norm_follows_the_quantile() -> None:
    """With everybody clipped it grows, with nobody it falls, at the quantile it stays, and it keeps within its limits."""
    terms: dict[str, Any] = {"quantile": 0.5, "rate": 0.2, "limits": (0.25, 4.0)}

    assert followed_norm(1.0, [], **terms) == 1.0
    assert followed_norm(1.0, [0.5, 0.5], **terms) == 1.0
    assert followed_norm(1.0, [0.0], **terms) == pytest.approx(np.exp(0.1))
    assert followed_norm(1.0, [1.0], **terms) == pytest.approx(np.exp(-0.1))
    # A noisy count beyond all clients counts as all of them.
    assert followed_norm(1.0, [7.0], **terms) == pytest.approx(np.exp(-0.1))
    assert followed_norm(1.0, [0.0] * 100, **terms) == 4.0
    assert followed_norm(1.0, [1.0] * 100, **terms) == 0.25


def test_norms_lie_on_the_grid() -> None:
    """The nearest by ratio; the ends beyond them."""
    grid = (4.0, 2.0, 1.0, 0.5)

    assert [nearest_norm(wanted, grid) for wanted in (9.0, 2.9, 2.7, 1.0, 0.1)] == [4.0, 4.0, 2.0, 1.0, 0.5]
