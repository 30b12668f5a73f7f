"""Checks that refuse averages impossible for honest clients, before they move anything. Run by the server.

Behind masks a modified client adds any vector of the ring to the sum of every band it holds. The limits of `step_bound.py` hold for
whatever honest clients train on, so a band whose average has a coordinate or a length beyond them stays closed: its rows are
unchanged, as after a sum that was never opened. Without that one client could put the adapter anywhere, or make a step that every
client refuses in the next round.

If all bands together are too long, though each of them is within its own limit, nothing moves. A step is not scaled
down: a step that is known to be forged has no share worth keeping, and its direction would be the forger's.

Caveat: behind masks nobody is named. One client can close every band that it holds, in every round it takes part in, and
within the limits it can turn the average in any direction: a limit on length is none on direction (groups and filters
are).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import final

import numpy as np

from protocols.session import Session
from rbla_secure.federation.step_bound import AverageLimits, average_limits
from rbla_secure.lora.average import GroupAverage, Totals
from rbla_secure.lora.bands import Band
from rbla_secure.lora.update import BandTotal, l2_norm
from rbla_secure.planning.plan import Plan

_NO_HONEST = "which no honest clients can add up to"


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CheckedAverage:
    """The accepted part of an average.

    Args:
        average: The average without the rows of refused bands.
        refused: By band, why it may not move.
    """

    average: GroupAverage
    refused: Mapping[int, str]


def check_average(plan: Plan, session: Session, totals: Totals, averaged: GroupAverage) -> CheckedAverage:
    """Remove from an average the bands that no honest clients could have made.

    Args:
        plan: The terms.
        session: The session of the round; it names the clip norm.
        totals: By band, in the columns that are sent; their means are measured, as shares of gamma or zero padding
            would allow a forger of a rare band a longer update.
        averaged: Their average by the plan's rule.
    """
    refused = impossible(totals, average_limits(plan, clip_norm=plan.clip_norm_of(session)))
    return CheckedAverage(average=_without(averaged, [plan.bands[i] for i in refused]), refused=refused)


def impossible(totals: Totals, limits: AverageLimits) -> dict[int, str]:
    """Return, by band, which limit its mean exceeds; every band, if only all of them together are too long."""
    held = {index: total for index, total in totals.items() if total.weight > 0}
    faults = {index: _fault(total, limits, index) for index, total in held.items()}
    refused = {index: reason for index, reason in faults.items() if reason}
    length = math.hypot(*(_length(total) for index, total in held.items() if index not in refused))
    if not length <= limits.total:
        reason = f"the averages of all bands together are {length:.6g} long, more than {limits.total:.6g}, {_NO_HONEST}"
        return dict.fromkeys(held, reason) | refused
    return refused


def _fault(total: BandTotal, limits: AverageLimits, index: int) -> str:
    furthest = float(np.abs(total.weighted_sum).max(initial=0.0)) / total.weight
    # Written so that what is no number exceeds every limit.
    if not furthest <= limits.coordinates[index]:
        limit = limits.coordinates[index]
        return f"a value of its average is {furthest:.6g}, more than {limit:.6g}, {_NO_HONEST}"
    length = _length(total)
    if not length <= limits.bands[index]:
        return f"its average is {length:.6g} long, more than {limits.bands[index]:.6g}, {_NO_HONEST}"
    return ""


def _length(total: BandTotal) -> float:
    return l2_norm(total.weighted_sum / total.weight)


def _without(averaged: GroupAverage, bands: list[Band]) -> GroupAverage:
    present = averaged.present.copy()
    for band in bands:
        present[band.start : band.stop] = False
    return replace(averaged, present=present)
