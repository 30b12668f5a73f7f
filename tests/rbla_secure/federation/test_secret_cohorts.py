"""Who takes part by secret draws: their law, who can know them, what is divided by, what is spent, and what shows."""

import math
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from protocols.interface import SumResult
from protocols.session import ClientId
from rbla_secure.errors import PlanError
from rbla_secure.federation.client.participant import Participant
from rbla_secure.federation.coordinator import Coordinator
from rbla_secure.federation.round import prepare_round, run_round
from rbla_secure.federation.secret_cohorts import Draws, SecretCohorts
from rbla_secure.federation.server.opened_totals import release
from rbla_secure.federation.server.session_server import SessionServer
from rbla_secure.federation.step_bound import average_limits
from rbla_secure.lora.adapter import Adapter, AdapterLayout, LinearShape, Rows
from rbla_secure.planning.forecast import forecast, most_drawn
from rbla_secure.planning.plan import Plan
from rbla_secure.privacy.accounting import epsilon
from rbla_secure.privacy.figures import rounded_up
from rbla_secure.privacy.ledger import Ledger, Observer
from rbla_secure.privacy.noise import Release
from rbla_secure.report.disclosure import what_each_party_learned
from rbla_secure.report.privacy import PrivacySummary
from rbla_secure.run_folder.folder import RunFolder
from rbla_secure.seeding import derive_key
from rbla_secure.stopwatch import Stopwatch
from tests.rbla_secure.federation.test_private_rounds import LAYOUT, still, zeros
from tests.support import privacy_loss
from tests.support.federations import RUN, InMemory, WhenSaved, beginning_with, make_config
from tests.support.identities import client_sum, server_sum
from tests.support.noise_law import has_std

RATE = 0.25
SECRET = {"mechanism": "central", "adjacency": "add-or-remove", "sample_rate": RATE}
KEY = bytes(range(16))


def make_plan(layout: AdapterLayout = LAYOUT, **changes: Any) -> Plan:
    settings: dict[str, Any] = {"noise_multiplier": 1.5, "privacy": SECRET, "rounds": 8, **changes}
    plan = Plan.build(make_config(**settings), layout=layout, base_digest=bytes(32))
    return beginning_with(plan, zeros(plan)) if layout is LAYOUT else plan


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"noise_multiplier": 0.0}, "sampling hides nobody without noise"),
        ({"noise_multiplier": 0.09}, "sampling hides nobody without noise"),
        ({"privacy": {**SECRET, "adjacency": "zero-out"}}, "privacy.adjacency=add-or-remove"),
        ({"privacy": {**SECRET, "mechanism": "distributed"}}, "privacy.mechanism=central"),
        (
            {"privacy": {**SECRET, "mechanism": "banded-matrix", "separation": 2}},
            "privacy.adjacency=zero-out",
        ),
        ({"secure_sum": "masking"}, "secure-sum=plain"),
        ({"tiers": {"one": {"rank": 1, "clients": 6, "cohort": 3}}}, "needs cohorts of all clients"),
    ],
)
def test_draws_that_would_not_be_secret_or_hide_nobody_are_refused(
    changes: dict[str, Any], message: str
) -> None:
    """By the plan, with the setting, its value and the rule."""
    with pytest.raises(PlanError) as refusal:
        make_plan(**changes)

    assert message in str(refusal.value)


# --- the draws ---


def test_draws_are_a_poisson_sample() -> None:
    """Every client and round with the rate, and no two together more often than independent coins are."""
    cohorts, clients = SecretCohorts(KEY, rate=RATE), [f"c{number}" for number in range(20)]

    drawn = np.array(
        [[client in cohorts.asked(clients, number) for client in clients] for number in range(1, 2001)]
    ).astype(float)

    error = math.sqrt(RATE * (1 - RATE) / 2000)
    assert (np.abs(drawn.mean(axis=0) - RATE) < 6 * error).all()
    sizes = drawn.sum(axis=1)
    assert sizes.var() == pytest.approx(20 * RATE * (1 - RATE), rel=0.2)  # a cohort of fixed size has none
    correlations = np.corrcoef(drawn.T)[np.triu_indices(20, 1)]
    assert np.abs(correlations).max() < 6 / math.sqrt(2000)
    following = np.mean(drawn[1:] * drawn[:-1], axis=0)
    assert (np.abs(following - RATE**2) < 6 * math.sqrt(RATE**2 / 2000)).all()


def test_a_rate_of_nearly_one_and_of_nearly_nothing_are_kept() -> None:
    """Words below rate x 2^64, at both ends."""
    for rate, least, most in ((1e-9, 0, 0), (1 - 1e-9, 5000, 5000)):
        draws = Draws(key=KEY, rate=rate)
        assert least <= sum(draws.takes_part(number) for number in range(5000)) <= most


def guessed(plan: Plan, cohorts: SecretCohorts) -> float:
    """In how many rounds of clients somebody who knows the configuration has their draws right."""
    guess = SecretCohorts(derive_key(plan.config.seed, "draws"), rate=RATE)
    pairs = list(product(plan.ranks, range(1, 401)))
    return float(
        np.mean([guess.draws_of(c).takes_part(n) == cohorts.draws_of(c).takes_part(n) for c, n in pairs])
    )


def test_the_configuration_does_not_give_the_draws_away() -> None:
    """With its seed a stranger is right as often as by chance; of a simulation, which is called worthless, always."""
    plan, simulated = make_plan(), make_plan(privacy={**SECRET, "simulation": True})
    ours, other, theirs = SecretCohorts.of(plan), SecretCohorts.of(plan), SecretCohorts.of(simulated)
    assert ours is not None
    assert other is not None
    assert theirs is not None

    assert guessed(plan, ours) == pytest.approx(RATE**2 + (1 - RATE) ** 2, abs=6 * 0.5 / math.sqrt(2400))
    assert guessed(simulated, theirs) == 1.0
    assert ours.draws_of("small-01").key != other.draws_of("small-01").key
    assert any("SIMULATION" in text for text in told(simulated).assumptions)


def test_one_clients_key_tells_nothing_of_anothers() -> None:
    """It is another key, not the federation's, and no part of what is printed of it."""
    cohorts = SecretCohorts(KEY, rate=RATE)
    keys = {cohorts.draws_of(client).key for client in ("a", "b", "c")}

    assert len(keys) == 3
    assert KEY not in keys
    assert "key" not in repr(cohorts.draws_of("a"))


# --- rounds ---


def people(plan: Plan, cohorts: SecretCohorts, train: Any = still) -> dict[ClientId, Participant]:
    return {
        name: Participant(
            name,
            plan=plan,
            secure_sum=client_sum(plan, name),
            train=train,
            examples=5,
            draws=cohorts.draws_of(name),
        )
        for name in plan.ranks
    }


def test_parties_without_their_draws_are_refused() -> None:
    """Nobody takes part in every round where amplification is claimed, nor draws where none is."""
    plan, open_to_all = make_plan(), make_plan(privacy={**SECRET, "sample_rate": 1.0})

    for each, draws in ((plan, None), (open_to_all, Draws(key=KEY, rate=RATE))):
        with pytest.raises(PlanError, match="must come with secret draws"):
            Participant(
                "small-01",
                plan=each,
                secure_sum=client_sum(each, "small-01"),
                train=still,
                examples=5,
                draws=draws,
            )


def test_a_client_that_is_not_drawn_refuses_and_is_not_asked() -> None:
    """A server that asks everybody hears a refusal of each but those that are drawn; ours asks these alone."""
    plan, cohorts = make_plan(), SecretCohorts(KEY, rate=RATE)
    number = next(n for n in range(1, 9) if 0 < len(cohorts.asked(plan.ranks, n)) < 6)
    drawn = cohorts.asked(plan.ranks, number)
    session = plan.session(run=RUN, round_number=number, attempt=1)
    greedy = SessionServer(plan, session, server_sum(plan))
    ours = SessionServer(plan, session, server_sum(plan), asked=drawn)

    outcomes = []
    for talk in (greedy, ours):
        exchange = InMemory(people(plan, cohorts))
        prepare_round(talk, exchange)
        outcomes.append(run_round(plan, talk, zeros(plan), exchange))

    assert set(outcomes[0].refusals) == set(plan.ranks) - drawn
    assert all("is not drawn for round" in reason for reason in outcomes[0].refusals.values())
    assert (outcomes[1].refusals, outcomes[1].dropped) == ({}, {})
    assert set(outcomes[0].survivors) == set(outcomes[1].survivors) == drawn


def test_what_a_client_is_sent_does_not_depend_on_who_else_is_drawn() -> None:
    """Bit for bit the same requests, whoever is asked beside it."""
    plan = make_plan()
    one = SecretCohorts(KEY, rate=RATE)
    number = next(n for n in range(1, 9) if len(one.asked(plan.ranks, n)) > 1)
    me = min(one.asked(plan.ranks, number))
    sent = []
    for beside in (one.asked(plan.ranks, number), frozenset({me})):
        exchange = InMemory(people(plan, one))
        talk = SessionServer(
            plan, plan.session(run=RUN, round_number=number, attempt=1), server_sum(plan), asked=beside
        )
        prepare_round(talk, exchange)
        run_round(plan, talk, zeros(plan), exchange)
        sent.append([data for _, client, data in exchange.seen if client == me])

    assert sent[0] == sent[1]
    assert sent[0]


class Sampled:
    """A run folder and its coordinators, each of which makes draws of its own."""

    def __init__(self, path: Path, **changes: Any) -> None:
        self.plan = make_plan(**changes)
        self.folder = RunFolder.create(path, self.plan.config)

    def go_on(self, *, observe: Any = lambda *_: None, cohorts: SecretCohorts | None = None) -> None:
        draws = cohorts or SecretCohorts.of(self.plan)
        assert draws is not None
        Coordinator(
            plan=self.plan,
            secure_sum=server_sum(self.plan),
            folder=self.folder,
            exchange=InMemory(people(self.plan, draws)),
            evaluate=lambda _: (0.5, 1.0),
            stopwatch=Stopwatch(),
            observers=[WhenSaved(observe)],
            cohorts=draws,
        ).run(self.folder.load(self.plan))


def sampled(rounds: int, *, rate: float = RATE, multiplier: float = 1.5) -> float:
    one = Release(noise_multiplier=multiplier, slack=0.0, rho=math.nan, sample_rate=rate)
    return epsilon([one] * rounds, 1e-5)


def test_every_round_counts_for_everybody_as_sampled(tmp_path: Path) -> None:
    """Whether a client was drawn or not: eight sampled releases, against readers and other clients."""
    run = Sampled(tmp_path / "run")
    run.go_on()

    ledger = Ledger.read(run.folder.path)

    assert [entry.clients for entry in ledger.entries] == [tuple(run.plan.ranks)] * 8
    assert {entry.public.sample_rate for entry in ledger.entries if entry.public} == {RATE}
    for observer in (Observer.PUBLIC, Observer.PARTICIPANT):
        assert ledger.epsilon(observer) == pytest.approx(sampled(8), rel=1e-6)
        assert ledger.epsilon(observer) >= sampled(8)
    assert ledger.epsilon(Observer.SERVER) == math.inf
    assert any("by a secret draw" in line for line in PrivacySummary.of(ledger).lines())


def test_an_attempt_that_a_crash_cut_short_counts_as_another_sample(tmp_path: Path) -> None:
    """The key is nowhere in the folder: whoever goes on draws anew, and two attempts at a round are two sampled releases."""
    run = Sampled(tmp_path / "run", rounds=2)

    def killed(*_: object, **__: object) -> None:
        raise InterruptedError

    cohorts = SecretCohorts(KEY, rate=RATE)
    with pytest.MonkeyPatch.context() as dying:
        dying.setattr(RunFolder, "save", killed)
        with pytest.raises(InterruptedError):
            run.go_on(cohorts=cohorts)
    run.folder.close()
    run.folder = RunFolder.open(run.folder.path)
    run.go_on()

    ledger = Ledger.read(run.folder.path)
    assert [(entry.round, entry.attempt) for entry in ledger.entries] == [(1, 1), (1, 2), (2, 2)]
    assert ledger.epsilon(Observer.PUBLIC) == pytest.approx(sampled(3), rel=1e-6)
    files = [path for path in run.folder.path.rglob("*") if path.is_file()]
    assert not any(KEY in path.read_bytes() or KEY.hex().encode() in path.read_bytes() for path in files)


def moved(run: Sampled, number: int) -> npt.NDArray[np.float64]:
    """The first band's rows after a round less those before it, in integer units of the sum: times what it is divided by."""
    adapters = [zeros(run.plan), *run.folder.adapters(run.plan)]
    rows = adapters[number].rows[:1].astype(np.float64) - adapters[number - 1].rows[:1]
    return rows.ravel() * RATE * 6 * run.plan.quantizer.scale


def test_the_noise_tells_nobody_how_many_were_drawn(tmp_path: Path) -> None:
    """Rounds of none, one and more move every row by noise of one scale. Divided by who came, it would be another each time."""
    run = Sampled(tmp_path / "run")
    cohorts = SecretCohorts(b"none and some more", rate=RATE)
    run.go_on(cohorts=cohorts)

    counts = [len(record.survivors) for record in run.folder.load(run.plan).records]
    mechanism = run.plan.mechanism
    assert mechanism is not None
    std = math.sqrt(mechanism.variance())
    assert len(set(counts)) > 2
    assert 0 in counts
    for number, count in enumerate(counts, start=1):
        noise = moved(run, number)
        assert has_std(noise, std)
        divided_by_who_came = noise / (RATE * 6) * max(1, count)
        assert not has_std(divided_by_who_came, std)


def test_nobody_drawn_ends_no_run(tmp_path: Path) -> None:
    """A rate of nearly nothing: eight rounds of noise, none of them aborted."""
    run = Sampled(tmp_path / "run", privacy={**SECRET, "sample_rate": 1e-6})
    run.go_on()

    records = run.folder.load(run.plan).records
    assert [(record.survivors, record.aborted) for record in records] == [([], "")] * 8
    assert len({record.adapter for record in records}) == 8


def test_a_client_accepts_what_honest_rounds_lead_to() -> None:
    """Everybody drawn, by chance, moves rows by more than everybody else expects: no honest adapter is refused."""

    def leap(adapter: Adapter, _seed: int) -> Rows:
        return adapter.rows + np.float32(100.0)

    plan = make_plan(noise_multiplier=0.1, rounds=40)
    cohorts = SecretCohorts(KEY, rate=RATE)
    exchange = InMemory(people(plan, cohorts, train=leap))
    adapter, seen, refused = zeros(plan), set(), {}
    for number in range(1, 41):
        drawn = cohorts.asked(plan.ranks, number)
        session = plan.session(run=RUN, round_number=number, attempt=1)
        talk = SessionServer(plan, session, server_sum(plan), asked=drawn)
        prepare_round(talk, exchange)
        outcome = run_round(plan, talk, adapter, exchange)
        adapter, refused = outcome.adapter, {**refused, **outcome.refusals}
        seen.add(len(outcome.survivors))
        assert not outcome.refused_bands

    assert refused == {}
    assert max(seen) >= 4


def test_limits_of_honest_steps_have_room_for_everybody_drawn_at_once() -> None:
    """Six clients divided by one and a half, in one direction, and noise of six standard deviations beside them."""
    plan = make_plan(noise_multiplier=0.1)
    mechanism = plan.mechanism
    assert mechanism is not None
    std = math.sqrt(mechanism.variance()) / plan.quantizer.scale / (RATE * 6)
    length = mechanism.bands[0].length

    limits = average_limits(plan)

    assert limits.coordinates[0] > plan.quantizer.bound / RATE + 6 * std
    assert limits.bands[0] > plan.config.clip_norm / RATE + std * math.sqrt(length)
    assert limits.total >= limits.bands[0]


# --- what is foretold ---


def told(plan: Plan) -> Any:
    assert plan.mechanism is not None
    return forecast(plan, plan.mechanism)


def test_the_forecast_says_who_may_not_know_what() -> None:
    """The sampled figure against readers and clients, none against the server, and the one against whoever learns the draws."""
    found = told(make_plan())

    assert found.views[Observer.PUBLIC] == found.views[Observer.PARTICIPANT]
    assert found.views[Observer.PUBLIC] == pytest.approx(sampled(8), rel=1e-6)
    assert found.views[Observer.SERVER] == math.inf
    assert [(band.holders, band.signal_to_noise) for band in found.bands] == [
        (round(RATE * count), pytest.approx(RATE * count / (1.5 * math.sqrt(rank * LAYOUT.row_length))))
        for rank, count in ((1, 6), (3, 3))
    ]
    most = most_drawn(clients=6, rounds=8, rate=RATE)
    known = epsilon([Release(noise_multiplier=1.5, slack=0.0, rho=math.nan)] * most, 1e-5)
    assert any(
        f"whoever learns who took part: epsilon {rounded_up(known)} after {most}" in t
        for t in found.assumptions
    )
    assert any("do not learn who takes part" in text for text in found.assumptions)


@pytest.mark.parametrize(("clients", "rounds", "rate"), [(6, 8, 0.25), (1000, 100, 0.1), (10, 500, 0.9)])
def test_no_client_is_drawn_more_often_than_is_told(clients: int, rounds: int, rate: float) -> None:
    """But for one run in a hundred at most, by the exact law; and half as many rounds more would be told without reason."""
    most = most_drawn(clients=clients, rounds=rounds, rate=rate)
    above = [
        math.exp(
            math.lgamma(rounds + 1) - math.lgamma(k + 1) - math.lgamma(rounds - k + 1)
            + k * math.log(rate) + (rounds - k) * math.log1p(-rate)
        )
        for k in range(most + 1, rounds + 1)
    ]  # fmt: skip

    assert clients * sum(above) <= 0.01
    assert most < 1.2 * rounds * rate + 6 * math.sqrt(rounds * rate * (1 - rate))


def test_a_budget_is_checked_with_the_sampling() -> None:
    """Eight sampled rounds fit where eight of everybody would not; too small a budget names the noise that would do."""
    enough = sampled(8) * 1.01

    make_plan(privacy={**SECRET, "max_epsilon": enough})
    with pytest.raises(PlanError, match="rounds of one client spend"):
        make_plan(privacy={**SECRET, "max_epsilon": enough, "sample_rate": 1.0})
    with pytest.raises(PlanError, match=r"noise-multiplier=.* or more would do") as refusal:
        make_plan(privacy={**SECRET, "max_epsilon": 0.5})
    needed = float(str(refusal.value).split("noise-multiplier=")[-1].split()[0])
    assert sampled(8, multiplier=needed) <= 0.5 < sampled(8, multiplier=needed * 0.98)


def test_what_each_party_learned_names_no_cohort_to_clients() -> None:
    """A client sees the roster; a reader of the folder is told that it names who answered."""
    rows = {row.party: row for row in what_each_party_learned(make_plan(), [])}

    assert "who took part" not in rows["each client"].saw
    assert "who answered" in rows["reader of the run folder"].hidden


# --- accounting ---


@pytest.mark.parametrize(("z", "q", "rounds"), [(1.0, 0.1, 100), (2.0, 0.25, 20), (0.8, 0.05, 30)])
def test_sampled_releases_are_between_an_accountants_own_bounds(z: float, q: float, rounds: int) -> None:
    """Another convolution, rounded up and down, holds ours between them."""
    ours = sampled(rounds, rate=q, multiplier=z)

    assert ours <= privacy_loss.epsilon(z, q, rounds, 1e-5) * 1.001
    assert ours >= privacy_loss.epsilon(z, q, rounds, 1e-5, upper=False)


def test_releases_of_several_rates_compose() -> None:
    """Sampled ones, others and those of another rate: between the sum of all and what each part spends, as the tests' own."""
    width, z = 1e-4, 1.0
    parts = [(z, 0.1, 40), (1.5, 0.25, 10), (2.0, 1.0, 3)]
    releases = [
        Release(noise_multiplier=m, slack=0.0, rho=math.nan, sample_rate=q)
        for m, q, count in parts
        for _ in range(count)
    ]

    ours = epsilon(releases, 1e-5)

    def theirs(*, upper: bool) -> float:
        def composed(*, removed: bool) -> privacy_loss.Losses:
            found = [
                privacy_loss._of_step(m, q, width, removed=removed, upper=upper).times(n) for m, q, n in parts
            ]
            return found[0].plus(found[1]).plus(found[2])

        return max(composed(removed=removed).epsilon(1e-5, width) for removed in (True, False))

    assert theirs(upper=False) <= ours <= theirs(upper=True) * 1.001


def test_a_lower_rate_never_spends_more_and_little_noise_is_not_sampled() -> None:
    """Rising with the rate up to that of everybody; below the least noise, sampling is not counted."""
    spent = [sampled(5, rate=rate, multiplier=1.0) for rate in (0.01, 0.1, 0.5, 0.9, 0.999)]

    assert spent == sorted(spent)
    assert spent[-1] <= sampled(5, rate=1.0, multiplier=1.0) * 1.001
    assert sampled(5, rate=0.1, multiplier=0.05) == sampled(5, rate=1.0, multiplier=0.05)
    assert sampled(5, rate=0.1, multiplier=0.0) == math.inf


# --- the claim under attack ---

RUNS, PLAYED, HIT = 20_000, 20, 0.1


def wide_plan(seed: int) -> Plan:
    """One row; every run of the attack is a coordinate of its own, and the noise of another seed another."""
    layer = LinearShape(name="runs", in_features=RUNS - 1, out_features=1)
    return make_plan(
        AdapterLayout(layers=(layer,), scaling=1.0),
        tiers={"all": {"rank": 1, "clients": 8}},
        seed=seed,
        rounds=PLAYED,
        noise_multiplier=1.0,
        quantization={"bits": 16, "bound": 1.0},
        privacy={**SECRET, "sample_rate": HIT, "simulation": True},
    )


def scores(seed: int, drawn: Mapping[int, npt.NDArray[np.bool_]]) -> npt.NDArray[np.float64]:
    """By run, the likelihood ratio of a canary that is drawn with the rate, from the averages of all rounds."""
    plan, found = wide_plan(seed), np.zeros(RUNS)
    mechanism = plan.mechanism
    assert mechanism is not None
    for number in range(1, PLAYED + 1):
        session = plan.session(run=RUN, round_number=number, attempt=1)
        values = plan.quantizer.levels * drawn[number].astype(np.int64)
        result = SumResult(survivors=(), sums={0: values}, refused={})
        total = release(plan, session, mechanism, result).totals[0]
        # What readers see is the average; they know what it is divided by.
        y = total.weighted_sum / total.weight * HIT * 8 / plan.config.clip_norm
        found += np.log1p(HIT * np.expm1(y - 0.5))
    return found


def lower_bound(there: npt.NDArray[np.float64], absent: npt.NDArray[np.float64]) -> float:
    """Of epsilon at delta 1e-5, with 99.9 %: by the rates of the best of some thresholds, chosen on the first quarter."""
    from scipy import stats  # noqa: PLC0415

    def bound(there: npt.NDArray[np.float64], absent: npt.NDArray[np.float64], at: float) -> float:
        hits, false = int((there > at).sum()), int((absent > at).sum())
        true_rate = stats.beta.ppf(5e-4, hits, len(there) - hits + 1) if hits else 0.0
        false_rate = stats.beta.ppf(1 - 5e-4, false + 1, len(absent) - false)
        return float(np.log(max(true_rate - 1e-5, 1e-12) / false_rate))

    cut = RUNS // 4
    best = max(
        np.quantile(there[:cut], np.linspace(0.02, 0.999, 60)),
        key=lambda at: bound(there[:cut], absent[:cut], at),
    )
    return bound(there[cut:], absent[cut:], best)


def draws(rate: float) -> dict[int, npt.NDArray[np.bool_]]:
    """By round, in which runs the canary takes part."""
    found = {}
    for number in range(1, PLAYED + 1):
        key = number.to_bytes(16, "big")
        one = Draws(key=key, rate=rate)
        found[number] = np.array([one.takes_part(run) for run in range(1, RUNS + 1)])
    return found


def test_the_pipeline_keeps_its_claim_and_a_canary_that_is_always_there_refutes_it() -> None:
    """Drawn in one of ten rounds it shows less than is claimed, and not nothing; asked in every second round, more."""
    nobody = {number: np.zeros(RUNS, dtype=np.bool_) for number in range(1, PLAYED + 1)}
    absent, claimed = scores(2, nobody), sampled(PLAYED, rate=HIT, multiplier=1.0)

    ours, fault = (lower_bound(scores(1, draws(rate)), absent) for rate in (HIT, 0.5))

    assert 0.5 < ours < claimed < fault
