"""The verifier signs one sum per session, and only the very sum of the inputs that it was sent."""

from dataclasses import replace

import pytest

from protocols.errors import (
    CiphertextError,
    CommitmentError,
    ContextError,
    KeyUseError,
    ProtocolError,
    RosterError,
    SignatureError,
    StageError,
)
from protocols.homomorphic.messages import EncryptedInput, EncryptedSum
from protocols.homomorphic.parties.verifier import Verifier
from tests.contracts.sessions import names
from tests.protocols.homomorphic.meeting import (
    TRUST,
    VERIFIED,
    charge_for,
    make_verifier,
)
from tests.protocols.homomorphic.parties.test_decryptor import SESSION, Round, begin

FIRST, SECOND, THIRD, LAST = MEMBERS = names(4)
CHARGE = charge_for(services=VERIFIED)


def following(*members: str) -> tuple[Round, Verifier]:
    """A verifier that was sent the inputs of some members."""
    playing = begin(charge=CHARGE)
    verifier = make_verifier(CHARGE)
    verifier.follow(SESSION, playing.key)
    verifier.fix_inputs(playing.committed)
    for member in members:
        verifier.handle_input(playing.inputs[member])
    return playing, verifier


def test_it_signs_the_sum_of_what_it_was_sent() -> None:
    """Its signature is of the sum's digest, under its own name."""
    playing, verifier = following(FIRST, THIRD, LAST)
    message = playing.summed(FIRST, THIRD, LAST)

    signature = verifier.sign_sum(message).signature

    TRUST.verify("verifier", b"encrypted sum", message.digest, signature)


def test_it_signs_once() -> None:
    """A second sum of the session, the same or a part of it, raises StageError."""
    playing, verifier = following(*MEMBERS)
    verifier.sign_sum(playing.summed(*MEMBERS, segments=(0,)))

    for again in (playing.summed(*MEMBERS), playing.summed(*MEMBERS, segments=(1,))):
        with pytest.raises(StageError):
            verifier.sign_sum(again)


@pytest.mark.parametrize("members", [(FIRST, SECOND, THIRD), (FIRST, SECOND, LAST)])
def test_it_signs_no_other_contributors(members: tuple[str, ...]) -> None:
    """Fewer than it was sent, or others, raise RosterError."""
    playing, verifier = following(FIRST, SECOND, THIRD, LAST)

    with pytest.raises(RosterError):
        verifier.sign_sum(playing.summed(*members))


def lie_about(playing: Round, message: EncryptedSum, kind: str) -> EncryptedSum:
    """What an aggregator could say instead."""
    first = message.ciphertexts[0]
    lies = {
        "one client's ciphertexts": replace(
            message, ciphertexts={0: playing.inputs[FIRST].ciphertexts[0], 1: message.ciphertexts[1]}
        ),
        "one client twice": replace(
            message, ciphertexts={0: playing.summed(FIRST, FIRST, SECOND, THIRD).ciphertexts[0]}
        ),
        "one client less": replace(message, ciphertexts=playing.summed(FIRST, SECOND, THIRD).ciphertexts),
        "another band's": replace(message, ciphertexts={0: message.ciphertexts[1]}),
        "one bit": replace(message, ciphertexts={0: bytes((first[0] ^ 1,)) + first[1:]}),
        "cut": replace(message, ciphertexts={0: first[:-1]}),
        "a band that does not exist": replace(message, ciphertexts={7: first}),
    }
    return lies[kind]


@pytest.mark.parametrize(
    "kind",
    [
        "one client's ciphertexts",
        "one client twice",
        "one client less",
        "another band's",
        "one bit",
        "cut",
        "a band that does not exist",
    ],
)
def test_it_signs_no_other_sum(kind: str) -> None:
    """Anything but its own residues raises CiphertextError; the honest sum is signed afterwards."""
    playing, verifier = following(*MEMBERS)
    message = playing.summed(*MEMBERS)

    with pytest.raises(CiphertextError, match=r"not the sum of the inputs|must be|does not exist"):
        verifier.sign_sum(lie_about(playing, message, kind))

    verifier.sign_sum(message)


def test_it_follows_one_session_under_its_own_key() -> None:
    """Sums of another session or key are refused by name."""
    playing, verifier = following(*MEMBERS)
    message = playing.summed(*MEMBERS)

    with pytest.raises(ContextError):
        verifier.sign_sum(replace(message, context=bytes(32)))
    with pytest.raises(KeyUseError):
        verifier.sign_sum(replace(message, key_id=bytes(32)))


def test_it_takes_an_input_once_and_checks_it() -> None:
    """A repeated input, one with another client's ciphertexts, and one under another key are refused, and change no sum."""
    playing, verifier = following(FIRST, SECOND)
    third = playing.inputs[THIRD]
    swapped = replace(third, ciphertexts=playing.inputs[FIRST].ciphertexts)
    bad: list[tuple[EncryptedInput, type[ProtocolError]]] = [
        (playing.inputs[FIRST], StageError),
        (swapped, CiphertextError),
        (begin(charge=CHARGE).inputs[THIRD], KeyUseError),
        (replace(third, receipt=replace(third.receipt, signature=bytes(64))), CommitmentError),
    ]

    for message, error in bad:
        with pytest.raises(error):
            verifier.handle_input(message)
    verifier.handle_input(third)

    verifier.sign_sum(playing.summed(FIRST, SECOND, THIRD))


def test_it_follows_only_the_decryptors_key_for_the_next_session() -> None:
    """A key that somebody else signed, a session of another plan, and one that was followed before are refused."""
    playing, verifier = following()
    forged = replace(playing.key, signature=bytes(64))

    with pytest.raises(SignatureError):
        make_verifier(CHARGE).follow(SESSION, forged)
    with pytest.raises(StageError):
        verifier.follow(SESSION, playing.key)
    with pytest.raises(ContextError):
        make_verifier(CHARGE).follow(replace(SESSION, config_digest=bytes(32)), playing.key)
    with pytest.raises(ContextError):
        make_verifier(CHARGE).follow(replace(SESSION, round=2), playing.key)


def test_before_a_session_there_is_nothing_to_sign() -> None:
    """A verifier that follows nothing raises StageError."""
    playing = begin(charge=CHARGE)

    with pytest.raises(StageError):
        make_verifier(CHARGE).sign_sum(playing.summed(*MEMBERS))
    with pytest.raises(StageError):
        make_verifier(CHARGE).handle_input(playing.inputs[FIRST])
