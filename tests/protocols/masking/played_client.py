"""One client of a session that was played to its end, and requests to it with a fault."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from protocols.masking.messages import (
    KeyDirectory,
)
from tests.contracts.sessions import make_inputs, make_session, names, segment
from tests.protocols.masking.parties import (
    advertise,
    as_terms,
    directory_of,
    mask,
    share,
)

# Five members, threshold three; everyone holds segment 0, the first three hold segment 1 with a quorum of three.
SESSION = make_session(5, segment(0, 5, names(5), 3), segment(1, 4, names(3), 3))
OTHER_SESSION = replace(SESSION, attempt=2)
INPUTS = make_inputs(SESSION)
ADVERTISED, DIRECTORY = advertise(SESSION)
SHARED, DELIVERIES = share(SESSION, ADVERTISED, DIRECTORY)
MASKED, _ = mask(SESSION, SHARED, DELIVERIES, INPUTS)
OTHER_TERMS = as_terms(OTHER_SESSION)
FIELD = 2**257 - 93
ME = 1

Change = Callable[[], Any]


# The key directory.


def directory(change: Callable[[int, Any], Any]) -> KeyDirectory:
    """The right directory with each entry changed, or left out where the change gives None."""
    changed = [change(entry.sender, entry) for entry in DIRECTORY.advertisements]
    return directory_of(SESSION, [entry for entry in changed if entry is not None])
