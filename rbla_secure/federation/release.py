"""From opened sums to totals under differential privacy: noise first, public denominators after. Run by the server.

Distributed noise is in the sums already, and what is in them for drop-outs that did not happen is removed here; a trusted
server adds its own, to every coordinate of every band, before anything is divided. What is divided by does not depend on
data, so the division is post-processing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final

import numpy as np

from protocols.interface import SumResult
from protocols.primitives.prg import UniformStream
from protocols.ring import IntegerVector
from protocols.session import Session
from rbla_secure.choices import Adjacency
from rbla_secure.federation.components import remove_components
from rbla_secure.federation.contribution import add_noise, noise_key
from rbla_secure.federation.plan import Plan
from rbla_secure.lora.update import BandTotal
from rbla_secure.privacy.noise import CentralGaussian, GaussianMechanism
from rbla_secure.privacy.quantize import dequantize_public

_SERVER = "server"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """What leaves a round.

    Args:
        totals: By band: noisy sums with public weights.
        unclipped: The noisy share of clients whose updates were not clipped; None where they are not counted.
        refused: By band, why its sum cannot be that of honest clients.
    """

    totals: Mapping[int, BandTotal]
    unclipped: float | None
    refused: Mapping[int, str] = field(default_factory=dict)


def release(plan: Plan, session: Session, mechanism: GaussianMechanism, sums: SumResult) -> Released:
    """The totals of a round.

    Under add-or-remove every band is released, a closed one as a sum of nothing: rows that stay as they are to the bit
    would tell that the one client that could have opened them was not there. (The plain sum opens all of them there.)
    """
    opened: dict[int, IntegerVector] = remove_components(sums.sums, mechanism, sums.extra_secrets)
    if plan.config.privacy.adjacency is Adjacency.ADD_OR_REMOVE:
        for segment in session.segments:
            opened.setdefault(segment.index, np.zeros(segment.length, dtype=np.int64))
    if isinstance(mechanism, CentralGaussian):
        opened = add_noise(opened, mechanism, UniformStream(noise_key(plan, session, _SERVER)))
    unclipped = None
    if mechanism.count_unit and 0 in opened:
        count = float(opened[0][-1]) / (2 * mechanism.count_unit)
        unclipped = count / len(sums.survivors) + 0.5
        opened[0] = opened[0][:-1]
    weights = {index: plan.denominator(session, index, sums.survivors) for index in opened}
    totals = dequantize_public(opened, plan.quantizer, weights=weights)
    return Released(totals=totals, unclipped=unclipped)


def nothing_opened(session: Session, reason: str) -> SumResult:
    """An aborted session where absence must not show, which the plain sum never ends in: no survivors, every band closed."""
    return SumResult(survivors=(), sums={}, refused=dict.fromkeys(range(len(session.segments)), reason))
