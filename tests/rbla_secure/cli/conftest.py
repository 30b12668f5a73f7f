"""What the tests of several commands share."""

from pathlib import Path

import pytest

from tests.support.tiny_job import write_images


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set."""
    return write_images(tmp_path_factory.mktemp("data"))
