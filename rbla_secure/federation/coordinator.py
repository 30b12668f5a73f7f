"""The coordinator: round after round, each made durable before the next begins. Run by the server."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import final

from protocols.interface import SecureSum
from rbla_secure.errors import AbortedRunError
from rbla_secure.federation.exchange import Exchange
from rbla_secure.federation.observer import Observers, RoundObserver
from rbla_secure.federation.round import prepare_round, run_round
from rbla_secure.federation.secret_cohorts import SecretCohorts, check_draws
from rbla_secure.federation.server.defence import Defence
from rbla_secure.federation.server.round_record import record_of
from rbla_secure.federation.server.session_server import SessionServer
from rbla_secure.federation.server.sessions import session_of
from rbla_secure.federation.server.spending import SampleSpending, Spending
from rbla_secure.federation.server.step_checks import StepChecks
from rbla_secure.lora.adapter import Adapter
from rbla_secure.planning.plan import Plan
from rbla_secure.privacy.noise import CorrelatedNoise
from rbla_secure.run_folder.audit_log import EventKind, LogEntry
from rbla_secure.run_folder.folder import Progress, RunFolder
from rbla_secure.run_folder.records import RoundRecord, RoundSeconds, aborted_in_a_row
from rbla_secure.stopwatch import Stopwatch

# adapter -> (accuracy, loss) on the held-out examples
Evaluate = Callable[[Adapter], tuple[float, float]]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Coordinator:
    """Drives a run from its last checkpoint to its end.

    Args:
        plan: The terms.
        secure_sum: The server's side of the secure sum.
        folder: Where every round is made durable.
        exchange: Carries the messages.
        evaluate: Measures the global adapter.
        stopwatch: Shared with the engine, which measures "training" and "clients" on it.
        observers: Notified of every round, after the run's ledgers and the step checks (:mod:`rbla_secure.federation.observer`).
        defence: The defence between sums and averages, if the plan has one.
        step_checks: The checks of every step, if the plan has any.
        cohorts: The secret draws of who takes part, if the plan has such.
    """

    plan: Plan
    secure_sum: SecureSum
    folder: RunFolder
    exchange: Exchange
    evaluate: Evaluate
    stopwatch: Stopwatch
    observers: Sequence[RoundObserver] = ()
    defence: Defence | None = None
    step_checks: StepChecks | None = None
    cohorts: SecretCohorts | None = None

    def initial_adapter(self) -> Adapter:
        """Return the adapter before round 1."""
        return self.plan.initial_adapter

    def run(self, progress: Progress) -> Progress:
        """Run all remaining rounds. After an interruption the first of them is prepared on its own.

        Raises:
            AbortedRunError: `max-aborted-rounds` rounds in a row were aborted; the last adapter is saved.
            BudgetError: The next round would exceed `max-epsilon`; the last adapter is saved.
            PrivacyError: The ledger of what was spent is missing, damaged or incomplete.
        """
        config = self.plan.config
        check_draws(self.plan, self.cohorts)
        adapter = progress.adapter or self.initial_adapter()
        records, timings = list(progress.records), list(progress.timings)
        observer = self._observer(progress)
        # Whoever resumes a run that had stopped itself asks for another try.
        aborted = aborted_in_a_row(records) % config.max_aborted_rounds
        if not self.folder.new:
            self.folder.say_resumed(progress)
        # Only while this process lasts: a resumed run begins anew.
        correlated = self.plan.correlated_noise()
        upcoming = None
        for number in range(progress.round + 1, config.rounds + 1):
            before = self._spent()
            current = upcoming or self._prepared(number, records)
            observer.before_round(current.session, adapter)
            # Who takes part in the next round is fixed before anything of this one is revealed.
            upcoming = self._open(number + 1, records) if number < config.rounds else None
            last = adapter
            adapter, record, seconds = self._one_round(
                current, adapter, upcoming, before, observer=observer, correlated=correlated
            )
            observer.round_ended(last, adapter)
            direction = observer.direction_to_keep()
            self.folder.save(self.plan, current.session, adapter, record, seconds, direction=direction)
            records.append(record)
            timings.append(seconds)
            observer.round_saved(record, seconds)
            aborted = aborted + 1 if record.aborted else 0
            if aborted >= config.max_aborted_rounds:
                raise AbortedRunError(
                    f"{aborted} rounds in a row were aborted, max-aborted-rounds={config.max_aborted_rounds}; "
                    f"the last one: {record.aborted}; 'rbla-secure resume {self.folder.path}' tries again"
                )
        return Progress(round=config.rounds, adapter=adapter, records=records, timings=timings)

    def _observer(self, progress: Progress) -> RoundObserver:
        """Return all observers, the ledgers first: what other observers learn is already counted and on the disk."""
        ledgers = (
            Spending.resume(self.plan, self.folder, progress),
            SampleSpending.resume(self.plan, self.folder, progress),
        )
        own = (*ledgers, self.step_checks)
        return Observers((*(each for each in own if each is not None), *self.observers))

    def _spent(self) -> dict[str, float]:
        """Return the seconds so far, by activity."""
        activities = ("training", "clients", "round", "evaluation")
        return {name: self.stopwatch.seconds(name) for name in activities}

    def _open(self, number: int, records: Sequence[RoundRecord]) -> SessionServer:
        """Open the session of a round: a new attempt, numbered and logged before any message is sent."""
        session = session_of(
            self.plan,
            run=self.folder.run_id,
            round_number=number,
            attempt=self.folder.next_attempt(number),
            records=records,
        )
        self.folder.log.append(
            LogEntry.of_session(
                session,
                EventKind.SESSION_OPENED,
                cohort=list(session.members),
                threshold=session.threshold,
                context=session.context.hex(),
            )
        )
        asked = self.cohorts.asked(session.members, number) if self.cohorts is not None else None
        return SessionServer(self.plan, session, self.secure_sum, log=self.folder.log, asked=asked)

    def _prepared(self, number: int, records: Sequence[RoundRecord]) -> SessionServer:
        session_server = self._open(number, records)
        with self.stopwatch.measure("round"):
            prepare_round(session_server, self.exchange)
        return session_server

    def _one_round(
        self,
        current: SessionServer,
        adapter: Adapter,
        upcoming: SessionServer | None,
        before: Mapping[str, float],
        *,
        observer: RoundObserver,
        correlated: CorrelatedNoise | None,
    ) -> tuple[Adapter, RoundRecord, RoundSeconds]:
        with self.stopwatch.measure("round"):
            outcome = run_round(
                self.plan,
                current,
                adapter,
                self.exchange,
                upcoming=upcoming,
                defence=self.defence,
                step_checks=self.step_checks,
                correlated=correlated,
                observer=observer,
            )
        with self.stopwatch.measure("evaluation"):
            accuracy, loss = self.evaluate(outcome.adapter)
        spent = {name: now - before[name] for name, now in self._spent().items()}
        number, cohort = current.session.round, current.session.members
        record = record_of(
            self.plan, outcome, round_number=number, cohort=cohort, accuracy=accuracy, loss=loss
        )
        private = self.plan.mechanism is not None or self.plan.sample_level is not None
        seconds = RoundSeconds(
            round=number,
            training=None if private else spent["training"],
            clients=None if private else spent["clients"] - spent["training"],
            protocol=None if private else spent["round"] - spent["training"],
            evaluation=spent["evaluation"],
        )
        return outcome.adapter, record, seconds
