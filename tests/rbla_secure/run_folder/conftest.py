"""Fixtures that the tests of this folder share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from rbla_secure.run_folder.folder import RunFolder
from tests.rbla_secure.run_folder.folders import save_round
from tests.support.federations import make_config


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[RunFolder]:
    """A run folder with three rounds."""
    made = RunFolder.create(tmp_path / "run", make_config(rounds=20_000))
    for number in (1, 2, 3):
        save_round(made, number)
    yield made
    made.close()


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[RunFolder]:
    """A run folder without rounds."""
    made = RunFolder.create(tmp_path / "empty", make_config())
    yield made
    made.close()
