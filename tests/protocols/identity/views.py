"""A view of whom to believe, and identities that it believes."""

import hashlib
import itertools
from typing import Any

from protocols.identity.certificates import Certificate, issue_certificate
from protocols.identity.revocations import RevocationList, issue_revocations
from protocols.identity.roster import Roster, RosterEntry
from protocols.identity.trust import ThrowawayAuthority, TrustStore
from protocols.primitives.signing import SigningKey

NOW = 1_800_000_000
RANKS = {"alice": 4, "bob": 8, "carol": 8}
PURPOSE = b"a purpose"


def authority(**ranks: int) -> ThrowawayAuthority:
    """An authority whose every byte is known."""
    counter = itertools.count()
    return ThrowawayAuthority.create(
        ranks or RANKS,
        now=NOW,
        random_bytes=lambda size: hashlib.sha256(str(next(counter)).encode()).digest()[:size],
    )


AUTHORITY = authority()
TRUST = AUTHORITY.view


def certify(**changes: Any) -> Certificate:
    """Another certificate of the same authority; by default for alice, with a new key."""
    terms = {"client": "alice", "rank": 4, "public_key": SigningKey.generate().public, "valid_for": 1000}
    return issue_certificate(AUTHORITY.key, AUTHORITY.certificate, **{**terms, "now": NOW, **changes})


def roster(*certificates: Certificate, **changes: Any) -> Roster:
    """A roster of these certificates; of the first view's if there are none."""
    entries = map(RosterEntry.of, certificates) if certificates else TRUST.roster.entries
    terms = {
        "number": 2,
        "least_revocations": 1,
        "issued_at": NOW,
        "expires_at": NOW + 1000,
        "entries": entries,
    }
    return Roster.issue(AUTHORITY.key, **{**terms, **changes})


def revocations(*serials: int, **changes: Any) -> RevocationList:
    """A newer revocation list."""
    terms = {"serials": serials, "number": 2, "now": NOW, "valid_for": 1000}
    return issue_revocations(AUTHORITY.key, AUTHORITY.certificate, **{**terms, **changes})


def view(*certificates: Certificate) -> TrustStore:
    """The view under a roster of exactly these certificates."""
    return TRUST.updated(now=NOW, roster=roster(*certificates), certificates=certificates)
