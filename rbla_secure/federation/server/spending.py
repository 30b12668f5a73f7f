"""The checks and entries of a run's privacy ledgers. Run by the server.

The ledger of clients is checked before a round is trained. It is written before the round's sums are revealed, and
where the server reads single uploads, for these before anybody is asked for one. The ledger of single examples is
written before anybody trains. The audit log holds the state of either before what it counts happens: from then on the
removal of an entry is detected. A resumed run computes the entry that a crash has kept from the log once more and
accepts no other (why even that is enough: `ledger_state.py` in rbla_secure/privacy).
"""

from collections.abc import Collection, Sequence
from typing import Final, final

from protocols.session import ClientId, Session
from rbla_secure.federation.observer import SilentObserver
from rbla_secure.federation.server.sessions import session_of
from rbla_secure.lora.adapter import Adapter
from rbla_secure.planning.noise import Views, shown_to, views
from rbla_secure.planning.plan import Plan
from rbla_secure.privacy.ledger import FILE, Ledger, LedgerEntry, LedgerTerms, Shown
from rbla_secure.privacy.ledger_state import not_believed
from rbla_secure.privacy.noise import GaussianMechanism
from rbla_secure.privacy.sample_ledger import FILE as SAMPLES_FILE
from rbla_secure.privacy.sample_ledger import TRAINING, SampleLedger, SampleTerms, Trained
from rbla_secure.privacy.sampled_gaussian import SampledGaussian
from rbla_secure.run_folder.audit_log import AuditLog
from rbla_secure.run_folder.folder import Progress, RunFolder
from rbla_secure.run_folder.log_entries import of_spending
from rbla_secure.run_folder.records import RoundRecord

_OTHER_FIGURES: Final = (
    "has other figures or clients than this version of rbla-secure gives its session on this machine"
)


@final
class Spending(SilentObserver):
    """The privacy spent by a run with noise.

    Args:
        plan: A plan with a noise mechanism.
        ledger: The run's ledger of clients.
        log: The audit log of the run.
    """

    def __init__(self, plan: Plan, ledger: Ledger, log: AuditLog) -> None:
        self._plan = plan
        self._log = log
        self.ledger = ledger

    @classmethod
    def resume(cls, plan: Plan, folder: RunFolder, progress: Progress) -> "Spending | None":
        """Return the spending of a run so far; None without noise.

        Raises:
            PrivacyError: The ledger is missing, damaged, not the one that the audit log knows, lacks a round that was
                revealed, or has an entry that the log does not hold and that this run would not have written.
        """
        if plan.mechanism is None:
            return None
        # A group's sum is revealed even where too few groups are left for their bands.
        spent = [
            (record.round, part)
            for record in progress.records
            for part in plan.promises.shown
            if part in plan.promises.shown_at_once or record.holders or record.flags
        ]
        terms = terms_of(plan, folder.run_id)
        about = folder.history.about_to_reveal(plan.config.rounds)
        known = folder.history.ledgers.get(FILE)
        ledger = Ledger.open(folder.path, terms, spent=spent, known=known, about=about)
        spending = cls(plan, ledger, folder.log)
        spending._check_last(folder, progress.records, known=known.entries if known is not None else 0)
        return spending

    def _check_last(self, folder: RunFolder, records: Sequence[RoundRecord], *, known: int) -> None:
        """Refuse an entry that the log does not hold, unless it is the one that its session was about to spend."""
        for entry in self.ledger.entries[known:]:
            session = _session_of(self._plan, folder, entry, records)
            everybody = entry.shown in self._plan.promises.shown_at_once
            if everybody and set(entry.clients) != set(session.members):
                raise not_believed(folder.path / FILE, known, "names a part of the session that it is about")
            if entry != self._entry(session, entry.shown, entry.clients):
                raise not_believed(folder.path / FILE, known, _OTHER_FIGURES)

    def before_round(self, session: Session, adapter: Adapter) -> None:  # noqa: ARG002  # what is spent follows from the session
        """Refuse a round that would exceed the budget even if nobody dropped out.

        Raises:
            BudgetError: It would.
        """
        parts = self._plan.promises.shown
        self.ledger.check(*(self._entry(session, part, session.members) for part in parts))

    def before_reveal(self, session: Session, part: Shown, clients: Collection[ClientId]) -> None:
        """Record what a part of a round spends by revealing inputs of these clients.

        Raises:
            BudgetError: It would exceed the budget.
        """
        entry = self._entry(session, part, clients)
        self._log.append(of_spending(session, FILE, self.ledger.record(entry)))

    def _entry(self, session: Session, part: Shown, contributors: Collection[ClientId]) -> LedgerEntry:
        mechanism = self._plan.mechanism_of(session)
        if mechanism is None:
            raise AssertionError("a plan with noise has a mechanism in every round")
        seen = seen_by(self._plan, session, mechanism, contributors)
        return LedgerEntry.of(
            {observer: seen[observer] for observer in shown_to(self._plan.promises, part)},
            round_number=session.round,
            attempt=session.attempt,
            clients=contributors,
            shown=part,
        )


def terms_of(plan: Plan, run: bytes) -> LedgerTerms:
    """Return the terms under which the epsilons of a run hold."""
    privacy = plan.config.privacy
    return LedgerTerms(
        run=run.hex(),
        mechanism=privacy.mechanism,
        adjacency=privacy.adjacency,
        delta=privacy.delta,
        max_epsilon=privacy.max_epsilon,
        claimed=plan.promises.claimed,
        colluders=plan.promises.colluders,
        simulation=privacy.simulation,
        recovered=_recovered(plan),
        sample_rate=privacy.sample_rate,
    )


def _recovered(plan: Plan) -> tuple[int, ...]:
    if plan.mechanism is None or not plan.config.privacy.recovered_dropout:
        return ()
    return tuple(shares.recovered for shares in plan.mechanism.bands)


def seen_by(
    plan: Plan, session: Session, mechanism: GaussianMechanism, contributors: Collection[ClientId]
) -> Views:
    """Return what a session spends if these clients' inputs are summed, over every band that may open."""
    present = plan.segmentation.present(session, contributors)
    return views(plan.promises, mechanism, present=present, colluding=plan.promises.colluders)


@final
class SampleSpending(SilentObserver):
    """The privacy of single examples that a run's training has spent.

    Args:
        mechanism: The sample-level noise of every client and round.
        ledger: The run's ledger of single examples.
        log: The audit log of the run.
    """

    def __init__(self, mechanism: SampledGaussian, ledger: SampleLedger, log: AuditLog) -> None:
        self._mechanism = mechanism
        self._log = log
        self.ledger = ledger

    @classmethod
    def resume(cls, plan: Plan, folder: RunFolder, progress: Progress) -> "SampleSpending | None":
        """Return the spending of a run so far; None without noise at sample level.

        Raises:
            PrivacyError: The ledger is missing, damaged, not the one that the audit log knows, lacks a round that was
                trained, or has an entry that the log does not hold and that this run would not have written.
        """
        if plan.sample_level is None:
            return None
        trained = [(record.round, TRAINING) for record in progress.records if record.survivors]
        config = plan.config
        terms = SampleTerms(
            run=folder.run_id.hex(),
            delta=config.sample_level.delta,
            max_epsilon=config.sample_level.max_epsilon,
            simulation=config.privacy.simulation,
        )
        about = folder.history.about_to_reveal(plan.config.rounds)
        known = folder.history.ledgers.get(SAMPLES_FILE)
        ledger = SampleLedger.open(folder.path, terms, spent=trained, known=known, about=about)
        spending = cls(plan.sample_level, ledger, folder.log)
        entries = known.entries if known is not None else 0
        for entry in ledger.entries[entries:]:
            session = _session_of(plan, folder, entry, progress.records)
            if entry != spending._entry(session, session.members):
                raise not_believed(folder.path / SAMPLES_FILE, entries, _OTHER_FIGURES)
        return spending

    def before_training(self, session: Session, clients: Collection[ClientId]) -> None:
        """Record what the training of these clients spends.

        Raises:
            BudgetError: It would exceed the budget.
        """
        state = self.ledger.record(self._entry(session, clients))
        self._log.append(of_spending(session, SAMPLES_FILE, state))

    def _entry(self, session: Session, clients: Collection[ClientId]) -> Trained:
        return Trained.of(
            self._mechanism, round_number=session.round, attempt=session.attempt, clients=clients
        )


def check_spent(plan: Plan, folder: RunFolder, progress: Progress) -> None:
    """Compare the ledgers of a run with its plan, as :meth:`Spending.resume` does, before anything is written.

    Raises:
        PrivacyError: One is missing, damaged, or not what the audit log and the plan say.
    """
    Spending.resume(plan, folder, progress)
    SampleSpending.resume(plan, folder, progress)


def _session_of(
    plan: Plan, folder: RunFolder, entry: LedgerEntry | Trained, records: Sequence[RoundRecord]
) -> Session:
    """Return the session to which an entry belongs."""
    return session_of(
        plan, run=folder.run_id, round_number=entry.round, attempt=entry.attempt, records=records
    )
