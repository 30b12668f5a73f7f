"""The change that the last round made to the global adapter: the public direction that updates are held against.

It follows from the checkpoints, so a resumed run knows it too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt

from rbla_secure.federation.plan import Plan
from rbla_secure.lora.adapter import Adapter
from rbla_secure.privacy.quantize import STATISTICS


@final
@dataclass(slots=True)
class LastStep:
    """Empty before the first round that moved the adapter."""

    plan: Plan
    _change: npt.NDArray[np.float64] | None = None

    def took(self, before: Adapter, after: Adapter) -> None:
        """A round is over; one that left the adapter as it was is passed over."""
        change = after.rows.astype(np.float64) - before.rows
        if change.any():
            self._change = change

    def recall(self, change: tuple[Adapter, Adapter] | None) -> None:
        """Take up the last change of an interrupted run, if it made one."""
        if change is not None:
            self.took(*change)

    def by_band(self) -> Mapping[int, npt.NDArray[np.float64]] | None:
        """The step as the bands carry it, with zeros in the place of their statistics; None if there was none yet."""
        if self._change is None:
            return None
        tail = np.zeros(STATISTICS)
        return {
            band.index: np.concatenate(
                [self._change[band.start : band.stop, self.plan.columns].reshape(-1), tail]
            )
            for band in self.plan.bands
        }
