"""The one L2 clip of a client's whole update: all rows, all layers, lora_A and lora_B together."""

import math

import numpy as np

from rbla_secure.errors import UpdateError
from rbla_secure.lora.update import BoundedUpdate, ClientUpdate, l2_norm


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
    if not (math.isfinite(clip_norm) and clip_norm > 0):
        raise UpdateError(f"clip_norm={clip_norm} must be a positive finite number")
    # Scaled by the largest magnitude first: squaring a large finite update must not overflow.
    largest = float(np.abs(update.rows).max())
    norm = largest * l2_norm(update.rows / largest) if largest else 0.0
    factor = 1.0 if norm <= clip_norm else clip_norm / norm
    return BoundedUpdate(rows=update.rows * factor, weight=update.weight, clip_norm=clip_norm)
