"""The passphrase in the environment is taken out of it once."""

import os

import pytest

from rbla_secure.identities.passphrases import PASSPHRASE_VARIABLE, take_passphrase

PASSPHRASE = "correct horse battery staple"  # noqa: S105 - of tests only


def test_an_empty_variable_is_no_passphrase(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable is taken once; an empty one says nothing."""
    monkeypatch.setenv(PASSPHRASE_VARIABLE, PASSPHRASE)
    assert take_passphrase() == PASSPHRASE.encode()
    assert take_passphrase() is None
    monkeypatch.setenv(PASSPHRASE_VARIABLE, "")
    assert take_passphrase() is None
    assert PASSPHRASE_VARIABLE not in os.environ
