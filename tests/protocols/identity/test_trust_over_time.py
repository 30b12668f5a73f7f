"""What a view believes as time passes: certificates and lists expire, and no clock brings anything back."""

import time
from dataclasses import replace
from typing import Any

import pytest

from protocols.clock import SYSTEM_CLOCK, Clock
from protocols.errors import (
    CertificateError,
    EnrolmentError,
)
from protocols.identity.trust import ThrowawayAuthority
from tests.protocols.identity.views import (
    AUTHORITY,
    NOW,
    PURPOSE,
    RANKS,
    TRUST,
    certify,
    revocations,
    roster,
    view,
)

# --- the clock ---


class Wall:
    """A wall clock and a steady clock that a test sets."""

    def __init__(self, now: float) -> None:
        self.now, self.passed = now, 0.0

    def clock(self) -> Clock:
        """The clock under test on top of them."""
        return Clock(lambda: self.now, lambda: self.passed)

    def wait(self, seconds: float) -> None:
        """Both go on."""
        self.now += seconds
        self.passed += seconds


def test_a_client_that_expires_is_refused_from_then_on() -> None:
    """One and the same view believes a client until its certificate ends, and not a second longer."""
    wall = Wall(NOW)
    trust = replace(view(certify(valid_for=100)), clock=wall.clock())

    trust.check("alice")
    wall.wait(100)
    trust.check("alice")
    wall.wait(1)

    with pytest.raises(CertificateError, match="expired 1 seconds ago"):
        trust.check("alice")


@pytest.mark.parametrize("what", ["roster", "revocations"])
def test_a_list_that_expires_is_noticed_in_the_middle_of_a_run(what: str) -> None:
    """When the roster or the revocation list of a living view ends, nobody is believed any more."""
    wall = Wall(NOW)
    lists: dict[str, Any] = {"roster": roster(expires_at=NOW + 50), "revocations": revocations(valid_for=50)}
    trust = replace(TRUST.updated(now=NOW, **{what: lists[what]}), clock=wall.clock())
    alice = AUTHORITY.identity("alice")

    wall.wait(50)
    trust.verify("alice", PURPOSE, b"", alice.sign(PURPOSE, b""))
    wall.wait(1)

    for ask in (trust.check, trust.check_client, lambda name: trust.verify(name, PURPOSE, b"", b"")):
        with pytest.raises((EnrolmentError, CertificateError), match=r"(list|roster) 2 expired"):
            ask("alice")
    with pytest.raises((EnrolmentError, CertificateError), match="expired"):
        trust.check_in_force()


def test_a_view_without_a_clock_stays_where_it_is() -> None:
    """With an explicit moment alone nothing ever expires: for tests, and for one check."""
    assert TRUST.moment == NOW
    assert AUTHORITY.trust(NOW + 7).moment == NOW + 7


def test_setting_the_clock_back_brings_nothing_back() -> None:
    """A wall clock that is set back neither revives what has expired nor gives a second to what has not."""
    wall = Wall(NOW)
    trust = replace(view(certify(valid_for=100)), clock=wall.clock())
    wall.wait(90)
    trust.check("alice")

    wall.now = NOW  # ninety seconds are set back
    assert trust.moment == NOW + 90
    wall.wait(10)
    trust.check("alice")
    wall.wait(1)

    with pytest.raises(CertificateError, match="expired 1 seconds ago"):
        trust.check("alice")


def test_a_wall_clock_that_stands_still_does_not_stop_time() -> None:
    """Time that is held back from the machine passes all the same, by the steady clock."""
    wall = Wall(NOW)
    trust = replace(view(certify(valid_for=100)), clock=wall.clock())

    wall.passed += 101

    with pytest.raises(CertificateError, match="expired"):
        trust.check("alice")


def test_a_clock_before_the_moment_of_a_view_does_not_turn_it_back() -> None:
    """A view never counts from before the moment that it was given, whatever its clock says."""
    late = NOW + 1000
    behind = replace(view(certify(valid_for=10_000)), now=late, clock=Wall(NOW - 5).clock())

    assert behind.moment == late
    assert behind.updated(now=NOW).moment == late


def test_newer_lists_do_not_turn_a_view_back() -> None:
    """Updated with an earlier moment leaves the later one: what has expired stays expired."""
    trust = view(certify(valid_for=100)).updated(now=NOW + 101)

    again = trust.updated(now=NOW, revocations=revocations())

    with pytest.raises(CertificateError, match="expired"):
        again.check("alice")


def test_views_are_equal_whatever_their_clocks() -> None:
    """A clock is no part of what a view says; it goes along when the lists are brought up to date."""
    clock = Wall(NOW).clock()
    ticking = replace(TRUST, clock=clock)

    assert ticking == TRUST
    assert ticking.updated(now=NOW, revocations=revocations()).clock is clock
    assert ThrowawayAuthority.create(RANKS, now=NOW, clock=clock).trust(NOW).clock is clock


def test_the_clock_of_the_system_tells_the_time() -> None:
    """It reads between two readings of the wall clock, and goes on."""
    before, told, after = int(time.time()), SYSTEM_CLOCK(), int(time.time()) + 1

    assert before - 1 <= told <= after
    assert SYSTEM_CLOCK() >= told
