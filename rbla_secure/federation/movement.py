"""What a client can check of a model: how far it has moved since the last one that the client was given. Run by the client.

The first adapter follows from the seed, to the bit. Every later one is the last one plus the steps of the rounds since, each
within the limits of `step_bound.py`: in every value, in every band and in all rows together. Values that never travel, and rows of
bands that never open, have not moved at all. A lying server that wants one layer's inputs dead, or a row turned against one
client, needs values far from those of training, and is kept from them in the first rounds.

Caveats: it bounds how far a model has gone bad by a round, not that it does. The limit goes by the number of the round, not by
rounds that took place: whoever is asked for the first time in a late round allows all steps at once.
"""

from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt

from rbla_secure.errors import RefusalError
from rbla_secure.federation.plan import Plan
from rbla_secure.federation.step_bound import average_limits, in_one_round, over_rounds
from rbla_secure.lora.adapter import Rows
from rbla_secure.lora.update import l2_norm

Numbers = npt.NDArray[np.float64]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Movement:
    """Two adapters that a client was given, or as many of their first rows as it was given of both.

    Args:
        before: Shape (rows, row_length).
        after: The same shape.
        rounds: Rounds that the first had gone through, to rounds of the second: 1 for two in a row.
    """

    before: Rows
    after: Rows
    rounds: int

    def check(self, plan: Plan) -> None:
        """Refuse what no honest rounds have done.

        Raises:
            RefusalError: Names the rows, how far they moved and how far so many rounds can move them.
        """
        if not np.isfinite(self.after).all():
            raise RefusalError("the adapter is not finite (NaN or infinity)")
        change = self.after.astype(np.float64) - self.before
        if change[:, ~plan.columns].any():
            raise RefusalError("the adapter has changed in values that are not trained (lora.factors=lora-b)")
        limits = average_limits(plan)
        for band in plan.bands:
            if band.stop > len(change):
                break
            rows = slice(band.start, band.stop)
            each = in_one_round(plan, limits.coordinates[band.index])
            self._check(f"a value of {band}", _furthest(change[rows]), each, _furthest(self.before[rows]))
            each = in_one_round(plan, limits.bands[band.index])
            self._check(str(band), l2_norm(change[rows]), each, _norm(self.before[rows]))
        self._check("the adapter", l2_norm(change), in_one_round(plan, limits.total), _norm(self.before))

    def _check(self, what: str, moved: float, each: float, size: float) -> None:
        limit = over_rounds(each, size, rounds=self.rounds)
        # Written so that what is no number has moved too far.
        if not moved <= limit:
            raise RefusalError(
                f"{what} has moved by {moved:.6g} in {self.rounds} rounds, more than {limit:.6g}, as far as honest rounds "
                "can move it: this is not what training has made of the last adapter"
            )


def _furthest(values: npt.NDArray[np.floating]) -> float:
    return float(np.abs(values).max(initial=0.0))


def _norm(rows: Rows) -> float:
    return l2_norm(rows.astype(np.float64))
