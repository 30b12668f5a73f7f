"""Default names of result folders."""

import os
from datetime import UTC, datetime
from pathlib import Path


def new_folder(parent: str) -> Path:
    """Return ``PARENT/TIME-PROCESS``: two commands begun in the same second get different folders."""
    return Path(parent) / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.getpid()}"
