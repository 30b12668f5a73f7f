"""Decoding of single clients' integers into the updates that a filter sees. Run by the server, in the clear.

Validity (whole, in range, the weight that the plan allows, nothing in rows that are not held), the clip, which the server
repeats, and the cap on weights: a client's own claims count for nothing.
"""

from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np

from protocols.ring import IntegerVector
from protocols.session import ClientId, Session
from rbla_secure.lora.update import RealVector, l2_norm
from rbla_secure.planning.plan import Plan
from rbla_secure.privacy.clipping import part_norm
from rbla_secure.robustness.updates import BandUpdates, Updates
from rbla_secure.robustness.verdicts import Verdict

# A weight counts at most this many times the median of all.
WEIGHT_CAP = 2.0


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Decoded:
    """A valid input as real numbers: unweighted, clipped, by band."""

    weight: float
    bands: Mapping[int, RealVector]


def decoded(
    plan: Plan, session: Session, client: ClientId, uploaded: Mapping[int, IntegerVector]
) -> Decoded | Verdict:
    """Return an input after validity check and clip, or the verdict why it is invalid."""
    levels, scale = plan.quantizer.levels, plan.quantizer.scale
    held = {band.index for band in plan.held_bands(client)}
    inputs = {index: values for index, values in uploaded.items() if index in held}
    if any(values.any() for index, values in uploaded.items() if index not in inputs):
        return Verdict(accepted=False, score=None, reason="validity: values in rows that it does not hold")
    claimed = {int(values[-plan.statistics]) if plan.weighted else levels for values in inputs.values()}
    if len(claimed) != 1:
        return Verdict(accepted=False, score=None, reason="validity: its bands claim different weights")
    weight = claimed.pop() / levels
    if not plan.least_weight <= weight <= 1:
        return Verdict(accepted=False, score=None, reason=f"validity: weight {weight:.3g} is not the plan's")
    bands = {index: _values(plan, values) / (scale * weight) for index, values in inputs.items()}
    clip_norm = plan.clip_norm_of(session)
    if not plan.promises.bands_alone:
        return Decoded(weight=weight, bands=_clipped(plan, bands, clip_norm, weight))
    norm = part_norm(clip_norm, len(plan.bands))
    alone = [_clipped(plan, {index: values}, norm, weight) for index, values in bands.items()]
    return Decoded(weight=weight, bands=dict(ChainMap(*alone)))


def _clipped(
    plan: Plan, bands: Mapping[int, RealVector], clip_norm: float, weight: float
) -> dict[int, RealVector]:
    """Clip bands together; the limit allows for the rounding that may lengthen an honest update."""
    norm = float(np.hypot.reduce([l2_norm(values) for values in bands.values()]))
    dimension = sum(len(values) for values in bands.values())
    limit = plan.quantizer.rounded_norm_bound(clip_norm * weight, dimension) / (plan.quantizer.scale * weight)
    factor = min(1.0, limit / norm) if norm else 1.0
    return {index: values * factor for index, values in bands.items()}


def updates_of(plan: Plan, inputs: Mapping[ClientId, Decoded]) -> Updates:
    """Return the valid inputs of a round, at least one, as the filter sees them."""
    clients = tuple(sorted(inputs))
    weights = np.array([inputs[client].weight for client in clients])
    cap = WEIGHT_CAP * float(np.median(weights))
    bands = {}
    for band in plan.bands:  # those that can never open were not uploaded
        holders = [i for i, client in enumerate(clients) if plan.ranks[client] >= band.stop]
        if holders and band.index in inputs[clients[holders[0]]].bands:
            values = np.stack([inputs[clients[i]].bands[band.index] for i in holders])
            bands[band.index] = BandUpdates(holders=np.array(holders, dtype=np.intp), values=values)
    return Updates(
        clients=clients,
        ranks=np.array([plan.ranks[client] for client in clients], dtype=np.int64),
        weights=np.minimum(weights, cap),
        bands=bands,
    )


def _values(plan: Plan, whole: IntegerVector) -> IntegerVector:
    """Return the values of a band without the statistics behind them."""
    return whole[: len(whole) - plan.statistics]
