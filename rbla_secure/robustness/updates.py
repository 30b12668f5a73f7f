"""The input of a filter over single updates: every client's update by rank band, in the clear. Plain mode only."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rbla_secure.errors import RobustnessError

_MATRIX = 2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BandUpdates:
    """The rows of one band from the clients that hold it, NOT multiplied by their weights.

    Args:
        holders: Shape (m,): positions in `Updates.clients`, increasing.
        values: Shape (m, band length), floating point, finite.

    Raises:
        RobustnessError: Shapes do not fit, holders do not increase, or a value is not finite.
    """

    holders: npt.NDArray[np.intp]
    values: npt.NDArray[np.floating[Any]]

    def __post_init__(self) -> None:
        if self.values.ndim != _MATRIX or self.values.shape[1] < 1:
            raise RobustnessError(f"values of shape {self.values.shape} must be (holders, band length >= 1)")
        if self.holders.shape != (len(self.values),):
            raise RobustnessError(
                f"holders of shape {self.holders.shape} must be ({len(self.values)},) as values"
            )
        if (self.holders < 0).any() or (np.diff(self.holders) <= 0).any():
            raise RobustnessError("holders must be positions in increasing order, each once")
        if not np.isfinite(self.values).all():
            raise RobustnessError(
                "an update is not finite (NaN or infinity): refuse it before it is filtered"
            )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Updates:
    """All updates of a round.

    Args:
        clients: Names in increasing order, each once.
        ranks: Shape (n,): the enrolled rank, which is the tier; never what a client claims in its upload.
        weights: Shape (n,), in [0, 1].
        bands: By band index. Whoever holds a band, all clients of the same or a higher rank hold it too.

    Raises:
        RobustnessError: One of these does not hold.
    """

    clients: tuple[str, ...]
    ranks: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float64]
    bands: Mapping[int, BandUpdates]

    def __post_init__(self) -> None:
        n = len(self.clients)
        if not n or sorted(set(self.clients)) != list(self.clients):
            raise RobustnessError("clients must be names in increasing order, each once, and at least one")
        if self.ranks.shape != (n,) or (self.ranks < 1).any():
            raise RobustnessError(f"ranks must be {n} numbers >= 1, one per client")
        # Written so that a weight that is no number is outside.
        if self.weights.shape != (n,) or not ((self.weights >= 0) & (self.weights <= 1)).all():
            raise RobustnessError(f"weights must be {n} numbers in [0, 1], one per client")
        for index, band in self.bands.items():
            self._check_holders(index, band.holders)

    def _check_holders(self, index: int, holders: npt.NDArray[np.intp]) -> None:
        if not len(holders):
            return
        if holders[-1] >= len(self.clients):
            raise RobustnessError(
                f"band {index}: holder {holders[-1]} is no position of {len(self.clients)} clients"
            )
        expected = np.flatnonzero(self.ranks >= self.ranks[holders].min())
        if not np.array_equal(holders, expected):
            raise RobustnessError(
                f"band {index} must be held by every client of its holders' lowest rank or above"
            )
