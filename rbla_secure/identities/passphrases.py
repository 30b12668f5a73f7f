"""The passphrase in the environment, taken out of it before anything else runs.

Apart from the folders of keys, so that whoever only takes it (every command, ``--version`` too) loads no cryptography.
"""

import os
from typing import Final

from protocols.primitives.secret import Secret

PASSPHRASE_VARIABLE: Final = "RBLA_SECURE_PASSPHRASE"  # noqa: S105 - the name of a variable, not its value


def take_passphrase() -> Secret | None:
    """Take the passphrase out of the environment and return it: no process that is started from now on inherits it.

    Caveat: the system may go on showing what this process was started with to its own user and the administrator.
    """
    value = os.environ.pop(PASSPHRASE_VARIABLE, "")
    return Secret(os.fsencode(value)) if value else None
