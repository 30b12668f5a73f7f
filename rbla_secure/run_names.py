"""How folders of results are called that nobody has named."""

import os
from datetime import UTC, datetime
from pathlib import Path


def new_folder(parent: str) -> Path:
    """``PARENT/TIME-PROCESS``: two commands begun in the same second do not meet."""
    return Path(parent) / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.getpid()}"
