"""Lookup of the module that implements a configured choice: the module has the choice's name.

To add one, write the file and add its name to :mod:`rbla_secure.config.choices`. The name is a member of an enumeration, never
text of a user or a peer, so nothing else can be imported this way; and only what a run uses is imported at all.
"""

from enum import StrEnum
from importlib import import_module
from typing import TypeVar

T = TypeVar("T")


def implementation(package: str, choice: StrEnum, attribute: str, kind: type[T]) -> T:
    """Return what a choice names: an attribute of the module of its name, with underscores for dashes.

    Args:
        package: Dotted name of the package that holds one module per choice.
        choice: A member of the enumeration.
        attribute: Name of the object in that module.
        kind: Class that the object must be an instance of.

    Raises:
        ImportError: There is no such module.
        TypeError: The module has no such object of this class.
    """
    name = f"{package}.{choice.value.replace('-', '_')}"
    found = getattr(import_module(name), attribute, None)
    if not isinstance(found, kind):
        raise TypeError(f"{name} must define {attribute}, a {kind.__name__}, to implement {choice.value!r}")
    return found
