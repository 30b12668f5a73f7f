"""Plans that promise something else than their configuration: the fault behind which an attack is shown to work."""

from dataclasses import replace

import pytest

from rbla_secure.config import Config
from rbla_secure.planning import plan as plans
from rbla_secure.planning.promises import Promises


def promise_instead(monkeypatch: pytest.MonkeyPatch, **fields: object) -> None:
    """Every plan that is built from now on has these fields of its record changed, and everything that reads them with it."""
    honest = plans.check_config

    def planted(config: Config) -> Promises:
        return replace(honest(config), **fields)  # type: ignore[arg-type]  # whichever fields a test names

    monkeypatch.setattr(plans, "check_config", planted)
