"""The history of a run by its audit log, with which the files of its folder are compared. Run by the server.

It is built event by event, as the log is read or written. An order of events that no process writes is refused: a chain
with valid digests must also be a possible history of a run.
"""

from collections import Counter
from pathlib import Path
from typing import Final, final

from rbla_secure.errors import RunFolderError
from rbla_secure.privacy.ledger_state import LedgerState, OpenSession
from rbla_secure.run_folder.audit_log import Event, EventKind

DIGEST_SIZE: Final = 64  # SHA-256, hex


@final
class History:
    """The run so far.

    Attributes:
        run: Its identity, hex; empty before the first event.
        config: Digest of its configuration, hex.
        base: Digest of its base, hex; empty before there is one.
        budgets: SHA-256 of budgets.json, hex; empty where clients keep no lifetime budgets.
        results: By round, from 1 on: the event that made it count.
        attempts: Round and attempt of every session, and of attempts without a session, in order.
        states: By file name, the states that each ledger with entries has had, one per entry.
        adapter_file: SHA-256 of the exported tensors' file, hex; empty before there is one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: set[tuple[int, int]] = set()
        self.run = ""
        self.config = ""
        self.base = ""
        self.budgets = ""
        self.results: list[Event] = []
        self.attempts: list[tuple[int, int]] = []
        self.states: dict[str, list[LedgerState]] = {}
        self.adapter_file = ""
        self._directions: dict[int, str] = {}
        # Of the last process alone: by round, the sessions that it has opened and that have not ended.
        self._open: dict[int, OpenSession] = {}
        # By ledger, round and attempt: how many entries a session had the log hold before it trained or revealed.
        self._spent: Counter[tuple[str, int, int]] = Counter()

    @property
    def rounds(self) -> int:
        """The number of rounds that count."""
        return len(self.results)

    @property
    def exported(self) -> bool:
        """Whether a result was exported."""
        return bool(self.adapter_file)

    @property
    def ledgers(self) -> dict[str, LedgerState]:
        """The state of each ledger that has entries, by file name."""
        return {name: states[-1] for name, states in self.states.items()}

    def ledger_of(self, name: str, *, entries: int) -> LedgerState | None:
        """Return the state of a ledger at `entries` entries, or at the last if it has fewer; None if it has none."""
        states = self.states.get(name, [])[:entries]
        return states[-1] if states else None

    def spent_by(self, session: OpenSession, name: str) -> int:
        """Count the entries of a ledger that a session logged itself.

        An entry that a later process logged was never used and does not count.
        """
        return self._spent[name, session.round, session.attempt]

    def next_attempt(self, last_round: int) -> tuple[int, int] | None:
        """Return round and attempt of the session that the last process opens next; None if it opens none.

        One process has at most two sessions open, as the keys of a round travel with the round before.

        Args:
            last_round: Number of the last round of the run.
        """
        number = self.rounds + 1 + len(self._open)
        if len(self._open) > 1 or number > last_round:
            return None
        return number, 1 + sum(each == number for each, _ in self.attempts)

    def about_to_reveal(self, last_round: int) -> OpenSession | None:
        """Return the session that may be about to be trained for or revealed; None if there is none.

        It is that of the next round, once the session after it is open too.

        Args:
            last_round: Number of the last round of the run, which has no session after it.
        """
        number = self.rounds + 1
        if number < last_round and number + 1 not in self._open:
            return None
        return self._open.get(number)

    @property
    def direction(self) -> str:
        """Digest of the direction kept for screening from the last round, hex; empty if none was."""
        return self._directions.get(self.rounds, "")

    def adapter_after(self, number: int) -> str:
        """Return the digest of the adapter after a round, hex."""
        return str(self.results[number - 1].details["adapter"])

    def metrics_of(self, number: int) -> str:
        """Return the digest of a round's line in metrics.jsonl, hex."""
        return str(self.results[number - 1].details["metrics"])

    def take(self, event: Event) -> None:
        """Add the next event.

        Raises:
            RunFolderError: It cannot follow those before it.
        """
        if (event.kind is EventKind.RUN_CREATED) != (not self.run):
            raise self._fault(event, "a run is created once, in the first line")
        match event.kind:
            case EventKind.RUN_CREATED:
                self.run, self.config = self._text(event, "run"), self._text(event, "config")
                self.budgets = str(event.details.get("budgets", ""))
            case EventKind.BASE_MADE:
                self._take_base(event)
            case EventKind.RUN_RESUMED:
                self._take_resumption(event)
            case EventKind.SESSION_OPENED:
                self._take_session(event)
            case EventKind.PRIVACY_SPENT:
                self._take_spending(event)
            case EventKind.DIRECTION_KEPT:
                self._directions[self._expect_next(event)] = self._digest(event, "direction")
            case EventKind.ROUND_FINISHED | EventKind.ROUND_ABORTED:
                self._take_result(event)
            case EventKind.RUN_FINISHED:
                self._take_export(event)
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
        self._open.clear()  # whoever goes on opens sessions of its own

    def _take_session(self, event: Event) -> None:
        number, attempt = self._take_attempt(event, event.round, event.attempt)
        cohort = event.details.get("cohort")
        # A session whose members the log does not name is nobody's whose entry could be believed.
        members = tuple(map(str, cohort)) if isinstance(cohort, list) else ()
        match event.details.get("threshold"):
            case int(threshold):
                pass
            case _:
                threshold = len(members)
        self._open[number] = OpenSession(round=number, attempt=attempt, cohort=members, threshold=threshold)

    def _take_attempt(self, event: Event, number: int | None, attempt: int | None) -> tuple[int, int]:
        if number is None or attempt is None or (number, attempt) in self._known:
            raise self._fault(event, f"attempt {attempt} at round {number} is not a new one")
        self._known.add((number, attempt))
        self.attempts.append((number, attempt))
        return number, attempt

    def _take_spending(self, event: Event) -> None:
        name, entries = self._text(event, "ledger"), event.details.get("entries")
        before = len(self.states.get(name, []))
        if event.round is not None:  # else adopted by a process that goes on
            self._spent[name, *self._expect_opened(event)] += 1
        if entries != before + 1:
            raise self._fault(event, f"{name} must have {before + 1} entries now")
        state = LedgerState(entries=before + 1, digest=self._digest(event, "digest"))
        self.states.setdefault(name, []).append(state)

    def _take_result(self, event: Event) -> None:
        number = self._expect_next(event)
        self._digest(event, "adapter")
        self._digest(event, "metrics")
        self.results.append(event)
        self._open.pop(number, None)

    def _take_export(self, event: Event) -> None:
        self._expect_rounds(event)
        digest = self._digest(event, "adapter_file")
        if self.adapter_file not in {"", digest}:
            raise self._fault(event, "a run has one result")
        self.adapter_file = digest

    def _expect_next(self, event: Event) -> int:
        number = self.rounds + 1
        if event.round != number:
            raise self._fault(event, f"the round after {self.rounds} is {number}")
        self._expect_opened(event)
        return number

    def _expect_opened(self, event: Event) -> tuple[int, int]:
        number, attempt = event.round, event.attempt
        if number is None or attempt is None or (number, attempt) not in self._known:
            raise self._fault(event, f"attempt {attempt} at round {number} was never opened")
        return number, attempt

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
