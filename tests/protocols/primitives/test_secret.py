"""Secrets never show their content, neither alone nor inside the state that holds them."""

import base64
import copy
import itertools
import logging
import operator
import pickle
import pprint
import re
import reprlib
import struct
import traceback
from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import pytest

from protocols.masking import client as steps
from protocols.masking.messages import RevealedShares, SegmentShares, ShareBundle
from protocols.masking.secure_sum import Masking
from protocols.primitives.agreement import PrivateKey
from protocols.primitives.secret import SYSTEM_RANDOM, Secret
from protocols.profiles import CONSISTENCY
from tests.contracts.sessions import Play, make_inputs, make_session, names, segment
from tests.protocols.masking.parties import (
    EveryonesMasking,
    ReproducibleMasking,
    advertise,
    agree,
    mask,
    reveal,
    share,
    signed_terms,
    survivor_list,
)

CONTENT = b"\x00\xffnever print me!\x80"
SESSION = make_session(4, segment(0, 5, names(4), 3), segment(1, 3, names(3), 3))
EXTRA_SESSION = make_session(4, segment(0, 5, names(4), extra_secrets=2), segment(1, 3, names(3)))


def shows(text: str, content: bytes) -> bool:
    """Whether a text contains some bytes, as hex in either case or as Python writes them."""
    return bytes(content).hex() in text.lower() or repr(bytes(content))[2:-1] in text


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


# Everything that can be made of a secret without naming bytes: by operators of either side, by methods, by copies.
MADE: dict[str, Callable[[Secret], bytes]] = {
    "slice": lambda secret: secret[2:],
    "whole slice": lambda secret: secret[:],
    "backwards": lambda secret: secret[::-1],
    "sum": lambda secret: secret + b"public",
    "sum from the left": lambda secret: b"public" + secret,
    "sum with a bytearray": lambda secret: bytearray(b"public") + secret,
    "sum of two": lambda secret: secret + secret,
    "in-place sum": lambda secret: operator.iadd(b"public", secret),
    "in-place sum with a bytearray": lambda secret: operator.iadd(bytearray(b"public"), secret),
    "repetition": lambda secret: secret * 2,
    "repetition from the left": lambda secret: 2 * secret,
    "percent": lambda secret: b"key %s" % secret,
    "as a pattern": lambda secret: (secret + b"%d") % 5,
    "as a separator": lambda secret: secret.join([b"a", b"b"]),
    "replaced": lambda secret: secret.replace(b"me", b"you"),
    "translated": lambda secret: secret.translate(None, b"!"),
    "without its head": lambda secret: secret.removeprefix(b"\x00"),
    "without its tail": lambda secret: secret.removesuffix(b"\x80"),
    "stripped": lambda secret: secret.strip(b"\x80"),
    "stripped left": lambda secret: secret.lstrip(b"\x00"),
    "stripped right": lambda secret: secret.rstrip(b"\x80"),
    "centred": lambda secret: secret.center(40),
    "to the left": lambda secret: secret.ljust(40),
    "to the right": lambda secret: secret.rjust(40),
    "filled": lambda secret: secret.zfill(40),
    "without tabs": lambda secret: secret.expandtabs(),
    "lower": lambda secret: secret.lower(),
    "upper": lambda secret: secret.upper(),
    "swapped": lambda secret: secret.swapcase(),
    "capitalized": lambda secret: secret.capitalize(),
    "title": lambda secret: secret.title(),
    "split": lambda secret: secret.split(b" ")[1],
    "split from the right": lambda secret: secret.rsplit(b" ", 1)[0],
    "lines": lambda secret: secret.splitlines()[0],
    "partition": lambda secret: secret.partition(b" ")[2],
    "partition from the right": lambda secret: secret.rpartition(b" ")[0],
    "copy": copy.copy,
    "deep copy": copy.deepcopy,
    "smallest of many": lambda secret: min([secret, secret + b"x"]),
}


@pytest.mark.parametrize("name", MADE)
def test_what_is_made_of_a_secret_is_secret(name: str) -> None:
    """Slices, sums, joins and whatever else the methods of bytes return have the right bytes, and print none of them."""
    made, plain = MADE[name](Secret(CONTENT)), MADE[name](CONTENT)  # type: ignore[arg-type]  # the same of plain bytes

    assert type(made) is Secret
    assert made == plain
    assert shows(repr(plain), plain)  # plain bytes do print
    assert not shows(f"{made}{made!r}{[made]}", plain)


def test_every_method_of_bytes_was_thought_of() -> None:
    """Whatever method of bytes returns bytes or text on this Python keeps the secret or is refused."""
    arguments: dict[str, tuple[Any, ...]] = {
        **dict.fromkeys(("__add__", "__mod__", "split", "rsplit", "partition", "rpartition"), (b" ",)),
        **dict.fromkeys(("removeprefix", "removesuffix"), (b"\x00",)),
        **dict.fromkeys(("center", "ljust", "rjust", "zfill", "__mul__", "__rmul__"), (40,)),
        "__getitem__": (slice(1, None),),
        "replace": (b"m", b"M"),
        "join": ([b"a", b"b"],),
        "translate": (None,),
        "__format__": ("",),
        "__reduce_ex__": (4,),
    }
    # These are how bytes are asked for on purpose, or belong to the class and not to its content.
    aside = {
        "__bytes__",
        "__buffer__",
        "__class__",
        "__dir__",
        "__doc__",
        "__getattribute__",
    }
    plain = b"%s never print me!"

    for name in sorted(set(dir(bytes)) - aside):
        method = getattr(Secret(plain), name)
        if not callable(method):
            continue
        try:
            found = method(*arguments.get(name, ()))
        except TypeError:
            continue
        for part in found if type(found) in (list, tuple) else [found]:
            assert not isinstance(part, bytes) or type(part) is Secret, name
            assert "never" not in f"{part}", name


@pytest.mark.parametrize(
    "show",
    [
        lambda secret: secret.hex(),
        lambda secret: secret.hex(":"),
        lambda secret: secret.decode(),
        lambda secret: secret.decode("latin-1"),
        lambda secret: secret[0],
        list,
        tuple,
        sorted,
        lambda secret: [*secret],
        lambda secret: list(reversed(secret)),
        lambda secret: bytes(byte ^ 1 for byte in secret),
        lambda secret: dict(enumerate(secret)),
        pickle.dumps,
        lambda secret: pickle.dumps({"state": [secret]}),
        lambda secret: f"{secret:>40}",
        lambda secret: f"{secret:x}",
        int,
        float,
        complex,
        operator.index,
        np.array,
        np.asarray,
        lambda secret: np.array([secret, secret]),
        lambda secret: secret.__getnewargs__(),
    ],
)
def test_what_would_show_a_secret_unasked_is_refused(show: Callable[[Secret], object]) -> None:
    """Hex, decoding, numbers, arrays, iteration and pickles raise TypeError, whose text and traceback show nothing."""
    secret = Secret(CONTENT)

    with pytest.raises(TypeError) as caught:
        show(secret)

    report = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert not shows("".join(report.format()), CONTENT)
    assert "never" not in "".join(report.format())


@pytest.mark.parametrize(
    "read",
    [
        bytes,
        bytearray,
        lambda secret: str(secret, "latin-1"),
        lambda secret: re.search(rb"never.*!", secret).group(),  # type: ignore[union-attr]  # it is there
        lambda secret: struct.unpack("2x15s1x", secret)[0],
        lambda secret: base64.b64decode(base64.b64encode(secret)),
        lambda secret: bytearray().__iadd__(secret),
        lambda secret: np.array(secret, dtype="S18"),
        lambda secret: _error_of(lambda: int(secret, 16)),
    ],
)
def test_what_reads_the_buffer_sees_the_bytes(read: Callable[[Secret], object]) -> None:
    """A subclass of bytes cannot keep these from the content, and its docstring says so: one is meant, the others are not."""
    assert "never" in str(read(Secret(CONTENT)))


def _error_of(call: Callable[[], object]) -> str:
    """What an error says."""
    with pytest.raises(ValueError, match="invalid literal") as caught:
        call()
    return str(caught.value)


def test_printers_and_logs_show_no_secret(caplog: pytest.LogCaptureFixture) -> None:
    """Logging, pretty printers and the report of a failed comparison show its size alone."""
    secret = Secret(CONTENT)
    logging.getLogger(__name__).warning("state %s %r %s", secret, [secret], {"key": secret[1:]})
    texts = [caplog.text, pprint.pformat([secret, secret[2:]]), reprlib.repr(secret), ascii(secret)]

    assert not [text for text in texts if shows(text, CONTENT) or "never" in text]
    assert all("<Secret of" in text for text in texts)


def test_a_copy_of_a_state_keeps_its_secrets_secret() -> None:
    """Copying what holds secrets copies no secret into plain bytes: bytes never change, so it is the same object."""
    state = {"keys": [Secret(CONTENT)]}

    assert copy.deepcopy(state)["keys"][0] is state["keys"][0]


def test_a_secret_is_bytes() -> None:
    """A secret computes like the bytes it holds."""
    secret = Secret(CONTENT)

    assert secret == CONTENT
    assert len(secret) == len(CONTENT)
    assert hash(secret) == hash(CONTENT)
    assert type(bytes(secret)) is bytes
    assert int.from_bytes(secret, "big") == int.from_bytes(CONTENT, "big")


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

    for states, least in ((advertised, 2), (shared, 7), (masked, 14), (revealed, 0)):
        for state in states.values():
            hidden = list(secrets_in(state))
            assert len(hidden) >= least
            assert not [content for content in hidden if shows(repr(state), content)]
            assert not [content for content in hidden if shows(str(state), content)]


def test_no_state_of_a_signed_session_shows_a_secret() -> None:
    """The same with identities, extra secrets and a signed survivor list."""
    terms = signed_terms(EXTRA_SESSION, CONSISTENCY)
    extra = {me: {0: [Secret(bytes([me, number]) * 16) for number in range(2)]} for me in range(1, 5)}
    advertised, directory = advertise(terms, extra=extra)
    shared, deliveries = share(terms, advertised, directory)
    masked, uploads = mask(terms, shared, deliveries, make_inputs(EXTRA_SESSION))
    agreed, _ = agree(terms, masked, survivor_list(terms, (1, 2, 3, 4), uploads=uploads))

    for states, least in ((advertised, 2), (shared, 9), (masked, 22), (agreed, 22)):
        for state in states.values():
            hidden = list(secrets_in(state))
            assert len(hidden) >= least
            assert not [content for content in hidden if shows(repr(state), content)]
            assert not [content for content in hidden if shows(str(state), content)]


@pytest.mark.parametrize("answered", range(6))
def test_a_client_that_has_ended_holds_no_secret(answered: int) -> None:
    """Whenever it ends, a client keeps nothing but its session and its place in it."""
    play = Play(ReproducibleMasking(profile=CONSISTENCY), SESSION)
    for stage in EveryonesMasking(CONSISTENCY).stages[:answered]:
        play.play(stage)
    before = {member: list(secrets_in(client._state)) for member, client in play.clients.items()}  # type: ignore[attr-defined]

    for client in play.clients.values():
        client.end()

    for member, client in play.clients.items():
        assert bool(before[member]) == (0 < answered < 5)
        assert not list(secrets_in(client._state))  # type: ignore[attr-defined]
        kept = {name: value for name, value in vars(client).items() if name not in {"_terms", "_identity"}}
        texts = repr(kept)
        assert not [content for content in before[member] if shows(texts, content)]
        assert not [value for value in kept.values() if isinstance(value, (bytes, tuple, dict))]


def test_an_ended_client_keeps_no_extra_secrets() -> None:
    """Secrets that were to be shared beside the seeds go with the rest."""
    secrets = {0: [Secret(bytes(32)), Secret(bytes(32))]}
    client = Masking().client(EXTRA_SESSION, "client-01", extra_secrets=secrets)
    assert client._extra_secrets == secrets

    client.end()

    assert client._extra_secrets is None


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
    extra = Secret(b"E" * 33)
    shares = SegmentShares(mask_key=share_of_key, self_mask=share_of_seed, extra=(extra,))
    bundle = ShareBundle(segments={0: shares})
    revealed = RevealedShares(
        context=bytes(32),
        sender=1,
        mask_key_shares={(2, 0): share_of_key},
        self_mask_shares={(1, 0): share_of_seed},
        extra_shares={(1, 0, 1): extra},
    )

    messages = [
        shares,
        bundle,
        ShareBundle.from_bytes(bundle.to_bytes()),
        revealed,
        RevealedShares.from_bytes(revealed.to_bytes()),
    ]

    for text in map(repr, messages):
        assert not shows(text, share_of_key)
        assert not shows(text, share_of_seed)
        assert not shows(text, extra)
    assert repr(bundle.to_bytes()) == f"<Secret of {len(bundle.to_bytes())} bytes>"


def test_a_private_key_shows_nothing() -> None:
    """The repr of a private key is the same for all keys."""
    texts = {repr(PrivateKey(Secret(bytes([number]) * 32))) for number in range(3)}

    assert len(texts) == 1
