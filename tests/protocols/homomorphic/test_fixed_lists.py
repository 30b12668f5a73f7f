"""Nobody's input can depend on another's: lists of inputs are fixed before ciphertexts are sent, once, without copies."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from protocols.errors import (
    BelowThresholdError,
    CiphertextError,
    CommitmentError,
    ContextError,
    InputError,
    KeyUseError,
    ProtocolError,
    RosterError,
    ServiceError,
    SignatureError,
    StageError,
    WireError,
)
from protocols.homomorphic import commitments, polynomials, scheme
from protocols.homomorphic.client import HomomorphicClient, signed
from protocols.homomorphic.messages import EncryptedInput, RoundKey, digest_of
from protocols.homomorphic.receipts import (
    FIXED_PURPOSE,
    INPUT_PURPOSE,
    CommittedInputs,
    FixedInputs,
    InputReceipt,
)
from protocols.homomorphic.terms import Services
from protocols.homomorphic.verifier import Verifier
from protocols.session import Session
from tests.contracts.sessions import (
    MODEL,
    OTHER_MODEL,
    Inputs,
    make_inputs,
    make_session,
    names,
    plain_sum,
    same_bindings,
    segment,
)
from tests.protocols.homomorphic.parties import (
    ALONE,
    AUTHORITY,
    VERIFIED,
    Meeting,
    charge_for,
    make_verifier,
    service_identity,
    terms_of,
)
from tests.protocols.homomorphic.test_decryptor import SESSION as TWO_BANDS
from tests.protocols.homomorphic.test_decryptor import Round, begin

FIRST, SECOND, THIRD, LAST = MEMBERS = names(4)
SIX = names(6)
SESSION = make_session(6, segment(0, 20, SIX, 6))
VICTIM, *OTHERS, CORRUPT = SIX
CHARGE = charge_for(services=VERIFIED)
BOTH = pytest.mark.parametrize("services", [ALONE, VERIFIED], ids=["alone", "verified"])


# --- computing with the others' ciphertexts ---


def minus(meeting: Meeting, key: RoundKey, others: list[bytes]) -> bytes:
    """What takes the others out of a sum of six: their negatives, and the offsets that the decryptor counts on."""
    profile = meeting.terms.profile
    fields = [len(others) + 1 << place * profile.field_bits for place in range(profile.fields)]
    slots = np.full((1, profile.degree), sum(fields) * profile.offset(6), dtype=np.int64)
    pairs = scheme.public_key(profile, key.key).encrypt(slots)
    primes = np.array(profile.ciphertext_moduli, dtype=np.uint64)[:, None]
    for data in others:
        other = polynomials.decode(data, count=1, moduli=profile.ciphertext_moduli, degree=profile.degree)
        pairs = (pairs + primes - other) % primes
    return polynomials.encode(pairs, profile.ciphertext_moduli)


def holding(meeting: Meeting, key: RoundKey, ciphertexts: bytes) -> EncryptedInput:
    """The corrupt client's input of these ciphertexts, with a receipt that fits."""
    receipt = InputReceipt(
        context=meeting.terms.context,
        sender=6,
        key_id=key.key_id,
        binding=MODEL,
        digests={0: digest_of(ciphertexts)},
    )
    return EncryptedInput(receipt=signed(receipt, AUTHORITY.identity(CORRUPT)), ciphertexts={0: ciphertexts})


def everybodys(uploads: dict[str, bytes]) -> list[bytes]:
    """The ciphertexts of all but the victim."""
    return [EncryptedInput.from_bytes(uploads[member]).ciphertexts[0] for member in OTHERS]


def test_where_ciphertexts_come_before_commitments_one_client_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The control: clients that upload for any list, signed by nobody, have one of their updates opened to the bit."""
    monkeypatch.setattr(HomomorphicClient, "reply", lambda self, _: self._committed[1].to_bytes())
    meeting = Meeting.of(SESSION, CHARGE)
    key = meeting.key
    meeting.commit(VICTIM, *OTHERS)
    uploads = {member: meeting.client(member).reply(b"") for member in (VICTIM, *OTHERS)}

    forged = holding(meeting, key, minus(meeting, key, everybodys(uploads)))
    meeting.server.receive(CORRUPT, forged.receipt.to_bytes())
    meeting.server.close_stage()
    meeting.server.requests()
    for member, upload in {**uploads, CORRUPT: forged.to_bytes()}.items():
        meeting.server.receive(member, upload)

    assert meeting.sums(same_bindings(SESSION)) == {0: meeting.inputs[VICTIM][0].values.tolist()}


@BOTH
def test_a_client_that_sees_the_others_ciphertexts_is_too_late(services: Services) -> None:
    """The same attack on ours: nobody sends ciphertexts before the list, and afterwards no other input is taken by anybody."""
    meeting = Meeting.of(SESSION, charge_for(services=services))
    key = meeting.key
    meeting.commit(VICTIM, *OTHERS)
    with pytest.raises(ProtocolError):
        meeting.client(VICTIM).reply(unsigned_list(meeting, key).to_bytes())
    meeting.commit(CORRUPT)
    meeting.server.close_stage()
    meeting.server.requests()
    meeting.fixed = True

    # Now it sees them, and has fixed its own.
    uploads = {member: meeting.upload(member) for member in (VICTIM, *OTHERS)}
    forged = holding(meeting, key, minus(meeting, key, everybodys(uploads)))
    honest = meeting.client(CORRUPT)._committed
    assert honest is not None
    swapped = replace(honest[1], ciphertexts=forged.ciphertexts)

    with pytest.raises(StageError, match="a later receipt does not count"):
        meeting.server.receive(CORRUPT, forged.receipt.to_bytes())
    with pytest.raises(CommitmentError, match="not the one that it has committed to"):
        meeting.server.receive(CORRUPT, forged.to_bytes())
    with pytest.raises(CiphertextError, match="not those of its receipt"):
        meeting.server.receive(CORRUPT, swapped.to_bytes())
    if meeting.roles.verifier is not None:
        for odd, error in ((forged, CommitmentError), (swapped, CiphertextError)):
            with pytest.raises(error):
                meeting.roles.verifier.call(odd.to_bytes())
    for member, upload in uploads.items():
        meeting.server.receive(member, upload)
    assert meeting.sums(same_bindings(SESSION)) == {}  # five of six holders: below its quorum


def unsigned_list(meeting: Meeting, key: RoundKey) -> FixedInputs:
    """What a server that wants ciphertexts too early could send."""
    receipts = {
        meeting.session.position(member): client._committed[1].receipt.digest
        for member, client in meeting.clients.items()
        if client._committed is not None
    }
    return FixedInputs(
        context=meeting.terms.context, key_id=key.key_id, receipts=receipts, decryptor=bytes(64)
    )


# --- copies ---


def committed_with(playing: Round, *receipts: InputReceipt) -> CommittedInputs:
    """A list of these."""
    return CommittedInputs(context=playing.key.context, key_id=playing.key.key_id, receipts=receipts)


def of_another(playing: Round, sender: str, digests: dict[int, bytes]) -> InputReceipt:
    """A member's receipt of other digests, signed by itself."""
    receipt = replace(playing.inputs[sender].receipt, digests=digests)
    return signed(receipt, AUTHORITY.identity(sender))


COPIES: dict[str, Callable[[Round], InputReceipt]] = {
    "of another client": lambda playing: of_another(
        playing, SECOND, dict(playing.inputs[FIRST].receipt.digests)
    ),
    "of one segment of another client": lambda playing: of_another(
        playing,
        SECOND,
        {0: playing.inputs[SECOND].receipt.digests[0], 1: playing.inputs[THIRD].receipt.digests[1]},
    ),
    "in another segment of another client": lambda playing: of_another(
        playing,
        SECOND,
        {0: playing.inputs[SECOND].receipt.digests[0], 1: playing.inputs[LAST].receipt.digests[0]},
    ),
    "of itself in another segment": lambda playing: of_another(
        playing, SECOND, dict.fromkeys((0, 1), playing.inputs[SECOND].receipt.digests[0])
    ),
}


def following(playing: Round) -> Verifier:
    """A verifier of the same session."""
    verifier = make_verifier(CHARGE)
    verifier.follow(TWO_BANDS, playing.key)
    return verifier


@pytest.mark.parametrize("kind", COPIES)
def test_no_ciphertext_stands_twice_on_a_list(kind: str) -> None:
    """Decryptor and verifier sign no list with a copy, whoever it is of; without it they do."""
    playing = begin(charge=CHARGE, fix=False)
    verifier = following(playing)
    receipts = [playing.inputs[member].receipt for member in MEMBERS]
    receipts[1] = COPIES[kind](playing)

    for party in (playing.decryptor, verifier):
        with pytest.raises(CommitmentError, match="listed twice"):
            party.fix_inputs(committed_with(playing, *receipts))
        assert party.fix_inputs(playing.committed)


def test_a_copy_of_a_copy_for_screening_is_one_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is screened counts among what must not be repeated."""
    monkeypatch.setattr(commitments.checks, "check_receipt", lambda *_, **__: None)
    playing = begin(fix=False)
    receipts = [replace(playing.inputs[member].receipt, copy_digest=MODEL) for member in MEMBERS[:3]]

    with pytest.raises(CommitmentError, match="listed twice"):
        playing.decryptor.fix_inputs(committed_with(playing, *receipts))


def test_where_copies_are_not_looked_for_one_update_counts_many_times(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The control: without that check the sum of six is one update six times over, which tells it to the bit."""
    monkeypatch.setattr("protocols.homomorphic.server.check_no_copies", lambda *_: None)
    monkeypatch.setattr(commitments, "check_no_copies", lambda *_: None)
    meeting = Meeting.of(SESSION, CHARGE)
    uploads = copied(meeting)
    for member, upload in uploads.items():
        meeting.server.receive(member, upload.receipt.to_bytes())
    meeting.server.close_stage()
    meeting.server.requests()
    for member, upload in uploads.items():
        meeting.server.receive(member, upload.to_bytes())

    summed = meeting.sums(same_bindings(SESSION))[0]

    assert summed == [6 * value for value in meeting.inputs[VICTIM][0].values.tolist()]


def copied(meeting: Meeting) -> dict[str, EncryptedInput]:
    """One client's ciphertexts under everybody's name, as colluding clients would sign them."""
    original = meeting.made(VICTIM)
    uploads = {VICTIM: original}
    for position, member in enumerate(SIX[1:], start=2):
        receipt = signed(replace(original.receipt, sender=position), AUTHORITY.identity(member))
        uploads[member] = replace(original, receipt=receipt)
    return uploads


def test_the_server_refuses_a_copy_when_it_is_committed_to() -> None:
    """Whoever commits second to the same ciphertexts is refused by name, and the others go on."""
    meeting = Meeting.of(SESSION)
    uploads = copied(meeting)
    meeting.server.receive(VICTIM, uploads[VICTIM].receipt.to_bytes())

    with pytest.raises(CommitmentError, match="client-02: ciphertexts that are listed twice"):
        meeting.server.receive(SIX[1], uploads[SIX[1]].receipt.to_bytes())

    meeting.commit(*SIX[2:])
    meeting.server.close_stage()
    assert set(meeting.server.requests()) == {VICTIM, *SIX[2:]}


# --- one list ---


def test_a_service_fixes_one_list() -> None:
    """The same list gets the same signature; one with less, more or other receipts is refused by name, for good."""
    playing = begin(charge=CHARGE, fix=False)
    other = begin(charge=CHARGE, fix=False)
    first = playing.receipts(FIRST, SECOND, THIRD)
    changed = of_another(playing, THIRD, {0: bytes(32), 1: bytes(31) + b"\x01"})
    lists = [
        playing.committed,
        playing.receipts(FIRST, SECOND, LAST),
        committed_with(playing, *first.receipts[:2], changed),
    ]
    del other

    for party, name in ((playing.decryptor, "decryptor"), (following(playing), "verifier")):
        signature = party.fix_inputs(first)

        AUTHORITY.view.verify(name, FIXED_PURPOSE, first.listed().signed_part(), signature)
        assert party.fix_inputs(first) == signature
        for attempt in lists:
            with pytest.raises(CommitmentError, match="another list of inputs was fixed"):
                party.fix_inputs(attempt)


def test_a_round_whose_inputs_were_fixed_gets_no_other_key() -> None:
    """Neither another attempt nor an earlier round: ciphertexts under the first key may have been sent."""
    playing = begin(charge=CHARGE)
    verifier = following(playing)
    verifier.fix_inputs(playing.committed)
    again = replace(TWO_BANDS, attempt=2)

    with pytest.raises(StageError, match="the inputs of round 1 were fixed already"):
        playing.decryptor.create_round_key(again)
    key = begin(again, charge=CHARGE, fix=False).key
    with pytest.raises(StageError, match="the inputs of round 1 were fixed already"):
        verifier.follow(again, key)


Change = Callable[[Round, list[InputReceipt]], CommittedInputs]


def with_last(change: Callable[[Round, InputReceipt], InputReceipt]) -> Change:
    """The list with its last receipt changed."""
    return lambda playing, receipts: committed_with(playing, *receipts[:3], change(playing, receipts[3]))


def resigned(**changes: object) -> Change:
    """The last receipt changed by its own sender."""
    return with_last(lambda _, receipt: signed(replace(receipt, **changes), AUTHORITY.identity(LAST)))  # type: ignore[arg-type]


BAD_LISTS: dict[str, tuple[Change, type[ProtocolError]]] = {
    "an unsigned receipt": (
        with_last(lambda _, receipt: replace(receipt, signature=bytes(64))),
        SignatureError,
    ),
    "a receipt of another member's making": (
        with_last(lambda _, receipt: signed(receipt, AUTHORITY.identity(FIRST))),
        SignatureError,
    ),
    "a receipt signed for another purpose": (
        with_last(
            lambda _, receipt: replace(
                receipt, signature=AUTHORITY.identity(LAST).sign(FIXED_PURPOSE, receipt.signed_part())
            )
        ),
        SignatureError,
    ),
    "a receipt of another round": (
        with_last(lambda *_: begin(replace(TWO_BANDS, round=9), fix=False).inputs[LAST].receipt),
        ContextError,
    ),
    "a receipt under another key": (
        with_last(lambda *_: begin(charge=CHARGE, fix=False).inputs[LAST].receipt),
        KeyUseError,
    ),
    "a stranger's receipt": (resigned(sender=5), RosterError),
    "a receipt without segments": (resigned(digests={}), InputError),
    "a receipt of another's segments": (resigned(digests={0: bytes(32), 1: bytes(32)}), InputError),
    "another model": (resigned(binding=OTHER_MODEL), InputError),
    "no model": (resigned(binding=bytes(32)), InputError),
    "a copy where nothing is screened": (resigned(copy_digest=MODEL), InputError),
    "too few": (lambda playing, receipts: committed_with(playing, *receipts[:2]), BelowThresholdError),
    "another context": (
        lambda playing, _: replace(playing.committed, context=bytes(32)),
        ContextError,
    ),
    "another key id": (lambda playing, _: replace(playing.committed, key_id=bytes(32)), KeyUseError),
}


@pytest.mark.parametrize("kind", BAD_LISTS)
def test_a_list_that_does_not_hold_is_not_fixed(kind: str) -> None:
    """Both services refuse it by name, and sign the honest one afterwards."""
    change, error = BAD_LISTS[kind]
    playing = begin(charge=CHARGE, fix=False)
    receipts = [playing.inputs[member].receipt for member in MEMBERS]

    for party in (playing.decryptor, following(playing)):
        with pytest.raises(error):
            party.fix_inputs(change(playing, receipts))
        assert party.fix_inputs(playing.committed)


def test_a_list_names_every_sender_once_in_order() -> None:
    """Repeated or unordered receipts are no canonical list."""
    playing = begin(fix=False)
    receipts = playing.committed.receipts

    for odd in ((receipts[0], receipts[0], receipts[1]), (receipts[1], receipts[0], receipts[2])):
        with pytest.raises(WireError):
            CommittedInputs.from_bytes(committed_with(playing, *odd).to_bytes())


def test_before_a_list_is_fixed_nothing_is_added_or_opened() -> None:
    """The verifier takes no input and signs no sum, the decryptor opens none."""
    playing = begin(charge=CHARGE, fix=False)
    verifier = following(playing)

    for call in (
        lambda: verifier.handle_input(playing.inputs[FIRST]),
        lambda: verifier.sign_sum(playing.summed(*MEMBERS)),
        lambda: playing.decryptor.decrypt(playing.summed(*MEMBERS)),
    ):
        with pytest.raises(StageError, match="not fixed yet"):
            call()


def test_a_server_takes_no_ciphertexts_before_it_has_asked_for_them() -> None:
    """What comes between the commitments and the fixed list is refused by name, and may come again."""
    meeting = Meeting.of(TWO_BANDS)
    made = meeting.made(FIRST)
    meeting.server.receive(FIRST, made.receipt.to_bytes())
    meeting.commit(SECOND, THIRD)
    meeting.server.close_stage()

    with pytest.raises(StageError, match="the list of inputs is not fixed"):
        meeting.server.receive(FIRST, made.to_bytes())
    meeting.server.requests()
    meeting.server.receive(FIRST, made.to_bytes())


def test_sums_are_over_a_part_of_the_list_and_never_beyond_it() -> None:
    """Whoever drops out after the commitments may be missing; whoever came later is refused by verifier and decryptor."""
    playing = begin(charge=CHARGE, fix=False)
    verifier = following(playing)
    listed = playing.receipts(FIRST, SECOND, THIRD)
    for party in (playing.decryptor, verifier):
        party.fix_inputs(listed)
    beyond = replace(playing.summed(FIRST, SECOND, LAST), inputs_digest=listed.listed().digest)

    with pytest.raises(CommitmentError, match="client-04: is not on the list"):
        verifier.handle_input(playing.inputs[LAST])
    for call in (verifier.sign_sum, playing.decryptor.decrypt):
        with pytest.raises(CommitmentError, match="client-04: is not on the list"):
            call(beyond)


# --- clients ---


@pytest.fixture
def meeting() -> Meeting:
    """Everybody has committed, the list is fixed, nobody has uploaded."""
    made = Meeting.of(TWO_BANDS, CHARGE)
    made.fix()
    return made


def sign_list(message: FixedInputs) -> FixedInputs:
    """The list as its services would sign it."""
    signatures = {
        name: service_identity(name).sign(FIXED_PURPOSE, message.signed_part())
        for name in ("decryptor", "verifier")
    }
    return replace(message, **signatures)  # type: ignore[arg-type]


def without_me(message: FixedInputs) -> FixedInputs:
    """The list without the second member."""
    return replace(message, receipts={p: d for p, d in message.receipts.items() if p != 2})


BAD_FIXED: dict[str, tuple[Callable[[FixedInputs], FixedInputs], type[ProtocolError]]] = {
    "no decryptor": (lambda found: replace(found, decryptor=bytes(64)), SignatureError),
    "no verifier": (lambda found: replace(found, verifier=b""), SignatureError),
    "another's word for the verifier": (
        lambda found: replace(found, verifier=found.decryptor),
        SignatureError,
    ),
    "a client's word for the decryptor": (
        lambda found: replace(
            found, decryptor=AUTHORITY.identity(FIRST).sign(FIXED_PURPOSE, found.signed_part())
        ),
        SignatureError,
    ),
    "signed for another purpose": (
        lambda found: replace(
            found, decryptor=service_identity("decryptor").sign(INPUT_PURPOSE, found.signed_part())
        ),
        SignatureError,
    ),
    "one more, signed by nobody": (
        lambda found: replace(found, receipts={**found.receipts, 5: bytes(32)}),
        SignatureError,
    ),
    "without me": (lambda found: sign_list(without_me(found)), CommitmentError),
    "another receipt of mine": (
        lambda found: sign_list(replace(found, receipts={**found.receipts, 2: bytes(32)})),
        CommitmentError,
    ),
    "too few": (
        lambda found: sign_list(replace(found, receipts={p: found.receipts[p] for p in (1, 2)})),
        CommitmentError,
    ),
    "another session": (lambda found: sign_list(replace(found, context=bytes(32))), ContextError),
    "another key": (lambda found: sign_list(replace(found, key_id=bytes(32))), KeyUseError),
}


@pytest.mark.parametrize("kind", BAD_FIXED)
def test_a_client_uploads_for_no_list_that_does_not_hold(meeting: Meeting, kind: str) -> None:
    """It refuses by name, sends nothing, and answers the fixed list afterwards."""
    change, error = BAD_FIXED[kind]
    client = meeting.client(SECOND)
    request = meeting.server.requests()[SECOND]

    with pytest.raises(error):
        client.reply(change(FixedInputs.from_bytes(request)).to_bytes())

    assert EncryptedInput.from_bytes(client.reply(request)).receipt.sender == 2


def test_a_client_that_knows_no_verifier_takes_no_word_of_one() -> None:
    """Where the terms name none, a second signature is superfluous and refused."""
    meeting = Meeting.of(TWO_BANDS)
    meeting.fix()
    found = FixedInputs.from_bytes(meeting.server.requests()[SECOND])

    with pytest.raises(SignatureError, match="where there is no verifier"):
        meeting.client(SECOND).reply(replace(found, verifier=bytes(64)).to_bytes())


def test_a_client_uploads_for_one_list(meeting: Meeting) -> None:
    """A second list, signed by both as if they had forgotten the first, gets no second answer."""
    client = meeting.client(SECOND)
    request = meeting.server.requests()[SECOND]
    found = FixedInputs.from_bytes(request)
    other = sign_list(replace(found, receipts={**found.receipts, 4: bytes(32)}))
    client.reply(request)

    with pytest.raises(StageError, match="for the list it was sent first"):
        client.reply(other.to_bytes())


def test_what_a_client_commits_with_shows_no_ciphertext(meeting: Meeting) -> None:
    """The receipt is a few digests: no part of what is uploaded later is in it."""
    client = meeting.client(SECOND)
    committed = client._committed
    assert committed is not None
    sent = client.contribute(committed[0], {})

    assert len(sent) < 500
    for ciphertexts in committed[1].ciphertexts.values():
        assert not any(ciphertexts[at : at + 16] in sent for at in range(0, len(ciphertexts) - 16, 997))


# --- one model ---


def bound(session: Session, odd: dict[str, bytes]) -> Inputs:
    """Everybody's inputs, some of them bound to another model."""
    found = make_inputs(session)
    for member, binding in odd.items():
        found[member] = make_inputs(
            session,
            bindings=dict.fromkeys((0, 1), binding),
        )[member]
    return found


@BOTH
def test_a_few_who_were_given_another_model_are_left_out(services: Services) -> None:
    """They are not asked for ciphertexts; everybody else's sums open exactly."""
    meeting = Meeting.of(
        TWO_BANDS,
        charge_for(services=services),
        bound(TWO_BANDS, {LAST: OTHER_MODEL}),
    )
    meeting.fix()
    others = (FIRST, SECOND, THIRD)

    assert tuple(meeting.server.requests()) == others
    meeting.take(*others)
    assert meeting.sums(same_bindings(TWO_BANDS)) == {
        part.index: plain_sum(meeting.inputs, part, others) for part in TWO_BANDS.segments
    }
    assert meeting.server.contributors == others


def test_a_server_that_knows_its_model_refuses_others_when_they_commit() -> None:
    """Told its own binding, it turns whoever has another one away by name, even if they are most."""
    meeting = Meeting.of(TWO_BANDS, inputs=bound(TWO_BANDS, dict.fromkeys(MEMBERS[1:], OTHER_MODEL)))
    meeting.server.expect(same_bindings(TWO_BANDS))
    meeting.commit(FIRST)

    for member in MEMBERS[1:]:
        with pytest.raises(InputError, match=f"{member}: was bound to another model than the server"):
            meeting.commit(member)
    with pytest.raises(InputError, match="bound to 2 models and must be bound to one"):
        meeting.server.expect({0: MODEL, 1: OTHER_MODEL})
    with pytest.raises(BelowThresholdError):
        meeting.server.close_stage()


def test_a_server_that_lists_two_models_gets_no_list_fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that leaves nobody out ends the session by name, and no ciphertext is asked for."""
    meeting = Meeting.of(TWO_BANDS, CHARGE, bound(TWO_BANDS, {LAST: OTHER_MODEL}))
    monkeypatch.setattr(meeting.server, "_left_out", frozenset)
    meeting.commit(*MEMBERS)
    meeting.server.close_stage()

    with pytest.raises(ServiceError, match="the verifier: InputError: the inputs are bound to different"):
        meeting.server.requests()


def test_a_client_binds_all_its_segments_to_one_model() -> None:
    """Inputs of which one segment is bound to another model are refused by name: a receipt cannot name two."""
    meeting = Meeting.of(TWO_BANDS)
    inputs = make_inputs(TWO_BANDS, bindings={1: OTHER_MODEL})[FIRST]

    with pytest.raises(InputError, match="client-01: its segments are bound to 2 models"):
        meeting.client(FIRST).contribute(meeting.server.requests()[FIRST], inputs)


# --- what is left without a verifier ---


def test_without_a_verifier_one_request_opens_a_client_per_band() -> None:
    """The stated limit: every band's sum may be another single client's ciphertexts, under one honest list."""
    session = make_session(4, segment(0, 20, MEMBERS, 4), segment(1, 7, MEMBERS, 4))
    playing = begin(session)
    honest = playing.summed(*MEMBERS)
    lie = replace(
        honest,
        ciphertexts={
            0: playing.inputs[FIRST].ciphertexts[0],
            1: playing.inputs[SECOND].ciphertexts[1],
        },
    )

    found = playing.decryptor.decrypt(lie)

    offset = terms_of(session).profile.offset(4)
    for index, member in ((0, FIRST), (1, SECOND)):
        update = make_inputs(session)[member][index].values
        assert (found.integers(index)[: len(update)] + 3 * offset).tolist() == update.tolist()
    with pytest.raises(KeyUseError):
        playing.decryptor.decrypt(honest)
