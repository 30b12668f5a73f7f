"""A test for every numbered claim of threat_model.md about differential privacy, under the claim's number."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from protocols.homomorphic.services.operated import HomomorphicServices
from protocols.session import ClientId
from rbla_secure.errors import BudgetError, PlanError, PrivacyError, RefusalError
from rbla_secure.federation.client.contribution import contribution
from rbla_secure.federation.messages import StageReply
from rbla_secure.federation.noise_shares import noise_key
from rbla_secure.federation.server.spending import seen_by
from rbla_secure.lora.adapter import Adapter, Rows
from rbla_secure.planning.forecast import forecast
from rbla_secure.planning.promises import Promises
from rbla_secure.planning.warnings import warnings
from rbla_secure.privacy.accounting import epsilon
from rbla_secure.privacy.ledger import FILE, Ledger, Observer, Shown
from rbla_secure.privacy.noise import Release
from rbla_secure.privacy.sample_ledger import SampleLedger
from rbla_secure.privacy.sample_level import clipped_sum
from rbla_secure.privacy.sampled_gaussian import SampledGaussian
from rbla_secure.report.privacy import spent_in
from rbla_secure.run_folder.folder import RunFolder
from tests.rbla_secure.federation import recovering
from tests.rbla_secure.federation import test_matrix_rounds as turns
from tests.rbla_secure.federation import test_noise_after_sums as after_sums
from tests.rbla_secure.federation import test_recovered_noise as recovered
from tests.rbla_secure.federation import test_secret_cohorts as secret
from tests.rbla_secure.federation.client import test_budget_folder as budgets
from tests.rbla_secure.federation.client import test_lifetime as lifetime
from tests.rbla_secure.federation.client import test_lifetime_cost as lifetime_cost
from tests.rbla_secure.federation.test_private_rounds import (
    LAYOUT,
    MODES,
    NOISY,
    Run,
    make_plan,
    noise_in,
    of_rounds,
    people,
    play,
)
from tests.rbla_secure.federation.test_private_rounds import services as services  # noqa: PLC0414  # a fixture
from tests.rbla_secure.privacy import test_banded_matrix as matrix
from tests.rbla_secure.privacy import test_number_of_examples as number
from tests.rbla_secure.privacy import test_one_example_at_a_time as alone
from tests.support.federations import RUN, InMemory, drift, make_config, make_session, play_round
from tests.support.noise_law import has_std
from tests.support.planted_promises import promise_instead
from tests.support.run_folders import as_ledger, die_before_the_log_of

ONE: ClientId = "large-01"


@pytest.mark.parametrize("mode", MODES)
def test_claim_31_the_noise_on_a_sum_has_its_scale_in_every_mode(
    mode: str, services: list[HomomorphicServices]
) -> None:
    """The right scale is accepted, two thirds and three halves of it are rejected."""
    plan = make_plan(secure_sum=mode, quantization={"ring_bits": 20, "bound": 0.1})

    noise = noise_in(plan, play(plan, services), 1)

    sensitivity = plan.mechanism.sensitivity(plan.config.privacy.adjacency)  # type: ignore[union-attr]
    claimed = 1.5 * sensitivity / plan.quantizer.scale
    assert [has_std(noise, claimed * factor) for factor in (2 / 3, 1, 3 / 2)] == [False, True, False]


def test_claim_31_every_integer_of_an_upload_is_noised() -> None:
    """Also where a client changed nothing, and where it only pads: all its integers spread as its share says."""
    plan = make_plan(secure_sum="masking", upload="padded")
    session = plan.session(run=RUN, round_number=1, attempt=1, cohort=tuple(plan.ranks))
    mechanism = plan.mechanism_of(session)
    assert mechanism is not None

    sent = contribution(
        plan,
        session,
        "small-01",
        np.zeros((1, LAYOUT.row_length)),
        weight=1.0,
        noise_key=noise_key(plan, session, "small-01"),
    )

    assert {index: len(values) for index, values in sent.items()} == {
        segment.index: segment.length for segment in session.segments
    }
    for index, values in sent.items():
        assert has_std(values, mechanism.share_std(index))  # type: ignore[attr-defined]


def test_claim_31_an_update_that_is_not_finite_does_not_show() -> None:
    """It counts as zero and is noised like any other: whether data made it so cannot be seen."""
    plan = make_plan(secure_sum="masking")
    session = plan.session(run=RUN, round_number=1, attempt=1, cohort=tuple(plan.ranks))

    sent = contribution(
        plan,
        session,
        ONE,
        np.full((3, LAYOUT.row_length), np.nan),
        weight=1.0,
        noise_key=noise_key(plan, session, ONE),
    )

    mechanism = plan.mechanism_of(session)
    assert all(
        has_std(values, mechanism.share_std(index))  # type: ignore[union-attr]
        for index, values in sent.items()
    )


def test_claim_31_what_is_clipped_is_what_is_weighted() -> None:
    """Weighted rows are as long as the sensitivity at most, wherever a client moves far; clipped first, they would be longer."""
    weights = {"colluders": 0, "mechanism": "central", "band_weights": "holders", "rank_decay": 1.0}
    plan = make_plan(secure_sum="masking", privacy=weights, quantization={"bound": 10.0})
    session = plan.session(run=RUN, round_number=1, attempt=1, cohort=tuple(plan.ranks))
    change = np.zeros((3, LAYOUT.row_length))
    change[1:] = 5.0

    sent = contribution(plan, session, ONE, change, weight=1.0, noise_key=bytes(16))

    bound = plan.mechanism.sensitivity(plan.config.privacy.adjacency)  # type: ignore[union-attr]
    assert 0.99 * bound < math.hypot(*(np.linalg.norm(values) for values in sent.values())) <= bound
    clipped_first = plan.row_weights * change / np.linalg.norm(change)
    assert np.linalg.norm(clipped_first) > 1.1 * plan.config.clip_norm


def test_claim_31_nothing_is_asked_of_a_masked_sum_before_the_servers_noise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A client that puts the sum at its bound has the band opened whether another one moves or not; the control tells them apart."""
    monkeypatch.setattr(after_sums.masking_client, "check_inputs", lambda *_: None)
    plan = after_sums.make_plan()
    edge = after_sums.limit_before(plan)

    assert [after_sums.closed(plan, edge, moves=moves) for moves in (False, True)] == [False, False]

    promise_instead(monkeypatch, noise_follows=False)
    plan = after_sums.make_plan()
    assert [after_sums.closed(plan, edge, moves=moves) for moves in (False, True)] == [False, True]


def test_claim_31_noise_keys_come_from_the_system() -> None:
    """Two keys of one client and round differ; only a simulation repeats them."""
    plan = make_plan(secure_sum="masking")
    simulated = make_plan(secure_sum="masking", privacy={"colluders": 0, "simulation": True})
    session = plan.session(run=RUN, round_number=1, attempt=1, cohort=tuple(plan.ranks))

    assert len({noise_key(plan, session, ONE) for _ in range(5)}) == 5
    assert len({noise_key(simulated, session, ONE) for _ in range(5)}) == 1


def test_claim_32_what_is_spent_is_written_and_the_budget_holds(tmp_path: Path) -> None:
    """The ledger has every round at its price, stops the one too many, and must be there to go on."""
    limit = of_rounds(2) * 1.001
    run = Run(tmp_path / "run", rounds=2, privacy={"colluders": 1, "max_epsilon": limit})
    run.go_on()
    ledger = Ledger.read(run.folder.path)

    with pytest.raises(BudgetError):
        ledger.record(ledger.entries[0].model_copy(update={"round": 3}))
    assert ledger.epsilon(Observer.COALITION) == pytest.approx(of_rounds(2), rel=0.01)
    (run.folder.path / FILE).unlink()
    with pytest.raises(PrivacyError):
        run.go_on()


def test_claim_32_a_sum_in_the_clear_counts_the_noise_of_those_in_it(tmp_path: Path) -> None:
    """One of three holders is silent: readers face two shares, the server one, of everybody who was asked."""
    run = Run(tmp_path / "run", rounds=1, secure_sum="plain", min_holders=2)
    run.go_on(InMemory(people(run.plan, None), silent_from={ONE: "upload"}))

    uploads, sums = Ledger.read(run.folder.path).entries

    assert (uploads.shown, sums.shown) == (Shown.UPLOADS, Shown.SUMS)
    assert set(uploads.clients) - set(sums.clients) == {ONE}
    found = {
        observer: [spent.noise_multiplier for entry in (uploads, sums) if (spent := entry.spent(observer))]
        for observer in Observer
    }
    assert found[Observer.PUBLIC] == [pytest.approx(1.5 * (2 / 3) ** 0.5, rel=1e-6)]
    assert found[Observer.PARTICIPANT] == [pytest.approx(1.5 * (1 / 3) ** 0.5, rel=1e-6)]
    assert found[Observer.SERVER] == found[Observer.COALITION] == [pytest.approx(1.5 / 6**0.5, rel=1e-6)]


@pytest.mark.parametrize(("name", "limited"), [("masking", Observer.PARTICIPANT), ("plain", Observer.SERVER)])
def test_claim_32_the_budget_is_that_of_the_observer_who_learns_most(name: str, limited: Observer) -> None:
    """Just below its epsilon the plan is refused by its name, just above it is not."""
    plan = make_plan(secure_sum=name)
    assert plan.mechanism is not None
    views = forecast(plan, plan.mechanism).views
    most = max(views.values())

    with pytest.raises(PlanError, match=f"one client spend at least against the {limited} at"):
        make_plan(secure_sum=name, privacy={"colluders": 0, "max_epsilon": most * 0.999})
    make_plan(secure_sum=name, privacy={"colluders": 0, "max_epsilon": most * 1.001})
    assert views[limited] == most > views[Observer.PUBLIC]


@pytest.mark.parametrize(
    ("privacy", "said"),
    [
        ({}, "a reading of what was spent (privacy odometer), not a bound fixed beforehand"),
        ({"max_epsilon": 90.0}, "privacy.max-epsilon=90 is a bound fixed beforehand"),
        ({"mechanism": "central"}, "no drop-out changes the noise of a release"),
        (
            {"recovered_dropout": 0.4},
            "every observer but a participant, whose own noise privacy.colluders=0 leaves out",
        ),
        (
            {"recovered_dropout": 0.4, "colluders": 1},
            "are made good, every observer faces the planned noise or more",
        ),
    ],
)
def test_claim_32_a_figure_is_called_what_it_is(tmp_path: Path, privacy: dict[str, Any], said: str) -> None:
    """Before the run and after it: a bound where a budget or the mechanism makes it one, else a reading."""
    changes = {"privacy": {"colluders": 0, **privacy}, "masking": {"profile": "semi-honest"}}
    run = Run(tmp_path / "run", rounds=1, **changes)
    run.go_on()

    summary, _ = spent_in(run.folder.path)

    assert summary is not None
    assert run.plan.mechanism is not None
    assert [said in line for line in summary.lines()].count(True) == 1
    assert [said in line for line in forecast(run.plan, run.plan.mechanism).assumptions].count(True) == 1


def gone_on_with(run: Run) -> None:
    """Another process opens the folder and goes on."""
    run.folder = RunFolder.open(run.folder.path)
    try:
        run.go_on()
    finally:
        run.folder.close()


@pytest.mark.parametrize(
    "figures",
    [{"slack": -4.0}, {"total_variation": -1e-3}, {"noise_multiplier": 1e6}, {"noise_multiplier": math.nan}],
)
def test_claim_32_the_entry_that_the_log_lacks_takes_nothing_back(
    tmp_path: Path, figures: dict[str, float]
) -> None:
    """Killed between ledger and log, the entry counts; with figures of somebody's making the run does not go on."""
    run = Run(tmp_path / "run", rounds=2, privacy={"colluders": 0})
    run.go_on()
    run.folder.close()
    die_before_the_log_of(run.folder.path, FILE, 2)
    path = run.folder.path / FILE
    left = path.read_bytes()
    content = json.loads(left)
    for observer in ("public", "participant", "server", "coalition"):
        content["entries"][-1][observer].update(figures)
    path.write_bytes(as_ledger(content))

    with pytest.raises(PrivacyError, match=FILE):
        gone_on_with(run)
    path.write_bytes(left)
    gone_on_with(run)

    assert [(e.round, e.attempt) for e in Ledger.read(run.folder.path).entries] == [(1, 1), (2, 1), (2, 2)]


@pytest.mark.parametrize(
    "changes",
    [
        {"weights": "examples"},
        {"privacy": {"adjacency": "add-or-remove"}},
        {"privacy": {"colluders": 3}},
        {"privacy": {"max_epsilon": 0.1}},
    ],
)
def test_claim_33_a_claim_that_is_not_kept_is_refused(changes: dict[str, Any]) -> None:
    """Before anything is trained."""
    with pytest.raises(PlanError):
        make_plan(secure_sum="masking", **changes)


def test_claim_33_a_budget_is_held_against_what_the_plans_own_noise_spends() -> None:
    """On a coarse grid rounding takes a part of the noise: refused with the figure that `account` prints, and rounded up."""
    coarse = {"tiers": {"a": {"rank": 1, "clients": 5}}, "clip_norm": 0.001, "noise_multiplier": 3.0}
    coarse |= {"quantization": {"bits": 2, "bound": 1.0}}
    plan = make_plan(**coarse, privacy={"mechanism": "central"})
    assert plan.mechanism is not None
    found = forecast(plan, plan.mechanism).views[Observer.PUBLIC]
    ideal = epsilon([Release(noise_multiplier=3.0, slack=0.0, rho=0.0)] * plan.config.rounds, 1e-5)
    between = (ideal + found) / 2

    with pytest.raises(PlanError, match=r"must be >= (\S+), which 9 rounds of one client spend") as refusal:
        make_plan(**coarse, privacy={"mechanism": "central", "max_epsilon": between})

    assert between < found <= float(str(refusal.value).split(">= ")[1].split(",")[0]) <= found + 0.001
    make_plan(**coarse, privacy={"mechanism": "central", "max_epsilon": found})


def test_claim_33_under_add_or_remove_a_client_shows_through_its_summand_alone() -> None:
    """At every number of drop-outs down to nobody: with the same noise, one client less moves the sums by what it sent."""
    privacy = {"mechanism": "central", "adjacency": "add-or-remove", "simulation": True}
    plan = make_plan(secure_sum="plain", privacy=privacy)
    assert plan.mechanism is not None
    weights = np.array([6.0, 3.0, 3.0])[:, None] * plan.quantizer.scale
    most = plan.mechanism.sensitivity(plan.config.privacy.adjacency)
    members = list(plan.ranks)

    sums = []
    for gone in range(len(members) + 1):
        exchange = InMemory(people(plan, None, drift), silent_from=dict.fromkeys(members[:gone], "upload"))
        outcome = play_round(plan, plan.initial_adapter, exchange)
        assert (outcome.refused_bands, outcome.aborted) == ({}, "")
        sums.append((outcome.adapter.rows.astype(np.float64) - plan.initial_adapter.rows) * weights)

    for name, before, after in zip(members, sums, sums[1:], strict=False):
        summand = np.linalg.norm(before - after)
        assert 0.5 * most < summand <= most * 1.001
        assert np.allclose((before - after)[plan.ranks[name] :], 0.0, atol=1e-3 * most)


def test_claim_33_seeded_noise_is_called_worthless(tmp_path: Path) -> None:
    """In the warning before a run and in the figures after it."""
    changes: dict[str, Any] = {"privacy": {"colluders": 0, "simulation": True}}
    run = Run(tmp_path / "run", rounds=1, **changes)
    run.go_on()

    summary, _ = spent_in(run.folder.path)

    assert any("worthless" in line for line in warnings(Promises.build(make_config(**{**NOISY, **changes}))))
    assert summary is not None
    assert any("worthless" in line for line in summary.lines())


def test_claim_33_a_client_takes_part_in_its_turn_alone() -> None:
    """By schedule, where noise cancels over rounds: the plan, the client and the server's state each refuse another round."""
    turns.test_a_client_takes_part_in_its_own_rounds_alone()
    matrix.test_k_participations_move_the_sums_by_sqrt_k_columns_and_no_further()
    for early, client in ((3, "c1"), (2, "c9")):
        matrix.test_a_client_too_early_and_rounds_that_go_back_are_refused(early, client)


def test_claim_33_draws_are_secret_and_kept(tmp_path: Path) -> None:
    """The seed does not give them away, nobody takes part without one, and neither requests nor noise tell of others."""
    secret.test_the_configuration_does_not_give_the_draws_away()
    secret.test_a_client_that_is_not_drawn_refuses_and_is_not_asked()
    secret.test_what_a_client_is_sent_does_not_depend_on_who_else_is_drawn()
    secret.test_the_noise_tells_nobody_how_many_were_drawn(tmp_path)


def test_claim_34_an_example_moves_a_step_by_no_more_than_the_noise_is_scaled_for() -> None:
    """Neighbours through the whole training of a client: the steps' noise-free parts differ by at most D, and are noised."""
    mechanism = SampledGaussian(noise_multiplier=1.0, clip_norm=0.5, sample_rate=1.0, steps=1)
    gradients = np.random.default_rng(0).normal(size=(9, 40)) * 10.0 ** np.arange(-4, 5)[:, None]

    difference = clipped_sum(gradients.copy(), mechanism) - clipped_sum(gradients[:-1].copy(), mechanism)

    assert float(np.square(difference).sum()) ** 0.5 <= mechanism.sensitivity(40)
    assert mechanism.noise_std(40) >= mechanism.sensitivity(40)


def test_claim_34_nobody_elses_gradient_depends_on_an_example() -> None:
    """A victim whose only unit is off alone and on beside a newcomer: side by side the step moves by twice the sensitivity."""
    alone.test_a_newcomer_switches_nobody_elses_gradient_on()
    alone.test_an_example_has_the_same_bits_whoever_stands_beside_it("rank-16", 1)


def test_claim_34_what_cannot_be_computed_counts_as_zero(caplog: pytest.LogCaptureFixture) -> None:
    """A careless client fails on a label that no class has, and so names the record; ours trains on, with or without it."""
    alone.test_a_failing_example_is_told_to_its_client_alone(caplog)
    number.test_a_record_that_cannot_be_computed_stops_nothing()
    number.test_a_client_without_examples_takes_steps_of_noise()


def test_claim_34_the_number_of_examples_shows_in_no_number() -> None:
    """Divided by a client's own count, noise of integers lies on a grid that tells it; ours tells the plan's batch size."""
    number.test_the_divisor_of_a_step_does_not_tell_the_number_of_examples()
    for settings in ({"weights": "examples"}, {"training": {"steps": 0}}):
        wanted: dict[str, Any] = {
            "training": {"steps": 2},
            "sample_level": {"noise_multiplier": 1.0},
            **settings,
        }
        with pytest.raises(PlanError, match="how many examples a client has"):
            make_plan(noise_multiplier=0, **wanted)


def test_claim_34_training_is_written_down_before_it_is_asked_for(tmp_path: Path) -> None:
    """When the first client is asked to train, the ledger on the disk has its round already."""
    seen: list[int] = []

    def watching(adapter: Adapter, seed: int) -> Rows:  # noqa: ARG001
        seen.append(SampleLedger.read(tmp_path / "run").entries[-1].round)
        return adapter.rows.copy()

    run = Run(
        tmp_path / "run",
        rounds=2,
        sample_level={"noise_multiplier": 1.0, "sample_rate": 0.1},
        training={"steps": 2},
    )
    run.go_on(InMemory(people(run.plan, None, train=watching)))

    assert sorted(set(seen)) == [1, 2]


@pytest.mark.parametrize("profile", recovered.PROFILES)
@pytest.mark.parametrize(
    ("gone", "given"), [((), {0, 1}), (("large-01",), {1}), (("large-01", "small-01"), set())]
)
def test_claim_35_drop_outs_leave_the_noise_as_planned(
    monkeypatch: pytest.MonkeyPatch, profile: str, gone: tuple[str, ...], given: set[int]
) -> None:
    """Up to two of nine and one of four: the right scale is accepted, and the seeds are those beyond the missing."""
    watch, plan = recovering.Watch(monkeypatch), recovering.make_plan(profile)
    session = recovered.make_session(plan)

    before, outcome = recovering.play(plan, silent_from=dict.fromkeys(gone, "mask_input"))

    for band in (0, 1):
        noise = recovered.noise_in(plan, before, outcome, band)
        assert [recovered.is_target(plan, noise, share) for share in (2 / 3, 1, 3 / 2)] == [
            False,
            True,
            False,
        ]
    left = set(session.members) - set(gone)
    thin = {(client, 1, 0) for client in left if plan.ranks[client] == 2 and "large-01" not in gone}
    assert set(watch.revealed) == {(client, 0, number) for client in left for number in given} | thin


@pytest.mark.parametrize("profile", recovered.PROFILES)
def test_claim_35_what_does_not_open_gives_out_no_seed(monkeypatch: pytest.MonkeyPatch, profile: str) -> None:
    """Neither a band below its quorum nor a session that ends."""
    watch, plan = recovering.Watch(monkeypatch), recovering.make_plan(profile, min_holders=4)
    _, closed = recovering.play(plan, silent_from={"large-01": "mask_input"})
    bands = {index for _, index, _ in watch.revealed}
    calls = watch.calls

    _, ended = recovering.play(plan, silent_from=dict.fromkeys(list(plan.ranks)[:5], "reveal_shares"))

    assert (list(closed.refused_bands), bands) == ([1], {0})
    assert ended.aborted
    assert watch.calls == calls


@pytest.mark.parametrize("profile", recovered.PROFILES)
def test_claim_35_beyond_the_bound_nothing_is_removed(monkeypatch: pytest.MonkeyPatch, profile: str) -> None:
    """Two of four are missing where one is made good: no seed of that band, and the ledger counts the two thirds left."""
    watch, plan = recovering.Watch(monkeypatch), recovering.make_plan(profile)

    before, outcome = recovering.play(plan, silent_from=dict.fromkeys(("large-01", "large-02"), "mask_input"))

    mechanism = recovering.mechanism_of(plan)
    spent = seen_by(plan, recovered.make_session(plan), mechanism, outcome.survivors)
    assert {index for _, index, _ in watch.revealed} <= {0}
    assert recovered.is_target(plan, recovered.noise_in(plan, before, outcome, 1), 2 / 3)
    assert spent[Observer.COALITION].noise_multiplier == pytest.approx(1.5 * (2 / 3) ** 0.5, rel=1e-6)


def test_claim_47_a_client_joins_no_run_that_would_exceed_its_lifetime_budget(tmp_path: Path) -> None:
    """The second run on the same data is refused before training; without a budget, the control, it goes through."""
    plan, limit = lifetime.in_the_clear(), 0.99 * lifetime.EIGHT
    assert lifetime.take_part(plan, tmp_path, max_epsilon=limit) == [StageReply] * 4

    with pytest.raises(BudgetError, match="would take the epsilon of all runs at client level"):
        lifetime.take_part(plan, tmp_path, run=lifetime.OTHER_RUN)
    assert lifetime.take_part(plan, None, run=lifetime.OTHER_RUN) == [StageReply] * 4


def test_claim_47_a_round_is_counted_before_it_is_trained_and_nothing_is_forgotten(tmp_path: Path) -> None:
    """At the figure of the worst list that could be summed; a ledger that is put back from a copy is refused."""
    lifetime.test_a_round_is_counted_before_it_is_trained(tmp_path / "trained")
    lifetime_cost.test_where_lists_may_differ_the_quorum_alone_counts("banded")
    budgets.test_whatever_was_changed_is_refused(tmp_path / "changed", "an older ledger")


def test_claim_47_the_server_hears_no_figures(tmp_path: Path) -> None:
    """The refusal of a round says nothing of other runs."""
    plan, session = lifetime.in_the_clear(), make_session(lifetime.in_the_clear())
    joined = lifetime.join(plan, tmp_path, max_epsilon=1.01 * lifetime.FOUR)
    for _ in range(4):
        joined.spend(session)

    with pytest.raises(RefusalError) as refused:
        joined.spend(session)

    joined.close()
    assert not any(character.isdigit() for character in str(refused.value))
