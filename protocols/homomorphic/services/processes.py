"""Services in processes of their own, that can be limited, timed and killed.

One process per service, one socket pair per process, frames of u32 length, u64 number and bytes: an answer has the number
of its request, which is drawn anew for each, so that nothing a child has sent before can be taken for it. A keyed service has
a second pair, which only whoever started it holds: its operator's line. A child writes nothing to disk, not even a core dump,
gives up its standard output, on which the encryption library likes to print, and is handed of the environment only what a
Python process needs: no passphrase.

A child leads a session and process group of its own. A terminal's Ctrl-C so reaches its caller alone, which ends it; and
what it has started is killed with it. What leaves that group on purpose (setsid) is not.

    python -P -m protocols.homomorphic.services.child ROLE NAME MEMORY SOCKET [OPERATOR'S SOCKET]
"""

import contextlib
import os
import secrets
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from enum import IntEnum, unique
from pathlib import Path
from typing import Final, final

from protocols.errors import ServiceError
from protocols.homomorphic.services.services import Channel

LENGTH: Final = struct.Struct("<I")
NUMBER: Final = struct.Struct("<Q")
_MOST: Final = 2**32 - 1
_LEAVE_SECONDS: Final = 5.0  # for a sound child to leave once its line is closed
WORKERS: Final = frozenset({"worker", "screener"})  # keyless, and nobody's to set up
MOST_REQUEST: Final = 2**30  # bytes: what a child takes in at most
MOST_ANSWER: Final = 2**30  # bytes: what a child that peers have taken over could make its caller take in
MEMORY_BYTES: Final = (
    4 * 2**30
)  # address space, of which the interpreter and its libraries take the better half of a gigabyte
CALL_SECONDS: Final = 120.0
# Where programs, libraries and temporary files are, and in which language; SYSTEMROOT is what Windows cannot do without.
_INHERITED: Final = (
    *("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONHOME", "SYSTEMROOT"),
    *("TMPDIR", "TEMP", "TMP", "LANG", "LC_ALL", "LC_CTYPE"),
)


class FrameError(OSError):
    """The other side announces more bytes than it may send, or answers another request."""


@unique
class Ending(IntEnum):
    """Exit codes of a child, beyond those of Python."""

    FRAME = 65
    MEMORY = 66


@final
class ProcessChannel(Channel):
    """A service in a child process, started on the first call and again after it died.

    One call at a time, from whatever thread: another waits for its turn. A call that ends otherwise than by its answer is the
    end of the child, so that its answer is nobody else's.

    Args:
        role: "worker", "screener", or else a keyed service: a decryptor or verifier.
        name: Name in messages, and in the identity of a keyed service.
        memory_bytes: Limit of the child's address space, in bytes.
        call_seconds: Longest call, in seconds; then the child is killed. Nobody waits longer for a turn.
        restarts: Whether a dead child is replaced: only if nothing it held is missed.
    """

    def __init__(
        self,
        role: str,
        name: str,
        *,
        memory_bytes: int = MEMORY_BYTES,
        call_seconds: float = CALL_SECONDS,
        restarts: bool = False,
    ) -> None:
        self._role = role
        self._name = name
        self._memory = memory_bytes
        self._seconds = call_seconds
        self._restarts = restarts
        self._child: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._operators: socket.socket | None = None
        self._started = 0
        self._turns = threading.Lock()
        self._caller: int | None = None  # the thread whose turn it is

    @property
    def pid(self) -> int | None:
        """The child's process id, while it lives."""
        return self._child.pid if self._child is not None else None

    def ready(self) -> int:
        """Start the child, or a new one if the last has died; return how many were started."""
        with self._turn():
            if self._child is not None and self._child.poll() is not None:
                self._end()
            self._connected()
            return self._started

    def exchange(self, request: bytes) -> bytes:
        """Send one frame and receive one; any failure ends the child.

        Raises:
            ServiceError: The request is too long and was not sent, the service is busy, gone, or did not answer this very request in time.
        """
        with self._turn():
            return self._carried(self._connected(), request)

    def operate(self, request: bytes) -> bytes:
        """Exchange one frame on the operator's line of a keyed service. Raises ServiceError."""
        with self._turn():
            self._connected()
            if self._operators is None:
                raise ServiceError(f"{self._name}: a {self._role} has no operator")
            return self._carried(self._operators, request)

    def close(self) -> None:
        """End the child, if there is one; a call in another thread then fails with ServiceError."""
        for line in (self._socket, self._operators):
            if line is not None:
                # Closing alone would not wake whoever waits for an answer.
                with contextlib.suppress(OSError):
                    line.shutdown(socket.SHUT_RDWR)
        if self._caller != threading.get_ident():  # or else the call that is interrupted here ends the child
            with self._turn():
                self._end()

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """Reserve the child for one call. Raises ServiceError."""
        if self._caller == threading.get_ident():  # from a signal's handler: waiting would be for ever
            raise ServiceError(f"{self._name}: it is busy with a call that was interrupted for this one")
        if not self._turns.acquire(timeout=self._seconds):
            raise ServiceError(f"{self._name}: it was busy with other calls for {self._seconds:g} seconds")
        try:
            self._caller = threading.get_ident()
            yield
        finally:
            self._caller = None
            self._turns.release()

    def _carried(self, line: socket.socket, request: bytes) -> bytes:
        if len(request) > MOST_REQUEST:
            raise ServiceError(
                f"{self._name}: a request of {len(request)} bytes must have at most {MOST_REQUEST}: it was not sent"
            )
        deadline = time.monotonic() + self._seconds
        number = secrets.randbits(64)
        try:
            send_frame(line, request, deadline, number=number)
            return receive_frame(line, deadline, most=MOST_ANSWER, number=number)
        except (OSError, EOFError) as error:
            raise ServiceError(f"{self._name}: {self._end(error)}") from None
        except BaseException:
            # As a signal's handler raises them: the answer is still to come, and would be the next call's.
            self._end(patient=False)
            raise

    def _connected(self) -> socket.socket:
        if self._socket is not None:
            return self._socket
        if self._started and not self._restarts:
            raise ServiceError(f"{self._name}: it has died, and its keys with it")
        pairs: list[tuple[socket.socket, socket.socket]] = []
        try:
            pairs += (socket.socketpair() for _ in range(1 if self._role in WORKERS else 2))
            self._child = self._start([theirs for _, theirs in pairs])
        except BaseException as error:
            for ours, _ in pairs:
                ours.close()
            if isinstance(error, OSError):
                raise ServiceError(f"{self._name}: it cannot be started: {error}") from None
            raise
        finally:
            for _, theirs in pairs:
                theirs.close()
        self._socket, *operators = (ours for ours, _ in pairs)
        self._operators = operators[0] if operators else None
        self._started += 1
        return self._socket

    def _start(self, lines: list[socket.socket]) -> subprocess.Popen[bytes]:
        descriptors = [line.fileno() for line in lines]
        return subprocess.Popen(  # noqa: S603  # our own interpreter and module
            [
                *(sys.executable, "-P", "-m", "protocols.homomorphic.services.child"),
                *(self._role, self._name, str(self._memory), *map(str, descriptors)),
            ],
            pass_fds=descriptors,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env=_environment(),
            start_new_session=True,
        )

    def _end(self, error: Exception | None = None, *, patient: bool = True) -> str:
        """Kill and reap the child and all that it has started; return a description of its end.

        Args:
            error: Why: one of FrameError and TimeoutError says all there is to say.
            patient: Whether the child gets time to exit on its own, with its reason.
        """
        child, lines = self._child, (self._socket, self._operators)
        self._child = self._socket = self._operators = None
        for line in lines:
            if line is not None:
                line.close()
        if child is None:
            return "it is not running"
        try:
            if patient and not isinstance(error, (FrameError, TimeoutError)):
                # A closed line tells a sound child to leave.
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(timeout=_LEAVE_SECONDS)
        finally:
            _kill_group(child.pid)
            child.kill()
            code = child.wait()
        match error:
            case FrameError():
                return f"it was killed: {error}"
            case TimeoutError():
                return f"it did not answer within {self._seconds:g} seconds and was killed"
            case _:
                return self._said_by(code)

    def _said_by(self, code: int) -> str:
        """Return the meaning of an exit code in words."""
        match code:
            case Ending.FRAME:
                return f"it was sent a request beyond the {MOST_REQUEST} bytes that it takes, and ended"
            case Ending.MEMORY:
                return f"it ran out of the {self._memory} bytes of memory that it may use, and ended"
        if code < 0:
            with contextlib.suppress(ValueError):
                return f"it was ended by {signal.Signals(-code).name}"
        return f"it ended with exit code {code}"


def _kill_group(leader: int) -> None:
    """Kill a process group, if it still has a member; its leader may just have been reaped.

    As long as a group has a member, its number is given to nobody else.
    """
    if sys.platform != "win32":  # where no service starts in a process of its own
        # Where nobody but a dead leader is left in it, some systems say that it may not be killed.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(leader, signal.SIGKILL)


def send_frame(line: socket.socket, data: bytes, deadline: float | None = None, *, number: int = 0) -> None:
    """Send one frame. Raises OSError."""
    if len(data) > _MOST:
        raise ServiceError(f"a frame of {len(data)} bytes must have at most {_MOST}")
    _limit(line, deadline)
    line.sendall(LENGTH.pack(len(data)) + NUMBER.pack(number))
    _limit(line, deadline)
    line.sendall(data)


def receive_frame(
    line: socket.socket, deadline: float | None = None, *, most: int = _MOST, number: int = 0
) -> bytes:
    """Receive one frame of limited size and given number. Raises OSError, or EOFError when the other side is gone."""
    (length,) = LENGTH.unpack(_receive(line, LENGTH.size, deadline))
    if length > most:
        raise FrameError(f"a frame of {length} bytes must have at most {most}")
    (found,) = NUMBER.unpack(_receive(line, NUMBER.size, deadline))
    if found != number:
        raise FrameError("it has answered another request than the one that it was sent")
    return _receive(line, length, deadline)


def _receive(line: socket.socket, size: int, deadline: float | None) -> bytes:
    chunks, left = [], size
    while left:
        _limit(line, deadline)
        chunk = line.recv(min(left, 2**20))
        if not chunk:
            raise EOFError
        chunks.append(chunk)
        left -= len(chunk)
    return b"".join(chunks)


def _limit(line: socket.socket, deadline: float | None) -> None:
    if deadline is None:
        return
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    line.settimeout(left)


def _environment() -> dict[str, str]:
    """Return a child's whole environment: what the interpreter needs to start, and where it finds this package.

    Nothing else of our own environment goes along: a passphrase or a password for something else may be in it, under
    whatever name, and a service that peers have taken over would find it. (Open files do not go along either: `Popen` closes
    all but the line.) One thread, since a child's work is small and its address space is not.
    """
    root = str(Path(__file__).parents[3])
    paths = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {
        **{name: os.environ[name] for name in _INHERITED if name in os.environ},
        "PYTHONPATH": os.pathsep.join(paths),
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
    }
