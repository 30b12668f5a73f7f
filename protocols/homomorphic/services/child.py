"""The main function of a service's process; started only by :class:`ProcessChannel` of `processes.py`.

A keyed service has two lines: the aggregator's, and its operator's. Neither is ever waited for: a request that comes in part,
or an answer that is not fetched, holds up its own line and not the other. Its memory is closed to other processes of the
same user before its key exists.
"""

import contextlib
import ctypes
import selectors
import socket
import sys
from collections.abc import Callable
from typing import Final, final

from protocols.homomorphic.screening.screener import Screener
from protocols.homomorphic.services.processes import LENGTH, MOST_REQUEST, NUMBER, WORKERS, Ending, FrameError
from protocols.homomorphic.services.services import KeyedService, Service, Worker

if sys.platform != "win32":
    import resource

_PR_SET_DUMPABLE = 4
_HEAD: Final = LENGTH.size + NUMBER.size
_CHUNK: Final = 2**20


def main(arguments: list[str]) -> int:
    """Serve until the aggregator's line is closed; return the exit code."""
    role, name, memory, serving, *operating = arguments
    _set_limits(int(memory))
    if role not in WORKERS:
        hide_memory()
    service = _service(role, name)
    try:
        _serve(service, int(serving), *map(int, operating[:1]))
    except FrameError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return Ending.FRAME
    except MemoryError:
        print(f"{name}: out of memory: the limit is {memory} bytes", file=sys.stderr)
        return Ending.MEMORY
    except (EOFError, OSError):
        pass
    return 0


def _serve(service: Service, serving: int, operating: int | None = None) -> None:
    """Answer on both lines, which are given by their descriptors; never returns.

    Raises:
        OSError, EOFError: The aggregator has left. The operator may: the service then goes on with what it was told.
        FrameError: A request is too long.
    """
    with contextlib.ExitStack() as open_lines:
        waiting = open_lines.enter_context(selectors.DefaultSelector())
        served = _Line(open_lines.enter_context(socket.socket(fileno=serving)), service.handle)
        waiting.register(served.socket, served.events, served)
        if operating is not None:
            operators = _Line(open_lines.enter_context(socket.socket(fileno=operating)), service.operate)
            waiting.register(operators.socket, operators.events, operators)
        while True:
            for key, _ in waiting.select():
                line: _Line = key.data
                try:
                    line.go_on()
                except FrameError:
                    raise
                except (EOFError, OSError):
                    if line is served:
                        raise
                    waiting.unregister(line.socket)
                else:
                    waiting.modify(line.socket, line.events, line)


@final
class _Line:
    """One line: reads requests and sends answers in turn, as far as neither blocks.

    Args:
        socket: The line's socket.
        answer: The function that answers a request.
    """

    def __init__(self, socket: socket.socket, answer: Callable[[bytes], bytes]) -> None:
        socket.setblocking(False)
        self.socket = socket
        self._answer = answer
        self._arrived = bytearray()
        self._leaving = memoryview(b"")

    @property
    def events(self) -> int:
        """The event to wait for; nothing is read while an answer is still to be sent."""
        return selectors.EVENT_WRITE if self._leaving else selectors.EVENT_READ

    def go_on(self) -> None:
        """Read or send what can be without waiting. Raises OSError, EOFError, FrameError."""
        with contextlib.suppress(BlockingIOError):
            if self._leaving:
                self._leaving = self._leaving[self.socket.send(self._leaving[:_CHUNK]) :]
            else:
                self._take_in()

    def _take_in(self) -> None:
        chunk = self.socket.recv(min(self._missing(), _CHUNK))
        if not chunk:
            raise EOFError
        self._arrived += chunk
        if self._missing():
            return
        with memoryview(self._arrived) as whole:
            number, request = bytes(whole[LENGTH.size : _HEAD]), bytes(whole[_HEAD:])
        self._arrived = bytearray()
        answer = self._answer(request)
        self._leaving = memoryview(LENGTH.pack(len(answer)) + number + answer)

    def _missing(self) -> int:
        """Return the bytes missing from the request or its head; the length is checked as soon as it is known."""
        if len(self._arrived) < LENGTH.size:
            return _HEAD - len(self._arrived)
        (length,) = LENGTH.unpack_from(self._arrived)
        if length > MOST_REQUEST:
            raise FrameError(f"a request of {length} bytes must have at most {MOST_REQUEST}")
        return _HEAD + int(length) - len(self._arrived)


def _service(role: str, name: str) -> Service:
    match role:
        case "worker":
            return Worker()
        case "screener":
            return Screener()
        case _:
            return KeyedService(name)


def hide_memory() -> None:
    """Close this process's memory to others of the same user: no debugger attaches, and /proc shows none of it.

    prctl(2), PR_SET_DUMPABLE, on Linux; other systems have nothing like it. The superuser reads it all the same.

    Raises:
        OSError: The system refuses.
    """
    if not sys.platform.startswith("linux"):
        return
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_DUMPABLE)")


def _set_limits(memory: int) -> None:
    if sys.platform == "win32":
        return  # no such limits there: threat_model.md says so
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
