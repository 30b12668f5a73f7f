"""The client of the homomorphic mode: encrypt and commit, then, once the list of all commitments is fixed, upload.

    contribute   round key      -> receipt       train, encrypt, sign the digests of everything encrypted
    reply        fixed inputs   -> ciphertexts   if decryptor and verifier have signed the list, and this receipt is on it

Guarantees: it encrypts under one key per session, which the enrolled decryptor signed for this very session, roster,
revocation list and profile, in which every member can be believed; it sends its ciphertexts once, after everybody's were
fixed, so that no other client's can depend on them; it holds no secret but its own input and the randomness of its
encryption, which the library draws and forgets.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import final

from protocols.errors import InputError, StageError
from protocols.homomorphic import checks
from protocols.homomorphic.messages import EncryptedInput, RoundKey
from protocols.homomorphic.receipts import (
    INPUT_PURPOSE,
    NO_BINDING,
    FixedInputs,
    InputReceipt,
    commitment_to,
    commitment_to_copy,
)
from protocols.homomorphic.scheme import bfv, ckks, polynomials
from protocols.homomorphic.scheme.fields import to_slots
from protocols.homomorphic.screening import screening
from protocols.homomorphic.terms import EncryptionTerms
from protocols.identity.trust import Identity
from protocols.interface import SegmentInput, SumClient, check_inputs
from protocols.session import ClientId


def create_encrypted_input(
    terms: EncryptionTerms,
    me: ClientId,
    key: RoundKey,
    inputs: Mapping[int, SegmentInput],
    identity: Identity,
) -> EncryptedInput:
    """Stage commit_input: pack, encrypt, sign the receipt. Only the receipt is sent yet.

    Raises:
        ContextError, IdentityError: The key is of another session, or not signed by the enrolled decryptor.
        CiphertextError: The key's residues are not those of a public key.
        InputError: The inputs do not fit the session, or are bound to more than one model.
    """
    checks.check_round_key(terms, key)
    check_inputs(terms.session, me, inputs)
    public = bfv.public_key(terms.profile, key.key)
    members = len(terms.session.members)
    ciphertexts = {
        index: polynomials.encode(
            public.encrypt(to_slots(given.values, terms.profile, members=members)),
            terms.profile.ciphertext_moduli,
        )
        for index, given in inputs.items()
    }
    copy = _copy(terms, me, key, inputs)
    context, sender = terms.context, terms.session.position(me)
    receipt = InputReceipt(
        context=context,
        sender=sender,
        key_id=key.key_id,
        binding=_binding(me, inputs),
        digests={index: commitment_to(context, sender, index, data) for index, data in ciphertexts.items()},
        copy_digest=commitment_to_copy(context, sender, copy),
    )
    return EncryptedInput(receipt=signed(receipt, identity), ciphertexts=ciphertexts, copy=copy)


def _binding(me: ClientId, inputs: Mapping[int, SegmentInput]) -> bytes:
    """Return the one model that all inputs are bound to; a band's values depend on more than that band's rows."""
    found = {given.binding for given in inputs.values()}
    if len(found) > 1:
        raise InputError(f"{me}: its segments are bound to {len(found)} models and must be bound to one")
    return found.pop() if found else NO_BINDING


def signed(receipt: InputReceipt, identity: Identity) -> InputReceipt:
    """Return the receipt with its sender's signature."""
    return replace(receipt, signature=identity.sign(INPUT_PURPOSE, receipt.signed_part()))


def _copy(terms: EncryptionTerms, me: ClientId, key: RoundKey, inputs: Mapping[int, SegmentInput]) -> bytes:
    """Return the encrypted copy for screening, in units of the input bound; empty without screening."""
    if terms.screening is None or not inputs:
        return b""
    values = {index: given.values / terms.session.input_bound for index, given in inputs.items()}
    rows = screening.rows(values, terms.session.segments_of(me), terms.screening)
    pairs = ckks.screening_key(key.screening_key).encrypt(rows)
    return polynomials.encode(pairs, screening.CIPHERTEXT_MODULI)


@final
class HomomorphicClient(SumClient):
    """One client of one session. It answers one key and one list; the same bytes again get the same answer."""

    def __init__(self, terms: EncryptionTerms, me: ClientId, identity: Identity) -> None:
        super().__init__()
        terms.session.position(me)
        self._terms = terms
        self._me = me
        self._identity = identity
        self._committed: tuple[bytes, EncryptedInput] | None = None
        self._uploaded: tuple[bytes, bytes] | None = None
        self._ended = False

    def contribute(self, request: bytes, inputs: Mapping[int, SegmentInput]) -> bytes:
        """Answer the request of commit_input: the round key."""
        with self._turn:
            self._check_open()
            if self._committed is None:
                key = RoundKey.from_bytes(request)
                message = create_encrypted_input(self._terms, self._me, key, inputs, self._identity)
                self._committed = (request, message)
            if request != self._committed[0]:
                raise StageError(
                    "this client has encrypted its input already, under the key it was sent first"
                )
            return self._committed[1].receipt.to_bytes()

    def reply(self, request: bytes) -> bytes:
        """Answer the request of upload_input: the fixed list of inputs.

        Raises:
            StageError: Nothing was committed to yet, or another list was answered.
            CommitmentError, ContextError, KeyUseError, IdentityError: As :func:`checks.check_fixed`; nothing is sent.
        """
        with self._turn:
            self._check_open()
            if self._committed is None or request == self._committed[0]:
                raise StageError("the inputs are asked for by contribute, at commit_input")
            if self._uploaded is None:
                message = self._committed[1]
                checks.check_fixed(self._terms, FixedInputs.from_bytes(request), mine=message.receipt)
                self._uploaded = (request, message.to_bytes())
            if request != self._uploaded[0]:
                raise StageError(
                    "this client has sent its ciphertexts already, for the list it was sent first"
                )
            return self._uploaded[1]

    def end(self) -> None:
        """Forget what was sent."""
        with self._turn:
            self._committed = self._uploaded = None
            self._ended = True

    def _check_open(self) -> None:
        if self._ended:
            raise StageError("the session is over for this client")
