"""Every way to split what clients are told, searched: over how few inputs a hostile server can open a segment."""

import copy
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import product

import numpy as np

from protocols.errors import ProtocolError
from protocols.masking.messages import (
    RevealedShares,
)
from tests.protocols.masking.hostile import HostileServer, subsets

Answers = Mapping[int, Mapping[frozenset[int], RevealedShares]]


def answers_to_every_list(server: HostileServer) -> dict[int, dict[frozenset[int], RevealedShares]]:
    """What each honest client that has masked reveals for each list that it does not refuse, asked one by one."""
    answers: dict[int, dict[frozenset[int], RevealedShares]] = {}
    for position in sorted(server.uploads.keys() - set(server.corrupt)):
        answers[position] = {}
        for survivors in subsets(sorted(server.views[position])):
            asked = copy.copy(server.clients[position])
            try:
                reply = asked.reply(server.survivors(position, survivors).to_bytes())
            except ProtocolError:
                continue
            answers[position][survivors] = RevealedShares.from_bytes(reply)
    return answers


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """The best a server can do with one list per client.

    Args:
        both_kinds: Whether some split gave it both secrets of a client.
        fewest: The fewest holders, corrupt ones included, over whom a split opened the segment; None if none did.
        lists: By client: that split.
        opened: The honest members it opens the segment over.
    """

    both_kinds: bool
    fewest: int | None = None
    lists: Mapping[int, frozenset[int]] = field(default_factory=dict)
    opened: frozenset[int] = frozenset()


def best_split(server: HostileServer, index: int, participants: Collection[int], answers: Answers) -> Split:
    """Try every combination of one answer per honest client.

    More shares never tell less, so nobody who has an answer is left silent. The pairwise masks of two honest holders
    cancel in a sum over both, or fall with the mask key of either; so the one sum there is to open is that over the
    members whose self mask alone is known, and it opens if every other honest member's mask key is.
    """
    part = server.session.segments[index]
    holders = {server.session.position(member) for member in part.holders}
    members = {server.session.position(member) for member in part.members}
    owners = sorted((members & set(participants)) - set(server.corrupt))
    if not owners:
        return Split(both_kinds=False)
    holding = np.array([owner in holders for owner in owners])
    needed = server.terms.share_threshold - len(set(server.corrupt) & set(participants))
    dropped = np.zeros((1, len(owners)), dtype=np.int8)
    kept = np.zeros((1, len(owners)), dtype=np.int8)
    chosen: list[list[frozenset[int]]] = []
    for answered in answers.values():
        patterns: dict[tuple[tuple[bool, ...], tuple[bool, ...]], frozenset[int]] = {}
        for survivors, message in answered.items():
            gone = tuple((owner, index) in message.mask_key_shares for owner in owners)
            stays = tuple((owner, index) in message.self_mask_shares for owner in owners)
            patterns.setdefault((gone, stays), survivors)
        if not patterns:
            continue
        chosen.append(list(patterns.values()))
        # The newest client's choice varies fastest.
        dropped = _each_with_each(dropped, [gone for gone, _ in patterns])
        kept = _each_with_each(kept, [stays for _, stays in patterns])
    keys, seeds = dropped >= needed, kept >= needed
    inside = seeds & ~keys
    opens = (seeds | keys).all(axis=1) & (inside & holding).any(axis=1)
    both = bool((seeds & keys).any())
    if not opens.any():
        return Split(both_kinds=both)
    sizes = np.where(opens, (inside & holding).sum(axis=1), len(owners) + 1)
    best = int(sizes.argmin())
    asked = [position for position, answered in answers.items() if answered]
    places = np.unravel_index(best, [len(options) for options in chosen])
    return Split(
        both_kinds=both,
        fewest=int(sizes[best]) + len(holders.intersection(server.corrupt)),
        lists={p: options[int(at)] for p, options, at in zip(asked, chosen, places, strict=True)},
        opened=frozenset(owner for owner, used in zip(owners, inside[best], strict=True) if used),
    )


def _each_with_each(counts: np.ndarray, options: list[tuple[bool, ...]]) -> np.ndarray:
    added = np.array(options, dtype=np.int8)
    return (counts[:, None, :] + added[None, :, :]).reshape(-1, counts.shape[1])


def fewest_opened(server: HostileServer, index: int, answers: Answers) -> int | None:
    """The fewest holders, corrupt ones included, over whom any choice of answers opens a segment, whatever the views.

    Slower than :func:`best_split`, which rests on one view: here every set of honest members is tried against every
    choice, mask by mask.
    """
    part = server.session.segments[index]
    holders = {server.session.position(member) for member in part.holders}
    members = {server.session.position(member) for member in part.members}
    honest = sorted((members & server.uploads.keys()) - set(server.corrupt))
    needed = server.terms.share_threshold - len(server.corrupt)
    patterns = [
        {
            (
                frozenset(p for p in honest if (p, index) in message.mask_key_shares),
                frozenset(p for p in honest if (p, index) in message.self_mask_shares),
            )
            for message in answered.values()
        }
        for answered in answers.values()
        if answered
    ]
    known = set()
    for chosen in product(*patterns) if len(patterns) >= needed else ():
        keys = frozenset(p for p in honest if sum(p in gone for gone, _ in chosen) >= needed)
        seeds = frozenset(p for p in honest if sum(p in stays for _, stays in chosen) >= needed)
        known.add((keys | set(server.corrupt), seeds))
    found = [
        len(inside & holders) + len(holders.intersection(server.corrupt))
        for keys, seeds in known
        for inside in subsets(sorted(seeds))
        if inside & holders and _all_masks_fall(server.views, members, inside, keys)
    ]
    return min(found, default=None)


def _all_masks_fall(
    views: Mapping[int, frozenset[int]], members: set[int], inside: frozenset[int], keys: frozenset[int]
) -> bool:
    masked = ((p, peer) for p in inside for peer in (views[p] & members) - {p})
    return all(p in keys or peer in keys or (peer in inside and p in views[peer]) for p, peer in masked)


def mount(server: HostileServer, split: Split, answers: Answers) -> HostileServer:
    """The server after it has really got the answers of a split."""
    after = server.fork()
    for position, survivors in split.lists.items():
        after.seen.keep(answers[position][survivors])
    return after
