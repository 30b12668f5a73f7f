"""The client's check of how far a model has moved since the last one that it was given. Run by the client.

The first adapter follows from the seed, to the bit. Every later one is the last one plus the steps of the rounds since, each
within the limits of `step_bound.py`: in every value, in every band and in all rows together. Values that are never
sent, and rows of bands that never open, have not moved at all. A lying server that wants one layer's inputs dead, or a
row turned against one client, needs values far from those of training, and is kept from them in the first rounds.

Caveats: it bounds how far a model has gone bad by a round, not that it does. The limit depends on the number of the
round, not on rounds that took place: a client that is asked for the first time in a late round allows all steps at
once.
"""

import math
from dataclasses import dataclass
from typing import Self, final

import numpy as np
import numpy.typing as npt

from rbla_secure.errors import RefusalError
from rbla_secure.federation.step_bound import AverageLimits, in_one_round, over_rounds
from rbla_secure.lora.adapter import Rows
from rbla_secure.planning.plan import Plan

Numbers = npt.NDArray[np.float64]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Movement:
    """Two adapters that a client was given, or as many of their first rows as it was given of both.

    Args:
        before: The earlier adapter, shape (rows, row_length).
        after: The later adapter, of the same shape.
        rounds: Number of rounds between them: 1 for two in a row.
    """

    before: Rows
    after: Rows
    rounds: int

    def check(self, plan: Plan, limits: AverageLimits) -> None:
        """Refuse a movement that honest rounds cannot have made.

        Args:
            plan: The client's own plan.
            limits: The result of :func:`average_limits` for the plan, computed once for many rounds.

        Raises:
            RefusalError: Names the rows, how far they moved and how far so many rounds can move them.
        """
        if not np.isfinite(self.after).all():
            raise RefusalError("the adapter is not finite (NaN or infinity)")
        before = self.before.astype(np.float64)
        change = self.after.astype(np.float64) - before
        if not plan.columns.all() and change[:, ~plan.columns].any():
            raise RefusalError("the adapter has changed in values that are not trained (lora.factors=lora-b)")
        # The limits are of weighted rows. Rounding to float32 is relative, so weights do not change what it allows.
        weights = plan.row_weights[: len(change)]
        moved, size = _Lengths.of(weights * change), _Lengths.of(weights * before)
        for band in plan.bands:
            if band.stop > len(change):
                break
            rows = slice(band.start, band.stop)
            each = in_one_round(plan, limits.coordinates[band.index])
            self._check(f"a value of {band}", moved.furthest(rows), each, size.furthest(rows))
            each = in_one_round(plan, limits.bands[band.index])
            self._check(str(band), moved.norm(rows), each, size.norm(rows))
        rows = slice(0, len(change))
        self._check("the adapter", moved.norm(rows), in_one_round(plan, limits.total), size.norm(rows))

    def _check(self, what: str, moved: float, each: float, size: float) -> None:
        limit = over_rounds(each, size, rounds=self.rounds)
        # Written so that what is no number has moved too far.
        if not moved <= limit:
            raise RefusalError(
                f"{what} has moved by {moved:.6g} in {self.rounds} rounds, more than {limit:.6g}, as far as honest rounds "
                "can move it: this is not what training has made of the last adapter"
            )


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class _Lengths:
    """The largest magnitude and the sum of squares of every row; bands are computed from them without a second pass."""

    largest: Numbers
    squares: Numbers

    @classmethod
    def of(cls, rows: Numbers) -> Self:
        # The squares of float32 values, and of their differences, are far from the end of float64.
        return cls(largest=np.abs(rows).max(axis=1, initial=0.0), squares=np.einsum("ij,ij->i", rows, rows))

    def furthest(self, rows: slice) -> float:
        return float(self.largest[rows].max(initial=0.0))

    def norm(self, rows: slice) -> float:
        return math.sqrt(float(self.squares[rows].sum()))
