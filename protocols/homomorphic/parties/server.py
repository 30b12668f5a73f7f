"""The aggregator of the homomorphic mode: collects ciphertexts, adds them, has the sums decrypted. It holds no key.

commit_input   requests()      the round key, which the decryptor makes when it is first asked for
               receive()       check the receipt
               close_stage()   who is on the list: receipts that name one model, of classes that are large enough
upload_input   requests()      the list, once verifier and decryptor have fixed it
               receive()       only what was committed to; screen; add in a worker; show it to the verifier, if there is one
               close_stage()   fix the one set of contributors, again without classes that are too small
result()       one encrypted sum per band that meets its quorum -> [verifier signs] -> decryptor -> integers
"""

import contextlib
from collections import Counter
from collections.abc import Mapping
from enum import Enum, unique
from typing import final

from protocols.errors import BelowThresholdError, InputError, ServiceError, StageError
from protocols.homomorphic import checks
from protocols.homomorphic.messages import DecryptedSums, EncryptedInput, EncryptedSum, RoundKey
from protocols.homomorphic.parties.guarded_adder import GuardedSums
from protocols.homomorphic.receipts import CommittedInputs, FixedInputs, InputReceipt
from protocols.homomorphic.screening.at_server import UpdatesScreening
from protocols.homomorphic.screening.screening import Screened
from protocols.homomorphic.services.calls import Calls, Roles
from protocols.homomorphic.services.messages import type_of
from protocols.homomorphic.terms import EncryptionTerms
from protocols.interface import SumResult, SumServer, check_binding
from protocols.session import ClientId, Segment
from protocols.wire import MessageType

COMMIT, UPLOAD = STAGES = ("commit_input", "upload_input")


@unique
class _State(Enum):
    """The step that the server waits for."""

    COMMITS = COMMIT
    UPLOADS = UPLOAD
    RESULT = "result"
    OVER = "over"


@final
class HomomorphicServer(SumServer):
    """The server of one session."""

    def __init__(self, terms: EncryptionTerms, roles: Roles) -> None:
        self._terms = terms
        self._session = terms.session
        self._calls = Calls(terms, roles)
        self._adder = GuardedSums(terms, roles.worker)
        self._screening = UpdatesScreening(terms, roles, self._calls)
        self._state = _State.COMMITS
        self._key: RoundKey | None = None
        self._expected: bytes | None = None
        self._receipts: dict[int, InputReceipt] = {}
        self._fixed: FixedInputs | None = None
        self._added: frozenset[int] = frozenset()
        self._present: frozenset[int] = frozenset()

    @property
    def screened(self) -> Mapping[int, Screened]:
        """By position: the screening's information about a client's update."""
        return self._screening.screened

    @property
    def screened_out(self) -> Mapping[ClientId, str]:
        """By client: the reason why the screening rejected its update."""
        return {
            self._session.client_at(position): told.reason
            for position, told in self._screening.screened.items()
            if told.reason
        }

    @property
    def contributors(self) -> tuple[ClientId, ...] | None:
        """The contributors of the sums, increasing; None until they are fixed, which is before anything is opened."""
        if self._state in {_State.COMMITS, _State.UPLOADS}:
            return None
        return tuple(self._session.client_at(position) for position in sorted(self._present))

    def expect(self, bindings: Mapping[int, bytes]) -> None:
        """Set the one model that inputs must be bound to; a commitment to another is refused.

        Raises:
            InputError: The bindings are not all the same.
        """
        found = {check_binding(index, binding) for index, binding in bindings.items()}
        if len(found) != 1:
            raise InputError(f"the segments are bound to {len(found)} models and must be bound to one")
        self._expected = found.pop()

    def requests(self) -> Mapping[ClientId, bytes]:
        """Return the round key for every member; in the next stage the fixed list for everyone on it.

        Raises:
            ServiceError: The decryptor makes no key or signs no list, or the verifier does not follow.
        """
        if self._state is _State.COMMITS:
            return dict.fromkeys(self._session.members, self._round_key().to_bytes())
        self._check_uploads()
        request = self._fixed_inputs().to_bytes()
        return {self._session.client_at(position): request for position in sorted(self._receipts)}

    def receive(self, client: ClientId, reply: bytes) -> None:
        """Take a receipt, or the ciphertexts that it commits to.

        Raises:
            CommitmentError, CiphertextError: Ciphertexts are not those that their sender has committed to.
            ScreeningError: The input was screened out.
            ServiceError: The worker died over it, or the verifier did not take it.
        """
        position = self._session.position(client)
        if self._state is _State.COMMITS:
            self._commit(client, position, reply)
        else:
            self._check_uploads()
            self._upload(client, position, reply)

    def close_stage(self) -> None:
        """Fix the list of inputs; in the next stage, fix who of them has contributed."""
        if self._state is _State.COMMITS:
            self._receipts = _without(self._receipts, self._left_out())
            self._close(COMMIT, frozenset(self._receipts), _State.UPLOADS)
        else:
            self._check_uploads()
            thin = frozenset().union(*self._terms.thin_classes(self._added))
            self._present = self._added - thin
            self._close(UPLOAD, self._present, _State.RESULT)

    def result(self, bindings: Mapping[int, bytes]) -> SumResult:
        """Have the sums decrypted and return the result; once.

        Raises:
            ServiceError: A service is gone or refuses: the session ends without a result.
        """
        if self._state is not _State.RESULT:
            raise StageError(f"the sums are opened once, after {UPLOAD} has closed")
        for segment in self._session.segments:
            check_binding(segment.index, bindings.get(segment.index))
        self._state = _State.OVER
        refused = {
            segment.index: reason
            for segment in self._session.segments
            if (reason := self._reason_to_keep_closed(segment, bindings))
        }
        sums = {}
        decrypted = self._decrypted(frozenset(range(len(self._session.segments))) - refused.keys())
        for segment in self._session.segments:
            if segment.index in refused:
                continue
            summed = decrypted.integers(segment.index)
            if reason := checks.reason_to_discard(self._terms, segment, self._present, summed):
                refused[segment.index] = reason
            else:
                sums[segment.index] = summed[: segment.length]
        return SumResult(survivors=self.contributors or (), sums=sums, refused=refused)

    def _commit(self, client: ClientId, position: int, reply: bytes) -> None:
        if position in self._receipts:
            raise StageError(f"{client}: has already answered {COMMIT}")
        receipt = InputReceipt.from_bytes(reply)
        checks.check_member(self._terms, position, receipt)
        checks.check_receipt(self._terms, receipt, key_id=self._round_key().key_id)
        if self._expected is not None and receipt.digests and receipt.binding != self._expected:
            raise InputError(f"{client}: was bound to another model than the server")
        self._receipts[position] = receipt

    def _upload(self, client: ClientId, position: int, reply: bytes) -> None:
        if self._fixed is None:
            raise StageError(
                f"{client}: nobody was asked for ciphertexts yet: the list of inputs is not fixed"
            )
        if position in self._added:
            raise StageError(f"{client}: has already answered {UPLOAD}")
        if position not in self._receipts or type_of(reply) == MessageType.INPUT_RECEIPT:
            raise StageError(
                f"{client}: the list of inputs was fixed at {COMMIT}: a later receipt does not count"
            )
        message = EncryptedInput.from_bytes(reply)
        checks.check_member(self._terms, position, message.receipt)
        committed, key_id = self._receipts[position], self._round_key().key_id
        checks.check_input(self._terms, message, key_id=key_id, committed=committed)
        checks.check_copy(self._terms, committed, message.copy)
        if message.copy:
            self._screening.screen(position, message.copy)
        self._adder.add(position, message.ciphertexts)
        try:
            self._calls.add_at_verifier(message)
        except ServiceError:
            # Whoever is not in the verifier's sum must not be in ours.
            self._adder.take_back(position, message.ciphertexts)
            raise
        self._added |= {position}

    def _left_out(self) -> frozenset[int]:
        """Return the senders whose receipts name a minority's model, and the members of classes then too small.

        The services sign no list over two models: a few who name another must not cost everybody the round.
        """
        counted = Counter(receipt.binding for receipt in self._receipts.values() if receipt.digests)
        most = max(counted, key=lambda binding: (counted[binding], binding), default=b"")
        foreign = frozenset(
            position
            for position, receipt in self._receipts.items()
            if receipt.digests and receipt.binding != most
        )
        return foreign.union(*self._terms.thin_classes(self._receipts.keys() - foreign))

    def _close(self, stage: str, answered: frozenset[int], following: _State) -> None:
        self._state = following
        if len(answered) < self._session.threshold:
            self._state = _State.OVER
            self._adder.forget()
            raise BelowThresholdError(
                f"{stage}: {len(answered)} of {len(self._session.members)} clients answered, "
                f"threshold={self._session.threshold} are needed"
            )

    def _reason_to_keep_closed(self, segment: Segment, bindings: Mapping[int, bytes]) -> str:
        if reason := checks.reason_to_keep_closed(self._terms, segment, self._present):
            return reason
        models = {self._receipts[p].binding for p in self._present if self._receipts[p].digests}
        if models != {bindings[other.index] for other in self._session.segments}:
            return "its members were bound to another model than the server"
        return ""

    def _decrypted(self, wanted: frozenset[int]) -> DecryptedSums:
        """Return the decryptor's signed answer about these segments."""
        if not wanted:
            self._adder.forget()
            return DecryptedSums(context=self._terms.context, sum_digest=b"", sums={})
        sums = self._adder.sums(self._added, self._present)
        encrypted = EncryptedSum(
            context=self._terms.context,
            key_id=self._round_key().key_id,
            inputs_digest=self._fixed_inputs().digest,
            contributors=tuple(sorted(self._present)),
            ciphertexts={index: sums[index] for index in sorted(wanted)},
        )
        opened = self._calls.decrypt(encrypted)
        if self._terms.screening is not None:
            # The sums are there. A verifier that is gone ends the next round, not this one.
            with contextlib.suppress(ServiceError):
                self._calls.show_opened(opened)
        return opened

    def _round_key(self) -> RoundKey:
        if self._key is None:
            self._key = self._calls.round_key()
        return self._key

    def _fixed_inputs(self) -> FixedInputs:
        if self._fixed is None:
            receipts = tuple(self._receipts[position] for position in sorted(self._receipts))
            self._fixed = self._calls.fix(
                CommittedInputs(
                    context=self._terms.context, key_id=self._round_key().key_id, receipts=receipts
                )
            )
        return self._fixed

    def _check_uploads(self) -> None:
        if self._state is not _State.UPLOADS:
            raise StageError("all stages of the session are closed")


def _without(receipts: Mapping[int, InputReceipt], gone: frozenset[int]) -> dict[int, InputReceipt]:
    return {position: receipt for position, receipt in receipts.items() if position not in gone}
