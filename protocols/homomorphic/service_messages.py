"""What services are told, beside the protocol's own messages.

By their own operator, on a line that the aggregator does not have:

setup     -> whom to believe, what to serve, what time it is; later on newer lists
reference -> empty: a verifier's Reference is its answer, to be kept; else the kept one, to a verifier or decryptor that has
             been started again and has served no session yet

By the aggregator:

hello     -> a service's public key, made by itself: its private half never leaves it
session   -> decryptor: a round key; verifier (with that key) and worker: nothing
committed -> verifier and decryptor: CommittedInputs, answered by a signature of the list
input     -> verifier: an EncryptedInput
stored    -> worker: ciphertexts to add; with no ciphertexts, the sums so far are its answer; at last, it forgets them
sum       -> verifier: an EncryptedSum, answered by a SumSignature
screening -> decryptor: its evaluation keys; the messages of screening follow
decrypt   -> decryptor: an EncryptedSum and the verifier's signature, answered by DecryptedSums
opened    -> verifier, where updates are screened: DecryptedSums, which the next ones are held against
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self, final

from protocols.errors import WireError
from protocols.homomorphic import parameters
from protocols.homomorphic.charge import Charge
from protocols.homomorphic.messages import EncryptedSum, RoundKey, SumSignature
from protocols.homomorphic.screening import FORM_SIZE, Screening
from protocols.homomorphic.terms import Services
from protocols.identity import TrustStore
from protocols.primitives.signing import PUBLIC_KEY_SIZE
from protocols.session import MAX_MEMBERS, MAX_SEGMENTS, Session
from protocols.wire import DIGEST_SIZE, MessageType, Reader, Writer

MOST_REASON: Final = 500
HELLO: Final = Writer(MessageType.SERVICE_HELLO).done()
SCREENING: Final = Writer(MessageType.SERVICE_SCREENING).done()
REFERENCE: Final = Writer(MessageType.SERVICE_REFERENCE).done()


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answer:
    """A service has done what it was asked to."""

    payload: bytes

    def to_bytes(self) -> bytes:
        """The canonical bytes."""
        return Writer(MessageType.SERVICE_ANSWER).blob(self.payload).done()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Inverse of :meth:`to_bytes`. Raises WireError."""
        reader = Reader(data, MessageType.SERVICE_ANSWER)
        message = cls(payload=reader.blob())
        reader.end()
        return message


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A service declines: the name of the error that it raised, and its message, cut at MOST_REASON characters."""

    error: str
    reason: str

    @classmethod
    def of(cls, error: Exception) -> Self:
        """The refusal of an error. Much of a message may be a peer's own words: it is cut where it is made."""
        return cls(error=type(error).__name__, reason=str(error)[:MOST_REASON])

    def to_bytes(self) -> bytes:
        """The canonical bytes."""
        return Writer(MessageType.SERVICE_REFUSAL).text(self.error).text(self.reason).done()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Inverse of :meth:`to_bytes`. Raises WireError."""
        reader = Reader(data, MessageType.SERVICE_REFUSAL)
        message = cls(error=reader.text(), reason=reader.text())
        reader.end()
        return message


def type_of(message: bytes) -> int:
    """The message type that some bytes claim; 0 where they are too short to claim one."""
    return message[3] if len(message) > 3 else 0  # noqa: PLR2004  # magic and version stand before it


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What a service is to serve, and whom it is to believe."""

    charge: Charge
    trust: TrustStore

    def to_bytes(self) -> bytes:
        """The canonical bytes."""
        charge, trust = self.charge, self.trust
        writer = Writer(MessageType.SERVICE_SETUP).text(charge.profile.name)
        writer.text(charge.services.decryptor).text(charge.services.verifier)
        writer.unsigned(len(charge.config_digests), 2)
        for digest in sorted(charge.config_digests):
            writer.fixed(digest, DIGEST_SIZE)
        writer.unsigned(charge.least_quorum, 2).unsigned(charge.class_quorum, 2)
        writer.unsigned(charge.most_members, 2).unsigned(charge.most_segments, 2)
        writer.blob(charge.screening.to_bytes() if charge.screening is not None else b"")
        writer.fixed(trust.authority, PUBLIC_KEY_SIZE).blob(trust.roster.to_bytes()).blob(
            trust.revocations.der
        )
        writer.unsigned(trust.moment, 8).unsigned(len(trust.certificates), 4)
        for client in sorted(trust.certificates):
            writer.blob(trust.certificates[client].der)
        return writer.done()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Inverse of :meth:`to_bytes`.

        Raises:
            WireError, SessionError, IdentityError: The bytes are not canonical, name no profile, or cannot be believed.
        """
        charge, now, certificates, (authority, roster, revocations) = cls._read(data)
        trust = TrustStore.read(
            authority=authority, roster=roster, revocations=revocations, certificates=certificates, now=now
        )
        setup = cls(charge=charge, trust=trust)
        if setup.to_bytes() != data:
            raise WireError(
                "service_setup: its digests and certificates are not in increasing order, each once"
            )
        return setup

    @classmethod
    def time_beside(cls, data: bytes, known: TrustStore) -> int | None:
        """The moment that a setup names, in unix seconds, if its lists are these, in force then or not; None beside others.

        Raises:
            WireError, SessionError: The bytes cannot be read.
        """
        _, now, _, lists = cls._read(data)
        same = lists == (known.authority, known.roster.to_bytes(), known.revocations.der)
        return now if same else None

    @staticmethod
    def _read(data: bytes) -> tuple[Charge, int, list[bytes], tuple[bytes, bytes, bytes]]:
        """Charge, time, certificates, and authority, roster and revocation list."""
        reader = Reader(data, MessageType.SERVICE_SETUP)
        charge = Charge(
            profile=parameters.by_name(reader.text()),
            services=Services(decryptor=reader.text(), verifier=reader.text()),
            config_digests=frozenset(reader.fixed(DIGEST_SIZE) for _ in range(reader.unsigned(2))),
            least_quorum=reader.unsigned(2),
            class_quorum=reader.unsigned(2),
            most_members=reader.unsigned(2),
            most_segments=reader.unsigned(2),
            screening=_read_screening(reader.blob()),
        )
        authority, roster, revocations = reader.fixed(PUBLIC_KEY_SIZE), reader.blob(), reader.blob()
        now = reader.unsigned(8)
        certificates = [reader.blob() for _ in range(reader.unsigned(4))]
        reader.end()
        return charge, now, certificates, (authority, roster, revocations)


def _read_screening(data: bytes) -> Screening | None:
    if len(data) not in (0, FORM_SIZE):
        raise WireError(f"service_setup: a screening rule of {len(data)} bytes must have {FORM_SIZE} or none")
    return Screening.from_bytes(data) if data else None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRequest:
    """Begin with a session.

    Args:
        session: Its terms.
        key: Its round key, for a verifier.
        profile: Of its ciphertexts, for a worker, which is not set up otherwise.
        part: Which of the session's sums, for a worker.
    """

    session: Session
    key: RoundKey | None = None
    profile: str = ""
    part: int = 0

    def to_bytes(self) -> bytes:
        """The canonical bytes."""
        writer = Writer(MessageType.SERVICE_SESSION).blob(self.session.to_bytes())
        writer.blob(self.key.to_bytes() if self.key is not None else b"")
        return writer.text(self.profile).unsigned(self.part, 2).done()

    @classmethod
    def from_bytes(
        cls, data: bytes, *, most_members: int = MAX_MEMBERS, most_segments: int = MAX_SEGMENTS
    ) -> Self:
        """Inverse of :meth:`to_bytes`. Raises WireError, SessionError, and before more are read RosterError."""
        reader = Reader(data, MessageType.SERVICE_SESSION)
        session = Session.from_bytes(reader.blob(), most_members=most_members, most_segments=most_segments)
        key, profile, part = reader.blob(), reader.text(), reader.unsigned(2)
        reader.end()
        return cls(session=session, key=RoundKey.from_bytes(key) if key else None, profile=profile, part=part)


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StoredSums:
    """Ciphertexts of one session by segment index: to be added, or the sums so far.

    `last` is asked of a worker that need not remember the session; `part` says which of its sums it is about.
    """

    context: bytes
    ciphertexts: Mapping[int, bytes]
    last: bool = False
    part: int = 0

    def to_bytes(self) -> bytes:
        """The canonical bytes."""
        writer = Writer(MessageType.STORED_SUMS).fixed(self.context, DIGEST_SIZE)
        writer.unsigned(self.part, 2).unsigned(self.last, 1)
        writer.positions(sorted(self.ciphertexts))
        for index in sorted(self.ciphertexts):
            writer.blob(self.ciphertexts[index])
        return writer.done()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Inverse of :meth:`to_bytes`. Raises WireError."""
        reader = Reader(data, MessageType.STORED_SUMS)
        context, part, last = reader.fixed(DIGEST_SIZE), reader.unsigned(2), reader.unsigned(1)
        ciphertexts = {index: reader.blob() for index in reader.positions()}
        reader.end()
        if last > 1:
            raise WireError(f"stored_sums: last={last} must be 0 or 1")
        return cls(context=context, part=part, ciphertexts=ciphertexts, last=bool(last))


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DecryptRequest:
    """An encrypted sum and the verifier's word for it."""

    encrypted: EncryptedSum
    verified: SumSignature

    def to_bytes(self) -> bytes:
        """The canonical bytes."""
        writer = Writer(MessageType.SERVICE_DECRYPT).blob(self.encrypted.to_bytes())
        return writer.blob(self.verified.to_bytes()).done()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Inverse of :meth:`to_bytes`. Raises WireError."""
        reader = Reader(data, MessageType.SERVICE_DECRYPT)
        message = cls(
            encrypted=EncryptedSum.from_bytes(reader.blob()), verified=SumSignature.from_bytes(reader.blob())
        )
        reader.end()
        return message
