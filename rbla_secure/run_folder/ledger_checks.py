"""Checks of the ledgers of a run folder against its audit log. Run by the server and by any reader.

For what a crash can leave of a ledger beside what the log holds, and why that may be trusted, see `ledger_state.py` in
rbla_secure/privacy. Such an entry covers everybody in its session where it is written before anybody has answered
(single examples, and client level where something shows at once), else of as many as it takes to open a sum. A session
has one entry of each kind at most, and each is written once the log holds the one before it. The figures of single
examples follow from the configuration and are compared here; those of clients where there is a plan (`spending.py`).
"""

from collections import Counter
from pathlib import Path

from rbla_secure.config import Config, load_config
from rbla_secure.errors import PrivacyError
from rbla_secure.planning.parameters import sample_level
from rbla_secure.planning.promises import Promises
from rbla_secure.privacy.ledger import FILE, Ledger, Shown
from rbla_secure.privacy.ledger_state import Attempted, OpenSession, check_state, not_believed
from rbla_secure.privacy.sample_ledger import FILE as SAMPLES_FILE
from rbla_secure.privacy.sample_ledger import TRAINING, SampleLedger, Trained
from rbla_secure.run_folder.audit_log import FILE_NAME, AuditLog
from rbla_secure.run_folder.history import History
from rbla_secure.run_folder.verify import (
    CONFIG,
    METRICS,
    check_identity,
    check_kinds,
    has_left_over,
    read_run_id,
)

Ledgers = tuple[Ledger | None, SampleLedger | None]


def look_at_ledgers(folder: Path) -> Ledgers:
    """Return the ledgers of a run that may continue meanwhile. Nothing is written and no lock is taken.

    The log is read before the ledgers and again after them. A ledger must have what the log held before; of its further
    entries, the log must then hold all but the one that was being written. The figures of that entry are not
    compared at client level, for there is no plan here: nothing was revealed for it, and it can only add to what was spent.

    Raises:
        RunFolderError: It is no run folder, or its configuration, identity or events were changed.
        PrivacyError: A ledger fails the checks of :func:`check_ledgers`.
        ConfigError: Its config.toml is damaged.
    """
    check_kinds(folder)
    config = load_config(folder / CONFIG)
    before = _history(folder)
    check_identity(folder, config, read_run_id(folder), before)
    found = _read(folder)
    _check(folder, config, found, before=before, after=_history(folder))
    return found


def check_ledgers(folder: Path, config: Config, history: History) -> Ledgers:
    """Return the ledgers of a locked folder: each has all logged entries, unchanged, and no more than a crash leaves.

    Raises:
        PrivacyError: One is missing, damaged, shortened, changed, or has an entry that no crash leaves.
    """
    found = _read(folder)
    ahead = _check(folder, config, found, before=history, after=history)
    # Not asked of a run that goes on meanwhile: its result may be there by now.
    if ahead and has_left_over(folder, history):
        raise PrivacyError(
            f"{folder / ahead} has an entry that {FILE_NAME} does not hold, and {METRICS} a line, which comes after that: a crash "
            "leaves one of them at most; restore whichever was changed from a copy"
        )
    return found


def _history(folder: Path) -> History:
    history = History(folder / FILE_NAME)
    AuditLog(folder / FILE_NAME, observe=history.take)
    return history


def _read(folder: Path) -> Ledgers:
    return (
        Ledger.read(folder) if (folder / FILE).exists() else None,
        SampleLedger.read(folder) if (folder / SAMPLES_FILE).exists() else None,
    )


def _check(folder: Path, config: Config, found: Ledgers, *, before: History, after: History) -> str:
    """Return the name of the ledger with an entry that the log does not hold; empty if there is none."""
    wanted = (config.noise_multiplier > 0, config.sample_level.noise_multiplier > 0)
    ahead: list[str] = []
    refused: list[PrivacyError] = []
    for name, ledger, noise in zip((FILE, SAMPLES_FILE), found, wanted, strict=True):
        if ledger is not None and not noise:
            raise PrivacyError(
                f"{folder / name} is there, but {CONFIG} adds no noise that it could count: it was put there; move it away"
            )
        entries = len(ledger.entries) if ledger is not None else 0
        least = before.ledgers[name].entries if name in before.ledgers else 0
        known = after.ledger_of(name, entries=max(entries, least))
        about = after.about_to_reveal(config.rounds)
        check_state(folder / name, ledger, known=known, about=about)
        held = known.entries if known is not None else 0
        if ledger is not None and about is not None and entries > held:
            ahead.append(name)
            if reason := _not_of_its_session(config, name, ledger.entries[-1], about, after):
                refused.append(not_believed(folder / name, held, reason))
    if len(ahead) > 1:
        raise PrivacyError(
            f"{folder / ahead[0]} and {ahead[1]} each have an entry that {FILE_NAME} does not hold, and a crash leaves one at "
            "most: restore whichever was changed from a copy"
        )
    if refused:
        raise refused[0]
    return "".join(ahead)


def _order(promises: Promises) -> list[tuple[str, str]]:
    """Return ledger and kind of the entries of one session, in the order in which they are written."""
    clients = [(FILE, part) for part in promises.shown] if promises.noisy else []
    at_once = [(name, part) for name, part in clients if part in promises.shown_at_once]
    examples = [(SAMPLES_FILE, TRAINING)] if promises.config.sample_level.noise_multiplier else []
    return [*at_once, *examples, *(each for each in clients if each not in at_once)]


def _not_of_its_session(
    config: Config, name: str, entry: Attempted, about: OpenSession, history: History
) -> str:
    """Say why a session would not have written an entry, or not yet; empty if a crash can explain the entry."""
    promises = Promises.build(config)
    order = _order(promises)
    if (name, entry.kind) not in order:
        return f"counts {entry.kind}, of which its session has no entry"
    before = Counter(ledger for ledger, _ in order[: order.index((name, entry.kind))])
    for ledger, entries in before.items():
        if history.spent_by(about, ledger) < entries:
            return f"the entry of {ledger} that comes before it is not either"
    # Before anybody has answered, an entry is of everybody who is asked.
    everybody = name == SAMPLES_FILE or Shown(entry.kind) in promises.shown_at_once
    least = len(about.cohort) if everybody else about.threshold
    if len(entry.clients) < least:
        return f"names {len(entry.clients)} clients where it takes {least}"
    mechanism = sample_level(config)
    if isinstance(entry, Trained) and mechanism is not None:
        ours = Trained.of(mechanism, round_number=about.round, attempt=about.attempt, clients=about.cohort)
        if entry != ours:
            return f"has other figures or clients than {CONFIG} gives its session"
    return ""
