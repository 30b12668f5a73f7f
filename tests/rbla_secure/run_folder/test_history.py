"""What a log tells is the story of a run, in an order in which a process writes it, or it is refused by line."""

from pathlib import Path
from typing import Any

import pytest

from rbla_secure.errors import RunFolderError
from rbla_secure.privacy.ledger_state import LedgerState
from rbla_secure.run_folder.audit_log import Event, EventKind
from rbla_secure.run_folder.history import History

DIGESTS = [f"{number:02x}" * 32 for number in range(8)]
STORY: list[tuple[EventKind, int | None, int | None, dict[str, Any]]] = [
    (EventKind.RUN_CREATED, None, None, {"run": "ab", "config": "cd"}),
    (EventKind.BASE_MADE, None, None, {"base": DIGESTS[0]}),
    (EventKind.SESSION_OPENED, 1, 1, {}),
    (EventKind.PRIVACY_SPENT, 1, 1, {"ledger": "privacy.json", "entries": 1, "digest": DIGESTS[1]}),
    (EventKind.RUN_RESUMED, None, None, {"rounds": 0, "adapter": "", "unopened": [1, 2]}),
    (EventKind.SESSION_OPENED, 1, 3, {}),
    (EventKind.PRIVACY_SPENT, 1, 3, {"ledger": "privacy.json", "entries": 2, "digest": DIGESTS[2]}),
    (EventKind.ROUND_FINISHED, 1, 3, {"adapter": DIGESTS[3], "metrics": DIGESTS[4]}),
    (EventKind.RUN_RESUMED, None, None, {"rounds": 1, "adapter": DIGESTS[3], "unopened": []}),
    (EventKind.SESSION_OPENED, 2, 1, {}),
    (EventKind.REFUSAL, 2, 1, {"client": "a"}),
    (EventKind.ROUND_ABORTED, 2, 1, {"adapter": DIGESTS[3], "metrics": DIGESTS[5], "reason": "no"}),
    (EventKind.RUN_FINISHED, None, None, {"rounds": 2, "adapter_file": DIGESTS[6]}),
]


def told(story: list[tuple[EventKind, int | None, int | None, dict[str, Any]]]) -> History:
    history = History(Path("events.jsonl"))
    for number, (kind, round_number, attempt, details) in enumerate(story, start=1):
        history.take(
            Event(
                number=number,
                time=0,
                kind=kind,
                round=round_number,
                attempt=attempt,
                details=details,
                previous="",
            )
        )
    return history


def test_a_story_is_remembered() -> None:
    """Identity, base, results, attempts with those that came to no session, ledgers."""
    history = told(STORY)

    assert (history.run, history.config, history.base) == ("ab", "cd", DIGESTS[0])
    assert [history.adapter_after(number) for number in (1, 2)] == [DIGESTS[3]] * 2
    assert [history.metrics_of(number) for number in (1, 2)] == DIGESTS[4:6]
    assert history.attempts == [(1, 1), (1, 2), (1, 3), (2, 1)]
    assert history.ledgers == {"privacy.json": LedgerState(entries=2, digest=DIGESTS[2])}
    assert (history.rounds, history.exported, history.adapter_file) == (2, True, DIGESTS[6])


def test_a_ledger_is_remembered_entry_by_entry() -> None:
    """Whoever reads it before the log has ended compares what it had then."""
    history = told(STORY)

    states = [history.ledger_of("privacy.json", entries=count) for count in range(4)]

    digests = [state.digest if state else None for state in states]
    assert digests == [None, DIGESTS[1], DIGESTS[2], DIGESTS[2]]
    assert history.ledger_of("privacy-samples.json", entries=1) is None


LAST = 4  # rounds of the run below


def opened(number: int, attempt: int = 1) -> tuple[EventKind, int | None, int | None, dict[str, Any]]:
    return EventKind.SESSION_OPENED, number, attempt, {"cohort": ["a", f"b{number}"]}


def ended(number: int, attempt: int = 1) -> tuple[EventKind, int | None, int | None, dict[str, Any]]:
    return EventKind.ROUND_FINISHED, number, attempt, {"adapter": DIGESTS[3], "metrics": DIGESTS[4]}


def went_on(rounds: int, *unopened: int) -> tuple[EventKind, int | None, int | None, dict[str, Any]]:
    adapter = DIGESTS[3] if rounds else ""
    details = {"rounds": rounds, "adapter": adapter, "unopened": list(unopened)}
    return EventKind.RUN_RESUMED, None, None, details


# What a process has done, the attempt that it numbers next, and the one that it could be about to reveal.
MOMENTS: list[tuple[list[Any], tuple[int, int] | None, tuple[int, int] | None]] = [
    ([], (1, 1), None),
    ([opened(1)], (2, 1), None),
    ([opened(1), opened(2)], None, (1, 1)),
    ([opened(1), opened(2), ended(1)], (3, 1), None),
    ([opened(1), opened(2), ended(1), opened(3)], None, (2, 1)),
    ([opened(1), opened(2), went_on(0)], (1, 2), None),
    ([opened(1), opened(2), went_on(0, 1, 2)], (1, 3), None),
    ([opened(1), opened(2), went_on(0), opened(1, 2)], (2, 2), None),
    ([opened(1), opened(2), went_on(0), opened(1, 2), opened(2, 2)], None, (1, 2)),
    ([opened(1), opened(2), ended(1), went_on(1)], (2, 2), None),
    ([part for n in (1, 2, 3) for part in (opened(n), ended(n))], (4, 1), None),
    ([*(part for n in (1, 2, 3) for part in (opened(n), ended(n))), opened(4)], None, (4, 1)),
    ([part for n in (1, 2, 3, 4) for part in (opened(n), ended(n))], None, None),
]


@pytest.mark.parametrize(("story", "numbered", "revealing"), MOMENTS)
def test_what_a_process_was_about_to_do_is_known(
    story: list[Any], numbered: tuple[int, int] | None, revealing: tuple[int, int] | None
) -> None:
    """The attempt that it numbers next, and the session of which it could train or reveal, with its members."""
    history = told([*STORY[:2], *story])

    about = history.about_to_reveal(LAST)

    assert history.next_attempt(LAST) == numbered
    assert ((about.round, about.attempt) if about else None) == revealing
    assert about is None or about.cohort == ("a", f"b{about.round}")


def test_what_a_session_has_spent_is_known_and_not_what_was_adopted() -> None:
    """An entry that another process had the log hold was never used by its session, so no result can have followed it."""
    details = {"ledger": "privacy.json", "entries": 1, "digest": DIGESTS[1]}
    spent = told([*STORY[:2], opened(1), opened(2), (EventKind.PRIVACY_SPENT, 1, 1, details)])
    adopted = told([*STORY[:2], opened(1), opened(2), (EventKind.PRIVACY_SPENT, None, None, details)])
    about = spent.about_to_reveal(LAST)
    assert about is not None

    assert spent.spent_by(about, "privacy.json") == 1
    assert spent.spent_by(about, "privacy-samples.json") == 0
    assert adopted.spent_by(about, "privacy.json") == 0


def test_a_run_has_one_result() -> None:
    """Exported again it is the same, or the log is none of a run."""
    again = (*STORY[-1][:3], {"rounds": 2, "adapter_file": DIGESTS[7]})

    assert told([*STORY, STORY[-1]]).adapter_file == DIGESTS[6]
    with pytest.raises(
        RunFolderError, match="line 14: run-finished does not belong there: a run has one result"
    ):
        told([*STORY, again])


@pytest.mark.parametrize("count", range(len(STORY) + 1))
def test_every_beginning_of_a_story_is_one(count: int) -> None:
    """A process may end anywhere."""
    assert told(STORY[:count]).rounds == sum("metrics" in details for *_, details in STORY[:count])


@pytest.mark.parametrize(
    ("line", "change", "rule"),
    [
        (1, {"run": None}, "run-created must say run"),
        (1, {"config": ""}, "run-created must say config"),
        (2, {"base": 5}, "base-made must say base"),
        (2, {"base": "00"}, "base must be a SHA-256"),
        (4, {"entries": 2}, r"privacy\.json must have 1 entries now"),
        (4, {"entries": True}, None),
        (7, {"entries": 1}, r"privacy\.json must have 2 entries now"),
        (7, {"digest": "00"}, "digest must be a SHA-256"),
        (5, {"rounds": 1}, "the run had 0 rounds then"),
        (5, {"adapter": DIGESTS[3]}, "not the last round's"),
        (5, {"unopened": [1, 1]}, "attempt 1 at round 1 is not a new one"),
        (5, {"unopened": None}, "unopened must be nothing or a round and an attempt"),
        (5, {"unopened": [1, 2, 3]}, "unopened must be nothing or a round and an attempt"),
        (9, {"adapter": DIGESTS[4]}, "not the last round's"),
        (9, {"rounds": 2}, "the run had 1 rounds then"),
        (8, {"adapter": None}, "round-finished must say adapter"),
        (8, {"metrics": None}, "round-finished must say metrics"),
        (12, {"metrics": "00"}, "metrics must be a SHA-256"),
        (13, {"rounds": None}, "the run had 2 rounds then"),
        (13, {"adapter_file": None}, "run-finished must say adapter_file"),
        (13, {"adapter_file": "00"}, "adapter_file must be a SHA-256"),
    ],
)
def test_what_cannot_follow_is_refused_by_line(line: int, change: dict[str, Any], rule: str | None) -> None:
    """Each line is held against those before it."""
    kind, round_number, attempt, details = STORY[line - 1]
    story = [*STORY[: line - 1], (kind, round_number, attempt, details | change), *STORY[line:]]

    if rule is None:
        told(story)
        return
    with pytest.raises(
        RunFolderError, match=rf"events\.jsonl line {line}: {kind} does not belong there: .*{rule}"
    ):
        told(story)


@pytest.mark.parametrize("line", [line for line in range(1, len(STORY)) if line not in {2, 5, 7, 9, 11}])
def test_a_line_that_is_left_out_is_missed(line: int) -> None:
    """But for what no later line relies on: the files that it names are held against what is left."""
    with pytest.raises(RunFolderError, match="does not belong there"):
        told([*STORY[: line - 1], *STORY[line:]])


def test_a_line_that_is_told_twice_is_refused() -> None:
    """Every event but those that nothing relies on happens once."""
    for line, (kind, *_) in enumerate(STORY, start=1):
        again = [*STORY[:line], *STORY[line - 1 :]]
        if kind in {EventKind.REFUSAL, EventKind.RUN_FINISHED} or line == 9:
            told(again)
            continue
        with pytest.raises(RunFolderError, match=rf"line {line + 1}: "):
            told(again)
