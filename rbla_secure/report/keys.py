"""Enrolled clients and their authority in lines for people."""

from datetime import UTC, datetime

from rbla_secure.identities.authority import AuthorityRecord, ClientRecord


def client_line(record: ClientRecord) -> str:
    """One client: rank, state, last day of its certificate, and the beginning of its key's fingerprint."""
    end = _day(record.not_after)
    return f"{record.client}  rank {record.rank}  {record.state}, ends {end}  {record.fingerprint[:16]}"


def authority_lines(authority: AuthorityRecord) -> list[str]:
    """An authority, its two lists and until when they are in force, and its clients."""
    roster = f"roster {authority.roster} until {_day(authority.roster_expires_at)}"
    revocations = f"revocation list {authority.revocations} until {_day(authority.next_update)}"
    return [
        f"authority {authority.name!r}, fingerprint {authority.fingerprint}",
        f"{roster}, {revocations}",
        *map(client_line, authority.clients),
    ]


def _day(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}"
