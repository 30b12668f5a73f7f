"""Classes of view under encryption: no sum is opened over a few clients of one rank, whoever drops out and whatever is asked."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations

import pytest

from protocols.errors import (
    BelowThresholdError,
    EnrolmentError,
    ProtocolError,
    QuorumError,
    RosterError,
    ServiceError,
)
from protocols.homomorphic import checks
from protocols.homomorphic.messages import EncryptedSum
from protocols.homomorphic.parties.guarded_adder import GuardedSums
from protocols.homomorphic.parties.verifier import Verifier
from protocols.homomorphic.scheme.parameters import BFV_2X20
from protocols.homomorphic.services.messages import SessionRequest, Setup
from protocols.homomorphic.services.services import KeyedService, LocalChannel, Worker
from protocols.homomorphic.terms import EncryptionTerms, Services
from protocols.identity.trust import ThrowawayAuthority
from protocols.primitives.signing import SigningKey
from protocols.session import Session
from tests.contracts.sessions import make_inputs, make_session, names, plain_sum, same_bindings, segment
from tests.protocols.homomorphic import meeting as parties
from tests.protocols.homomorphic.meeting import ALONE, NOW, VERIFIED, Meeting, charge_for
from tests.protocols.homomorphic.parties.test_decryptor import Round, begin
from tests.protocols.homomorphic.test_ranks import ranked_round

# Three clients of rank 8 and four of rank 4. All hold band 0; padded, all upload band 1, which the first three hold.
SEVEN = names(7)
LARGE, SMALL = SEVEN[:3], SEVEN[3:]
RANKS = {**dict.fromkeys(LARGE, 8), **dict.fromkeys(SMALL, 4)}
QUORUM = 2
BANDED = make_session(
    7,
    segment(0, 20, SEVEN, 2),
    segment(1, 7, LARGE, 2),
    ranks=tuple(RANKS.values()),
    class_quorum=QUORUM,
)
PADDED = make_session(
    7,
    segment(0, 20, SEVEN, 2),
    segment(1, 7, SEVEN, 2, holders=LARGE),
    ranks=tuple(RANKS.values()),
    class_quorum=QUORUM,
)
BOTH = pytest.mark.parametrize("services", [ALONE, VERIFIED], ids=["alone", "verified"])
SHAPES = pytest.mark.parametrize("session", [BANDED, PADDED], ids=["banded", "padded"])


@pytest.fixture(autouse=True)
def enrolled(monkeypatch: pytest.MonkeyPatch) -> ThrowawayAuthority:
    """An authority that has certified these ranks, in the place of everybody else's."""
    keys = parties.SERVICE_KEYS
    authority = ThrowawayAuthority.create(
        {**dict.fromkeys(names(24), 4), **RANKS},
        now=NOW,
        services={name: key.public for name, key in keys.items()},
    )
    monkeypatch.setattr(parties, "AUTHORITY", authority)
    monkeypatch.setattr(parties, "TRUST", authority.view)
    monkeypatch.setattr("tests.protocols.homomorphic.parties.test_decryptor.AUTHORITY", authority)
    return authority


def every_subset() -> Iterator[tuple[str, ...]]:
    """All sets of contributors with the threshold of four."""
    for size in range(4, 8):
        yield from combinations(SEVEN, size)


def thin(members: tuple[str, ...]) -> bool:
    """Whether some rank has members among these, but too few. Worked out without the code under test."""
    counts = [len(set(members) & set(kind)) for kind in (LARGE, SMALL)]
    return any(0 < count < QUORUM for count in counts)


@SHAPES
def test_the_decryptor_opens_no_sum_over_a_few_of_one_rank(session: Session) -> None:
    """Over every set of contributors that a server can name: refused exactly if a class is thin, in every band."""
    playing = begin(session, charge=charge_for(class_quorum=QUORUM))
    opened = playing.decryptor._open
    refused = 0

    for members in every_subset():
        for bands in ((0,), (1,), (0, 1)):
            message = playing.summed(*members, segments=bands)
            playing.decryptor._open = opened  # so that one key serves all of these
            if thin(members):
                refused += 1
                with pytest.raises(QuorumError, match="must be none or >= class_quorum=2"):
                    playing.decryptor.decrypt(message)
            else:
                check_opened(playing, session, members, message)

    assert refused > 30


def check_opened(playing: Round, session: Session, members: tuple[str, ...], message: EncryptedSum) -> None:
    """What opens is right; what does not lacks its own quorum."""
    inputs = make_inputs(session)
    quorate = {
        part.index for part in session.segments if len(set(part.holders) & set(members)) >= part.quorum
    }
    if not set(message.ciphertexts) <= quorate:
        with pytest.raises(QuorumError, match="surviving holders"):
            playing.decryptor.decrypt(message)
        return
    found = playing.decryptor.decrypt(message)
    for index in message.ciphertexts:
        part = session.segments[index]
        assert found.integers(index)[: part.length].tolist() == plain_sum(inputs, part, members)


@SHAPES
def test_where_classes_do_not_count_a_server_opens_one_client_among_zeros(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: with all of rank 4 adding zeros, the sum over them and one client of rank 8 is that client's update."""
    monkeypatch.setattr(checks, "check_classes", lambda *_: None)
    playing = begin(session, charge=charge_for(class_quorum=QUORUM))
    members = (LARGE[0], *SMALL)

    found = playing.decryptor.decrypt(playing.summed(*members, segments=(0,)))

    rest = plain_sum(make_inputs(session), session.segments[0], SMALL)  # known to be zero in an attack
    update = make_inputs(session)[LARGE[0]][0].values
    assert (found.integers(0)[:20] - rest).tolist() == update.tolist()


@BOTH
@SHAPES
def test_whoever_drops_out_a_thin_class_is_left_out(session: Session, services: Services) -> None:
    """Over every set of clients that upload: the sums are those of the classes that are large enough, or nothing opens."""
    for stayed in every_subset():
        counted = tuple(
            member
            for kind in (LARGE, SMALL)
            if len(set(kind) & set(stayed)) >= QUORUM
            for member in kind
            if member in stayed
        )
        meeting = Meeting.of(session, charge_for(services=services, class_quorum=QUORUM))
        meeting.fix()
        meeting.take(*stayed)
        if len(counted) < 4:
            with pytest.raises(BelowThresholdError):
                meeting.server.close_stage()
            continue

        meeting.server.close_stage()
        result = meeting.server.result(same_bindings(session))

        assert result.survivors == meeting.server.contributors == tuple(sorted(counted))
        assert {index: values.tolist() for index, values in result.sums.items()} == {
            part.index: plain_sum(meeting.inputs, part, counted)
            for part in session.segments
            if len(set(part.holders) & set(counted)) >= part.quorum
        }


def test_a_class_that_is_thin_when_it_commits_is_not_asked_for_ciphertexts() -> None:
    """One client of rank 8 alone has nothing to send."""
    meeting = Meeting.of(BANDED, charge_for(class_quorum=QUORUM))
    meeting.fix(LARGE[0], *SMALL)

    assert tuple(meeting.server.requests()) == SMALL


def test_a_verifier_signs_sums_of_whole_classes_alone() -> None:
    """A class may be left out; a part of one, or of the other beside it, may not."""
    charge = charge_for(services=VERIFIED, class_quorum=QUORUM)
    playing = begin(BANDED, charge=charge)
    verifier = Verifier(charge, parties.TRUST, parties.service_identity("verifier"))
    verifier.follow(BANDED, playing.key)
    verifier.fix_inputs(playing.committed)
    for member in SEVEN:
        verifier.handle_input(playing.inputs[member])

    for members in (SEVEN[:-1], (*LARGE[:2], *SMALL), SMALL[1:]):
        with pytest.raises(RosterError, match="but for whole classes"):
            verifier.sign_sum(playing.summed(*members, segments=(0,)))

    verifier.sign_sum(playing.summed(*SMALL, segments=(0,)))


def test_a_server_that_keeps_a_thin_class_gets_nothing_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """An aggregator that leaves nobody out is refused by the decryptor by name."""
    meeting = Meeting.of(BANDED, charge_for(class_quorum=QUORUM))
    meeting.fix()
    meeting.take(LARGE[0], *SMALL)
    monkeypatch.setattr(EncryptionTerms, "thin_classes", thin_once(EncryptionTerms.thin_classes))

    with pytest.raises(ServiceError, match="the decryptor: QuorumError: 1 contributors of rank 8"):
        meeting.sums(same_bindings(BANDED))


def thin_once(honest: object) -> object:
    """The classes as the server sees them, which is not at all, and then as the decryptor does."""
    calls = []

    def seen(terms: EncryptionTerms, present: object) -> object:
        calls.append(present)
        return () if len(calls) == 1 else honest(terms, present)  # type: ignore[operator]

    return seen


def test_a_session_with_a_lower_class_quorum_gets_no_key() -> None:
    """The decryptor and the verifier know from their own operator how many of a class it takes."""
    for quorum in (0, 1):
        session = replace(BANDED, class_quorum=quorum)
        with pytest.raises(QuorumError, match=f"class_quorum={quorum} must be >= 2"):
            begin(session, charge=charge_for(class_quorum=QUORUM))


@pytest.mark.parametrize("position", [0, 6])
def test_ranks_are_those_of_the_certificates(position: int) -> None:
    """A session that puts a client into another class than its certificate's is refused by whoever derives terms from it."""
    ranks = list(BANDED.ranks)
    ranks[position] = 4 if position == 0 else 8
    lying = replace(BANDED, ranks=tuple(ranks))

    with pytest.raises(EnrolmentError, match=f"{SEVEN[position]!r} is enrolled with rank"):
        begin(lying, charge=charge_for(class_quorum=QUORUM))
    with pytest.raises(EnrolmentError):
        parties.terms_of(lying)


def test_a_worker_keeps_sums_of_classes_apart_and_forgets_them() -> None:
    """One sum per class, of which a server asks for some; nothing of a session is left afterwards."""
    worker = Worker()
    meeting = Meeting.of(BANDED, charge_for(class_quorum=QUORUM))
    made = {member: meeting.made(member) for member in SEVEN}
    sums = GuardedSums(meeting.terms, LocalChannel(worker))
    for position, member in enumerate(SEVEN, start=1):
        sums.add(position, made[member].ciphertexts)
    assert len(worker._sessions) == 2
    sums.take_back(7, made[SEVEN[6]].ciphertexts)

    with pytest.raises(RosterError):
        sums.sums(frozenset(range(1, 7)), frozenset((1, 2, 4, 5, 6)))
    found = sums.sums(frozenset(range(1, 7)), frozenset((4, 5, 6)))

    reference = GuardedSums(parties.terms_of(replace(BANDED, class_quorum=0)), LocalChannel(Worker()))
    for position in (4, 5, 6):
        reference.add(position, made[SEVEN[position - 1]].ciphertexts)
    assert found == reference.sums(frozenset((4, 5, 6)), frozenset((4, 5, 6)))
    assert not worker._sessions


def test_a_service_that_would_play_a_client_is_no_member() -> None:
    """A session whose member is enrolled as a service is refused by name, by clients and services alike."""
    key = SigningKey.generate()
    authority = ThrowawayAuthority.create(
        dict.fromkeys(names(3), 4),
        now=NOW,
        services={"client-04": key.public, **{n: k.public for n, k in parties.SERVICE_KEYS.items()}},
    )
    session = make_session(4)

    with pytest.raises(EnrolmentError, match="'client-04' is enrolled as a service"):
        EncryptionTerms(session=session, profile=BFV_2X20, trust=authority.view, services=ALONE)
    service = KeyedService("decryptor", parties.SERVICE_KEYS["decryptor"])
    service.set_up(Setup(charge=charge_for(), trust=authority.view))
    with pytest.raises(ProtocolError, match="'client-04' is enrolled as a service"):
        LocalChannel(service).call(SessionRequest(session=session).to_bytes())


# --- every set of contributors ---

RANKED = make_session(6, segment(0, 20, names(6), 2), ranks=(2, 2, 2, 4, 4, 4), class_quorum=2, threshold=4)


def test_no_sum_shows_a_thin_class() -> None:
    """Over every set of contributors of a cohort of two classes of three: it opens if of each there are none or two."""
    playing = ranked_round(RANKED)
    session = playing.session
    terms = playing.terms
    for size in range(7):
        for members in combinations(session.members, size):
            counts = [sum(m in members for m in session.members[at : at + 3]) for at in (0, 3)]
            fit = all(count == 0 or count >= 2 for count in counts)
            present = frozenset(map(session.position, members))
            if fit:
                checks.check_classes(terms, present)
            else:
                with pytest.raises(QuorumError, match="contributors of rank"):
                    checks.check_classes(terms, present)
            if size >= session.threshold and not fit:
                with pytest.raises(QuorumError, match="contributors of rank"):
                    playing.decryptor.decrypt(playing.summed(*members))
    playing.decryptor.decrypt(playing.summed(*session.members[:2], *session.members[3:5]))
