"""Checks after aggregation: the length of the step, and its harm on public examples. Run by the server.

A step that is too long is scaled. One after which public accuracy falls, or a known trigger works, is rolled back: the run
continues from the best adapter of the last rounds, so that harm in small steps does not become the new measure.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import final

import numpy as np

from rbla_secure.config import RobustnessConfig
from rbla_secure.federation.observer import SilentObserver
from rbla_secure.federation.step_bound import WINDOW
from rbla_secure.lora.adapter import Adapter
from rbla_secure.lora.update import l2_norm
from rbla_secure.robustness.step_decisions import (
    Action,
    Decision,
    check_accuracy,
    scale_long_step,
    scan_triggers,
)


def wants_checks(wanted: RobustnessConfig) -> bool:
    """Return whether any step is checked."""
    return bool(wanted.max_step_norm or wanted.max_accuracy_drop or wanted.max_trigger_rise)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PublicTests:
    """The server's measurements on public examples.

    Args:
        accuracy: Measures the accuracy of an adapter, in [0, 1].
        triggers: Measures, by known trigger, the share of examples on which it works for an adapter, in [0, 1].
    """

    accuracy: Callable[[Adapter], float]
    triggers: Callable[[Adapter], Mapping[str, float]]


@final
@dataclass(slots=True, kw_only=True)
class StepChecks(SilentObserver):
    """The checks of a run. It keeps the adapters after the last rounds, whatever their outcome, as checkpoints do.

    Args:
        wanted: The configured checks and their limits.
        tests: Public measurements; not used by the length check.
        first: The adapter before round 1, whose triggers are the baseline.
        remembered: Adapters after the last rounds of an interrupted run, oldest first, `WINDOW` of them if there were.
    """

    wanted: RobustnessConfig
    tests: PublicTests
    first: Adapter
    remembered: Sequence[Adapter] = ()
    _window: list[tuple[Adapter, float]] = field(init=False, default_factory=list)
    _baseline: Mapping[str, float] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        for adapter in (self.first, *self.remembered):
            self.remember(adapter)
        if self.wanted.max_trigger_rise:
            self._baseline = self.tests.triggers(self.first)

    def judge(self, before: Adapter, after: Adapter) -> tuple[Adapter, list[Decision]]:
        """Return the adapter to continue with, and the decisions on the step."""
        decisions: list[Decision] = []
        if self.wanted.max_step_norm:
            change = after.rows.astype(np.float64) - before.rows
            decision = scale_long_step(l2_norm(change), cap=self.wanted.max_step_norm)
            decisions.append(decision)
            if decision.action is Action.SCALE:
                rows = (before.rows + decision.factor * change).astype(np.float32)
                after = Adapter(layout=before.layout, rows=rows)
        harm = self._harm(after)
        decisions += harm
        if any(decision.action is Action.ROLL_BACK for decision in decisions):
            return self._best(before), decisions
        return after, decisions

    def round_ended(self, before: Adapter, after: Adapter) -> None:  # noqa: ARG002  # going back counts like any other round
        """Remember the adapter after a round."""
        self.remember(after)

    def remember(self, adapter: Adapter) -> None:
        """Remember the adapter after a round."""
        if self.wanted.max_accuracy_drop:
            self._window = [*self._window, (adapter, self.tests.accuracy(adapter))][-WINDOW:]

    def _harm(self, after: Adapter) -> list[Decision]:
        found = []
        if self.wanted.max_accuracy_drop:
            best = max(accuracy for _, accuracy in self._window)
            limit = self.wanted.max_accuracy_drop
            found.append(check_accuracy(best, self.tests.accuracy(after), max_drop=limit))
        if self.wanted.max_trigger_rise:
            rates = self.tests.triggers(after)
            found.append(scan_triggers(rates, self._baseline, max_rise=self.wanted.max_trigger_rise))
        return found

    def _best(self, before: Adapter) -> Adapter:
        """Return the kept adapter of the highest public accuracy; the one before the step if none is kept.

        Among equals it is the newest. So a round goes back by two steps at most, which is what clients accept: it only
        goes back to x past adapters that are worse, and one of these that was itself gone back to would have had to be
        better than x.
        """
        newest_first = list(reversed(self._window))
        return max(newest_first, key=lambda entry: entry[1])[0] if newest_first else before
