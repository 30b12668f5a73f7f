"""Groups under noise, what they cost, and what is seen and written down of them."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from protocols.session import ClientId
from rbla_secure.errors import PlanError, PrivacyError
from rbla_secure.federation.coordinator import Coordinator
from rbla_secure.federation.round import prepare_round, run_round
from rbla_secure.federation.server.defence import Defence
from rbla_secure.federation.server.previous_step import PreviousStep
from rbla_secure.federation.server.spending import seen_by
from rbla_secure.lora.adapter import Adapter, Rows
from rbla_secure.planning.budget import multiplier_against
from rbla_secure.planning.forecast import forecast
from rbla_secure.planning.plan import Plan
from rbla_secure.privacy.accounting import epsilon
from rbla_secure.privacy.figures import rounded_up
from rbla_secure.privacy.ledger import FILE, Ledger, Observer
from rbla_secure.privacy.noise import GaussianMechanism, Release
from rbla_secure.report.disclosure import what_each_party_learned
from rbla_secure.report.privacy import forecast_lines, forecast_object
from rbla_secure.report.summary import SUSPECTS, suspects
from rbla_secure.run_folder.folder import RunFolder
from rbla_secure.run_folder.records import RoundRecord
from rbla_secure.stopwatch import Stopwatch
from tests.rbla_secure.federation.grouped import TIERS, make_plan
from tests.support.federations import (
    BASE,
    InMemory,
    beginning_with,
    drift,
    make_adapter,
    make_config,
    make_participants,
    make_session,
    open_round,
)
from tests.support.identities import server_sum
from tests.support.noise_law import has_std, tells_wrong_scales
from tests.support.updates import make_layout

WIDE = make_layout((15_000, 10_000))


# --- noise ---


NOISY: dict[str, Any] = {"noise_multiplier": 2.0, "privacy": {"colluders": 0}}


def noisy_plan(**changes: Any) -> Plan:
    plan = Plan.build(
        make_config(
            **{
                "tiers": TIERS,
                "secure_sum": "masking",
                "masking": {"profile": "semi-honest"},
                "robustness": {"f": 1, "group_size": 3},
                **NOISY,
                **changes,
            }
        ),
        layout=WIDE,
        base_digest=BASE,
    )
    return beginning_with(plan, make_adapter(plan))


def mechanism_of(plan: Plan) -> GaussianMechanism:
    assert plan.mechanism is not None
    return plan.mechanism


def still(adapter: Adapter, _seed: int) -> Rows:
    return adapter.rows.copy()


def test_the_noise_of_a_group_has_the_scale_of_its_share() -> None:
    """G of the m shares of a band: z D sqrt(g / m); two thirds and three halves of it are told apart."""
    plan = noisy_plan(tiers={"all": {"rank": 1, "clients": 9}}, robustness={"f": 0, "group_size": 9})
    small = noisy_plan(tiers={"all": {"rank": 1, "clients": 9}}, robustness={"f": 0, "group_size": 3})
    for each, size in ((plan, 9), (small, 3)):
        session = make_session(each)
        people = make_participants(each, train=dict.fromkeys(each.ranks, still))
        sums: dict[int, Any] = {}
        defence = Defence.of(each, PreviousStep(each))
        assert defence is not None

        class Watching:
            def judge(
                self, session: Any, opened: Any, adapter: Any, inner: Any = defence, kept: Any = sums
            ) -> Any:
                kept.update(opened.sums)
                return inner.judge(session, opened, adapter)

        session_server, exchange = open_round(each), InMemory(people)
        prepare_round(session_server, exchange)
        run_round(each, session_server, make_adapter(each), exchange, defence=Watching())  # type: ignore[arg-type]

        claimed = math.sqrt(mechanism_of(each).variance() * size / 9)
        assert len(sums) == len(session.segments) == 9 // size
        for noise in sums.values():
            assert tells_wrong_scales(noise.size)
            assert [has_std(noise, claimed * factor) for factor in (2 / 3, 1, 3 / 2)] == [False, True, False]


@pytest.mark.parametrize(("colluding", "unknown"), [(0, 3), (1, 2), (2, 1)])
def test_a_round_costs_what_the_smallest_group_hides(colluding: int, unknown: int) -> None:
    """Z sqrt((g - colluders) / counted) in the band with the most counted shares, composed over rounds."""
    plan = noisy_plan(privacy={"colluders": colluding})
    session = make_session(plan)

    seen = seen_by(plan, session, mechanism_of(plan), plan.ranks)[Observer.COALITION]

    multiplier = 2.0 * math.sqrt(unknown / (19 - colluding))
    assert seen.noise_multiplier == pytest.approx(multiplier, rel=1e-3)
    assert multiplier_against(Observer.COALITION, plan.promises) == pytest.approx(multiplier)


def test_a_group_of_colluders_hides_nothing() -> None:
    """Epsilon against the server is unbounded, the forecast says so, and a budget cannot be kept."""
    plan = noisy_plan(privacy={"colluders": 3})
    session = make_session(plan)

    found = forecast(plan, mechanism_of(plan))

    assert math.isinf(
        epsilon([seen_by(plan, session, mechanism_of(plan), plan.ranks)[Observer.COALITION]], 1e-5)
    )
    assert math.isinf(found.views[Observer.COALITION])
    assert math.isfinite(found.one_sum)
    assert forecast_object(found)["epsilon"] is None
    with pytest.raises(PlanError, match=r"max-epsilon=50 cannot be kept with robustness.group-size=3"):
        noisy_plan(privacy={"colluders": 3, "max_epsilon": 50.0})


class Run:
    """A run in groups."""

    def __init__(self, path: Path, plan: Plan, train: Mapping[ClientId, Any], **network: Any) -> None:
        self.plan = plan
        self.folder = RunFolder.create(path, plan.config)
        self.train = train
        self.network = network

    def go(self) -> list[RoundRecord]:
        previous_step = PreviousStep(self.plan)
        progress = Coordinator(
            plan=self.plan,
            secure_sum=server_sum(self.plan),
            folder=self.folder,
            exchange=InMemory(make_participants(self.plan, train=self.train), **self.network),
            evaluate=lambda _: (0.5, 1.0),
            stopwatch=Stopwatch(),
            defence=Defence.of(self.plan, previous_step),
            observers=[previous_step],
        ).run(self.folder.load(self.plan))
        return list(progress.records)


@pytest.mark.parametrize("mode", ["masking", "plain"])
@pytest.mark.parametrize("colluding", [0, 1, 3])
def test_a_run_spends_what_was_foretold(tmp_path: Path, mode: str, colluding: int) -> None:
    """Against both observers, without drop-outs, over all rounds."""
    plan = noisy_plan(secure_sum=mode, privacy={"colluders": colluding}, rounds=2)
    before = forecast(plan, mechanism_of(plan))

    Run(tmp_path / "run", plan, dict.fromkeys(plan.ranks, still)).go()

    ledger = Ledger.read(tmp_path / "run")
    assert ledger.epsilon(Observer.COALITION) == pytest.approx(before.views[Observer.COALITION])
    assert ledger.epsilon(Observer.PUBLIC) == pytest.approx(before.views[Observer.PUBLIC])


def test_drop_outs_cost_more_than_was_foretold(tmp_path: Path) -> None:
    """Groups of five, five and six: the one that lost a member shows a sum over four, or over five if it had six."""
    plan = noisy_plan(
        tiers={"all": {"rank": 1, "clients": 16}}, robustness={"f": 1, "group_size": 5}, rounds=1
    )
    foretold = forecast(plan, mechanism_of(plan)).views[Observer.COALITION]

    gone = next(
        group.members[0] for group in plan.segmentation.groups(make_session(plan)) if len(group.members) == 5
    )
    Run(tmp_path / "run", plan, {}, silent_from={gone: "mask_input"}).go()

    groups = {group.members for group in plan.segmentation.groups(make_session(plan))}
    spent = Ledger.read(tmp_path / "run").epsilon(Observer.COALITION)
    assert sorted(map(len, groups)) == [5, 5, 6]
    assert len(next(members for members in groups if gone in members)) == 5
    multiplier = 2.0 * math.sqrt(4 / 16)
    assert spent == pytest.approx(
        epsilon([Release(noise_multiplier=multiplier, slack=0.0, rho=math.nan)], 1e-5), rel=1e-2
    )
    assert spent > 1.05 * foretold


def test_a_budget_counts_the_groups(tmp_path: Path) -> None:
    """What is kept for one sum over everybody is not for groups: refused before the run, and the multiplier that would do is right."""
    one_sum = forecast(noisy_plan(robustness={"f": 1}), mechanism_of(noisy_plan(robustness={"f": 1}))).one_sum
    with pytest.raises(PlanError, match=r"noise-multiplier=(\S+) or more would do") as refusal:
        noisy_plan(privacy={"colluders": 0, "max_epsilon": one_sum * 1.05})
    enough = float(str(refusal.value).split("noise-multiplier=")[-1].split()[0])

    plan = noisy_plan(noise_multiplier=enough, privacy={"colluders": 0, "max_epsilon": one_sum * 1.05})

    # A member of the smallest group knows its own of three shares.
    assert forecast(plan, mechanism_of(plan)).views[Observer.PARTICIPANT] == pytest.approx(
        one_sum * 1.05, rel=0.02
    )
    assert len(Run(tmp_path / "run", plan, dict.fromkeys(plan.ranks, still)).go()) == plan.config.rounds


def test_a_forecast_tells_what_groups_cost() -> None:
    """Beside what one sum over everybody would, with what it assumes; without groups there is nothing to tell."""
    plan, whole = noisy_plan(), noisy_plan(robustness={"f": 1})
    found, one = forecast(plan, mechanism_of(plan)), forecast(whole, mechanism_of(whole))

    text = " ".join(forecast_lines(found))

    assert found.views[Observer.COALITION] > found.one_sum == pytest.approx(one.views[Observer.COALITION])
    assert f"one sum over everybody would cost {rounded_up(found.one_sum)}" in text
    assert "the smallest has 3 in rows 1-1, 3 in rows 2-3" in text
    assert forecast_object(found)["epsilon_one_sum"] == found.one_sum
    assert one.one_sum == one.views[Observer.COALITION]
    assert "over groups" not in " ".join(forecast_lines(one))


# --- what is seen and written down ---


def turned(factor: float) -> Any:
    def train(adapter: Adapter, seed: int) -> Rows:
        step = drift(adapter, seed).astype(np.float64) - adapter.rows + 0.03
        return (adapter.rows + factor * step).astype(np.float32)

    return train


def test_an_attacker_is_the_most_suspicious_after_fifteen_rounds(tmp_path: Path) -> None:
    """A turned sign among 18 clients in masked groups of three: nobody sees its update, its groups tell."""
    plan = make_plan(tiers={"all": {"rank": 2, "clients": 18}}, rounds=15)
    train = {**dict.fromkeys(plan.ranks, turned(1.0)), "all-07": turned(-1.0)}

    records = Run(tmp_path / "run", plan, train).go()

    found = suspects(records)
    assert len(found) == SUSPECTS
    assert found[0].client == "all-07"
    assert found[0].suspicion > 1.5 * found[1].suspicion
    assert all(sum(record.flags.values()) == 1 for record in records)


def test_without_groups_nobody_is_suspicious(tmp_path: Path) -> None:
    """One sum over everybody tells of nobody."""
    plan = make_plan(robustness={"f": 1, "group_size": 0}, rounds=1)

    assert suspects(Run(tmp_path / "run", plan, {}).go()) == []


def test_the_table_of_a_run_tells_of_groups(tmp_path: Path) -> None:
    """The server has seen sums over three clients, and colluders of such a group subtract from three."""
    plan = make_plan("one-answer", rounds=2)

    records = Run(tmp_path / "run", plan, {}).go()

    saw = {row.party: row.saw for row in what_each_party_learned(plan, records)}
    assert saw["server"].startswith("12 sums of groups, each over 3 clients or more")
    assert "one sum a group" in saw["malicious server with up to 1 clients"]
    assert "of the thinnest group the sum of 2 other clients" in saw["malicious server with up to 1 clients"]


def test_a_run_whose_bands_all_stayed_closed_has_revealed_its_groups(tmp_path: Path) -> None:
    """Two groups of three opened, too few for the median: what they cost was spent, and a lost ledger is noticed."""
    plan = noisy_plan(tiers={"all": {"rank": 1, "clients": 9}}, rounds=1)
    gone = plan.segmentation.groups(make_session(plan))[0].members[0]
    run = Run(tmp_path / "run", plan, {}, silent_from={gone: "mask_input"})

    (record,) = run.go()

    assert record.holders == {}
    assert len(record.flags) == 2
    assert math.isfinite(Ledger.read(tmp_path / "run").epsilon(Observer.COALITION))
    assert len(Ledger.read(tmp_path / "run").entries) == 1
    (tmp_path / "run" / FILE).unlink()
    with pytest.raises(PrivacyError):
        run.go()


def test_every_band_has_the_smallest_of_its_groups() -> None:
    """Of the plan that all of these tests are about."""
    assert [(str(each.band), sorted(each.groups)) for each in make_plan().promises.bands] == [
        ("rows 1-1", [3, 3, 3, 3, 3, 4]),
        ("rows 2-3", [3, 3, 3]),
    ]
