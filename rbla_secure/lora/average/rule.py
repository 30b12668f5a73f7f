"""The interface of averaging rules, and what they share."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from rbla_secure.lora.adapter import Adapter, AdapterLayout
from rbla_secure.lora.bands import Band
from rbla_secure.lora.update import BandTotal, UpdateRows

Totals = Mapping[int, BandTotal]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GroupAverage:
    """An average of changes over all who survived: what the server sees after a secure sum.

    Args:
        rows: Shape (rank, row_length), float64; meaningless where absent.
        present: Shape (rank,): the rows that some band total covers.
    """

    rows: UpdateRows
    present: npt.NDArray[np.bool_]


class AveragingRule(ABC):
    """A rule that turns totals per band into one average. Stateless.

    The limits on a step (federation/step_bound.py) assume of every rule that it multiplies the mean over a row's holders by
    factors in [0, 1].

    Attributes:
        equal_ranks_only: Whether the rule is defined for clients of one rank alone.
    """

    equal_ranks_only: ClassVar[bool] = False

    @abstractmethod
    def average(
        self, totals: Totals, bands: Sequence[Band], layout: AdapterLayout, *, gamma: float
    ) -> GroupAverage:
        """Average the totals of the bands that opened.

        Args:
            totals: By index of an opened band.
            bands: All rank bands, lowest first.
            layout: Layout of the adapter's rows.
            gamma: Exponent of the RBLA family, >= 0.

        Guarantees: independent of the clients' order; one client is the identity.
        """

    @abstractmethod
    def noise_kept(self, share: float, *, of_a: int, of_b: int, gamma: float) -> float:
        """Return the squared factors of one row, summed over its values with noise: what the average keeps of their noise.

        Args:
            share: q, the share of the clients that hold the row, in (0, 1].
            of_a: Values of the row in lora_A.
            of_b: Values of the row in lora_B.
            gamma: Exponent of the RBLA family, >= 0.
        """


def apply_average(adapter: Adapter, average: GroupAverage, *, learning_rate: float) -> Adapter:
    """Take the server step: add the averaged change to the rows it covers; absent rows stay as they are to the bit."""
    rows = adapter.rows.copy()
    moved = adapter.rows[average.present] + learning_rate * average.rows[average.present]
    rows[average.present] = moved.astype(np.float32)
    return Adapter(layout=adapter.layout, rows=rows)


def weight_shares(totals: Totals) -> dict[int, float]:
    """Return, by band, its holders' weight over the weight of all, who are the holders of band 0.

    Empty if band 0 is absent: no share is known then.
    """
    if 0 not in totals or totals[0].weight <= 0:
        return {}
    return {index: total.weight / totals[0].weight for index, total in totals.items()}


def scaled_means(
    totals: Totals,
    bands: Sequence[Band],
    layout: AdapterLayout,
    factors: Mapping[int, npt.NDArray[np.float64]],
) -> GroupAverage:
    """Return the mean of each row over its holders, times the factors of its band.

    Args:
        totals: By index of an opened band.
        bands: All rank bands, lowest first.
        layout: Layout of the adapter's rows.
        factors: By index of a band, shape (row_length,), in [0, 1]; a band without factors is absent.
    """
    rows = np.zeros((bands[-1].stop, layout.row_length))
    present = np.zeros(bands[-1].stop, dtype=np.bool_)
    for band in bands:
        total = totals.get(band.index)
        if total is None or total.weight <= 0 or band.index not in factors:
            continue
        summed = total.weighted_sum.reshape(band.height, layout.row_length)
        rows[band.start : band.stop] = factors[band.index] * summed / total.weight
        present[band.start : band.stop] = True
    return GroupAverage(rows=rows, present=present)
