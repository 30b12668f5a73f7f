"""Long-term identities, and one party's view of whom to believe.

The enrolment authority is not the aggregator: it certifies each client's key and rank, and signs the roster of who is
enrolled (:mod:`protocols.identity.roster`, where the bytes under a signature are defined too). Clients, server and auditors each
hold a `TrustStore`, so that no server can make up clients, give a client another key or rank, or fall back to a roster
from before a revocation.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Self, final

from protocols.clock import Clock
from protocols.errors import CertificateError, EnrolmentError, RevokedError, SignatureError
from protocols.identity.certificates import (
    AuthorityCertificate,
    Certificate,
    issue_authority,
    issue_certificate,
    read_certificate,
)
from protocols.identity.revocations import RevocationList, issue_revocations, read_revocations
from protocols.identity.roster import Roster, RosterEntry, signed_bytes
from protocols.primitives import signing
from protocols.primitives.secret import SYSTEM_RANDOM, RandomBytes
from protocols.primitives.signing import SigningKey
from protocols.session import ClientId

__all__ = ["Identity", "Roster", "RosterEntry", "ThrowawayAuthority", "TrustStore", "signed_bytes"]

MONTH_SECONDS = 30 * 86_400
YEAR_SECONDS = 365 * 86_400
SERVICE_RANK = 0  # what a certificate says of a decryptor or verifier: it holds no rows


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A client's own key and certificate; held by the client alone.

    Raises:
        EnrolmentError: The certificate is another client's or binds another key.
    """

    client: ClientId
    key: SigningKey
    certificate: Certificate

    def __post_init__(self) -> None:
        if self.certificate.client != self.client:
            raise EnrolmentError(
                f"the certificate of {self.certificate.client!r} is not that of {self.client!r}"
            )
        if self.certificate.public_key != self.key.public:
            raise EnrolmentError(f"the certificate of {self.client!r} binds another key")

    def sign(self, purpose: bytes, message: bytes) -> bytes:
        """Return a signature of 64 bytes over a message for one purpose; see :func:`signed_bytes`."""
        return self.key.sign(signed_bytes(purpose, message))


@final
@dataclass(frozen=True, kw_only=True)
class TrustStore:
    """One party's view of whom to believe.

    Guarantees: the authority signed everything in it, its lists were in force at `now`, and the revocation list is none from
    before the roster. Whether a single client may be believed is what :meth:`check` says, so that one bad certificate stops
    nobody else. It reads the clock every time: what expires in the middle of a run is refused from then on, and nothing
    that was refused for its age comes back (:mod:`protocols.clock`).

    Args:
        authority: The authority's public key, known from a safe source.
        roster: The enrolled clients.
        revocations: The revoked certificates.
        certificates: The available certificates, by client.
        now: The moment from which it counts, in unix seconds; without a clock it stays there.
        clock: The time from then on; a party that lives for longer than one check needs one. Two views that differ in
            their clocks alone are equal.

    Raises:
        SignatureError: Another key signed the roster.
        CertificateError: A certificate or the revocation list is foreign or was altered; the list is not in force.
        EnrolmentError: The roster is not in force, the revocation list is older than the one the roster names, or a
            certificate stands under another client's name.
    """

    authority: bytes
    roster: Roster
    revocations: RevocationList
    certificates: Mapping[ClientId, Certificate] = field(repr=False)
    now: int
    clock: Clock | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "certificates", MappingProxyType(dict(self.certificates)))
        self.roster.verify(self.authority)
        if read_revocations(self.revocations.der, self.authority) != self.revocations:
            raise CertificateError(f"revocation list {self.revocations.number} is not what its bytes say")
        self.check_in_force()
        self.roster.check_revocations(self.revocations.number)
        for client, certificate in self.certificates.items():
            if read_certificate(certificate.der, self.authority) != certificate:
                raise CertificateError(f"the certificate of {client!r} is not what its bytes say")
            if certificate.client != client:
                raise EnrolmentError(f"the certificate of {certificate.client!r} stands under {client!r}")

    @classmethod
    def read(
        cls,
        *,
        authority: bytes,
        roster: bytes,
        revocations: bytes,
        certificates: Iterable[bytes],
        now: int,
        clock: Clock | None = None,
    ) -> Self:
        """Read a view from bytes as they come from the disk or the network.

        Raises:
            WireError: The roster is not canonical.
            IdentityError: As the constructor; two certificates of one client are an EnrolmentError.
        """
        by_client: dict[ClientId, Certificate] = {}
        for certificate in (read_certificate(der, authority) for der in certificates):
            if certificate.client in by_client:
                raise EnrolmentError(f"there are two certificates of {certificate.client!r}")
            by_client[certificate.client] = certificate
        return cls(
            authority=authority,
            roster=Roster.from_bytes(roster),
            revocations=read_revocations(revocations, authority),
            certificates=by_client,
            now=now,
            clock=clock,
        )

    @property
    def moment(self) -> int:
        """The time of this check, in unix seconds, by the clock, and never before `now`."""
        return self.now if self.clock is None else max(self.now, self.clock())

    def check_in_force(self) -> None:
        """Refuse to continue with lists that have expired since.

        Raises:
            EnrolmentError: The roster has expired.
            CertificateError: The revocation list has expired.
        """
        self._check_in_force_at(self.moment)

    def _check_in_force_at(self, moment: int) -> None:
        self.roster.check_valid_at(moment)
        self.revocations.check_valid_at(moment)

    def check(self, client: ClientId) -> Certificate:
        """Return the one certificate of a client that may be believed now.

        Raises:
            EnrolmentError: The client is unknown, its certificate is missing or not the one on the roster (another key
                or rank), another enrolled client has the same key, or the roster has expired.
            RevokedError: Its certificate was taken back.
            CertificateError: Its certificate or the revocation list expired or is not yet valid.
        """
        moment = self.moment
        self._check_in_force_at(moment)
        if client not in self._believed:
            # What roster, revocation list and certificate say never changes in one view: looked up once. Time does.
            self._believed[client] = self._enrolled(client)
        certificate = self._believed[client]
        certificate.check_valid_at(moment)
        return certificate

    @cached_property
    def _believed(self) -> dict[ClientId, Certificate]:
        """The certificates that passed every check but that of the time."""
        return {}

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 over roster and revocation list, their numbers included; sessions are bound to it.

        Parties that know another roster or another revocation list cannot complete a sum together: nobody's input is
        opened beside that of a client whom it knows to be revoked.
        """
        revoked = self.revocations.number.to_bytes(8, "big") + hashlib.sha256(self.revocations.der).digest()
        return hashlib.sha256(b"rbla-secure trust\x00" + self.roster.digest + revoked).digest()

    def check_client(self, client: ClientId, *, rank: int | None = None) -> Certificate:
        """Return the certificate of a client that may take part now with the given rank.

        Args:
            client: Client id.
            rank: The rank that the session's terms give it; None where ranks mean nothing to the session.

        Raises:
            EnrolmentError: It is enrolled as a service, or with another rank.
            IdentityError: As :meth:`check`.
        """
        certificate = self.check(client)
        if certificate.rank == SERVICE_RANK:
            raise EnrolmentError(f"{client!r} is enrolled as a service and cannot take part as a client")
        if rank is not None and certificate.rank != rank:
            raise EnrolmentError(
                f"client {client!r} is enrolled with rank {certificate.rank}, and the plan gives it rank {rank}"
            )
        return certificate

    def verify(self, client: ClientId, purpose: bytes, message: bytes, signature: bytes) -> None:
        """Refuse a signature that this client, believed now, did not make for this purpose.

        Raises:
            SignatureError: It does not verify.
            IdentityError: As :meth:`check`.
        """
        certificate = self.check(client)
        try:
            signing.verify(certificate.public_key, signature, signed_bytes(purpose, message))
        except SignatureError as error:
            raise SignatureError(f"client {client!r}, {purpose.decode(errors='replace')}: {error}") from None

    def updated(
        self,
        *,
        now: int,
        roster: Roster | None = None,
        revocations: RevocationList | None = None,
        certificates: Iterable[Certificate] = (),
    ) -> Self:
        """Return the view at a later moment, with newer lists and further certificates if given.

        A moment before the one at hand, or before the clock's, leaves that one: a view never goes back.

        Raises:
            EnrolmentError: A list is older than the one at hand, or another one with the same number.
            IdentityError: As the constructor.
        """
        if roster is not None:
            _check_newer(
                "roster", self.roster.number, roster.number, same=roster.digest == self.roster.digest
            )
        if revocations is not None:
            same = revocations.der == self.revocations.der
            _check_newer("revocation list", self.revocations.number, revocations.number, same=same)
        return replace(
            self,
            roster=roster or self.roster,
            revocations=revocations or self.revocations,
            certificates={**self.certificates, **{found.client: found for found in certificates}},
            now=max(now, self.moment),
        )

    def _enrolled(self, client: ClientId) -> Certificate:
        """Return a client's certificate if it is enrolled, not revoked, and alone has its key; time is not checked."""
        self.roster.entry(client)
        if client not in self.certificates:
            raise EnrolmentError(f"the certificate of {client!r} is missing")
        certificate = self.certificates[client]
        if not self.roster.lists(certificate):
            raise EnrolmentError(f"the certificate of {client!r} is not the one on {self.roster.name}")
        if certificate.serial in self.revocations.serials:
            raise RevokedError(f"the certificate of {client!r} was revoked")
        self.roster.check_own_key(client)
        return certificate


def _check_newer(what: str, known: int, found: int, *, same: bool) -> None:
    if found < known:
        raise EnrolmentError(f"{what} number {found} is older than number {known}, which is already known")
    if found == known and not same:
        raise EnrolmentError(
            f"there are two different {what}s with number {known}: the authority is at fault"
        )


@final
@dataclass(frozen=True, kw_only=True)
class ThrowawayAuthority:
    """An authority that exists in one process only: for runs whose parties all live in it, and for tests.

    Caveat: whoever can make one holds every key. It shows that the checks work; it protects nobody.

    Args:
        key: The authority's key.
        certificate: The authority's certificate.
        identities: The identity of each client.
        view: The view of every party at the beginning.
    """

    key: SigningKey
    certificate: AuthorityCertificate
    identities: Mapping[ClientId, Identity]
    view: TrustStore

    @classmethod
    def create(
        cls,
        ranks: Mapping[ClientId, int],
        *,
        now: int,
        valid_for: int = MONTH_SECONDS,
        clock: Clock | None = None,
        services: Mapping[ClientId, bytes] = MappingProxyType({}),
        random_bytes: RandomBytes = SYSTEM_RANDOM,
    ) -> Self:
        """Make keys, certificates and a roster for these clients; nothing is written to the disk.

        Args:
            ranks: The rank tier of every client; 0 for a service.
            services: Public keys of services that made their own; they are enrolled with rank 0 and get no identity here.
            now: First second of every validity, in unix seconds.
            valid_for: Seconds from then on.
            clock: Clock of all views of a run; without one, they stay at their moment.
            random_bytes: Source of every key and serial number.

        Raises:
            CertificateError: A client id, rank or time breaks the rules of certificates.
        """
        key = SigningKey.generate(random_bytes)
        certificate = issue_authority(
            key, name="throwaway", now=now, valid_for=valid_for, random_bytes=random_bytes
        )

        def issue(client: ClientId, rank: int, public_key: bytes) -> Certificate:
            return issue_certificate(
                key,
                certificate,
                client=client,
                rank=rank,
                public_key=public_key,
                now=now,
                valid_for=valid_for,
                random_bytes=random_bytes,
            )

        identities = {}
        for client, rank in ranks.items():
            own = SigningKey.generate(random_bytes)
            issued = issue(client, rank, own.public)
            identities[client] = Identity(client=client, key=own, certificate=issued)
        issued_to_all = [identity.certificate for identity in identities.values()]
        issued_to_all += [issue(name, 0, public_key) for name, public_key in services.items()]
        view = _first_view(key, certificate, issued_to_all, clock)
        return cls(key=key, certificate=certificate, identities=MappingProxyType(identities), view=view)

    def trust(self, now: int) -> TrustStore:
        """Return the view of every party at a moment, in unix seconds.

        Raises:
            EnrolmentError: The authority's time is over.
        """
        return self.view.updated(now=now)

    def identity(self, client: ClientId) -> Identity:
        """Return a client's identity.

        Raises:
            EnrolmentError: The authority made none for it.
        """
        try:
            return self.identities[client]
        except KeyError:
            raise EnrolmentError(f"client {client!r} is not enrolled") from None


def _first_view(
    key: SigningKey, authority: AuthorityCertificate, certificates: list[Certificate], clock: Clock | None
) -> TrustStore:
    """Make roster 1 and an empty revocation list 1, in force as long as the authority."""
    first, last = authority.not_before, authority.not_after
    entries = map(RosterEntry.of, certificates)
    return TrustStore(
        authority=key.public,
        roster=Roster.issue(
            key, number=1, least_revocations=1, issued_at=first, expires_at=last, entries=entries
        ),
        revocations=issue_revocations(
            key, authority, serials=(), number=1, now=first, valid_for=last - first
        ),
        certificates={certificate.client: certificate for certificate in certificates},
        now=first,
        clock=clock,
    )
