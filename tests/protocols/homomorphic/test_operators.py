"""A decryptor or verifier obeys its own operator, by a line that the aggregator does not have."""

from dataclasses import replace

import pytest

from protocols.errors import EnrolmentError, RevokedError, RosterError, SessionError, StageError
from protocols.homomorphic.services.messages import SessionRequest, Setup
from protocols.homomorphic.services.services import KeyedService, LocalChannel
from protocols.wire import MessageType, Writer
from tests.contracts.sessions import make_session, names, segment
from tests.protocols.homomorphic.meeting import SERVICE_KEYS, TRUST, charge_for
from tests.protocols.homomorphic.test_revocation import NEW, OLD, OTHER_NEW, decryptor_service

MEMBERS = names(4)
SESSION = make_session(4, segment(0, 20, MEMBERS, 3))
CHARGE = charge_for()


def test_newer_lists_count_from_the_next_session_and_older_ones_never() -> None:
    """The operator may hand in newer lists; one that is older, or another one of that number, is refused by name."""
    service = decryptor_service(OLD)
    channel = LocalChannel(service)
    channel.call(SessionRequest(session=SESSION).to_bytes())

    service.set_up(Setup(charge=CHARGE, trust=NEW))

    with pytest.raises(RevokedError):
        channel.call(SessionRequest(session=replace(SESSION, round=2)).to_bytes())
    for old in (OLD, OTHER_NEW):
        with pytest.raises(EnrolmentError):
            service.set_up(Setup(charge=CHARGE, trust=old))


def test_the_aggregators_channel_sets_no_list() -> None:
    """A setup with an older or newer list that comes by the aggregator's channel is refused; the operator's counts."""
    service = decryptor_service(OLD)
    channel = LocalChannel(service)

    for view in (OLD, NEW):
        with pytest.raises(StageError, match="by its own operator"):
            channel.call(Setup(charge=CHARGE, trust=view).to_bytes())
    service.set_up(Setup(charge=CHARGE, trust=NEW))
    with pytest.raises(EnrolmentError, match="older"):
        service.set_up(Setup(charge=CHARGE, trust=OLD))

    with pytest.raises(RevokedError):
        channel.call(SessionRequest(session=SESSION).to_bytes())


# --- what is parsed ---

MEMBERS_COUNTED = 4 + 16 + 4 + 4 + 2 + 4 + 1 + 32 + 2  # bytes of a session up to the number of its members


def test_sessions_are_capped_before_they_are_read() -> None:
    """A service refuses more members or segments than its charge knows by their numbers alone."""
    service = KeyedService("decryptor", SERVICE_KEYS["decryptor"])
    service.set_up(Setup(charge=replace(CHARGE, most_members=4, most_segments=1), trust=TRUST))
    channel = LocalChannel(service)
    two = make_session(4, segment(0, 5, MEMBERS), segment(1, 5, MEMBERS))

    with pytest.raises(RosterError, match="5 members must be at most 4"):
        channel.call(SessionRequest(session=make_session(5)).to_bytes())
    with pytest.raises(SessionError, match="2 segments must be at most 1"):
        channel.call(SessionRequest(session=two).to_bytes())
    channel.call(SessionRequest(session=SESSION).to_bytes())

    # What is not even there is not waited for: all that follows the number of members is missing.
    counted = make_session(5).to_bytes()[:MEMBERS_COUNTED]
    request = Writer(MessageType.SERVICE_SESSION).blob(counted).blob(b"").text("").unsigned(0, 2).done()
    with pytest.raises(RosterError, match="5 members must be at most 4"):
        channel.call(request)


def test_what_a_service_says_of_a_refusal_is_short() -> None:
    """A peer's own words in an error are cut where the refusal is made."""
    service = KeyedService("decryptor" + "x" * 30_000, SERVICE_KEYS["decryptor"])

    with pytest.raises(StageError) as found:
        LocalChannel(service).call(SessionRequest(session=SESSION).to_bytes())

    assert len(str(found.value)) == 500
