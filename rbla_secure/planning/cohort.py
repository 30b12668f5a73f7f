"""The cohort of a round: drawn by rank tier, so that every band has its holders in every round.

A tier-stratified draw is no Poisson sample: it claims no privacy amplification. Where noise is to cancel over rounds,
clients take part in turns instead, as rarely as their tier allows.
"""

from collections.abc import Mapping

import numpy as np

from protocols.session import ClientId
from rbla_secure.config import Config, TierConfig
from rbla_secure.privacy.noise import noise_kind
from rbla_secure.seeding import derive_seed


def roster(tiers: Mapping[str, TierConfig]) -> dict[ClientId, int]:
    """Return every enrolled client and its rank, in increasing order of names: ``tier-01``, ``tier-02``, ..."""
    ranks = {client: tier.rank for name, tier in tiers.items() for client in tier_clients(name, tier)}
    return dict(sorted(ranks.items()))


def tier_clients(name: str, tier: TierConfig) -> list[ClientId]:
    """Return the clients of one tier."""
    width = max(2, len(str(tier.clients)))
    return [f"{name}-{number:0{width}d}" for number in range(1, tier.clients + 1)]


def cohort_size(tier: TierConfig) -> int:
    """Return how many clients of a tier take part in a round."""
    return tier.cohort or tier.clients


def sample_cohort(tiers: Mapping[str, TierConfig], *, seed: int, round_number: int) -> tuple[ClientId, ...]:
    """Return the clients of one round, increasing: each tier's cohort, drawn uniformly without replacement."""
    chosen: list[ClientId] = []
    for name, tier in sorted(tiers.items()):
        generator = np.random.default_rng(derive_seed(seed, "cohort", round_number, name))
        chosen += generator.choice(tier_clients(name, tier), size=cohort_size(tier), replace=False).tolist()
    return tuple(sorted(chosen))


def scheduled_cohort(
    tiers: Mapping[str, TierConfig], *, seed: int, round_number: int
) -> tuple[ClientId, ...]:
    """Return the clients of one round, increasing: each tier's cohorts take turns through a circular list of the tier.

    The list is shuffled by the seed. A client stands in it every `clients` places, and a round takes `cohort` places, so that its
    rounds are at least floor(clients / cohort) apart (:attr:`TierConfig.rounds_apart`), and numbers of rounds differ by one at most.
    """
    chosen: list[ClientId] = []
    for name, tier in sorted(tiers.items()):
        generator = np.random.default_rng(derive_seed(seed, "schedule", name))
        order = generator.permutation(tier_clients(name, tier)).tolist()
        first = (round_number - 1) * cohort_size(tier)
        chosen += [order[place % len(order)] for place in range(first, first + cohort_size(tier))]
    return tuple(sorted(chosen))


def planned_cohort(config: Config, round_number: int) -> tuple[ClientId, ...]:
    """Return the clients of one round, increasing, by the configured draw: everybody can compute them."""
    if noise_kind(config.privacy.mechanism).takes_turns:
        return scheduled_cohort(config.tiers, seed=config.seed, round_number=round_number)
    return sample_cohort(config.tiers, seed=config.seed, round_number=round_number)
