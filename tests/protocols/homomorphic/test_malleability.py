"""Ciphertexts can be computed with: what keeps one client's from being made out of another's, and what happens without it.

The attack throughout: the last client wants the first one's update. It encrypts nothing of its own but uploads the offsets of
everybody less the ciphertexts of all others, so that the honestly verified sum of all is the first one's update alone; or it
repeats what another one has sent.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from protocols.errors import CiphertextError, CommitmentError, KeyUseError, ServiceError, StageError
from protocols.homomorphic import checks, receipts
from protocols.homomorphic.messages import EncryptedInput
from protocols.homomorphic.parties.client import create_encrypted_input, signed
from protocols.homomorphic.receipts import (
    NO_COPY,
    FixedInputs,
    InputReceipt,
    commitment_to,
    commitment_to_copy,
)
from protocols.homomorphic.scheme import polynomials
from protocols.homomorphic.screening.screening import Screening, ScreeningRelease
from protocols.homomorphic.terms import EncryptionTerms, Services
from protocols.interface import SegmentInput
from tests.contracts.sessions import MODEL, make_session, names, plain_sum, same_bindings, segment
from tests.protocols.homomorphic.meeting import (
    ALONE,
    AUTHORITY,
    TRUST,
    VERIFIED,
    Meeting,
    charge_for,
    make_verifier,
    refitted,
)
from tests.protocols.homomorphic.parties.test_decryptor import begin, honest

FIRST, SECOND, THIRD, LAST = MEMBERS = names(4)
WHOLE = make_session(4, segment(0, 20, MEMBERS, 3))
BOTH = pytest.mark.parametrize("services", [ALONE, VERIFIED], ids=["alone", "verified"])


def negated(terms: EncryptionTerms, index: int, ciphertexts: bytes) -> polynomials.Polynomials:
    """Ciphertexts of the negative values."""
    moduli = terms.profile.ciphertext_moduli
    count = terms.profile.ciphertexts(terms.session.segments[index].length)
    pairs = polynomials.decode(ciphertexts, count=count, moduli=moduli, degree=terms.profile.degree)
    primes = np.array(moduli, dtype=np.uint64)[:, None]
    return (primes - pairs) % primes


def cancelling(meeting: Meeting, others: Mapping[str, EncryptedInput]) -> EncryptedInput:
    """The last client's input that leaves of all but one nothing: offsets of four less the ciphertexts of the others."""
    terms, session = meeting.terms, meeting.session
    zeros = {
        part.index: SegmentInput(values=np.zeros(part.length, dtype=np.int64), binding=MODEL)
        for part in session.segments_of(LAST)
    }
    message = create_encrypted_input(terms, LAST, meeting.key, zeros, AUTHORITY.identity(LAST))
    moduli = terms.profile.ciphertext_moduli
    made = {}
    for index, own in message.ciphertexts.items():
        size = {"count": terms.profile.ciphertexts(session.segments[index].length)}
        total = polynomials.decode(own, moduli=moduli, degree=terms.profile.degree, **size)
        for _ in range(len(others)):
            again = polynomials.decode(own, moduli=moduli, degree=terms.profile.degree, **size)
            polynomials.add(total, again, moduli)
        for other in others.values():
            polynomials.add(total, negated(terms, index, other.ciphertexts[index]), moduli)
        made[index] = polynomials.encode(total, moduli)
    return refitted(terms, message, made)


def made_by_the_others(meeting: Meeting) -> dict[str, EncryptedInput]:
    """Everybody's input but the last one's."""
    return {member: meeting.made(member) for member in MEMBERS[:3]}


@BOTH
def test_without_commitments_one_client_is_opened(services: Services) -> None:
    """The control: receipts that are made after the ciphertexts were seen, and the sum is the first client's update."""
    meeting = Meeting.of(WHOLE, charge_for(services=services))
    others = made_by_the_others(meeting)
    forged = cancelling(meeting, {member: others[member] for member in (SECOND, THIRD)})
    everybody = {**others, LAST: forged}
    for member, message in everybody.items():
        meeting.server.receive(member, message.receipt.to_bytes())
    meeting.server.close_stage()
    meeting.server.requests()
    for member, message in everybody.items():
        meeting.server.receive(member, message.to_bytes())

    opened = meeting.sums(same_bindings(WHOLE))

    assert opened[0] == meeting.inputs[FIRST][0].values.tolist()


@BOTH
def test_a_client_that_saw_the_others_ciphertexts_can_use_them_no_more(services: Services) -> None:
    """Aggregator and verifier take what was committed to alone; a receipt made now counts nowhere, and the rest is summed."""
    charge = charge_for(services=services)
    meeting = Meeting.of(WHOLE, charge)
    uploads = {member: meeting.upload(member) for member in MEMBERS}
    seen = {member: EncryptedInput.from_bytes(uploads[member]) for member in (SECOND, THIRD)}
    forged = cancelling(meeting, seen)
    committed = EncryptedInput.from_bytes(uploads[LAST]).receipt
    disguised = replace(forged, receipt=committed)

    with pytest.raises(CommitmentError, match="not the one that it has committed to"):
        meeting.server.receive(LAST, forged.to_bytes())
    with pytest.raises(CiphertextError, match="not those of its receipt"):
        meeting.server.receive(LAST, disguised.to_bytes())
    with pytest.raises(StageError, match="fixed at commit_input"):
        meeting.server.receive(LAST, forged.receipt.to_bytes())
    if meeting.roles.verifier is not None:
        with pytest.raises(CommitmentError, match="not the one that it has committed to"):
            meeting.roles.verifier.call(forged.to_bytes())
        with pytest.raises(CiphertextError, match="not those of its receipt"):
            meeting.roles.verifier.call(disguised.to_bytes())
    for member in MEMBERS[:3]:
        meeting.server.receive(member, uploads[member])

    assert meeting.sums(same_bindings(WHOLE)) == honest(WHOLE, FIRST, SECOND, THIRD)


def test_clients_that_do_not_wait_for_the_list_lose_an_update(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of the client's check: ciphertexts that leave early are cancelled by a receipt that comes late."""
    monkeypatch.setattr(checks, "check_fixed", lambda *_arguments, **_named: None)
    meeting = Meeting.of(WHOLE, charge_for(services=VERIFIED))
    meeting.commit(*MEMBERS[:3])
    unsigned = FixedInputs(
        context=meeting.key.context,
        key_id=meeting.key.key_id,
        receipts={},
        decryptor=bytes(64),
        verifier=bytes(64),
    ).to_bytes()
    early = {member: meeting.client(member).reply(unsigned) for member in MEMBERS[:3]}
    forged = cancelling(
        meeting, {member: EncryptedInput.from_bytes(early[member]) for member in (SECOND, THIRD)}
    )
    meeting.server.receive(LAST, forged.receipt.to_bytes())
    meeting.server.close_stage()
    meeting.server.requests()
    for member, upload in {**early, LAST: forged.to_bytes()}.items():
        meeting.server.receive(member, upload)

    assert meeting.sums(same_bindings(WHOLE))[0] == meeting.inputs[FIRST][0].values.tolist()


# --- repeating what another one has sent ---


def unbound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Digests of ciphertexts alone: whoever repeats one is committed to the same."""

    def careless(_context: bytes, _sender: int, _place: bytes, data: bytes) -> bytes:
        return hashlib.sha256(data).digest()

    monkeypatch.setattr(receipts, "_commitment", careless)


def copied(receipt: InputReceipt, position: int) -> InputReceipt:
    """A receipt seen on its way, in another client's name and signed by it."""
    member = names(4)[position - 1]
    return signed(replace(receipt, sender=position), AUTHORITY.identity(member))


def committing(meeting: Meeting, order: tuple[str, ...]) -> dict[str, EncryptedInput]:
    """Everybody commits in some order, the last client to what it has seen the first one commit to."""
    made = {member: meeting.made(member) for member in MEMBERS[:3]}
    made[LAST] = replace(made[FIRST], receipt=copied(made[FIRST].receipt, 4))
    for member in order:
        meeting.server.receive(member, made[member].receipt.to_bytes())
    meeting.server.close_stage()
    meeting.server.requests()
    return made


ORDERS = {
    "the copier first": (LAST, FIRST, SECOND, THIRD),
    "the copied one first": (FIRST, LAST, SECOND, THIRD),
}
ORDER = pytest.mark.parametrize("committed", ORDERS)
UPLOADED = pytest.mark.parametrize("uploaded", ORDERS)


@ORDER
@UPLOADED
def test_where_digests_name_no_sender_copies_count(
    monkeypatch: pytest.MonkeyPatch, committed: str, uploaded: str
) -> None:
    """The control: when the ciphertexts are sent the copier has them too, and the sum holds the first update twice."""
    unbound(monkeypatch)
    meeting = Meeting.of(WHOLE, charge_for(services=VERIFIED))
    made = committing(meeting, ORDERS[committed])
    for member in ORDERS[uploaded]:
        meeting.server.receive(member, made[member].to_bytes())

    opened = np.array(meeting.sums(same_bindings(WHOLE))[0])

    values = [meeting.inputs[member][0].values for member in MEMBERS[:3]]
    assert (opened == 2 * values[0] + values[1] + values[2]).all()


@BOTH
@ORDER
@UPLOADED
def test_whoever_copies_a_receipt_loses_its_own_place_and_nobody_elses(
    services: Services, committed: str, uploaded: str
) -> None:
    """Whoever commits and uploads first: the copier has no ciphertexts for its digests, and the copied client is in the sum."""
    meeting = Meeting.of(WHOLE, charge_for(services=services))
    made = committing(meeting, ORDERS[committed])
    for member in ORDERS[uploaded]:
        if member != LAST:
            meeting.server.receive(member, made[member].to_bytes())
            continue
        for odd in (made[LAST], replace(made[LAST], ciphertexts=meeting.made(LAST).ciphertexts)):
            with pytest.raises(
                CiphertextError, match=f"{LAST}: the ciphertexts of segment 0 are not those of its"
            ):
                meeting.server.receive(LAST, odd.to_bytes())

    assert meeting.sums(same_bindings(WHOLE)) == honest(WHOLE, FIRST, SECOND, THIRD)


def test_a_verifier_adds_no_copy_either() -> None:
    """It looks for itself: an aggregator that lets the copier in gets no signature with it."""
    charge = charge_for(services=VERIFIED)
    playing = begin(WHOLE, charge=charge, fix=False)
    thief = replace(playing.inputs[FIRST], receipt=copied(playing.inputs[FIRST].receipt, 4))
    listed = replace(playing.committed, receipts=(*playing.committed.receipts[:3], thief.receipt))
    verifier = make_verifier(charge)
    verifier.follow(WHOLE, playing.key)
    verifier.fix_inputs(listed)

    with pytest.raises(CiphertextError, match=f"{LAST}: the ciphertexts of segment 0 are not those of its"):
        verifier.handle_input(thief)
    verifier.handle_input(playing.inputs[FIRST])


@pytest.mark.parametrize("services", [ALONE, VERIFIED], ids=["alone", "verified"])
def test_a_copy_for_screening_is_bound_to_its_sender_too(services: Services) -> None:
    """Without a verifier the aggregator looks, with one the verifier as well."""
    rule = Screening(max_norm=1000.0, release=ScreeningRelease.VALUES)
    meeting = Meeting.of(WHOLE, charge_for(services=services, screening=rule))
    made = {member: meeting.made(member) for member in MEMBERS}
    stolen = replace(made[LAST].receipt, copy_digest=made[FIRST].receipt.copy_digest)
    made[LAST] = replace(made[LAST], receipt=signed(stolen, AUTHORITY.identity(LAST)), copy=made[FIRST].copy)
    for member, message in made.items():
        meeting.server.receive(member, message.receipt.to_bytes())
    meeting.server.close_stage()
    meeting.server.requests()

    with pytest.raises(CiphertextError, match=f"{LAST}: the copy for screening is not that of its receipt"):
        meeting.server.receive(LAST, made[LAST].to_bytes())
    if meeting.roles.verifier is not None:
        meeting.server._calls.evaluation_keys()
        with pytest.raises(ServiceError, match=f"{LAST}: the copy for screening is not that of its receipt"):
            meeting.server._calls.verified_numbers(4, made[FIRST].copy)
    meeting.server.receive(FIRST, made[FIRST].to_bytes())


def test_a_client_that_repeats_its_own_ciphertexts_adds_what_it_may() -> None:
    """Nothing is looked for there: in another segment of its own they are the same values again, which it could have encrypted."""
    session = make_session(4, segment(0, 20, MEMBERS, 3), segment(1, 20, MEMBERS, 3))
    meeting = Meeting.of(session, charge_for(services=VERIFIED))
    made = {member: meeting.made(member) for member in MEMBERS}
    made[LAST] = refitted(meeting.terms, made[LAST], dict.fromkeys((0, 1), made[LAST].ciphertexts[0]))
    meeting.inputs[LAST] = dict.fromkeys((0, 1), meeting.inputs[LAST][0])
    for member, message in made.items():
        meeting.server.receive(member, message.receipt.to_bytes())
    meeting.server.close_stage()
    meeting.server.requests()
    for member, message in made.items():
        meeting.server.receive(member, message.to_bytes())

    assert meeting.sums(same_bindings(session)) == {
        part.index: plain_sum(meeting.inputs, part, MEMBERS) for part in session.segments
    }


def test_a_commitment_is_of_one_session_sender_place_and_ciphertext() -> None:
    """No two of them share a digest, whatever one shifts from one field to the next; and nobody's is of nothing."""
    context, other = bytes(32), bytes(31) + b"\x01"
    data = bytes(range(100))
    found = {
        *(
            commitment_to(c, s, i, d)
            for c in (context, other)
            for s in (1, 256)
            for i in (0, 1, 256)
            for d in (data, b"")
        ),
        *(commitment_to_copy(c, s, d) for c in (context, other) for s in (1, 256) for d in (data, data[:-1])),
    }

    assert len(found) == 2 * 2 * 3 * 2 + 2 * 2 * 2
    assert commitment_to_copy(context, 1, b"") == commitment_to_copy(other, 2, b"") == NO_COPY not in found


def test_a_commitment_has_a_known_value() -> None:
    """What is hashed, byte by byte: parties that put it together in another way complete nothing."""
    text = b"rbla-secure committed ciphertexts 2\x00" + MODEL + b"\x03\x00"

    assert commitment_to(MODEL, 3, 258, b"abc") == hashlib.sha256(text + b"segment\x02\x01abc").digest()
    assert (
        commitment_to_copy(MODEL, 3, b"abc") == hashlib.sha256(text + b"copy\x00\x00\x00\x00\x00abc").digest()
    )


# --- what is left without a verifier ---


def test_without_a_verifier_one_request_opens_another_client_in_every_band() -> None:
    """The stated limit: as many different updates as there are bands, each in its band, by one request for sums."""
    parts = [segment(index, 20, MEMBERS, 3) for index in range(3)]
    session = make_session(4, *parts)
    playing = begin(session)
    victims = dict(enumerate(MEMBERS[:3]))
    lie = replace(
        playing.summed(*MEMBERS),
        ciphertexts={i: playing.inputs[victim].ciphertexts[i] for i, victim in victims.items()},
    )

    found = playing.decryptor.decrypt(lie)

    with pytest.raises(KeyUseError):
        playing.decryptor.decrypt(playing.summed(*MEMBERS))
    terms = charge_for().terms(session, TRUST)
    missing = 3 * terms.profile.offset(4)
    opened = {index: (found.integers(index)[:20] + missing).tolist() for index in victims}
    assert opened == {index: honest(session, victim)[index] for index, victim in victims.items()}
