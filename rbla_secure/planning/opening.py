"""Quorums with which sums open, and the protection against a server that opens a sum of few clients among zeros."""

from protocols.masking.parameters import class_reveal_quorum, reveal_quorum
from rbla_secure.config.choices import Rest, RowOrder
from rbla_secure.planning.promises import Promises
from rbla_secure.robustness.registry import least_holders


def band_quorum(promises: Promises, holders: int) -> int:
    """Return the surviving holders with which a band of `holders` opens in one sum over all; 0 without a quorum."""
    if promises.whoever_is_there:
        return 0
    return _opening_quorum(promises, holders, promises.row_quorum)


def largest_f(promises: Promises, voters: int) -> int | None:
    """Return the most attackers for which the plan's filter opens a band of `voters` votes; None if it never does."""
    wanted, least = promises.config.robustness, promises.config.min_holders

    def needed(f: int) -> int:
        return least_holders(wanted.filter, f=f, privacy_quorum=least, pre_step=wanted.pre_step)

    return max((f for f in range(voters + 1) if needed(f) <= voters), default=None)


def opening_rule(promises: Promises) -> str:
    """Return in words with how many clients sums open."""
    if promises.whoever_is_there:
        return "no threshold and no quorum: every band opens over whoever is there"
    return f"threshold {promises.threshold}, at least {promises.row_quorum} holders per band"


def group_quorum(promises: Promises, size: int) -> int:
    """Return the number of survivors with which a group of `size` clients opens."""
    return _opening_quorum(promises, size, promises.config.min_holders)


def class_opening_quorum(promises: Promises, size: int) -> int:
    """Return the least survivors of a class of `size` clients that a client accepts on its list, if it sees any."""
    quorum, members = promises.class_quorum, promises.members
    if not quorum or not promises.mode.clients_count_survivors(promises.config) or size < quorum:
        return quorum
    return class_reveal_quorum(
        class_members=size,
        quorum=quorum,
        members=members,
        threshold=promises.threshold,
        corrupt=promises.profile.corrupt(members),
    )


def tier_protection(promises: Promises) -> dict[str, str]:
    """Return in words, by tier, its protection from a sum in which its clients' updates are few among zeros.

    A server that attacks this way sends an adapter that is dead for some clients and alive for others.
    """
    config, found = promises.config, {}
    for name, tier in sorted(config.tiers.items()):
        size = promises.clients_of_ranks[tier.rank]
        if promises.mode.reads_uploads:
            found[name] = f"NOT protected: {config.secure_sum} shows every update"
        elif config.robustness.group_size:
            found[name] = "protected: summed with clients of its own rank alone"
        elif config.lora.rest is Rest.FOLDED:
            turns = config.training.rows is RowOrder.IN_TURNS
            found[name] = "protected: all clients " + (
                "compute from one function" if turns else "start a round from one function"
            )
        elif not promises.class_quorum:
            found[name] = (
                f"NOT protected against a server that lies (masking.profile={config.masking.profile})"
            )
        else:
            least = class_opening_quorum(promises, size)
            found[name] = f"protected: opens over none or {least} and more of the {size} clients of its rank"
    return found


def _opening_quorum(promises: Promises, holders: int, least: int) -> int:
    """Return the least survivors that clients accept before they open a sum that must cover at least `least`."""
    members = promises.members
    if not promises.mode.clients_count_survivors(promises.config):
        return least
    return reveal_quorum(
        segment_members=holders,
        quorum=least,
        members=members,
        threshold=promises.threshold,
        corrupt=promises.profile.corrupt(members),
    )
