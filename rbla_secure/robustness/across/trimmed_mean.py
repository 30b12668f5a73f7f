"""The mean across groups without the f lowest and the f highest."""

from typing import final

import numpy as np
import numpy.typing as npt

from rbla_secure.lora.update import RealVector
from rbla_secure.robustness.across.rule import GroupRule
from rbla_secure.robustness.rules.coordinatewise import trimmed_mean


@final
class TrimmedMeanOfGroups(GroupRule):
    """The mean across groups without the f lowest and the f highest of each value."""

    def combine(self, averages: npt.NDArray[np.float64], *, f: int) -> RealVector:
        """Implement :meth:`GroupRule.combine`."""
        return trimmed_mean(averages, f=f)

    def stretch(self, f: int) -> float:
        """Implement :meth:`GroupRule.stretch`: f of v >= 2f + 1 values are left out on either side."""
        return (2 * f + 1) / (f + 1)


RULE = TrimmedMeanOfGroups()
