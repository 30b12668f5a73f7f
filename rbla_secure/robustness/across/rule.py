"""The interface of rules across the averages of groups."""

from abc import ABC, abstractmethod

import numpy as np
import numpy.typing as npt

from rbla_secure.lora.update import RealVector


class GroupRule(ABC):
    """A rule that combines the averages of groups into one. Stateless.

    Each is a file of its name in `rbla_secure/robustness/across/` that defines `RULE`.
    """

    @abstractmethod
    def combine(self, averages: npt.NDArray[np.float64], *, f: int) -> RealVector:
        """Combine averages, shape (groups, d), at least 2f + 1 of them, of which f may be hostile, into one, shape (d,)."""

    @abstractmethod
    def stretch(self, f: int) -> float:
        """Return the factor >= 1 by which a squared result can exceed the mean of the squared averages."""
