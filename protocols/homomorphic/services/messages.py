"""The messages to services, beside the protocol's own.

From their own operator, on a line that the aggregator does not have:

setup     -> whom to believe, what to serve, what time it is; later on newer lists
reference -> empty: a verifier's Reference is its answer, to be kept; else the kept one, to a verifier or decryptor that has
             been started again and has served no session yet

From the aggregator:

hello     -> a service's public key, made by itself: its private half never leaves it
session   -> decryptor: a round key; verifier (with that key) and worker: nothing
committed -> verifier and decryptor: CommittedInputs, answered by a signature of the list
input     -> verifier: an EncryptedInput
stored    -> worker: ciphertexts to add; with no ciphertexts, the sums so far are its answer; at last, it forgets them
sum       -> verifier: an EncryptedSum, answered by a SumSignature
screening -> decryptor: its evaluation keys; the messages of screening follow
decrypt   -> decryptor: an EncryptedSum and the verifier's signature, answered by DecryptedSums
opened    -> verifier, where updates are screened: DecryptedSums, with which the next ones are compared
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, Self, final

from protocols.codec import U16, U64, Blob, Bytes, Codec, Digest, Fixed, Flag, Given, String
from protocols.containers import Listed, Nested, OptionalNested
from protocols.errors import WireError
from protocols.homomorphic.messages import Ciphertexts, EncryptedSum, RoundKey, SumSignature
from protocols.homomorphic.scheme import parameters
from protocols.homomorphic.screening.screening import FORM_SIZE, Screening
from protocols.homomorphic.services.charge import Charge
from protocols.homomorphic.terms import Services
from protocols.identity.trust import TrustStore
from protocols.message import HeadedRecord, Message
from protocols.primitives.signing import PUBLIC_KEY_SIZE
from protocols.session import MAX_MEMBERS, MAX_SEGMENTS, Session
from protocols.wire import DIGEST_SIZE, MessageType, Reader, Writer

MOST_REASON: Final = 500
HELLO: Final = Writer(MessageType.SERVICE_HELLO).done()
SCREENING: Final = Writer(MessageType.SERVICE_SCREENING).done()
REFERENCE: Final = Writer(MessageType.SERVICE_REFERENCE).done()


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answer(Message):
    """A service's answer that it has done as asked."""

    message_type = MessageType.SERVICE_ANSWER

    payload: Bytes


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal(Message):
    """A service's refusal: the name of the error it raised, and its message, cut at MOST_REASON characters."""

    message_type = MessageType.SERVICE_REFUSAL

    error: String
    reason: String

    @classmethod
    def of(cls, error: Exception) -> Self:
        """Return the refusal of an error. Its message may hold much of a peer's own words, so it is cut here."""
        return cls(error=type(error).__name__, reason=str(error)[:MOST_REASON])


def type_of(message: bytes) -> int:
    """Return the message type that some bytes claim; 0 where they are too short for one."""
    return message[3] if len(message) > 3 else 0  # noqa: PLR2004  # magic and version stand before it


@final
@dataclass(frozen=True, slots=True)
class _Rule(Codec[Screening | None]):
    """A screening rule as a blob; an empty one for None."""

    holds = Screening | None

    def write(self, writer: Writer, value: Screening | None) -> None:
        """Append it."""
        writer.blob(value.to_bytes() if value is not None else b"")

    def read(self, reader: Reader) -> Screening | None:
        """Take it."""
        data = reader.blob()
        if len(data) not in (0, FORM_SIZE):
            raise WireError(
                f"{reader.name}: a screening rule of {len(data)} bytes must have {FORM_SIZE} or none"
            )
        return Screening.from_bytes(data) if data else None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class _SetupFields(Message):
    """The wire format of a setup: names in place of profiles, and lists that nobody has verified."""

    message_type = MessageType.SERVICE_SETUP

    profile: String
    decryptor: String
    verifier: String
    config_digests: Annotated[tuple[bytes, ...], Listed(Fixed(DIGEST_SIZE), count=2)]
    least_quorum: U16
    class_quorum: U16
    most_members: U16
    most_segments: U16
    screening: Annotated[Screening | None, _Rule()]
    authority: Annotated[bytes, Fixed(PUBLIC_KEY_SIZE)]
    roster: Bytes
    revocations: Bytes
    moment: U64
    certificates: Annotated[tuple[bytes, ...], Listed(Blob(), count=4)]

    def charge(self) -> Charge:
        """Return the charge to serve. Raises SessionError where there is no such profile."""
        return Charge(
            profile=parameters.by_name(self.profile),
            services=Services(decryptor=self.decryptor, verifier=self.verifier),
            config_digests=frozenset(self.config_digests),
            least_quorum=self.least_quorum,
            class_quorum=self.class_quorum,
            most_members=self.most_members,
            most_segments=self.most_segments,
            screening=self.screening,
        )


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """The charge that a service has to serve, and the parties that it has to believe."""

    charge: Charge
    trust: TrustStore

    def to_bytes(self) -> bytes:
        """Return the canonical bytes: digests increasing, certificates by increasing client."""
        charge, trust = self.charge, self.trust
        return _SetupFields(
            profile=charge.profile.name,
            decryptor=charge.services.decryptor,
            verifier=charge.services.verifier,
            config_digests=tuple(sorted(charge.config_digests)),
            least_quorum=charge.least_quorum,
            class_quorum=charge.class_quorum,
            most_members=charge.most_members,
            most_segments=charge.most_segments,
            screening=charge.screening,
            authority=trust.authority,
            roster=trust.roster.to_bytes(),
            revocations=trust.revocations.der,
            moment=trust.moment,
            certificates=tuple(trust.certificates[client].der for client in sorted(trust.certificates)),
        ).to_bytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Inverse of :meth:`to_bytes`.

        Raises:
            WireError, SessionError, IdentityError: The bytes are not canonical, name no profile, or cannot be believed.
        """
        fields = _SetupFields.from_bytes(data)
        charge = fields.charge()
        trust = TrustStore.read(
            authority=fields.authority,
            roster=fields.roster,
            revocations=fields.revocations,
            certificates=fields.certificates,
            now=fields.moment,
        )
        setup = cls(charge=charge, trust=trust)
        if setup.to_bytes() != data:
            raise WireError(
                "service_setup: its digests and certificates are not in increasing order, each once"
            )
        return setup

    @classmethod
    def time_beside(cls, data: bytes, known: TrustStore) -> int | None:
        """Return a setup's time in unix seconds if its lists are these, in force or not; None for other lists.

        Raises:
            WireError, SessionError: The bytes cannot be read.
        """
        fields = _SetupFields.from_bytes(data)
        fields.charge()  # raises: what names no profile tells no time either
        lists = (fields.authority, fields.roster, fields.revocations)
        same = lists == (known.authority, known.roster.to_bytes(), known.revocations.der)
        return fields.moment if same else None


@final
@dataclass(frozen=True, slots=True)
class _SessionWithin(Codec[Session]):
    """A session as a blob, with limits on its members and segments."""

    most_members: int
    most_segments: int
    holds = Session

    def write(self, writer: Writer, value: Session) -> None:
        """Append it."""
        writer.blob(value.to_bytes())

    def read(self, reader: Reader) -> Session:
        """Take it."""
        return Session.from_bytes(
            reader.blob(), most_members=self.most_members, most_segments=self.most_segments
        )


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRequest(HeadedRecord):
    """A request to begin a session.

    Args:
        session: The session's terms.
        key: The session's round key, for a verifier.
        profile: Name of the encryption profile, for a worker, which is not set up otherwise.
        part: Number of one of the session's sums, for a worker.
    """

    message_type = MessageType.SERVICE_SESSION
    most_members: ClassVar[int] = MAX_MEMBERS
    most_segments: ClassVar[int] = MAX_SEGMENTS

    session: Annotated[Session, Given(("most_members", "most_segments"), _SessionWithin)]
    key: Annotated[RoundKey | None, OptionalNested(RoundKey)] = None
    profile: String = ""
    part: U16 = 0

    def to_bytes(self) -> bytes:
        """Return the canonical bytes."""
        return self._encode()

    @classmethod
    def from_bytes(
        cls, data: bytes, *, most_members: int = MAX_MEMBERS, most_segments: int = MAX_SEGMENTS
    ) -> Self:
        """Inverse of :meth:`to_bytes`. Raises WireError, SessionError, and before more are read RosterError."""
        return cls._decode(data, {"most_members": most_members, "most_segments": most_segments})


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StoredSums(Message):
    """Ciphertexts of one session by segment index: either to be added, or the sums so far.

    `last` is asked of a worker that need not remember the session; `part` says which of its sums it is about.
    """

    message_type = MessageType.STORED_SUMS

    context: Digest
    part: U16 = 0
    last: Annotated[bool, Flag("last")] = False
    ciphertexts: Ciphertexts


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DecryptRequest(Message):
    """An encrypted sum and the verifier's signature of it."""

    message_type = MessageType.SERVICE_DECRYPT

    encrypted: Annotated[EncryptedSum, Nested(EncryptedSum)]
    verified: Annotated[SumSignature, Nested(SumSignature)]
