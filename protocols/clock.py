"""The clock for checks of certificates and lists: it never goes back inside one process.

Whoever can set a machine's clock back, or feeds it wrong time from the network, could otherwise bring back what has expired. The
first reading is the wall clock's. From then on time is the wall clock's or the first reading's plus what has passed since on the
steady clock, whichever is later: setting the wall clock back changes nothing until the process ends, holding it still
neither. A wall clock that jumps ahead and is set right again leaves the process ahead: it then refuses too early, never too
late, until it is started again.

Caveat: a clock that is wrong when the process starts is believed, within the validity of the newest lists: roster and
revocation list are refused before they were issued.
"""

import time
from collections.abc import Callable
from threading import Lock
from typing import Final, final


@final
class Clock:
    """A clock in unix seconds that never goes back; shared by all threads.

    Args:
        wall: Unix seconds, which may jump.
        steady: Seconds since any moment, which never go back.
    """

    __slots__ = ("_ahead", "_lock", "_steady", "_wall")

    def __init__(
        self, wall: Callable[[], float] = time.time, steady: Callable[[], float] = time.monotonic
    ) -> None:
        self._wall = wall
        self._steady = steady
        self._lock = Lock()
        self._ahead = wall() - steady()  # of the steady clock, at the most

    def __call__(self) -> int:
        """Return the time, in whole unix seconds."""
        with self._lock:
            passed = self._steady()
            self._ahead = max(self._ahead, self._wall() - passed)
            return int(self._ahead + passed)


# The one clock of this process.
SYSTEM_CLOCK: Final = Clock()
