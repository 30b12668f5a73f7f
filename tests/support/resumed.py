"""Finished runs, copies of them, and a party that believes what it reads."""

import shutil
from pathlib import Path

NOISE = {
    "noise_multiplier": 4,
    "privacy__colluders": 0,
    "training__steps": 3,
    "sample_level__noise_multiplier": 2,
    "sample_level__sample_rate": 0.2,
}


def copy_of(run: Path, into: Path) -> Path:
    """A copy that may be edited, beside links to the other runs."""
    for other in run.parent.iterdir():
        if other.is_dir() and other.name != run.name:
            (into / other.name).symlink_to(other)
    return Path(shutil.copytree(run, into / "copy"))
