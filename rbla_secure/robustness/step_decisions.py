"""Checks after aggregation, with any filter: is the step plausible, did it do harm? Pure decisions of the server.

They see the average and what it does to the model on public data, never a client. A step that fails is scaled or rolled
back; the reason says which rule, which number and which limit. They catch what is loud. An attacker that knows the canary data
or the triggers that are looked for passes.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from rbla_secure.errors import RobustnessError


class Action(StrEnum):
    """The action that a check takes on a step."""

    ACCEPT = "accept"
    SCALE = "scale"
    ROLL_BACK = "roll-back"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The decision of a check.

    Args:
        action: What happens to the step.
        factor: What to multiply the step by: 1 if accepted, 0 if rolled back.
        score: What was measured.
        limit: What it was compared with.
        reason: For people.
    """

    action: Action
    factor: float
    score: float
    limit: float
    reason: str


def scale_long_step(norm: float, *, cap: float) -> Decision:
    """Scale a step longer than `cap` down to it; roll back one whose length is no number.

    Raises:
        RobustnessError: `cap` is not positive.
    """
    _check_cap(cap)
    text = f"step length {norm:.4g}, cap {cap:.4g}"
    if norm <= cap and math.isfinite(norm):
        return _accepted(norm, cap, text)
    if math.isfinite(norm):
        return Decision(
            action=Action.SCALE, factor=cap / norm, score=norm, limit=cap, reason=f"{text}: scaled"
        )
    return _rolled_back(norm, cap, f"{text}: not a finite length")


def check_accuracy(before: float, after: float, *, max_drop: float) -> Decision:
    """Roll back a step after which the held-out accuracy is lower by more than `max_drop`.

    Args:
        before: Accuracy of the adapter before the step, in [0, 1]. Take the best of the last accepted rounds: against
            the last one alone, slow harm passes in small steps.
        after: Accuracy with the step applied.
        max_drop: In [0, 1]; a few standard errors sqrt(p (1 - p) / samples), or chance decides.

    Raises:
        RobustnessError: A number outside [0, 1].
    """
    for name, value in (("before", before), ("after", after), ("max_drop", max_drop)):
        _check_share(name, value)
    drop = before - after
    text = f"held-out accuracy {before:.3f} -> {after:.3f}, drop {drop:.3f}, limit {max_drop:.3f}"
    return _accepted(drop, max_drop, text) if drop <= max_drop else _rolled_back(drop, max_drop, text)


def scan_triggers(rates: Mapping[str, float], baseline: Mapping[str, float], *, max_rise: float) -> Decision:
    """Roll back a step after which some trigger patch turns public inputs into one class more often than before.

    Args:
        rates: By trigger, with the step applied: the largest share of public inputs with the patch that are given one
            class to which they do not belong.
        baseline: The same before the first round: a patch covers things, so it is not zero.
        max_rise: In [0, 1].

    Raises:
        RobustnessError: Other triggers than in the baseline, none at all, or a number outside [0, 1].
    """
    if not rates or set(rates) != set(baseline):
        raise RobustnessError("rates and baseline must be of the same triggers, at least one")
    _check_share("max_rise", max_rise)
    for measured in (rates, baseline):
        for name, value in measured.items():
            _check_share(f"rate of {name}", value)
    worst = min(rates, key=lambda name: (baseline[name] - rates[name], name))
    rise = rates[worst] - baseline[worst]
    text = (
        f"trigger {worst}: {baseline[worst]:.3f} -> {rates[worst]:.3f}, rise {rise:.3f}, limit {max_rise:.3f}"
    )
    return _accepted(rise, max_rise, text) if rise <= max_rise else _rolled_back(rise, max_rise, text)


def _accepted(score: float, limit: float, reason: str) -> Decision:
    return Decision(action=Action.ACCEPT, factor=1.0, score=score, limit=limit, reason=f"{reason}: accepted")


def _rolled_back(score: float, limit: float, reason: str) -> Decision:
    return Decision(
        action=Action.ROLL_BACK, factor=0.0, score=score, limit=limit, reason=f"{reason}: rolled back"
    )


def _check_cap(cap: float) -> None:
    if not cap > 0:
        raise RobustnessError(f"cap={cap} must be positive")


def _check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise RobustnessError(f"{name}={value} must lie in [0, 1]")
