"""The enrolment authority's signed list of clients, and the bytes that every signature here covers.

What is signed is never a message alone but

    "rbla-secure v1 " | purpose | NUL | message

A purpose names one kind of statement and holds no NUL, so that no signature can be taken for one of another kind.
Nothing here adds a session, a round or a sender: the message must hold whatever it is to be bound to. The authority's
key also signs DER structures; these begin with 0x30, which is not "r".
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Annotated, Final, Self, final

from protocols.codec import U16, U64, Digest, Fixed, String
from protocols.containers import Listed
from protocols.errors import EnrolmentError, SignatureError
from protocols.identity.certificates import CLIENT_ID, MAX_RANK, Certificate
from protocols.identity.revocations import MAX_LIST_NUMBER
from protocols.identity.x509 import MAX_TIME
from protocols.message import NOT_SIGNED, Inline, Record, SignedMessage
from protocols.primitives import signing
from protocols.primitives.signing import SIGNATURE_SIZE, SigningKey
from protocols.session import ClientId
from protocols.wire import MessageType

ROSTER_PURPOSE: Final = b"roster"
_PREFIX: Final = b"rbla-secure v1 "
_PURPOSE: Final = re.compile(rb"[a-z0-9][a-z0-9 ._-]{0,63}")


def signed_bytes(purpose: bytes, message: bytes) -> bytes:
    """Return the bytes that a signature for one purpose covers.

    Args:
        purpose: 1..64 of: lower-case letters, digits, space, dot, underscore, hyphen.
        message: The message that the signature covers.

    Raises:
        SignatureError: The purpose breaks its rule.
    """
    if not _PURPOSE.fullmatch(purpose):
        raise SignatureError(f"purpose {purpose!r} must match {_PURPOSE.pattern!r}")
    return _PREFIX + purpose + b"\x00" + message


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RosterEntry(Record):
    """One enrolled client.

    Args:
        client: Client id.
        rank: The enrolled rank tier, in 1..65535; 0 for a service.
        fingerprint: SHA-256 of its one certificate that counts.
        key_digest: SHA-256 of the public key in it, so that the roster alone shows whether two clients have one key.
    """

    client: String
    rank: U16
    fingerprint: Digest
    key_digest: Digest

    @classmethod
    def of(cls, certificate: Certificate) -> Self:
        """The entry for a certificate."""
        return cls(
            client=certificate.client,
            rank=certificate.rank,
            fingerprint=certificate.fingerprint,
            key_digest=hashlib.sha256(certificate.public_key).digest(),
        )


@final
@dataclass(frozen=True, kw_only=True)
class Roster(SignedMessage):
    """The authority's signed list of who is enrolled.

    Args:
        number: Number of the roster, which grows with every roster of an authority.
        least_revocations: Number of the revocation list that was in force when the roster was signed. With an older one the
            roster is not used: who shows the newest roster must show the revocations before it, too.
        issued_at: First second of its validity, in unix seconds.
        expires_at: Last second of its validity: a newer roster is due by then.
        entries: The enrolled clients, increasing by client, each client once.
        signature: The authority's, 64 bytes; checked by :meth:`verify`.

    Raises:
        EnrolmentError: The fields break these rules.
    """

    message_type = MessageType.ROSTER

    number: U64
    least_revocations: U64
    issued_at: U64
    expires_at: U64
    entries: Annotated[tuple[RosterEntry, ...], Listed(Inline(RosterEntry), count=4)]
    signature: Annotated[bytes, Fixed(SIGNATURE_SIZE), NOT_SIGNED] = field(repr=False)

    def __post_init__(self) -> None:
        if not 1 <= self.number <= MAX_LIST_NUMBER:
            raise EnrolmentError(f"roster number={self.number} must lie in 1..2**63-1")
        if not 1 <= self.least_revocations <= MAX_LIST_NUMBER:
            raise EnrolmentError(
                f"{self.name}: least_revocations={self.least_revocations} must lie in 1..2**63-1"
            )
        if not 0 <= self.issued_at < self.expires_at <= MAX_TIME:
            raise EnrolmentError(f"{self.name}: {self.issued_at}..{self.expires_at} is no span of seconds")
        for entry in self.entries:
            if not CLIENT_ID.fullmatch(entry.client) or not 0 <= entry.rank <= MAX_RANK:
                raise EnrolmentError(
                    f"{self.name}: client {entry.client!r} or rank={entry.rank} is malformed"
                )
        if any(a.client >= b.client for a, b in pairwise(self.entries)):
            raise EnrolmentError(f"{self.name}: clients must be in increasing order, each once")

    @classmethod
    def issue(
        cls,
        key: SigningKey,
        *,
        number: int,
        least_revocations: int,
        issued_at: int,
        expires_at: int,
        entries: Iterable[RosterEntry],
    ) -> Self:
        """Issue a signed roster; run by the authority. Never sign two rosters under one number.

        Raises:
            EnrolmentError: The fields break the rules of a roster.
        """
        draft = cls(
            number=number,
            least_revocations=least_revocations,
            issued_at=issued_at,
            expires_at=expires_at,
            entries=tuple(sorted(entries, key=lambda entry: entry.client)),
            signature=bytes(SIGNATURE_SIZE),
        )
        return replace(draft, signature=key.sign(signed_bytes(ROSTER_PURPOSE, draft._content)))

    @property
    def name(self) -> str:
        """The roster's name in error messages."""
        return f"roster {self.number}"

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of everything but the signature; sessions are bound to it."""
        return hashlib.sha256(b"rbla-secure roster\x00" + self._content).digest()

    @cached_property
    def _holders_of_key(self) -> Counter[bytes]:
        return Counter(entry.key_digest for entry in self.entries)

    @cached_property
    def _by_client(self) -> dict[ClientId, RosterEntry]:
        return {entry.client: entry for entry in self.entries}

    def entry(self, client: ClientId) -> RosterEntry:
        """Return a client's entry.

        Raises:
            EnrolmentError: It has none.
        """
        try:
            return self._by_client[client]
        except KeyError:
            raise EnrolmentError(f"client {client!r} is not enrolled by {self.name}") from None

    def lists(self, certificate: Certificate) -> bool:
        """Return whether this very certificate is the one that counts for its client."""
        return self._by_client.get(certificate.client) == RosterEntry.of(certificate)

    def check_own_key(self, client: ClientId) -> None:
        """Refuse a client whose key another client has as well: their signatures could not be told apart.

        The entries alone say so; whoever holds back the other client's certificate hides nothing.

        Raises:
            EnrolmentError: It has no entry, or shares its key.
        """
        if self._holders_of_key[self.entry(client).key_digest] > 1:
            raise EnrolmentError(f"client {client!r} shares its key with another client of {self.name}")

    def check_revocations(self, number: int) -> None:
        """Refuse a revocation list that is older than the roster. Raises EnrolmentError."""
        if number < self.least_revocations:
            raise EnrolmentError(
                f"{self.name} must be used with revocation list {self.least_revocations} or a newer one, not with "
                f"{number}: get the newest one"
            )

    def verify(self, authority: bytes) -> None:
        """Refuse a roster that the holder of this public key did not sign.

        Raises:
            SignatureError: That is the case.
        """
        try:
            signing.verify(authority, self.signature, signed_bytes(ROSTER_PURPOSE, self._content))
        except SignatureError:
            raise SignatureError(f"{self.name} was not signed by this authority") from None

    def check_valid_at(self, now: int) -> None:
        """Refuse the roster outside its validity. Raises EnrolmentError."""
        if now < self.issued_at:
            raise EnrolmentError(f"{self.name} is not yet valid: {self.issued_at - now} seconds remain")
        if now > self.expires_at:
            raise EnrolmentError(
                f"{self.name} expired {now - self.expires_at} seconds ago: get the newest one"
            )

    @cached_property
    def _content(self) -> bytes:
        return self.signed_part()
