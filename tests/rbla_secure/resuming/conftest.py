"""Fixtures that the tests of this folder share."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from rbla_secure.cli import main
from tests.support.refused_edits import ROUNDS
from tests.support.resumed import NOISE, copy_of
from tests.support.tiny_job import job, write_images


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Finished runs: one, another one of the same plan, one of another seed, and one with noise at both levels."""
    folder = tmp_path_factory.mktemp("runs")
    images = write_images(folder)
    changes: dict[str, dict[str, Any]] = {"run": {}, "twin": {}, "other": {"seed": 5}, "noisy": NOISE}
    for name, each in changes.items():
        assert main(["run", "--out", str(folder / name), *job(images, rounds=ROUNDS, **each)]) == 0
    return {name: folder / name for name in changes}


@pytest.fixture
def folder(tmp_path: Path, runs: Mapping[str, Path]) -> Path:
    """A copy of a finished run."""
    return copy_of(runs["run"], tmp_path)
