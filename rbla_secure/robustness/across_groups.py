"""From the totals of groups to the totals of the round: a bounded-influence rule per band. Masked mode, run by the server.

Nothing bounds what a masked client adds to its own group's sum, so group averages are never averaged: each group has one
vote per band in a median or a trimmed mean (weights count inside a group; across groups they would let the attackers'
group vote more). The free check of lengths comes before: a group whose average is longer than 1.5 times the median of its
tier is suspicious. With a cosine of 0.1 between honest updates, as measured after a few rounds, a sum of three clipped to C is
about 1.9 C long: one attacker passes with up to about 2.4 C instead of anything.

That check is a score first. It rejects only against f > 0, and only while every band keeps 2f + 1 groups, as each
rejected group might have been an honest one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rbla_secure.config.choices import AcrossRule
from rbla_secure.errors import RobustnessError
from rbla_secure.lora.update import BandTotal, RealVector, l2_norm
from rbla_secure.robustness.across import group_rule
from rbla_secure.robustness.grouping import Group
from rbla_secure.robustness.tiers import judged_together
from rbla_secure.robustness.verdicts import Filtered, Verdict

# Times the median length in the tier; see above for what it lets through.
NORM_LIMIT = 1.5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GroupTotals:
    """The result of the secure sum of one group.

    Args:
        group: The group that was drawn; survivors may be fewer.
        bands: By band index, the bands that opened.
    """

    group: Group
    bands: Mapping[int, BandTotal]


def filter_groups(
    found: Sequence[GroupTotals], *, f: int, rule: AcrossRule, norm_limit: float = NORM_LIMIT
) -> Filtered:
    """Combine the totals of the groups into one per band, with a verdict on every group.

    Args:
        found: One per group that completed its sum.
        f: Attackers to stand against; 0 if unknown, which rejects no group and leaves the rule to bound them.
        rule: What is taken across groups. The trimmed mean trims f groups on either side.
        norm_limit: Times the median length of the tier.

    Guarantees: a band opens only with 2f + 1 groups of positive weight. Its total weighs as much as they do together, and its
    average is the rule's result. Never raises because of what groups summed to.

    Raises:
        RobustnessError: f is negative, a norm limit that is not above 1, or two groups of one name.
    """
    if f < 0:
        raise RobustnessError(f"f={f} must not be negative")
    if not norm_limit > 1:
        raise RobustnessError(
            f"norm_limit={norm_limit} must be above 1: half of all groups exceed the median"
        )
    if len({totals.group.name for totals in found}) != len(found):
        raise RobustnessError("two groups have one name")
    averages = [_averages(totals) for totals in found]
    ratios = _length_ratios(found, averages)
    rejected = _rejected(ratios, averages, f, norm_limit)
    totals: dict[int, BandTotal] = {}
    closed: dict[int, str] = {}
    for index in sorted({index for group in found for index in group.bands}):
        voters = [i for i, held in enumerate(averages) if index in held and i not in rejected]
        if len(voters) < 2 * f + 1:
            closed[index] = f"{len(voters)} groups, {2 * f + 1} needed against f={f}"
            continue
        weight = sum(found[i].bands[index].weight for i in voters)
        value = group_rule(rule).combine(np.stack([averages[i][index] for i in voters]), f=f)
        totals[index] = BandTotal(weighted_sum=value * weight, weight=weight, cut_off=None)
    return Filtered(totals=totals, verdicts=_verdicts(found, ratios, rejected, norm_limit), closed=closed)


def _averages(totals: GroupTotals) -> dict[int, RealVector]:
    """Return averages by band; a group without weight or with a sum that is no number has no average."""
    return {
        index: total.weighted_sum / total.weight
        for index, total in totals.bands.items()
        if total.weight > 0 and np.isfinite(total.weighted_sum).all()
    }


def _length_ratios(
    found: Sequence[GroupTotals], averages: Sequence[Mapping[int, RealVector]]
) -> npt.NDArray[np.float64]:
    """The length of each group's average over the median of its tier (small tiers with their neighbors), shape (groups,)."""
    lengths = np.array([np.hypot.reduce([0.0, *(l2_norm(v) for v in held.values())]) for held in averages])
    ranks = np.array([totals.group.rank for totals in found], dtype=np.int64)
    ratios = np.ones(len(found))
    for together in judged_together(ranks):
        middle = float(np.median(lengths[together]))
        if np.isfinite(middle) and middle > 0:
            ratios[together] = lengths[together] / middle
    return ratios


def _rejected(
    ratios: npt.NDArray[np.float64], averages: Sequence[Mapping[int, RealVector]], f: int, limit: float
) -> frozenset[int]:
    """The longest groups beyond the limit, at most f, as long as each of their bands keeps 2f + 1 groups."""
    left: dict[int, int] = {}
    for held in averages:
        for index in held:
            left[index] = left.get(index, 0) + 1
    rejected: set[int] = set()
    for i in np.argsort(-ratios, kind="stable")[:f].tolist():
        if ratios[i] > limit and all(left[index] > 2 * f + 1 for index in averages[i]):
            rejected.add(i)
            for index in averages[i]:
                left[index] -= 1
    return frozenset(rejected)


def _verdicts(
    found: Sequence[GroupTotals], ratios: npt.NDArray[np.float64], rejected: frozenset[int], limit: float
) -> dict[str, Verdict]:
    verdicts = {}
    for i, totals in enumerate(found):
        beyond = "beyond" if ratios[i] > limit else "within"
        kept = "rejected" if i in rejected else "kept"
        verdicts[totals.group.name] = Verdict(
            accepted=i not in rejected,
            score=float(ratios[i]),
            reason=f"group length: {ratios[i]:.2f} times the median of its tier, {beyond} the limit {limit:.2f}, {kept}",
        )
    return verdicts
