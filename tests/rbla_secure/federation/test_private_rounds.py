"""Noise through the whole protocol: its scale in every secure sum, what it costs, and that nothing else gets out."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from protocols.homomorphic.services.operated import HomomorphicServices
from protocols.identity.trust import ThrowawayAuthority
from protocols.session import ClientId
from rbla_secure.errors import BudgetError, PlanError, PrivacyError
from rbla_secure.federation.client.participant import Participant
from rbla_secure.federation.coordinator import Coordinator
from rbla_secure.federation.exchange import Exchange
from rbla_secure.federation.round import RoundOutcome, prepare_round, run_round
from rbla_secure.federation.server.session_server import SessionServer
from rbla_secure.lora.adapter import Adapter, AdapterLayout, LinearShape, Rows
from rbla_secure.planning.modes import build_secure_sum
from rbla_secure.planning.modes.homomorphic import charge_of
from rbla_secure.planning.plan import Plan
from rbla_secure.privacy.accounting import epsilon
from rbla_secure.privacy.ledger import FILE, Ledger, Observer
from rbla_secure.privacy.noise import Release
from rbla_secure.privacy.noise.distributed import DistributedDiscreteGaussian
from rbla_secure.run_folder.folder import RunFolder
from rbla_secure.run_folder.records import RoundRecord
from rbla_secure.stopwatch import Stopwatch
from tests.support.federations import RUN, InMemory, WhenSaved, beginning_with, diverge, make_config
from tests.support.identities import NOW, client_sum, server_sum
from tests.support.noise_law import has_std, tells_wrong_scales

# One wide layer: thousands of coordinates, so that a scale can be told from its two thirds.
LAYOUT = AdapterLayout(layers=(LinearShape(name="wide", in_features=1500, out_features=900),), scaling=2.0)
NOISY: dict[str, Any] = {"noise_multiplier": 1.5, "clip_norm": 1.0, "privacy": {"colluders": 0}}
MODES = ["plain", "masking", "homomorphic"]


def make_plan(**changes: Any) -> Plan:
    plan = Plan.build(make_config(**{**NOISY, **changes}), layout=LAYOUT, base_digest=bytes(32))
    return beginning_with(plan, zeros(plan))


def still(adapter: Adapter, seed: int) -> Rows:  # noqa: ARG001
    """Training that changes nothing: what is released is noise alone."""
    return adapter.rows.copy()


def people(
    plan: Plan, authority: ThrowawayAuthority | None, train: Any = still
) -> dict[ClientId, Participant]:
    def sum_of(name: ClientId) -> Any:
        if authority is None:
            return client_sum(plan, name)
        return build_secure_sum(plan, authority.view, authority.identity(name))

    return {
        name: Participant(name, plan=plan, secure_sum=sum_of(name), train=train, examples=5)
        for name in plan.ranks
    }


@pytest.fixture
def services() -> Iterator[list[HomomorphicServices]]:
    """Those that a test has started, ended with it."""
    started: list[HomomorphicServices] = []
    yield started
    for each in started:
        each.close()


def play(
    plan: Plan,
    services: list[HomomorphicServices],
    *,
    silent: tuple[ClientId, ...] = (),
    train: Any = still,
) -> RoundOutcome:
    """One round from a zero adapter."""
    session = plan.session(run=RUN, round_number=1, attempt=1, cohort=plan.cohort(1))
    authority = None
    if plan.config.secure_sum == "homomorphic":
        services.append(HomomorphicServices(charge_of(plan)))
        authority = ThrowawayAuthority.create(plan.ranks, now=NOW, services=services[-1].public_keys())
        secure_sum = build_secure_sum(plan, authority.view, roles=services[-1].set_up(authority.view))
    else:
        secure_sum = server_sum(plan)
    session_server = SessionServer(plan, session, secure_sum)
    exchange = InMemory(
        people(plan, authority, train), silent_from=dict.fromkeys(silent, secure_sum.input_stage)
    )
    prepare_round(session_server, exchange)
    return run_round(plan, session_server, zeros(plan), exchange)


def zeros(plan: Plan) -> Adapter:
    rows = np.zeros((plan.max_rank, plan.layout.row_length), dtype=np.float32)
    return Adapter(layout=plan.layout, rows=rows)


def noise_in(plan: Plan, outcome: RoundOutcome, band: int) -> npt.NDArray[np.float64]:
    """The noise on the sum of a band, from what moved in the adapter."""
    start, stop = plan.bands[band].start, plan.bands[band].stop
    rows = outcome.adapter.rows[start:stop].astype(np.float64).reshape(-1)
    return rows * outcome.holders[band]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("upload", ["banded", "padded"])
def test_the_noise_on_every_sum_has_the_planned_scale(
    mode: str, upload: str, services: list[HomomorphicServices]
) -> None:
    """In every secure sum and band it is noise-multiplier times clip-norm; two thirds and three halves would be noticed."""
    plan = make_plan(secure_sum=mode, upload=upload, quantization={"ring_bits": 20, "bound": 0.1})

    outcome = play(plan, services)

    assert outcome.aborted == ""
    for band in (0, 1):
        noise = noise_in(plan, outcome, band)
        assert tells_wrong_scales(noise.size)
        sensitivity = plan.mechanism.sensitivity(plan.config.privacy.adjacency)  # type: ignore[union-attr]
        claimed = 1.5 * sensitivity / plan.quantizer.scale
        assert 1.0 <= claimed / 1.5 < 1.2  # the rounded bound is little more than the clip norm
        assert has_std(noise, claimed)
        assert not has_std(noise, claimed * 2 / 3)
        assert not has_std(noise, claimed * 3 / 2)


@pytest.mark.parametrize("silent", [("large-01", "small-01"), ("small-01", "small-02")])
def test_drop_outs_leave_the_noise_that_is_counted(
    silent: tuple[ClientId, ...], services: list[HomomorphicServices]
) -> None:
    """Without provision, each missing share is missing from the noise, and the scale falls as the square root."""
    plan = make_plan(secure_sum="masking", min_holders=2, masking={"profile": "semi-honest"})

    outcome = play(plan, services, silent=silent)

    sensitivity = plan.mechanism.sensitivity(plan.config.privacy.adjacency)  # type: ignore[union-attr]
    claimed = 1.5 * sensitivity / plan.quantizer.scale
    left = 6 - len(silent)
    assert has_std(noise_in(plan, outcome, 0), claimed * math.sqrt(left / 6))
    assert not has_std(noise_in(plan, outcome, 0), claimed)


def test_provision_for_drop_outs_brings_the_noise_back(services: list[HomomorphicServices]) -> None:
    """With an expected drop-out of a third, four of six clients carry the planned noise."""
    plan = make_plan(
        secure_sum="masking",
        min_holders=2,
        masking={"profile": "semi-honest"},
        privacy={"colluders": 0, "expected_dropout": 0.33},
    )

    outcome = play(plan, services, silent=("small-01", "large-01"))

    sensitivity = plan.mechanism.sensitivity(plan.config.privacy.adjacency)  # type: ignore[union-attr]
    claimed = 1.5 * sensitivity / plan.quantizer.scale
    assert has_std(noise_in(plan, outcome, 0), claimed)
    assert has_std(noise_in(plan, outcome, 1), claimed)


def test_the_servers_noise_has_the_planned_scale(services: list[HomomorphicServices]) -> None:
    """A trusted server adds the same noise once, before it divides."""
    plan = make_plan(secure_sum="masking", privacy={"mechanism": "central"})

    outcome = play(plan, services)

    sensitivity = plan.mechanism.sensitivity(plan.config.privacy.adjacency)  # type: ignore[union-attr]
    for band in (0, 1):
        assert has_std(noise_in(plan, outcome, band), 1.5 * sensitivity / plan.quantizer.scale)


@pytest.mark.parametrize("mode", ["plain", "masking"])
def test_noise_is_new_every_time_unless_the_run_is_a_simulation(
    mode: str, services: list[HomomorphicServices]
) -> None:
    """Two equal runs differ; marked as simulation they are the same to the bit, and the warning says what that is worth."""
    changes: dict[str, Any] = {"secure_sum": mode}
    simulated = {**changes, "privacy": {"colluders": 0, "simulation": True}}

    first, second = (play(make_plan(**changes), services).adapter.digest() for _ in range(2))
    third, fourth = (play(make_plan(**simulated), services).adapter.digest() for _ in range(2))

    assert first != second
    assert third == fourth


def test_simulated_noise_is_the_same_in_every_secure_sum(services: list[HomomorphicServices]) -> None:
    """At their common capacity, plain, masked and encrypted sums carry the very same noise."""
    digests = {
        play(
            make_plan(
                secure_sum=mode,
                quantization={"ring_bits": 20, "bound": 0.1},
                privacy={"colluders": 0, "simulation": True},
            ),
            services,
        ).adapter.digest()
        for mode in MODES
    }

    assert len(digests) == 1


def test_under_noise_no_statistic_of_the_data_is_sent(services: list[HomomorphicServices]) -> None:
    """Weights and cut-off shares are gone from uploads: every integer is a noised coordinate, and a NaN does not show."""
    plan = make_plan(secure_sum="masking")
    session = plan.session(run=RUN, round_number=1, attempt=1, cohort=plan.cohort(1))

    outcome = play(plan, services, train=diverge)

    assert [s.length for s in session.segments] == [b.height * LAYOUT.row_length for b in plan.bands]
    assert outcome.cut_off is None
    assert outcome.refusals == {}
    assert np.isfinite(outcome.adapter.rows).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": "examples"}, "weights=examples must be uniform"),
        ({"privacy": {"adjacency": "add-or-remove"}}, "add-or-remove needs privacy.mechanism=central"),
        ({"privacy": {"colluders": 3}}, "leave no noise in rows 2-3"),
        ({"noise_multiplier": 0.0, "privacy": {"max_epsilon": 8.0}}, "noise-multiplier=0.0 must be above 0"),
        ({"privacy": {"max_epsilon": 0.5, "colluders": 0}}, "privacy.max-epsilon=0.5 must be >="),
        (
            {"secure_sum": "homomorphic", "homomorphic": {"screening": "verdicts"}},
            "homomorphic.screening=verdicts must be off",
        ),
    ],
)
def test_a_claim_that_the_mechanism_does_not_keep_is_refused(changes: dict[str, Any], message: str) -> None:
    """Before anything is trained, with the argument, its value and the rule."""
    with pytest.raises(PlanError) as refusal:
        make_plan(**{"secure_sum": "masking", **changes})

    assert message in str(refusal.value)


# --- spending ---


class Run:
    """A run folder and its coordinator."""

    def __init__(self, path: Path, **changes: Any) -> None:
        self.plan = make_plan(**{"secure_sum": "masking", **changes})
        self.folder = RunFolder.create(path, self.plan.config)
        self.seen: list[tuple[int, int]] = []

    def coordinator(self, exchange: Any = None) -> Coordinator:
        def evaluate(_: Adapter) -> tuple[float, float]:
            return 0.5, 1.0

        def observe(record: RoundRecord, _: object) -> None:
            self.seen.append((record.round, len(Ledger.read(self.folder.path).entries)))

        return Coordinator(
            plan=self.plan,
            secure_sum=server_sum(self.plan),
            folder=self.folder,
            exchange=exchange or InMemory(people(self.plan, None)),
            evaluate=evaluate,
            stopwatch=Stopwatch(),
            observers=[WhenSaved(observe)],
        )

    def go_on(self, exchange: Any = None) -> Any:
        return self.coordinator(exchange).run(self.folder.load(self.plan))


def of_rounds(rounds: int, multiplier: float = 1.5) -> float:
    return epsilon([Release(noise_multiplier=multiplier, slack=0.0, rho=math.nan)] * rounds, 1e-5)


def test_every_round_is_in_the_ledger_at_its_price(tmp_path: Path) -> None:
    """Three rounds of everybody cost what three releases of the planned noise cost, and a little slack of the sampler."""
    run = Run(tmp_path / "run", rounds=3)

    run.go_on()

    ledger = Ledger.read(run.folder.path)
    assert [(entry.round, entry.attempt) for entry in ledger.entries] == [(1, 1), (2, 1), (3, 1)]
    assert ledger.epsilon(Observer.COALITION) == pytest.approx(of_rounds(3), rel=0.01)
    assert ledger.epsilon(Observer.COALITION) >= of_rounds(3)
    assert run.seen == [(1, 1), (2, 2), (3, 3)]


def test_an_attempt_is_recorded_before_anybody_is_asked_to_reveal(tmp_path: Path) -> None:
    """When the requests to reveal go out, the round is on the disk already, with those who contributed."""
    run = Run(tmp_path / "run", rounds=1)
    entries_at_reveal: list[int] = []

    class Watching(Exchange):
        def __init__(self) -> None:
            self.inner = InMemory(people(run.plan, None), silent_from={"small-01": "mask_input"})

        def send(self, messages: Any) -> Any:
            stages = {parcel.stage for parcels in messages.values() for parcel in parcels}
            if "reveal_shares" in stages:
                entries_at_reveal.append(len(Ledger.read(run.folder.path).entries))
            yield from self.inner.send(messages)

    run.go_on(Watching())

    assert entries_at_reveal == [1]
    (entry,) = Ledger.read(run.folder.path).entries
    assert "small-01" not in entry.clients
    assert len(entry.clients) == 5


def test_drop_outs_cost_more_and_the_ledger_says_so(tmp_path: Path) -> None:
    """With a missing share the noise is less, and the larger epsilon of what was really there is written down."""
    whole, thin = Run(tmp_path / "whole", rounds=1), Run(tmp_path / "thin", rounds=1)
    whole.go_on()

    thin.go_on(InMemory(people(thin.plan, None), silent_from={"small-01": "mask_input"}))

    spent = [Ledger.read(run.folder.path).epsilon(Observer.COALITION) for run in (whole, thin)]
    assert spent[1] == pytest.approx(of_rounds(1, 1.5 * math.sqrt(5 / 6)), rel=0.01)
    assert spent[1] > 1.05 * spent[0]


def test_a_run_stops_before_it_exceeds_its_budget(tmp_path: Path) -> None:
    """A drop-out takes it nearer than planned; the round that would exceed is not trained, and what is done stays."""
    limit = of_rounds(3) * 1.001
    run = Run(tmp_path / "run", rounds=3, privacy={"colluders": 1, "max_epsilon": limit})

    with pytest.raises(BudgetError, match="above max-epsilon"):
        run.go_on(InMemory(people(run.plan, None), silent_in={(1, "small-01"): "mask_input"}))

    assert run.folder.load(run.plan).round == 2
    assert Ledger.read(run.folder.path).epsilon(Observer.COALITION) <= limit


def test_a_resumed_run_forgets_nothing(tmp_path: Path) -> None:
    """Without its ledger, or with one that lacks a round, a run does not go on."""
    run = Run(tmp_path / "run", rounds=2)
    run.go_on()
    ledger = run.folder.path / FILE
    whole = ledger.read_bytes()
    ledger.unlink()

    with pytest.raises(PrivacyError, match=r"is missing with the 2 entries that events\.jsonl holds"):
        run.go_on()

    ledger.write_bytes(whole)
    run.go_on()


def test_the_mechanism_fits_the_fields_of_encrypted_sums() -> None:
    """Under encryption the grid leaves room for noise in a slot's field, not only in the ring."""
    wide = make_plan(secure_sum="masking").mechanism
    narrow = make_plan(secure_sum="homomorphic").mechanism

    assert isinstance(wide, DistributedDiscreteGaussian)
    assert isinstance(narrow, DistributedDiscreteGaussian)
    assert 6 * narrow.input_bound < 2**19 <= 6 * wide.input_bound
    assert narrow.quantizer.bits < wide.quantizer.bits


@pytest.mark.parametrize("clipping", ["adaptive", "per-layer"])
@pytest.mark.parametrize("mode", ["masking", "homomorphic"])
def test_other_clipping_rules_go_through_whole_rounds(
    clipping: str, mode: str, services: list[HomomorphicServices]
) -> None:
    """Adaptive and per-layer clipping open every band under noise in the secure sums."""
    plan = make_plan(
        secure_sum=mode,
        noise_multiplier=1.0,
        privacy={"colluders": 0, "clipping": clipping, "count_noise": 3.0}
        if clipping == "adaptive"
        else {"colluders": 0, "clipping": clipping},
    )

    outcome = play(plan, services)

    assert outcome.aborted == ""
    assert set(outcome.holders) == {0, 1}
    assert (outcome.unclipped is not None) == (clipping == "adaptive")
