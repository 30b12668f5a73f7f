"""Directions with rows of slots in which next to nothing lies: they cost no client its screening.

CKKS encodes such a row as zeros, and the library refuses the product. The attack: one client has the sums of a round point
away from a row, and nobody passes any screening afterwards.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from protocols.errors import ProtocolError
from protocols.homomorphic.scheme import ckks
from protocols.homomorphic.scheme.ckks import Evaluator, ScreeningKey, ScreeningSecret
from protocols.homomorphic.screening.at_verifier import Reference
from protocols.homomorphic.screening.screening import SLOTS, Screening, ScreeningRelease
from protocols.homomorphic.services.services import KeyedService, LocalChannel, payload_of
from protocols.homomorphic.terms import Services
from protocols.interface import SegmentInput
from tests.contracts.sessions import MODEL, make_session, names, segment
from tests.protocols.homomorphic.meeting import ALONE, VERIFIED, Meeting, charge_for

MEMBERS = names(4)
LENGTH = SLOTS + 1  # two rows, of which the second has one coordinate
SESSION = make_session(4, segment(0, LENGTH, MEMBERS, 3))
TINY = (0.0, 2.0**-60, 2.0**-40, 2.0**-30, 2.0**-21)


@pytest.fixture(scope="module")
def secret() -> ScreeningSecret:
    """One session's key for screening."""
    return ScreeningSecret.generate()


@pytest.mark.parametrize("second", [*TINY, 2.0**-19, 2.0**-10])
@pytest.mark.parametrize("spread", [False, True], ids=["in one slot", "in all slots"])
def test_a_tiny_row_changes_no_product(secret: ScreeningSecret, second: float, *, spread: bool) -> None:
    """To the thousandth that is let out, whether it is left out or not."""
    direction = np.zeros((2, SLOTS))
    direction[0, 3] = 1.0
    direction[1] = second / np.sqrt(SLOTS) if spread else np.eye(1, SLOTS, 5)[0] * second
    update = np.full((2, SLOTS), 0.01)
    copy = ScreeningKey(secret.public_key()).encrypt(update)

    found = secret.open(Evaluator(secret.evaluation_keys()).projection(copy, direction))

    assert found == pytest.approx(float((update * direction).sum()), abs=1e-3)


def direction_with(last: float) -> npt.NDArray[np.float64]:
    """A mean that points along the first row, but for the one coordinate of the second."""
    means = np.zeros(LENGTH)
    means[:60], means[-1] = 1.0, last
    return means


def meeting_along(means: Mapping[int, npt.NDArray[np.float64]], services: Services) -> Meeting:
    """A session that is screened along these means: the verifier's, or without one the aggregator's."""
    charge = charge_for(
        services=services, screening=Screening(max_norm=100.0, release=ScreeningRelease.VALUES)
    )
    values = {
        member: {0: SegmentInput(values=np.full(LENGTH, place, dtype=np.int64), binding=MODEL)}
        for place, member in enumerate(MEMBERS, start=1)
    }
    meeting = Meeting.of(SESSION, charge, values)
    if not services.verifier:
        meeting.use(replace(meeting.roles, reference=lambda: means))
        return meeting
    told = Reference(digest=b"r" * 32, means=means).to_bytes()
    for channel in (meeting.roles.decryptor, meeting.roles.verifier):
        assert isinstance(channel, LocalChannel)
        assert isinstance(channel.service, KeyedService)
        payload_of(channel.service.operate(told))
    return meeting


@pytest.mark.parametrize("services", [ALONE, VERIFIED], ids=["screener", "verifier"])
@pytest.mark.parametrize("last", TINY)
def test_a_direction_with_a_tiny_row_refuses_nobody(services: Services, last: float) -> None:
    """Everybody passes, held against it."""
    meeting = meeting_along({0: direction_with(last)}, services)

    meeting.take(*MEMBERS)

    assert all(
        told.cosine == pytest.approx(np.sqrt(60 / LENGTH), abs=2e-3)
        for told in meeting.server.screened.values()
    )
    assert len(meeting.server.screened) == len(MEMBERS)


@pytest.mark.parametrize("services", [ALONE, VERIFIED], ids=["screener", "verifier"])
def test_where_rows_are_left_out_only_if_zero_everybody_is_refused(
    monkeypatch: pytest.MonkeyPatch, services: Services
) -> None:
    """The control."""
    monkeypatch.setattr(ckks, "LEAST_ROW", 0.0)
    meeting = meeting_along({0: direction_with(2.0**-30)}, services)

    for member in MEMBERS:
        with pytest.raises(ProtocolError, match="cannot compute on this copy"):
            meeting.take(member)
