"""A band opens over its row quorum alone, in every mode."""

from collections.abc import Iterator

import pytest

from protocols.homomorphic.services.operated import HomomorphicServices
from protocols.identity.trust import ThrowawayAuthority
from protocols.session import ClientId
from rbla_secure.federation.client.participant import Participant
from rbla_secure.federation.round import RoundOutcome, prepare_round, run_round
from rbla_secure.federation.server.session_server import SessionServer
from rbla_secure.lora.adapter import Adapter
from rbla_secure.planning.forecast import forecast
from rbla_secure.planning.modes import build_secure_sum
from rbla_secure.planning.modes.homomorphic import charge_of
from rbla_secure.planning.noise import views
from rbla_secure.planning.plan import Plan
from rbla_secure.privacy.accounting import epsilon
from rbla_secure.privacy.ledger import Observer
from rbla_secure.report.console import band_rows
from rbla_secure.report.disclosure import what_each_party_learned
from rbla_secure.robustness.quorum import band_quorum
from tests.rbla_secure.federation.server.defended import quorum_plan
from tests.support.defended import defended_round, make_plan
from tests.support.federations import (
    InMemory,
    drift,
    make_adapter,
    make_participants,
    make_session,
)
from tests.support.identities import NOW, server_sum
from tests.support.records import make_record

MASKED = [("masking", profile) for profile in ("semi-honest", "one-answer", "consistency")]
MODES = [("plain", "one-answer"), *MASKED, ("homomorphic", "one-answer")]


@pytest.fixture
def services() -> Iterator[list[HomomorphicServices]]:
    """Those that a test has started, ended with it."""
    started: list[HomomorphicServices] = []
    yield started
    for each in started:
        each.close()


def play(
    plan: Plan, adapter: Adapter, services: list[HomomorphicServices], *, gone: tuple[ClientId, ...]
) -> RoundOutcome:
    """A round in which some clients never send their input, in any mode."""
    if plan.config.secure_sum != "homomorphic":
        stage = server_sum(plan).input_stage
        exchange = InMemory(make_participants(plan), silent_from=dict.fromkeys(gone, stage))
        return defended_round(plan, adapter, exchange)
    services.append(HomomorphicServices(charge_of(plan)))
    authority = ThrowawayAuthority.create(plan.ranks, now=NOW, services=services[-1].public_keys())
    people = {
        name: Participant(
            name,
            plan=plan,
            secure_sum=build_secure_sum(plan, authority.view, authority.identity(name)),
            train=drift,
            examples=10,
        )
        for name in plan.ranks
    }
    secure_sum = build_secure_sum(plan, authority.view, roles=services[-1].set_up(authority.view))
    session_server = SessionServer(plan, make_session(plan), secure_sum)
    exchange = InMemory(people, silent_from=dict.fromkeys(gone, secure_sum.input_stage))
    prepare_round(session_server, exchange)
    return run_round(plan, session_server, adapter, exchange)


# --- the row quorum ---


@pytest.mark.parametrize(("mode", "profile"), MODES)
def test_a_band_below_its_row_quorum_stays_closed(
    mode: str, profile: str, services: list[HomomorphicServices]
) -> None:
    """With four of the five holders of rows 2-3 left, these are unchanged to the bit; row 1 moves."""
    plan = quorum_plan(mode, profile)
    adapter = make_adapter(plan)

    outcome = play(plan, adapter, services, gone=("large-05",))

    assert outcome.aborted == ""
    assert set(outcome.holders) == {0}
    assert "4" in outcome.refused_bands[1]
    assert "5" in outcome.refused_bands[1]
    assert outcome.adapter.rows[1:].tobytes() == adapter.rows[1:].tobytes()
    assert (outcome.adapter.rows[0] != adapter.rows[0]).any()


@pytest.mark.parametrize(("mode", "profile"), MODES)
def test_a_band_at_its_row_quorum_opens(mode: str, profile: str, services: list[HomomorphicServices]) -> None:
    """All five are there; of the others one may be missing."""
    plan = quorum_plan(mode, profile)
    adapter = make_adapter(plan)

    outcome = play(plan, adapter, services, gone=("small-04",))

    assert outcome.holders == {0: 8, 1: 5}
    assert outcome.refused_bands == {}


def test_the_quorum_is_one_number_everywhere() -> None:
    """In the session, for the decryptor, in what is told before and after a run, and in the forecast."""
    quorum = band_quorum(2, 3)
    masked = quorum_plan("masking", "semi-honest")
    encrypted = quorum_plan("homomorphic", homomorphic={"verifier": True})
    noisy = quorum_plan("masking", "semi-honest", noise_multiplier=2.0, privacy={"colluders": 0})
    record = make_record(holders={"rows 1-1": 9, "rows 2-3": 5})

    assert quorum == 5
    for plan in (masked, encrypted, quorum_plan("plain")):
        assert [segment.quorum for segment in make_session(plan).segments] == [quorum, quorum]
    assert charge_of(encrypted).least_quorum == quorum
    assert [row[2] for row in band_rows(masked.promises)] == [str(quorum)] * 2
    lying = {row.party: row.saw for row in what_each_party_learned(encrypted, [record])}
    assert lying["server that lies"] == "the same sums, each over 5 holders or more"
    assert noisy.mechanism is not None
    seen = views(noisy.promises, noisy.mechanism, present={0: quorum, 1: quorum}, colluding=0)
    alone = seen[Observer.COALITION]
    assert forecast(noisy, noisy.mechanism).lying_server == pytest.approx(
        epsilon([alone] * noisy.config.rounds, 1e-5)
    )


def test_a_malicious_server_is_left_with_sums_over_the_quorum() -> None:
    """The table of a run subtracts colluders from the quorum of rows, not from min-holders."""
    plan = make_plan(tiers={"lab": {"rank": 2, "clients": 20}}, secure_sum="masking", robustness={"f": 2})

    rows = what_each_party_learned(plan, [make_record(holders={"rows 1-2": 20})])

    saw = {row.party: row.saw for row in rows}
    assert "the sum of 3 other clients" in saw["malicious server with up to 2 clients"]


def test_without_a_filter_the_quorum_gives_the_bytes_of_a_sum() -> None:
    """NoFilter over single inputs and the sum of the integers end in the same adapter, also where updates are clipped."""
    plan = make_plan(robustness={"filter": "norm-bound", "bound": 1e6}, clip_norm=0.05)
    unfiltered = make_plan(clip_norm=0.05)
    adapter = make_adapter(plan)

    judged = defended_round(plan, adapter, InMemory(make_participants(plan)))
    summed = defended_round(unfiltered, adapter, InMemory(make_participants(unfiltered)))

    assert summed.judged is None
    assert judged.judged is not None
    assert judged.adapter.to_bytes() == summed.adapter.to_bytes()
    assert judged.holders == summed.holders == {0: 10, 1: 5}
