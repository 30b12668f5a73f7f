"""The change that each member sends, crafted from the coalition's knowledge: one function per attack."""

from collections.abc import Callable

import numpy as np

from protocols.session import ClientId
from rbla_secure.errors import UpdateError
from rbla_secure.evaluation.poisoning import crafted, lora_rows
from rbla_secure.evaluation.poisoning.adaptive import Accepts, disguise
from rbla_secure.evaluation.poisoning.knowledge import Knowledge
from rbla_secure.evaluation.poisoning.registry import AttackName
from rbla_secure.lora.update import UpdateRows
from rbla_secure.seeding import derive_seed

Sent = dict[ClientId, UpdateRows]


def craft(
    attack: AttackName,
    knowledge: Knowledge,
    accepts: Accepts | None,
    noted: Callable[[float], None] = lambda _: None,
) -> Sent:
    """Return every member's change in a round, at its rank or that of the known adapter.

    The adaptive attack passes its strength to `noted`.

    Raises:
        UpdateError: The attack does not craft changes, or the adaptive attack lacks a rule.
    """
    if attack is AttackName.ADAPTIVE:
        return _adaptive(knowledge, accepts, noted)
    if attack not in _CRAFTS:
        raise UpdateError(f"attack={attack} crafts no change: it is mounted by examples")
    return _CRAFTS[attack](knowledge)


def _sign_flip(knowledge: Knowledge) -> Sent:
    return {client: crafted.sign_flip(change) for client, change in knowledge.honest().items()}


def _gaussian(knowledge: Knowledge) -> Sent:
    std = knowledge.means.strength.gaussian
    return {
        client: crafted.gaussian(
            knowledge.adapter_of(client).rows.shape, std=std, seed=_own_seed(knowledge, client)
        )
        for client in knowledge.means.members
    }


def _inner_product(knowledge: Knowledge) -> Sent:
    epsilon = knowledge.means.strength.inner_product
    return _of_population(
        knowledge, lambda population, rank: crafted.inner_product(population, rank, epsilon=epsilon)
    )


def _little_is_enough(knowledge: Knowledge) -> Sent:
    means = knowledge.means
    z = crafted.little_is_enough_z(means.federation.clients, len(means.members))
    return _of_population(knowledge, lambda population, rank: crafted.little_is_enough(population, rank, z=z))


def _min_max(knowledge: Knowledge) -> Sent:
    return _of_population(knowledge, crafted.min_max)


def _mimic(knowledge: Knowledge) -> Sent:
    honest = knowledge.honest()
    population = [*honest.values(), *knowledge.granted().values()]
    return {client: crafted.mimic(change, population) for client, change in honest.items()}


def _free_rider(knowledge: Knowledge) -> Sent:
    noise = knowledge.means.strength.free_rider
    step = np.zeros(knowledge.broadcast.rows.shape) if knowledge.step is None else knowledge.step
    return {
        client: crafted.free_ride(
            step[: knowledge.adapter_of(client).rank], noise=noise, seed=_own_seed(knowledge, client)
        )
        for client in knowledge.means.members
    }


def _scaling(knowledge: Knowledge) -> Sent:
    n, f = knowledge.means.federation.clients, len(knowledge.means.members)
    return {
        client: crafted.scaled(change, clients=n, attackers=f)
        for client, change in knowledge.backdoor().items()
    }


def _rank_inflation(knowledge: Knowledge) -> Sent:
    norm = knowledge.means.federation.clip_norm
    return {client: crafted.filled(change, norm) for client, change in knowledge.backdoor().items()}


def _sole_owner(knowledge: Knowledge) -> Sent:
    known = knowledge.means.federation
    return {
        client: lora_rows.captured(change, start=known.captured_from, clip_norm=known.clip_norm)
        for client, change in knowledge.captured().items()
    }


def _row_stuffing(knowledge: Knowledge) -> Sent:
    norm = knowledge.means.federation.clip_norm
    honest, backdoor = knowledge.honest(), knowledge.backdoor()
    return {client: lora_rows.stuffed(honest[client], backdoor[client], clip_norm=norm) for client in honest}


def _adaptive(knowledge: Knowledge, accepts: Accepts | None, noted: Callable[[float], None]) -> Sent:
    if accepts is None:
        raise UpdateError("the adaptive attack needs the rule it adapts to")
    found = disguise(
        knowledge.honest(),
        knowledge.backdoor(),
        stand_ins=knowledge.stand_ins(),
        step=knowledge.step,
        accepts=accepts,
        clip_norm=knowledge.means.federation.clip_norm,
    )
    noted(found.strength)
    return dict(found.changes)


_CRAFTS: dict[AttackName, Callable[[Knowledge], Sent]] = {
    AttackName.SIGN_FLIP: _sign_flip,
    AttackName.GAUSSIAN: _gaussian,
    AttackName.IPM: _inner_product,
    AttackName.ALIE: _little_is_enough,
    AttackName.MIMIC: _mimic,
    AttackName.MIN_MAX: _min_max,
    AttackName.SCALING: _scaling,
    AttackName.FREE_RIDER: _free_rider,
    AttackName.RANK_INFLATION: _rank_inflation,
    AttackName.SOLE_OWNER: _sole_owner,
    AttackName.ROW_STUFFING: _row_stuffing,
}


def _of_population(knowledge: Knowledge, formula: Callable[[list[UpdateRows], int], UpdateRows]) -> Sent:
    """Return changes that depend on the population and the rank only, so members of one rank send the same."""
    population = [*knowledge.honest().values(), *knowledge.granted().values()]
    ranks = {client: knowledge.adapter_of(client).rank for client in knowledge.means.members}
    by_rank = {rank: formula(population, rank) for rank in set(ranks.values())}
    return {client: by_rank[rank] for client, rank in ranks.items()}


def _own_seed(knowledge: Knowledge, client: ClientId) -> int:
    return derive_seed(knowledge.seed, "craft", client)
