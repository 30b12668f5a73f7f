"""Services in processes of their own, that can be limited, timed and killed.

One process per service, one socket pair per process, frames of u32 length and bytes. A keyed service has a second pair,
which only whoever started it holds: its operator's line. A child writes nothing to disk, not even a core dump, gives up its
standard output, on which the encryption library likes to print, and is handed of the environment only what a Python process
needs: no passphrase.

    python -P -m protocols.homomorphic.child ROLE NAME MEMORY SOCKET [OPERATOR'S SOCKET]
"""

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Final, final

from protocols.errors import ServiceError
from protocols.homomorphic.services import Channel

_LENGTH: Final = struct.Struct("<I")
_MOST: Final = 2**32 - 1
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
    """The other side announces more bytes than it may send."""


@final
class ProcessChannel(Channel):
    """A service in a child process, which is started when it is first called and again after it died.

    Args:
        role: "worker", "screener", or else a keyed service: a decryptor or verifier.
        name: For messages, and for the identity of a keyed service.
        memory_bytes: Limit of the child's address space.
        call_seconds: A call that takes longer is given up and the child is killed.
        restarts: Whether a dead child is replaced: only where it holds nothing that would be missed.
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

    @property
    def pid(self) -> int | None:
        """The child's process id, while it lives."""
        return self._child.pid if self._child is not None else None

    def ready(self) -> int:
        """Start the child, or another one where the last has died; how many were started."""
        if self._child is not None and self._child.poll() is not None:
            self._end(None)
        self._connected()
        return self._started

    def exchange(self, request: bytes) -> bytes:
        """Send one frame, receive one; whatever goes wrong is the end of the child."""
        return self._carried(self._connected(), request)

    def operate(self, request: bytes) -> bytes:
        """The same on the operator's line of a keyed service. Raises ServiceError."""
        self._connected()
        if self._operators is None:
            raise ServiceError(f"{self._name}: a {self._role} has no operator")
        return self._carried(self._operators, request)

    def _carried(self, line: socket.socket, request: bytes) -> bytes:
        deadline = time.monotonic() + self._seconds
        try:
            send_frame(line, request, deadline)
            return receive_frame(line, deadline, most=MOST_ANSWER)
        except (OSError, EOFError) as error:
            raise ServiceError(f"{self._name}: {self._end(error)}") from None

    def close(self) -> None:
        """End the child, if there is one."""
        if self._child is not None:
            self._end(None)

    def _connected(self) -> socket.socket:
        if self._socket is not None:
            return self._socket
        if self._started and not self._restarts:
            raise ServiceError(f"{self._name}: it has died, and its keys with it")
        pairs: list[tuple[socket.socket, socket.socket]] = []
        try:
            pairs += (socket.socketpair() for _ in range(1 if self._role in WORKERS else 2))
            self._child = self._start([theirs for _, theirs in pairs])
        except OSError as error:
            for ours, _ in pairs:
                ours.close()
            raise ServiceError(f"{self._name}: it cannot be started: {error}") from None
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
                *(sys.executable, "-P", "-m", "protocols.homomorphic.child"),
                *(self._role, self._name, str(self._memory), *map(str, descriptors)),
            ],
            pass_fds=descriptors,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env=_environment(),
        )

    def _end(self, error: Exception | None) -> str:
        """Kill and reap the child; what there is to say about its end."""
        child, line, operators = self._child, self._socket, self._operators
        self._child = self._socket = self._operators = None
        if child is None or line is None:
            return "it is not running"
        line.close()
        if operators is not None:
            operators.close()
        if isinstance(error, FrameError):
            child.kill()
            child.wait()
            return f"it was killed: {error}"
        if isinstance(error, TimeoutError):
            child.kill()
            child.wait()
            return f"it did not answer within {self._seconds:g} seconds and was killed"
        try:
            # A closed line tells a sound child to leave.
            code = child.wait(timeout=5)
        except subprocess.TimeoutExpired:
            child.kill()
            code = child.wait()
        if code < 0:
            with contextlib.suppress(ValueError):
                return f"it was ended by {signal.Signals(-code).name}"
        return f"it ended with exit code {code}"


def send_frame(line: socket.socket, data: bytes, deadline: float | None = None) -> None:
    """One frame out. Raises OSError."""
    if len(data) > _MOST:
        raise ServiceError(f"a frame of {len(data)} bytes must have at most {_MOST}")
    _limit(line, deadline)
    line.sendall(_LENGTH.pack(len(data)))
    _limit(line, deadline)
    line.sendall(data)


def receive_frame(line: socket.socket, deadline: float | None = None, *, most: int = _MOST) -> bytes:
    """One frame in, of at most so many bytes. Raises OSError, or EOFError when the other side is gone."""
    (length,) = _LENGTH.unpack(_receive(line, _LENGTH.size, deadline))
    if length > most:
        raise FrameError(f"a frame of {length} bytes must have at most {most}")
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
    """All that a child inherits: what the system needs to start the interpreter, and where it finds this very package.

    Nothing else of our own environment goes along: a passphrase or a password for something else may be in it, under
    whatever name, and a service that peers have taken over would find it. (Open files do not go along either: `Popen` closes
    all but the line.) One thread, since a child's work is small and its address space is not.
    """
    root = str(Path(__file__).parents[2])
    paths = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {
        **{name: os.environ[name] for name in _INHERITED if name in os.environ},
        "PYTHONPATH": os.pathsep.join(paths),
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
    }
