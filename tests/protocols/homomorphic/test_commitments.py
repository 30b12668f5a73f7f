"""Ciphertexts can be computed with: what keeps one client's from being made out of another's, and what happens without it.

The attack throughout: the last client wants the first one's update. It encrypts nothing of its own but uploads the offsets of
everybody less the ciphertexts of all others, so that the honestly verified sum of all is the first one's update alone.
"""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest

from protocols.errors import (
    CiphertextError,
    CommitmentError,
    InputError,
    ProtocolError,
    QuorumError,
    SignatureError,
    StageError,
)
from protocols.homomorphic import checks, polynomials
from protocols.homomorphic.client import create_encrypted_input, signed
from protocols.homomorphic.commitments import check_no_copies
from protocols.homomorphic.messages import EncryptedInput, digest_of
from protocols.homomorphic.receipts import CommittedInputs, FixedInputs
from protocols.homomorphic.terms import Services, Terms
from protocols.interface import SegmentInput
from tests.contracts.sessions import MODEL, OTHER_MODEL, make_session, names, same_bindings, segment
from tests.protocols.homomorphic.parties import (
    ALONE,
    AUTHORITY,
    TRUST,
    VERIFIED,
    Meeting,
    charge_for,
    make_verifier,
    service_identity,
)
from tests.protocols.homomorphic.test_decryptor import SESSION, Round, begin, honest
from tests.protocols.homomorphic.test_revocation import ranked_round

FIRST, SECOND, THIRD, LAST = MEMBERS = names(4)
WHOLE = make_session(4, segment(0, 20, MEMBERS, 3))
BOTH = pytest.mark.parametrize("services", [ALONE, VERIFIED], ids=["alone", "verified"])


def negated(terms: Terms, index: int, ciphertexts: bytes) -> polynomials.Polynomials:
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
    receipt = replace(message.receipt, digests={index: digest_of(data) for index, data in made.items()})
    return replace(message, receipt=signed(receipt, AUTHORITY.identity(LAST)), ciphertexts=made)


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


@BOTH
def test_no_client_uploads_before_the_list_is_signed(services: Services) -> None:
    """An aggregator that wants ciphertexts first, so as to add a receipt afterwards, gets none from any client."""
    meeting = Meeting.of(WHOLE, charge_for(services=services))
    meeting.commit(*MEMBERS[:3])
    receipts = {meeting.session.position(m): meeting.client(m)._committed[1].receipt for m in MEMBERS[:3]}  # type: ignore[index]
    listed = FixedInputs(
        context=meeting.key.context,
        key_id=meeting.key.key_id,
        receipts={position: receipt.digest for position, receipt in receipts.items()},
        decryptor=bytes(64),
        verifier=bytes(64) if services.verifier else b"",
    )
    strange = AUTHORITY.identity(LAST).sign(b"fixed inputs", listed.signed_part())

    for message in (listed, replace(listed, decryptor=strange)):
        with pytest.raises(SignatureError):
            meeting.client(FIRST).reply(message.to_bytes())


def test_both_signatures_are_wanted_where_there_is_a_verifier() -> None:
    """A decryptor that colludes with a client signs a list of its own: a client wants the verifier's signature too."""
    meeting = Meeting.of(WHOLE, charge_for(services=VERIFIED))
    meeting.fix()
    listed = FixedInputs.from_bytes(meeting.server.requests()[FIRST])

    for odd in (b"", listed.decryptor, bytes(64)):
        with pytest.raises(SignatureError):
            meeting.client(FIRST).reply(replace(listed, verifier=odd).to_bytes())
    meeting.client(FIRST).reply(listed.to_bytes())

    alone = Meeting.of(WHOLE)
    alone.fix()
    superfluous = FixedInputs.from_bytes(alone.server.requests()[FIRST])
    with pytest.raises(SignatureError, match="where there is no verifier"):
        alone.client(FIRST).reply(replace(superfluous, verifier=bytes(64)).to_bytes())


def test_a_client_wants_its_own_receipt_on_the_list_and_enough_others() -> None:
    """A list without it, with another one for it, or of fewer than the threshold gets no ciphertext, signed or not."""
    meeting = Meeting.of(WHOLE)
    meeting.fix()
    listed = FixedInputs.from_bytes(meeting.server.requests()[FIRST])

    def with_receipts(receipts: dict[int, bytes]) -> bytes:
        changed = replace(listed, receipts=receipts)
        signature = service_identity("decryptor").sign(b"fixed inputs", changed.signed_part())
        return replace(changed, decryptor=signature).to_bytes()

    others = {position: digest for position, digest in listed.receipts.items() if position != 1}
    for receipts in (
        others,
        {**others, 1: listed.receipts[2]},
        {1: listed.receipts[1], 2: listed.receipts[2]},
    ):
        with pytest.raises(CommitmentError):
            meeting.client(FIRST).reply(with_receipts(receipts))


def test_ciphertexts_are_sent_for_one_list() -> None:
    """The client repeats its answer to the same list and answers no other."""
    meeting = Meeting.of(WHOLE)
    meeting.fix()
    listed = FixedInputs.from_bytes(meeting.server.requests()[FIRST])
    upload = meeting.client(FIRST).reply(listed.to_bytes())
    shorter = replace(listed, receipts={p: d for p, d in listed.receipts.items() if p != 2})
    shorter = replace(
        shorter, decryptor=service_identity("decryptor").sign(b"fixed inputs", shorter.signed_part())
    )

    with pytest.raises(StageError, match="for the list it was sent first"):
        meeting.client(FIRST).reply(shorter.to_bytes())

    assert meeting.client(FIRST).reply(listed.to_bytes()) == upload


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


# --- one list per key and round, at both services ---


def services_of(playing: Round) -> dict[str, Callable[[CommittedInputs], bytes]]:
    """Both services, which are asked to fix a list, each on its own."""
    verifier = make_verifier(charge_for(services=VERIFIED))
    verifier.follow(playing.session, playing.key)
    return {"decryptor": playing.decryptor.fix_inputs, "verifier": verifier.fix_inputs}


def verified_round(session: object = SESSION) -> Round:
    """A round whose list is not fixed yet."""
    return begin(session, charge=charge_for(services=VERIFIED), fix=False)  # type: ignore[arg-type]


SERVICES = pytest.mark.parametrize("service", ["decryptor", "verifier"])


@SERVICES
def test_one_list_is_signed_and_no_other(service: str) -> None:
    """The same list gets the same signature; one that is longer, shorter, or has one receipt changed gets none."""
    playing = verified_round()
    fix = services_of(playing)[service]
    first = playing.receipts(*MEMBERS[:3])
    again = create_encrypted_input(
        charge_for(services=VERIFIED).terms(SESSION, TRUST),
        FIRST,
        playing.key,
        {
            part.index: SegmentInput(values=np.zeros(part.length, dtype=np.int64), binding=MODEL)
            for part in SESSION.segments
        },
        AUTHORITY.identity(FIRST),
    )
    signature = fix(first)

    assert fix(first) == signature
    changed = replace(first, receipts=(again.receipt, *first.receipts[1:]))
    for late in (playing.committed, playing.receipts(FIRST, SECOND, LAST), changed):
        with pytest.raises(CommitmentError, match="another list of inputs was fixed"):
            fix(late)


@SERVICES
def test_a_list_with_a_receipt_that_does_not_hold_is_not_signed(service: str) -> None:
    """Forged, foreign, doubled, out of another session or for other segments: refused by name, and an honest one is signed."""
    playing = verified_round()
    fix = services_of(playing)[service]
    whole = playing.committed
    last = whole.receipts[3]
    strange = verified_round(replace(SESSION, attempt=2)).committed.receipts[3]
    unsigned = replace(last, signature=bytes(64))
    renamed = replace(last, sender=2)
    beyond = signed(replace(last, digests={**last.digests, 1: bytes(32)}), AUTHORITY.identity(LAST))
    nothing = signed(replace(last, digests={}), AUTHORITY.identity(LAST))
    other_model = signed(replace(last, binding=OTHER_MODEL), AUTHORITY.identity(LAST))

    for odd in (strange, unsigned, renamed, beyond, nothing, other_model):
        with pytest.raises(ProtocolError):
            fix(replace(whole, receipts=(*whole.receipts[:3], odd)))
    with pytest.raises(ProtocolError):
        fix(CommittedInputs.from_bytes(replace(whole, receipts=(*whole.receipts, last)).to_bytes()))

    fix(whole)


@SERVICES
def test_copies_are_not_signed(service: str) -> None:
    """One client's ciphertexts under another one's name, or twice under its own, would count one update several times."""
    session = make_session(4, segment(0, 20, MEMBERS, 3), segment(1, 20, MEMBERS, 3))
    playing = verified_round(session)
    fix = services_of(playing)[service]
    whole = playing.committed
    first, last = whole.receipts[0], whole.receipts[3]
    copies = {
        "of another": replace(last, digests=first.digests),
        "of one of another's segments": replace(last, digests={**last.digests, 1: first.digests[0]}),
        "of its own other segment": replace(last, digests=dict.fromkeys(last.digests, last.digests[0])),
    }

    for copied in copies.values():
        odd = signed(copied, AUTHORITY.identity(LAST))
        with pytest.raises(CommitmentError, match="listed twice"):
            fix(replace(whole, receipts=(*whole.receipts[:3], odd)))


def test_a_copy_costs_its_sender_the_round_and_nobody_else() -> None:
    """Whoever commits to what another one has committed to already is refused at the aggregator; the rest is summed."""
    meeting = Meeting.of(WHOLE)
    meeting.commit(*MEMBERS[:3])
    copied = meeting.client(FIRST)._committed[1].receipt  # type: ignore[index]
    thief = signed(replace(copied, sender=4), AUTHORITY.identity(LAST))

    with pytest.raises(CommitmentError, match="listed twice"):
        meeting.server.receive(LAST, thief.to_bytes())
    meeting.server.close_stage()
    meeting.server.requests()
    meeting.fixed = True
    meeting.take(*MEMBERS[:3])

    assert meeting.sums(same_bindings(WHOLE)) == honest(WHOLE, *MEMBERS[:3])


def test_without_that_check_copies_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: with two copies of the first client's ciphertexts the sum is three times its update and another one's."""
    for module in ("commitments", "server"):
        monkeypatch.setattr(f"protocols.homomorphic.{module}.check_no_copies", lambda *_arguments: None)
    meeting = Meeting.of(WHOLE, charge_for(services=VERIFIED))
    made = {member: meeting.made(member) for member in (FIRST, SECOND)}
    for position, member in ((3, THIRD), (4, LAST)):
        receipt = signed(replace(made[FIRST].receipt, sender=position), AUTHORITY.identity(member))
        made[member] = replace(made[FIRST], receipt=receipt)
    for member, message in made.items():
        meeting.server.receive(member, message.receipt.to_bytes())
    meeting.server.close_stage()
    meeting.server.requests()
    for member, message in made.items():
        meeting.server.receive(member, message.to_bytes())

    opened = np.array(meeting.sums(same_bindings(WHOLE))[0])

    first, second = (meeting.inputs[member][0].values for member in (FIRST, SECOND))
    assert (opened == 3 * first + second).all()


def test_a_second_receipt_of_one_client_is_refused() -> None:
    """The first one counts, the same or another one afterwards is refused, and after the stage none is taken at all."""
    meeting = Meeting.of(WHOLE)
    meeting.commit(FIRST)
    again = meeting.made(FIRST).receipt.to_bytes()

    for reply in (again, meeting.client(FIRST)._committed[1].receipt.to_bytes()):  # type: ignore[index]
        with pytest.raises(StageError, match="already answered"):
            meeting.server.receive(FIRST, reply)
    meeting.commit(SECOND, THIRD)
    late = meeting.made(LAST).receipt.to_bytes()
    meeting.server.close_stage()
    meeting.server.requests()
    with pytest.raises(StageError):
        meeting.server.receive(LAST, late)


def test_a_list_over_two_models_is_not_signed() -> None:
    """Clients bound to one model are never summed with one that is bound to another, whatever the aggregator wants."""
    playing = verified_round()
    whole = playing.committed
    odd = signed(replace(whole.receipts[3], binding=OTHER_MODEL), AUTHORITY.identity(LAST))
    mixed = replace(whole, receipts=(*whole.receipts[:3], odd))

    for fix in services_of(playing).values():
        with pytest.raises(InputError, match="bound to different models"):
            fix(mixed)


def test_the_server_refuses_commitments_to_another_model_at_once() -> None:
    """An aggregator that knows the model leaves out who commits to another, even where these are the most."""
    meeting = Meeting.of(WHOLE)
    meeting.server.expect(same_bindings(WHOLE))
    for member in MEMBERS[1:2]:
        meeting.inputs[member] = {
            0: SegmentInput(values=meeting.inputs[member][0].values, binding=OTHER_MODEL)
        }
    with pytest.raises(InputError, match=f"{SECOND}: was bound to another model than the server"):
        meeting.commit(SECOND)
    meeting.fix(FIRST, THIRD, LAST)
    meeting.take(FIRST, THIRD, LAST)

    assert meeting.sums(same_bindings(WHOLE)) == honest(WHOLE, FIRST, THIRD, LAST)
    with pytest.raises(InputError, match="bound to 2 models"):
        meeting.server.expect({0: MODEL, 1: OTHER_MODEL})


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

    terms = charge_for().terms(session, TRUST)
    missing = 3 * terms.profile.offset(4)
    opened = {index: (found.integers(index)[:20] + missing).tolist() for index in victims}
    assert opened == {index: honest(session, victim)[index] for index, victim in victims.items()}


# --- classes of view, at the decryptor ---

RANKED = make_session(6, segment(0, 20, names(6), 2), ranks=(2, 2, 2, 4, 4, 4), class_quorum=2, threshold=4)


def test_no_sum_shows_a_thin_class() -> None:
    """Over every set of contributors of a cohort of two classes of three: it opens if of each there are none or two."""
    playing = ranked_round(RANKED)
    session = playing.session
    terms = playing.terms
    for size in range(7):
        for members in itertools.combinations(session.members, size):
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


def test_check_no_copies_is_about_bytes() -> None:
    """Receipts of different ciphertexts pass."""
    playing = verified_round()

    check_no_copies(charge_for(services=VERIFIED).terms(SESSION, TRUST), playing.committed.receipts)
