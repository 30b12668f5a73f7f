"""Secrets never show their content, neither alone nor inside the state that holds them."""

import itertools
from collections.abc import Iterable
from dataclasses import fields, is_dataclass

import pytest

from protocols.masking import client as steps
from protocols.masking.messages import RevealedShares, ShareBundle
from protocols.primitives.agreement import PrivateKey
from protocols.primitives.secret import SYSTEM_RANDOM, Secret
from tests.contracts.sessions import make_inputs, make_session, names, segment
from tests.protocols.masking.parties import advertise, mask, reveal, share

CONTENT = b"\x00\xffnever print me!\x80"
SESSION = make_session(4, segment(0, 5, names(4), 3), segment(1, 3, names(3), 3))


def shows(text: str, content: bytes) -> bool:
    """Whether a text contains some bytes, as hex in either case or as Python writes them."""
    return content.hex() in text.lower() or repr(bytes(content))[2:-1] in text


def secrets_in(value: object) -> Iterable[bytes]:
    """All secret bytes that are reachable from a state through dataclasses, mappings, slots and sequences."""
    if isinstance(value, Secret):
        yield bytes(value)
    elif isinstance(value, PrivateKey):
        yield bytes(value.secret)
    elif is_dataclass(value):
        yield from itertools.chain.from_iterable(
            secrets_in(getattr(value, part.name)) for part in fields(value)
        )
    elif isinstance(value, dict):
        yield from itertools.chain.from_iterable(map(secrets_in, value.values()))
    elif isinstance(value, tuple):
        yield from itertools.chain.from_iterable(map(secrets_in, value))


@pytest.mark.parametrize(
    "text",
    [
        repr(Secret(CONTENT)),
        str(Secret(CONTENT)),
        f"{Secret(CONTENT)}",
        f"{Secret(CONTENT)!r} {Secret(CONTENT)!s} {Secret(CONTENT)!a}",
        "{}".format(Secret(CONTENT)),  # noqa: UP032 - one more way to print
        "%s %r" % (Secret(CONTENT), Secret(CONTENT)),  # noqa: UP031 - and two more
        str([Secret(CONTENT)]),
        str({"key": (Secret(CONTENT),)}),
        repr(ValueError(Secret(CONTENT))),
    ],
)
def test_no_text_form_shows_the_content(text: str) -> None:
    """Every way of turning a secret into text gives its size and nothing of its bytes."""
    assert f"<Secret of {len(CONTENT)} bytes>" in text
    assert not shows(text, CONTENT)
    assert "never" not in text


def test_a_secret_is_bytes() -> None:
    """A secret computes like the bytes it holds."""
    secret = Secret(CONTENT)

    assert secret == CONTENT
    assert len(secret) == len(CONTENT)
    assert hash(secret) == hash(CONTENT)


def test_random_secrets_take_exactly_the_bytes_they_are_given() -> None:
    """The source is asked once, for the size wanted, and its bytes are the secret."""
    asked = []

    def source(size: int) -> bytes:
        asked.append(size)
        return CONTENT[:size]

    secret = Secret.random(7, source)

    assert asked == [7]
    assert bytes(secret) == CONTENT[:7]


def test_the_system_source_does_not_repeat() -> None:
    """By default a thousand secrets are all different and of the size wanted."""
    secrets = {Secret.random(32) for _ in range(1000)}

    assert len(secrets) == 1000
    assert {len(secret) for secret in secrets} == {32}
    assert len(SYSTEM_RANDOM(16)) == 16


def test_no_client_state_shows_a_secret() -> None:
    """The repr of every client state holds none of its private keys, seeds, agreed secrets and shares."""
    advertised, directory = advertise(SESSION)
    shared, deliveries = share(SESSION, advertised, directory)
    masked, _ = mask(SESSION, shared, deliveries, make_inputs(SESSION))
    revealed, _ = reveal(SESSION, masked, survivors=(1, 2, 3, 4))

    for states, least in ((advertised, 2), (shared, 7), (masked, 11), (revealed, 0)):
        for state in states.values():
            hidden = list(secrets_in(state))
            assert len(hidden) >= least
            assert not [content for content in hidden if shows(repr(state), content)]
            assert not [content for content in hidden if shows(str(state), content)]


def test_the_last_state_holds_no_secret() -> None:
    """After revealing, a client's state has nothing left to protect."""
    advertised, directory = advertise(SESSION)
    masked, _ = mask(SESSION, *share(SESSION, advertised, directory), make_inputs(SESSION))

    revealed, _ = reveal(SESSION, masked, survivors=(1, 2, 3, 4))

    assert all(type(state) is steps.Revealed for state in revealed.values())
    assert not [content for state in revealed.values() for content in secrets_in(state)]


def test_no_message_with_shares_shows_them() -> None:
    """The repr of a share bundle and of revealed shares holds none of the shares, decoded or not."""
    share_of_key, share_of_seed = Secret(b"K" * 33), Secret(b"S" * 33)
    bundle = ShareBundle(mask_key_share=share_of_key, self_mask_shares={0: share_of_seed})
    revealed = RevealedShares(
        context=bytes(32),
        sender=1,
        mask_key_shares={2: share_of_key},
        self_mask_shares={(1, 0): share_of_seed},
    )

    messages = [
        bundle,
        ShareBundle.from_bytes(bundle.to_bytes()),
        revealed,
        RevealedShares.from_bytes(revealed.to_bytes()),
    ]

    for text in map(repr, messages):
        assert not shows(text, share_of_key)
        assert not shows(text, share_of_seed)
    assert repr(bundle.to_bytes()) == f"<Secret of {len(bundle.to_bytes())} bytes>"


def test_a_private_key_shows_nothing() -> None:
    """The repr of a private key is the same for all keys."""
    texts = {repr(PrivateKey(Secret(bytes([number]) * 32))) for number in range(3)}

    assert len(texts) == 1
