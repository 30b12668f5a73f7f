"""Bounding a client's whole update: all rows, all layers, lora_A and lora_B together.

Whatever the rule, the whole update ends with an L2 norm of at most the clip norm: that is the sensitivity. Per layer,
each of L layers is clipped to clip_norm / sqrt(L), whose squares add up to it. Where rows are trained in turns, each of the
plan's m rank bands is clipped (and rounded) alone, to clip_norm / sqrt(m) whatever the rank of its client: one clip over all
rows would shorten the low rows of whoever moved far in high ones, and so tell ranks apart. Adaptive clipping (Andrew et al. 2021,
arXiv 1905.03871) follows a quantile of the norms: clients count, under the same noise, how many were not clipped.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from rbla_secure.errors import UpdateError
from rbla_secure.lora.update import BoundedUpdate, ClientUpdate, UpdateRows, l2_norm
from rbla_secure.privacy.quantize import Quantizer


def clip(update: ClientUpdate, *, clip_norm: float) -> BoundedUpdate:
    """Scale the update down to L2 norm `clip_norm` if it is longer. Run by the client.

    | norm of the update | result                 |
    |--------------------|------------------------|
    | 0                  | unchanged              |
    | <= clip_norm       | unchanged              |
    | > clip_norm        | scaled to clip_norm    |

    Weights are applied after the clip, so one client's effect on a sum is at most weight * clip_norm <= clip_norm.

    Raises:
        UpdateError: `clip_norm` is not a positive finite number.
    """
    _check(clip_norm)
    rows = update.rows * _factor(update.rows, clip_norm)
    return BoundedUpdate(rows=rows, weight=update.weight, clip_norm=clip_norm)


def clip_per_layer(
    update: ClientUpdate, layers: Mapping[str, tuple[slice, slice]], *, clip_norm: float
) -> BoundedUpdate:
    """Scale each layer's part of the update down to clip_norm / sqrt(L) if it is longer. Run by the client.

    Args:
        update: Rows of all layers side by side.
        layers: By name, the columns of lora_A and of lora_B; they follow each other.
        clip_norm: L2 bound of the whole update, above 0.

    Raises:
        UpdateError: `clip_norm` is not a positive finite number.
    """
    _check(clip_norm)
    limit = clip_norm / math.sqrt(len(layers))
    rows = update.rows.copy()
    for lora_A, lora_B in layers.values():
        part = rows[:, lora_A.start : lora_B.stop]
        part *= _factor(part, limit)
    return BoundedUpdate(rows=rows, weight=update.weight, clip_norm=clip_norm)


def part_norm(clip_norm: float, parts: int) -> float:
    """Return the length to which each of `parts` parts is clipped so that the whole is no longer than the clip norm."""
    return clip_norm / math.sqrt(parts)


def rounded_norm(quantizer: Quantizer, clip_norm: float, lengths: Sequence[int]) -> float:
    """The L2 norm, in integer units, that a whole update never exceeds, each of its parts clipped and rounded alone.

    Args:
        quantizer: The plan's grid.
        clip_norm: L2 bound of the whole update, above 0.
        lengths: How many values each part has; one for an update that is clipped and rounded as a whole.
    """
    limit = part_norm(clip_norm, len(lengths))
    return math.hypot(*(quantizer.rounded_norm_bound(limit, length) for length in lengths))


def is_unclipped(update: ClientUpdate, *, clip_norm: float) -> bool:
    """Whether an update is short enough to pass unchanged: what clients count."""
    return _norm(update.rows) <= clip_norm


def followed_norm(
    start: float, shares: Sequence[float], *, quantile: float, rate: float, limits: tuple[float, float]
) -> float:
    """The clip norm after so many noisy counts: C <- C exp(-rate (share - quantile)), kept within its limits.

    Args:
        start: Clip norm before the first count.
        shares: Noisy shares of unclipped clients, one per round.
        quantile: Target share of unclipped clients, in (0, 1).
        rate: Step size in the exponent.
        limits: The smallest and the largest norm.
    """
    norm = start
    for share in shares:
        norm *= math.exp(-rate * (min(1.0, max(0.0, share)) - quantile))
        norm = min(limits[1], max(limits[0], norm))
    return norm


def reach(counts: int, *, quantile: float, rate: float) -> tuple[float, float]:
    """Return how far so many counts can move the clip norm of :func:`followed_norm`, whatever they are.

    Args:
        counts: Number of counts, 0 or more.
        quantile: Target share of unclipped clients, in (0, 1).
        rate: Step size in the exponent.

    Returns:
        The natural logarithms of the factors, both at least 0: by how much it can fall, by how much it can rise.
    """
    return counts * rate * (1 - quantile), counts * rate * quantile


def nearest_norm(wanted: float, norms: Sequence[float]) -> float:
    """The norm of a falling geometric grid that is nearest to the wanted one, by ratio; the ends beyond it."""
    return min(norms, key=lambda norm: abs(math.log(norm / wanted)))


def _check(clip_norm: float) -> None:
    if not (math.isfinite(clip_norm) and clip_norm > 0):
        raise UpdateError(f"clip_norm={clip_norm} must be a positive finite number")


def _factor(rows: UpdateRows, limit: float) -> float:
    norm = _norm(rows)
    return 1.0 if norm <= limit else limit / norm


def _norm(rows: UpdateRows) -> float:
    # Scaled by the largest magnitude first: squaring a large finite update must not overflow.
    largest = float(np.abs(rows).max())
    return largest * l2_norm(rows / largest) if largest else 0.0
