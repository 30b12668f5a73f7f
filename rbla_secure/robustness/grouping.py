"""Groups for the masked mode, where the server sees sums only: which clients are in one, and how many it takes.

Each group is a secure sum of its own, and a robust rule works across the group averages. One attacker spoils the whole
average of its group, so f attackers spoil at most f groups, each in another one in the worst case. The median of a band's groups
stands as long as those are fewer than half:

    2 f < (number of groups that hold the band)

which is what is checked. With n_b holders in groups of exactly g it reads f g < n_b / 2; where sizes differ the count of groups is the
sound one, as long as every group has one vote, whatever its size. Attackers may all hold the thinnest band, so every
band must meet it alone.

Groups stay inside a rank tier: in a mixed group one client alone may hold the highest rows, and the group's sum is then
its rows in the clear. Members are drawn by public randomness that is fixed after the roster, so that nobody chooses its
group. The server sees sums over g instead of n clients: with distributed noise its multiplier is that of the
whole sum times sqrt(g / n).
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rbla_secure.errors import RobustnessError
from rbla_secure.lora.bands import Band

SEED_BYTES = 32
_LABEL = b"rbla-secure groups v1\x00"
_DIGEST_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Clients of one tier whose updates the server sees as one sum.

    Args:
        name: ``rank-008-group-001``: increasing with rank and number.
        rank: Enrolled rank of all its members.
        members: In increasing order.
    """

    name: str
    rank: int
    members: tuple[str, ...]


def draw_groups(ranks: Mapping[str, int], *, group_size: int, seed: bytes) -> tuple[Group, ...]:
    """Random groups of at least `group_size` inside each tier; sizes in a tier differ by one at most.

    A tier's clients are put in the order of SHAKE-256(label || seed || name) and dealt in turn to floor(n / g) groups: any
    language can recompute it, and no draw is biased. A leftover enlarges groups and never makes one of its own.

    Args:
        ranks: Enrolled rank by client.
        group_size: g, the fewest members.
        seed: 32 public bytes, fixed after the roster and fresh in every round.

    Raises:
        RobustnessError: A tier has fewer clients than a group, or the seed another length.
    """
    if group_size < 1:
        raise RobustnessError(f"group_size={group_size} must be at least 1")
    if len(seed) != SEED_BYTES:
        raise RobustnessError(f"seed of {len(seed)} bytes must have {SEED_BYTES}")
    groups: list[Group] = []
    for rank in sorted(set(ranks.values())):
        tier = sorted(client for client, held in ranks.items() if held == rank)
        count = len(group_sizes(len(tier), group_size))
        if not count:
            raise RobustnessError(
                f"the tier of rank {rank} has {len(tier)} clients, fewer than group_size={group_size}"
            )
        drawn = sorted(tier, key=lambda client: (_digest(seed, client), client))
        groups += [
            Group(
                name=f"rank-{rank:03d}-group-{i + 1:03d}", rank=rank, members=tuple(sorted(drawn[i::count]))
            )
            for i in range(count)
        ]
    return tuple(groups)


def group_sizes(clients: int, group_size: int) -> tuple[int, ...]:
    """The sizes of the groups of a tier of so many clients, largest first; none where they are too few for one."""
    count = clients // group_size
    return tuple(len(range(i, clients, count)) for i in range(count))


def weak_bands(groups: Sequence[Group], bands: Sequence[Band], *, f: int) -> tuple[str, ...]:
    """The bands in which f attackers could spoil half of the groups or more, in words with the numbers."""
    found = []
    for band in bands:
        sizes = [len(group.members) for group in groups if group.rank >= band.stop]
        if 2 * f >= len(sizes):
            found.append(
                f"{band}: {sum(sizes)} holders in {len(sizes)} groups of up to {max(sizes, default=0)}; f={f} attackers "
                f"can be in {f} of them, and 2 * {f} < {len(sizes)} does not hold"
            )
    return tuple(found)


def check_groups(groups: Sequence[Group], bands: Sequence[Band], *, f: int, privacy_quorum: int) -> None:
    """Refuse groups that keep neither promise: a sound median in every band, and no sum over too few.

    Raises:
        RobustnessError: A band has too few groups against f, a group fewer members than `privacy_quorum`, or f is
            negative. The message has the numbers.
    """
    if f < 0:
        raise RobustnessError(f"f={f} must not be negative")
    for group in groups:
        if len(group.members) < privacy_quorum:
            raise RobustnessError(
                f"{group.name} has {len(group.members)} members, privacy_quorum={privacy_quorum} needed"
            )
    weak = weak_bands(groups, bands, f=f)
    if weak:
        raise RobustnessError(f"groups do not stand against f={f}: {'; '.join(weak)}")


def largest_group_size(holders: int, f: int) -> int:
    """The largest g with 2 f < floor(holders / g); 0 if there is none. With f = 0 all holders are one group."""
    return holders // (2 * f + 1)


def _digest(seed: bytes, client: str) -> bytes:
    return hashlib.shake_256(_LABEL + seed + client.encode()).digest(_DIGEST_BYTES)
