"""A session refuses terms that contradict each other, and its context commits to every one of them."""

import hashlib
import struct
from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.errors import (
    CapacityError,
    ProtocolError,
    QuorumError,
    RosterError,
    SessionError,
    ThresholdError,
    WireError,
)
from protocols.session import ExtraReveal, Segment, Session
from tests.contracts.sessions import PROPERTY, make_session, names, narrowed, segment, sessions

MEMBERS = names(4)


def encode(session: Session) -> bytes:
    """The documented layout, written with `struct` alone."""
    data = b"RS\x02\x01" + session.run
    data += struct.pack("<IIHI", session.round, session.attempt, session.threshold, session.input_bound)
    data += bytes([session.ring_bits]) + session.config_digest + struct.pack("<H", len(session.members))
    for member in session.members:
        data += struct.pack("<H", len(member)) + member.encode("ascii")
    data += struct.pack("<H", len(session.ranks))
    data += b"".join(struct.pack("<H", rank) for rank in session.ranks)
    data += struct.pack("<HH", session.class_quorum, len(session.segments))
    for part in session.segments:
        data += struct.pack("<IHBB", part.length, part.quorum, part.extra_secrets, part.extra_reveal)
        for listed in (part.members, part.holders):
            data += struct.pack("<H", len(listed))
            data += b"".join(struct.pack("<H", session.members.index(member) + 1) for member in listed)
    return data


@st.composite
def ringed(draw: st.DrawFn) -> Session:
    """Sessions in every ring, some of whose segments have extra secrets."""
    session = narrowed(draw(sessions()), draw(st.sampled_from([16, 20, 24, 32])))
    extra, rule = draw(st.sampled_from([0, 1, 255])), draw(st.sampled_from(ExtraReveal))
    segments = tuple(replace(part, extra_secrets=extra, extra_reveal=rule) for part in session.segments)
    ranks = draw(st.one_of(st.just(()), st.tuples(*[st.integers(1, 2**16 - 1)] * len(session.members))))
    return replace(
        session, segments=segments, ranks=ranks, class_quorum=draw(st.integers(0, 9)) if ranks else 0
    )


@PROPERTY
@given(session=ringed())
def test_the_context_is_the_hash_of_all_terms(session: Session) -> None:
    """The context is SHA-256 of a prefix and of the terms in their documented layout."""
    context = session.context

    assert session.to_bytes() == encode(session)
    assert context == hashlib.sha256(b"rbla-secure session\x00" + encode(session)).digest()


@PROPERTY
@given(session=ringed())
def test_a_session_survives_the_wire(session: Session) -> None:
    """Decoding the bytes of a session gives an equal session."""
    decoded = Session.from_bytes(session.to_bytes())

    assert decoded == session
    assert decoded.context == session.context


@pytest.mark.parametrize(
    "change",
    [
        {"run": bytes(16)},
        {"round": 2},
        {"attempt": 2},
        {"threshold": 4},
        {"input_bound": 999},
        {"config_digest": bytes(32)},
        {"members": (*MEMBERS[:3], "client-05"), "segments": (segment(0, 5, MEMBERS[:3]),)},
        {"segments": (segment(0, 6, MEMBERS),)},
        {"segments": (segment(0, 5, MEMBERS[:3]),)},
        {"segments": (segment(0, 5, MEMBERS, 2),)},
        {"segments": (segment(0, 5, MEMBERS), segment(1, 5, MEMBERS))},
        {"segments": (segment(0, 5, MEMBERS, holders=MEMBERS[:3]),)},
        {"segments": (segment(0, 5, MEMBERS, extra_secrets=1),)},
        {"segments": (segment(0, 5, MEMBERS, extra_reveal=ExtraReveal.BEYOND_MISSING),)},
        {"ring_bits": 24},
    ],
)
def test_every_term_changes_the_context(change: dict[str, Any]) -> None:
    """Two sessions that differ in one term have different contexts."""
    session = make_session()

    other = make_session(**change)

    assert other.context != session.context
    assert other != session


@pytest.mark.parametrize("size", [0, 15, 17])
def test_a_run_has_16_bytes(size: int) -> None:
    """A run of another size raises SessionError."""
    with pytest.raises(SessionError):
        make_session(run=bytes(size))


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_configuration_digest_has_32_bytes(size: int) -> None:
    """A digest of another size raises SessionError."""
    with pytest.raises(SessionError):
        make_session(config_digest=bytes(size))


@pytest.mark.parametrize("field", ["round", "attempt"])
@pytest.mark.parametrize("number", [-1, 0, 2**32])
def test_rounds_and_attempts_count_from_one(field: str, number: int) -> None:
    """A round or attempt outside 1..2^32-1 raises SessionError."""
    with pytest.raises(SessionError):
        make_session(**{field: number})


@pytest.mark.parametrize(
    ("count", "threshold"), [(2, 1), (2, 3), (4, 2), (4, 5), (5, 2), (5, 6), (4, 0), (4, -3)]
)
def test_thresholds_need_more_than_half(count: int, threshold: int) -> None:
    """A threshold of half of the members or fewer, or of more than all, raises ThresholdError."""
    with pytest.raises(ThresholdError):
        make_session(count, threshold=threshold)


@pytest.mark.parametrize(("count", "threshold"), [(2, 2), (3, 2), (3, 3), (4, 3), (5, 3), (5, 5)])
def test_thresholds_above_half_are_accepted(count: int, threshold: int) -> None:
    """Every threshold from just above half to all members is legal."""
    session = make_session(count, threshold=threshold)

    assert session.threshold == threshold


@pytest.mark.parametrize("count", [2, 3, 4, 7, 99])
def test_the_sum_must_fit_the_ring(count: int) -> None:
    """The largest bound that cannot wrap is accepted; one more raises CapacityError."""
    largest = (2**30 - 1) // count

    session = make_session(count, input_bound=largest)

    assert session.input_bound == largest
    with pytest.raises(CapacityError):
        make_session(count, input_bound=largest + 1)


@pytest.mark.parametrize("bits", [16, 20, 24, 32])
@pytest.mark.parametrize("count", [2, 3, 4, 7, 99])
def test_the_sum_must_fit_its_ring(count: int, bits: int) -> None:
    """The largest bound is that of the session's own ring, with one bit to spare."""
    largest = (2 ** (bits - 2) - 1) // count

    session = make_session(count, input_bound=largest, ring_bits=bits)

    assert (session.input_bound, session.ring_bits) == (largest, bits)
    with pytest.raises(CapacityError, match=f"{bits} bits"):
        make_session(count, input_bound=largest + 1, ring_bits=bits)


@pytest.mark.parametrize("bits", [-16, 0, 8, 12, 15, 31, 33, 64])
def test_a_ring_that_does_not_exist_is_refused(bits: int) -> None:
    """Another number of bits than the four of the format raises SessionError."""
    with pytest.raises(SessionError, match=f"ring_bits={bits}"):
        make_session(ring_bits=bits)


@pytest.mark.parametrize("bound", [0, -1, 2**31, 2**64])
def test_bounds_outside_the_ring_are_refused(bound: int) -> None:
    """A bound that is not positive, or larger than the ring, raises CapacityError."""
    with pytest.raises(CapacityError):
        make_session(input_bound=bound)


@pytest.mark.parametrize(
    "members",
    [
        ("b", "a"),
        ("a", "a"),
        ("a", "b", "b"),
        ("a", ""),
        ("-a", "b"),
        (".a", "b"),
        ("_a", "b"),
        ("a", "b c"),
        ("a", "b\n"),
        ("a", "b/c"),
        ("a", "bé"),
        ("a", "b" * 65),
        ("a",),
        (),
    ],
)
def test_bad_rosters_are_refused(members: tuple[str, ...]) -> None:
    """Malformed, repeated or unsorted names, and fewer than two of them, raise RosterError."""
    part = Segment(index=0, length=1, members=("a",), quorum=1)

    with pytest.raises(RosterError):
        make_session(members=members, threshold=len(members), segments=(part,))


@pytest.mark.parametrize("name", ["a", "Z9", "0", "a.b_c-d", "x" * 64])
def test_good_names_are_accepted(name: str) -> None:
    """Letters, digits, dot, underscore and dash, up to 64 characters, make a client id."""
    members = tuple(sorted((name, "client")))

    session = make_session(members=members, threshold=2, segments=(segment(0, 1, members),))

    assert session.client_at(session.position(name)) == name


@pytest.mark.parametrize("length", [0, -1, 2**32])
def test_segment_lengths_are_positive(length: int) -> None:
    """A segment with no element, or more than 2^32-1, raises SessionError."""
    with pytest.raises(SessionError):
        segment(0, length, MEMBERS)


@pytest.mark.parametrize("quorum", [0, -1, 5])
def test_quorums_fit_the_members(quorum: int) -> None:
    """A quorum below one or above the segment's members raises QuorumError."""
    with pytest.raises(QuorumError):
        segment(0, 5, MEMBERS, quorum)


def test_a_segment_has_members() -> None:
    """A segment that nobody holds raises QuorumError."""
    with pytest.raises(QuorumError):
        segment(0, 5, ())


@pytest.mark.parametrize(
    "segments",
    [
        (),
        (segment(1, 5, MEMBERS),),
        (segment(0, 5, MEMBERS), segment(0, 5, MEMBERS)),
        (segment(1, 5, MEMBERS), segment(0, 5, MEMBERS)),
        (segment(0, 5, MEMBERS), segment(2, 5, MEMBERS)),
    ],
)
def test_segments_are_numbered_in_order(segments: tuple[Segment, ...]) -> None:
    """No segment, or segments out of order, raise SessionError."""
    session = make_session()

    with pytest.raises(SessionError):
        replace(session, segments=segments)


@pytest.mark.parametrize(
    "members",
    [("client-05",), ("client-01", "stranger"), ("client-02", "client-01"), ("client-01", "client-01")],
)
def test_segment_members_are_members_in_order(members: tuple[str, ...]) -> None:
    """A stranger, a repeated or an unsorted member of a segment raises RosterError."""
    part = segment(0, 5, members)

    with pytest.raises(RosterError):
        make_session(4, part)


# Holders and extra secrets.


def test_all_members_hold_a_segment_unless_told_otherwise() -> None:
    """Without holders a segment is the one whose holders are all its members, on the wire too."""
    implicit, explicit = segment(0, 5, MEMBERS), segment(0, 5, MEMBERS, holders=MEMBERS)

    sessions_of_both = [make_session(4, part) for part in (implicit, explicit)]

    assert implicit == explicit
    assert implicit.holders == MEMBERS
    assert sessions_of_both[0].to_bytes() == sessions_of_both[1].to_bytes()


@pytest.mark.parametrize("quorum", [0, -1, 3, 4])
def test_quorums_fit_the_holders(quorum: int) -> None:
    """A quorum that only padding members could reach raises QuorumError."""
    with pytest.raises(QuorumError):
        segment(0, 5, MEMBERS, quorum, holders=MEMBERS[:2])


@pytest.mark.parametrize(
    "holders",
    [
        ("client-04",),
        ("client-01", "stranger"),
        ("client-02", "client-01"),
        ("client-01", "client-01"),
        ("client-01", "client-05"),
        ("not a name",),
    ],
)
def test_holders_are_members_of_the_segment_in_order(holders: tuple[str, ...]) -> None:
    """A holder outside the segment, repeated or unsorted, raises RosterError."""
    part = segment(0, 5, MEMBERS[:3], holders=holders)

    with pytest.raises(RosterError):
        make_session(4, part)


@pytest.mark.parametrize("number", [0, 1, 255])
def test_a_segment_has_room_for_extra_secrets(number: int) -> None:
    """Up to 255 extra secrets survive the wire."""
    session = make_session(4, segment(0, 5, MEMBERS, extra_secrets=number))

    decoded = Session.from_bytes(session.to_bytes())

    assert decoded.segments[0].extra_secrets == number


@pytest.mark.parametrize("rule", ExtraReveal)
def test_what_is_given_out_of_extra_secrets_is_one_of_the_terms(rule: ExtraReveal) -> None:
    """The rule of a segment survives the wire; a number that names none raises WireError."""
    session = make_session(4, segment(0, 5, MEMBERS, extra_secrets=3, extra_reveal=rule))
    data = bytearray(session.to_bytes())
    place = (
        len(data) - 2 * (2 + 2 * len(MEMBERS)) - 1
    )  # before the members and the holders of the only segment

    assert data[place] == rule
    assert Session.from_bytes(bytes(data)).segments[0].extra_reveal is rule
    data[place] = len(ExtraReveal)
    with pytest.raises(WireError, match=f"extra_reveal={len(ExtraReveal)} must be one of 0, 1"):
        Session.from_bytes(bytes(data))


@pytest.mark.parametrize("number", [-1, 256])
def test_too_many_extra_secrets_are_refused(number: int) -> None:
    """A number of extra secrets that does not fit one byte raises SessionError."""
    with pytest.raises(SessionError, match=f"extra_secrets={number}"):
        segment(0, 5, MEMBERS, extra_secrets=number)


def test_a_member_that_only_pads_owes_its_segment() -> None:
    """Whether a member holds a segment changes nothing in what it uploads."""
    session = make_session(4, segment(0, 5, MEMBERS, holders=MEMBERS[:2]))

    assert [part.index for part in session.segments_of(MEMBERS[3])] == [0]


def test_positions_count_from_one_in_roster_order() -> None:
    """Positions and names are each other's inverse."""
    session = make_session()

    positions = [session.position(member) for member in MEMBERS]

    assert positions == [1, 2, 3, 4]
    assert tuple(map(session.client_at, positions)) == MEMBERS


@pytest.mark.parametrize("name", ["stranger", "", "client-1", "CLIENT-01"])
def test_a_stranger_has_no_position(name: str) -> None:
    """A name outside the roster raises RosterError."""
    session = make_session()

    with pytest.raises(RosterError):
        session.position(name)


@pytest.mark.parametrize("position", [-1, 0, 5, 2**16])
def test_positions_outside_the_roster_are_refused(position: int) -> None:
    """Zero, negative and too large positions raise RosterError."""
    session = make_session()

    with pytest.raises(RosterError):
        session.client_at(position)


def test_segments_of_a_member_are_those_that_list_it() -> None:
    """A member contributes to its segments in their order."""
    session = make_session(
        4, segment(0, 5, MEMBERS), segment(1, 4, MEMBERS[2:]), segment(2, 3, (MEMBERS[0], MEMBERS[3]))
    )

    held = {member: [part.index for part in session.segments_of(member)] for member in MEMBERS}

    assert held == {MEMBERS[0]: [0, 2], MEMBERS[1]: [0], MEMBERS[2]: [0, 1], MEMBERS[3]: [0, 1, 2]}


def test_a_session_cannot_be_changed() -> None:
    """No term can be assigned after construction, so the context stays true."""
    session = make_session()

    for part in fields(session):
        with pytest.raises(FrozenInstanceError):
            setattr(session, part.name, None)
        with pytest.raises(FrozenInstanceError):
            delattr(session, part.name)


def test_every_truncation_and_extension_of_the_bytes_is_refused() -> None:
    """Bytes that are cut anywhere, or longer, raise WireError."""
    data = make_session(4, segment(0, 5, MEMBERS), segment(1, 4, MEMBERS[2:])).to_bytes()

    for wrong in [*(data[:size] for size in range(len(data))), data + b"\x00"]:
        with pytest.raises(WireError):
            Session.from_bytes(wrong)


@PROPERTY
@given(session=ringed(), place=st.integers(0, 2**16), change=st.integers(1, 255))
def test_changed_bytes_are_another_session_or_none(session: Session, place: int, change: int) -> None:
    """Changing any byte gives a session with another context, or a ProtocolError."""
    data = bytearray(session.to_bytes())
    data[place % len(data)] ^= change

    try:
        decoded = Session.from_bytes(bytes(data))
    except ProtocolError:
        decoded = None

    assert decoded is None or (decoded.context != session.context and decoded.to_bytes() == bytes(data))


@PROPERTY
@given(data=st.binary(max_size=200))
def test_random_bytes_are_no_session(data: bytes) -> None:
    """Random bytes behind a right header decode to canonical terms or raise a ProtocolError."""
    message = b"RS\x02\x01" + data

    try:
        decoded = Session.from_bytes(message)
    except ProtocolError:
        decoded = None

    assert decoded is None or decoded.to_bytes() == message


def test_decoded_terms_are_checked() -> None:
    """Bytes that spell a threshold of half are refused like the constructor refuses it."""
    data = make_session().to_bytes()
    wrong = data[:28] + struct.pack("<H", 2) + data[30:]

    with pytest.raises(ThresholdError):
        Session.from_bytes(wrong)


def test_a_decoded_ring_is_checked() -> None:
    """Bytes that spell a ring of 17 bits are refused like the constructor refuses them."""
    data = make_session().to_bytes()
    place = 28 + 2 + 4  # behind threshold and bound

    with pytest.raises(SessionError, match="ring_bits=17"):
        Session.from_bytes(data[:place] + bytes([17]) + data[place + 1 :])


@pytest.mark.parametrize("position", [0, 5])
@pytest.mark.parametrize("place", [-6, -2], ids=["member", "holder"])
def test_decoded_positions_lie_in_the_roster(position: int, place: int) -> None:
    """A segment member or holder at a position outside the roster raises RosterError."""
    data = bytearray(make_session(4, segment(0, 5, MEMBERS[:1])).to_bytes())
    struct.pack_into("<H", data, len(data) + place, position)

    with pytest.raises(RosterError):
        Session.from_bytes(bytes(data))


@pytest.mark.parametrize("place", [-8, -4], ids=["members", "holders"])
def test_a_decoded_segment_has_members_and_holders(place: int) -> None:
    """An empty list raises RosterError: what means all members has another form."""
    data = bytearray(make_session(4, segment(0, 5, MEMBERS[:1])).to_bytes())
    struct.pack_into("<H", data, len(data) + place, 0)
    del data[len(data) + place + 2 : len(data) + place + 4]

    with pytest.raises(RosterError):
        Session.from_bytes(bytes(data))


def test_more_members_ranks_or_segments_than_can_be_are_refused_before_they_are_read() -> None:
    """The number alone is enough: the bytes end behind it, and the error is not that they do."""
    data = make_session(3).to_bytes()
    members = (
        4 + 16 + 4 + 4 + 2 + 4 + 1 + 32
    )  # behind head, run, round, attempt, threshold, bound, ring, digest
    ranks = members + 2 + sum(2 + len(name) for name in names(3))
    segments = ranks + 2 + 2

    with pytest.raises(RosterError, match="3 members must be at most 2"):
        Session.from_bytes(data[: members + 2], most_members=2)
    with pytest.raises(SessionError, match="2 ranks must be one for each of 3 members"):
        Session.from_bytes(data[:ranks] + b"\x02\x00")
    with pytest.raises(SessionError, match="7 segments must be at most 6"):
        Session.from_bytes(data[:segments] + b"\x07\x00", most_segments=6)


def test_what_is_within_the_limits_is_read() -> None:
    """The control: the same bytes, where so many members and segments can be."""
    session = make_session(3)

    decoded = Session.from_bytes(session.to_bytes(), most_members=3, most_segments=len(session.segments))

    assert decoded == session
