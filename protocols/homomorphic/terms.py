"""A session under an encryption profile: the values that all roles of the homomorphic mode derive from it."""

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import final

from protocols.errors import EnrolmentError, IdentityError, RosterError, SessionError
from protocols.homomorphic.scheme.parameters import EncryptionProfile
from protocols.homomorphic.scheme.polynomials import size_of
from protocols.homomorphic.screening import screening
from protocols.homomorphic.screening.screening import Screening
from protocols.identity.trust import SERVICE_RANK, TrustStore
from protocols.session import ClientId, Segment, Session


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The services of a federation, by the names under which the authority has enrolled them.

    Args:
        decryptor: Name of the service that makes round keys and decrypts sums.
        verifier: Name of the service that recomputes and signs every sum; empty where there is none.
    """

    decryptor: ClientId = "decryptor"
    verifier: ClientId = ""

    @property
    def names(self) -> tuple[ClientId, ...]:
        """The names of all services."""
        return (self.decryptor, self.verifier) if self.verifier else (self.decryptor,)


@final
@dataclass(frozen=True, kw_only=True)
class EncryptionTerms:
    """A session, its profile, whom its parties believe, and the rule for screening updates, if any.

    Raises:
        SessionError, CapacityError: The sums would not fit the profile, or a segment has extra secrets.
        RosterError: A service is a member too, or both services are one.
        EnrolmentError: A service is not enrolled as one, or a member is, or with another rank than the session gives it.
        IdentityError: A member cannot be believed now: it is unknown, revoked or expired.
    """

    session: Session
    profile: EncryptionProfile
    trust: TrustStore
    services: Services
    screening: Screening | None = None

    def __post_init__(self) -> None:
        self.profile.check_session(self.session)
        if odd := [segment.index for segment in self.session.segments if segment.extra_secrets]:
            raise SessionError(
                f"segment {odd[0]}: extra secrets are shared among masking clients; here nobody keeps any"
            )
        if len(set(self.services.names)) != len(self.services.names):
            raise RosterError(f"{self.services.decryptor} cannot be decryptor and verifier")
        for name in self.services.names:
            if name in self.session.members:
                raise RosterError(f"{name} serves the session and cannot be a member of it")
        self.check_parties(range(1, len(self.session.members) + 1))

    def check_parties(self, positions: Iterable[int]) -> None:
        """Refuse services and members that cannot be believed now; time has passed since the session was opened.

        Args:
            positions: Positions of the members that count.

        Raises:
            EnrolmentError: A service is not enrolled as one, or a member is, or with another rank than the session gives it.
            IdentityError: One of them is unknown, revoked or expired, or a list is.
        """
        for name in self.services.names:
            check_service(self.trust, name)
        for position in positions:
            member = self.session.client_at(position)
            try:
                self.trust.check_client(member, rank=self.session.rank_of(member))
            except IdentityError as error:
                raise type(error)(
                    f"{error}: no sum with {member} in it is opened: leave it out of the cohort"
                ) from None

    @cached_property
    def context(self) -> bytes:
        """The digest that binds keys and signatures to session, roster, revocations, profile, services and screening.

        So parties that know different revocation lists complete nothing together: an aggregator that hands out an older
        one gets no key that a client with the newer one would take, and no input under it.
        """
        names = f"{self.profile.name}\x00{self.services.decryptor}\x00{self.services.verifier}"
        text = b"rbla-secure homomorphic\x00" + self.session.context + self.trust.digest
        rule = self.screening.to_bytes() if self.screening is not None else b""
        return hashlib.sha256(text + rule + names.encode()).digest()

    def ciphertext_size(self, segment: Segment) -> int:
        """Return the bytes of a segment's ciphertexts."""
        profile = self.profile
        count = profile.ciphertexts(segment.length)
        return size_of(count, moduli=profile.ciphertext_moduli, degree=profile.degree)

    def copy_size(self, name: ClientId) -> int:
        """Return the bytes of a client's copy for screening; 0 where nothing is screened."""
        if self.screening is None:
            return 0
        count = screening.ciphertexts(self.session.segments_of(name), self.screening)
        return size_of(count, moduli=screening.CIPHERTEXT_MODULI, degree=screening.DEGREE)

    def present(self, segment: Segment, positions: frozenset[int]) -> frozenset[int]:
        """Return the members of a segment among some positions."""
        return positions.intersection(map(self.session.position, segment.members))

    def holding(self, segment: Segment, positions: frozenset[int]) -> int:
        """Return the number of holders of a segment among some positions."""
        return len(positions.intersection(map(self.session.position, segment.holders)))

    def thin_classes(self, present: Collection[int]) -> tuple[frozenset[int], ...]:
        """Return the positions of every class with some members present, but fewer than its quorum."""
        classes = (frozenset(map(self.session.position, members)) for members in self.session.classes)
        return tuple(
            found for found in classes if 0 < len(found.intersection(present)) < self.session.class_quorum
        )


def check_service(trust: TrustStore, name: ClientId) -> None:
    """Refuse a decryptor or verifier that is enrolled as a client, so that no client can play one.

    Raises:
        EnrolmentError: It is.
        IdentityError: It cannot be believed.
    """
    if not name:
        raise SessionError("a decryptor must be named")
    if (rank := trust.check(name).rank) != SERVICE_RANK:
        raise EnrolmentError(f"{name} is enrolled as a client of rank {rank}, not as a service")
