"""What the product itself writes of a round that an audit has played: its own ledgers, in a folder that is thrown away."""

from collections.abc import Collection, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from protocols.session import ClientId, Session
from rbla_secure.federation.audit_log import FILE_NAME, AuditLog, Entry, EventKind
from rbla_secure.federation.plan import Plan
from rbla_secure.federation.spending import Spending, terms_of
from rbla_secure.privacy.ledger import Ledger, Observer, Shown


def ledger_claims(
    plan: Plan, session: Session, told: Sequence[tuple[Shown, Collection[ClientId]]]
) -> dict[Observer, float]:
    """By observer, the epsilon that privacy.json has after a round; infinite where nothing is claimed.

    Args:
        plan: Of the round.
        session: Of the round.
        told: What was about to show inputs, and whose, each time that the round said so.

    Raises:
        BudgetError: The configuration's budget does not let such a round open.
    """
    with TemporaryDirectory(prefix="rbla-secure-audit-") as name:
        folder = Path(name)
        log = AuditLog.create(folder / FILE_NAME, Entry.of_run(EventKind.RUN_CREATED))
        spending = Spending(plan, Ledger.open(folder, terms_of(plan, session.run)), log)
        for part, clients in told:
            spending.spend(session, part, clients)
        return {observer: spending.ledger.epsilon(observer) for observer in Observer}
