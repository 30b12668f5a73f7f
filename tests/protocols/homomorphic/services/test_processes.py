"""Services in real processes: killed, stopped, starved of memory and fed with garbage, they cost what they must and no more."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from protocols.errors import BelowThresholdError, ServiceError, StageError, WireError
from protocols.homomorphic.messages import EncryptedInput
from protocols.homomorphic.services import child, processes
from protocols.homomorphic.services.calls import Roles
from protocols.homomorphic.services.charge import Charge
from protocols.homomorphic.services.messages import HELLO, SessionRequest, Setup
from protocols.homomorphic.services.processes import ProcessChannel, receive_frame, send_frame
from protocols.homomorphic.services.services import Channel, Service, payload_of
from protocols.identity.trust import ThrowawayAuthority
from tests.contracts.sessions import make_session, names, plain_sum, same_bindings, segment
from tests.protocols.homomorphic.meeting import NOW, Meeting, charge_for, local_roles, server_of

FIRST, SECOND, THIRD, LAST = MEMBERS = names(4)
SESSION = make_session(4, segment(0, 20, MEMBERS, 3), segment(1, 7, (FIRST, SECOND, THIRD), 2))


@pytest.fixture
def worker() -> Iterator[ProcessChannel]:
    """A worker in a process of its own, ended with the test."""
    channel = ProcessChannel("worker", "worker", restarts=True, call_seconds=60)
    yield channel
    channel.close()


def with_worker(channel: Channel) -> Meeting:
    """A session whose ciphertexts are added there."""
    meeting = Meeting.of(SESSION)
    meeting.server = server_of(meeting.terms, replace(meeting.roles, worker=channel))
    return meeting


def pid_of(channel: ProcessChannel) -> int:
    """The child's process id."""
    channel.ready()
    assert channel.pid is not None
    return channel.pid


def kill(pid: int) -> None:
    """End a child the hard way, and wait until it is dead; somebody else reaps it."""
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def honest(meeting: Meeting, *members: str) -> dict[int, list[int]]:
    """The plain sums."""
    return {part.index: plain_sum(meeting.inputs, part, members) for part in SESSION.segments}


def is_gone(pid: int) -> bool:
    """Whether a process is neither alive nor a zombie of ours."""
    return not Path(f"/proc/{pid}").exists()


def test_a_worker_that_dies_while_idle_costs_nobody_anything(worker: ProcessChannel) -> None:
    """Killed between two uploads, it is replaced, and the new one is given what the old one had."""
    meeting = with_worker(worker)
    meeting.take(FIRST, SECOND)
    kill(pid_of(worker))

    meeting.take(THIRD, LAST)

    assert meeting.sums(same_bindings(SESSION)) == honest(meeting, *MEMBERS)


class Ambush(Channel):
    """Strikes the worker's process when it has just been sent the ciphertexts of one client, and the next one's at the same."""

    def __init__(self, inner: ProcessChannel, *, at: int, strike: signal.Signals) -> None:
        self._inner = inner
        self._left = at
        self._strike = strike
        self._fatal = b""
        self._times = 2

    def ready(self) -> int:
        return self._inner.ready()

    def exchange(self, request: bytes) -> bytes:
        self._left -= len(request) > 10_000
        if self._left == 0 and not self._fatal:
            self._fatal = request
        if request == self._fatal and self._times:
            self._times -= 1
            os.kill(pid_of(self._inner), self._strike)
        return self._inner.exchange(request)

    def close(self) -> None:
        self._inner.close()


@pytest.mark.slow
@pytest.mark.parametrize("strike", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
@pytest.mark.parametrize("victim", [0, 1, 3])
def test_workers_that_die_or_hang_over_one_client_cost_it_its_place(
    strike: signal.Signals, victim: int
) -> None:
    """Whoever's ciphertexts two in a row were busy with is refused by name; the others' sum is exact."""
    inner = ProcessChannel("worker", "worker", restarts=True, call_seconds=5)
    meeting = with_worker(Ambush(inner, at=victim + 1, strike=strike))
    unlucky = MEMBERS[victim]
    others = tuple(member for member in MEMBERS if member != unlucky)

    for member in MEMBERS:
        if member == unlucky:
            with pytest.raises(
                ServiceError,
                match=r"two workers in a row failed: worker: it (was ended by SIGKILL|did not answer within 5 sec)",
            ):
                meeting.take(member)
        else:
            meeting.take(member)

    assert meeting.sums(same_bindings(SESSION)) == honest(meeting, *others)
    inner.close()


def test_a_client_whose_worker_died_may_try_again(worker: ProcessChannel) -> None:
    """Its upload was not counted, so the same upload counts later."""
    meeting = with_worker(Ambush(worker, at=2, strike=signal.SIGKILL))
    meeting.take(FIRST)
    with pytest.raises(ServiceError):
        meeting.take(SECOND)

    meeting.take(SECOND, THIRD, LAST)

    assert meeting.sums(same_bindings(SESSION)) == honest(meeting, *MEMBERS)


@pytest.mark.parametrize("deaths", [1, 3])
def test_after_many_uploads_little_is_added_again(worker: ProcessChannel, deaths: int) -> None:
    """With twenty clients and deaths among them, the sum is exact; sums are fetched every few clients."""
    members = names(20)
    session = make_session(20, segment(0, 20, members))
    meeting = Meeting.of(session)
    meeting.server = server_of(meeting.terms, replace(meeting.roles, worker=worker))
    for place, member in enumerate(members):
        meeting.take(member)
        assert len(meeting.server._adder._by_class[0]._since) <= 8
        if place in (9, 10, 18)[:deaths]:
            kill(pid_of(worker))

    sums = meeting.sums(same_bindings(session))

    assert sums[0] == plain_sum(meeting.inputs, session.segments[0], members)


def test_a_worker_that_runs_out_of_memory_is_refused_by_name() -> None:
    """More bytes than its limit leaves room for end the child, not the aggregator; the next child serves again."""
    channel = ProcessChannel("worker", "worker", restarts=True, memory_bytes=256 * 2**20, call_seconds=60)

    with pytest.raises(ServiceError, match="worker: it ran out of the 268435456 bytes of memory"):
        channel.call(bytes(160 * 2**20))

    with pytest.raises(WireError):
        channel.call(HELLO)
    channel.close()


def test_a_child_has_a_memory_limit_and_leaves_no_core(worker: ProcessChannel) -> None:
    """The operating system, not the child's good will, holds it to the limits."""
    with pytest.raises(WireError):
        worker.call(HELLO)  # by the time it answers, if only to refuse, its limits are set

    text = Path(f"/proc/{pid_of(worker)}/limits").read_text().splitlines()

    assert str(4 * 2**30) in next(line for line in text if line.startswith("Max address space"))
    assert next(line for line in text if line.startswith("Max core file size")).split()[4:6] == ["0", "0"]


def keyed(charge: Charge) -> tuple[Roles, ThrowawayAuthority, dict[str, ProcessChannel]]:
    """Services in processes, enrolled with the keys they made."""
    channels = {name: ProcessChannel(name, name, call_seconds=60) for name in charge.services.names}
    authority = ThrowawayAuthority.create(
        dict.fromkeys(MEMBERS, 4),
        now=NOW,
        services={name: channel.call(HELLO) for name, channel in channels.items()},
    )
    for channel in channels.values():
        payload_of(channel.operate(Setup(charge=charge, trust=authority.view).to_bytes()))
    return Roles(decryptor=channels["decryptor"], worker=local_roles(charge).worker), authority, channels


def test_a_decryptor_that_died_is_not_replaced() -> None:
    """Its keys died with it: every later call names it, and starts nothing."""
    _, _, channels = keyed(charge_for())
    decryptor = channels["decryptor"]
    pid = pid_of(decryptor)
    kill(pid)

    with pytest.raises(ServiceError, match="decryptor: it was ended by SIGKILL"):
        decryptor.call(HELLO)
    with pytest.raises(ServiceError, match="decryptor: it has died, and its keys with it"):
        decryptor.call(HELLO)

    assert is_gone(pid)
    assert decryptor.pid is None


def test_a_closed_line_ends_the_child() -> None:
    """When the aggregator lets go, or dies, its services leave on their own."""
    channel = ProcessChannel("worker", "worker")
    pid = pid_of(channel)

    channel.close()

    assert is_gone(pid)


def test_a_killed_aggregator_leaves_no_service_behind() -> None:
    """Its children notice the closed line, and end."""
    program = (
        "from protocols.homomorphic.services.processes import ProcessChannel as C\n"
        "import time\n"
        "c = [C('decryptor', 'decryptor'), C('worker', 'worker')]\n"
        "[x.ready() for x in c]\n"
        "print(*[x.pid for x in c], flush=True)\n"
        "time.sleep(60)\n"
    )
    root = str(Path(__file__).parents[4])
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": root},
    ) as parent:
        assert parent.stdout is not None
        children = [int(pid) for pid in parent.stdout.readline().split()]
        parent.kill()

    deadline = time.monotonic() + 20
    while not all(map(is_dead, children)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(children) == 2
    assert all(map(is_dead, children))


def is_dead(pid: int) -> bool:
    """Gone, or a zombie that nobody waits for in this container."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_a_child_that_is_fed_garbage_names_it_or_ends() -> None:
    """Bytes that are no message are refused as such; a frame that ends early ends the child."""
    channel = ProcessChannel("worker", "worker", call_seconds=30)
    pid = pid_of(channel)
    line = channel._socket
    assert line is not None

    send_frame(line, b"garbage")
    refused = receive_frame(line)
    line.sendall(b"\xff\xff\xff\x00only a few bytes")
    line.shutdown(socket.SHUT_WR)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    channel.close()

    assert b"WireError" in refused
    assert is_gone(pid)


def test_a_child_cannot_make_its_caller_take_in_what_it_likes(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer longer than the limit is not read: the child is killed, and the error says why."""
    monkeypatch.setattr(processes, "MOST_ANSWER", 10)
    channel = ProcessChannel("worker", "worker", restarts=True)
    pid = pid_of(channel)

    with pytest.raises(
        ServiceError, match=r"worker: it was killed: a frame of \d+ bytes must have at most 10"
    ):
        channel.call(HELLO)

    assert is_gone(pid)


def test_nothing_is_written_to_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a session with keys in other processes, their home, temporary and working folders are as empty as before."""
    for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    roles, authority, channels = keyed(charge_for())
    terms = charge_for().terms(SESSION, authority.view)
    server = server_of(terms, roles)

    server.requests()
    with pytest.raises(BelowThresholdError):
        server.close_stage()
    # All but standard error, which is the aggregator's own.
    open_files = [
        str(entry.readlink())
        for channel in channels.values()
        for entry in Path(f"/proc/{pid_of(channel)}/fd").iterdir()
        if entry.name != "2"
    ]
    for channel in channels.values():
        channel.close()

    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    writable = [
        name for name in open_files if name.startswith("/") and not name.startswith(("/dev/", "/proc/"))
    ]
    assert writable == []


def test_an_answer_is_what_the_child_says_and_not_what_its_library_prints() -> None:
    """The child's standard output leads nowhere, so that nothing printed there can mix with frames."""
    channel = ProcessChannel("worker", "worker")
    target = str(Path(f"/proc/{pid_of(channel)}/fd/1").readlink())
    channel.close()

    assert target == "/dev/null"


def test_uploads_of_a_whole_session_through_processes_give_the_exact_sum(worker: ProcessChannel) -> None:
    """Decryptor and worker in processes of their own, everyone's honest input: the plain sum."""
    charge = charge_for()
    meeting = Meeting.of(SESSION, charge)
    meeting.server = server_of(meeting.terms, replace(meeting.roles, worker=worker))
    uploads = {member: meeting.upload(member) for member in MEMBERS}

    for member, upload in uploads.items():
        meeting.server.receive(member, upload)

    assert meeting.sums(same_bindings(SESSION)) == honest(meeting, *MEMBERS)
    assert len(EncryptedInput.from_bytes(uploads[FIRST]).ciphertexts) == 2


def test_a_process_that_cannot_be_started_is_named(
    worker: ProcessChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the system has no process to give, ServiceError says so, no socket stays open, and a later try may succeed."""

    def refuse(*_arguments: object, **_options: object) -> subprocess.Popen[bytes]:
        raise OSError(12, "Cannot allocate memory")

    with monkeypatch.context() as patched:
        patched.setattr(subprocess, "Popen", refuse)
        with pytest.raises(ServiceError, match=r"worker: it cannot be started: .*Cannot allocate memory"):
            worker.ready()

    assert worker.ready() == 1


# --- the operator's line, and what others on the machine may read ---


def test_only_the_operators_line_sets_a_service_up() -> None:
    """The same setup is refused on the aggregator's line, first come or not, and taken on the operator's."""
    channel = ProcessChannel("decryptor", "decryptor", call_seconds=60)
    authority = ThrowawayAuthority.create(
        dict.fromkeys(MEMBERS, 4), now=NOW, services={"decryptor": channel.call(HELLO)}
    )
    setup = Setup(charge=charge_for(), trust=authority.view).to_bytes()

    with pytest.raises(StageError, match="set up by its own operator"):
        channel.call(setup)
    assert payload_of(channel.operate(HELLO)) == channel.call(HELLO)
    assert payload_of(channel.operate(setup)) == b""
    with pytest.raises(StageError, match="set up by its own operator"):
        channel.call(setup)
    assert channel.call(SessionRequest(session=SESSION).to_bytes())

    channel.close()


def test_a_worker_has_no_operator(worker: ProcessChannel) -> None:
    """It is keyless, believes nobody, and there is no line to set it up by."""
    with pytest.raises(ServiceError, match="a worker has no operator"):
        worker.operate(HELLO)


READER = """
import ctypes, os
from pathlib import Path
from protocols.homomorphic.services.child import hide_memory

def become_nobody():
    if os.geteuid() == 0:
        os.setgroups([]), os.setgid(65534), os.setuid(65534)
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # as any process of a user is: changing the user has closed it

def forked(prepare):
    told, tell = os.pipe()
    if (pid := os.fork()) == 0:
        become_nobody(), prepare(), os.write(tell, b"x"), os.read(os.pipe()[0], 1)
    os.read(told, 1)
    return pid

pids = [forked(hide_memory), forked(lambda: None)]
become_nobody()
for pid in pids:
    try:
        with Path(f"/proc/{pid}/mem").open("rb"):
            print("readable")
    except PermissionError:
        print("closed")
    os.kill(pid, 9)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="no such thing elsewhere")
def test_no_other_process_of_the_user_reads_a_hidden_memory() -> None:
    """A parent of the same user finds the memory of a child that has hidden it closed; the control's is open."""
    program = subprocess.run(
        [sys.executable, "-c", READER], capture_output=True, text=True, check=False, timeout=60
    )

    assert program.stdout.split() == ["closed", "readable"], program.stderr


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="no such thing elsewhere")
def test_memory_is_hidden_before_there_is_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first thing that a keyed service's process does, before its service exists; a refusal of the system ends it."""
    order: list[str] = []
    monkeypatch.setattr(child, "_set_limits", lambda _: order.append("limits"))
    monkeypatch.setattr(child, "hide_memory", lambda: order.append("hidden"))

    def made(role: str, name: str) -> Service:
        order.append(f"{role} {name}")
        raise EOFError

    monkeypatch.setattr(child, "_service", made)
    for role in ("decryptor", "verifier", "worker"):
        with pytest.raises(EOFError):
            child.main([role, role, "0", "0"])

    assert order == [
        *("limits", "hidden", "decryptor decryptor"),
        *("limits", "hidden", "verifier verifier"),
        *("limits", "worker worker"),
    ]


def test_a_child_takes_in_no_request_beyond_its_limit() -> None:
    """A length of four gigabytes ends it before anything is read, and costs its caller one call."""
    channel = ProcessChannel("worker", "worker", call_seconds=30)
    pid = pid_of(channel)
    line = channel._socket
    assert line is not None
    line.sendall(b"\xff\xff\xff\xff")
    deadline = time.monotonic() + 20
    while (
        not is_dead(pid) and time.monotonic() < deadline
    ):  # waitid would wait for ever where nothing ends it
        time.sleep(0.02)
    ended = is_dead(pid)
    channel.close()

    assert ended

    assert is_gone(pid)
