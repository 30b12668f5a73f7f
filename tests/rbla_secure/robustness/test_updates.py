"""What a filter may be shown."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rbla_secure.errors import RobustnessError
from rbla_secure.robustness.updates import BandUpdates, Updates


def band(*holders: int, length: int = 2) -> BandUpdates:
    return BandUpdates(holders=np.array(holders, dtype=np.intp), values=np.ones((len(holders), length)))


def updates(**changes: Any) -> Updates:
    fields: dict[str, Any] = {
        "clients": ("a", "b", "c"),
        "ranks": np.array([2, 4, 4]),
        "weights": np.array([1.0, 0.5, 0.0]),
        "bands": {0: band(0, 1, 2), 1: band(1, 2)},
    }
    return Updates(**fields | changes)


def test_well_formed_updates_are_taken() -> None:
    assert updates().clients == ("a", "b", "c")
    assert updates(bands={}).bands == {}
    assert updates(bands={1: band()}).bands[1].values.shape == (0, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clients": ("a", "c", "b")}, "increasing order"),
        ({"clients": ("a", "a", "b")}, "increasing order"),
        ({"clients": (), "ranks": np.array([]), "weights": np.array([])}, "at least one"),
        ({"ranks": np.array([2, 4])}, "3 numbers >= 1"),
        ({"ranks": np.array([0, 4, 4])}, "3 numbers >= 1"),
        ({"weights": np.array([1.0, 1.0])}, r"in \[0, 1\]"),
        ({"weights": np.array([1.0, 1.0, 1.1])}, r"in \[0, 1\]"),
        ({"weights": np.array([1.0, 1.0, np.nan])}, r"in \[0, 1\]"),
        ({"bands": {0: band(0, 1, 3)}}, "holder 3 is no position"),
        ({"bands": {1: band(1)}}, "band 1 must be held by every client"),
        ({"bands": {0: band(0, 2)}}, "band 0 must be held by every client"),
    ],
)
def test_what_does_not_fit_together_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RobustnessError, match=message):
        updates(**changes)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BandUpdates(holders=np.array([0]), values=np.ones(3)), "shape"),
        (lambda: BandUpdates(holders=np.array([0]), values=np.ones((1, 0))), "shape"),
        (lambda: BandUpdates(holders=np.array([0]), values=np.ones((2, 3))), "holders of shape"),
        (lambda: band(1, 1), "increasing order"),
        (lambda: band(2, 1), "increasing order"),
        (lambda: band(-1, 1), "increasing order"),
        (lambda: BandUpdates(holders=np.array([0]), values=np.array([[1.0, np.nan]])), "not finite"),
        (lambda: BandUpdates(holders=np.array([0]), values=np.array([[1.0, np.inf]])), "not finite"),
    ],
)
def test_what_is_no_band_is_refused(make: Callable[[], BandUpdates], message: str) -> None:
    with pytest.raises(RobustnessError, match=message):
        make()
