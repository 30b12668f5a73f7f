"""Views of whom to believe that differ from the usual one: a list that takes somebody back, a certificate or a list that ends soon."""

from protocols.identity.certificates import Certificate, issue_certificate
from protocols.identity.revocations import RevocationList, issue_revocations
from protocols.identity.roster import Roster, RosterEntry
from protocols.identity.trust import TrustStore
from tests.protocols.homomorphic.meeting import AUTHORITY, NOW, TRUST


def taking_back(*names: str, number: int = 2, after: int = 10, valid_for: int = 1000) -> RevocationList:
    """The list that takes these certificates back."""
    return issue_revocations(
        AUTHORITY.key,
        AUTHORITY.certificate,
        serials=[TRUST.certificates[name].serial for name in names],
        number=number,
        now=NOW + after,
        valid_for=valid_for,
    )


def ending_after(seconds: int, name: str) -> Certificate:
    """Another certificate of the same party and key, which is over so many seconds from the beginning."""
    old = TRUST.certificates[name]
    return issue_certificate(
        AUTHORITY.key,
        AUTHORITY.certificate,
        client=name,
        rank=old.rank,
        public_key=old.public_key,
        now=NOW,
        valid_for=seconds,
    )


def with_certificate(certificate: Certificate, *, after: int = 1) -> TrustStore:
    """The view in which this one stands in the place of its party's usual one, on a second roster."""
    certificates = {**TRUST.certificates, certificate.client: certificate}
    roster = Roster.issue(
        AUTHORITY.key,
        number=2,
        issued_at=NOW,
        expires_at=TRUST.roster.expires_at,
        least_revocations=1,
        entries=map(RosterEntry.of, certificates.values()),
    )
    return TRUST.updated(now=NOW + after, roster=roster, certificates=certificates.values())
