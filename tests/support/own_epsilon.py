"""The epsilons of a run, worked out of its metrics alone: shares no code with what it is held against.

The law: of a band that opens, each survivor who holds it has left a share of z^2 / m, with m the band's holders in a cohort less
the colluders; where T missing ones are made good and D are missing, one of z^2 / (m - min(D, T)). An observer faces the shares that
it does not know, in the band where they are least. One round is a Gaussian mechanism, rounds of one client add up as 1 / z^2.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from scipy import optimize, stats

RANKS = {"phone": 2, "laptop": 4, "workstation": 8, "datacenter": 16}
QUORUM = 3


def rank_of(client: str) -> int:
    """By the name of its tier."""
    return RANKS[client.rsplit("-", 1)[0]]


def of_gaussian(mu: float, delta: float = 1e-5) -> float:
    """Epsilon of a Gaussian mechanism of sensitivity mu and noise 1 (Balle and Wang 2018, Theorem 8)."""
    if math.isinf(mu):
        return math.inf

    def excess(epsilon: float) -> float:
        left, right = stats.norm.logcdf(mu / 2 - epsilon / mu), stats.norm.logcdf(-mu / 2 - epsilon / mu)
        return math.exp(left) - math.exp(epsilon + right) - delta

    return float(optimize.brentq(excess, 0.0, 10 + 20 * mu + mu * mu)) if mu else 0.0


def faced(
    record: Mapping[str, Any],
    z: float,
    *,
    colluders: int,
    known: int,
    made_good: float = 0.0,
    padded: bool = False,
) -> float:
    """The noise multiplier of one round of distributed noise; infinite where nothing opened.

    Args:
        record: Its line in metrics.jsonl.
        z: The target.
        colluders: That shares provide for.
        known: Of how many survivors of a band, or of a group, the observer knows the noise.
        made_good: The share of a band's uploaders whose absence is made good.
        padded: Whether everybody uploads every band, and adds noise to it.
    """
    there = set(record["survivors"])
    holders = {rank: [c for c in record["cohort"] if rank_of(c) >= rank] for rank in RANKS.values()}
    uploaders = {rank: record["cohort"] if padded else members for rank, members in holders.items()}
    left = {rank: len(members) - colluders for rank, members in uploaders.items()}
    shares = []
    for members in record["groups"].values():
        if len(there.intersection(members)) >= QUORUM:
            unknown = max(0, len(there.intersection(members)) - known)
            shares += [unknown / left[rank] for rank in RANKS.values() if rank <= rank_of(members[0])]
    for rank, members in {} if record["groups"] else holders.items():
        if len(there.intersection(members)) >= QUORUM:
            count = len(uploaders[rank])
            present = len(there.intersection(uploaders[rank]))
            made_up = min(count - present, math.floor(made_good * count))
            shares.append(max(0, present - known) / (left[rank] - made_up))
    return z * math.sqrt(min(shares)) if shares else math.inf


def composed(rounds: Sequence[tuple[Collection[str], float]], delta: float = 1e-5) -> float:
    """Epsilon of the client that spent most, of who was in each round and the multiplier faced there."""
    clients = {client for members, _ in rounds for client in members}

    def mu(client: str) -> float:
        found = [multiplier for members, multiplier in rounds if client in members]
        if 0.0 in found:
            return math.inf
        return math.sqrt(math.fsum(1 / multiplier**2 for multiplier in found))

    return max((of_gaussian(mu(client), delta) for client in clients), default=0.0)
