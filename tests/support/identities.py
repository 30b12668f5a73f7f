"""Identities for small federations: one throw-away authority per roster, and each party's side of the secure sum."""

from functools import lru_cache

from protocols.identity.trust import ThrowawayAuthority
from protocols.interface import SecureSum
from protocols.session import ClientId
from rbla_secure.planning.modes import build_secure_sum
from rbla_secure.planning.plan import Plan

NOW = 1_800_000_000


@lru_cache(maxsize=64)
def _authority(ranks: tuple[tuple[ClientId, int], ...]) -> ThrowawayAuthority:
    return ThrowawayAuthority.create(dict(ranks), now=NOW)


def make_authority(plan: Plan) -> ThrowawayAuthority:
    """The authority of a plan's roster: the same for all parties, and for all plans with that roster."""
    return _authority(tuple(plan.ranks.items()))


def server_sum(plan: Plan) -> SecureSum:
    """The server's side of the plan's secure sum."""
    return (
        build_secure_sum(plan, make_authority(plan).view) if plan.needs_identities else build_secure_sum(plan)
    )


def client_sum(plan: Plan, name: ClientId) -> SecureSum:
    """A client's side, with its identity where the plan needs one."""
    if not plan.needs_identities:
        return build_secure_sum(plan)
    authority = make_authority(plan)
    return build_secure_sum(plan, authority.view, authority.identity(name))
