"""Rounds in which the noise of drop-outs is made good, and what stays of it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from protocols.session import ClientId
from rbla_secure.federation.noise_components import remove_components
from rbla_secure.federation.round import RoundOutcome
from rbla_secure.federation.server import opened_totals
from rbla_secure.lora.adapter import Adapter, Rows
from rbla_secure.planning.plan import Plan
from rbla_secure.privacy.noise import GaussianMechanism
from tests.support.federations import (
    BASE,
    InMemory,
    beginning_with,
    make_adapter,
    make_config,
    make_participants,
    play_round,
)
from tests.support.updates import make_layout

# Wide enough for a band's noise to tell its variance from 2/3, 3/2 and 8/9 of it.
LAYOUT = make_layout((15_000, 10_000))
# Band 0 has nine uploaders, band 1 four of them: two and one of them are made good.
TIERS = {"large": {"rank": 2, "clients": 4}, "small": {"rank": 1, "clients": 5}}
RECOVERED = 0.25
Integers = Mapping[int, npt.NDArray[np.int64]]


def make_plan(
    profile: str = "semi-honest",
    *,
    privacy: Mapping[str, Any] | None = None,
    recovered: float = RECOVERED,
    **changes: Any,
) -> Plan:
    config = make_config(
        **{
            "tiers": TIERS,
            "secure_sum": "masking",
            "masking": {"profile": profile},
            "noise_multiplier": 1.5,
            "min_holders": 2,
            "privacy": {
                "colluders": 0,
                "simulation": True,
                "recovered_dropout": recovered,
                **(privacy or {}),
            },
            **changes,
        }
    )
    plan = Plan.build(config, layout=LAYOUT, base_digest=BASE)
    return beginning_with(plan, make_adapter(plan))


def mechanism_of(plan: Plan) -> GaussianMechanism:
    assert plan.mechanism is not None
    return plan.mechanism


def still(adapter: Adapter, _seed: int) -> Rows:
    """Training that changes nothing: what comes out is noise."""
    return adapter.rows.copy()


def play(plan: Plan, **network: Any) -> tuple[Adapter, RoundOutcome]:
    adapter = make_adapter(plan)
    exchange = InMemory(make_participants(plan, train=dict.fromkeys(plan.ranks, still)), **network)
    return adapter, play_round(plan, adapter, exchange)


class Watch:
    """What the server takes out of the sums, and from what."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.revealed: Mapping[tuple[ClientId, int, int], bytes] = {}
        self.before: Integers = {}
        self.after: Integers = {}
        self.calls = 0
        monkeypatch.setattr(opened_totals, "remove_components", self._remove)

    def _remove(self, sums: Integers, mechanism: GaussianMechanism, revealed: Any) -> Integers:
        self.calls += 1
        self.before, self.revealed = sums, revealed
        self.after = remove_components(sums, mechanism, revealed)
        return self.after
