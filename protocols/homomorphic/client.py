"""The client of the homomorphic mode: one step, from a signed public key to encrypted, signed summands.

Guarantees: it encrypts under one key per session, which the enrolled decryptor signed for this very session, roster and
profile; it holds no secret but its own input and the randomness of its encryption, which the library draws and forgets.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import final

from protocols.errors import StageError
from protocols.homomorphic import checks, polynomials, scheme, screening, screening_scheme
from protocols.homomorphic.fields import to_slots
from protocols.homomorphic.messages import (
    INPUT_PURPOSE,
    EncryptedInput,
    InputReceipt,
    PartReceipt,
    RoundKey,
    digest_of,
)
from protocols.homomorphic.terms import Terms
from protocols.identity import Identity
from protocols.interface import SegmentInput, SumClient, check_inputs
from protocols.session import ClientId


def create_encrypted_input(
    terms: Terms, me: ClientId, key: RoundKey, inputs: Mapping[int, SegmentInput], identity: Identity
) -> EncryptedInput:
    """Stage encrypt_input: pack, encrypt, sign.

    Raises:
        ContextError, IdentityError: The key is of another session, or not signed by the enrolled decryptor.
        CiphertextError: The key's residues are not those of a public key.
        InputError: The inputs do not fit the session.
    """
    checks.check_round_key(terms, key)
    check_inputs(terms.session, me, inputs)
    public = scheme.public_key(terms.profile, key.key)
    members = len(terms.session.members)
    ciphertexts = {
        index: polynomials.encode(
            public.encrypt(to_slots(given.values, terms.profile, members=members)),
            terms.profile.ciphertext_moduli,
        )
        for index, given in inputs.items()
    }
    copy = _copy(terms, me, key, inputs)
    receipt = InputReceipt(
        context=terms.context,
        sender=terms.session.position(me),
        key_id=key.key_id,
        copy_digest=digest_of(copy),
        parts={
            index: PartReceipt(binding=inputs[index].binding, digest=digest_of(data))
            for index, data in ciphertexts.items()
        },
    )
    return EncryptedInput(receipt=signed(receipt, identity), ciphertexts=ciphertexts, copy=copy)


def signed(receipt: InputReceipt, identity: Identity) -> InputReceipt:
    """The receipt with its sender's signature."""
    return replace(receipt, signature=identity.sign(INPUT_PURPOSE, receipt.signed_part()))


def _copy(terms: Terms, me: ClientId, key: RoundKey, inputs: Mapping[int, SegmentInput]) -> bytes:
    """The same values once more, in units of the input bound, under the key for screening; nothing where nothing is."""
    if terms.screening is None or not inputs:
        return b""
    values = {index: given.values / terms.session.input_bound for index, given in inputs.items()}
    rows = screening.rows(values, terms.session.segments_of(me), terms.screening)
    pairs = screening_scheme.screening_key(key.screening_key).encrypt(rows)
    return polynomials.encode(pairs, screening.CIPHERTEXT_MODULI)


@final
class HomomorphicClient(SumClient):
    """One client of one session. It answers one key, and repeats that answer to the same bytes."""

    def __init__(self, terms: Terms, me: ClientId, identity: Identity) -> None:
        terms.session.position(me)
        self._terms = terms
        self._me = me
        self._identity = identity
        self._answered: tuple[bytes, bytes] | None = None
        self._ended = False

    def reply(self, request: bytes) -> bytes:  # noqa: ARG002
        """There is no stage without input."""
        raise StageError("the only stage is encrypt_input: call contribute")

    def contribute(self, request: bytes, inputs: Mapping[int, SegmentInput]) -> bytes:
        """Answer the request of encrypt_input: the round key."""
        if self._ended:
            raise StageError("the session is over for this client")
        if self._answered is None:
            key = RoundKey.from_bytes(request)
            message = create_encrypted_input(self._terms, self._me, key, inputs, self._identity)
            self._answered = (request, message.to_bytes())
        if request != self._answered[0]:
            raise StageError("this client has encrypted its input already, under the key it was sent first")
        return self._answered[1]

    def end(self) -> None:
        """Forget what was sent."""
        self._answered = None
        self._ended = True
