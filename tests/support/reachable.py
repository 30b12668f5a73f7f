"""What can still be reached from an object: whether a secret is gone is a question about the whole graph of objects."""

import gc
import types
from collections.abc import Iterator

from protocols.primitives.secret import Secret

# Code leads everywhere, and holds no session's secrets.
_CODE = (
    type,
    types.ModuleType,
    types.FunctionType,
    types.BuiltinFunctionType,
    types.CodeType,
    types.FrameType,
)


def secrets_of(start: object) -> set[Secret]:
    """Every secret that is reachable from an object."""
    return {found for found in _walk(start) if isinstance(found, Secret)}


def _walk(start: object) -> Iterator[object]:
    seen: set[int] = set()
    ahead = [start]
    while ahead:
        current = ahead.pop()
        if id(current) in seen or isinstance(current, _CODE):
            continue
        seen.add(id(current))
        yield current
        ahead += gc.get_referents(current)
