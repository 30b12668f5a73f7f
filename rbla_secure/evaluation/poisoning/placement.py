"""Choice of the attackers: drawn tier by tier, or enrolled where an attack on the rank rows needs them.

A placement changes tiers and nothing else. It keeps the number of clients, so that the data can be split the same way.

Ranks are enrolled, not claimed, so attacks by rank assume an enrolment that did not check its clients' claims.
"""

from dataclasses import dataclass

import numpy as np

from protocols.session import ClientId
from rbla_secure.config import Config, TierConfig
from rbla_secure.errors import PlanError
from rbla_secure.evaluation.poisoning.registry import AttackName
from rbla_secure.planning.cohort import roster, tier_clients
from rbla_secure.seeding import derive_seed

SOLE_OWNER_TIER = "sole-owner"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Placement:
    """A roster with attackers.

    Args:
        config: The configuration of the attacked run; its tiers may differ from those of the unattacked one.
        attackers: Ids of the attackers, in increasing order. Empty where there is no attack.
        captured_from: The largest rank of an honest client: only attackers hold rows from here on.
    """

    config: Config
    attackers: tuple[ClientId, ...]
    captured_from: int


def placement(attack: AttackName, config: Config, *, share: float, seed: int) -> Placement:
    """Place attackers in the roster of a configuration.

    Rank inflation: the tier of the largest rank holds all attackers and nobody else; its honest clients move to the
    next one, or clients of the tiers below make room. Sole owner: attackers, drawn from all tiers, get a tier of their
    own of twice the largest rank. Every other attack: the same share of each tier, drawn at random.

    Args:
        attack: The attack; `AttackName.NONE` places no attackers.
        config: Configuration of the unattacked run.
        share: Share of all clients that attack, in (0, 1/2); at least one client attacks.
        seed: Seed of the draw.

    Raises:
        PlanError: The share is out of range, or rank inflation has only one tier.
    """
    if attack is AttackName.NONE:
        return _placement(config, ())
    if not 0 < share < 0.5:  # noqa: PLR2004 - half of all clients have no honest majority to attack
        raise PlanError(f"share={share} of attackers must lie above 0 and below 1/2")
    count = max(1, round(share * sum(tier.clients for tier in config.tiers.values())))
    if attack is AttackName.RANK_INFLATION:
        return _in_the_top_tier(config, count)
    drawn = _by_tier(config.tiers, count, seed=seed)
    if attack is AttackName.SOLE_OWNER:
        return _in_a_new_tier(config, drawn)
    attackers = [
        client
        for name, tier in config.tiers.items()
        for client in _drawn(tier_clients(name, tier), drawn[name], seed=derive_seed(seed, "attackers", name))
    ]
    return _placement(config, attackers)


def claimed_examples(attack: AttackName, config: Config, examples: int) -> int:
    """Return how many examples an attacker claims: under weight inflation, the number with the largest weight.

    It has no effect where weights are uniform.
    """
    return max(examples, config.examples_cap) if attack is AttackName.WEIGHT_INFLATION else examples


def _placement(config: Config, attackers: "list[ClientId] | tuple[ClientId, ...]") -> Placement:
    honest = [rank for client, rank in roster(config.tiers).items() if client not in set(attackers)]
    return Placement(config=config, attackers=tuple(sorted(attackers)), captured_from=max(honest))


def _in_the_top_tier(config: Config, count: int) -> Placement:
    order = sorted(config.tiers, key=lambda name: config.tiers[name].rank)
    top, below = order[-1], order[:-1]
    if not below or config.tiers[below[-1]].rank == config.tiers[top].rank:
        raise PlanError("rank inflation needs a tier of the largest rank and one below it")
    counts = {name: config.tiers[name].clients for name in below}
    counts[below[-1]] += max(0, config.tiers[top].clients - count)
    missing = max(0, count - config.tiers[top].clients)
    counts = _taken(counts, _shares(counts, missing))
    tiers = _resized(config.tiers, {**counts, top: count})
    return _placement(_with(config, tiers), tier_clients(top, tiers[top]))


def _in_a_new_tier(config: Config, drawn: dict[str, int]) -> Placement:
    counts = _taken({name: tier.clients for name, tier in config.tiers.items()}, drawn)
    largest = max(tier.rank for tier in config.tiers.values())
    tiers = _resized(config.tiers, counts)
    own = TierConfig(rank=2 * largest, clients=sum(drawn.values()), cohort=0)
    tiers[SOLE_OWNER_TIER] = own
    return _placement(_with(config, tiers), tier_clients(SOLE_OWNER_TIER, own))


def _by_tier(tiers: dict[str, TierConfig], count: int, *, seed: int) -> dict[str, int]:
    """Return how many attackers each tier gets. Which of several equal remainders is rounded up is drawn."""
    generator = np.random.default_rng(derive_seed(seed, "tiers"))
    names = generator.permutation(sorted(tiers)).tolist()
    return _shares({name: tiers[name].clients for name in names}, count)


def _shares(counts: dict[str, int], count: int) -> dict[str, int]:
    """Split a number in proportion to the counts, by largest remainders; the first of equal ones wins."""
    total = sum(counts.values())
    exact = {name: count * size / total for name, size in counts.items()}
    found = {name: int(value) for name, value in exact.items()}
    left = count - sum(found.values())
    for name in sorted(exact, key=lambda name: found[name] - exact[name])[:left]:
        found[name] += 1
    return found


def _drawn(clients: list[ClientId], count: int, *, seed: int) -> list[ClientId]:
    chosen = np.random.default_rng(seed).choice(clients, size=count, replace=False)
    return [str(client) for client in chosen]


def _taken(counts: dict[str, int], taken: dict[str, int]) -> dict[str, int]:
    return {name: count - taken[name] for name, count in counts.items()}


def _resized(tiers: dict[str, TierConfig], counts: dict[str, int]) -> dict[str, TierConfig]:
    """Return tiers of other sizes; a cohort keeps its share of its tier, and a tier without clients is removed."""
    return {
        name: tier.model_copy(update={"clients": counts[name], "cohort": _cohort(tier, counts[name])})
        for name, tier in tiers.items()
        if counts[name]
    }


def _cohort(tier: TierConfig, clients: int) -> int:
    return max(1, round(tier.cohort * clients / tier.clients)) if tier.cohort else 0


def _with(config: Config, tiers: dict[str, TierConfig]) -> Config:
    return config.model_copy(update={"tiers": tiers})
