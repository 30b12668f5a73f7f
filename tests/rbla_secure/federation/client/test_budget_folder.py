"""A client's folder of budgets: nothing that was counted is forgotten unnoticed, whatever is put back, edited or cut off."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rbla_secure.errors import PrivacyError
from rbla_secure.federation.client import budget_folder
from rbla_secure.federation.client.budget_folder import STATE, BudgetFolder, look_at_budgets
from rbla_secure.privacy.lifetime_ledger import LifetimeLedger
from tests.rbla_secure.privacy.test_lifetime_ledger import entry, terms

ME = "small-01"
ROOT = Path(__file__).parents[4]


def count(folder: Path, *numbers: int, label: str = "ward", client: str = ME) -> int:
    """A process that counts rounds; how many entries the ledger has then."""
    held = BudgetFolder(folder, client=client)
    try:
        ledger = held.ledger(label, terms(label=label, client=client))
        for number in numbers:
            held.record(ledger, entry(number))
        return len(ledger.entries)
    finally:
        held.close()


def ledger_in(folder: Path, label: str = "ward") -> Path:
    return folder / f"data-{label}.json"


def test_the_next_process_goes_on_counting(tmp_path: Path) -> None:
    """Each label by itself; files are private, and nothing is written for a label that has not been used."""
    assert count(tmp_path, 1, 2) == 2
    assert count(tmp_path, 3) == 3
    assert count(tmp_path, label="other") == 0
    assert count(tmp_path, 1, label="third") == 1

    files = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert files == dict.fromkeys(["lock", STATE, "data-ward.json", "data-third.json"], 0o600)
    assert [len(each.entries) for each in look_at_budgets(tmp_path).ledgers] == [1, 3]


def test_a_new_folder_is_the_clients_alone(tmp_path: Path) -> None:
    """Its mode, and its client's name in it: another client is refused."""
    folder = tmp_path / "new" / ME

    count(folder, 1)

    assert folder.stat().st_mode & 0o777 == 0o700
    with pytest.raises(PrivacyError, match="has the budgets of small-01, not of small-02"):
        count(folder, 1, client="small-02")


# What is put back, edited or cut off.


def without(name: str) -> Callable[[Path, dict[str, bytes]], None]:
    return lambda folder, _before: (folder / name).unlink()


def put_back(*names: str) -> Callable[[Path, dict[str, bytes]], None]:
    def change(folder: Path, before: dict[str, bytes]) -> None:
        for name in names:
            (folder / name).write_bytes(before[name])

    return change


def replaced(name: str, old: str, new: str) -> Callable[[Path, dict[str, bytes]], None]:
    def change(folder: Path, _before: dict[str, bytes]) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))

    return change


def another_label(folder: Path, _before: dict[str, bytes]) -> None:
    ledger_in(folder).rename(ledger_in(folder, "ward2"))
    put = ledger_in(folder, "ward2").read_text()
    ledger_in(folder).write_text(put.replace('"ward"', '"ward2"'))


def as_link(name: str) -> Callable[[Path, dict[str, bytes]], None]:
    def change(folder: Path, _before: dict[str, bytes]) -> None:
        (folder / name).rename(folder / "elsewhere")
        (folder / name).symlink_to(folder / "elsewhere")

    return change


WARD = "data-ward.json"
CHANGES: dict[str, tuple[Callable[[Path, dict[str, bytes]], None], str]] = {
    "the ledger is deleted": (without(WARD), "is missing with the 3 entries"),
    "the state is deleted": (without(STATE), r"state\.json is missing, and data-ward\.json is here"),
    "an older ledger": (
        put_back(WARD),
        "has 1 of the 3 entries that state.json holds: spent privacy would be forgotten",
    ),
    "an older state": (
        put_back(STATE),
        "has 3 entries, of which state.json holds 1 and a crash can leave one more",
    ),
    "less was spent": (
        replaced(WARD, '"noise_multiplier": 2.0', '"noise_multiplier": 3.0'),
        "are not those that state.json",
    ),
    "another limit": (
        replaced(WARD, '"max_epsilon": 0.0', '"max_epsilon": 9.0'),
        "its terms or its first 3 entries",
    ),
    "a ledger of another label": (another_label, "is the ledger of small-01 for data 'ward2'"),
    "a ledger of another client": (
        replaced(WARD, ME, "small-02"),
        "is the ledger of small-02 for data 'ward'",
    ),
    "a torn ledger": (lambda folder, _: os.truncate(folder / WARD, 100), "is damaged: restore it"),
    "a torn state": (lambda folder, _: os.truncate(folder / STATE, 40), r"state\.json is damaged"),
    "an unknown key": (
        replaced(STATE, '"format": 1,', '"format": 1,\n "more": 1,'),
        r"state\.json is damaged",
    ),
    "another spelling": (replaced(STATE, '"format": 1,', '"format":  1,'), r"state\.json is not spelt"),
    "a linked ledger": (as_link(WARD), "is a link: put the file itself there"),
    "a linked state": (as_link(STATE), "is a link: put the file itself there"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_whatever_was_changed_is_refused(tmp_path: Path, name: str) -> None:
    """By whoever goes on and by whoever looks; nothing is written, and the files as they were are read."""
    tmp_path.mkdir(exist_ok=True)
    change, words = CHANGES[name]
    count(tmp_path, 1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    count(tmp_path, 2, 3)
    now = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert len(look_at_budgets(tmp_path).ledgers[0].entries) == 3
    change(tmp_path, before)
    changed = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    with pytest.raises(PrivacyError, match=words):
        count(tmp_path, 4)
    with pytest.raises(PrivacyError, match=words):
        look_at_budgets(tmp_path)

    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == changed
    for path in tmp_path.iterdir():
        path.unlink()
    for each, data in now.items():
        (tmp_path / each).write_bytes(data)
    assert count(tmp_path, 4) == 4


def test_a_whole_folder_from_an_older_copy_is_the_limit(tmp_path: Path) -> None:
    """Nobody can notice that without knowledge from elsewhere: it is said in the limits."""
    count(tmp_path, 1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    count(tmp_path, 2, 3)

    put_back(*before)(tmp_path, before)

    assert count(tmp_path, 2) == 2


# Crashes and full disks.

_CHILD = """
import os, signal, sys
from pathlib import Path
from rbla_secure.federation.client import budget_folder
from tests.rbla_secure.federation.client.test_budget_folder import count

write, left = budget_folder.write_atomic, int(sys.argv[2])


def dying(*arguments, **more):
    global left
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    write(*arguments, **more)


budget_folder.write_atomic = dying
count(Path(sys.argv[1]), *map(int, sys.argv[3:]))
"""


def killed_after(writes: int, folder: Path) -> None:
    """A process that counts two rounds and is killed before a write."""
    arguments = [sys.executable, "-c", _CHILD, str(folder), str(writes), "2", "3"]
    child = subprocess.run(arguments, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    assert child.returncode == -signal.SIGKILL


@pytest.mark.parametrize(("writes", "counted"), [(0, 1), (1, 2), (2, 2), (3, 3)])
def test_a_kill_between_two_writes_forgets_nothing(tmp_path: Path, writes: int, counted: int) -> None:
    """The entry that is in the ledger and not yet in state.json counts, and the next process has both say so."""
    count(tmp_path, 1)

    killed_after(writes, tmp_path)

    assert len(look_at_budgets(tmp_path).ledgers[0].entries) == counted
    assert count(tmp_path, 7, 8) == counted + 2
    assert len(look_at_budgets(tmp_path).ledgers[0].entries) == counted + 2


@pytest.mark.parametrize(("writes", "counted"), [(1, 2), (2, 3)])
def test_a_second_kill_at_the_same_moment_forgets_nothing(tmp_path: Path, writes: int, counted: int) -> None:
    """Whoever goes on first has state.json hold what the first kill left: one entry more is all that a crash leaves."""
    count(tmp_path, 1)

    killed_after(1, tmp_path)
    killed_after(writes, tmp_path)

    assert count(tmp_path, 7) == counted + 1


@pytest.mark.parametrize("failing", [1, 2])
def test_a_full_disk_is_a_refusal_and_leaves_a_sound_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, failing: int
) -> None:
    """Whether the ledger or state.json could not be written; with room again counting goes on, too much rather than too little."""
    count(tmp_path, 1)
    held = BudgetFolder(tmp_path, client=ME)
    ledger = held.ledger("ward", terms())
    write, calls = budget_folder.write_atomic, []

    def full(path: Path, data: bytes, *, mode: int) -> None:
        calls.append(path)
        if len(calls) == failing:
            raise OSError(28, "No space left on device")
        write(path, data, mode=mode)

    with monkeypatch.context() as patch:
        patch.setattr(budget_folder, "write_atomic", full)
        with pytest.raises(
            PrivacyError, match=r"No space left on device.*nothing is trained that is not counted"
        ):
            held.record(ledger, entry(2))
    held.record(ledger, entry(3))
    held.close()

    assert [each.round for each in look_at_budgets(tmp_path).ledgers[0].entries] == (
        [1, 3] if failing == 1 else [1, 2, 3]
    )


# One process, one client.


def test_a_folder_serves_one_process_at_a_time(tmp_path: Path) -> None:
    """Two that count at once would each forget what the other counts."""
    held = BudgetFolder(tmp_path, client=ME)

    with pytest.raises(PrivacyError, match="is in use by another process"):
        count(tmp_path, 1)
    held.close()
    assert count(tmp_path, 1) == 1


def test_without_the_lock_two_processes_forget(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The control."""
    monkeypatch.setattr(budget_folder, "lock", lambda _folder: None)
    both = [BudgetFolder(tmp_path, client=ME) for _ in range(2)]
    ledgers = [held.ledger("ward", terms()) for held in both]

    for held, ledger in zip(both, ledgers, strict=True):
        held.record(ledger, entry(1))

    assert len(look_at_budgets(tmp_path).ledgers[0].entries) == 1


def test_a_closed_or_forked_folder_takes_nothing(tmp_path: Path) -> None:
    """Whoever holds it next may be writing."""
    held = BudgetFolder(tmp_path, client=ME)
    ledger = held.ledger("ward", terms())
    child = os.fork()
    if not child:
        try:
            held.record(ledger, entry(1))
        except PrivacyError:
            os._exit(0)
        os._exit(1)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    held.close()
    with pytest.raises(PrivacyError, match="are closed in this process"):
        held.record(ledger, entry(1))


def test_a_folder_that_was_replaced_takes_nothing(tmp_path: Path) -> None:
    """Its lock is elsewhere: another process may hold the one that is there now."""
    held = BudgetFolder(tmp_path / ME, client=ME)
    ledger = held.ledger("ward", terms())
    (tmp_path / ME).rename(tmp_path / "old")
    count(tmp_path / ME)

    with pytest.raises(PrivacyError, match="was replaced while it was in use"):
        held.record(ledger, entry(1))


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    """A link, a file, and for whoever looks a folder that no client has."""
    (tmp_path / "file").write_text("")
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")

    with pytest.raises(PrivacyError, match="is a link: name the folder itself"):
        count(tmp_path / "link", 1)
    with pytest.raises(PrivacyError, match="cannot be used: File exists"):
        count(tmp_path / "file", 1)
    with pytest.raises(PrivacyError, match="is no client's folder of budgets"):
        look_at_budgets(tmp_path / "real")


def test_a_folder_may_be_looked_at_while_its_client_writes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """State.json was read before two more entries came: it is read again, and nobody is accused."""
    count(tmp_path, 1)
    parse, raced = LifetimeLedger.parse, []

    def slow(path: Path, data: bytes) -> LifetimeLedger:
        if not raced:
            raced.append(True)
            count(tmp_path, 2, 3)
            data = path.read_bytes()
        return parse(path, data)

    monkeypatch.setattr(budget_folder.LifetimeLedger, "parse", slow)

    assert len(look_at_budgets(tmp_path).ledgers[0].entries) == 3
