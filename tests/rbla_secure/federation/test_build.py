"""The builder gives every party what the plan wants, goes on where a run was, and closes what it opened on every way out."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
import pytest

from protocols.errors import ServiceError
from protocols.homomorphic.services.operated import HomomorphicServices
from protocols.identity.trust import ThrowawayAuthority
from protocols.plain import Plain
from protocols.session import ClientId
from rbla_secure.errors import PlanError
from rbla_secure.federation.build import Enrolment, Federation, LocalClient, Wiring, federation, throwaway
from rbla_secure.federation.exchange import Answer, Exchange, Parcel
from rbla_secure.federation.observer import SilentObserver
from rbla_secure.federation.server.step_checks import PublicTests
from rbla_secure.lora.adapter import Adapter
from rbla_secure.planning.plan import Plan
from rbla_secure.run_folder.folder import RunFolder
from rbla_secure.stopwatch import Stopwatch
from tests.support import defended
from tests.support.federations import RUN, InMemory, drift, make_plan, play_round

MODES = ["plain", "masking", "homomorphic"]


@final
class Local(Exchange):
    """Participants in this process, and whether they were let go."""

    def __init__(self, enrolment: Enrolment, clients: Mapping[ClientId, LocalClient]) -> None:
        self.enrolment = enrolment
        self.people = enrolment.participants(clients)
        self.inner = InMemory(self.people)
        self.ended: list[int] = []

    def send(self, messages: Mapping[ClientId, Sequence[Parcel]]) -> Iterator[Answer]:
        yield from self.inner.send(messages)

    def end(self) -> None:
        self.ended.append(os.getpid())


def clients_of(plan: Plan) -> dict[ClientId, LocalClient]:
    return {name: LocalClient(train=drift, examples=10) for name in plan.ranks}


class Builder:
    """Builds federations of a plan, and keeps the exchanges that they were given."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.exchanges: list[Local] = []

    def connect(self, enrolment: Enrolment) -> Local:
        self.exchanges.append(Local(enrolment, clients_of(self.plan)))
        return self.exchanges[-1]

    def wiring(self, **changes: Any) -> Wiring:
        given = {"plan": self.plan, "connect": self.connect, "reference": None, "public_tests": None}
        return Wiring(**{**given, **changes})


def first_round(built: Federation) -> Adapter:
    """The adapter after a round in memory."""
    session = built.plan.session(run=RUN, round_number=1, attempt=1)
    outcome = built.play(session, built.plan.initial_adapter)
    assert len(outcome.survivors) == len(session.members)
    return outcome.adapter


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_is_wired_to_the_same_adapter(mode: str) -> None:
    """As rounds that are put together by hand give it in the clear; services live for as long as the federation."""
    builder = Builder(make_plan(secure_sum=mode))

    with federation(builder.wiring()) as built:
        moved = first_round(built)
        processes = dict(built.services.processes) if built.services is not None else {}

    clear = make_plan()
    by_hand = play_round(
        clear, clear.initial_adapter, InMemory(Local(enrolled(clear), clients_of(clear)).people)
    )
    assert moved.digest() == by_hand.adapter.digest()
    assert bool(processes) == (mode == "homomorphic")
    assert builder.exchanges[0].ended == [os.getpid()]
    assert (builder.exchanges[0].enrolment.identities is None) == (mode == "plain")


def enrolled(plan: Plan) -> Enrolment:
    """Enrolment of a plan in the clear."""
    return Enrolment(plan=plan, secure_sum=Plain(), identities=None, cohorts=None, in_the_clear=True)


def test_everything_is_closed_when_connecting_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """The services too, which were started before: their processes are gone."""
    closed: list[HomomorphicServices] = []
    close = HomomorphicServices.close

    def noted(services: HomomorphicServices) -> None:
        close(services)
        closed.append(services)

    def fail(_enrolment: Enrolment) -> Exchange:
        raise ConnectionError("nobody there")

    monkeypatch.setattr(HomomorphicServices, "close", noted)
    built = federation(Builder(make_plan(secure_sum="homomorphic")).wiring(connect=fail))

    with pytest.raises(ConnectionError, match="nobody there"):
        built.__enter__()

    (services,) = closed
    with pytest.raises(ServiceError):
        services.public_keys()


def test_everything_is_closed_when_a_round_fails() -> None:
    """The exchange is told once."""
    builder = Builder(make_plan(secure_sum="masking"))

    def fail(built: Federation) -> None:
        assert built.exchange is builder.exchanges[0]
        assert builder.exchanges[0].ended == []
        raise InterruptedError

    with pytest.raises(InterruptedError), federation(builder.wiring()) as built:
        fail(built)

    assert builder.exchanges[0].ended == [os.getpid()]


def test_an_exchange_without_participants_here_is_enough() -> None:
    """The builder asks for none: whoever connects decides where they live."""

    @final
    class Elsewhere(Exchange):
        def send(self, messages: Mapping[ClientId, Sequence[Parcel]]) -> Iterator[Answer]:
            yield from ()

    plan = make_plan(secure_sum="masking")
    with federation(Builder(plan).wiring(connect=lambda _enrolment: Elsewhere())) as built:
        outcome = built.play(plan.session(run=RUN, round_number=1, attempt=1), plan.initial_adapter)

    assert outcome.aborted
    assert outcome.adapter.digest() == plan.initial_adapter.digest()


def test_sums_in_the_clear_need_no_keys_and_no_services() -> None:
    """For evaluations: the same adapter, whatever the mode, and nobody is enrolled."""
    builder = Builder(make_plan(secure_sum="homomorphic"))

    def refuse(_plan: Plan, _services: Mapping[ClientId, bytes]) -> ThrowawayAuthority:
        raise AssertionError("nobody signs")

    with federation(builder.wiring(in_the_clear=True, enrol=refuse)) as built:
        moved = first_round(built)

    assert built.services is None
    with federation(Builder(make_plan()).wiring()) as clear:
        assert moved.digest() == first_round(clear).digest()


def test_given_identities_are_the_ones_that_are_used() -> None:
    """Of the server and of every participant."""
    plan = make_plan(secure_sum="masking")
    authority = throwaway(plan, {})
    builder = Builder(plan)

    with federation(builder.wiring(enrol=lambda _plan, _services: authority)) as built:
        first_round(built)

    assert builder.exchanges[0].enrolment.identities is authority


SAMPLED = {
    "noise_multiplier": 1.5,
    "privacy": {"mechanism": "central", "adjacency": "add-or-remove", "sample_rate": 0.5},
}


def test_server_and_clients_are_given_the_same_secret_draws() -> None:
    """Whom the server asks takes part, and nobody else does."""
    plan = make_plan(**SAMPLED)
    builder = Builder(plan)

    with federation(builder.wiring()) as built:
        session = plan.session(run=RUN, round_number=1, attempt=1)
        outcome = built.play(session, plan.initial_adapter)
        assert built.cohorts is not None
        drawn = built.cohorts.asked(plan.ranks, 1)

    assert not outcome.refusals
    assert {client for _, client, _ in builder.exchanges[0].inner.seen} == drawn


class Watching(SilentObserver):
    """What an observer is told of the adapter."""

    def __init__(self) -> None:
        self.moved: list[tuple[bytes, bytes]] = []

    def round_ended(self, before: Adapter, after: Adapter) -> None:
        self.moved.append((before.digest(), after.digest()))


def checks(adapter_of: Plan) -> PublicTests:
    first = adapter_of.initial_adapter
    return PublicTests(
        accuracy=lambda adapter: float(0.5 + (adapter.rows - first.rows).mean()), triggers=lambda _: {}
    )


def test_rounds_in_memory_have_defence_checks_and_observers() -> None:
    """The previous step reaches the defence, the step checks see every step, and observers are told."""
    plan = defended.make_plan(
        robustness={"filter": "centered-clipping", "radius": 0.01, "max_step_norm": 0.001}, rounds=3
    )
    watching = Watching()

    with federation(Builder(plan).wiring(public_tests=checks(plan), observers=[watching])) as built:
        assert built.defence is not None
        assert built.defence.previous_step.by_band() is None
        moved = first_round(built)
        assert built.defence.previous_step.by_band() is not None

    step = moved.rows.astype(np.float64) - plan.initial_adapter.rows
    assert np.linalg.norm(step) == pytest.approx(0.001, rel=1e-3)
    assert watching.moved == [(plan.initial_adapter.digest(), moved.digest())]


def test_without_public_tests_no_step_is_checked() -> None:
    """As in an audit, whose adapter is no model."""
    plan = make_plan(robustness={"max_step_norm": 0.001})

    with federation(Builder(plan).wiring()) as built:
        assert built.step_checks is None
    with federation(Builder(plan).wiring(public_tests=checks(plan))) as built:
        assert built.step_checks is not None


def test_a_run_that_is_gone_on_with_remembers_its_steps(tmp_path: Path) -> None:
    """The lines and the adapter of a whole run, in two pieces: the previous step and the checked adapters are recalled."""
    plan = defended.make_plan(
        robustness={"filter": "centered-clipping", "radius": 0.01, "max_accuracy_drop": 1e-6}, rounds=4
    )

    class Stopping(SilentObserver):
        def round_saved(self, record: Any, seconds: Any) -> None:
            if record.round == 2:
                raise InterruptedError

    def go(folder: RunFolder, *observers: SilentObserver) -> None:
        with federation(
            Builder(plan).wiring(public_tests=checks(plan), folder=folder, observers=observers)
        ) as built:
            built.coordinator(folder, evaluate=lambda _: (0.5, 1.0), stopwatch=Stopwatch()).run(
                folder.load(plan)
            )

    whole = RunFolder.create(tmp_path / "whole", plan.config)
    go(whole)
    part = RunFolder.create(tmp_path / "part", plan.config)
    with pytest.raises(InterruptedError):
        go(part, Stopping())
    part.close()
    again = RunFolder.open(part.path)
    with federation(Builder(plan).wiring(public_tests=checks(plan), folder=again)) as built:
        assert built.step_checks is not None
        remembered = [adapter.digest() for adapter in built.step_checks.remembered]
    assert remembered == [adapter.digest() for adapter in again.adapters(plan)]
    assert len(remembered) == 2
    go(again)

    lines = [(folder.path / "metrics.jsonl").read_bytes() for folder in (whole, again)]
    assert lines[0] == lines[1]
    assert len(lines[0].splitlines()) == 4
    whole.close()
    again.close()


def test_draws_that_are_missing_are_refused_by_name() -> None:
    """A participant is not made without the draws that its plan has."""
    plan = make_plan(**SAMPLED)
    with pytest.raises(PlanError, match="secret draws"):
        enrolled(plan).participants(clients_of(plan))
