"""The coordinate-wise median across groups."""

from typing import final

import numpy as np
import numpy.typing as npt

from rbla_secure.lora.update import RealVector
from rbla_secure.robustness.across.rule import GroupRule
from rbla_secure.robustness.rules.coordinatewise import coordinate_median


@final
class MedianOfGroups(GroupRule):
    """The coordinate-wise median across groups."""

    def combine(self, averages: npt.NDArray[np.float64], *, f: int) -> RealVector:  # noqa: ARG002
        """Implement :meth:`GroupRule.combine`."""
        return coordinate_median(averages)

    def stretch(self, f: int) -> float:  # noqa: ARG002
        """Implement :meth:`GroupRule.stretch`: (v - 1) // 2 of v values are left out on either side."""
        return 2.0


RULE = MedianOfGroups()
