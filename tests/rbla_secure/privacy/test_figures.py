"""How figures of privacy are written: upper bounds never below what they are, lower ones never above, and nothing positive as 0."""

import math

import numpy as np
import pytest

from rbla_secure.privacy.figures import exact, rounded_down, rounded_up


@pytest.mark.parametrize(
    ("value", "up", "down"),
    [
        (0.0, "0.000", "0.000"),
        (2.0, "2.000", "2.000"),
        (9.1, "9.100", "9.100"),
        (1.0004, "1.001", "1.000"),
        (1.0006, "1.001", "1.000"),
        (0.00311, "0.00311", "0.00311"),
        (0.003114, "0.00312", "0.00311"),
        (0.0099996, "0.01000", "0.00999"),
        (0.01, "0.010", "0.010"),
        (0.0004321, "0.000433", "0.000432"),
        (4.0001e-5, "4.01e-5", "4.00e-5"),
        (1e-10, "1.00e-10", "1.00e-10"),
        (5e-324, "5.00e-324", "5.00e-324"),
        (math.inf, "inf", "inf"),
        (math.nan, "nan", "nan"),
    ],
)
def test_figures_by_hand(value: float, up: str, down: str) -> None:
    """Three decimals, or three significant digits; what is no number is written as such."""
    assert (rounded_up(value), rounded_down(value)) == (up, down)
    assert rounded_up(np.float64(value)) == up


def values() -> list[float]:
    generator = np.random.default_rng(0)
    return [*(10.0 ** generator.uniform(-12, 6, 2000)).tolist(), 1e199, 1.7e308, 5e-324]


def wrong(up: dict[float, str]) -> int:
    """How many figures are below what they are of."""
    return sum(float(text) < value for value, text in up.items())


def test_a_figure_is_a_bound_and_a_close_one() -> None:
    """Read back: on the right side, within a thousandth or a hundredth of itself. Rounding to nearest fails half of the time."""
    for value in values():
        low, high = float(rounded_down(value)), float(rounded_up(value))
        assert 0 < low <= value <= high
        assert high - low <= max(1.01e-3 if value >= 0.01 else 0.0, 0.0101 * value)
    assert not wrong({value: rounded_up(value) for value in values()})
    assert wrong({value: f"{value:.3f}" for value in values()}) > 500


@pytest.mark.parametrize(
    ("value", "text"), [(9.0, "9"), (1e-5, "1e-05"), (2.0000004, "2.0000004"), (0.1, "0.1")]
)
def test_a_limit_is_written_in_full(value: float, text: str) -> None:
    """Six digits would make a limit of 2.0000004 one of 2, which the run may exceed."""
    assert exact(value) == text
    assert float(exact(value)) == value
