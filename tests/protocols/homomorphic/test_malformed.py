"""A corpus of malformed ciphertexts and keys: every one ends in a named error, and the round completes for the others."""

import struct
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import zstandard

from protocols.errors import (
    CiphertextError,
    ContextError,
    EnrolmentError,
    InputError,
    KeyUseError,
    ProtocolError,
    RosterError,
    SessionError,
    SignatureError,
    StageError,
    WireError,
)
from protocols.homomorphic.messages import (
    KEY_PURPOSE,
    EncryptedInput,
    RoundKey,
)
from protocols.homomorphic.parties.client import signed
from protocols.homomorphic.receipts import INPUT_PURPOSE, InputReceipt, commitment_to
from protocols.homomorphic.scheme import bfv, polynomials, seal_form
from protocols.homomorphic.scheme.fields import to_slots
from protocols.homomorphic.scheme.parameters import BFV_2X20, BFV_3X12
from protocols.identity.trust import ThrowawayAuthority
from tests.contracts.sessions import (
    make_inputs,
    make_session,
    names,
    plain_sum,
    same_bindings,
    segment,
)
from tests.protocols.homomorphic.meeting import (
    AUTHORITY,
    NOW,
    Meeting,
    charge_for,
    client_of,
    service_identity,
    terms_of,
)

FIRST, SECOND, THIRD, CHEAT = MEMBERS = names(4)
SESSION = make_session(
    4, segment(0, 9000, MEMBERS), segment(1, 20, MEMBERS), segment(2, 5, (FIRST, SECOND, CHEAT))
)
OTHER_ROUND = replace(SESSION, round=2)
MODULI, DEGREE = BFV_2X20.ciphertext_moduli, BFV_2X20.degree
ONE = polynomials.size_of(1, moduli=MODULI, degree=DEGREE)
Change = Callable[[Meeting, EncryptedInput], bytes]


def rewritten(message: EncryptedInput, *, signer: str = CHEAT, **ciphertexts: bytes) -> bytes:
    """The upload with other ciphertexts under its segments' names, `s0` and so on; receipt and signature are made to fit."""
    parts = dict(message.ciphertexts)
    for name, data in ciphertexts.items():
        parts[int(name[1:])] = data
    receipt = replace(
        message.receipt,
        digests={
            index: commitment_to(message.receipt.context, message.receipt.sender, index, data)
            for index, data in parts.items()
        },
    )
    receipt = signed(receipt, AUTHORITY.identity(signer))
    return EncryptedInput(receipt=receipt, ciphertexts=parts).to_bytes()


def with_residue(half: int, place: int, value: int) -> Change:
    """Segment 1 with one residue set; the ciphertext is otherwise sound."""

    def change(_: Meeting, message: EncryptedInput) -> bytes:
        pairs = polynomials.decode(message.ciphertexts[1], count=1, moduli=MODULI, degree=DEGREE)
        pairs[0, half, 0, place] = value
        return rewritten(message, s1=polynomials.encode(pairs, MODULI))

    return change


def with_segment(index: int, change: Callable[[bytes], bytes]) -> Change:
    """One segment's bytes changed, under a receipt that fits."""

    def apply(_: Meeting, message: EncryptedInput) -> bytes:
        return rewritten(message, **{f"s{index}": change(message.ciphertexts[index])})

    return apply


def with_receipt(**changes: object) -> Change:
    """The receipt changed and signed again by its sender."""

    def change(_: Meeting, message: EncryptedInput) -> bytes:
        receipt = signed(replace(message.receipt, **changes), AUTHORITY.identity(CHEAT))  # type: ignore[arg-type]
        return replace(message, receipt=receipt).to_bytes()

    return change


def with_digests_of(*, sender: int = 0, context: bytes = b"", further: int = 0) -> Change:
    """The receipt of the same ciphertexts, hashed with another place than their own."""

    def change(meeting: Meeting, message: EncryptedInput) -> bytes:
        digests = {
            index: commitment_to(
                context or message.receipt.context, sender or message.receipt.sender, index + further, data
            )
            for index, data in message.ciphertexts.items()
        }
        return with_receipt(digests=digests)(meeting, message)

    return change


def zero_half(half: int) -> Change:
    """A ciphertext one of whose polynomials is zero."""

    def change(data: bytes) -> bytes:
        pairs = polynomials.decode(data, count=1, moduli=MODULI, degree=DEGREE)
        pairs[:, half] = 0
        return polynomials.encode(pairs, MODULI)

    return with_segment(1, change)


def library_vector(compress: bool) -> bytes:  # noqa: FBT001
    """A whole TenSEAL vector: what a client of another system would send."""
    context = bfv._new_context(BFV_2X20)
    written: bytes = bfv.library().bfv_vector(context, [1, 2, 3]).serialize()
    if compress:
        return written
    return b"".join(seal_form.streams_of(written))


def ckks_vector() -> bytes:
    """The same in CKKS, with the parameters that public systems use."""
    library = bfv.library()
    context = library.context(library.SCHEME_TYPE.CKKS, 8192, coeff_mod_bit_sizes=[60, 40, 40])
    context.global_scale = 2.0**40
    written: bytes = library.ckks_vector(context, [1.0]).serialize()
    return written


def bomb() -> bytes:
    """A SEAL stream of half a gigabyte of zeros."""
    packed = zstandard.ZstdCompressor(level=19).compress(bytes(2**29))
    return struct.pack("<HBBBBHQ", 0xA15E, 16, 4, 3, 2, 0, 16 + len(packed)) + packed


def of_another_profile(_: Meeting, message: EncryptedInput) -> bytes:
    """Ciphertexts of another profile, for a key of that profile."""
    session = make_session(4, segment(0, 20, MEMBERS), input_bound=100)
    other = Meeting.of(session, charge_for(BFV_3X12))
    foreign = other.made(CHEAT)
    return rewritten(message, s0=foreign.ciphertexts[0])


def of_another_round(meeting: Meeting, _: EncryptedInput) -> bytes:
    """An honest upload for the next round."""
    return Meeting.of(OTHER_ROUND, meeting.charge).made(CHEAT).to_bytes()


def under_another_key(meeting: Meeting, _: EncryptedInput) -> bytes:
    """An honest upload of this very session, under a key that another decryptor of the same name has made for it."""
    return Meeting.of(SESSION, meeting.charge).made(CHEAT).to_bytes()


def by_another(meeting: Meeting, message: EncryptedInput) -> bytes:
    """Signed by another member."""
    del meeting
    receipt = signed(message.receipt, AUTHORITY.identity(FIRST))
    return replace(message, receipt=receipt).to_bytes()


def by_a_stranger(meeting: Meeting, message: EncryptedInput) -> bytes:
    """Signed under the member's name by a key of another authority."""
    del meeting
    foreign = ThrowawayAuthority.create(dict.fromkeys(MEMBERS, 4), now=NOW)
    receipt = signed(message.receipt, foreign.identity(CHEAT))
    return replace(message, receipt=receipt).to_bytes()


def for_another_purpose(meeting: Meeting, message: EncryptedInput) -> bytes:
    """A signature of the same bytes as something else."""
    del meeting
    signature = AUTHORITY.identity(CHEAT).sign(KEY_PURPOSE, message.receipt.signed_part())
    return replace(message, receipt=replace(message.receipt, signature=signature)).to_bytes()


def swapped(_: Meeting, message: EncryptedInput) -> bytes:
    """Segments 1 and 2 in each other's place, under the honest receipt."""
    parts = {**message.ciphertexts, 1: message.ciphertexts[2], 2: message.ciphertexts[1]}
    return replace(message, ciphertexts=parts).to_bytes()


def without_segment(_: Meeting, message: EncryptedInput) -> bytes:
    """Segment 2 is missing from the ciphertexts, not from the receipt."""
    return replace(message, ciphertexts={i: message.ciphertexts[i] for i in (0, 1)}).to_bytes()


def twice_the_segment(_: Meeting, message: EncryptedInput) -> bytes:
    """Segment 2 is listed twice: the second number of the list of three is made the third."""
    data = bytearray(message.to_bytes())
    at = data.rindex(struct.pack("<4H", 3, 0, 1, 2))
    data[at : at + 8] = struct.pack("<4H", 3, 0, 2, 2)
    return bytes(data)


def with_length(value: int) -> Change:
    """The length of the first ciphertexts says something else."""

    def change(_: Meeting, message: EncryptedInput) -> bytes:
        data = bytearray(message.to_bytes())
        at = data.rindex(struct.pack("<4H", 3, 0, 1, 2)) + 8
        data[at : at + 4] = struct.pack("<I", value)
        return bytes(data)

    return change


def flipped(offset: int) -> Change:
    """One bit of the whole upload flipped."""

    def change(_: Meeting, message: EncryptedInput) -> bytes:
        data = bytearray(message.to_bytes())
        data[offset] ^= 1
        return bytes(data)

    return change


CORPUS: dict[str, tuple[Change, type[ProtocolError] | tuple[type[ProtocolError], ...]]] = {
    # Residues.
    "the prime itself, first polynomial, first place": (with_residue(0, 0, MODULI[0]), CiphertextError),
    "the prime itself, second polynomial, last place": (with_residue(1, -1, MODULI[0]), CiphertextError),
    "the largest number of its bits": (with_residue(0, 7, 2**54 - 1), CiphertextError),
    "all ones": (with_segment(1, lambda data: b"\xff" * len(data)), CiphertextError),
    "the second polynomial zero": (zero_half(1), CiphertextError),
    "all zeros": (with_segment(1, lambda data: bytes(len(data))), CiphertextError),
    # Sizes and counts.
    "empty": (with_segment(1, lambda _: b""), CiphertextError),
    "one byte short": (with_segment(1, lambda data: data[:-1]), CiphertextError),
    "one byte long": (with_segment(1, lambda data: data + b"\x00"), CiphertextError),
    "one ciphertext too many": (with_segment(1, lambda data: data + data), CiphertextError),
    "one ciphertext too few": (with_segment(0, lambda data: data[:ONE]), CiphertextError),
    "half a ciphertext": (with_segment(1, lambda data: data[: ONE // 2]), CiphertextError),
    "another segment's ciphertexts": (with_segment(0, lambda _: bytes(ONE)), CiphertextError),
    # What other software would send.
    "a vector of the library": (with_segment(1, lambda _: library_vector(True)), CiphertextError),
    "a stream of the library": (with_segment(1, lambda _: library_vector(False)), CiphertextError),
    "a CKKS vector": (with_segment(1, lambda _: ckks_vector()), CiphertextError),
    "a compressed bomb": (with_segment(1, lambda _: bomb()), CiphertextError),
    "another profile's": (of_another_profile, CiphertextError),
    "a pickle": (with_segment(1, lambda _: b"cos\nsystem\n(S'true'\ntR."), CiphertextError),
    # Sessions, keys and senders.
    "another round's": (of_another_round, ContextError),
    "another key's": (under_another_key, KeyUseError),
    "another key id": (with_receipt(key_id=bytes(32)), KeyUseError),
    "another context": (with_receipt(context=bytes(32)), ContextError),
    "another sender": (with_receipt(sender=1), RosterError),
    "a sender beyond the roster": (with_receipt(sender=5), RosterError),
    "no sender": (with_receipt(sender=0), RosterError),
    "signed by another member": (by_another, SignatureError),
    "signed by another authority's client": (by_a_stranger, SignatureError),
    "signed for another purpose": (for_another_purpose, SignatureError),
    # Receipts.
    "a receipt without parts": (with_receipt(digests={}), InputError),
    "segments swapped": (swapped, CiphertextError),
    "a segment missing": (without_segment, CiphertextError),
    "a segment twice": (twice_the_segment, WireError),
    "a copy to be screened": (with_receipt(copy_digest=bytes(32)), InputError),
    "bound to nothing": (with_receipt(binding=bytes(32)), InputError),
    "digests that are committed to by another sender": (with_digests_of(sender=1), CiphertextError),
    "digests that are committed to in another session": (with_digests_of(context=bytes(32)), CiphertextError),
    "digests that are committed to in another segment": (with_digests_of(further=1), CiphertextError),
    # Bytes.
    "a length of four gigabytes": (with_length(2**32 - 1), WireError),
    "a length of nothing": (with_length(0), (WireError, CiphertextError)),
    "a bit flipped in the magic": (flipped(0), WireError),
    "a bit flipped in the receipt": (flipped(30), ProtocolError),  # type: ignore[type-abstract]
    "a bit flipped in a ciphertext": (flipped(-500), CiphertextError),
}


def test_the_corpus_is_large() -> None:
    """At least thirty kinds of malformed ciphertexts."""
    assert len(CORPUS) >= 30


def receipt_in(upload: bytes, honest: EncryptedInput) -> bytes:
    """The receipt that an upload holds; of bytes that hold none, the honest one."""
    try:
        return EncryptedInput.from_bytes(upload).receipt.to_bytes()
    except WireError:
        return honest.receipt.to_bytes()


def send(meeting: Meeting, honest: EncryptedInput, upload: bytes) -> None:
    """Commit to an upload as a cheat does, have everybody else commit, and upload it. Refusals are raised."""
    meeting.server.receive(CHEAT, receipt_in(upload, honest))
    meeting.fix(FIRST, SECOND, THIRD)
    meeting.server.receive(CHEAT, upload)


@pytest.mark.parametrize("kind", CORPUS)
def test_a_malformed_upload_costs_its_sender_the_round_and_nobody_else(kind: str) -> None:
    """It is refused by name, when it is committed to or when it comes; the others are summed exactly."""
    change, error = CORPUS[kind]
    meeting = Meeting.of(SESSION)
    honest = meeting.made(CHEAT)
    bad = change(meeting, honest)

    with pytest.raises(error):
        send(meeting, honest, bad)
    if not meeting.fixed:
        meeting.fix(FIRST, SECOND, THIRD)
    with pytest.raises(ProtocolError):
        meeting.server.receive(CHEAT, bad)
    meeting.take(FIRST, SECOND, THIRD)

    sums = meeting.sums(same_bindings(SESSION))
    assert sums == {
        part.index: plain_sum(meeting.inputs, part, (FIRST, SECOND, THIRD)) for part in SESSION.segments
    }


def test_after_any_of_them_an_honest_upload_still_counts() -> None:
    """A refused upload changes nothing, so its sender may send the right one: all malformed ones first, then the honest."""
    meeting = Meeting.of(SESSION)
    honest = meeting.made(CHEAT)
    everything = [(change(meeting, honest), error) for change, error in CORPUS.values()]
    meeting.server.receive(CHEAT, honest.receipt.to_bytes())
    meeting.fix(FIRST, SECOND, THIRD)
    for bad, _ in everything:
        with pytest.raises(ProtocolError):
            meeting.server.receive(CHEAT, bad)

    meeting.server.receive(CHEAT, honest.to_bytes())
    meeting.take(FIRST, SECOND, THIRD)

    sums = meeting.sums(same_bindings(SESSION))
    assert sums == {part.index: plain_sum(meeting.inputs, part, MEMBERS) for part in SESSION.segments}


NOISE: dict[str, Callable[[bytes], bytes]] = {
    "random bytes": lambda data: np.random.default_rng(0).bytes(len(data)),
    "doubles that are no numbers": lambda data: np.full(len(data) // 8, np.nan).tobytes(),
    "a bomb cut to size": lambda data: (bomb() * 8)[: len(data)],
    "a ciphertext under another key": lambda _: Meeting.of(SESSION).made(CHEAT).ciphertexts[1],
}


@pytest.mark.parametrize("kind", NOISE)
def test_noise_in_the_form_of_a_ciphertext_closes_its_band_alone(kind: str) -> None:
    """Any residues are a ciphertext of something. What decrypts to noise leaves its range: that band stays closed by name."""
    meeting = Meeting.of(SESSION)
    honest = meeting.made(CHEAT)
    send(meeting, honest, rewritten(honest, s1=NOISE[kind](honest.ciphertexts[1])))
    meeting.take(FIRST, SECOND, THIRD)
    meeting.server.close_stage()

    result = meeting.server.result(same_bindings(SESSION))

    assert set(result.refused) == {1}
    assert "did not follow the protocol" in result.refused[1]
    assert {index: values.tolist() for index, values in result.sums.items()} == {
        index: plain_sum(meeting.inputs, SESSION.segments[index], MEMBERS) for index in (0, 2)
    }


def test_what_fills_a_ciphertext_up_must_be_zero() -> None:
    """A member that hides something behind its values, where nobody would look, keeps its band closed."""
    meeting = Meeting.of(SESSION)
    honest = meeting.made(CHEAT)
    key = bfv.public_key(BFV_2X20, meeting.key.key)
    hidden = np.zeros(30, dtype=np.int64)
    hidden[25] = 5
    pairs = key.encrypt(to_slots(hidden, BFV_2X20, members=4))
    send(meeting, honest, rewritten(honest, s1=polynomials.encode(pairs, MODULI)))
    meeting.take(FIRST, SECOND, THIRD)
    meeting.server.close_stage()

    result = meeting.server.result(same_bindings(SESSION))

    assert result.refused == {
        1: "what fills up its last ciphertext is not zero: a member did not follow the protocol"
    }


def test_an_upload_repeated_is_refused() -> None:
    """The same upload twice would count twice: the second one raises StageError."""
    meeting = Meeting.of(SESSION)
    upload = meeting.upload(FIRST)
    meeting.server.receive(FIRST, upload)

    with pytest.raises(StageError):
        meeting.server.receive(FIRST, upload)


# --- keys, as a client gets them ---

KeyChange = Callable[[RoundKey], RoundKey]


def resigned(key: RoundKey, *, by: str = "decryptor") -> RoundKey:
    """The key signed again, so that nothing but its content is wrong."""
    identity = service_identity(by) if by in {"decryptor", "verifier"} else AUTHORITY.identity(by)
    return replace(key, signature=identity.sign(KEY_PURPOSE, key.signed_part()))


def key_with(change: Callable[[polynomials.Polynomials], None]) -> KeyChange:
    """Residues changed."""

    def apply(key: RoundKey) -> RoundKey:
        pairs = polynomials.decode(key.key, count=1, moduli=BFV_2X20.moduli, degree=DEGREE)
        change(pairs)
        return resigned(replace(key, key=polynomials.encode(pairs, BFV_2X20.moduli)))

    return apply


def set_prime(pairs: polynomials.Polynomials) -> None:
    pairs[0, 0, 1, 5] = BFV_2X20.moduli[1]


def set_zero(pairs: polynomials.Polynomials) -> None:
    pairs[:, 1] = 0


KEYS: dict[str, tuple[KeyChange, type[ProtocolError]]] = {
    "a residue as large as its prime": (key_with(set_prime), CiphertextError),
    "the second polynomial zero": (key_with(set_zero), CiphertextError),
    "short": (lambda key: resigned(replace(key, key=key.key[:-1])), CiphertextError),
    "long": (lambda key: resigned(replace(key, key=key.key + b"\x00")), CiphertextError),
    "empty": (lambda key: resigned(replace(key, key=b"")), CiphertextError),
    "all ones": (lambda key: resigned(replace(key, key=b"\xff" * len(key.key))), CiphertextError),
    "a context of the library": (
        lambda key: resigned(
            replace(
                key,
                key=bfv._new_context(BFV_2X20).serialize(
                    save_public_key=True,
                    save_secret_key=True,
                    save_galois_keys=False,
                    save_relin_keys=False,
                ),
            )
        ),
        CiphertextError,
    ),
    "another key under this signature": (
        lambda key: replace(
            key, key=polynomials.encode(bfv.RoundSecret.generate(BFV_2X20).public_key(), BFV_2X20.moduli)
        ),
        SignatureError,
    ),
    "a signature of zeros": (lambda key: replace(key, signature=bytes(64)), SignatureError),
    "signed by a client": (lambda key: resigned(key, by=FIRST), SignatureError),
    "signed by the verifier": (lambda key: resigned(key, by="verifier"), SignatureError),
    "signed for another purpose": (
        lambda key: replace(
            key, signature=service_identity("decryptor").sign(INPUT_PURPOSE, key.signed_part())
        ),
        SignatureError,
    ),
    "of another session": (lambda key: resigned(replace(key, context=bytes(32))), ContextError),
    "of the next round": (lambda _: RoundKey.from_bytes(next_round_key()), ContextError),
}


def next_round_key() -> bytes:
    """An honest key, for the next round."""
    return Meeting.of(OTHER_ROUND).server.requests()[FIRST]


@pytest.mark.parametrize("kind", KEYS)
def test_a_client_encrypts_under_no_malformed_or_foreign_key(kind: str) -> None:
    """It refuses by name, sends nothing, and answers the right key afterwards."""
    change, error = KEYS[kind]
    meeting = Meeting.of(SESSION)
    key = RoundKey.from_bytes(meeting.server.requests()[FIRST])
    client = client_of(meeting.terms, FIRST)
    inputs = make_inputs(SESSION)[FIRST]

    with pytest.raises(error):
        client.contribute(change(key).to_bytes(), inputs)

    receipt = InputReceipt.from_bytes(client.contribute(key.to_bytes(), inputs))
    assert receipt.key_id == key.key_id


def test_a_client_encrypts_under_one_key() -> None:
    """A second honest key for the same session, of a decryptor that was started again, gets no second encryption."""
    meeting, again = Meeting.of(SESSION), Meeting.of(SESSION)
    client = client_of(meeting.terms, FIRST)
    inputs = make_inputs(SESSION)[FIRST]
    client.contribute(meeting.server.requests()[FIRST], inputs)

    with pytest.raises(StageError, match="encrypted its input already"):
        client.contribute(again.server.requests()[FIRST], inputs)


def test_no_client_can_be_a_service() -> None:
    """Terms whose decryptor is enrolled as a client, or is a member, are refused by everybody."""
    charge = charge_for()
    enrolled = replace(charge, services=replace(charge.services, decryptor=names(5)[-1]))
    member = replace(charge, services=replace(charge.services, decryptor=FIRST))

    with pytest.raises(EnrolmentError, match="enrolled as a client of rank 4, not as a service"):
        terms_of(SESSION, enrolled)
    with pytest.raises(RosterError, match="cannot be a member"):
        terms_of(SESSION, member)
    with pytest.raises(RosterError, match="cannot be decryptor and verifier"):
        terms_of(SESSION, replace(charge, services=replace(charge.services, verifier="decryptor")))


def test_a_segment_with_extra_secrets_is_refused() -> None:
    """Where nobody keeps shares, a session that counts on them is refused by name."""
    session = make_session(4, segment(0, 20, MEMBERS, extra_secrets=1))

    with pytest.raises(SessionError, match="segment 0: extra secrets"):
        terms_of(session)
