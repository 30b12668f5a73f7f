"""What fewer rounds and weights of bands cost at one epsilon: figures that the accountant gives back, ratios by hand."""

import math
from typing import Any

import pytest

from rbla_secure.planning.plan import Plan
from rbla_secure.planning.round_costs import round_costs, signal_to_noise
from rbla_secure.privacy.accounting import epsilon
from rbla_secure.privacy.noise import Release
from tests.support.federations import make_plan

NOISY: dict[str, Any] = {"noise_multiplier": 2.0, "secure_sum": "masking", "rounds": 20}


def plan_of(*, privacy: dict[str, Any] | None = None, **changes: Any) -> Plan:
    # With one colluder that is provided for, no observer faces less noise than the plan's multiplier.
    return make_plan(**{**NOISY, "privacy": {"colluders": 1, **(privacy or {})}, **changes})


def spent(multiplier: float, rounds: int) -> float:
    return epsilon([Release(noise_multiplier=multiplier, slack=0.0, rho=0.0)] * rounds, 1e-5)


def test_every_number_of_rounds_spends_the_same() -> None:
    """The multipliers of 2, 3, 5, 8, 12 and 20 rounds give the plan's epsilon back, and the last one is the plan's."""
    found = round_costs(plan_of())

    assert found is not None
    assert [each.rounds for each in found.rounds] == [2, 3, 5, 8, 12, 20]
    assert found.epsilon == pytest.approx(spent(2.0, 20), rel=1e-5)
    for each in found.rounds:
        assert each.participations == each.rounds
        assert spent(each.noise_multiplier, each.rounds) == pytest.approx(found.epsilon, rel=1e-4)
    assert found.rounds[-1].noise_multiplier == pytest.approx(2.0, rel=1e-6)


def test_a_participant_that_knows_its_own_noise_decides_where_nobody_is_provided_for() -> None:
    """Without colluders a client of the band of three knows a third of its noise, and the table keeps the ratio."""
    found = round_costs(plan_of(privacy={"colluders": 0}))

    assert found is not None
    assert found.epsilon == pytest.approx(spent(2 * math.sqrt(2 / 3), 20), rel=1e-5)
    assert found.rounds[-1].noise_multiplier == pytest.approx(2.0, rel=1e-6)


def test_a_budget_is_what_is_aimed_at() -> None:
    """With privacy.max-epsilon every row spends that, also where the plan's own multiplier would spend less."""
    found = round_costs(plan_of(privacy={"max_epsilon": 12.0}, rounds=4))

    assert found is not None
    assert (found.epsilon, [each.rounds for each in found.rounds]) == (12.0, [2, 3, 4])
    assert all(
        spent(each.noise_multiplier, each.rounds) == pytest.approx(12.0, rel=1e-4) for each in found.rounds
    )
    assert found.rounds[-1].noise_multiplier < 2.0


def test_rounds_that_a_client_sits_out_are_not_counted() -> None:
    """With three of twelve in each round, the client that takes part most decides, in every row."""
    tiers = {"large": {"rank": 3, "clients": 12, "cohort": 3}}
    found = round_costs(plan_of(tiers=tiers))

    assert found is not None
    last = found.rounds[-1]
    assert last.participations < last.rounds == 20
    assert spent(last.noise_multiplier, last.participations) == pytest.approx(found.epsilon, rel=1e-6)


def test_in_the_clear_a_share_alone_has_to_hide_an_update() -> None:
    """The server reads every upload, so that a multiplier of 2 over five counted shares is one of 0.89; the table keeps the ratio."""
    found = round_costs(plan_of(secure_sum="plain"))

    assert found is not None
    assert found.epsilon == pytest.approx(spent(2 / math.sqrt(5), 20), rel=1e-9)
    assert found.rounds[-1].noise_multiplier == pytest.approx(2.0, rel=1e-6)


def test_ratios_by_hand() -> None:
    """Six holders of 11 values and three of 33: holders over z sqrt(d). Weights move them as they move noise and length."""
    equal = plan_of()
    assert signal_to_noise(equal, 2.0) == pytest.approx((6 / (2 * math.sqrt(11)), 3 / (2 * math.sqrt(33))))

    weighted = plan_of(privacy={"band_weights": "holders", "rank_decay": 1.0})
    (low, high), second = weighted.band_weights, (1 / 2 + 1 / 3)
    length = math.sqrt(low**2 + high**2 * second)
    by_hand = (6 / (2 * math.sqrt(11)), 3 * high * math.sqrt(second / 22) / (2 * length))
    assert signal_to_noise(weighted, 2.0) == pytest.approx(by_hand)


def test_weights_are_told_by_what_they_save() -> None:
    """Noise energy by the closed form, and the epsilon of that much more noise on every sum."""
    found = round_costs(plan_of())

    assert found is not None
    assert found.weights is not None
    costs, signals = (1 / 36, 2 / 9), (1.0, 2.0)
    energy = sum(math.sqrt(c * s) for c, s in zip(costs, signals, strict=True)) ** 2 / 3 / sum(costs)
    assert not found.weights.used
    assert found.weights.energy == pytest.approx(energy, rel=1e-6)
    assert found.weights.epsilon == pytest.approx(spent(2 / math.sqrt(energy), 20), rel=1e-5)


@pytest.mark.parametrize("changes", [{"noise_multiplier": 0.0}, {"privacy": {"colluders": 5}}])
def test_without_noise_there_is_nothing_to_compare(changes: dict[str, Any]) -> None:
    """Without a mechanism; a coalition that knows all the noise of a group but none of it."""
    grouped = {"robustness": {"group_size": 3}, "tiers": {"large": {"rank": 3, "clients": 12}}}
    fields = changes if "noise_multiplier" in changes else {**grouped, **changes}

    assert round_costs(plan_of(**fields)) is None


def test_rows_in_turns_have_no_weights() -> None:
    """Each band is clipped alone there, and the plan refuses weights."""
    found = round_costs(plan_of(training={"rows": "in-turns"}))

    assert found is not None
    assert found.weights is None
