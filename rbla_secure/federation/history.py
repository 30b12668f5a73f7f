"""What the audit log says of a run: everything that the files of its folder are held against. Run by the server.

Folded event by event, as the log is read or written. An order of events that no process writes is refused, so that a chain
whose digests fit is still no chain of a run unless it tells a run's story.
"""

from pathlib import Path
from typing import Final, final

from rbla_secure.errors import RunFolderError
from rbla_secure.federation.audit_log import Event, EventKind
from rbla_secure.privacy.ledger_state import LedgerState

DIGEST_SIZE: Final = 64  # SHA-256, hex


@final
class History:
    """The run so far.

    Attributes:
        run: Its identity, hex; empty before the first event.
        config: Digest of its configuration, hex.
        base: Digest of its base, hex; empty before there is one.
        results: By round, from 1 on: the event that made it count.
        attempts: Round and attempt of every session, and of attempts that came to none, in order.
        ledgers: By file name, the state of each ledger that has entries.
        exported: Whether a result was exported.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: set[tuple[int, int]] = set()
        self.run = ""
        self.config = ""
        self.base = ""
        self.results: list[Event] = []
        self.attempts: list[tuple[int, int]] = []
        self.ledgers: dict[str, LedgerState] = {}
        self.exported = False

    @property
    def rounds(self) -> int:
        """How many rounds count."""
        return len(self.results)

    def adapter_after(self, number: int) -> str:
        """Digest of the adapter after a round, hex."""
        return str(self.results[number - 1].details["adapter"])

    def metrics_of(self, number: int) -> str:
        """Digest of a round's line in metrics.jsonl, hex."""
        return str(self.results[number - 1].details["metrics"])

    def take(self, event: Event) -> None:
        """Go on with the next event.

        Raises:
            RunFolderError: It cannot follow those before it.
        """
        if (event.kind is EventKind.RUN_CREATED) != (not self.run):
            raise self._fault(event, "a run is created once, in the first line")
        match event.kind:
            case EventKind.RUN_CREATED:
                self.run, self.config = self._text(event, "run"), self._text(event, "config")
            case EventKind.BASE_MADE:
                self._take_base(event)
            case EventKind.RUN_RESUMED:
                self._take_resumption(event)
            case EventKind.SESSION_OPENED:
                self._take_attempt(event, event.round, event.attempt)
            case EventKind.PRIVACY_SPENT:
                self._take_spending(event)
            case EventKind.ROUND_FINISHED | EventKind.ROUND_ABORTED:
                self._take_result(event)
            case EventKind.RUN_FINISHED:
                self._expect_rounds(event)
                self.exported = True
            case _:
                pass  # told, and not relied on

    def _take_base(self, event: Event) -> None:
        if self.base:
            raise self._fault(event, "a run has one base")
        self.base = self._digest(event, "base")

    def _take_resumption(self, event: Event) -> None:
        self._expect_rounds(event)
        if event.details.get("adapter") != (self.adapter_after(self.rounds) if self.rounds else ""):
            raise self._fault(event, "the run went on from an adapter that is not the last round's")
        match event.details.get("unopened"):
            case []:
                pass
            case [int(number), int(attempt)]:
                self._take_attempt(event, number, attempt)
            case _:
                raise self._fault(event, "unopened must be nothing or a round and an attempt")

    def _take_attempt(self, event: Event, number: int | None, attempt: int | None) -> None:
        if number is None or attempt is None or (number, attempt) in self._known:
            raise self._fault(event, f"attempt {attempt} at round {number} is not a new one")
        self._known.add((number, attempt))
        self.attempts.append((number, attempt))

    def _take_spending(self, event: Event) -> None:
        name, entries = self._text(event, "ledger"), event.details.get("entries")
        before = self.ledgers[name].entries if name in self.ledgers else 0
        if event.round is not None:  # else adopted by a process that goes on
            self._expect_opened(event)
        if entries != before + 1:
            raise self._fault(event, f"{name} must have {before + 1} entries now")
        self.ledgers[name] = LedgerState(entries=before + 1, digest=self._digest(event, "digest"))

    def _take_result(self, event: Event) -> None:
        if event.round != self.rounds + 1:
            raise self._fault(event, f"the round after {self.rounds} is {self.rounds + 1}")
        self._expect_opened(event)
        self._digest(event, "adapter")
        self._digest(event, "metrics")
        self.results.append(event)

    def _expect_opened(self, event: Event) -> None:
        if (event.round, event.attempt) not in self._known:
            raise self._fault(event, f"attempt {event.attempt} at round {event.round} was never opened")

    def _expect_rounds(self, event: Event) -> None:
        if event.details.get("rounds") != self.rounds:
            raise self._fault(event, f"the run had {self.rounds} rounds then")

    def _text(self, event: Event, key: str) -> str:
        match event.details.get(key):
            case str(text) if text:
                return text
        raise self._fault(event, f"{event.kind} must say {key}")

    def _digest(self, event: Event, key: str) -> str:
        text = self._text(event, key)
        if len(text) != DIGEST_SIZE:
            raise self._fault(event, f"{key} must be a SHA-256")
        return text

    def _fault(self, event: Event, rule: str) -> RunFolderError:
        return RunFolderError(
            f"{self._path} line {event.number}: {event.kind} does not belong there: {rule}; restore it from a copy"
        )
