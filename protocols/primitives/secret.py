"""Secret bytes that do not print, and where they come from."""

import secrets
from collections.abc import Callable
from typing import Self, final

RandomBytes = Callable[[int], bytes]

# The one default source: the operating system's generator. Tests pass bytes of their own.
SYSTEM_RANDOM: RandomBytes = secrets.token_bytes


@final
class Secret(bytes):
    """Bytes whose text form shows only their number.

    Caveat: Python cannot wipe memory; dropping the last reference is all that can be done (threat_model.md).
    """

    __slots__ = ()

    @classmethod
    def random(cls, size: int, random_bytes: RandomBytes = SYSTEM_RANDOM) -> Self:
        """So many fresh bytes."""
        return cls(random_bytes(size))

    def __repr__(self) -> str:
        return f"<Secret of {len(self)} bytes>"

    __str__ = __repr__
