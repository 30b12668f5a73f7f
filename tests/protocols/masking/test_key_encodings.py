"""A key has one name: second encodings of X25519 keys enter neither the server's directory nor a client's.

A corrupt client could otherwise advertise the very key of an honest one under other bytes, which are told apart from it
everywhere, and with which everybody agrees on the same secret.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest

from protocols.errors import KeyAgreementError
from protocols.masking import checks
from protocols.masking.messages import KeyAdvertisement
from protocols.masking.secure_sum import MaskingServer
from protocols.primitives import agreement
from tests.protocols.masking.hostile import SHARE, HostileServer, make_session

VICTIM, PUPPET = 2, 5
TOP_BIT = 2**255


def with_top_bit(key: bytes) -> bytes:
    """The same key to every receiver that follows RFC 7748, in other bytes."""
    return (int.from_bytes(key, "little") | TOP_BIT).to_bytes(32, "little")


def scene() -> HostileServer:
    """Five clients that have advertised; the last one is corrupt."""
    return HostileServer(make_session(5), corrupt=(PUPPET,)).play_before(SHARE)


def second_sealing_key(server: HostileServer) -> KeyAdvertisement:
    """The victim's own sealing key, under the puppet's name and signature."""
    entry = server.advertisements[PUPPET]
    stolen = with_top_bit(server.advertisements[VICTIM].sealing_key)
    return checks.signed(replace(entry, sealing_key=stolen), server.identity(PUPPET))


def second_mask_key(server: HostileServer) -> KeyAdvertisement:
    """The same with the victim's mask key of the first segment."""
    entry = server.advertisements[PUPPET]
    stolen = with_top_bit(server.advertisements[VICTIM].mask_keys[0])
    return checks.signed(replace(entry, mask_keys={**entry.mask_keys, 0: stolen}), server.identity(PUPPET))


EACH = pytest.mark.parametrize("forge", [second_sealing_key, second_mask_key])
Forge = Callable[[HostileServer], KeyAdvertisement]


@EACH
@pytest.mark.parametrize("position", [1, VICTIM, 3, 4])
def test_a_client_refuses_a_directory_with_a_second_encoding(forge: Forge, position: int) -> None:
    """No client gives a share under a directory in which a key has a second name; the honest directory goes on."""
    server = scene()

    with pytest.raises(KeyAgreementError, match="not canonical"):
        server.hand(position, server.directory(forge(server)).to_bytes())

    server.present -= {PUPPET}
    assert server.finish() == server.plain()


@EACH
def test_the_server_refuses_a_second_encoding(forge: Forge) -> None:
    """The advertisement costs the corrupt client its place, and names it."""
    scenery = scene()
    server = MaskingServer(scenery.terms)

    with pytest.raises(KeyAgreementError, match=r"client-05: .*not canonical"):
        server.receive("client-05", forge(scenery).to_bytes())


@EACH
def test_careless_parties_take_one_key_for_two(forge: Forge, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: compared as bytes alone, the two names of one key pass, and every client gives its shares."""
    server = scene()
    for module in (agreement, checks):
        monkeypatch.setattr(module, "check_encoding", lambda _key: None)

    for position in (1, 3, 4):
        assert server.hand(position, server.directory(forge(server)).to_bytes())
