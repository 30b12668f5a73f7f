"""Configurations that no plan can keep."""

from typing import Any

from rbla_secure.config import Config
from tests.support.federations import (
    make_config,
)


def one_tier(clients: int, *, cohort: int = 0, **changes: Any) -> Config:
    return make_config(tiers={"lab": {"rank": 2, "clients": clients, "cohort": cohort}}, **changes)
