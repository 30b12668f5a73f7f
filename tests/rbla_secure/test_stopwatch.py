"""Seconds add up under their names, on a clock that the tests wind themselves."""

import itertools
import time

import pytest

from rbla_secure.stopwatch import Stopwatch


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that has moved on by one second whenever somebody looks."""
    ticks = itertools.count(100.0)
    monkeypatch.setattr(time, "perf_counter", lambda: next(ticks))


def test_nothing_measured_is_zero() -> None:
    """An activity that never happened took no time."""
    stopwatch = Stopwatch()

    seconds = stopwatch.seconds("training")

    assert seconds == 0.0


@pytest.mark.usefixtures("clock")
def test_an_activity_adds_up() -> None:
    """Every further stretch counts on top, and each name for itself."""
    stopwatch = Stopwatch()

    for _ in range(3):
        with stopwatch.measure("training"):
            pass
    with stopwatch.measure("evaluation"):
        pass

    assert stopwatch.seconds("training") == 3.0
    assert stopwatch.seconds("evaluation") == 1.0


@pytest.mark.usefixtures("clock")
def test_an_activity_inside_another_counts_for_both() -> None:
    """The outer activity includes the inner one."""
    stopwatch = Stopwatch()

    with stopwatch.measure("round"), stopwatch.measure("training"):
        pass

    assert stopwatch.seconds("training") == 1.0
    assert stopwatch.seconds("round") == 3.0


@pytest.mark.usefixtures("clock")
def test_an_activity_that_fails_is_counted() -> None:
    """Time spent is spent, and the error comes through."""
    stopwatch = Stopwatch()

    with pytest.raises(KeyError), stopwatch.measure("training"):
        raise KeyError

    assert stopwatch.seconds("training") == 1.0
