"""Assertions inside the shared contracts are explained like those of the tests themselves."""

import pytest

pytest.register_assert_rewrite("tests.contracts")
