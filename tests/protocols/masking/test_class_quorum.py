"""Classes of view: no survivor list, and no split of lists, opens a sum over a few members of a class."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.errors import BelowThresholdError, ProtocolError, QuorumError, SessionError, ThresholdError
from protocols.identity.trust import ThrowawayAuthority
from protocols.masking.parameters import class_reveal_quorum
from protocols.profiles import CONSISTENCY, ONE_ANSWER, SEMI_HONEST, MaskingProfile
from protocols.session import Session
from tests.contracts.sessions import PROPERTY, Play, make_session, names, plain_sum, same_bindings
from tests.protocols.masking import hostile as h
from tests.protocols.masking import parties

State = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Splits:
    """A server that splits survivor lists in one sum over all members.

    Args:
        members, corrupt, threshold: n, c and t; members are 0..n-1, the last c of them corrupt.
        view_class: The members of one class.
    """

    members: int
    corrupt: int
    threshold: int
    view_class: frozenset[int]

    @property
    def honest(self) -> range:
        return range(self.members - self.corrupt)

    def fewest(self, needed: int) -> int | None:
        """The fewest members of the class over whom, corrupt ones counted, a sum can be opened that has an honest one.

        Honest clients reveal over lists that hold none of the class, or `needed` and more; None if nothing opens.
        """
        corrupt = sum(member not in self.honest for member in self.view_class)
        found = (
            len(self.view_class.intersection(inside)) + corrupt
            for state in self._reachable(needed)
            for inside in self._opened(state)
            if self.view_class.intersection(inside)
        )
        return min(found, default=None)

    def _answers(self, client: int, needed: int) -> set[tuple[int, ...]]:
        """What a client can be made to reveal: 1 for a member's self-mask share, -1 for its mask-key share, or nothing."""
        found = {tuple(0 for _ in self.honest)}
        for size in range(self.threshold, self.members + 1):
            for listed in itertools.combinations(range(self.members), size):
                seen = len(self.view_class.intersection(listed))
                if client in listed and (not seen or seen >= needed):
                    found.add(tuple(1 if member in listed else -1 for member in self.honest))
        return found

    def _reachable(self, needed: int) -> set[State]:
        enough = self.threshold - self.corrupt
        states: set[State] = {tuple((0, 0) for _ in self.honest)}
        for client in self.honest:
            answers = self._answers(client, needed)
            states = {
                tuple(
                    (min(enough, alive + (said > 0)), min(enough, gone + (said < 0)))
                    for (alive, gone), said in zip(state, answer, strict=True)
                )
                for state in states
                for answer in answers
            }
        return states

    def _opened(self, state: State) -> Iterator[tuple[int, ...]]:
        """All sets of honest members whose sum is free of unknown masks."""
        enough = self.threshold - self.corrupt
        seeds = {i for i, (alive, _) in enumerate(state) if alive >= enough}
        keys = {i for i, (_, gone) in enumerate(state) if gone >= enough}
        for size in range(1, len(state) + 1):
            for inside in itertools.combinations(self.honest, size):
                pairs = ((v, w) for v in inside for w in self.honest if w not in inside)
                if seeds.issuperset(inside) and all(v in keys or w in keys for v, w in pairs):
                    yield inside


def all_splits(largest: int) -> Iterator[Splits]:
    """Every (n, c, t) with 2t > n + c and every number of honest and corrupt members of the class."""
    for n in range(3, largest + 1):
        for c in range(n - 1):
            for t in range((n + c) // 2 + 1, n + 1):
                for honest, corrupt in itertools.product(range(1, n - c + 1), range(c + 1)):
                    members = frozenset({*range(honest), *range(n - corrupt, n)})
                    yield Splits(members=n, corrupt=c, threshold=t, view_class=members)


def the_rule(splits: Splits, quorum: int) -> int:
    return class_reveal_quorum(
        class_members=len(splits.view_class),
        quorum=quorum,
        members=splits.members,
        threshold=splits.threshold,
        corrupt=splits.corrupt,
    )


@pytest.mark.parametrize(
    "splits",
    [*all_splits(5)],
    ids=lambda s: f"{s.members}-{s.corrupt}-{s.threshold}-{sorted(s.view_class)}",
)
def test_no_split_of_lists_opens_a_few_of_a_class(splits: Splits) -> None:
    """All strategies against all small sessions: of a class that is in a sum, a quorum is."""
    for quorum in range(1, len(splits.view_class) + 1):
        needed = the_rule(splits, quorum)
        fewest = splits.fewest(needed)

        assert quorum <= needed <= len(splits.view_class)
        assert fewest is None or fewest >= quorum


def test_the_class_quorum_alone_exposes_one_client() -> None:
    """Five honest members, t = 3, a class of four, quorum 2: lists with two of them each open one client's values."""
    splits = Splits(members=5, corrupt=0, threshold=3, view_class=frozenset({0, 1, 2, 3}))

    assert splits.fewest(2) == 1
    assert the_rule(splits, 2) == 4
    assert (splits.fewest(4) or 4) >= 2


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        ((4, 3, 10, 6, 1), 4),  # 2 + 2 * 4/5 = 3.6
        ((3, 3, 10, 6, 1), 3),  # 2 + 1 * 4/5 = 2.8
        ((10, 3, 20, 12, 2), 9),  # 2 + 8 * 8/10 = 8.4
        ((9, 4, 9, 9, 0), 4),  # nobody may drop out: split lists are impossible
    ],
)
def test_class_quorums_worked_out_by_hand(terms: tuple[int, ...], expected: int) -> None:
    """Examples of the formula."""
    m, q, n, t, c = terms

    assert class_reveal_quorum(class_members=m, quorum=q, members=n, threshold=t, corrupt=c) == expected


@PROPERTY
@given(data=st.data())
def test_a_class_that_is_whole_always_opens(data: st.DataObject) -> None:
    """The rule never asks for more members than a class has, nor for fewer than the quorum."""
    n = data.draw(st.integers(2, 100))
    c = data.draw(st.integers(0, n - 1))
    t = data.draw(st.integers((n + c) // 2 + 1, n))
    m = data.draw(st.integers(1, n))
    q = data.draw(st.integers(1, m))

    assert q <= class_reveal_quorum(class_members=m, quorum=q, members=n, threshold=t, corrupt=c) <= m


@pytest.mark.parametrize(("m", "q", "n"), [(0, 1, 3), (2, 3, 3), (4, 1, 3), (2, 0, 3)])
def test_class_quorums_of_impossible_classes_are_refused(m: int, q: int, n: int) -> None:
    """A quorum lies in 1..m, a class inside the session."""
    with pytest.raises(QuorumError):
        class_reveal_quorum(class_members=m, quorum=q, members=n, threshold=n, corrupt=0)


def test_class_quorums_need_one_answer_per_peer_to_mean_something() -> None:
    """Where 2t <= n + c the argument is void."""
    with pytest.raises(ThresholdError):
        class_reveal_quorum(class_members=2, quorum=2, members=4, threshold=3, corrupt=2)


# The protocol: the honest server leaves thin classes out, and honest clients refuse lists that do not.

RANKS = (2, 2, 2, 8, 8, 8, 8)  # a class of three and one of four
PROFILES = pytest.mark.parametrize("profile", [ONE_ANSWER, CONSISTENCY], ids=lambda profile: profile.name)


def classed(profile: MaskingProfile, *, quorum: int = 3) -> Session:
    """Seven members, two bands: one for all, one for the upper class; ranks as enrolled."""
    members = names(len(RANKS))
    upper = members[3:]
    return make_session(
        len(RANKS),
        h.segment(0, members, quorum=1),
        h.segment(1, upper, quorum=1),
        ranks=RANKS,
        class_quorum=quorum,
        threshold=profile.threshold(len(RANKS)),
    )


ENROLLED = ThrowawayAuthority.create(dict(zip(names(len(RANKS)), RANKS, strict=True)), now=h.NOW)


@pytest.fixture(autouse=True)
def _enrolled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everyone is enrolled with its rank."""
    monkeypatch.setattr(h, "authority", lambda _name="": ENROLLED)
    monkeypatch.setattr(parties, "AUTHORITY", ENROLLED)


def thin(profile: MaskingProfile, survivors: Iterable[int]) -> bool:
    """Whether a class has survivors, but fewer than a client wants to see; worked out by hand for seven members."""
    counts = [sum(RANKS[position - 1] == rank for position in survivors) for rank in (2, 8)]
    wanted = (
        (3, 4) if profile is ONE_ANSWER else (3, 3)
    )  # 2 + 1 * 3/4 and 2 + 2 * 3/4, rounded down, plus one
    return any(0 < count < least for count, least in zip(counts, wanted, strict=True))


def subsets(everyone: Sequence[int]) -> Iterator[tuple[int, ...]]:
    for size in range(len(everyone) + 1):
        yield from itertools.combinations(everyone, size)


@PROFILES
def test_the_server_leaves_thin_classes_out_whoever_drops_out(profile: MaskingProfile) -> None:
    """Every set of clients that fall silent at the input: what opens is over none or enough of each class, exactly."""
    session = classed(profile)
    opened = 0
    for silent in subsets(range(1, 8)):
        play = Play(parties.EveryonesMasking(profile, trust=ENROLLED.view), session)
        play.play_before("mask_input")
        left = set(range(1, 8)) - set(silent)
        for rank, least in ((2, 3), (8, 4 if profile is ONE_ANSWER else 3)):
            of_class = {position for position in left if RANKS[position - 1] == rank}
            left -= of_class if len(of_class) < least else set()
        try:
            play.play("mask_input", silent=[session.client_at(position) for position in silent])
        except BelowThresholdError:
            assert len(left) < session.threshold
            continue
        assert play.server.contributors == tuple(session.client_at(position) for position in sorted(left))
        if len(silent) > 1:
            continue
        play.play_after("mask_input")
        result = play.server.result(same_bindings(session))
        for index, total in result.sums.items():
            assert total.tolist() == plain_sum(play.inputs, session.segments[index], result.survivors)
            opened += 1
    assert opened


@PROFILES
@pytest.mark.parametrize("quorum", [0, 3])
def test_a_client_reveals_nothing_over_a_thin_class(profile: MaskingProfile, quorum: int) -> None:
    """Every survivor list that a server can make up: a client answers it just if no class in it is thin.

    With no class quorum in the terms it answers all of them, which is the attack.
    """
    session = classed(profile, quorum=quorum)
    server = h.HostileServer(session, profile, trust=ENROLLED.view)
    server.play_before(h.AGREE if h.AGREE in server.stages else h.REVEAL)
    for me in (1, 7):
        for others in subsets([position for position in range(1, 8) if position != me]):
            survivors = tuple(sorted({me, *others}))
            if len(survivors) < session.threshold:
                continue
            client = server.fork().clients[me]
            request = server.survivors(me, survivors=survivors).to_bytes()
            if quorum and thin(profile, survivors):
                with pytest.raises(QuorumError, match="another function"):
                    client.reply(request)
            else:
                assert client.reply(request)


def test_a_class_below_its_quorum_never_opens() -> None:
    """Where fewer are enrolled than the quorum, no number of them is enough, and they are left out in every round."""
    session = replace(classed(CONSISTENCY), class_quorum=4)
    play = Play(parties.EveryonesMasking(CONSISTENCY, trust=ENROLLED.view), session)
    play.play_before("mask_input")

    with pytest.raises(BelowThresholdError):
        play.play("mask_input")


def test_without_a_class_quorum_all_survivors_count_together() -> None:
    """Sessions that name none open over whoever is there."""
    session = classed(SEMI_HONEST, quorum=0)
    play = Play(parties.EveryonesMasking(SEMI_HONEST), session)
    play.play_before("mask_input")
    play.play("mask_input", silent=session.members[1:3])

    assert session.classes == ()
    assert play.server.contributors == (session.members[0], *session.members[3:])


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"ranks": (1, 2)}, SessionError),
        ({"ranks": (0,) * 7}, SessionError),
        ({"ranks": (2**16,) * 7}, SessionError),
        ({"ranks": ()}, QuorumError),
        ({"class_quorum": -1}, QuorumError),
        ({"class_quorum": 2**16}, QuorumError),
    ],
)
def test_terms_of_classes_that_mean_nothing_are_refused(
    change: dict[str, Any], error: type[ProtocolError]
) -> None:
    """Ranks are one for each member, and a quorum of classes needs them."""
    with pytest.raises(error):
        replace(classed(ONE_ANSWER), **change)
