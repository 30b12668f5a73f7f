"""Lists of inputs are fixed before ciphertexts are sent, once per key and round, and clients upload for no other list."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from protocols.errors import (
    BelowThresholdError,
    CommitmentError,
    ContextError,
    InputError,
    KeyUseError,
    ProtocolError,
    RosterError,
    SignatureError,
    StageError,
    WireError,
)
from protocols.homomorphic.messages import EncryptedInput
from protocols.homomorphic.parties.client import signed
from protocols.homomorphic.parties.verifier import Verifier
from protocols.homomorphic.receipts import (
    FIXED_PURPOSE,
    INPUT_PURPOSE,
    CommittedInputs,
    FixedInputs,
    InputReceipt,
)
from protocols.homomorphic.terms import Services
from protocols.wire import DIGEST_SIZE, MessageType, Writer
from tests.contracts.sessions import (
    MODEL,
    OTHER_MODEL,
    names,
)
from tests.protocols.homomorphic.meeting import (
    ALONE,
    AUTHORITY,
    VERIFIED,
    Meeting,
    charge_for,
    make_verifier,
    service_identity,
)
from tests.protocols.homomorphic.parties.test_decryptor import SESSION as TWO_BANDS
from tests.protocols.homomorphic.parties.test_decryptor import Round, begin

FIRST, SECOND, THIRD, LAST = MEMBERS = names(4)
CHARGE = charge_for(services=VERIFIED)
BOTH = pytest.mark.parametrize("services", [ALONE, VERIFIED], ids=["alone", "verified"])


def committed_with(playing: Round, *receipts: InputReceipt) -> CommittedInputs:
    """A list of these."""
    return CommittedInputs(context=playing.key.context, key_id=playing.key.key_id, receipts=receipts)


def of_another(playing: Round, sender: str, digests: dict[int, bytes]) -> InputReceipt:
    """A member's receipt of other digests, signed by itself."""
    receipt = replace(playing.inputs[sender].receipt, digests=digests)
    return signed(receipt, AUTHORITY.identity(sender))


def following(playing: Round) -> Verifier:
    """A verifier of the same session."""
    verifier = make_verifier(CHARGE)
    verifier.follow(TWO_BANDS, playing.key)
    return verifier


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
    "a receipt of another attempt": (
        with_last(lambda *_: begin(replace(TWO_BANDS, attempt=2), fix=False).inputs[LAST].receipt),
        ContextError,
    ),
    "a receipt in another member's name": (
        lambda playing, receipts: committed_with(playing, replace(receipts[0], sender=2), *receipts[2:]),
        SignatureError,
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


@pytest.mark.parametrize("places", [(0, 0, 1), (0, 0, 0, 0), (1, 0, 2), (0, 1, 2, 3, 3)])
def test_a_list_names_every_sender_once_in_order(places: tuple[int, ...]) -> None:
    """Repeated or unordered receipts are no list that code of ours could make, and no canonical bytes of one."""
    playing = begin(fix=False)
    receipts = tuple(playing.committed.receipts[place] for place in places)

    with pytest.raises(RosterError, match="every sender has one receipt"):
        committed_with(playing, *receipts)
    writer = Writer(MessageType.COMMITTED_INPUTS).fixed(playing.key.context, DIGEST_SIZE)
    writer.fixed(playing.key.key_id, DIGEST_SIZE).unsigned(len(receipts), 2)
    for receipt in receipts:
        writer.blob(receipt.to_bytes())
    with pytest.raises(WireError, match="not in strictly increasing order"):
        CommittedInputs.from_bytes(writer.done())


def test_where_a_list_may_repeat_a_sender_one_client_makes_up_a_threshold(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The control: four receipts of one client pass for four clients."""
    monkeypatch.setattr(CommittedInputs, "__post_init__", lambda _: None)
    playing = begin(fix=False)

    playing.decryptor.fix_inputs(committed_with(playing, *[playing.inputs[FIRST].receipt] * 4))


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


def test_a_second_receipt_of_one_client_is_refused() -> None:
    """The first one counts, the same or another one afterwards is refused, and after the stage none is taken at all."""
    meeting = Meeting.of(TWO_BANDS)
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


@BOTH
def test_no_client_uploads_before_the_list_is_signed(services: Services) -> None:
    """An aggregator that wants ciphertexts first, so as to add a receipt afterwards, gets none from any client."""
    meeting = Meeting.of(TWO_BANDS, charge_for(services=services))
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
    "nobody's word for the verifier": (lambda found: replace(found, verifier=bytes(64)), SignatureError),
    "without me": (lambda found: sign_list(without_me(found)), CommitmentError),
    "another receipt of mine": (
        lambda found: sign_list(replace(found, receipts={**found.receipts, 2: bytes(32)})),
        CommitmentError,
    ),
    "another's receipt for mine": (
        lambda found: sign_list(replace(found, receipts={**found.receipts, 2: found.receipts[1]})),
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
    upload = client.reply(request)

    with pytest.raises(StageError, match="for the list it was sent first"):
        client.reply(other.to_bytes())
    assert client.reply(request) == upload


def test_what_a_client_commits_with_shows_no_ciphertext(meeting: Meeting) -> None:
    """The receipt is a few digests: no part of what is uploaded later is in it."""
    client = meeting.client(SECOND)
    committed = client._committed
    assert committed is not None
    sent = client.contribute(committed[0], {})

    assert len(sent) < 500
    for ciphertexts in committed[1].ciphertexts.values():
        assert not any(ciphertexts[at : at + 16] in sent for at in range(0, len(ciphertexts) - 16, 997))
