"""From totals per band to one average: RBLA, its family, and the baselines. Run by the server.

For row s, held by the surviving clients E_s with weights w_k, and q_s = sum_{E_s} w_k / sum_all w_k:

    RBLA       row_s = sum_{E_s} w_k x_k / sum_{E_s} w_k                 (Chen et al. 2024, arXiv 2408.08699)
    family     row_s = q_s^gamma * RBLA on lora_B, RBLA on lora_A        (gamma = 0 is RBLA)
    zero pad   row_s = q_s * RBLA on both: missing rows count as zeros
    FedAvg     equal ranks only: q_s = 1 and all of them coincide

All take the same totals, so a comparison swaps one name. A row that nobody holds, or whose band stayed closed, is
*absent* from the average, never zero: it keeps its previous global value.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rbla_secure.errors import AdapterError
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


def rbla_average(
    totals: Totals, bands: Sequence[Band], layout: AdapterLayout, *, gamma: float = 0.0
) -> GroupAverage:
    """The weighted mean of each row over exactly its holders, times q^gamma on the columns of lora_B.

    Guarantees: independent of the clients' order; one client is the identity; equal ranks give FedAvg for every
    gamma. With gamma > 0 and the total of the first band absent, no share of the weight is known and every band
    is absent.
    """
    shares = _weight_shares(totals) if gamma else dict.fromkeys(totals, 1.0)
    factors = {index: np.where(layout.lora_B_columns, share**gamma, 1.0) for index, share in shares.items()}
    return _average(totals, bands, layout, factors)


def zero_pad_average(totals: Totals, bands: Sequence[Band], layout: AdapterLayout) -> GroupAverage:
    """The mean over all clients, with zeros for rows a client does not hold: q times RBLA on lora_A and lora_B."""
    factors = {index: np.full(layout.row_length, share) for index, share in _weight_shares(totals).items()}
    return _average(totals, bands, layout, factors)


def fedavg(totals: Totals, bands: Sequence[Band], layout: AdapterLayout) -> GroupAverage:
    """The weighted mean of adapters of one rank (McMahan et al. 2017).

    Raises:
        AdapterError: There is more than one band, so ranks differ.
    """
    if len(bands) != 1:
        raise AdapterError(f"fedavg needs equal ranks: {len(bands)} rank bands must be 1")
    return rbla_average(totals, bands, layout)


def apply_average(adapter: Adapter, average: GroupAverage, *, learning_rate: float) -> Adapter:
    """The server step: add the averaged change to the rows it covers; absent rows stay as they are to the bit."""
    rows = adapter.rows.copy()
    moved = adapter.rows[average.present] + learning_rate * average.rows[average.present]
    rows[average.present] = moved.astype(np.float32)
    return Adapter(layout=adapter.layout, rows=rows)


def _weight_shares(totals: Totals) -> dict[int, float]:
    """By band, its holders' weight over the weight of all, who are the holders of band 0."""
    if 0 not in totals or totals[0].weight <= 0:
        return {}
    return {index: total.weight / totals[0].weight for index, total in totals.items()}


def _average(
    totals: Totals,
    bands: Sequence[Band],
    layout: AdapterLayout,
    factors: Mapping[int, npt.NDArray[np.float64]],
) -> GroupAverage:
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
