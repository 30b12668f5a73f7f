"""Two calls at the same moment, made to meet inside a step as they would once in a while by themselves."""

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from protocols.errors import ProtocolError

# How long the first one in a step waits for the second: what turns are taken for costs a test this long.
MEETING_SECONDS = 0.5


def meeting(step: Callable[..., Any]) -> Callable[..., Any]:
    """A step in which the first call waits for a second one, and goes on alone if none can come."""
    met = threading.Barrier(2)

    def entered(*arguments: Any, **more: Any) -> Any:
        with suppress(threading.BrokenBarrierError):
            met.wait(MEETING_SECONDS)
        return step(*arguments, **more)

    return entered


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """What calls in threads of their own return; or the error of the protocol that they raise."""
    found: list[Any] = [None] * len(calls)

    def run(index: int) -> None:
        try:
            found[index] = calls[index]()
        except ProtocolError as error:
            found[index] = error

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found
