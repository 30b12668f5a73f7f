"""Above a hundred members, with all corrupt and all dropped members in one segment: ranks are public, so they can be.

The attack is a server's that follows the protocol: it takes off an upload the self mask, which the survivors open, and
the masks towards the corrupt members, whose keys it holds, and towards the dropped ones, whose keys are opened. The control
is the degree that counts a tenth of the segment's own members as corrupt and a tenth as dropped.
"""

from collections.abc import Iterator
from fractions import Fraction
from math import comb
from typing import Any

import numpy as np
import pytest

from protocols.errors import ThresholdError
from protocols.masking import terms as terms_module
from protocols.masking.masks import SegmentMasks
from protocols.masking.messages import MaskedInput, RevealedShares
from protocols.masking.parameters import (
    COMPLETE_UP_TO,
    expected_exposed,
    log_disconnected,
    mask_graph_degree,
    share_graph_parameters,
)
from protocols.masking.secure_sum import MaskingClient
from protocols.masking.terms import Graph, MaskingTerms
from protocols.primitives.agreement import PrivateKey
from protocols.primitives.secret import Secret
from protocols.primitives.shamir import Recovery
from protocols.profiles import CONSISTENCY, PROFILES, SEMI_HONEST, MaskingProfile, SurvivorCheck
from protocols.ring import centred
from protocols.session import Session
from tests.contracts.sessions import (
    MODEL,
    Play,
    make_session,
    names,
    plain_sum,
    same_bindings,
    segment,
)
from tests.protocols.masking.parties import ReproducibleMasking

# A third of 300 members is corrupt, and all of them are in a segment of 104 with four others, of whom one drops out.
WEAK = MaskingProfile(
    name="a third corrupt",
    source="none: a third of the members, and few bits, so that a session of hundreds is quick",
    survivor_check=SurvivorCheck.TRUST_SERVER,
    corrupt_share=Fraction(1, 3),
    dropout_share=Fraction(1, 100),
    security_bits=1,
    correctness_bits=1,
)
COUNT, SIZE, CORRUPT = 300, 104, 100
MEMBERS = names(COUNT)
HOLDERS = MEMBERS[:SIZE]
DROPPED = HOLDERS[CORRUPT]
HONEST = HOLDERS[CORRUPT + 1 :]
SESSION = make_session(COUNT, segment(0, 8, HOLDERS, 3))


def own_members_alone(
    segment_members: int,
    *,
    members: int,  # noqa: ARG001
    profile: MaskingProfile,
    segments: int = 1,  # noqa: ARG001
) -> int:
    """The careless degree: as if the segment were a session of its own."""
    return share_graph_parameters(segment_members, profile).degree


def parts(graph: Graph, present: set[int]) -> list[set[int]]:
    """The connected parts of what is left of a graph."""
    found: list[set[int]] = []
    rest = set(present)
    while rest:
        part, edge = set[int](), {rest.pop()}
        while edge:
            part |= edge
            edge = {peer for each in edge for peer in graph[each]} & rest
            rest -= edge
        found.append(part)
    return found


class Attack:
    """One whole session of the real classes, and what its server then computes."""

    def __init__(self, seed: str) -> None:
        secure_sum = ReproducibleMasking(seed, WEAK)
        self.play = Play(secure_sum, SESSION)
        self.terms = MaskingTerms(session=SESSION, profile=WEAK, trust=None)
        self.play.play("advertise_keys")
        nonces = {SESSION.position(m): self._state(m).advertisement.nonce for m in MEMBERS}
        self.graph = self.terms.mask_graph(SESSION.segments[0], nonces)
        self.public = {SESSION.position(m): self._state(m).mask_keys[0].public for m in HOLDERS}
        # What corrupt clients hand to the server.
        self.keys = {SESSION.position(m): self._state(m).mask_keys[0] for m in HOLDERS[:CORRUPT]}

    def _state(self, member: str) -> Any:
        """What a client keeps between two stages."""
        client = self.play.clients[member]
        assert isinstance(client, MaskingClient)
        return client._state

    def finish(self) -> None:
        """Everybody shares, one holder falls silent, the others upload and reveal; the sum opens."""
        self.play.play("share_keys")
        self.uploads = self.play.answers("mask_input", [DROPPED])
        self.play.deliver(self.uploads)
        self.play.server.close_stage()
        answers = self.play.answers("reveal_shares", [DROPPED])
        self.play.deliver(answers)
        self.play.server.close_stage()
        self.revealed = {SESSION.position(m): RevealedShares.from_bytes(a) for m, a in answers.items()}
        dropped = SESSION.position(DROPPED)
        self.keys[dropped] = PrivateKey(
            self._recovered({p: r.mask_key_shares for p, r in self.revealed.items()}, dropped)
        )

    def _recovered(self, shares: dict[int, dict[tuple[int, int], Secret]], owner: int) -> Secret:
        held = {p: each[owner, 0] for p, each in shares.items() if (owner, 0) in each}
        chosen = sorted(held)[: self.terms.share_threshold]
        return Recovery.over(chosen).combine(held)

    def sums(self) -> list[tuple[set[int], list[int]]]:
        """By connected part of the honest survivors: who is in it, and the sum that the server computes for it."""
        masks = SegmentMasks(context=self.terms.context, segment=0, binding=MODEL)
        shares = {p: r.self_mask_shares for p, r in self.revealed.items()}
        found = []
        for part in parts(self.graph, {SESSION.position(m) for m in HONEST}):
            total = np.zeros(8, dtype=np.uint32)
            for me in part:
                total += MaskedInput.from_bytes(self.uploads[SESSION.client_at(me)]).segments[0]
                seed = self._recovered(shares, me)
                known = self.graph[me] & self.keys.keys()
                masks.remove(
                    total, {me: seed}, {(peer, me): self.keys[peer].agree(self.public[me]) for peer in known}
                )
            found.append((part, centred(total).tolist()))
        return found


def honest_sum(part: set[int], attack: Attack) -> list[int]:
    """What the members of a part have put in."""
    return plain_sum(attack.play.inputs, SESSION.segments[0], [SESSION.client_at(p) for p in part])


def alone(attack: Attack) -> bool:
    """Whether some honest survivor's partners are all corrupt or dropped."""
    return {1} <= {len(part) for part in parts(attack.graph, {SESSION.position(m) for m in HONEST})}


def test_control_of_corrupt_members_in_one_segment(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a degree for the segment's own tenth, a server that follows the protocol computes one client's input exactly."""
    monkeypatch.setattr(terms_module, "mask_graph_degree", own_members_alone)
    attack = next(a for a in (Attack(str(seed)) for seed in range(20)) if alone(a))

    attack.finish()

    assert max(map(len, attack.graph.values())) < SIZE // 4
    assert attack.play.sums()[0] == plain_sum(
        attack.play.inputs, SESSION.segments[0], [m for m in HOLDERS if m != DROPPED]
    )
    single = [(part, found) for part, found in attack.sums() if len(part) == 1]
    assert single
    assert all(found == honest_sum(part, attack) for part, found in single)


def test_corrupt_members_in_one_segment_learn_the_sum_of_the_others() -> None:
    """With the session's corrupt and dropped members counted, all that is left to compute is one sum over all honest."""
    attack = Attack("0")
    attack.finish()

    [(part, found)] = attack.sums()
    assert part == {SESSION.position(m) for m in HONEST}
    assert found == honest_sum(part, attack)
    assert 0 in attack.play.server.result(same_bindings(SESSION)).sums


# Graphs as sessions derive them, counted over draws.


def drawn(session: Session, profile: MaskingProfile, draws: int) -> Iterator[Graph]:
    """Mask graphs of the first segment, from fresh nonces of everybody."""
    terms, generator = MaskingTerms(session=session, profile=profile, trust=None), np.random.default_rng(3)
    for _ in range(draws):
        nonces = {p: generator.bytes(16) for p in range(1, len(session.members) + 1)}
        yield terms.mask_graph(session.segments[0], nonces)


def split(session: Session, gone: int, *, draws: int) -> int:
    """In how many draws the holders beyond the first so many, who are corrupt or dropped, are not all connected."""
    left = set(range(gone + 1, len(session.segments[0].members) + 1))
    return sum(len(parts(graph, left)) > 1 for graph in drawn(session, SEMI_HONEST, draws))


@pytest.mark.parametrize(
    ("members", "size", "gone"), [(1000, 101, 99), (400, 101, 80), (500, 130, 100), (1000, 210, 200)]
)
def test_honest_holders_of_a_segment_stay_connected(
    members: int, size: int, gone: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tenth of the session corrupt and a tenth dropped, all in one segment, split no graph; at the careless degree some."""
    session = make_session(members, segment(0, 1, names(members)[:size], 3))

    assert split(session, gone, draws=60) == 0
    monkeypatch.setattr(terms_module, "mask_graph_degree", own_members_alone)
    assert split(session, gone, draws=60) > 0


def test_the_careless_degree_isolates_as_many_as_counting_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two honest holders beside 99 corrupt ones of 1000 members are no neighbours in 78 of 100 graphs of degree 22."""
    monkeypatch.setattr(terms_module, "mask_graph_degree", own_members_alone)
    session = make_session(1000, segment(0, 1, names(1000)[:101], 3))

    expected = comb(99, 22) / comb(100, 22)

    assert expected == pytest.approx(0.78)
    assert split(session, 99, draws=300) / 300 == pytest.approx(expected, abs=0.08)


# The degree.


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
@pytest.mark.parametrize("members", [101, 150, 400, 1000])
def test_a_mask_graph_stands_the_losses_of_the_whole_session(members: int, profile: MaskingProfile) -> None:
    """Either all mask with all, or the gaps that split the graph have the probability that is left for each of two segments."""
    lost = profile.corrupt(members) + profile.dropped(members)
    for size in range(COMPLETE_UP_TO + 1, members + 1, 7):
        degree = mask_graph_degree(size, members=members, profile=profile, segments=2)
        if degree < size - 1:
            bound = -(profile.security_bits + 2) * np.log(2)
            assert log_disconnected(size, min(size - 1, lost), degree) < bound
            assert degree >= share_graph_parameters(members, profile).degree


def test_the_degrees_of_the_threat_model() -> None:
    """Neighbours in segments of 101, 150, 200 and 500 members, and in that of everybody."""
    table = {
        101: (22,),
        150: (28, 28),
        200: (34, 34, 34),
        500: (100, 66, 46, 42),
        1000: (100, 149, 199, 48, 48),
        5000: (100, 149, 199, 499, 52),
    }
    for members, degrees in table.items():
        sizes = [size for size in (101, 150, 200, 500) if size < members] + [members]
        found = [mask_graph_degree(size, members=members, profile=SEMI_HONEST) for size in sizes]
        assert tuple(found) == degrees


def test_more_segments_leave_each_a_smaller_failure() -> None:
    """With many segments the degree grows, and up to a hundred members all mask with all whatever there is."""
    one, many = (mask_graph_degree(150, members=500, profile=SEMI_HONEST, segments=b) for b in (1, 1000))

    assert one < many < 150 - 1
    assert mask_graph_degree(100, members=5000, profile=CONSISTENCY, segments=40) == 99


def test_the_terms_count_the_segments_that_are_sparse() -> None:
    """A session with four large segments and a small one asks for the degree of four."""
    members = names(500)
    session = make_session(
        500, *(segment(i, 1, members[:150], 3) for i in range(4)), segment(4, 1, members[:9])
    )
    one, four = (mask_graph_degree(150, members=500, profile=SEMI_HONEST, segments=b) for b in (1, 4))

    graph = next(drawn(session, SEMI_HONEST, 1))

    assert {len(peers) for peers in graph.values()} == {four}
    assert four > one


@pytest.mark.parametrize("size", [0, 201])
def test_segments_that_cannot_be_are_refused(size: int) -> None:
    """A segment without members, or with more than the session has, raises ThresholdError."""
    with pytest.raises(ThresholdError, match=f"segment_members={size} must lie in 1..200"):
        mask_graph_degree(size, members=200, profile=SEMI_HONEST)


# Drop-outs beyond the profile's share.

# Members: how many may drop out beside a tenth that is corrupt before the graph of everybody falls apart with a probability of
# 2^-40 and of 2^-20.
DROP_OUTS = {
    101: (19, 34),
    150: (35, 59),
    200: (58, 88),
    500: (158, 231),
    1000: (341, 480),
    5000: (1657, 2308),
}


@pytest.mark.parametrize("members", DROP_OUTS)
def test_the_drop_outs_of_the_threat_model(members: int) -> None:
    """The published numbers are the largest that the bound allows, and none is below the profile's tenth."""
    degree = mask_graph_degree(members, members=members, profile=SEMI_HONEST)
    corrupt = SEMI_HONEST.corrupt(members)

    for most, bits in zip(DROP_OUTS[members], (40, 20), strict=True):
        assert log_disconnected(members, corrupt + most, degree) < -bits * np.log(2)
        assert log_disconnected(members, corrupt + most + 1, degree) >= -bits * np.log(2)
        assert most >= SEMI_HONEST.dropped(members)


@pytest.mark.parametrize(("dropped", "power", "apart"), [(30, -29.98, -24.32), (50, -13.63, -7.39)])
def test_what_more_drop_outs_do_to_a_hundred_and_one(dropped: int, power: float, apart: float) -> None:
    """Ten corrupt of 101 and so many dropped: the expected number of honest survivors whose partners are all gone.

    And the bound on the probability that the graph falls apart at all.
    """
    degree = mask_graph_degree(101, members=101, profile=SEMI_HONEST)
    gone = 10 + dropped

    expected = (101 - gone) * comb(gone, degree) / comb(100, degree)

    assert np.log2(expected) == pytest.approx(power, abs=0.01)
    assert log_disconnected(101, gone, degree) / np.log(2) == pytest.approx(apart, abs=0.01)


@pytest.mark.parametrize("members", [171, 500, 1000, 2106, 3438, 10_000])
def test_neighbors_drawn_from_those_who_advertise_cost_three_bits(members: int) -> None:
    """A tenth never advertises, all corrupt ones do: then the share graph fails with 2^-37 at most, and no longer with 2^-40."""
    graph = share_graph_parameters(members, SEMI_HONEST)
    corrupt, dropped = SEMI_HONEST.corrupt(members), SEMI_HONEST.dropped(members)

    exposed = [expected_exposed(there, corrupt, graph) for there in (members, members - dropped)]

    assert exposed[0] < 2.0**-41
    assert 2.0**-40 < exposed[1] < 2.0**-37
