"""A roster has one encoding, and no other is read."""

import hashlib
from typing import Any

import pytest

from protocols.errors import (
    EnrolmentError,
    SignatureError,
    WireError,
)
from protocols.identity.roster import Roster, RosterEntry
from protocols.wire import MessageType, Writer
from tests.protocols.identity.views import AUTHORITY, NOW, TRUST, roster

# --- the roster ---


def test_a_roster_has_the_documented_bytes() -> None:
    """Numbers, times, entries and signature in this order; the digest leaves out the signature."""
    entry = RosterEntry(client="a", rank=8, fingerprint=bytes(range(32)), key_digest=bytes(range(32, 64)))
    signed = Roster.issue(
        AUTHORITY.key, number=3, least_revocations=2, issued_at=5, expires_at=6, entries=[entry]
    )
    content = bytes.fromhex(
        "52530230 0300000000000000 0200000000000000 0500000000000000 0600000000000000 01000000 010061 0800"
        + bytes(range(64)).hex()
    )

    assert signed.to_bytes() == content + signed.signature
    assert signed.digest == hashlib.sha256(b"rbla-secure roster\x00" + content).digest()
    assert signed.signature == AUTHORITY.key.sign(b"rbla-secure v1 roster\x00" + content)


def test_a_roster_comes_back_and_stands_in_order() -> None:
    """Bytes give the same roster; entries are sorted whatever their order was."""
    first = Roster.from_bytes(TRUST.roster.to_bytes())
    shuffled = roster(*(AUTHORITY.identity(client).certificate for client in ("carol", "alice", "bob")))

    first.verify(AUTHORITY.key.public)
    assert first == TRUST.roster
    assert [entry.client for entry in shuffled.entries] == ["alice", "bob", "carol"]


def test_a_change_of_any_byte_of_a_roster_is_refused() -> None:
    """Flipping a bit raises SignatureError, or WireError or EnrolmentError where the form breaks."""
    data = TRUST.roster.to_bytes()

    for place in range(len(data)):
        changed = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        with pytest.raises((SignatureError, WireError, EnrolmentError)):
            Roster.from_bytes(changed).verify(AUTHORITY.key.public)


@pytest.mark.parametrize("cut", [1, 64, 65, 200])
def test_a_roster_of_another_length_is_refused(cut: int) -> None:
    """A roster that ends early or goes on raises WireError."""
    data = TRUST.roster.to_bytes()

    with pytest.raises(WireError):
        Roster.from_bytes(data[:-cut])
    with pytest.raises(WireError):
        Roster.from_bytes(data + bytes(cut))


@pytest.mark.parametrize("claim", [3, 2**32 - 1])
def test_a_roster_that_claims_more_entries_than_it_has_is_refused(claim: int) -> None:
    """A count beyond the bytes at hand raises WireError."""
    writer = Writer(MessageType.ROSTER).unsigned(1, 8).unsigned(1, 8).unsigned(1, 8).unsigned(2, 8)
    data = writer.unsigned(claim, 4).done()

    with pytest.raises(WireError):
        Roster.from_bytes(data + bytes(64))


@pytest.mark.parametrize(
    "changes",
    [
        *({"number": 0}, {"number": 2**63}, {"least_revocations": 0}, {"least_revocations": 2**63}),
        *({"issued_at": -1}, {"expires_at": NOW}, {"expires_at": 2**62}),
    ],
)
def test_rosters_that_break_a_rule_are_not_issued(changes: dict[str, Any]) -> None:
    """A number or time out of range raises EnrolmentError."""
    with pytest.raises(EnrolmentError):
        roster(**changes)


@pytest.mark.parametrize(
    "entries",
    [[("a", 1), ("a", 1)], [("a", 1), ("a", 2)], [("a/b", 1)], [("", 1)], [("a", -1)], [("a", 2**16)]],
)
def test_entries_that_break_a_rule_are_not_issued(entries: list[tuple[str, int]]) -> None:
    """A client listed twice, a malformed client id or rank raises EnrolmentError."""
    records = [
        RosterEntry(client=client, rank=rank, fingerprint=bytes(32), key_digest=bytes(32))
        for client, rank in entries
    ]

    with pytest.raises(EnrolmentError):
        roster(entries=records)


def test_an_unsorted_roster_is_refused() -> None:
    """The reader does not sort: entries out of order raise EnrolmentError."""
    writer = Writer(MessageType.ROSTER).unsigned(1, 8).unsigned(1, 8).unsigned(1, 8).unsigned(2, 8)
    writer.unsigned(2, 4)
    for client in ("b", "a"):
        writer.text(client).unsigned(1, 2).fixed(bytes(32), 32).fixed(bytes(32), 32)

    with pytest.raises(EnrolmentError, match="increasing"):
        Roster.from_bytes(writer.done() + bytes(64))
