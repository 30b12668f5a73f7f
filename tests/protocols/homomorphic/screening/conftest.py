"""Fixtures that the tests of this folder share."""

import pytest

from protocols.homomorphic.scheme import ckks


@pytest.fixture(scope="module")
def keys() -> ckks.ScreeningSecret:
    """One key for all tests of the numbers themselves: making one takes long."""
    return ckks.ScreeningSecret.generate()
