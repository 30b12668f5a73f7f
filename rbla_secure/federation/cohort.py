"""Who takes part in a round: drawn by rank tier, so that every band has its holders in every round.

A tier-stratified draw is no Poisson sample: it claims no privacy amplification.
"""

from collections.abc import Mapping

import numpy as np

from protocols.session import ClientId
from rbla_secure.config import TierConfig
from rbla_secure.seeding import derive_seed


def roster(tiers: Mapping[str, TierConfig]) -> dict[ClientId, int]:
    """Every enrolled client and its rank, in increasing order of names: ``tier-01``, ``tier-02``, ..."""
    ranks = {client: tier.rank for name, tier in tiers.items() for client in tier_clients(name, tier)}
    return dict(sorted(ranks.items()))


def tier_clients(name: str, tier: TierConfig) -> list[ClientId]:
    """The clients of one tier."""
    width = max(2, len(str(tier.clients)))
    return [f"{name}-{number:0{width}d}" for number in range(1, tier.clients + 1)]


def cohort_size(tier: TierConfig) -> int:
    """How many clients of a tier take part in a round."""
    return tier.cohort or tier.clients


def sample_cohort(tiers: Mapping[str, TierConfig], *, seed: int, round_number: int) -> tuple[ClientId, ...]:
    """The clients of one round, increasing: from each tier its cohort, uniformly without replacement."""
    chosen: list[ClientId] = []
    for name, tier in sorted(tiers.items()):
        generator = np.random.default_rng(derive_seed(seed, "cohort", round_number, name))
        chosen += generator.choice(tier_clients(name, tier), size=cohort_size(tier), replace=False).tolist()
    return tuple(sorted(chosen))
