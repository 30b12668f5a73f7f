"""Secret bytes that do not print, and their random source."""

import secrets
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NoReturn, Self, SupportsIndex, final

RandomBytes = Callable[[int], bytes]

# The one default source: the operating system's generator. Tests pass bytes of their own.
SYSTEM_RANDOM: RandomBytes = secrets.token_bytes

# The methods of bytes whose results hold bytes of the secret: these are secrets too.
_KEPT: Final = (
    *("__add__", "__mul__", "__rmul__", "__mod__"),
    *("join", "replace", "translate", "removeprefix", "removesuffix"),
    *("strip", "lstrip", "rstrip", "center", "ljust", "rjust", "zfill", "expandtabs"),
    *("lower", "upper", "swapcase", "capitalize", "title"),
)
_KEPT_PARTS: Final = ("split", "rsplit", "splitlines", "partition", "rpartition")


@final
class Secret(bytes):
    """Bytes whose text form shows only their number.

    Slices, sums, repetitions, joins and whatever else the methods of bytes make of a secret are secrets, whichever side of
    the operator it stands on. What would turn it into text, numbers or a file without saying so is refused: hex and decode,
    iteration and single bytes (a printed list of numbers is the secret), ``int(secret)`` (whose error shows the bytes)
    and with it arrays of numbers, pickling. Copies are the secret itself.

    There is one way out that is meant, and it is easy to search for: ``bytes(secret)``. Whatever reads the buffer of a bytes
    object asks no method of a subclass, and computes with the bytes themselves; its result is wrapped again where it is
    secret. Ciphers, hashes, ``int.from_bytes``, ``struct``, ``b"".join`` and ``b"%b %b" % (a, b)`` do so, and this class
    cannot stop others that would print: ``str(secret, "ascii")``, ``int(secret, 16)`` (in its error), the groups of a
    regular expression, ``bytearray``, ``memoryview``, ``io.BytesIO``, ``base64``, ``marshal``, numpy's arrays of bytes or text. It
    guards against secrets that end in a log by mistake, not against code that means to read them.

    Caveat: Python cannot wipe memory; dropping the last reference is all that can be done (threat_model.md).

    Raises:
        TypeError: From whatever is refused.
    """

    __slots__ = ()

    @classmethod
    def random(cls, size: int, random_bytes: RandomBytes = SYSTEM_RANDOM) -> Self:
        """Return `size` fresh bytes."""
        return cls(random_bytes(size))

    def __repr__(self) -> str:
        return f"<Secret of {len(self)} bytes>"

    __str__ = __repr__

    def __getitem__(self, place: SupportsIndex | slice) -> Any:
        """Return a slice, which is a secret. A single byte is refused: it would be a number, which prints."""
        if not isinstance(place, slice):
            _refuse("has no single bytes: take a slice")
        return Secret(bytes.__getitem__(self, place))

    def __radd__(self, other: bytes) -> "Secret":
        return Secret(bytes(other) + bytes(self))

    def __rmod__(self, other: bytes) -> "Secret":
        return Secret(bytes(other) % bytes(self))

    def __iter__(self) -> Iterator[int]:
        _refuse("is not iterated over: its numbers would print")

    def __reversed__(self) -> Iterator[int]:
        _refuse("is not iterated over: its numbers would print")

    def hex(self, *_separator: object) -> str:
        """Refuse: the result is text."""
        _refuse("has no hexadecimal form")

    def decode(self, *_encoding: object) -> str:
        """Refuse: the result is text, or an error that shows the bytes."""
        _refuse("has no text form")

    def __int__(self) -> int:
        """Refuse: digits are read as text, and an error would show bytes that are no number."""
        _refuse("is not read as a number")

    def __float__(self) -> float:
        """Refuse, as :meth:`__int__`."""
        _refuse("is not read as a number")

    def __getnewargs__(self) -> NoReturn:
        """Refuse: these are the plain bytes, for a pickle."""
        _refuse("is not pickled")

    def __reduce__(self) -> NoReturn:
        """Refuse: a pickle is a file, or a message to another process."""
        _refuse("is not pickled")

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _memo: object) -> Self:
        return self


def _refuse(what: str) -> NoReturn:
    raise TypeError(f"a secret {what}; bytes(secret) shows it to whoever means to see it")


def _keeping(name: str) -> Callable[..., Any]:
    """Return a method of bytes whose result stays secret."""
    plain = getattr(bytes, name)

    def method(self: bytes, *given: Any, **named: Any) -> Any:
        found = plain(self, *given, **named)
        return found if found is NotImplemented else Secret(found)

    return method


def _keeping_parts(name: str) -> Callable[..., Any]:
    """Return a method of bytes that returns several parts, each of which stays secret."""
    plain = getattr(bytes, name)

    def method(self: bytes, *given: Any, **named: Any) -> Any:
        found: Iterable[bytes] = plain(self, *given, **named)
        return type(found)(map(Secret, found))  # type: ignore[call-arg]  # a list or a tuple

    return method


for _name in _KEPT:
    setattr(Secret, _name, _keeping(_name))
for _name in _KEPT_PARTS:
    setattr(Secret, _name, _keeping_parts(_name))
