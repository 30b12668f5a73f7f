"""The main function of a service's process; started by :class:`protocols.homomorphic.processes.ProcessChannel` alone.

A keyed service has two lines: the aggregator's, and its operator's. Its memory is closed to other processes of the same
user before its key exists.
"""

import contextlib
import ctypes
import selectors
import socket
import sys
from collections.abc import Callable
from functools import partial

from protocols.homomorphic.processes import MOST_REQUEST, WORKERS, receive_frame, send_frame
from protocols.homomorphic.screener import Screener
from protocols.homomorphic.services import KeyedService, Service, Worker

if sys.platform != "win32":
    import resource

_PR_SET_DUMPABLE = 4


def main(arguments: list[str]) -> int:
    """Serve until the aggregator's line is closed."""
    role, name, memory, serving, *operating = arguments
    _set_limits(int(memory))
    if role not in WORKERS:
        hide_memory()
    service = _service(role, name)
    with contextlib.ExitStack() as lines, contextlib.suppress(EOFError, OSError):
        served = lines.enter_context(socket.socket(fileno=int(serving)))
        waiting = lines.enter_context(selectors.DefaultSelector())
        served.setblocking(True)
        waiting.register(served, selectors.EVENT_READ, partial(_answer, served, service.handle))
        for descriptor in operating[:1]:
            operators = lines.enter_context(socket.socket(fileno=int(descriptor)))
            operators.setblocking(True)
            waiting.register(operators, selectors.EVENT_READ, partial(_obey, waiting, operators, service))
        while True:
            for key, _ in waiting.select():
                key.data()
    return 0


def _answer(line: socket.socket, answer: Callable[[bytes], bytes]) -> None:
    """One request in, one answer out. Raises OSError, EOFError."""
    send_frame(line, answer(receive_frame(line, most=MOST_REQUEST)))


def _obey(waiting: selectors.BaseSelector, line: socket.socket, service: Service) -> None:
    """The same for the operator, who may leave: the service then goes on with what it was told."""
    try:
        _answer(line, service.operate)
    except (EOFError, OSError):
        waiting.unregister(line)


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
