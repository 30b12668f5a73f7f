"""An update that is not finite, misshapen, wrongly weighted or too long cannot be constructed."""

import math

import numpy as np
import pytest

from rbla_secure.errors import UpdateError
from rbla_secure.lora.bands import pack, rank_bands
from rbla_secure.lora.update import BoundedUpdate, ClientUpdate, PackedUpdate


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_update_that_is_not_finite_is_refused(value: float) -> None:
    """One NaN or infinity anywhere is refused, and the message says what to do."""
    rows = np.zeros((2, 3))
    rows[1, 2] = value

    with pytest.raises(UpdateError, match=r"not finite.*learning rate"):
        ClientUpdate(rows=rows, weight=1.0)
    with pytest.raises(UpdateError, match="not finite"):
        BoundedUpdate(rows=rows, weight=1.0, clip_norm=1.0)


@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (6,), (1, 2, 3), ()])
def test_an_update_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    """An update is a matrix with at least one value."""
    rows = np.zeros(shape)

    with pytest.raises(UpdateError, match="must be"):
        ClientUpdate(rows=rows, weight=1.0)


@pytest.mark.parametrize("weight", [-0.001, 1.001, math.nan, math.inf])
def test_a_weight_outside_its_range_is_refused(weight: float) -> None:
    """A weight above one would stretch the bound of a client's contribution."""
    rows = np.zeros((1, 1))

    with pytest.raises(UpdateError, match=rf"weight={weight} must lie in \[0, 1\]"):
        ClientUpdate(rows=rows, weight=weight)
    with pytest.raises(UpdateError, match="weight"):
        BoundedUpdate(rows=rows, weight=weight, clip_norm=1.0)


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_the_whole_range_of_weights_is_accepted(weight: float) -> None:
    """Both ends belong to the range."""
    update = ClientUpdate(rows=np.ones((1, 1)), weight=weight)

    assert update.weight == weight


@pytest.mark.parametrize("excess", [1.0, 1e-3, 1e-8])
def test_an_update_beyond_its_bound_cannot_be_built(excess: float) -> None:
    """A bounded update is what its name says, to a relative 1e-9."""
    rows = np.array([[3.0, 0.0], [0.0, 4.0]])

    with pytest.raises(UpdateError, match=r"must be <= clip_norm=.*clip the update first"):
        BoundedUpdate(rows=rows, weight=0.1, clip_norm=5.0 / (1 + excess))


def test_an_update_at_its_bound_is_accepted() -> None:
    """The bound itself is allowed."""
    rows = np.array([[3.0, 0.0], [0.0, 4.0]])

    update = BoundedUpdate(rows=rows, weight=1.0, clip_norm=5.0)

    assert update.rows.tolist() == rows.tolist()


def test_what_was_checked_is_what_is_kept() -> None:
    """Whoever holds the rows of a bounded update, or the arrays it was made of, cannot lengthen it any more."""
    rows = np.array([[3.0, 0.0], [0.0, 4.0]])
    update = BoundedUpdate(rows=rows, weight=1.0, clip_norm=5.0)
    packed = pack(update, rank_bands([1, 2]))
    given = {0: np.ones(4)}
    made = PackedUpdate(bands=given, weight=1.0, norm_bound=2.0)

    rows *= 1e9
    given[0] *= 1e9
    given[1] = np.ones(9)

    for kept in (update.rows, packed.bands[0], made.bands[0]):
        with pytest.raises(ValueError, match="read-only"):
            kept[:] = 1e9
    with pytest.raises(TypeError):
        packed.bands[0] = np.ones(9)  # type: ignore[index]  # it is no dictionary
    assert update.rows.tolist() == [[3.0, 0.0], [0.0, 4.0]]
    assert pack(update, rank_bands([2])).bands[0].tolist() == [3.0, 0.0, 0.0, 4.0]
    assert {index: values.tolist() for index, values in made.bands.items()} == {0: [1.0] * 4}


def test_a_masked_array_hides_nothing_from_the_checks() -> None:
    """What a mask covers is kept, checked and refused like everything else."""
    rows = np.ma.array(np.full((1, 2), np.nan), mask=[[True, True]])

    with pytest.raises(UpdateError, match="not finite"):
        BoundedUpdate(rows=rows, weight=1.0, clip_norm=1.0)


@pytest.mark.parametrize("weight", [-0.001, 2.0, math.nan, math.inf])
def test_a_packed_update_has_a_weight_in_its_range(weight: float) -> None:
    """A weight of two, which would count twice in a sum of weights, cannot be packed."""
    with pytest.raises(UpdateError, match=rf"weight={weight} must lie in \[0, 1\]"):
        PackedUpdate(bands={0: np.ones(2)}, weight=weight, norm_bound=2.0)


@pytest.mark.parametrize("value", [3.0, 1e200, math.nan, math.inf])
@pytest.mark.parametrize("bound", [5.0, math.nan])
def test_packed_bands_beyond_their_bound_cannot_be_built(value: float, bound: float) -> None:
    """The length of all bands together counts, and what is no number is within no bound."""
    bands = {0: np.array([3.0, 4.0]), 1: np.array([value])}

    with pytest.raises(UpdateError, match="packed bands must be <="):
        PackedUpdate(bands=bands, weight=1.0, norm_bound=bound)


@pytest.mark.parametrize("magnitude", [1e155, 1e200, 1e308])
def test_a_length_too_large_to_be_squared_is_refused(magnitude: float) -> None:
    """Finite values whose squares overflow are longer than any bound."""
    rows = np.full((2, 2), magnitude)

    with pytest.raises(UpdateError, match="clip the update first"):
        BoundedUpdate(rows=rows, weight=1.0, clip_norm=1.0)


def test_a_bound_that_is_no_number_is_refused() -> None:
    """A bound that compares with nothing bounds nothing."""
    rows = np.full((2, 2), 1e6)

    with pytest.raises(UpdateError):
        BoundedUpdate(rows=rows, weight=1.0, clip_norm=math.nan)
