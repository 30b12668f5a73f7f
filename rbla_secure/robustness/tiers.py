"""Scores made comparable between clients of unequal rank.

A client of higher rank holds more rows, so its distances are longer and its direction is another. With no attacker at
all, distance scores reject the low ranks and direction scores the high ones. Normalized inside its rank tier

    z_i = (score_i - median of the tier) / (1.4826 * spread of the tier)

every client is compared with its peers only. The spread is the median absolute deviation (MAD) from the median, of the
tier alone: drawing it towards that of all clients looks tempting for small tiers, but scores of unequal ranks have spreads
of their own, and the tiers with the smaller ones would never be rejected. Nor is it corrected for small tiers: the
corrections make the mean of the MAD right, not the share of clients that exceed a limit.

- A tier of one or two has no spread, and a client alone in its tier is its own median: unnoticed whatever it sends.
  Tiers below three clients are therefore judged together with the next lower tier (the lowest with the next higher).
- Where more than half of a tier are equal, its MAD is zero and that of all clients takes its place. At the least the
  spread is 1e-9 of the largest score: equal scores give z = 0, and a visible difference a very large one.

Nothing is claimed once attackers own half of a tier: ranks are enrolled, not claimed, for that reason.
"""

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.float64]
Positions = npt.NDArray[np.intp]

# A normal distribution's standard deviation over its median absolute deviation.
NORMAL_MAD = 1.4826
SMALLEST_TIER = 3
_SMALLEST_SPREAD = 1e-9
# Scores may be infinite; medians and differences of these cannot overflow.
_LARGEST_SCORE = 1e300


def judged_together(ranks: npt.NDArray[np.int64]) -> list[Positions]:
    """Positions by group of clients that are compared with each other: the tiers, small ones merged, by rank."""
    groups: list[Positions] = []
    for rank in np.unique(ranks):
        tier = np.flatnonzero(ranks == rank)
        if groups and min(len(groups[-1]), len(tier)) < SMALLEST_TIER:
            groups[-1] = np.sort(np.concatenate([groups[-1], tier]))
        else:
            groups.append(tier)
    return groups


def tier_scores(scores: Scores, ranks: npt.NDArray[np.int64]) -> Scores:
    """z_i of every client, shape (n,): robust standard deviations above the median of its tier.

    Pre-conditions: shapes agree; scores are no NaN.
    """
    bounded = np.clip(scores, -_LARGEST_SCORE, _LARGEST_SCORE)
    groups = judged_together(ranks)
    deviations = np.empty(len(scores))
    for group in groups:
        deviations[group] = bounded[group] - np.median(bounded[group])
    pooled = float(np.median(np.abs(deviations)))
    floor = _SMALLEST_SPREAD * float(np.abs(bounded).max(initial=0.0))
    found = np.zeros(len(scores))
    for group in groups:
        spread = max(float(np.median(np.abs(deviations[group]))) or pooled, floor)
        if spread > 0:
            found[group] = deviations[group] / (NORMAL_MAD * spread)
    return found
