"""The product's own claims for the rounds of an audit: its ledgers, written to a temporary folder."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from rbla_secure.evaluation.privacy_audit.small_federation import Played
from rbla_secure.federation.server.spending import Spending, terms_of
from rbla_secure.planning.plan import Plan
from rbla_secure.privacy.ledger import Ledger, Observer
from rbla_secure.run_folder.audit_log import FILE_NAME, AuditLog, EventKind, LogEntry


def ledger_claims(plan: Plan, rounds: Sequence[Played]) -> dict[Observer, float]:
    """Return, by observer, the epsilon in privacy.json after these rounds of a run; infinite where nothing is claimed.

    Raises:
        BudgetError: The configuration's budget does not let one of them open.
    """
    with TemporaryDirectory(prefix="rbla-secure-audit-") as name:
        folder = Path(name)
        log = AuditLog.create(folder / FILE_NAME, LogEntry.of_run(EventKind.RUN_CREATED))
        ledger = Ledger.open(folder, terms_of(plan, rounds[0].session.run))
        spending = Spending(plan, ledger, log)
        for played in rounds:
            for part, clients in played.reveals:
                spending.before_reveal(played.session, part, clients)
        return {observer: spending.ledger.epsilon(observer) for observer in Observer}
