"""Checks on a finished step: decisions with reasons."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from rbla_secure.errors import RobustnessError
from rbla_secure.robustness.step_decisions import (
    Action,
    check_accuracy,
    scale_long_step,
    scan_triggers,
)


@pytest.mark.parametrize(
    ("norm", "cap", "action", "factor"),
    [
        (1.0, 2.0, Action.ACCEPT, 1.0),
        (2.0, 2.0, Action.ACCEPT, 1.0),
        (8.0, 2.0, Action.SCALE, 0.25),
        (8.0, math.inf, Action.ACCEPT, 1.0),
        (math.inf, 2.0, Action.ROLL_BACK, 0.0),
        (math.inf, math.inf, Action.ROLL_BACK, 0.0),
        (math.nan, 2.0, Action.ROLL_BACK, 0.0),
    ],
)
def test_a_long_step_is_scaled_to_the_cap(norm: float, cap: float, action: Action, factor: float) -> None:
    decision = scale_long_step(norm, cap=cap)

    assert (decision.action, decision.factor) == (action, factor)
    assert f"cap {cap:.4g}" in decision.reason


def test_a_drop_of_the_held_out_accuracy_rolls_back() -> None:
    kept = check_accuracy(0.75, 0.70, max_drop=0.06)
    lost = check_accuracy(0.75, 0.60, max_drop=0.06)

    assert (kept.action, kept.factor) == (Action.ACCEPT, 1.0)
    assert (lost.action, lost.factor) == (Action.ROLL_BACK, 0.0)
    assert lost.reason == "held-out accuracy 0.750 -> 0.600, drop 0.150, limit 0.060: rolled back"
    assert check_accuracy(0.5, 0.9, max_drop=0.0).action is Action.ACCEPT


def test_a_trigger_that_rises_rolls_back_and_is_named() -> None:
    baseline = {"corner": 0.05, "cross": 0.30}

    assert scan_triggers({"corner": 0.1, "cross": 0.35}, baseline, max_rise=0.2).action is Action.ACCEPT
    decision = scan_triggers({"corner": 0.9, "cross": 0.35}, baseline, max_rise=0.2)
    assert decision.action is Action.ROLL_BACK
    assert decision.reason == "trigger corner: 0.050 -> 0.900, rise 0.850, limit 0.200: rolled back"


@pytest.mark.parametrize(
    "call",
    [
        lambda: scale_long_step(1.0, cap=0.0),
        lambda: scale_long_step(1.0, cap=math.nan),
        lambda: check_accuracy(1.1, 0.5, max_drop=0.1),
        lambda: check_accuracy(0.5, math.nan, max_drop=0.1),
        lambda: check_accuracy(0.5, 0.5, max_drop=-0.1),
        lambda: scan_triggers({}, {}, max_rise=0.1),
        lambda: scan_triggers({"a": 0.1}, {"b": 0.1}, max_rise=0.1),
        lambda: scan_triggers({"a": 1.1}, {"a": 0.1}, max_rise=0.1),
        lambda: scan_triggers({"a": 0.1}, {"a": 0.1}, max_rise=2.0),
    ],
)
def test_numbers_without_meaning_are_refused(call: Callable[[], Any]) -> None:
    with pytest.raises(RobustnessError):
        call()
