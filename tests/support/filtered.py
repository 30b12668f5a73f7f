"""Synthetic updates of clients of unequal rank, for the filters."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rbla_secure.lora.bands import rank_bands
from rbla_secure.lora.update import BandTotal
from rbla_secure.robustness.updates import BandUpdates, Updates

Array = Any
LENGTH = 6  # values in a row


def names(count: int) -> tuple[str, ...]:
    return tuple(f"client-{i:03d}" for i in range(count))


def cut(rows: Sequence[Array], weights: Sequence[float] | None = None) -> Updates:
    """Each client's rows, shape (rank, length), as the filter sees them."""
    ranks = np.array([len(client) for client in rows], dtype=np.int64)
    bands = {}
    for band in rank_bands(ranks.tolist()):
        holders = np.flatnonzero(ranks >= band.stop)
        values = np.stack([np.ravel(rows[i][band.start : band.stop]) for i in holders])
        bands[band.index] = BandUpdates(holders=holders, values=values)
    return Updates(
        clients=names(len(rows)),
        ranks=ranks,
        weights=np.ones(len(rows)) if weights is None else np.array(weights, dtype=np.float64),
        bands=bands,
    )


def draw(
    ranks: Sequence[int],
    seed: int = 0,
    *,
    signal: float = 0.5,
    noise: float = 1.0,
    length: int = LENGTH,
    weights: Sequence[float] | None = None,
) -> Updates:
    """Honest updates: a common direction, the same in every round, and noise of each client's own."""
    common = np.random.default_rng(12345).normal(size=(max(ranks), length))
    generator = np.random.default_rng(seed)
    rows = [signal * common[:rank] + noise * generator.normal(size=(rank, length)) for rank in ranks]
    return cut(rows, weights)


def changed(updates: Updates, clients: Sequence[int], *, factor: float = 1.0, shift: float = 0.0) -> Updates:
    """The same with some clients' rows multiplied and shifted."""
    bands = {}
    for index, band in updates.bands.items():
        values = band.values.copy()
        bad = np.isin(band.holders, clients)
        values[bad] = factor * values[bad] + shift
        bands[index] = BandUpdates(holders=band.holders, values=values)
    return Updates(clients=updates.clients, ranks=updates.ranks, weights=updates.weights, bands=bands)


def average(total: BandTotal) -> Array:
    return total.weighted_sum / total.weight
