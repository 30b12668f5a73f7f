"""The direction that is kept for services that are started again: of the last round alone, and held against the log."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from protocols.errors import ServiceError
from protocols.homomorphic.screening.at_verifier import NOTHING_YET
from protocols.homomorphic.services.messages import Answer
from protocols.homomorphic.services.operated import HomomorphicServices
from protocols.homomorphic.services.processes import ProcessChannel
from protocols.session import Session
from rbla_secure.errors import RunFolderError
from rbla_secure.planning.modes.homomorphic import charge_of
from rbla_secure.run_folder import folder as folders
from rbla_secure.run_folder.audit_log import EventKind, LogEntry, read_events
from rbla_secure.run_folder.folder import RunFolder
from tests.rbla_secure.run_folder.test_folder import PLAN, CrashError, adapter_after
from tests.support.federations import make_config, make_plan, make_session
from tests.support.records import make_record, make_seconds
from tests.support.run_folders import snapshot


def open_session(folder: RunFolder, number: int) -> Session:
    """The next attempt at a round, which the log is told of."""
    session = make_session(PLAN, run=folder.run_id, round_number=number, attempt=folder.next_attempt(number))
    folder.log.append(LogEntry.of_session(session, EventKind.SESSION_OPENED))
    return session


def save_round(folder: RunFolder, number: int, direction: bytes = b"", *, upcoming: bool = False) -> None:
    """A round from its session to its end, with something kept of it; the next session opened before that, or not."""
    adapter = adapter_after(number)
    record = make_record(round=number, adapter=adapter.digest().hex())
    session = open_session(folder, number)
    if upcoming:
        open_session(folder, number + 1)
    folder.save(PLAN, session, adapter, record, make_seconds(round=number), direction=direction)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[RunFolder]:
    """A run folder with three rounds."""
    made = RunFolder.create(tmp_path / "run", make_config(rounds=20_000))
    for number in (1, 2, 3):
        save_round(made, number, b"direction %d" % number)
    yield made
    made.close()


def kept(folder: RunFolder) -> list[str]:
    """The files that there are."""
    return sorted(path.name for path in (folder.path / "checkpoints").glob("*.direction"))


def reopened(folder: RunFolder) -> RunFolder:
    """By another process."""
    folder.close()
    return RunFolder.open(folder.path)


def test_the_last_rounds_is_kept_and_named_by_the_log(folder: RunFolder) -> None:
    """Written before the event that ends its round; those of earlier rounds are gone."""
    assert kept(folder) == ["round-0003.direction"]
    assert folder.direction() == b"direction 3"
    assert reopened(folder).direction() == b"direction 3"
    kinds = [event.kind for event in read_events(folder.path / "events.jsonl")]
    assert kinds[-2:] == [EventKind.DIRECTION_KEPT, EventKind.ROUND_FINISHED]


def test_where_nothing_is_kept_there_is_no_file_and_no_event(tmp_path: Path) -> None:
    """As in all runs but screened ones with a verifier; and a round without one leaves none of the round before."""
    made = RunFolder.create(tmp_path / "run", make_config(rounds=20_000))
    save_round(made, 1, b"direction")
    save_round(made, 2)

    assert kept(made) == []
    assert made.direction() == b""
    assert reopened(made).direction() == b""


def other(path: Path) -> None:
    path.write_bytes(b"direction 2")


def longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def link(path: Path) -> None:
    path.rename(path.parent / "elsewhere")
    path.symlink_to(path.parent / "elsewhere")


def in_its_place(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("edit", [other, longer, link, in_its_place, Path.unlink])
def test_an_edited_direction_is_refused_by_file_name(folder: RunFolder, edit: Callable[[Path], None]) -> None:
    """With what to do, and nothing is written."""
    path = folder.path / "checkpoints" / "round-0003.direction"
    edit(path)
    before = snapshot(folder.path)

    with pytest.raises(RunFolderError, match=r"round-0003\.direction is .*restore it from a copy"):
        reopened(folder)
    with pytest.raises(RunFolderError, match=r"round-0003\.direction is "):
        folder.direction()

    assert snapshot(folder.path) == before


def test_a_careless_folder_would_take_what_is_there(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: without the comparison another direction goes to the services."""
    path = folder.path / "checkpoints" / "round-0003.direction"
    other(path)
    monkeypatch.setattr(folders, "read_direction", lambda *_: path.read_bytes())

    assert reopened(folder).direction() == b"direction 2"


def test_a_crash_before_the_event_leaves_the_round_before(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The direction of a round that does not count is not used, and goes with what else is left of it."""

    def crash(*_: object, **__: object) -> Iterator[LogEntry]:
        raise CrashError

    with monkeypatch.context() as patch:
        patch.setattr(folders, "of_round", crash)
        with pytest.raises(CrashError):
            save_round(folder, 4, b"direction 4", upcoming=True)
    assert kept(folder) == ["round-0003.direction", "round-0004.direction"]

    again = reopened(folder)

    assert again.direction() == b"direction 3"
    again.say_resumed(again.load(PLAN))
    assert kept(again) == ["round-0003.direction"]
    save_round(again, 4, b"another")
    assert again.direction() == b"another"
    assert reopened(again).direction() == b"another"


def test_a_crash_before_the_old_one_is_gone_leaves_both_for_a_while(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log's word counts; whoever goes on takes the old one away."""

    def crash(*_: object) -> None:
        raise CrashError

    with monkeypatch.context() as patch:
        patch.setattr(folders, "drop_directions", crash)
        with pytest.raises(CrashError):
            save_round(folder, 4, b"direction 4")
    assert kept(folder) == ["round-0003.direction", "round-0004.direction"]

    again = reopened(folder)

    assert again.direction() == b"direction 4"
    again.say_resumed(again.load(PLAN))
    assert kept(again) == ["round-0004.direction"]


@pytest.mark.parametrize(
    ("number", "digest", "rule"),
    [(3, "a" * 64, "the round after 3 is 4"), (4, "a" * 64, "was never opened"), (5, "a" * 64, "is 4")],
)
def test_an_event_that_no_run_writes_is_refused(
    folder: RunFolder, number: int, digest: str, rule: str
) -> None:
    """Of another round than the one that is about to end."""
    session = make_session(PLAN, run=folder.run_id, round_number=number, attempt=9)

    with pytest.raises(RunFolderError, match=rule):
        folder.log.append(LogEntry.of_session(session, EventKind.DIRECTION_KEPT, direction=digest))


def test_an_event_must_name_a_digest(folder: RunFolder) -> None:
    """Not any text."""
    session = make_session(PLAN, run=folder.run_id, round_number=4, attempt=folder.next_attempt(4))
    folder.log.append(LogEntry.of_session(session, EventKind.SESSION_OPENED))

    with pytest.raises(RunFolderError, match="direction must be a SHA-256"):
        folder.log.append(LogEntry.of_session(session, EventKind.DIRECTION_KEPT, direction="short"))
    assert len(hashlib.sha256().hexdigest()) == 64


@pytest.mark.parametrize(
    "homomorphic",
    [{"verifier": True}, {"screening": "verdicts"}, {"verifier": False}],
    ids=["unscreened", "no verifier", "neither"],
)
def test_where_checkpoints_tell_it_nothing_is_asked_for(homomorphic: dict[str, object]) -> None:
    """Not even a process is started."""
    services = HomomorphicServices(charge_of(make_plan(secure_sum="homomorphic", homomorphic=homomorphic)))

    assert services.direction_to_keep() == b""
    services.recall(b"whatever")
    assert all(process.pid is None for process in services.processes.values())


def test_a_verifier_that_is_gone_or_talks_nonsense_leaves_nothing_to_keep(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its round counts all the same; the next one fails by its name."""
    plan = make_plan(secure_sum="homomorphic", homomorphic={"verifier": True, "screening": "verdicts"})
    services = HomomorphicServices(charge_of(plan))
    services.public_keys()
    services.processes["verifier"].close()

    assert services.direction_to_keep() == NOTHING_YET.to_bytes()
    monkeypatch.setattr(ProcessChannel, "operate", lambda *_: Answer(payload=b"garbage").to_bytes())
    assert services.direction_to_keep() == NOTHING_YET.to_bytes()
    with pytest.raises(ServiceError, match="verifier: it has died"):
        services.public_keys()
    services.close()
