"""Conversion of opened sums to totals under differential privacy: first noise, then division. Run by the server.

Distributed noise is in the sums already, and its part for drop-outs that did not happen is removed here; a trusted
server adds its own, to every coordinate of every band, before anything is divided. Denominators are public and do not
depend on data, so the division is post-processing. No check that could show reads a sum before its noise: a sum with
arbitrary inputs was opened by a lift without a jump (`protocols.ring.folded`), and is compared with its bound after
noise.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import final

import numpy as np

from protocols.interface import SumResult
from protocols.primitives.prg import UniformStream
from protocols.ring import IntegerVector
from protocols.session import ClientId, Session
from rbla_secure.config.choices import Adjacency
from rbla_secure.federation.noise_components import remove_components
from rbla_secure.federation.noise_shares import noise_key
from rbla_secure.lora.update import BandTotal
from rbla_secure.planning.plan import Plan
from rbla_secure.privacy.noise import TAIL, CorrelatedNoise, GaussianMechanism, NoisePlace
from rbla_secure.privacy.noise.mechanism import Values
from rbla_secure.privacy.quantize import dequantize_public

_SERVER = "server"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """The released values of a round.

    Args:
        totals: By band, noisy sums with public weights.
        unclipped: The noisy share of clients whose updates were not clipped; None where they are not counted.
        refused: By band, why its sum cannot be that of honest clients.
    """

    totals: Mapping[int, BandTotal]
    unclipped: float | None
    refused: Mapping[int, str] = field(default_factory=dict)


def release(
    plan: Plan,
    session: Session,
    mechanism: GaussianMechanism,
    sums: SumResult,
    correlated: CorrelatedNoise | None = None,
) -> Released:
    """Turn opened sums into the totals of a round.

    Under add-or-remove every band is released, a closed one as a sum of nothing: rows that stay as they are to the bit
    would show that the one client that could have opened them was not there. (The plain sum opens all of them there.)
    """
    opened: dict[int, IntegerVector] = remove_components(sums.sums, mechanism, sums.extra_secrets)
    if plan.config.privacy.adjacency is Adjacency.ADD_OR_REMOVE:
        for segment in session.segments:
            opened.setdefault(segment.index, np.zeros(segment.length, dtype=np.int64))
    noisy = mechanism.open(
        opened,
        UniformStream(noise_key(plan, session, _SERVER)),
        round_number=session.round,
        clients=session.members,
        correlated=correlated,
    )
    refused = _impossible(plan, session, mechanism, noisy, sums.survivors)
    noisy = {index: values for index, values in noisy.items() if index not in refused}
    unclipped = None
    if mechanism.count_unit and 0 in noisy:
        count = float(noisy[0][-1]) / (2 * mechanism.count_unit)
        unclipped = count / len(sums.survivors) + 0.5
        noisy[0] = noisy[0][:-1]
    weights = {index: plan.denominator(session, index, sums.survivors) for index in noisy}
    totals = dequantize_public(noisy, plan.quantizer, weights=weights)
    return Released(totals=totals, unclipped=unclipped, refused=refused)


def _impossible(
    plan: Plan,
    session: Session,
    mechanism: GaussianMechanism,
    noisy: Mapping[int, Values],
    survivors: Collection[ClientId],
) -> dict[int, str]:
    """Return, by band, why its released values cannot be a sum within bounds plus the server's noise.

    It reads released values alone, so it costs no privacy. Honest ones leave the range with probability 2e-23 per
    coordinate. Sums with the clients' noise were compared with their bound where they were opened.
    """
    if mechanism.place is not NoisePlace.SERVER:
        return {}
    found, absence_shows = {}, plan.config.privacy.adjacency is Adjacency.ZERO_OUT
    for index, values in noisy.items():
        all_of_them = session.segments[index].members
        members = len(set(all_of_them).intersection(survivors)) if absence_shows else len(all_of_them)
        limit = members * session.input_bound + TAIL * mechanism.released_std(index, session.round)
        if float(np.abs(values).max()) > limit:
            found[index] = (
                f"its sum with noise leaves [-{limit:.0f}, {limit:.0f}], which {members} inputs within bounds cannot: a "
                "member was given another model or did not follow the protocol"
            )
    return found


def nothing_opened(session: Session, reason: str) -> SumResult:
    """Return the result of an aborted session where absence must not show: no survivors, every band closed.

    The plain sum never ends this way.
    """
    return SumResult(survivors=(), sums={}, refused=dict.fromkeys(range(len(session.segments)), reason))
