"""Corrupt clients count in both reveal quorums: in sessions of ten and twenty, lists that would pass without them are refused.

Rounding hides a colluder in smaller sessions, which are searched exhaustively elsewhere (test_split_views,
test_class_quorum). Here the lists are worked out by hand, and given to real clients: once under a quorum that leaves the
colluders out, where they open what they must not, and once under ours.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pytest

from protocols.errors import QuorumError
from protocols.identity.trust import ThrowawayAuthority
from protocols.interface import SegmentInput
from protocols.masking.parameters import class_reveal_quorum, reveal_quorum
from protocols.masking.terms import MaskingTerms
from protocols.profiles import ONE_ANSWER
from tests.protocols.masking import hostile as h

# Twenty members; those at the positions of the class have another rank. Sessions of ten have its first ten alone.
CLASS = (1, 2, 3, 4, 5, 20)
RANKS = tuple(8 if position in CLASS else 2 for position in range(1, 21))
ENROLLED = ThrowawayAuthority.create(dict(zip(h.names(20), RANKS, strict=True)), now=h.NOW)

Lists = Mapping[int, Iterable[int]]


@pytest.fixture(autouse=True)
def _enrolled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everyone is enrolled with its rank."""
    monkeypatch.setattr(h, "authority", lambda _name="": ENROLLED)


def masked(
    session: Any, corrupt: tuple[int, ...], inputs: dict[int, dict[int, SegmentInput]] | None = None
) -> h.HostileServer:
    """Everybody has uploaded; the corrupt clients have shown the server every share they keep."""
    server = h.HostileServer(session, ONE_ANSWER, corrupt=corrupt)
    server.inputs = inputs or server.inputs
    return server.play_before(h.REVEAL)


def tell(server: h.HostileServer, lists: Lists) -> int:
    """Give each client its own list of survivors, and keep what it reveals; how many refuse."""
    refused = 0
    for position, survivors in lists.items():
        try:
            server.take(position, server.hand(position, server.survivors(position, survivors).to_bytes()))
        except QuorumError:
            refused += 1
    return refused


# Ten members, one of them corrupt, nine holders: 3 - 1 + 7 * 4 / 9, rounded up, is 6; without the colluder 5.
HOLDERS = (1, 2, 3, 4, 5, 6, 7, 8, 10)
VICTIM, COLLUDER = 1, 10


def lists_of_five_holders() -> dict[int, set[int]]:
    """Every list has the victim, the colluder, three of the seven other holders, and the one member that holds nothing.

    Each of the seven is on four lists or fewer, so that five honest clients and the colluder drop it: that is t.
    """
    others = range(2, 9)
    lists = {me: {others[(me - 2 + step) % 7] for step in range(3)} for me in others}
    lists |= {VICTIM: {2, 3, 4}, 9: {5, 6, 7}}
    return {me: chosen | {VICTIM, 9, COLLUDER} for me, chosen in lists.items()}


def ten() -> Any:
    """The session: one segment, its quorum three."""
    return h.make_session(10, h.segment(0, [h.names(10)[p - 1] for p in HOLDERS], quorum=3))


def test_lists_that_would_do_without_the_colluder_open_nothing() -> None:
    """Clients that count the colluder see five holders of the six that they want, and reveal no share of the segment."""
    server = masked(ten(), (COLLUDER,))

    refused = tell(server, lists_of_five_holders())

    assert refused == 0
    assert server.terms.quorum(server.session.segments[0]) == 6
    assert all(shares.keys() <= {COLLUDER} for shares in server.seen.self_masks.values())
    assert server.opened(0) == {}


def test_control_of_lists_without_the_colluder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the quorum of five the same lists show the victim's input, although three holders were asked for."""

    def without_colluders(terms: MaskingTerms, segment: Any) -> int:
        """The careless quorum."""
        return reveal_quorum(
            segment_members=len(segment.holders),
            quorum=segment.quorum,
            members=len(terms.session.members),
            threshold=terms.session.threshold,
            corrupt=0,
        )

    monkeypatch.setattr(MaskingTerms, "quorum", without_colluders)
    server = masked(ten(), (COLLUDER,))

    tell(server, lists_of_five_holders())

    assert server.terms.quorum(server.session.segments[0]) == 5
    assert server.opened(0) == {frozenset({VICTIM}): h.plain_sum(server.inputs, 0, [VICTIM])}


# Twenty members, two of them corrupt, a class of six with one of those: 3 - 1 + 4 * 8 / 10, rounded up, is 6; without the
# colluders 5.
CORRUPT = (19, 20)
OUTSIDE = tuple(range(6, 20))


def lists_of_five_of_a_class() -> dict[int, set[int]]:
    """All but the class survive on every list; ten lists have five of the class, the victim and the colluder among them.

    The victim is on ten lists, which with both colluders is t. Each of its four fellows is on eight at most, so that ten
    honest clients drop it.
    """
    fellows, with_class = (2, 3, 4, 5), (1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
    left_out = dict(zip(with_class, (2, 3, 4, 5, 2, 3, 4, 5, 2, 3), strict=True))
    lists = {me: {*OUTSIDE, VICTIM, 20, *fellows} - {left_out[me]} for me in with_class}
    return lists | {me: set(OUTSIDE) for me in range(11, 19)}


def twenty() -> Any:
    """The session: one segment for all, classes with a quorum of three."""
    members = h.names(20)
    return h.make_session(20, h.segment(0, members, quorum=3), ranks=RANKS, class_quorum=3)


def zeros_outside() -> dict[int, dict[int, SegmentInput]]:
    """Whoever is not of the class was given a model that makes it add zeros."""
    made = h.make_inputs(twenty())
    nothing = SegmentInput(values=np.zeros(3, dtype=np.int64), binding=h.MODEL)
    return {position: {0: nothing} if position in OUTSIDE else own for position, own in made.items()}


def test_lists_of_a_class_that_would_do_without_the_colluders_are_refused() -> None:
    """Clients that count the colluders want all six of the class, and those that see five reveal nothing."""
    server = masked(twenty(), CORRUPT, zeros_outside())

    refused = tell(server, lists_of_five_of_a_class())

    assert server.terms.class_quorum(len(CLASS)) == 6
    assert refused == 10
    assert server.open_over([VICTIM, *OUTSIDE[:-1]], 0) is None


def test_control_of_lists_of_a_class_without_the_colluders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the quorum of five nobody refuses, and the victim's input is the sum."""

    def without_colluders(terms: MaskingTerms, size: int) -> int:
        """The careless quorum."""
        return class_reveal_quorum(
            class_members=size,
            quorum=terms.session.class_quorum,
            members=len(terms.session.members),
            threshold=terms.session.threshold,
            corrupt=0,
        )

    monkeypatch.setattr(MaskingTerms, "class_quorum", without_colluders)
    server = masked(twenty(), CORRUPT, zeros_outside())

    refused = tell(server, lists_of_five_of_a_class())

    assert refused == 0
    assert server.terms.class_quorum(len(CLASS)) == 5
    assert server.open_over([VICTIM, *OUTSIDE[:-1]], 0) == server.inputs[VICTIM][0].values.tolist()
