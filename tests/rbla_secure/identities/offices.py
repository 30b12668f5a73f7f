"""An authority's office and what its commands say."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from protocols.identity.trust import TrustStore
from rbla_secure.identities import folders
from rbla_secure.identities.folders import (
    load_authority,
    load_trust_store,
)

NOW = 1_800_000_000
PASSPHRASE = "correct horse battery staple"  # noqa: S105 - of tests only
Command = Callable[..., dict[str, Any]]
posix = pytest.mark.skipif(os.name != "posix", reason="other systems keep permissions elsewhere")


def trust_of(folder: Path, now: int = NOW) -> TrustStore:
    """Whom a party believes that has the authority's certificate from alice's folder."""
    return load_trust_store(folder, authority=load_authority(folder / "clients" / "alice"), now=now)


# --- an authority's folder in which somebody else has put things ---


def as_on_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    """An authority that believes its folder: the control."""
    monkeypatch.setattr(folders.PublicLists, "check_agreement", lambda _lists, **_but: None)
