"""The main function of a service's process; started by :class:`protocols.homomorphic.processes.ProcessChannel` alone."""

import contextlib
import socket
import sys

from protocols.homomorphic.processes import receive_frame, send_frame
from protocols.homomorphic.screener import Screener
from protocols.homomorphic.services import KeyedService, Service, Worker

if sys.platform != "win32":
    import resource


def main(arguments: list[str]) -> int:
    """Serve until the line is closed."""
    role, name, descriptor, memory = arguments
    _set_limits(int(memory))
    service = _service(role, name)
    with socket.socket(fileno=int(descriptor)) as line, contextlib.suppress(EOFError, OSError):
        line.setblocking(True)
        while True:
            send_frame(line, service.handle(receive_frame(line)))
    return 0


def _service(role: str, name: str) -> Service:
    match role:
        case "worker":
            return Worker()
        case "screener":
            return Screener()
        case _:
            return KeyedService(name)


def _set_limits(memory: int) -> None:
    if sys.platform == "win32":
        return  # no such limits there: threat_model.md says so
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
