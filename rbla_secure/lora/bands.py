"""Rank bands: the distinct ranks r_1 < ... < r_m cut the rows of an adapter into m ranges.

Band j (from 0) holds the rows r_j .. r_{j+1} - 1 and is held by every client whose rank reaches its end. Inside a
band all holders are the same clients, so a band is the unit that is summed, counted against a quorum and averaged.

>>> [(band.start, band.stop) for band in rank_bands([4, 2, 2, 8])]
[(0, 2), (2, 4), (4, 8)]
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from rbla_secure.lora.update import BandTotal, BoundedUpdate, PackedUpdate

Columns = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """The rows start .. stop - 1, held by clients of rank >= stop."""

    index: int
    start: int
    stop: int

    @property
    def height(self) -> int:
        """The number of rows."""
        return self.stop - self.start

    def __str__(self) -> str:
        return f"rows {self.start + 1}-{self.stop}"


def rank_bands(ranks: Iterable[int]) -> tuple[Band, ...]:
    """The bands of a federation with these ranks."""
    edges = [0, *sorted(set(ranks))]
    return tuple(Band(index=i, start=a, stop=b) for i, (a, b) in enumerate(pairwise(edges)))


def held_bands(bands: Iterable[Band], rank: int) -> tuple[Band, ...]:
    """The bands that a client of this rank holds whole."""
    return tuple(band for band in bands if band.stop <= rank)


def pack(update: BoundedUpdate, bands: Iterable[Band], columns: Columns | None = None) -> PackedUpdate:
    """Weight a bounded update and cut it into the bands its client holds. Run by the client.

    Args:
        update: All rows that its client holds.
        bands: All rank bands of the federation.
        columns: Shape (row_length,): the values of a row that travel; all of them if not given.

    Pre-conditions: the update's rank is the end of one of the bands; it is zero in all other columns.

    Raises:
        UpdateError: The weighted rows are longer than the bound that they carry, which no bounded update's are.
    """
    weighted = update.weight * (update.rows if columns is None else update.rows[:, columns])
    return PackedUpdate(
        bands={b.index: weighted[b.start : b.stop].ravel() for b in held_bands(bands, len(update.rows))},
        weight=update.weight,
        norm_bound=update.weight * update.clip_norm,
    )


def spread(totals: Mapping[int, BandTotal], bands: Sequence[Band], columns: Columns) -> dict[int, BandTotal]:
    """Return totals over whole rows, with zeros in the columns that did not travel. Run by the server."""
    found = {}
    for index, total in totals.items():
        rows = np.zeros((bands[index].height, len(columns)))
        rows[:, columns] = total.weighted_sum.reshape(bands[index].height, -1)
        found[index] = BandTotal(weighted_sum=rows.ravel(), weight=total.weight, cut_off=total.cut_off)
    return found
