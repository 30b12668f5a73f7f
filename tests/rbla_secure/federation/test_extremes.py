"""Lengths and step sizes at the ends of what a configuration allows: rounds stay within the range of their arithmetic."""

import math
from typing import Any

import numpy as np
import pytest

from rbla_secure.privacy.quantize import Quantizer
from tests.support.federations import InMemory, make_participants, make_plan, play_round

MASKED: dict[str, Any] = {"secure_sum": "masking", "masking": {"profile": "semi-honest"}}


@pytest.mark.parametrize(
    "extreme",
    [
        {"quantization": {"bits": 16, "bound": 1e-9}, "clip_norm": 1e9},
        {"quantization": {"bits": 16, "bound": 1e9}, "clip_norm": 1e-9},
        {"quantization": {"bits": 16, "bound": 1e9}, "clip_norm": 1e9, "server_learning_rate": 1e6},
        {"server_learning_rate": 5e-324},
    ],
    ids=str,
)
def test_a_round_at_the_ends_of_the_ranges_ends_as_planned(extreme: dict[str, Any]) -> None:
    """It opens its bands, and the adapter stays finite."""
    plan = make_plan(**MASKED, **extreme)

    outcome = play_round(plan, plan.initial_adapter, InMemory(make_participants(plan)))

    assert not outcome.aborted
    assert not outcome.refusals
    assert np.isfinite(outcome.adapter.rows).all()


def test_control_beyond_the_ranges_arithmetic_fails() -> None:
    """The bound of a rounded vector, on a grid that a configuration could once name."""
    beyond, allowed = Quantizer(bits=16, bound=1e-200), Quantizer(bits=32, bound=1e-9)

    with pytest.raises(OverflowError):
        beyond.rounded_norm_bound(1.0, 4)
    assert math.isfinite(allowed.rounded_norm_bound(1e9, 10**9))
