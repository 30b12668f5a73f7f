"""Seconds by activity, for the cost figures of a run."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import final


@final
class Stopwatch:
    """Adds up wall-clock seconds under names; an activity may be measured inside another one."""

    def __init__(self) -> None:
        self._seconds: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def measure(self, activity: str) -> Iterator[None]:
        """Add the time spent in the block to an activity."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[activity] += time.perf_counter() - start

    def seconds(self, activity: str) -> float:
        """Return the seconds counted so far."""
        return self._seconds[activity]
