"""Enrolled clients and their authority in lines for people."""

from rbla_secure.identities.authority import AuthorityRecord, ClientRecord, KeyState
from rbla_secure.report.keys import authority_lines, client_line

DAY = 86_400
CLIENT = ClientRecord(
    client="alice",
    rank=4,
    state=KeyState.VALID,
    not_before=0,
    not_after=365 * DAY,
    serial="1",
    fingerprint="ab" * 32,
)


def test_a_client_is_one_line() -> None:
    """Rank, state, last day, and the beginning of the fingerprint."""
    assert client_line(CLIENT) == "alice  rank 4  valid, ends 1971-01-01  abababababababab"


def test_an_authority_is_told_with_its_lists_and_clients() -> None:
    """Number of each list and until when it is in force, then a line for each client."""
    authority = AuthorityRecord(
        name="Clinic",
        fingerprint="cd" * 32,
        not_after=0,
        roster=3,
        roster_expires_at=DAY,
        revocations=2,
        next_update=2 * DAY,
        clients=(CLIENT,),
    )

    assert authority_lines(authority) == [
        f"authority 'Clinic', fingerprint {'cd' * 32}",
        "roster 3 until 1970-01-02, revocation list 2 until 1970-01-03",
        client_line(CLIENT),
    ]
