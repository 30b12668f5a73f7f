"""The keys under which shares are sealed: one for each session and direction, whatever else would stop a replay."""

import pytest

from protocols.masking import client
from protocols.primitives.sealed import seal
from protocols.primitives.secret import RandomBytes, Secret
from protocols.session import Session
from tests.contracts.sessions import make_session
from tests.protocols.masking.parties import advertise, share

COUNT = 4


def keys_of(session: Session, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Every key that a session's clients seal with, in order of sender and recipient; clients repeat their randomness."""
    used: list[bytes] = []

    def recorded(key: Secret, plaintext: Secret, *, context: bytes, random_bytes: RandomBytes) -> bytes:
        used.append(bytes(key))
        return seal(key, plaintext, context=context, random_bytes=random_bytes)

    monkeypatch.setattr(client, "seal", recorded)
    share(session, *advertise(session))
    return used


def test_each_direction_has_a_sealing_key_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two clients have one secret in common, and seal with two keys: a bundle that is sent back does not open."""
    used = keys_of(make_session(COUNT), monkeypatch)

    assert len(used) == COUNT * (COUNT - 1)
    assert len(set(used)) == len(used)


@pytest.mark.parametrize(
    "change", [{"round": 2}, {"attempt": 2}, {"run": bytes(16)}, {"config_digest": bytes(32)}]
)
def test_each_session_has_sealing_keys_of_its_own(
    change: dict[str, int | bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients that draw the same private keys again seal with other keys, for another session has another context."""
    first = keys_of(make_session(COUNT), monkeypatch)
    again, other = (
        keys_of(make_session(COUNT), monkeypatch),
        keys_of(make_session(COUNT, **change), monkeypatch),
    )

    assert again == first
    assert not set(other) & set(first)
