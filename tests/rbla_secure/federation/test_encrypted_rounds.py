"""Rounds under encryption with real services: processes that are metered, die, and are told apart from clients."""

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from protocols.errors import EnrolmentError, RevokedError, StageError
from protocols.homomorphic.messages import RoundKey
from protocols.homomorphic.services.calls import Roles
from protocols.homomorphic.services.messages import SessionRequest, Setup
from protocols.homomorphic.services.operated import HomomorphicServices
from protocols.homomorphic.services.processes import ProcessChannel
from protocols.identity.revocations import issue_revocations
from protocols.identity.trust import ThrowawayAuthority, TrustStore
from rbla_secure.federation.client.participant import Participant
from rbla_secure.federation.round import RoundOutcome, prepare_round, run_round
from rbla_secure.federation.server.session_server import SessionServer
from rbla_secure.planning.modes import build_secure_sum
from rbla_secure.planning.modes.homomorphic import charge_of
from rbla_secure.planning.plan import Plan
from tests.support.federations import (
    LARGE,
    MEMBERS,
    SMALL,
    InMemory,
    diverge,
    drift,
    make_adapter,
    make_participants,
    make_plan,
    make_session,
    play_round,
)

NOW = 1_800_000_000


@dataclass
class Federation:
    """A plan, its services, and everyone's side of the sums."""

    plan: Plan
    services: HomomorphicServices
    authority: ThrowawayAuthority
    roles: Roles

    @classmethod
    def start(cls, *, verifier: bool, rest: str = "folded") -> "Federation":
        """Services in processes of their own, enrolled and set up."""
        plan = make_plan(secure_sum="homomorphic", homomorphic={"verifier": verifier}, lora={"rest": rest})
        services = HomomorphicServices(charge_of(plan))
        authority = ThrowawayAuthority.create(plan.ranks, now=NOW, services=services.public_keys())
        return cls(plan, services, authority, services.set_up(authority.view))

    def participants(self, diverging: str) -> dict[str, Participant]:
        """Everyone enrolled; one may diverge."""
        trust = self.authority.view
        return {
            name: Participant(
                name,
                plan=self.plan,
                secure_sum=build_secure_sum(self.plan, trust, self.authority.identity(name)),
                train=diverge if name == diverging else drift,
                examples=10,
            )
            for name in self.plan.ranks
        }

    def play(self, *numbers: int, diverging: str = "") -> list[RoundOutcome]:
        """Rounds one after the other, each on the same adapter."""
        exchange = InMemory(self.participants(diverging))
        outcomes = []
        for number in numbers:
            secure_sum = build_secure_sum(self.plan, self.authority.view, roles=self.roles)
            session_server = SessionServer(
                self.plan, make_session(self.plan, round_number=number), secure_sum
            )
            prepare_round(session_server, exchange)
            outcomes.append(run_round(self.plan, session_server, make_adapter(self.plan), exchange))
        return outcomes


@pytest.fixture(params=[False, True], ids=["no verifier", "verifier"])
def federation(request: pytest.FixtureRequest) -> Iterator[Federation]:
    """A federation whose processes end with the test."""
    made = Federation.start(verifier=request.param)
    yield made
    made.services.close()


def in_the_clear(number: int) -> RoundOutcome:
    """The same round in plain mode."""
    plan = make_plan()
    return play_round(plan, make_adapter(plan), InMemory(make_participants(plan)), round_number=number)


def test_rounds_under_encryption_give_what_the_clear_gives(federation: Federation) -> None:
    """Round after round, the adapter is bit for bit that of plain mode."""
    outcomes = federation.play(1, 2, 3)

    for number, outcome in enumerate(outcomes, start=1):
        expected = in_the_clear(number)
        assert outcome.adapter.to_bytes() == expected.adapter.to_bytes()
        assert (outcome.survivors, outcome.holders) == (MEMBERS, expected.holders)


def test_a_client_that_cannot_answer_costs_itself_and_its_band(federation: Federation) -> None:
    """A diverged client refuses by name; the band it leaves with two holders keeps its rows, the other one moves."""
    (outcome,) = federation.play(1, diverging=LARGE[0])

    before = make_adapter(federation.plan)
    assert outcome.refusals[LARGE[0]].startswith("UpdateError: ")
    assert outcome.survivors == (*LARGE[1:], *SMALL)
    assert outcome.refused_bands == {1: "2 surviving holders, quorum 3"}
    assert outcome.adapter.rows[1:].tobytes() == before.rows[1:].tobytes()
    assert outcome.adapter.rows[0].tobytes() != before.rows[0].tobytes()


def test_services_are_metered(federation: Federation) -> None:
    """Every service is counted from its first byte: the worker and the verifier get the uploads, the decryptor sums."""
    federation.play(1)

    channels = federation.services.channels()
    assert all(channel.bytes_to > 0 and channel.seconds > 0 for channel in channels.values())
    assert channels["worker"].bytes_to > 4 * channels["decryptor"].bytes_to
    if "verifier" in channels:
        assert channels["verifier"].bytes_to > channels["worker"].bytes_to


def kill(federation: Federation, name: str) -> None:
    """End a service the hard way, and wait until it is gone."""
    channel = federation.services.channels()[name].inner
    assert isinstance(channel, ProcessChannel)
    channel.ready()
    assert channel.pid is not None
    os.kill(channel.pid, signal.SIGKILL)
    os.waitid(os.P_PID, channel.pid, os.WEXITED | os.WNOWAIT)


def test_a_dead_worker_is_replaced(federation: Federation) -> None:
    """A worker that was killed between rounds costs nobody anything."""
    federation.play(1)
    kill(federation, "worker")

    (outcome,) = federation.play(2)

    assert outcome.adapter.to_bytes() == in_the_clear(2).adapter.to_bytes()
    assert (outcome.survivors, outcome.refusals) == (MEMBERS, {})


@pytest.mark.parametrize("rounds_before", [(), (1,)])
def test_a_dead_decryptor_ends_the_round_by_name(
    federation: Federation, rounds_before: tuple[int, ...]
) -> None:
    """Without its decryptor a round aborts, nobody is blamed, the adapter stays as it was, and no error escapes."""
    federation.play(*rounds_before)
    kill(federation, "decryptor")

    (outcome,) = federation.play(2)

    assert outcome.aborted == "the decryptor: decryptor: it was ended by SIGKILL"
    assert outcome.adapter.to_bytes() == make_adapter(federation.plan).to_bytes()
    assert (outcome.survivors, outcome.holders, outcome.refusals) == ((), {}, {})


def test_a_dead_verifier_ends_the_round_by_name() -> None:
    """Where the plan has a verifier, nothing is opened without it."""
    federation = Federation.start(verifier=True)
    federation.play(1)
    kill(federation, "verifier")

    (outcome,) = federation.play(2)

    federation.services.close()
    assert outcome.aborted.startswith("the verifier: verifier: it was ended by SIGKILL")
    assert outcome.adapter.to_bytes() == make_adapter(federation.plan).to_bytes()


def test_a_round_takes_two_exchanges(federation: Federation) -> None:
    """Everybody commits in the exchange that carries key and adapter, and uploads in the next one, which carries no rows."""
    exchange = InMemory(federation.participants(""))
    secure_sum = build_secure_sum(federation.plan, federation.authority.view, roles=federation.roles)
    session_server = SessionServer(federation.plan, make_session(federation.plan), secure_sum)
    prepare_round(session_server, exchange)
    outcome = run_round(federation.plan, session_server, make_adapter(federation.plan), exchange)

    stages = [{parcel.stage for parcels in sent.values() for parcel in parcels} for sent in exchange.sent]
    assert stages == [{"commit_input"}, {"upload_input"}]
    assert outcome.survivors == session_server.contributors == MEMBERS
    receipts = [size for (_, stage), size in outcome.transcript.received.items() if stage == "commit_input"]
    assert max(receipts) < 1000
    lists = [size for (_, stage), size in outcome.transcript.sent.items() if stage == "upload_input"]
    assert max(lists) < 2000


@pytest.mark.parametrize("stage", ["commit_input", "upload_input"])
def test_whoever_falls_silent_at_either_stage_is_in_no_sum(federation: Federation, stage: str) -> None:
    """A client that commits and does not upload counts as little as one that never answered."""
    gone = SMALL[0]
    exchange = InMemory(federation.participants(""), silent_from={gone: stage})
    secure_sum = build_secure_sum(federation.plan, federation.authority.view, roles=federation.roles)
    session_server = SessionServer(federation.plan, make_session(federation.plan), secure_sum)
    prepare_round(session_server, exchange)

    outcome = run_round(federation.plan, session_server, make_adapter(federation.plan), exchange)

    assert outcome.survivors == session_server.contributors == (*LARGE, *SMALL[1:])
    assert outcome.dropped == {gone: stage}


@pytest.mark.parametrize("verifier", [False, True])
def test_where_rows_are_dropped_a_rank_of_few_is_left_out(verifier: bool) -> None:  # noqa: FBT001
    """With two of three clients of a rank left, below the quorum of three, none of them is in a sum, in any band."""
    federation = Federation.start(verifier=verifier, rest="dropped")
    exchange = InMemory(federation.participants(""), silent_from={LARGE[0]: "upload_input"})
    secure_sum = build_secure_sum(federation.plan, federation.authority.view, roles=federation.roles)
    session = make_session(federation.plan)
    session_server = SessionServer(federation.plan, session, secure_sum)
    prepare_round(session_server, exchange)

    outcome = run_round(federation.plan, session_server, make_adapter(federation.plan), exchange)

    federation.services.close()
    assert charge_of(federation.plan).class_quorum == session.class_quorum == 3
    # Three of six are left, and the threshold is four: nothing opens, and nothing is asked for.
    assert outcome.survivors == ()
    assert outcome.aborted.startswith("upload_input: 3 of 6 clients answered")


def test_the_aggregators_channels_set_nothing_up(federation: Federation) -> None:
    """A setup that comes by them is refused by name; the operators' newer lists are taken, older ones are not."""
    setup = Setup(charge=charge_of(federation.plan), trust=federation.authority.view)

    for channel in (federation.roles.decryptor, federation.roles.verifier):
        if channel is not None:
            with pytest.raises(StageError, match="set up by its own operator"):
                channel.call(setup.to_bytes())

    federation.services.configure(federation.authority.trust(NOW + 60))
    other = ThrowawayAuthority.create(
        federation.plan.ranks, now=NOW, services=federation.services.public_keys()
    )
    with pytest.raises((StageError, EnrolmentError)):
        federation.services.configure(other.view)


def taking_back(authority: ThrowawayAuthority, name: str) -> TrustStore:
    """The view of whoever has the list that takes a certificate back."""
    serials = [authority.view.certificates[name].serial]
    listed = issue_revocations(
        authority.key, authority.certificate, serials=serials, number=2, now=NOW + 1, valid_for=1000
    )
    return authority.view.updated(now=NOW + 2, revocations=listed)


def test_a_revoked_member_in_the_cohort_is_named_with_what_to_do(federation: Federation) -> None:
    """By the services, where the server does not know; and by the server itself, before it asks anybody."""
    newer = taking_back(federation.authority, SMALL[0])
    federation.services.configure(newer)

    (outcome,) = federation.play(1)
    assert outcome.aborted.startswith(
        f"the decryptor: RevokedError: the certificate of '{SMALL[0]}' was revoked"
    )
    assert f"no sum with {SMALL[0]} in it is opened: leave it out of the cohort" in outcome.aborted
    assert outcome.adapter.digest() == make_adapter(federation.plan).digest()

    federation.authority = replace(federation.authority, view=newer)
    with pytest.raises(RevokedError, match=f"{SMALL[0]} in it is opened: leave it out of the cohort"):
        federation.play(2)


def test_every_service_is_told_of_one_that_was_taken_back() -> None:
    """The decryptor refuses; the verifier knows all the same, and follows nobody under the decryptor's keys."""
    federation = Federation.start(verifier=True)
    session = make_session(federation.plan)
    roles = federation.roles
    key = RoundKey.from_bytes(roles.decryptor.call(SessionRequest(session=session).to_bytes()))

    with pytest.raises(RevokedError, match="'decryptor' was revoked"):
        federation.services.configure(taking_back(federation.authority, "decryptor"))

    assert roles.verifier is not None
    with pytest.raises(RevokedError, match="'decryptor' was revoked"):
        roles.verifier.call(SessionRequest(session=session, key=key).to_bytes())
    federation.services.close()


def test_sessions_beyond_the_plan_are_refused_before_they_are_read(federation: Federation) -> None:
    """The charge knows how many members and segments there can be."""
    charge = charge_of(federation.plan)

    assert (charge.most_members, charge.most_segments) == (len(MEMBERS), len(federation.plan.bands))
