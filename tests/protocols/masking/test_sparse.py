"""Above a hundred members: sparse graphs that everyone derives from everyone's nonces, and exact sums all the same."""

from dataclasses import replace
from typing import Any

import pytest

from protocols.errors import BelowThresholdError, RosterError, SessionError
from protocols.identity.trust import ThrowawayAuthority
from protocols.interface import ExtraSecrets, SecureSum, SumClient, SumServer
from protocols.masking.client import Advertised, Shared, create_masked_input, create_sealed_shares
from protocols.masking.messages import KeyAdvertisement, KeyDirectory, ShareDelivery
from protocols.masking.secure_sum import Masking, MaskingClient
from protocols.masking.terms import MaskingTerms
from protocols.profiles import CONSISTENCY, INSECURE_TEST_ONLY, ONE_ANSWER, SEMI_HONEST
from protocols.session import ClientId, Session
from protocols.transcript import Transcript
from tests.contracts.sessions import (
    Play,
    make_inputs,
    make_session,
    names,
    plain_sum,
    same_bindings,
    segment,
)
from tests.protocols.masking.parties import NOW, ReproducibleMasking

# Under the profile for tests a hundred and four members have four neighbours each, two of which recover a secret.
COUNT = 104
DEGREE, SHARES = 4, 2
MEMBERS = names(COUNT)
# Everyone, masked on a sparse graph; a few, among whom all mask with all; some that only pad.
SESSION = make_session(
    COUNT,
    segment(0, 3, MEMBERS, 50),
    segment(1, 2, MEMBERS[::9], 3),
    segment(2, 1, MEMBERS[:20], 4, holders=MEMBERS[:5]),
)
INPUTS = make_inputs(SESSION)
SECURE_SUM = ReproducibleMasking(profile=INSECURE_TEST_ONLY)
TERMS = MaskingTerms(session=SESSION, profile=INSECURE_TEST_ONLY, trust=None)
STAGES = SECURE_SUM.stages


def ready(stage: str) -> Play:
    """A session that stands before a stage."""
    play = Play(SECURE_SUM, SESSION, INPUTS)
    play.play_before(stage)
    return play


def state_of(play: Play, member: ClientId) -> Any:
    """What a client keeps between two stages."""
    client = play.clients[member]
    assert isinstance(client, MaskingClient)
    return client._state


def test_sums_are_exact_with_drop_outs_at_each_stage() -> None:
    """Three clients fall silent at every stage; each open segment is the sum over those who have uploaded."""
    silent = {member: STAGES[number % 4] for number, member in enumerate(MEMBERS[7:91:7])}
    play = Play(SECURE_SUM, SESSION, INPUTS)
    for number, stage in enumerate(STAGES):
        play.play(stage, [member for member, since in silent.items() if STAGES.index(since) <= number])

    result = play.server.result(same_bindings(SESSION))

    survivors = tuple(m for m in MEMBERS if silent.get(m, "reveal_shares") == "reveal_shares")
    assert [list(silent.values()).count(stage) for stage in STAGES] == [3, 3, 3, 3]
    assert result.survivors == survivors
    assert len(survivors) == COUNT - 9
    assert {index: values.tolist() for index, values in result.sums.items()} == {
        part.index: plain_sum(INPUTS, part, survivors) for part in SESSION.segments
    }


def test_a_segment_without_its_holders_stays_closed() -> None:
    """Quorums count holders here too: twenty members are there, four of five holders are not."""
    play = ready("mask_input")
    play.play("mask_input", MEMBERS[:2])
    play.play_after("mask_input")

    result = play.server.result(same_bindings(SESSION))

    assert set(result.sums) == {0, 1}
    assert "3 surviving holders, quorum 4" in result.refused[2]


def test_everyone_shares_with_its_neighbours_alone() -> None:
    """Shares go to four neighbours each, in both directions, and never to their owner itself."""
    play = ready("mask_input")

    states = {SESSION.position(member): state_of(play, member) for member in MEMBERS}

    neighbours = {me: set(state.sealing_secrets) for me, state in states.items()}
    assert {len(peers) for peers in neighbours.values()} == {DEGREE}
    assert all(me in neighbours[peer] for me, peers in neighbours.items() for peer in peers)
    assert all(state.own_bundle is None for state in states.values())
    assert len({frozenset(peers) for peers in neighbours.values()}) > COUNT // 2


def test_each_segment_has_its_own_mask_graph() -> None:
    """In the large segment everyone masks with four others, chosen apart; in a small one all mask with all."""
    play = ready("mask_input")

    states = {SESSION.position(member): state_of(play, member) for member in MEMBERS}

    sparse = {me: set(state.partners[0]) for me, state in states.items()}
    assert {len(peers) for peers in sparse.values()} == {DEGREE}
    assert all(me in sparse[peer] for me, peers in sparse.items() for peer in peers)
    assert sum(sparse[me] == set(states[me].sealing_secrets) for me in states) < COUNT // 10
    for index in (1, 2):
        members = {SESSION.position(member) for member in SESSION.segments[index].members}
        assert {me: set(states[me].partners[index]) for me in members} == {
            me: members - {me} for me in members
        }


def test_a_client_is_sent_the_keys_of_those_it_deals_with() -> None:
    """A directory holds everyone's nonce and the advertisements of one's neighbours and partners, its own included."""
    play = ready("share_keys")
    requests = {m: KeyDirectory.from_bytes(r) for m, r in play.server.requests().items()}
    play.play("share_keys")

    for member, directory in requests.items():
        state = state_of(play, member)
        partners = set().union(*state.partners.values())
        assert set(directory.nonces) == set(range(1, COUNT + 1))
        assert {entry.sender for entry in directory.advertisements} == {
            state.me,
            *state.sealing_secrets,
            *partners,
        }
    sizes = [len(directory.advertisements) for directory in requests.values()]
    assert min(sizes) <= 2 * DEGREE + 1
    assert max(sizes) < COUNT // 2


def test_other_nonces_give_another_graph() -> None:
    """Who advertises, and with which nonce, decides who deals with whom."""
    nonces = {position: position.to_bytes(16, "big") for position in range(1, COUNT + 1)}
    other = {**nonces, 1: bytes(16)}
    fewer = {position: nonce for position, nonce in nonces.items() if position != 1}

    graphs = [TERMS.share_graph(each) for each in (nonces, other, fewer)]
    masks = [TERMS.mask_graph(SESSION.segments[0], each) for each in (nonces, other, fewer)]

    for one in range(3):
        assert graphs[one] != masks[one]
        for two in range(one):
            changed = sum(graphs[one].get(me) != graphs[two].get(me) for me in range(2, COUNT + 1))
            assert changed > COUNT // 2


def first() -> tuple[Advertised, KeyDirectory]:
    """The first client after advertising, and its directory."""
    play = ready("share_keys")
    request = play.server.requests()[MEMBERS[0]]
    return state_of(play, MEMBERS[0]), KeyDirectory.from_bytes(request)


def test_a_directory_of_others_than_the_neighbours_is_refused() -> None:
    """A neighbour too few, a stranger too many, or one for another, raises RosterError: the graph is not the server's."""
    state, directory = first()
    play = ready("share_keys")
    everyone = [state_of(play, member).advertisement for member in MEMBERS]
    listed = {entry.sender for entry in directory.advertisements}
    stranger = next(entry for entry in everyone if entry.sender not in listed)

    def entries(*advertisements: KeyAdvertisement) -> KeyDirectory:
        return replace(directory, advertisements=tuple(sorted(advertisements, key=lambda e: e.sender)))

    good = directory.advertisements
    for bad in (
        entries(*good[:-1]),
        entries(*good, stranger),
        entries(*good[:-1], stranger),
        entries(*everyone),
    ):
        with pytest.raises(RosterError, match="exactly this client's neighbours"):
            create_sealed_shares(state, bad)
    assert len(create_sealed_shares(state, directory).message.sealed) == DEGREE


def second() -> tuple[Shared, ShareDelivery]:
    """The first client after sharing, and its delivery."""
    play = ready("mask_input")
    request = play.server.requests()[MEMBERS[0]]
    return state_of(play, MEMBERS[0]), ShareDelivery.from_bytes(request)


@pytest.mark.parametrize("left", [0, 1, 2, 4])
def test_a_client_with_too_few_keepers_does_not_upload(left: int) -> None:
    """With fewer of its neighbours taking part than recover a secret a client raises BelowThresholdError."""
    state, delivery = second()
    gone = sorted(state.sealing_secrets)[left:]
    fewer = replace(
        delivery,
        participants=tuple(p for p in delivery.participants if p not in gone),
        sealed={sender: blob for sender, blob in delivery.sealed.items() if sender not in gone},
        digests={sender: digest for sender, digest in delivery.digests.items() if sender not in gone},
    )

    if left >= SHARES:
        assert create_masked_input(state, fewer, INPUTS[MEMBERS[0]]).message.segments
    else:
        with pytest.raises(BelowThresholdError, match=f"{left} keepers"):
            create_masked_input(state, fewer, INPUTS[MEMBERS[0]])


def test_a_bundle_of_no_neighbour_is_refused() -> None:
    """Bundles come from exactly the neighbours that take part, though many more do."""
    state, delivery = second()
    blob = next(iter(delivery.sealed.values()))
    stranger = next(p for p in delivery.participants if p != 1 and p not in delivery.sealed)

    with pytest.raises(RosterError, match="participating neighbours"):
        create_masked_input(
            state, replace(delivery, sealed={**delivery.sealed, stranger: blob}), INPUTS[MEMBERS[0]]
        )


@pytest.mark.parametrize(("silent", "opens"), [(2, True), (3, False), (4, False)])
def test_a_segment_stays_closed_when_one_seed_cannot_be_recovered(silent: int, opens: bool) -> None:  # noqa: FBT001
    """If too few keepers of one client's shares reveal, its segments stay closed and the others open."""
    play = ready("mask_input")
    victim = MEMBERS[-1]  # of segment 0 alone
    keepers = sorted(state_of(play, victim).sealing_secrets)
    play.play("mask_input")
    play.play("reveal_shares", [SESSION.client_at(position) for position in keepers[:silent]])

    result = play.server.result(same_bindings(SESSION))

    assert result.survivors == MEMBERS
    assert set(result.sums) == ({0, 1, 2} if opens else {1, 2})
    assert (f"{DEGREE - silent} clients let it open, threshold 2" in result.refused.get(0, "")) == (not opens)


def test_nobody_reveals_shares_of_its_own() -> None:
    """What a client reveals is of its four neighbours; its own secrets are its neighbours' to open."""
    play = ready("reveal_shares")

    for member in MEMBERS[:10]:
        state = state_of(play, member)
        assert len(state.bundles) == DEGREE
        assert state.me not in state.bundles


def test_a_client_costs_as_many_masks_as_it_has_partners() -> None:
    """What a client is sent and sends does not grow with the square of the session."""
    play, transcript = Play(SECURE_SUM, SESSION, INPUTS), Transcript()
    for stage in STAGES:
        for member, request in play.server.requests().items():
            transcript.to_client(member, stage, request)
            reply = play.answer(stage, member, request)
            transcript.from_client(member, stage, reply)
            play.server.receive(member, reply)
        play.server.close_stage()

    last = MEMBERS[-1]
    bundle = 12 + 4 + 2 + (2 + 33 + 33 + 1) + 16  # nonce, header, count, one segment, tag
    committed = 2 + 4 + DEGREE * (2 + 2 * 16)
    assert transcript.received[last, "share_keys"] == 4 + 32 + 2 + 2 + DEGREE * (2 + 4 + bundle) + committed
    upload = 4 + 32 + 2 + 1 + 2 + 2 + 4 + 3 * 4 + 2
    assert transcript.received[last, "mask_input"] == upload
    assert transcript.received[last, "reveal_shares"] < 4 + 32 + 2 + 2 * 4 + 3 * DEGREE * (2 + 2 + 33)


# The profiles.


def test_one_answer_is_for_sessions_in_which_all_share_with_all() -> None:
    """Above a hundred members the profile is refused by name; the other two are not."""
    for count, profile in ((101, ONE_ANSWER), (COUNT, ONE_ANSWER)):
        session = make_session(count, segment(0, 1, names(count)), threshold=count)
        with pytest.raises(SessionError, match="at most 100 members"):
            MaskingTerms(session=session, profile=profile, trust=AUTHORITY.view)
    hundred = make_session(100, segment(0, 1, names(100)), threshold=100)

    assert MaskingTerms(session=hundred, profile=ONE_ANSWER, trust=AUTHORITY.view).complete
    large = make_session(COUNT, segment(0, 1, MEMBERS), threshold=COUNT)
    assert not MaskingTerms(session=large, profile=CONSISTENCY, trust=AUTHORITY.view).complete
    assert not MaskingTerms(session=large, profile=SEMI_HONEST, trust=None).complete


AUTHORITY = ThrowawayAuthority.create(dict.fromkeys(MEMBERS, 4), now=NOW)


class SignedSparse(SecureSum):
    """Consistency with an identity for each of many members."""

    name = Masking.name
    input_stage = Masking.input_stage
    stages = Masking(CONSISTENCY).stages

    def client(
        self, session: Session, me: ClientId, *, extra_secrets: ExtraSecrets | None = None
    ) -> SumClient:
        """A client with its own identity."""
        masking = Masking(CONSISTENCY, trust=AUTHORITY.view, identity=AUTHORITY.identity(me))
        return masking.client(session, me, extra_secrets=extra_secrets)

    def server(self, session: Session) -> SumServer:
        """The server."""
        return Masking(CONSISTENCY, trust=AUTHORITY.view).server(session)


def test_a_signed_sparse_session_sums_exactly() -> None:
    """Under the real parameters of the consistency profile, with a drop-out at each of the five stages."""
    session = make_session(
        COUNT, segment(0, 2, MEMBERS, 60), segment(1, 1, MEMBERS[:3]), threshold=71, ring_bits=20
    )
    secure_sum = SignedSparse()
    silent = dict(zip(MEMBERS[10:], secure_sum.stages, strict=False))
    play = Play(secure_sum, session)
    for number, stage in enumerate(secure_sum.stages):
        play.play(stage, [m for m, since in silent.items() if secure_sum.stages.index(since) <= number])

    survivors = [m for m in MEMBERS if silent.get(m, "reveal_shares") in {"agree_survivors", "reveal_shares"}]

    assert len(survivors) == COUNT - 3
    assert play.sums() == {part.index: plain_sum(play.inputs, part, survivors) for part in session.segments}
