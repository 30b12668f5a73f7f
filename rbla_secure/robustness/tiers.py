"""Scores made comparable between clients of unequal rank.

A client of higher rank holds more rows, so its distances are longer and its direction is another. With no attacker at
all, distance scores reject the low ranks and direction scores the high ones. Normalized inside its rank tier

    z_i = (score_i - median of the tier) / (1.4826 * spread of the tier)

every client is compared with its peers only. The spread is the median absolute deviation (MAD) from the median of the
tier, but at least the pooled one: the median, over all clients, of how far each is from the median of its *other* peers.

Why a floor. A copy of a tier-mate puts two equal scores into the tier; of three clients that is a MAD of zero, and however near
the third is, its z is a quotient of roundings: an attacker that copies one honest client has another rejected. The tier's own
spread may therefore make z smaller than the pooled one does, never larger. Nobody gains more by copying than a vote: the
median moves to the copies, the unit of z does not shrink.

Why the pooled one, and all of it. Deviations are taken in units in which clients of all ranks spread about alike
(:func:`rbla_secure.robustness.scores.lengths_held`); then the pooled spread is every tier's own, estimated from all clients instead
of from three. Where it is not, tiers with a larger one keep it, and those with a smaller one are rejected less often. A smaller share of it leaves a small tier's noise in z: with a half, the third of a tier whose other two agree is
rejected about twice as often above its honest rate.

Why attackers cannot steer it. f of n scores move a median by f places at most: the pooled spread stays between two quantiles
of what it would be without them, n/2 - f and n/2 + f from below, however long a deviation they make up. Deviations are taken from the
others' median because a client's own score is often the median: zeros of that kind, with those of copies, could be the
majority.

- A tier of one or two has no spread, and a client alone in its tier is its own median: unnoticed whatever it sends.
  Tiers below three clients are therefore judged together with the next lower tier (the lowest with the next higher).
- Where more than half of all deviations are zero, the spread is 1e-9 of the median score: rounding is no difference, and a
  visible difference is a very large z.

Nothing is claimed once attackers own half of a tier: ranks are enrolled, not claimed, for that reason.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.float64]
Positions = npt.NDArray[np.intp]

# A normal distribution's standard deviation over its median absolute deviation.
NORMAL_MAD = 1.4826
SMALLEST_TIER = 3
# The least spread of a tier, as a share of the pooled one; argued above.
POOLED_SHARE = 1.0
_SMALLEST_SPREAD = 1e-9
_POSITIVE = 1e-300
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


def tier_scores(scores: Scores, ranks: npt.NDArray[np.int64], *, units: Scores | None = None) -> Scores:
    """z_i of every client, shape (n,): robust standard deviations above the median of its tier.

    Args:
        scores: Shape (n,), high is suspicious; no NaN.
        ranks: Shape (n,): the tiers.
        units: Shape (n,), above 0: what a score of each client spreads by, up to a factor that all share; 1 if not given. From
            public numbers alone: of what a client sent nothing may enter.
    """
    bounded = np.clip(scores, -_LARGEST_SCORE, _LARGEST_SCORE)
    scale = np.ones(len(scores)) if units is None else units
    groups = judged_together(ranks)
    rounding = max(_SMALLEST_SPREAD * float(np.median(np.abs(bounded) / scale)), _POSITIVE)
    floor = max(POOLED_SHARE * pooled_spread(bounded, scale, groups), rounding)
    found = np.zeros(len(scores))
    for group in groups:
        deviations = (bounded[group] - np.median(bounded[group])) / scale[group]
        spread = max(float(np.median(np.abs(deviations))), floor)
        with np.errstate(over="ignore"):
            found[group] = np.clip(deviations / (NORMAL_MAD * spread), -_LARGEST_SCORE, _LARGEST_SCORE)
    return found


def pooled_spread(scores: Scores, units: Scores, groups: Sequence[Positions]) -> float:
    """The median, over all clients, of the distance from the median of the others that a client is judged with, in its units."""
    found = [
        abs(float(scores[i]) - float(np.median(scores[group[group != i]]))) / float(units[i])
        for group in groups
        if len(group) > 1
        for i in group
    ]
    return float(np.median(found)) if found else 0.0
