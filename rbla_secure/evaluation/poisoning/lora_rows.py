"""Attacks that exist only where adapters have rank rows and a row's average is taken over its holders.

Rank inflation   enrol at a rank that few hold: their rows are averaged over few. The change itself is a backdoor at
                 the whole clip norm.
Sole owner       hold a band alone, and use the whole clip norm in it: nobody dilutes it.
Row stuffing     send one's honest rows where honest rows are busy, and the backdoor where they are quiet, in directions
                 that no honest row has: no comparison with honest rows shows it.

No paper on attacks by claimed rank was known when this was written; the scenario is that of unequal ranks averaged row
by row (RBLA: Chen et al. 2024, arXiv 2408.08699).
"""

import math
from collections.abc import Callable

import numpy as np

from rbla_secure.evaluation.poisoning.crafted import filled
from rbla_secure.lora.adapter import Adapter, Rows
from rbla_secure.lora.update import UpdateRows, l2_norm

# More passes let the captured rows compensate for the fixed others; the fourth changes little.
PASSES = 3
_NEGLIGIBLE = 1e-9


def captured(change: UpdateRows, *, start: int, clip_norm: float) -> UpdateRows:
    """Return only the rows from `start` on, scaled to the whole clip norm."""
    kept = change.copy()
    kept[:start] = 0.0
    return filled(kept, clip_norm)


def train_rows_from(
    train: Callable[[Adapter, int], Rows], adapter: Adapter, *, start: int, seed: int
) -> UpdateRows:
    """Train only the rows from `start` on: after every pass the others are restored.

    Returns:
        The change, zero in the first `start` rows.
    """
    rows = adapter.rows
    for turn in range(PASSES):
        start_of_turn = Adapter(layout=adapter.layout, rows=rows.copy(), rest=adapter.rest)
        trained = train(start_of_turn, seed + turn).copy()
        trained[:start] = adapter.rows[:start]
        rows = trained
    return rows.astype(np.float64) - adapter.rows


def stuffed(honest: UpdateRows, backdoor: UpdateRows, *, clip_norm: float) -> UpdateRows:
    """Return the honest change in its busy rows, and in the quiet ones the backdoor's part orthogonal to all of these.

    Args:
        honest: The attacker's change after honest training, shape (rank, row_length).
        backdoor: Its change after training on examples with the trigger, same shape.
        clip_norm: L2 norm of the result; the busy rows keep at most half of its square.

    Returns:
        Rows of which the quiet half (by honest norm; all of them at rank 1) carries the backdoor.
    """
    norms = np.sqrt(np.square(honest).sum(axis=1))
    quiet = np.argsort(norms, kind="stable")[: (len(honest) + 1) // 2]
    kept = honest.copy()
    kept[quiet] = 0.0
    allowed = clip_norm / math.sqrt(2)
    if l2_norm(kept) > allowed:
        kept = filled(kept, allowed)
    hidden = np.zeros_like(honest)
    hidden[quiet] = _orthogonal_to(kept, backdoor[quiet])
    return kept + filled(hidden, math.sqrt(max(0.0, clip_norm**2 - l2_norm(kept) ** 2)))


def _orthogonal_to(rows: UpdateRows, values: UpdateRows) -> UpdateRows:
    """Return the part of each of the values that is orthogonal to the span of the rows."""
    _, sizes, directions = np.linalg.svd(rows, full_matrices=False)
    basis = directions[sizes > _NEGLIGIBLE * max(1.0, sizes.max())]
    remains: UpdateRows = values - values @ basis.T @ basis
    return remains
