"""Rows of a group's sum that only one client holds: such a sum is that client's change in the clear.

Bands are nested, so some band of a group has exactly one holder if and only if its largest rank has exactly one.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from typing import final

import numpy as np
import numpy.typing as npt

from rbla_secure.errors import DataError
from rbla_secure.evaluation.statistics import Estimate, mean, proportion


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Singletons:
    """Groups with rows of a single holder.

    Args:
        groups: Share of groups that have some.
        rows_read: Mean over these groups of the share of its own rows that the single holder has in the clear; None
            where no group has any.
    """

    groups: Estimate
    rows_read: Estimate | None


def singleton_probability(ranks: Sequence[int], group: int) -> float:
    """Return the probability that a group drawn without replacement has rows of a single holder.

    sum_j n_j C(N_j, g - 1) / C(n, g), where n_j clients have rank j and N_j a smaller one.

    Raises:
        DataError: The group is empty or larger than the federation.
    """
    if not 1 <= group <= len(ranks):
        raise DataError(f"group={group} must lie in 1..{len(ranks)}")
    ways, smaller = 0, 0
    for _, count in sorted(Counter(ranks).items()):
        ways += count * comb(smaller, group - 1)
        smaller += count
    return ways / comb(len(ranks), group)


def singleton_rows(ranks: Sequence[int], *, quorum: int = 1) -> int:
    """Return how many rows of a sum over clients of these ranks have one holder; 0 with a quorum of two or more."""
    if quorum > 1:
        return 0
    ordered = sorted(ranks)
    below = ordered[-2] if len(ordered) > 1 else 0
    return ordered[-1] - below


def singletons(
    ranks: npt.NDArray[np.int64],
    groups: Sequence[npt.NDArray[np.int64]],
    *,
    quorum: int = 1,
    seed: int,
) -> Singletons:
    """Measure how often drawn groups have rows of a single holder, and how many.

    Args:
        ranks: Rank of each client.
        groups: Indices of the clients of each group.
        quorum: Fewest holders with which a row is shown.
        seed: Seed of the resampling for the interval of the share of rows.
    """
    shares = [
        rows / int(ranks[group].max())
        for group in groups
        if (rows := singleton_rows(ranks[group].tolist(), quorum=quorum))
    ]
    return Singletons(
        groups=proportion(len(shares), len(groups)),
        rows_read=mean(np.array(shares), seed=seed) if shares else None,
    )
