"""A time limit on third-party code that runs in this process."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from rbla_secure.errors import TimeLimitError


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Interrupt the block with an error after `seconds`; 0 sets no limit.

    It takes the interval timer of the process, so it works in the main thread, on systems that have one; elsewhere the block
    is left alone. A call into compiled code is interrupted when it returns. Limits do not nest.

    Raises:
        TimeLimitError: The time is over.
    """
    if not seconds or sys.platform == "win32" or threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise TimeLimitError(f"took longer than stage-seconds={seconds:g}")

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
