"""The wiring of a federation: identities, services, secure sums, draws, defence, checks and round observers.

    with federation(Wiring(plan=plan, connect=connect, reference=None, public_tests=None)) as built:
        built.coordinator(folder, evaluate=evaluate, stopwatch=stopwatch).run(progress)

A run, an attacked run and an audit differ in what they put into a `Wiring`, and in nothing else. Where participants live is known
to `connect` alone: it is given what enrolment hands out and returns the exchange that reaches them. An engine for participants
in this process makes them by :meth:`Enrolment.participants`; one for other machines asks for none.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Protocol, final

from protocols.clock import SYSTEM_CLOCK
from protocols.homomorphic.services.operated import HomomorphicServices
from protocols.identity.trust import YEAR_SECONDS, Identity, ThrowawayAuthority, TrustStore
from protocols.interface import SecureSum
from protocols.plain import Plain
from protocols.session import ClientId, Session
from rbla_secure.federation.client.contribution import Contribute, contribution
from rbla_secure.federation.client.participant import BeforeTraining, LocalTraining, Participant
from rbla_secure.federation.coordinator import Coordinator, Evaluate
from rbla_secure.federation.exchange import Exchange
from rbla_secure.federation.observer import Observers, RoundObserver, SilentObserver
from rbla_secure.federation.round import RoundOutcome, prepare_round, run_round
from rbla_secure.federation.secret_cohorts import SecretCohorts
from rbla_secure.federation.server.defence import Defence, Reference
from rbla_secure.federation.server.previous_step import PreviousStep
from rbla_secure.federation.server.session_server import SessionServer
from rbla_secure.federation.server.step_checks import PublicTests, StepChecks, wants_checks
from rbla_secure.federation.step_bound import WINDOW
from rbla_secure.lora.adapter import Adapter
from rbla_secure.planning.modes import build_secure_sum, start_services
from rbla_secure.planning.plan import Plan
from rbla_secure.privacy.noise import CorrelatedNoise
from rbla_secure.run_folder.folder import RunFolder
from rbla_secure.stopwatch import Stopwatch


class Identities(Protocol):
    """The trusted keys and the signing identities of a federation; `ThrowawayAuthority` implements it."""

    @property
    def view(self) -> TrustStore:
        """The keys that participants trust at the beginning."""

    def trust(self, now: int) -> TrustStore:
        """Return the keys that the server trusts at a moment, in unix seconds."""

    def identity(self, client: ClientId) -> Identity:
        """Return the identity of a client that runs in this process."""


# (plan, public keys of the services by name) -> identities of all clients, the services enrolled beside them
Enrol = Callable[[Plan, Mapping[ClientId, bytes]], Identities]


def throwaway(plan: Plan, services: Mapping[ClientId, bytes]) -> ThrowawayAuthority:
    """Certify all clients and services by an authority that exists as long as this process.

    Args:
        plan: Names the clients and their ranks.
        services: By name, public keys of services that made their own.
    """
    return ThrowawayAuthority.create(
        plan.ranks, now=int(time.time()), valid_for=YEAR_SECONDS, clock=SYSTEM_CLOCK, services=services
    )


def _nothing(_session: Session) -> None:
    """Count nothing."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class LocalClient:
    """A client whose participant runs in this process.

    Args:
        train: Local training on its private data.
        examples: How many private examples it has.
        contribute: Turns its change into summands; only an evaluation passes another function than the honest one.
        before_training: Called with a session before anything is trained for it, for example by a lifetime budget.
    """

    train: LocalTraining
    examples: int
    contribute: Contribute = contribution
    before_training: BeforeTraining = _nothing


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolment:
    """The terms and secrets that are handed out before the first round.

    Args:
        plan: Terms of the run.
        secure_sum: Names the stages; the server's side of it stays with the server.
        identities: The trusted keys and signing identities; None where nothing is signed.
        cohorts: Secret draws of who takes part; None where the cohorts are public.
        in_the_clear: Whether sums are added in the clear, whatever the plan's secure sum.
    """

    plan: Plan
    secure_sum: SecureSum
    identities: Identities | None
    cohorts: SecretCohorts | None
    in_the_clear: bool

    def participants(self, clients: Mapping[ClientId, LocalClient]) -> dict[ClientId, Participant]:
        """Make the participants that run in this process."""
        return {name: self.participant(name, client) for name, client in clients.items()}

    def participant(self, name: ClientId, client: LocalClient) -> Participant:
        """Make one participant, with its own side of the secure sum, its identity and its draws."""
        return Participant(
            name,
            plan=self.plan,
            secure_sum=self._secure_sum_of(name),
            train=client.train,
            examples=client.examples,
            contribute=client.contribute,
            draws=self.cohorts.draws_of(name) if self.cohorts is not None else None,
            before_training=client.before_training,
        )

    def _secure_sum_of(self, name: ClientId) -> SecureSum:
        if self.in_the_clear:
            return Plain()
        if self.identities is None:
            return build_secure_sum(self.plan)
        return build_secure_sum(self.plan, self.identities.view, self.identities.identity(name))


def _as_it_is(secure_sum: SecureSum) -> SecureSum:
    return secure_sum


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Wiring:
    """The settings that differ between federations.

    Args:
        plan: Terms of the run.
        connect: Makes the exchange that reaches the participants; closed with the federation.
        reference: Public training for filters that compare with it; None where there is none.
        public_tests: Measurements for the step checks; None leaves every step unchecked, whatever the plan wants.
        observers: Notified of every round, after the federation's own observers.
        folder: Run folder whose earlier rounds the server continues from; None begins anew.
        enrol: Makes identities, where messages are signed.
        watch: Wraps the server's side of the secure sum, for an evaluation that looks at what it opens.
        in_the_clear: Whether sums are added in the clear in place of the plan's secure sum: the same integers, without its keys,
            services and identities. For evaluations alone.
    """

    plan: Plan
    connect: Callable[[Enrolment], Exchange]
    reference: Reference | None
    public_tests: PublicTests | None
    observers: Sequence[RoundObserver] = ()
    folder: RunFolder | None = None
    enrol: Enrol = throwaway
    watch: Callable[[SecureSum], SecureSum] = _as_it_is
    in_the_clear: bool = False


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Federation:
    """A federation that is ready for rounds.

    Args:
        plan: Terms of the run.
        secure_sum: The server's side.
        exchange: Carries the messages.
        services: The services of the homomorphic mode, each in a process of its own; None without.
        cohorts: Secret draws of who takes part, if the plan has such.
        defence: The defence between sums and averages; None if the plan has none.
        step_checks: The checks of every step; None if the plan has none.
        correlated: Noise of earlier rounds that later rounds partly cancel, for rounds that are played here.
        observers: Notified of every round.
    """

    plan: Plan
    secure_sum: SecureSum
    exchange: Exchange
    services: HomomorphicServices | None
    cohorts: SecretCohorts | None
    defence: Defence | None
    step_checks: StepChecks | None
    correlated: CorrelatedNoise | None
    observers: Sequence[RoundObserver]

    def coordinator(self, folder: RunFolder, *, evaluate: Evaluate, stopwatch: Stopwatch) -> Coordinator:
        """Make the coordinator of a run: it makes every round durable in a folder.

        Args:
            folder: The run folder.
            evaluate: Measures the global adapter.
            stopwatch: Shared with the engine.
        """
        return Coordinator(
            plan=self.plan,
            secure_sum=self.secure_sum,
            folder=folder,
            exchange=self.exchange,
            evaluate=evaluate,
            stopwatch=stopwatch,
            observers=self.observers,
            defence=self.defence,
            step_checks=self.step_checks,
            cohorts=self.cohorts,
        )

    def play(self, session: Session, adapter: Adapter) -> RoundOutcome:
        """Play one round in memory, from its keys to its result; nothing is saved, and no ledger is kept.

        Observers are notified as by a coordinator, except for `direction_to_keep` and `round_saved`.

        Args:
            session: Terms of the round; rounds are played in order.
            adapter: Global adapter at the start of the round.
        """
        checks = () if self.step_checks is None else (self.step_checks,)
        observer = Observers((*checks, *self.observers))
        asked = None if self.cohorts is None else self.cohorts.asked(session.members, session.round)
        session_server = SessionServer(self.plan, session, self.secure_sum, asked=asked)
        prepare_round(session_server, self.exchange)
        observer.before_round(session, adapter)
        outcome = run_round(
            self.plan,
            session_server,
            adapter,
            self.exchange,
            defence=self.defence,
            step_checks=self.step_checks,
            correlated=self.correlated,
            observer=observer,
        )
        observer.round_ended(adapter, outcome.adapter)
        return outcome


@final
@dataclass(frozen=True, slots=True)
class _KeptDirection(SilentObserver):
    """An observer that asks the services after every round for the state to continue screening in another process."""

    services: HomomorphicServices

    def direction_to_keep(self) -> bytes:
        """Ask the operator of the services."""
        return self.services.direction_to_keep()


@contextmanager
def federation(wiring: Wiring) -> Iterator[Federation]:
    """Wire a federation; on every way out its exchange and then its services are closed, and with them all their keys.

    Raises:
        ServiceError: A service has ended.
        ProtocolError: A service refuses its set-up.
        PlanError: There are no draws although the plan needs them.
        RunFolderError: The folder's earlier rounds cannot be read.
    """
    plan = wiring.plan
    with ExitStack() as ending:
        previous_step, cohorts = PreviousStep(plan), SecretCohorts.of(plan)
        services = _services(wiring)
        if services is not None:
            ending.callback(services.close)
        identities = _identities(wiring, services)
        secure_sum = _servers_sum(wiring, identities, services, previous_step)
        exchange = wiring.connect(
            Enrolment(
                plan=plan,
                secure_sum=secure_sum,
                identities=identities,
                cohorts=cohorts,
                in_the_clear=wiring.in_the_clear,
            )
        )
        ending.callback(exchange.end)
        own = (previous_step,) if services is None else (previous_step, _KeptDirection(services))
        built = Federation(
            plan=plan,
            secure_sum=wiring.watch(secure_sum),
            exchange=exchange,
            services=services,
            cohorts=cohorts,
            defence=Defence.of(plan, previous_step, wiring.reference),
            step_checks=_step_checks(wiring),
            correlated=plan.correlated_noise(),
            observers=(*own, *wiring.observers),
        )
        if wiring.folder is not None:
            _recall(built, previous_step, wiring.folder)
        yield built


def _services(wiring: Wiring) -> HomomorphicServices | None:
    """Start the services that the plan's secure sum needs."""
    return None if wiring.in_the_clear else start_services(wiring.plan)


def _identities(wiring: Wiring, services: HomomorphicServices | None) -> Identities | None:
    """Enrol everybody, where the plan's secure sum works with identities."""
    if wiring.in_the_clear or not wiring.plan.needs_identities:
        return None
    return wiring.enrol(wiring.plan, services.public_keys() if services is not None else {})


def _servers_sum(
    wiring: Wiring,
    identities: Identities | None,
    services: HomomorphicServices | None,
    previous_step: PreviousStep,
) -> SecureSum:
    """Make the server's side of the secure sum, and set its services up."""
    if wiring.in_the_clear:
        return Plain()
    if identities is None:
        return build_secure_sum(wiring.plan)
    trust = identities.trust(int(time.time()))
    roles = services.set_up(trust, previous_step.by_band) if services is not None else None
    return build_secure_sum(wiring.plan, trust, roles=roles)


def _step_checks(wiring: Wiring) -> StepChecks | None:
    """Make the step checks of the plan, with the adapters of the last rounds of an interrupted run."""
    wanted = wiring.plan.config.robustness
    if wiring.public_tests is None or not wants_checks(wanted):
        return None
    remembered = [] if wiring.folder is None else wiring.folder.last_adapters(wiring.plan, WINDOW)
    return StepChecks(
        wanted=wanted, tests=wiring.public_tests, first=wiring.plan.initial_adapter, remembered=remembered
    )


def _recall(built: Federation, previous_step: PreviousStep, folder: RunFolder) -> None:
    """Restore, for an interrupted run, what the server and the services compare updates with."""
    if built.plan.mode.screens(built.plan.config) or built.defence is not None:
        previous_step.recall(chain([built.plan.initial_adapter], folder.adapters(built.plan)))
    if built.services is not None:
        built.services.recall(folder.direction())
