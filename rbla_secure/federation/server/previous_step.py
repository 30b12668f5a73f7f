"""The change that the last round made to the global adapter: the public direction that updates are compared with.

A rollback to an earlier adapter is no such change: its direction is against the clients that were followed, not theirs.
The step follows from the checkpoints, so a resumed run knows it too.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import final

import numpy as np
import numpy.typing as npt

from rbla_secure.federation.observer import SilentObserver
from rbla_secure.lora.adapter import Adapter
from rbla_secure.planning.plan import Plan


@final
@dataclass(slots=True)
class PreviousStep(SilentObserver):
    """The last step of a run; empty before the first round that moved the adapter."""

    plan: Plan
    _change: npt.NDArray[np.float64] | None = None
    _known: set[bytes] = field(default_factory=set)

    def round_ended(self, before: Adapter, after: Adapter) -> None:
        """Record the step of a round, unless it left the adapter unchanged or went back to an older one."""
        self._known.add(before.digest())
        if after.digest() not in self._known:
            self._change = after.rows.astype(np.float64) - before.rows
            self._known.add(after.digest())

    def recall(self, adapters: Iterable[Adapter]) -> None:
        """Restore an interrupted run from the adapter before its first round and those after all its rounds."""
        for before, after in pairwise(adapters):
            self.round_ended(before, after)

    def by_band(self) -> Mapping[int, npt.NDArray[np.float64]] | None:
        """Return the step by band: weighted, with zeros in place of statistics; None if there was none yet."""
        if self._change is None:
            return None
        tail, weighted = np.zeros(self.plan.statistics), self.plan.row_weights * self._change
        return {
            band.index: np.concatenate(
                [weighted[band.start : band.stop, self.plan.columns].reshape(-1), tail]
            )
            for band in self.plan.bands
        }
