"""Changes of single clients from sums alone, where cohorts differ from round to round.

Who took part is known. If a client's changes have a common part over the rounds, then the sums are a linear system in
the common parts of all clients, and least squares solves it (Pasquini et al. 2022 and the disaggregation attack of Lam
et al. 2021, arXiv 2106.06089; the defence that lets only fixed groups enter and leave: So et al. 2023, arXiv
2106.03328).

With unequal ranks the system is solved band by band: in the rows of a band only its holders are unknowns, and the fewer
they are, the fewer rounds are needed.
"""

from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt

from rbla_secure.errors import DataError
from rbla_secure.evaluation.statistics import Estimate, mean, proportion
from rbla_secure.lora.bands import rank_bands

# Shape (sums, clients): which clients are in which sum
Participation = npt.NDArray[np.bool_]
# One row matrix of full rank for every sum, or for every client
Stack = npt.NDArray[np.floating]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Differencing:
    """How well changes of single clients are recovered from sums.

    Args:
        identified: Share of clients whose recovered change is nearer to their own than to anybody else's.
        cosine: Mean cosine between the two.
        chance: The share that guessing identifies: one over the number of clients.
    """

    identified: Estimate
    cosine: Estimate
    chance: float


def recovered_changes(participation: Participation, sums: Stack, ranks: npt.NDArray[np.int64]) -> Stack:
    """Return, by client, the minimum-norm least-squares solution for its change, given the sums.

    Args:
        participation: Which clients are in which sum, shape (sums, clients).
        sums: Row s of each is the sum over those in it that hold the row.
        ranks: Rank of each client.

    Returns:
        Shape (clients, rank, row_length); rows that a client does not hold are zero.

    Raises:
        DataError: Shapes do not fit each other.
    """
    if participation.shape != (len(sums), len(ranks)):
        raise DataError(f"participation {participation.shape} must be ({len(sums)}, {len(ranks)})")
    found = np.zeros((len(ranks), *sums.shape[1:]), dtype=sums.dtype)
    for band in rank_bands(ranks.tolist()):
        holders = np.flatnonzero(ranks >= band.stop)
        solver = np.linalg.pinv(participation[:, holders].astype(np.float64)).astype(sums.dtype)
        part = sums[:, band.start : band.stop]
        solved = solver @ part.reshape(len(part), -1)
        found[holders, band.start : band.stop] = solved.reshape(len(holders), *part.shape[1:])
    return found


def attack(recovered: Stack, truth: Stack, ranks: npt.NDArray[np.int64], *, seed: int) -> Differencing:
    """Match recovered changes to true ones.

    The mean of a row over all its holders says nothing about any of them, so it is subtracted on both sides.

    Args:
        recovered: Recovered change of each client, shape (clients, rank, row_length).
        truth: By client, the mean of its changes over the rounds that it took part in.
        ranks: Rank of each client.
        seed: Seed of the resampling for the interval of the mean cosine.
    """
    one, other = _own(recovered, ranks), _own(truth, ranks)
    cosines = _unit(one) @ _unit(other).T
    hits = int((cosines.argmax(axis=1) == np.arange(len(cosines))).sum())
    return Differencing(
        identified=proportion(hits, len(cosines)),
        cosine=mean(np.diag(cosines).astype(np.float64), seed=seed),
        chance=1 / len(cosines),
    )


def _own(changes: Stack, ranks: npt.NDArray[np.int64]) -> Stack:
    """Return the changes minus the mean of each row over its holders, flattened."""
    held = ranks[:, None] > np.arange(changes.shape[1])
    common = changes.sum(axis=0) / np.maximum(held.sum(axis=0), 1)[:, None]
    own = np.where(held[:, :, None], changes - common, 0)
    flat: Stack = own.reshape(len(own), -1)
    return flat


def _unit(rows: Stack) -> Stack:
    norms = np.sqrt(np.square(rows).sum(axis=1, keepdims=True))
    unit: Stack = np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)
    return unit
