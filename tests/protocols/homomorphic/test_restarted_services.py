"""Services that are started again in a screened run: their operators tell them along which direction updates were held last.

The aggregator cannot; and the controls are services that nobody has told.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from protocols.errors import ProtocolError, ServiceError, StageError, WireError
from protocols.homomorphic.screening.at_verifier import NOTHING_YET, Reference
from protocols.homomorphic.screening.messages import NO_REFERENCE
from protocols.homomorphic.screening.screening import Screening, ScreeningRelease
from protocols.homomorphic.services.calls import Roles
from protocols.homomorphic.services.messages import REFERENCE
from protocols.homomorphic.services.services import Channel, KeyedService, LocalChannel, payload_of
from protocols.wire import MessageType, Writer
from tests.contracts.sessions import same_bindings
from tests.protocols.homomorphic.meeting import SERVICE_KEYS, Meeting, local_roles
from tests.protocols.homomorphic.screening.test_at_verifier import (
    CHARGE,
    MEMBERS,
    SESSION,
    meet,
    updates,
)

SECOND = replace(SESSION, round=2)
DIGEST = bytes(range(32))


def operate(channel: Channel | None, request: bytes) -> bytes:
    """What a service answers its operator."""
    assert isinstance(channel, LocalChannel)
    return payload_of(channel.service.operate(request))


def played() -> tuple[Roles, bytes]:
    """The services after a first round, and what the verifier's operator keeps of it."""
    first = meet()
    first.take(*MEMBERS)
    first.sums(same_bindings(SESSION))
    return first.roles, operate(first.roles.verifier, REFERENCE)


def cosines(roles: Roles) -> list[float | None]:
    """What a second round's screening tells of everybody."""
    meeting = meet(SECOND, roles=roles, inputs=updates(1))
    meeting.take(*MEMBERS)
    return [meeting.server.screened[place].cosine for place in range(1, 5)]


def test_services_that_are_told_judge_as_those_before_them() -> None:
    """The same cosines as without a restart; and the control, services that nobody has told, which judge by norm alone."""
    roles, kept = played()
    restarted, careless = local_roles(CHARGE), local_roles(CHARGE)
    for service in (restarted.verifier, restarted.decryptor):
        assert operate(service, kept) == b""

    expected = cosines(roles)

    assert None not in expected
    assert cosines(restarted) == pytest.approx(expected, abs=2e-3)  # two steps of what is let out
    assert cosines(careless) == [None] * 4


@pytest.mark.parametrize("told", ["verifier", "decryptor"])
def test_services_that_were_told_differently_do_not_judge_along_it(told: str) -> None:
    """A direction that only the verifier knows opens nothing; one that only the decryptor knows is not used."""
    _, kept = played()
    roles = local_roles(CHARGE)
    operate(roles.verifier if told == "verifier" else roles.decryptor, kept)

    if told == "verifier":
        with pytest.raises(ServiceError, match="not the mean of the sums that were opened last"):
            cosines(roles)
    else:
        assert cosines(roles) == [None] * 4


@pytest.mark.parametrize("name", ["verifier", "decryptor"])
def test_an_aggregator_neither_asks_for_a_direction_nor_names_one(name: str) -> None:
    """On its channel both are refused by name, before the first session and later."""
    _, kept = played()
    roles = local_roles(CHARGE)
    channel = roles.verifier if name == "verifier" else roles.decryptor
    assert channel is not None

    named = Reference(digest=DIGEST, means={0: np.eye(1, 50)[0]}).to_bytes()

    def refused() -> None:
        for request in (REFERENCE, kept, named):
            with pytest.raises(StageError, match=f"{name} is set up by its own operator"):
                channel.call(request)

    refused()
    meet(SECOND, roles=roles).take(*MEMBERS)
    refused()


@pytest.mark.parametrize("name", ["verifier", "decryptor"])
def test_a_service_that_has_served_knows_better(name: str) -> None:
    """After its first session not even its operator changes what it holds."""
    roles, kept = played()
    channel = roles.verifier if name == "verifier" else roles.decryptor

    with pytest.raises(StageError, match="only as long as it has"):
        operate(channel, NOTHING_YET.to_bytes())

    assert operate(roles.verifier, REFERENCE) == kept


def test_a_service_that_was_not_set_up_holds_nothing() -> None:
    """It is told whom to believe first."""
    channel = LocalChannel(KeyedService("verifier", SERVICE_KEYS["verifier"]))

    for request in (REFERENCE, NOTHING_YET.to_bytes()):
        with pytest.raises(StageError, match="verifier was not set up"):
            operate(channel, request)


def test_what_is_kept_is_the_mean_without_its_statistics() -> None:
    """To the bit; the values at the end of a segment, which are no part of an update, are left out."""
    rule = Screening(max_norm=1000.0, release=ScreeningRelease.VALUES, ignored_tail=2)
    meeting = Meeting.of(SESSION, replace(CHARGE, screening=rule), updates())
    meeting.take(*MEMBERS)
    (summed,) = meeting.sums(same_bindings(SESSION)).values()

    kept = Reference.from_bytes(operate(meeting.roles.verifier, REFERENCE))

    assert kept.digest != NO_REFERENCE
    assert kept.means[0].tolist() == [*(np.array(summed)[:-2] / 4).tolist(), 0.0, 0.0]
    assert Reference.from_bytes(kept.to_bytes()).to_bytes() == kept.to_bytes()


def test_where_nobody_was_shown_what_opened_last_nothing_is_kept() -> None:
    """Nor is the direction of the sums before it: as the verifier holds the next updates against nothing, so does its successor."""
    roles, _ = played()
    second = meet(SECOND, roles=roles, inputs=updates(1))
    second.take(*MEMBERS)
    second.server._calls.show_opened = lambda _: None  # type: ignore[method-assign]
    second.sums(same_bindings(SECOND))

    assert operate(roles.verifier, REFERENCE) == NOTHING_YET.to_bytes()
    third = meet(replace(SESSION, round=3), roles=roles, inputs=updates(2))
    third.take(*MEMBERS)
    assert [each.cosine for each in third.server.screened.values()] == [None] * 4


def of_means(digest: bytes, *blobs: bytes) -> bytes:
    """A reference of any bytes."""
    writer = Writer(MessageType.SERVICE_REFERENCE).fixed(digest, 32).positions(range(len(blobs)))
    for blob in blobs:
        writer.blob(blob)
    return writer.done()


@pytest.mark.parametrize(
    ("made", "rule"),
    [
        (lambda kept: kept[:-1], "service_reference: "),
        (lambda kept: kept + b"x", "service_reference: "),
        (lambda _: of_means(DIGEST, bytes(9)), "means must be of 8 bytes each"),
        (lambda _: of_means(DIGEST, np.array([np.nan]).tobytes()), "means must be finite"),
        (lambda _: of_means(DIGEST, np.array([1, np.inf]).tobytes()), "means must be finite"),
        (lambda _: of_means(DIGEST), "if and only if"),
        (lambda _: of_means(NO_REFERENCE, bytes(8)), "if and only if"),
    ],
)
def test_a_malformed_direction_is_refused(made: Callable[[bytes], bytes], rule: str) -> None:
    """By both, and what they hold stays."""
    _, kept = played()
    roles = local_roles(CHARGE)

    for channel in (roles.verifier, roles.decryptor):
        with pytest.raises(WireError, match=rule):
            operate(channel, made(kept))

    assert operate(roles.verifier, REFERENCE) == NOTHING_YET.to_bytes()


def test_a_decryptor_holds_no_direction_to_ask_for() -> None:
    """It knows a digest alone: the question is no reference."""
    roles, _ = played()

    with pytest.raises(ProtocolError):
        operate(roles.decryptor, REFERENCE)
