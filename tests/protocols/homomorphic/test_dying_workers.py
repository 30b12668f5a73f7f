"""A worker or screener that dies is replaced once, and costs nobody anything; a second death over one client costs that client."""

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from protocols.errors import ServiceError
from protocols.homomorphic.messages import EncryptedInput
from protocols.homomorphic.parties import guarded_adder
from protocols.homomorphic.screening import screener
from protocols.homomorphic.screening.screening import Screening, ScreeningRelease
from protocols.homomorphic.services.messages import StoredSums, type_of
from protocols.homomorphic.services.processes import ProcessChannel
from protocols.homomorphic.services.services import Channel
from protocols.session import Session
from protocols.wire import MessageType
from tests.contracts.sessions import make_session, names, plain_sum, same_bindings, segment
from tests.protocols.homomorphic.meeting import Meeting, charge_for

FIRST, SECOND, THIRD, LAST = MEMBERS = names(4)
SESSION = make_session(4, segment(0, 20, MEMBERS, 3), segment(1, 7, (FIRST, SECOND, THIRD), 2))
CLASSED = make_session(4, segment(0, 20, MEMBERS, 2), ranks=(4, 4, 4, 4), class_quorum=2)
Kind = Callable[[bytes], bool]


class Assassin(Channel):
    """Kills or stops the process behind it just before it is sent a request of some kind, as often as it is told."""

    def __init__(self, inner: ProcessChannel, sign: signal.Signals = signal.SIGKILL) -> None:
        self.inner = inner
        self.sign = sign
        self.kind: Kind = lambda _: False
        self.times = 0
        self.struck = 0

    def strike(self, kind: Kind, times: int = 1) -> None:
        """From now on."""
        self.kind, self.times, self.struck = kind, times, 0

    def ready(self) -> int:
        return self.inner.ready()

    def exchange(self, request: bytes) -> bytes:
        if self.struck < self.times and self.kind(request) and self.inner.pid is not None:
            self.struck += 1
            kill(self.inner, self.sign)
        return self.inner.exchange(request)

    def close(self) -> None:
        self.inner.close()


def kill(channel: ProcessChannel, sign: signal.Signals = signal.SIGKILL) -> None:
    """End its process the hard way, or have it stand still."""
    assert channel.pid is not None
    os.kill(channel.pid, sign)
    if sign == signal.SIGKILL:
        os.waitid(os.P_PID, channel.pid, os.WEXITED | os.WNOWAIT)


def asks_for_sums(request: bytes) -> bool:
    """The sums so far are to be its answer."""
    if type_of(request) != MessageType.STORED_SUMS:
        return False
    stored = StoredSums.from_bytes(request)
    return not (stored.ciphertexts or stored.last)


def adds(request: bytes) -> bool:
    """There are ciphertexts in it."""
    return type_of(request) == MessageType.STORED_SUMS and bool(StoredSums.from_bytes(request).ciphertexts)


def opens(request: bytes) -> bool:
    """It begins with a session."""
    return type_of(request) == MessageType.SERVICE_SESSION


def gives_keys(request: bytes) -> bool:
    """It carries evaluation keys."""
    return type_of(request) == MessageType.EVALUATION_KEYS


def asks_for_numbers(request: bytes) -> bool:
    """It carries a client's copy."""
    return type_of(request) == MessageType.SCREENING_COPY


@pytest.fixture
def worker() -> Iterator[Assassin]:
    """A worker in a process of its own, in danger."""
    channel = Assassin(ProcessChannel("worker", "worker", restarts=True, call_seconds=60))
    yield channel
    channel.close()


def with_worker(session: Session, channel: Channel) -> Meeting:
    """A session whose ciphertexts are added there."""
    meeting = Meeting.of(session)
    meeting.use(replace(meeting.roles, worker=channel))
    return meeting


def honest(meeting: Meeting, *members: str) -> dict[int, list[int]]:
    """The plain sums."""
    return {part.index: plain_sum(meeting.inputs, part, members) for part in meeting.session.segments}


@pytest.mark.parametrize("session", [SESSION, CLASSED], ids=["together", "by class"])
def test_a_worker_that_dies_over_the_sums_is_replaced(worker: Assassin, session: Session) -> None:
    """The next one is given all that was added, and the sums open exactly."""
    meeting = with_worker(session, worker)
    meeting.take(*MEMBERS)
    worker.strike(asks_for_sums)

    assert meeting.sums(same_bindings(session)) == honest(meeting, *MEMBERS)
    assert worker.struck == 1


def test_where_nobody_tries_again_the_round_is_lost(
    monkeypatch: pytest.MonkeyPatch, worker: Assassin
) -> None:
    """The control: an aggregator that asks one worker alone has no sum, though no client did anything."""
    monkeypatch.setattr(guarded_adder, "with_one_more_worker", lambda work: work())
    meeting = with_worker(SESSION, worker)
    meeting.take(*MEMBERS)
    worker.strike(asks_for_sums)

    with pytest.raises(ServiceError, match="SIGKILL"):
        meeting.sums(same_bindings(SESSION))


def test_a_worker_that_dies_over_the_sum_of_all_classes_is_replaced(
    monkeypatch: pytest.MonkeyPatch, worker: Assassin
) -> None:
    """Sums of classes are nobody's ciphertexts: what puts them together is tried again as well."""
    monkeypatch.setattr("protocols.identity.trust.TrustStore.check_client", lambda *_, **__: None)
    session = replace(CLASSED, ranks=(2, 2, 4, 4))
    meeting = with_worker(session, worker)
    meeting.take(*MEMBERS)
    # Two classes are fetched first; then it has to be given both.
    seen: list[bytes] = []

    def after_both(request: bytes) -> bool:
        seen.extend([request] if asks_for_sums(request) else [])
        return len(seen) == 2 and adds(request)

    worker.strike(after_both)

    assert meeting.sums(same_bindings(session)) == honest(meeting, *MEMBERS)
    assert worker.struck == 1


def test_a_second_death_over_the_sums_costs_the_round_by_name(worker: Assassin) -> None:
    """Both workers are named, and the server opens nothing."""
    meeting = with_worker(SESSION, worker)
    meeting.take(*MEMBERS)
    worker.strike(asks_for_sums, times=2)

    with pytest.raises(
        ServiceError, match=r"the round is lost: two workers in a row failed: .*SIGKILL.*SIGKILL"
    ):
        meeting.sums(same_bindings(SESSION))
    assert worker.struck == 2


@pytest.mark.parametrize("kind", [opens, adds])
def test_a_worker_that_dies_while_it_is_told_the_sums_so_far_costs_nobody_a_place(
    worker: Assassin, kind: Kind
) -> None:
    """One dies idle, the next over the session or over what was added before: the client whose turn it is stays in."""
    meeting = with_worker(SESSION, worker)
    meeting.take(FIRST, SECOND)
    kill(worker.inner)
    worker.strike(kind)

    meeting.take(THIRD, LAST)

    assert worker.struck == 1
    assert meeting.sums(same_bindings(SESSION)) == honest(meeting, *MEMBERS)


def test_a_worker_that_dies_when_sums_are_fetched_in_between_costs_nobody_a_place(worker: Assassin) -> None:
    """The tenth client's upload has the first ones' sums fetched."""
    members = names(10)
    session = make_session(10, segment(0, 20, members))
    meeting = with_worker(session, worker)
    worker.strike(asks_for_sums)

    meeting.take(*members)

    assert worker.struck == 1
    assert meeting.sums(same_bindings(session)) == honest(meeting, *members)


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_a_worker_that_is_killed_or_stopped_right_before_an_upload_costs_nobody_a_place(
    sign: signal.Signals,
) -> None:
    """It looks alive when it is asked for, and fails over ciphertexts that have nothing to do with it."""
    channel = Assassin(ProcessChannel("worker", "worker", restarts=True, call_seconds=8), sign)
    meeting = with_worker(SESSION, channel)
    meeting.take(FIRST, SECOND)
    channel.strike(adds)

    meeting.take(THIRD, LAST)

    assert channel.struck == 1
    assert meeting.sums(same_bindings(SESSION)) == honest(meeting, *MEMBERS)
    channel.close()


def test_where_a_client_is_charged_at_once_it_loses_its_place_for_an_idle_death(
    monkeypatch: pytest.MonkeyPatch, worker: Assassin
) -> None:
    """The control."""
    monkeypatch.setattr(guarded_adder, "with_one_more_worker", lambda work: work())
    meeting = with_worker(SESSION, worker)
    meeting.take(FIRST, SECOND)
    worker.strike(adds)

    with pytest.raises(ServiceError, match="SIGKILL"):
        meeting.take(THIRD)


def test_a_client_over_whose_ciphertexts_two_workers_die_is_charged_alone(worker: Assassin) -> None:
    """Its place is lost, by name, and the others' sums open without it."""
    meeting = with_worker(SESSION, worker)
    meeting.take(FIRST, SECOND)
    mine = EncryptedInput.from_bytes(meeting.upload(THIRD)).ciphertexts
    worker.strike(lambda request: adds(request) and StoredSums.from_bytes(request).ciphertexts == mine, 9)

    with pytest.raises(ServiceError, match=r"two workers in a row failed: .*SIGKILL.*SIGKILL"):
        meeting.take(THIRD)
    meeting.take(LAST)

    assert worker.struck == 2
    assert meeting.sums(same_bindings(SESSION)) == honest(meeting, FIRST, SECOND, LAST)


def screened(channel: Assassin) -> Meeting:
    """A session without a verifier, whose updates are screened there."""
    charge = charge_for(screening=Screening(max_norm=1000.0, release=ScreeningRelease.VALUES))
    meeting = Meeting.of(SESSION, charge)
    meeting.use(replace(meeting.roles, screener=channel))
    return meeting


def test_a_screener_that_dies_over_the_keys_costs_nobody_a_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluation keys are no client's; and the control, in which they cost the first one its place."""
    channel = Assassin(ProcessChannel("screener", "screener", restarts=True, call_seconds=60))
    meeting = screened(channel)
    channel.strike(gives_keys)
    # The process is started when it is first asked whether it is there.
    meeting.take(*MEMBERS)

    assert channel.struck == 1
    assert meeting.sums(same_bindings(SESSION)) == honest(meeting, *MEMBERS)

    monkeypatch.setattr(screener, "with_one_more_worker", lambda work: work())
    meeting = screened(channel)
    channel.strike(gives_keys)
    with pytest.raises(ServiceError, match="SIGKILL"):
        meeting.take(FIRST)
    channel.close()


@pytest.mark.slow
@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_a_screener_that_is_killed_or_stopped_right_before_a_copy_costs_nobody_a_place(
    sign: signal.Signals,
) -> None:
    """The next one is asked about the same copy."""
    channel = Assassin(ProcessChannel("screener", "screener", restarts=True, call_seconds=8), sign)
    meeting = screened(channel)
    meeting.take(FIRST)
    channel.strike(asks_for_numbers)

    meeting.take(SECOND, THIRD, LAST)

    assert channel.struck == 1
    assert meeting.sums(same_bindings(SESSION)) == honest(meeting, *MEMBERS)
    channel.close()


def test_a_client_over_whose_copy_two_screeners_die_is_charged_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the control, in which one that dies idle is enough."""
    channel = Assassin(ProcessChannel("screener", "screener", restarts=True, call_seconds=60))
    meeting = screened(channel)
    meeting.take(FIRST, SECOND)
    channel.strike(asks_for_numbers, times=2)
    with pytest.raises(ServiceError, match="two workers in a row failed"):
        meeting.take(LAST)
    meeting.take(THIRD)
    assert channel.struck == 2
    assert meeting.sums(same_bindings(SESSION)) == honest(meeting, FIRST, SECOND, THIRD)

    monkeypatch.setattr(screener, "with_one_more_worker", lambda work: work())
    meeting = screened(channel)
    meeting.take(FIRST)
    channel.strike(asks_for_numbers)
    with pytest.raises(ServiceError, match="SIGKILL"):
        meeting.take(SECOND)
    channel.close()
