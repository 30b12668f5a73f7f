"""The decryptor's part of screening: it opens two numbers of each client once, and nothing else."""

from dataclasses import replace

import pytest

from protocols.errors import (
    BelowThresholdError,
    CiphertextError,
    CommitmentError,
    ContextError,
    KeyUseError,
    ProtocolError,
    RosterError,
    ScreeningError,
    ServiceError,
    StageError,
)
from protocols.homomorphic.messages import EncryptedInput
from protocols.homomorphic.scheme import ckks, polynomials
from protocols.homomorphic.scheme.bfv import library
from protocols.homomorphic.screening.messages import EvaluationKeys, ScreeningNumbers
from protocols.homomorphic.screening.screener import Screener
from protocols.homomorphic.screening.screening import (
    CIPHERTEXT_MODULI,
    DEGREE,
    SCALAR_MODULI,
)
from protocols.homomorphic.services.messages import SCREENING
from protocols.homomorphic.services.services import LocalChannel
from tests.contracts.sessions import make_session, segment
from tests.protocols.homomorphic.screening.screened import MEMBERS, RULE, Parties, make_values

# --- the decryptor ---


def numbers_of(parties: Parties, member: str, upload: bytes) -> ScreeningNumbers:
    """What an aggregator sends of a member's upload, where there is no verifier."""
    copy = EncryptedInput.from_bytes(upload).copy
    return parties.server._screening._numbers(parties.session.position(member), copy)


def test_the_decryptor_screens_each_client_once() -> None:
    """A second set of numbers of the same client, another or the same, is refused: it would tell more than the rule."""
    parties = Parties.meet(RULE, make_session(4, segment(0, 50, MEMBERS)))
    uploads = parties.uploads(map(make_values, range(4)))
    numbers = numbers_of(parties, MEMBERS[0], uploads[MEMBERS[0]])
    channel = LocalChannel(parties.decryptor)
    channel.call(numbers.to_bytes())

    with pytest.raises(ScreeningError, match="screened before"):
        channel.call(numbers.to_bytes())


def test_nobody_is_screened_before_the_list_is_fixed_or_beside_it() -> None:
    """Without a list, for a client that is not on it, and for another copy than the committed one: refused by name."""
    parties = Parties.meet(RULE, make_session(4, segment(0, 50, MEMBERS)))
    channel = LocalChannel(parties.decryptor)
    early = parties.made(MEMBERS[3], make_values(3))
    numbers = numbers_of(parties, MEMBERS[3], early.to_bytes())

    with pytest.raises(StageError, match="not fixed yet"):
        channel.call(numbers.to_bytes())
    parties.uploads(map(make_values, range(3)))
    with pytest.raises(CommitmentError, match="client-04: is not on the list"):
        channel.call(numbers.to_bytes())
    with pytest.raises(CommitmentError, match="client-01: the numbers are of another copy"):
        channel.call(replace(numbers, sender=1).to_bytes())


def shapes(numbers: ScreeningNumbers) -> dict[str, tuple[ScreeningNumbers, type[ProtocolError]]]:
    return {
        "another session": (replace(numbers, context=bytes(32)), ContextError),
        "a stranger": (replace(numbers, sender=5), RosterError),
        "position 0": (replace(numbers, sender=0), RosterError),
        "a whole update": (
            replace(
                numbers, squared_norm=bytes(polynomials.size_of(1, moduli=CIPHERTEXT_MODULI, degree=DEGREE))
            ),
            CiphertextError,
        ),
        "two numbers in one": (replace(numbers, squared_norm=2 * numbers.squared_norm), CiphertextError),
        "no number": (replace(numbers, squared_norm=b""), CiphertextError),
        "zeros": (
            replace(numbers, squared_norm=bytes(polynomials.size_of(1, moduli=SCALAR_MODULI, degree=DEGREE))),
            CiphertextError,
        ),
    }


def test_the_decryptor_opens_nothing_but_the_shape_of_numbers() -> None:
    """Numbers of another session, of no member, or of another shape are refused by name, and cost nobody the one time."""
    parties = Parties.meet(RULE, make_session(4, segment(0, 50, MEMBERS)))
    uploads = parties.uploads(map(make_values, range(4)))
    numbers = numbers_of(parties, MEMBERS[0], uploads[MEMBERS[0]])
    channel = LocalChannel(parties.decryptor)

    for odd, error in shapes(numbers).values():
        with pytest.raises(error):
            channel.call(odd.to_bytes())

    channel.call(numbers.to_bytes())


def test_nobody_counts_who_was_not_screened() -> None:
    """An aggregator that leaves the screening out gets nothing decrypted."""
    parties = Parties.meet(RULE, make_session(4, segment(0, 50, MEMBERS)))
    parties.server._screening.screen = lambda _position, _copy: None  # type: ignore[method-assign]
    parties.take(map(make_values, range(4)))

    with pytest.raises(ServiceError, match="ScreeningError: client-01: contributes without having passed"):
        parties.sums()


def test_nobody_counts_who_did_not_pass() -> None:
    """An aggregator that adds a rejected update all the same gets nothing decrypted."""
    parties = Parties.meet(replace(RULE, max_norm=0.01), make_session(4, segment(0, 50, MEMBERS)))
    honest = parties.server._screening.screen

    def lenient(position: int, copy: bytes) -> None:
        with pytest.raises(ScreeningError):
            honest(position, copy)

    parties.server._screening.screen = lenient  # type: ignore[method-assign]
    parties.take(map(make_values, range(4)))

    with pytest.raises(ServiceError, match="contributes without having passed"):
        parties.sums()


def test_when_nobody_passes_the_round_ends_by_name() -> None:
    """A rule that everybody breaks leaves fewer than the threshold."""
    parties = Parties.meet(replace(RULE, max_norm=0.01), make_session(4, segment(0, 50, MEMBERS)))
    for member, upload in parties.uploads(map(make_values, range(4))).items():
        with pytest.raises(ScreeningError):
            parties.server.receive(member, upload)

    with pytest.raises(BelowThresholdError):
        parties.sums()


def test_after_the_sum_nothing_more_is_screened() -> None:
    """With the round key the screening key is gone."""
    parties = Parties.meet(RULE, make_session(4, segment(0, 50, MEMBERS)))
    uploads = parties.uploads(map(make_values, range(4)))
    for member in MEMBERS[:3]:
        parties.server.receive(member, uploads[member])
    late = numbers_of(parties, MEMBERS[3], uploads[MEMBERS[3]])
    parties.sums()

    for request in (late.to_bytes(), SCREENING):
        with pytest.raises(KeyUseError):
            LocalChannel(parties.decryptor).call(request)


def test_evaluation_keys_open_nothing() -> None:
    """Neither secret nor public key is among them, and they are signed by the decryptor for this session."""
    parties = Parties.meet(RULE, make_session(4, segment(0, 50, MEMBERS)))
    parties.server.requests()

    keys = EvaluationKeys.from_bytes(LocalChannel(parties.decryptor).call(SCREENING))

    context = library().context_from(keys.keys, n_threads=1)
    assert not context.has_secret_key()
    assert not context.has_public_key()
    parties.authority.view.verify("decryptor", b"evaluation keys", keys.signed_part(), keys.signature)
    assert keys.context == parties.server._terms.context


def test_a_screener_takes_evaluation_keys_only() -> None:
    """A whole context with its secret key, or none at all, is refused by name."""
    secret = ckks.ScreeningSecret.generate()
    whole = secret._context.serialize(
        save_public_key=True, save_secret_key=True, save_galois_keys=True, save_relin_keys=True
    )

    for keys in (whole, b"", b"\x0a\x00", whole[:1000]):
        with pytest.raises(CiphertextError):
            Screener().answer(EvaluationKeys(context=bytes(32), keys=keys).to_bytes())
