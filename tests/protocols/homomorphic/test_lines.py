"""The lines between processes: whatever a child, a caller or a signal does to them, no answer is taken for another's.

Children that misbehave are programs of a few lines, started as a service would be. The controls are channels without the
one precaution that a test is about.
"""

import contextlib
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from protocols.errors import ServiceError
from protocols.homomorphic.services import child, processes
from protocols.homomorphic.services.messages import HELLO
from protocols.homomorphic.services.processes import LENGTH, NUMBER, Ending, ProcessChannel, send_frame
from protocols.homomorphic.services.services import payload_of

PRELUDE = """
import os, select, socket, struct, subprocess, sys, time
lines = [socket.socket(fileno=int(number)) for number in sys.argv[1:]]
line = lines[0]

def take(size, line=line):
    data = b""
    while len(data) < size:
        chunk = line.recv(size - len(data))
        if not chunk:
            sys.exit()
        data += chunk
    return data

def request(line=line):
    length, number = struct.unpack("<IQ", take(12, line))
    return number, take(length, line)

def answer(number, data, line=line):
    line.sendall(struct.pack("<IQ", len(data), number) + data)
"""
ECHO = """
while True:
    number, data = request()
    answer(number, data)
"""
SLOW_ECHO = """
while True:
    number, data = request()
    time.sleep(0.5)
    answer(number, data)
"""
Fake = Callable[..., ProcessChannel]
_popen = subprocess.Popen


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    """Makes channels to a child that runs another program; options override those that a service is started with."""
    made: list[ProcessChannel] = []

    def channel(
        program: str, *, seconds: float = 20, role: str = "worker", **changed: object
    ) -> ProcessChannel:
        def start(_: list[str], **options: Any) -> "subprocess.Popen[bytes]":
            lines = map(str, options["pass_fds"])
            return _popen([sys.executable, "-c", PRELUDE + program, *lines], **{**options, **changed})

        monkeypatch.setattr(subprocess, "Popen", start)
        made.append(ProcessChannel(role, role, call_seconds=seconds, restarts=True))
        return made[-1]

    yield channel
    for each in made:
        each.close()


@pytest.fixture
def alarm() -> Iterator[Callable[[float, Callable[[], object]], None]]:
    """Has a signal interrupt the main thread once, some seconds from now, and call something."""
    before = signal.getsignal(signal.SIGALRM)

    def arm(seconds: float, handler: Callable[[], object]) -> None:
        def handle(_: int, __: FrameType | None) -> None:
            handler()

        signal.signal(signal.SIGALRM, handle)
        signal.setitimer(signal.ITIMER_REAL, seconds)

    yield arm
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    """Whether something comes true in time."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def is_dead(pid: int) -> bool:
    """Gone, or a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def without_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Careless: all requests have one number."""
    monkeypatch.setattr(processes.secrets, "randbits", lambda _: 0)


# --- calls that end by something else than an answer ---


class Stop(BaseException):
    """What a signal's handler may raise."""


def interrupted(channel: ProcessChannel, alarm: Callable[..., None], error: type[BaseException]) -> None:
    """A first call that a signal's handler ends by raising something, as long as its answer is under way."""

    def handler() -> None:
        raise error

    channel.ready()
    alarm(0.2, handler)
    with pytest.raises(error):
        channel.exchange(b"first")


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, Stop])
def test_a_call_that_a_signal_ends_leaves_no_answer_to_the_next(
    fake: Fake, alarm: Callable[..., None], error: type[BaseException]
) -> None:
    """Its child is ended with it, at once, and the next call is another child's."""
    channel = fake(SLOW_ECHO)
    interrupted(channel, alarm, error)

    assert channel.pid is None
    assert channel.exchange(b"second") == b"second"
    assert channel.ready() == 2


def test_a_careless_caller_takes_the_answer_to_the_call_before(
    fake: Fake, alarm: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: a child that lives on, and requests without numbers."""
    without_numbers(monkeypatch)
    channel = fake(SLOW_ECHO)
    with monkeypatch.context() as careless:
        careless.setattr(ProcessChannel, "_end", lambda *_, **__: "")
        interrupted(channel, alarm, Stop)

    assert channel.exchange(b"second") == b"first"


def test_a_keyed_service_whose_call_a_signal_ends_is_not_replaced(alarm: Callable[..., None]) -> None:
    """Its keys are gone with it, and the next call says so."""
    channel = ProcessChannel("decryptor", "decryptor", call_seconds=60)
    channel.call(HELLO)
    assert channel.pid is not None
    os.kill(channel.pid, signal.SIGSTOP)
    interrupted(channel, alarm, Stop)

    with pytest.raises(ServiceError, match="decryptor: it has died, and its keys with it"):
        channel.call(HELLO)


def test_a_start_that_a_signal_ends_leaves_no_line_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes instead of a child closes both ends of its lines, and the next try is as the first."""
    channel = ProcessChannel("worker", "worker", restarts=True)
    open_before = len(list(Path("/proc/self/fd").iterdir()))

    def refuse(*_: object, **__: object) -> "subprocess.Popen[bytes]":
        raise Stop

    with monkeypatch.context() as patched:
        patched.setattr(subprocess, "Popen", refuse)
        with pytest.raises(Stop):
            channel.ready()

    assert len(list(Path("/proc/self/fd").iterdir())) == open_before
    assert channel.ready() == 1
    channel.close()


# --- several callers ---


def wrong_answers(channel: ProcessChannel, calls: int = 60) -> list[object]:
    """What two threads at once get that is not the echo of what they have sent."""
    channel.ready()
    wrong: list[object] = []

    def work(thread: int) -> None:
        for number in range(calls):
            request = f"{thread}-{number}-".encode() * 300
            try:
                if (found := channel.exchange(request)) != request:
                    wrong.append(found)
            except ServiceError as error:
                wrong.append(error)
                return

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return wrong


def test_threads_that_share_a_channel_get_their_own_answers(fake: Fake) -> None:
    """One waits for the other."""
    assert wrong_answers(fake(ECHO)) == []


def test_threads_on_a_careless_channel_get_each_others(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: nobody waits for a turn, and requests have no numbers."""
    without_numbers(monkeypatch)
    monkeypatch.setattr(ProcessChannel, "_turn", lambda _: contextlib.nullcontext())

    assert wrong_answers(fake(ECHO, seconds=2))


def test_who_waits_too_long_for_a_turn_is_told_so(fake: Fake) -> None:
    """As long as a call may take; the call that is under way is not disturbed."""
    channel = fake("number, data = request()\ntime.sleep(1.5)\nanswer(number, data)\nrequest()", seconds=1)
    channel.ready()
    channel._seconds = 20
    found: list[bytes] = []
    first = threading.Thread(target=lambda: found.append(channel.exchange(b"first")))
    first.start()
    assert within(5, lambda: channel._caller is not None)
    channel._seconds = 0.3

    with pytest.raises(ServiceError, match=r"worker: it was busy with other calls for 0\.3 seconds"):
        channel.exchange(b"second")
    first.join()

    assert found == [b"first"]


def test_a_handler_that_calls_what_it_has_interrupted_is_refused(
    fake: Fake, alarm: Callable[..., None]
) -> None:
    """At once, by name; and the call that it has interrupted goes on."""
    channel = fake(SLOW_ECHO)
    channel.ready()
    refused: list[str] = []

    def handler() -> None:
        try:
            channel.exchange(b"second")
        except ServiceError as error:
            refused.append(str(error))

    alarm(0.2, handler)

    assert channel.exchange(b"first") == b"first"
    assert refused == ["worker: it is busy with a call that was interrupted for this one"]


@pytest.mark.parametrize("by", ["thread", "handler"])
def test_closing_ends_a_call_that_is_under_way(fake: Fake, alarm: Callable[..., None], by: str) -> None:
    """Long before its time is over."""
    channel = fake("request()\ntime.sleep(60)")
    channel.ready()
    if by == "thread":
        threading.Timer(0.3, channel.close).start()
    else:
        alarm(0.3, channel.close)
    began = time.monotonic()

    with pytest.raises(ServiceError, match=r"worker: it (is not running|was ended by SIGKILL)"):
        channel.exchange(b"first")

    assert time.monotonic() - began < 15
    assert within(10, lambda: channel.pid is None)


# --- what a child starts ---

FORKS = """
request()
grandchild = subprocess.Popen(["sleep", "60"], pass_fds=[line.fileno()])
open({path!r}, "w").write(str(grandchild.pid))
{then}
"""


@pytest.mark.parametrize(
    ("then", "said"),
    [
        ("os._exit(0)", "did not answer within"),  # the other one keeps the line open
        ("time.sleep(60)", "did not answer within"),
        ("line.sendall(bytes([255] * 4)), time.sleep(60)", "must have at most"),
    ],
)
def test_what_a_child_has_started_ends_with_it(fake: Fake, tmp_path: Path, then: str, said: str) -> None:
    """All of its process group is killed, whether or not it was there to be killed itself."""
    path = tmp_path / "pid"
    channel = fake(FORKS.format(path=str(path), then=then), seconds=2)

    with pytest.raises(ServiceError, match=said):
        channel.exchange(b"first")

    assert within(5, lambda: is_dead(int(path.read_text())))


def test_what_a_child_has_started_survives_where_it_alone_is_killed(
    fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: no group of its own, and one process killed."""
    path = tmp_path / "pid"
    monkeypatch.setattr(processes, "_kill_group", lambda pid: os.kill(pid, signal.SIGKILL))
    program = FORKS.format(path=str(path), then="time.sleep(60)")
    channel = fake(program, seconds=2, start_new_session=False)

    with pytest.raises(ServiceError, match="did not answer within"):
        channel.exchange(b"first")
    grandchild = int(path.read_text())

    assert not within(0.5, lambda: is_dead(grandchild))
    os.kill(grandchild, signal.SIGKILL)


def test_a_terminals_interrupt_does_not_reach_a_child() -> None:
    """It leads a group and a session of its own: what is sent to ours is not sent to it."""
    channel = ProcessChannel("worker", "worker")
    channel.ready()
    assert channel.pid is not None

    assert os.getpgid(channel.pid) == os.getsid(channel.pid) == channel.pid != os.getpgrp()
    channel.close()


# --- one line does not hold up the other ---


@pytest.fixture
def decryptor() -> Iterator[ProcessChannel]:
    """A real one, not set up."""
    channel = ProcessChannel("decryptor", "decryptor", call_seconds=20)
    channel.call(HELLO)
    yield channel
    channel.close()


@pytest.mark.parametrize("size", [1, 4, 11, 12, 13, 50])
def test_a_request_that_comes_in_part_does_not_keep_the_operator_waiting(
    decryptor: ProcessChannel, size: int
) -> None:
    """Wherever it breaks off; and once the rest has come, it is answered too."""
    frame = LENGTH.pack(len(HELLO) + 50) + NUMBER.pack(7) + HELLO + bytes(50)
    line = decryptor._socket
    assert line is not None
    line.sendall(frame[:size])
    time.sleep(0.2)

    assert len(payload_of(decryptor.operate(HELLO))) == 32
    line.sendall(frame[size:])
    assert b"StageError" in processes.receive_frame(line, time.monotonic() + 20, number=7)
    assert len(decryptor.call(HELLO)) == 32


def test_answers_that_nobody_fetches_do_not_keep_the_operator_waiting(decryptor: ProcessChannel) -> None:
    """The aggregator sends requests until nothing more goes in, and reads none of the answers."""
    line = decryptor._socket
    assert line is not None
    frame = LENGTH.pack(len(HELLO)) + NUMBER.pack(7) + HELLO
    line.setblocking(False)
    full = 0
    while full < 20:
        try:
            line.send(frame * 1000)
        except BlockingIOError:
            full += 1
            time.sleep(0.02)

    assert len(payload_of(decryptor.operate(HELLO))) == 32


def test_an_answer_that_does_not_fit_the_line_goes_in_parts() -> None:
    """A child hands over what there is room for and looks after its other line; the rest follows, and none of it is lost."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        line = child._Line(theirs, lambda request: request * 2_000_000)
        send_frame(ours, b"answer", number=7)
        steps = threading.Thread(target=lambda: [line.go_on() for _ in range(20)], daemon=True)
        steps.start()
        steps.join(timeout=5)
        waits = steps.is_alive()
        assert not waits
        assert line.events == selectors.EVENT_WRITE

        found: list[bytes] = []
        reader = threading.Thread(
            target=lambda: found.append(processes.receive_frame(ours, time.monotonic() + 20, number=7))
        )
        reader.start()
        while reader.is_alive():
            if line.events == selectors.EVENT_WRITE:
                line.go_on()
        assert found == [b"answer" * 2_000_000]
        assert line.events == selectors.EVENT_READ


BLOCKING = """
while True:
    ready, _, _ = select.select(lines, [], [])
    for one in ready:
        answer(*request(one), one)
"""


def test_a_service_that_waits_for_one_line_forgets_the_other(fake: Fake) -> None:
    """The control: it reads a request to its end before it looks at the operator, whose call then costs the service its life."""
    channel = fake(BLOCKING, role="decryptor", seconds=1)
    assert channel.operate(b"before") == b"before"
    line = channel._socket
    assert line is not None
    line.sendall(LENGTH.pack(100) + b"x")
    time.sleep(0.2)

    with pytest.raises(ServiceError, match="it did not answer within 1 seconds and was killed"):
        channel.operate(b"after")


def test_an_operator_that_leaves_in_the_middle_of_a_request_takes_nothing_along(
    decryptor: ProcessChannel,
) -> None:
    """The service goes on with the aggregator."""
    operators = decryptor._operators
    assert operators is not None
    operators.sendall(LENGTH.pack(100) + b"x")
    operators.close()

    assert len(decryptor.call(HELLO)) == 32
    assert len(decryptor.call(HELLO)) == 32


# --- limits ---


def test_a_request_beyond_the_limit_is_not_sent(
    decryptor: ProcessChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller is told the size and the limit, and the service lives."""
    pid = decryptor.pid
    with monkeypatch.context() as small:
        small.setattr(processes, "MOST_REQUEST", 10)
        for call in (decryptor.exchange, decryptor.operate):
            with pytest.raises(
                ServiceError, match="decryptor: a request of 11 bytes must have at most 10: it was not sent"
            ):
                call(bytes(11))

    assert len(decryptor.call(HELLO)) == 32
    assert decryptor.pid == pid


@pytest.mark.parametrize("at_once", [False, True], ids=["length alone", "whole head"])
def test_a_child_that_is_sent_a_request_beyond_its_limit_says_so(
    capfd: pytest.CaptureFixture[str], *, at_once: bool
) -> None:
    """It reads the length, not the request, and ends by name, in its own words and its caller's."""
    channel = ProcessChannel("decryptor", "decryptor", call_seconds=20)
    channel.call(HELLO)
    line, pid = channel._socket, channel.pid
    assert line is not None
    assert pid is not None
    line.sendall(LENGTH.pack(processes.MOST_REQUEST + 1) + bytes(NUMBER.size if at_once else 0))

    # A child that took it would wait for a gigabyte: that fails here, and does not hang.
    ended = within(10, lambda: is_dead(pid))
    with pytest.raises(
        ServiceError, match=f"decryptor: it was sent a request beyond the {2**30} bytes that it takes"
    ):
        channel.call(HELLO)
    assert ended
    assert "decryptor: a request of 1073741825 bytes must have at most 1073741824" in capfd.readouterr().err


def test_a_request_of_the_largest_size_is_within_the_limit(decryptor: ProcessChannel) -> None:
    """The first bytes of one do not end the service."""
    line, pid = decryptor._socket, decryptor.pid
    assert line is not None
    assert pid is not None
    line.sendall(LENGTH.pack(processes.MOST_REQUEST) + NUMBER.pack(1) + b"x")

    assert not within(0.5, lambda: is_dead(pid))


def test_exit_codes_that_mean_something_are_none_of_pythons() -> None:
    """Neither 0 to 2 nor what shells give for signals."""
    assert all(2 < code < 128 for code in Ending)


# --- answers to something else ---

TWO_FOR_ONE = """
while True:
    number, data = request()
    answer(number, data)
    answer(number, b"stale")
"""
TOO_EARLY = """
answer(0, b"early")
while True:
    answer(*request())
"""


@pytest.mark.parametrize(("program", "good"), [(TWO_FOR_ONE, 1), (TOO_EARLY, 0)])
def test_an_answer_that_no_request_asked_for_is_no_answer(fake: Fake, program: str, good: int) -> None:
    """Its child is killed by name, and the next call is another child's."""
    channel = fake(program)
    for number in range(good):
        assert channel.exchange(b"%d" % number) == b"%d" % number
    time.sleep(0.2)

    with pytest.raises(ServiceError, match="worker: it was killed: it has answered another request"):
        channel.exchange(b"next")

    assert channel.pid is None
    assert channel.ready() == 2


@pytest.mark.parametrize(("program", "good"), [(TWO_FOR_ONE, 1), (TOO_EARLY, 0)])
def test_without_numbers_it_is_taken(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, program: str, good: int
) -> None:
    """The control."""
    without_numbers(monkeypatch)
    channel = fake(program)
    for number in range(good):
        assert channel.exchange(b"%d" % number) == b"%d" % number

    assert channel.exchange(b"next") in {b"stale", b"early"}


DRIP = """
number, data = request()
for byte in struct.pack("<IQ", 30, number) + bytes(30):
    line.sendall(bytes([byte]))
    time.sleep(0.15)
"""


def test_a_child_that_drips_its_answer_is_out_of_time(fake: Fake) -> None:
    """The time is that of the call: a byte now and then buys no more of it."""
    channel = fake(DRIP, seconds=1)

    with pytest.raises(ServiceError, match="worker: it did not answer within 1 seconds and was killed"):
        channel.exchange(b"first")


def test_a_drip_within_the_time_is_an_answer(fake: Fake) -> None:
    """The control: the same child, with time enough."""
    assert fake(DRIP, seconds=20).exchange(b"first") == bytes(30)


def test_a_child_that_fetches_nothing_is_out_of_time() -> None:
    """The same of a request: what cannot be sent in time is given up."""
    channel = ProcessChannel("worker", "worker", call_seconds=1, restarts=True)
    channel.ready()
    assert channel.pid is not None
    os.kill(channel.pid, signal.SIGSTOP)

    with pytest.raises(ServiceError, match="worker: it did not answer within 1 seconds and was killed"):
        channel.exchange(bytes(50_000_000))


def test_a_frame_is_a_length_a_number_and_bytes() -> None:
    """Little-endian u32 and u64, as the documentation says."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        send_frame(ours, b"abc", number=2**40)

        assert theirs.recv(100) == b"\x03\0\0\0" + b"\0\0\0\0\0\x01\0\0" + b"abc"
