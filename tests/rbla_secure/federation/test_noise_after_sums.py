"""Noise that the server adds to masked sums: what a client that sends more than it may cannot find out, and what it can still spoil.

A client that knows what all others but one send can put a coordinate of the sum where it likes. Each test has the server as control
that asks for the range before the noise: there one look at which bands closed tells the one client's part.
"""

from typing import Any

import numpy as np
import pytest

from protocols.interface import SumResult
from protocols.masking import client as masking_client
from rbla_secure.errors import PlanError
from rbla_secure.federation.round import RoundOutcome
from rbla_secure.federation.server.opened_totals import release
from rbla_secure.lora.adapter import Adapter, Rows
from rbla_secure.planning.plan import Plan
from rbla_secure.privacy.noise import TAIL
from rbla_secure.privacy.noise.banded_matrix import BandedMatrixGaussian
from rbla_secure.privacy.noise.central import CentralGaussian
from tests.support.defended import make_hostile
from tests.support.federations import (
    BASE,
    LARGE,
    MEMBERS,
    SMALL,
    InMemory,
    beginning_with,
    make_adapter,
    make_config,
    make_participants,
    make_session,
    play_round,
)
from tests.support.planted_promises import promise_instead
from tests.support.updates import make_layout

LAYOUT = make_layout((30, 20), (20, 10))
DEVIATING = LARGE[0]
TURNS = {"large": {"rank": 3, "clients": 8, "cohort": 3}, "small": {"rank": 1, "clients": 6, "cohort": 3}}


@pytest.fixture(autouse=True)
def modified_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """The range of a masked input is checked by its own client's code alone, and a deviating client has its own code."""
    monkeypatch.setattr(masking_client, "check_inputs", lambda *_: None)


def make_plan(**privacy: Any) -> Plan:
    config = make_config(
        secure_sum="masking",
        masking={"profile": "semi-honest"},
        noise_multiplier=1.5,
        clip_norm=1.0,
        privacy={"mechanism": "central", **privacy},
    )
    plan = Plan.build(config, layout=LAYOUT, base_digest=BASE)
    return beginning_with(plan, make_adapter(plan))


def still(adapter: Adapter, _seed: int) -> Rows:
    return adapter.rows.copy()


def leap(adapter: Adapter, _seed: int) -> Rows:
    """All of the clip norm in the first coordinate."""
    rows = adapter.rows.copy()
    rows[0, 0] += 10.0
    return rows


def play(plan: Plan, first: int, *, moves: bool) -> RoundOutcome:
    """A round in which one client puts so much into the first coordinate of the first band, and another moves it or not."""
    train: dict[str, Any] = {**dict.fromkeys(MEMBERS, still), SMALL[0]: leap if moves else still}
    people = make_participants(plan, train=train)
    length = make_session(plan).segments[0].length

    def add(values: Any) -> Any:
        changed = np.zeros_like(values)
        changed[0] = first if len(values) == length else 0
        return changed

    make_hostile(people, DEVIATING, add)
    return play_round(plan, make_adapter(plan), InMemory(people))


def limit_before(plan: Plan) -> int:
    return len(MEMBERS) * make_session(plan).input_bound


def limit_after(plan: Plan) -> int:
    mechanism = plan.mechanism
    assert isinstance(mechanism, CentralGaussian)
    return limit_before(plan) + int(TAIL * mechanism.released_std(0, 1))


def closed(plan: Plan, first: int, *, moves: bool) -> bool:
    return 0 in play(plan, first, moves=moves).refused_bands


def test_the_range_is_asked_of_what_has_its_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the bound of the sum, ours opens whether the one client moves or not; the control closes exactly if it does."""
    plan = make_plan()
    edge = limit_before(plan)

    assert [closed(plan, edge, moves=moves) for moves in (False, True) for _ in range(3)] == [False] * 6

    promise_instead(monkeypatch, noise_follows=False)
    plan = make_plan()
    assert [closed(plan, edge, moves=moves) for moves in (False, True) for _ in range(3)] == [False] * 3 + [
        True
    ] * 3


def test_where_a_band_closes_the_noise_decides() -> None:
    """At the bound with noise both answers come, whether the one client moves or not."""
    plan = make_plan()
    edge = limit_after(plan)

    for moves in (False, True):
        assert {closed(plan, edge, moves=moves) for _ in range(40)} == {False, True}


@pytest.mark.parametrize("first", [2**29, 2**30, -(2**30)])
def test_a_sum_that_cannot_be_costs_its_band_alone(first: int) -> None:
    """Far beyond all honest sums: the band's rows stay, and the reason is of what was released."""
    plan = make_plan()
    before = make_adapter(plan).rows
    outcome = play(plan, first, moves=True)

    assert outcome.refused_bands.keys() == {0}
    assert "its sum with noise leaves" in outcome.refused_bands[0]
    moved = outcome.adapter.rows.astype(np.float64) - before
    assert not moved[0].any()
    assert moved[1:].any()


def test_no_count_is_read_off_a_band_that_cannot_be() -> None:
    """The count of adaptive clipping is a coordinate of the first band."""
    plan = make_plan(clipping="adaptive", count_noise=4.0)

    assert play(plan, 2**29, moves=True).unclipped is None
    assert play(plan, 0, moves=True).unclipped is not None


def test_noise_that_cancels_over_rounds_goes_on_after_such_a_sum() -> None:
    """What one round added to a closed band is gone from the next one's release: it holds its noise and nothing else."""
    config = make_config(
        secure_sum="masking",
        masking={"profile": "semi-honest"},
        noise_multiplier=1.5,
        tiers={
            "large": {"rank": 3, "clients": 8, "cohort": 3},
            "small": {"rank": 1, "clients": 6, "cohort": 3},
        },
        privacy={"mechanism": "banded-matrix", "separation": 2},
        rounds=4,
    )
    plan = Plan.build(config, layout=LAYOUT, base_digest=BASE)
    correlated = plan.correlated_noise()
    mechanism = plan.mechanism
    assert isinstance(mechanism, BandedMatrixGaussian)
    found = []
    for number in (1, 2):
        session = plan.session(run=bytes(16), round_number=number, attempt=1)
        summed = {s.index: np.zeros(s.length, dtype=np.int64) for s in session.segments}
        if number == 1:
            summed[0][0] = 2**29
        sums = SumResult(survivors=session.members, sums=summed, refused={})
        found.append(release(plan, session, mechanism, sums, correlated))

    assert [set(each.refused) for each in found] == [{0}, set()]
    second = found[1].totals[0].weighted_sum * plan.quantizer.scale
    assert np.abs(second).max() < TAIL * mechanism.released_std(0, 2)


def test_encrypted_sums_take_their_noise_from_clients() -> None:
    """Fields of a ciphertext have no lift without a jump: one that is overfilled carries into the next."""
    for privacy in ({"mechanism": "central"}, {"mechanism": "banded-matrix", "separation": 2}):
        with pytest.raises(PlanError, match=r"must be distributed with secure-sum=homomorphic"):
            Plan.build(
                make_config(
                    secure_sum="homomorphic", noise_multiplier=1.5, tiers=TURNS, rounds=4, privacy=privacy
                ),
                layout=LAYOUT,
                base_digest=BASE,
            )
