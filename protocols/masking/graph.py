"""The random regular graph of neighbours, the same for all who derive it from the same nonces.

    seed = SHA-256(context, label, all nonces)  ->  a random order of the members, closed to a ring
    neighbours of a member = the degree/2 members before it and the degree/2 after it in the ring

A Harary graph on a random permutation (Bell et al. 2020, section 3). It stays connected unless degree/2 ring neighbours
are missing in two places.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import count, pairwise
from typing import Final

from protocols.errors import RosterError, ThresholdError

_SEED_LABEL: Final = b"rbla-secure graph seed\x00"
_ORDER_LABEL: Final = b"rbla-secure graph order\x00"
_WORD_BYTES: Final = 4
_WORDS: Final = 2 ** (8 * _WORD_BYTES)


def graph_seed(context: bytes, nonces: Mapping[int, bytes], label: str) -> bytes:
    """Return the 32 bytes that one graph is derived from: SHA-256 of context, label and all nonces, in order.

    No party fixes the graph alone: one honest nonce in the list makes it unpredictable until that nonce is known.
    But the server knows all nonces before it publishes the list, and may try lists until one gives a graph it likes:

    - By omitting at most d of n advertised members it has sum_{i <= d} C(n, i) <= 2^(n h(d/n)) graphs to choose from,
      with h the binary entropy in bits and d <= n/2: about 2^90 for n = 200, d = 20. Its chance of one bad graph is at
      most that many times 2^-security_bits: omission alone voids the bound for a server with the time to try.
    - A corrupt member that advertises last tries as many nonces as it can hash, so the number has no bound but effort:
      2^w trials leave 2^(w - security_bits).

    So a sparse graph is claimed against a server that follows the protocol; against one that does not, only with
    everyone sharing with everyone, where there is nothing to choose.

    Args:
        context: Digest that the graph is bound to.
        nonces: By position: the nonce that each member has advertised.
        label: Label of the graph within the session.
    """
    digest = hashlib.sha256(_SEED_LABEL)
    for part in (context, label.encode()):
        digest.update(len(part).to_bytes(4, "big") + part)
    for position in sorted(nonces):
        nonce = nonces[position]
        digest.update(position.to_bytes(4, "big") + len(nonce).to_bytes(4, "big") + nonce)
    return digest.digest()


def neighbours(members: Sequence[int], degree: int, seed: bytes) -> dict[int, frozenset[int]]:
    """Return everyone's neighbours in the graph of a seed: a symmetric, connected, regular graph without loops.

    Args:
        members: Positions, increasing; any subset of the session's.
        degree: Neighbours of every member: len(members) - 1 for the complete graph, or even, from 2 below it.
        seed: The seed from :func:`graph_seed`; public.

    Raises:
        RosterError: The members are not in increasing order, each once.
        ThresholdError: There is no such graph.
    """
    if any(a >= b for a, b in pairwise(members)):
        raise RosterError("the members of a graph must be in increasing order, each once")
    if degree == len(members) - 1:
        return {member: frozenset(members) - {member} for member in members}
    if degree % 2 or not 0 < degree < len(members):
        raise ThresholdError(
            f"degree={degree} must be even and lie in 2..{len(members) - 1}, or be {len(members) - 1}, "
            f"among {len(members)} members"
        )
    ring = _shuffled(members, seed)
    reach = [*range(-(degree // 2), 0), *range(1, degree // 2 + 1)]
    return {
        member: frozenset(ring[(place + step) % len(ring)] for step in reach)
        for place, member in enumerate(ring)
    }


def _shuffled(members: Sequence[int], seed: bytes) -> list[int]:
    """Return a uniformly random order (Fisher and Yates; Knuth, TAOCP 2, section 3.4.2, algorithm P)."""
    order, words = list(members), _words(seed)
    for last in range(len(order) - 1, 0, -1):
        chosen = _below(last + 1, words)
        order[last], order[chosen] = order[chosen], order[last]
    return order


def _below(bound: int, words: Iterator[int]) -> int:
    """Return a uniform number in 0..bound-1; words from the incomplete last stretch of `bound` are skipped."""
    fair = _WORDS - _WORDS % bound
    return next(word for word in words if word < fair) % bound


def _words(seed: bytes) -> Iterator[int]:
    """Yield uniform 32-bit words without end: SHA-256 of the seed and a counter."""
    for number in count():
        block = hashlib.sha256(_ORDER_LABEL + seed + number.to_bytes(8, "big")).digest()
        for start in range(0, len(block), _WORD_BYTES):
            yield int.from_bytes(block[start : start + _WORD_BYTES], "big")
