"""With how many survivors sums open, and what keeps a server from opening a sum over few clients among zeros."""

from protocols.masking.parameters import class_reveal_quorum, reveal_quorum
from rbla_secure.config import Config
from rbla_secure.config.choices import Rest, RowOrder
from rbla_secure.planning.modes import mode_of
from rbla_secure.planning.noise_settings import whoever_is_there
from rbla_secure.planning.quorums import (
    clients_of_ranks,
    masking_profile,
    members_per_round,
    row_quorum,
    threshold,
)


def band_quorum(config: Config, holders: int) -> int:
    """Surviving holders with which a band of so many holders opens, where there is one sum over all of them; 0 if nobody asks."""
    if whoever_is_there(config):
        return 0
    return _opening_quorum(config, holders, row_quorum(config))


def asked_threshold(config: Config) -> int:
    """Survivors below which a round ends without a result; 0 where every round has one."""
    return 0 if whoever_is_there(config) else threshold(config)


def opening_rule(config: Config) -> str:
    """With how many clients sums open, in words."""
    if whoever_is_there(config):
        return "no threshold and no quorum: every band opens over whoever is there"
    return f"threshold {threshold(config)}, at least {row_quorum(config)} holders per band"


def group_quorum(config: Config, size: int) -> int:
    """Survivors with which a group of so many clients opens."""
    return _opening_quorum(config, size, config.min_holders)


def class_quorum(config: Config) -> int:
    """Survivors of one rank with which a sum that others lie about may open; 0 where no class of view counts.

    Clients that drop the rows beyond their rank compute from different functions: one and the same adapter can be dead for
    some ranks and alive for others. So the clients of one rank form a class, and a sum opens only if of every class no
    member, or a quorum of them, is in it. Clients that fold these rows in compute from one function; a group lies inside one
    rank anyway; and a server that follows the protocol sends no such adapter.
    """
    if config.lora.rest is Rest.FOLDED or config.robustness.group_size:
        return 0
    return row_quorum(config) if mode_of(config).server_may_lie(config) else 0


def class_opening_quorum(config: Config, size: int) -> int:
    """Survivors of a class of so many clients that a client wants to see on its list, if it sees any."""
    quorum, profile, members = class_quorum(config), masking_profile(config), members_per_round(config)
    if not quorum or not mode_of(config).clients_count_survivors(config) or size < quorum:
        return quorum
    return class_reveal_quorum(
        class_members=size,
        quorum=quorum,
        members=members,
        threshold=threshold(config),
        corrupt=profile.corrupt(members),
    )


def tier_protection(config: Config) -> dict[str, str]:
    """By tier: what keeps a server from opening a sum in which its clients' updates are few among zeros.

    Such a server sends an adapter that is dead for some clients and alive for others.
    """
    found = {}
    for name, tier in sorted(config.tiers.items()):
        size = clients_of_ranks(config)[tier.rank]
        if mode_of(config).reads_uploads:
            found[name] = f"NOT protected: {config.secure_sum} shows every update"
        elif config.robustness.group_size:
            found[name] = "protected: summed with clients of its own rank alone"
        elif config.lora.rest is Rest.FOLDED:
            turns = config.training.rows is RowOrder.IN_TURNS
            found[name] = "protected: all clients " + (
                "compute from one function" if turns else "start a round from one function"
            )
        elif not class_quorum(config):
            found[name] = (
                f"NOT protected against a server that lies (masking.profile={config.masking.profile})"
            )
        else:
            least = class_opening_quorum(config, size)
            found[name] = f"protected: opens over none or {least} and more of the {size} clients of its rank"
    return found


def _opening_quorum(config: Config, holders: int, least: int) -> int:
    """What clients want to see on their survivor list before they open a sum that must be over `least`."""
    profile, members = masking_profile(config), members_per_round(config)
    if not mode_of(config).clients_count_survivors(config):
        return least
    return reveal_quorum(
        segment_members=holders,
        quorum=least,
        members=members,
        threshold=threshold(config),
        corrupt=profile.corrupt(members),
    )
