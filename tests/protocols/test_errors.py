"""The exception tree is the one that its docstring draws."""

import inspect
import re

from protocols import errors


def drawn_tree() -> dict[str, str]:
    """Each exception in the docstring's drawing, with its parent."""
    parents: dict[str, str] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if match := re.match(r"^([ │├└─]*)([A-Z]\w*Error)\b", line):
            depth = len(match[1]) // 4 - 1
            path[depth:] = [match[2]]
            parents[match[2]] = path[depth - 1] if depth else "Exception"
    return parents


def test_the_drawing_is_the_tree() -> None:
    """Every exception of the module is drawn under its parent, and nothing else is."""
    defined = {
        name: kind.__base__.__name__
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if kind.__module__ == errors.__name__
    }

    drawn = drawn_tree()

    assert drawn == defined
    assert drawn["ProtocolError"] == "Exception"
    assert drawn["CapacityError"] == "SessionError"
