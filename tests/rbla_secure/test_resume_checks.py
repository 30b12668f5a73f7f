"""Whoever edits, exchanges, shortens or removes a file of a run folder is refused by name, and nothing is written.

Each case edits a copy of a finished run, or of one that was left unfinished, in one way, and opens it. The control is that the
same copy, untouched, goes on. What the checks cannot see is here as well, as a test that it goes unseen: the whole
chain written anew together with the files that it names, and everything cut back to an earlier state.
"""

import hashlib
import json
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from rbla_secure.cli import main
from rbla_secure.config import load_config
from rbla_secure.errors import RunFolderError
from rbla_secure.run_folder.audit_log import AuditLog, EventKind, read_events
from rbla_secure.run_folder.folder import RunFolder
from rbla_secure.run_folder.history import History
from tests.support.federations import make_config
from tests.support.folder_edits import (
    Edit,
    at,
    both,
    edit_base,
    entries,
    figures,
    last_entry,
    lines_of,
    one_byte,
    poison,
    shaped,
    text_of,
    told,
    with_hidden_tensor,
    without,
)
from tests.support.refused_edits import EDITS, LEDGERS, ROUNDS
from tests.support.run_folders import (
    cut_back,
    die_before_the_end_of,
    die_before_the_log_of,
    go_back_to,
    keep_entries,
    keep_lines,
    result_at,
    rewrite_events,
    snapshot,
)
from tests.support.tiny_job import adapter_sha256, job, write_images

NOISE = {
    "noise_multiplier": 4,
    "privacy__colluders": 0,
    "training__steps": 3,
    "sample_level__noise_multiplier": 2,
    "sample_level__sample_rate": 0.2,
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Finished runs: one, another one of the same plan, one of another seed, and one with noise at both levels."""
    folder = tmp_path_factory.mktemp("runs")
    images = write_images(folder)
    changes: dict[str, dict[str, Any]] = {"run": {}, "twin": {}, "other": {"seed": 5}, "noisy": NOISE}
    for name, each in changes.items():
        assert main(["run", "--out", str(folder / name), *job(images, rounds=ROUNDS, **each)]) == 0
    return {name: folder / name for name in changes}


@pytest.fixture
def folder(tmp_path: Path, runs: Mapping[str, Path]) -> Path:
    """A copy of a finished run."""
    return copy_of(runs["run"], tmp_path)


def copy_of(run: Path, into: Path) -> Path:
    """A copy that may be edited, beside links to the other runs."""
    for other in run.parent.iterdir():
        if other.is_dir() and other.name != run.name:
            (into / other.name).symlink_to(other)
    return Path(shutil.copytree(run, into / "copy"))


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_is_refused_by_name_and_nothing_is_written(
    tmp_path: Path, runs: Mapping[str, Path], capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """One line says which file is wrong and what to do, and the folder is as the edit left it."""
    run, edit, words = EDITS[name]
    folder = copy_of(runs[run], tmp_path)
    edit(folder)
    before = snapshot(folder)
    capsys.readouterr()

    code = main(["resume", str(folder)])

    error = capsys.readouterr().err
    assert code == 1
    assert words in error
    assert error.count("\n") == 1
    assert snapshot(folder) == before
    if "adapter" in before:
        assert "0.999" not in (folder / "adapter" / "README.md").read_text()


UNTOUCHED = ("run", "twin", "other", "noisy")


@pytest.mark.parametrize("name", UNTOUCHED)
def test_an_untouched_copy_goes_on(tmp_path: Path, runs: Mapping[str, Path], name: str) -> None:
    """The control: none of the checks refuses what nobody edited."""
    folder = copy_of(runs[name], tmp_path)

    assert main(["resume", str(folder)]) == 0

    assert adapter_sha256(folder) == adapter_sha256(runs[name])


@pytest.mark.parametrize("number", [0, 2])
@pytest.mark.parametrize("name", ["another secure sum", "another identity", "no noise any more", "no log"])
def test_an_unfinished_run_is_held_against_its_log_too(
    tmp_path: Path, runs: Mapping[str, Path], capsys: pytest.CaptureFixture[str], name: str, number: int
) -> None:
    """Before the first checkpoint as well: what would be trained next is named by the log alone."""
    run, edit, words = EDITS[name]
    folder = copy_of(runs[run], tmp_path)
    die_before_the_end_of(folder, number + 1)
    for left in ("metrics.jsonl", "timings.jsonl"):
        keep_lines(folder / left, number)
    (folder / at(number + 1)).unlink()
    edit(folder)
    before = snapshot(folder)

    code = main(["resume", str(folder)])

    assert code == 1
    assert words in capsys.readouterr().err
    assert snapshot(folder) == before


def test_the_careless_party_believes_the_folder(
    folder: Path, runs: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control of the poisoned checkpoint: without the comparison it is exported as the run's result."""
    go_back_to(folder, 3)
    digest, named = poison(folder, 3), History.adapter_after
    monkeypatch.setattr(
        History, "adapter_after", lambda self, number: digest if number == 3 else named(self, number)
    )

    assert main(["resume", str(folder)]) == 0

    assert adapter_sha256(folder) != adapter_sha256(runs["run"])


def test_the_careless_party_prints_an_edited_figure(folder: Path) -> None:
    """The control of the edited metrics: without the digest the model card tells of them."""
    figures(ROUNDS, accuracy=0.999)(folder)
    digest = hashlib.sha256((folder / "metrics.jsonl").read_bytes().splitlines()[-1]).hexdigest()
    rewrite_events(folder, told("round-finished", ROUNDS, metrics=digest))
    without("adapter")(folder)

    assert main(["resume", str(folder)]) == 0

    assert "0.999" in (folder / "adapter" / "README.md").read_text()


def test_the_careless_party_hands_out_an_edited_result(
    folder: Path, runs: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control of the edited result: without the comparison the run ends well, and the edit is what its users load."""
    one_byte("adapter/adapter_model.safetensors")(folder)
    monkeypatch.setattr("rbla_secure.job.check_exported", lambda *_: None)

    assert main(["resume", str(folder)]) == 0

    assert adapter_sha256(folder) != adapter_sha256(runs["run"])


def test_the_careless_party_reads_past_what_is_hidden(folder: Path, runs: Mapping[str, Path]) -> None:
    """The control of the hidden tensor: to who asks for the rows alone both files are the same checkpoint."""
    with_hidden_tensor(at(2))(folder)

    rows = [load_file(each / at(2))["rows"].tobytes() for each in (folder, runs["run"])]

    assert rows[0] == rows[1]
    assert set(load_file(folder / at(2))) == {"rows", "hidden"}


def test_the_careless_party_believes_an_entry_of_nobody(
    tmp_path: Path, runs: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control of the last entry: whoever counts entries alone goes on, and the log vouches for it from then on."""
    folder = copy_of(runs["noisy"], tmp_path)
    EDITS["privacy.json: an unlogged entry for round 77 of nobody"][1](folder)
    monkeypatch.setattr("rbla_secure.privacy.ledger_state._not_left_by_a_crash", lambda *_: "")
    monkeypatch.setattr("rbla_secure.run_folder.ledger_checks._not_of_its_session", lambda *_: "")
    monkeypatch.setattr("rbla_secure.federation.server.spending.Spending._check_last", lambda *_, **__: None)

    assert main(["resume", str(folder)]) == 0

    monkeypatch.undo()
    assert main(["account", str(folder)]) == 0
    assert '"nobody"' in (folder / "privacy.json").read_text()


def test_the_careless_party_takes_a_result_of_nothing_spent(
    tmp_path: Path, runs: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control of the early result: unasked for its spending, the line passes for one that a crash left."""
    folder = copy_of(runs["noisy"], tmp_path)
    EDITS["a result of a round whose spending the log does not hold"][1](folder)
    monkeypatch.setattr("rbla_secure.run_folder.verify._must_have_spent", lambda *_: {})

    assert main(["resume", str(folder)]) == 0


def test_an_aborted_round_that_a_crash_left_is_taken(tmp_path: Path, runs: Mapping[str, Path]) -> None:
    """The control of what is ahead: a round may be aborted before its clients spend anything, and its line is left."""
    folder = copy_of(runs["noisy"], tmp_path)
    EDITS["an entry that the log does not hold, and an aborted round"][1](folder)
    keep_entries(folder / "privacy.json", 2)

    assert main(["resume", str(folder)]) == 0


# An entry that a crash left, in every way in which a run can spend: its figures are those of the plan, to the last digit.
MODES: dict[str, dict[str, object]] = {
    "masking": {"dropout_rate": 0.1},
    "plain": {"secure_sum": "plain"},
    "plain, the sums": {"secure_sum": "plain", "dropout_rate": 0.1},
    "homomorphic": {"secure_sum": "homomorphic"},
    "groups": {"robustness__group_size": 3, "tiers__phone__clients": 3, "tiers__laptop__clients": 3,
               "tiers__workstation__clients": 3, "tiers__datacenter__clients": 3},
    "adaptive clipping": {"privacy__clipping": "adaptive", "noise_multiplier": 0.5, "privacy__clip_rate": 2.0},
    "a trusted server": {"privacy__mechanism": "central"},
    "add or remove": {"secure_sum": "plain", "dropout_rate": 0.1, "privacy__mechanism": "central", "privacy__adjacency": "add-or-remove"},
    "recovered noise": {"privacy__recovered_dropout": 0.2, "masking__profile": "consistency"},
}  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
def test_in_every_mode_the_entry_that_a_crash_left_is_that_of_its_session(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], mode: str
) -> None:
    """Taken as it was left; with other figures, or of a part of those that it must name, it is refused."""
    changes = {"noise_multiplier": 4, "privacy__colluders": 0, **MODES[mode]}
    folder = tmp_path / "run"
    arguments = job(write_images(tmp_path), rounds=ROUNDS, **changes)
    assert main(["run", "--out", str(folder), *arguments]) == 0
    die_before_the_log_of(folder, "privacy.json", 3, entry=int(mode == "plain, the sums"))
    left = (folder / "privacy.json").read_bytes()
    at_once = mode in {"plain", "add or remove"}
    seen = "coalition" if mode == "plain" else "public"
    refused = [last_entry("privacy.json", lambda entry: entry[seen].update(noise_multiplier=99.0))]
    if at_once:
        refused.append(last_entry("privacy.json", lambda entry: entry["clients"].pop()))
    for edit in refused:
        edit(folder)
        before = snapshot(folder)
        capsys.readouterr()

        assert main(["resume", str(folder)]) == 1

        assert "privacy.json: its last entry is not in events.jsonl, and " in capsys.readouterr().err
        assert snapshot(folder) == before
        (folder / "privacy.json").write_bytes(left)

    assert main(["resume", str(folder)]) == 0

    found = [
        (e["round"], e["attempt"], e["shown"])
        for e in json.loads((folder / "privacy.json").read_text())["entries"]
    ]
    wanted = [
        (*attempt, shown)
        for attempt in ((1, 1), (2, 1), (3, 1), (3, 2), (4, 2))
        for shown in (("uploads", "sums") if mode.startswith("plain") else ("sums",))
    ]
    if mode == "plain":
        wanted.remove((3, 1, "sums"))  # nobody was asked after the entry of the uploads
    assert found == wanted


# What is no edit.


@pytest.mark.parametrize(
    "edit",
    [
        text_of("config.toml", lambda text: "# mine\n\n" + text.replace(" = ", "  =  ")),
        lines_of("timings.jsonl", lambda lines: [shaped(line, training=1.5) for line in lines]),
        without("timings.jsonl"),
        lines_of("timings.jsonl", lambda lines: lines[1:]),
        text_of("metrics.jsonl", lambda text: text + '{"round":5,"accu'),
        text_of("events.jsonl", lambda text: text + '{"attempt":nu'),
        text_of("attempts.jsonl", lambda text: text + '{"round": 5, "at'),
        both(
            lambda folder: go_back_to(folder, 2),
            lines_of("attempts.jsonl", lambda lines: [*lines, '{"round": 4, "attempt": 1}']),
        ),
        lambda folder: (folder / "adapter" / "notes.txt").write_text("mine"),
        lambda folder: (folder / "notes.txt").write_text("mine"),
        lambda folder: (folder / "checkpoints" / "round-00003.safetensors").write_text("mine"),
        lambda folder: (folder / "checkpoints" / ".round-0005.safetensors.tmp").write_text("torn"),
        without("lock"),
        without("adapter"),
        without("adapter/README.md"),
        without("adapter/adapter_model.safetensors"),
        without("base"),
    ],
    ids=[
        "spaces in config.toml", "other timings", "no timings", "timings of fewer rounds", "torn metrics", "torn log",
        "torn attempts", "an attempt without its session", "a file beside the result", "a file of somebody", "a name that is none of ours",
        "a checkpoint that was never renamed", "no lock", "no result", "no card", "no weights",
        "no base",
    ],
)  # fmt: skip
def test_what_is_no_evidence_or_a_crash_leaves_is_taken(
    folder: Path, runs: Mapping[str, Path], edit: Edit
) -> None:
    """The run goes on to the same result: config.toml counts by what it says, seconds prove nothing, a base is made again."""
    edit(folder)

    assert main(["resume", str(folder)]) == 0

    assert adapter_sha256(folder) == adapter_sha256(runs["run"])
    assert (folder / "metrics.jsonl").read_bytes() == (runs["run"] / "metrics.jsonl").read_bytes()
    assert main(["resume", str(folder)]) == 0


@pytest.mark.parametrize("number", [1, 3, ROUNDS])
def test_what_the_log_does_not_hold_is_not_believed(
    folder: Path, runs: Mapping[str, Path], number: int
) -> None:
    """A round whose end the log was not told of is run again, whatever its checkpoint and its line say meanwhile."""
    die_before_the_end_of(folder, number)
    figures(number, accuracy=0.999, adapter=poison(folder, number))(folder)

    assert main(["resume", str(folder)]) == 0

    assert adapter_sha256(folder) == adapter_sha256(runs["run"])
    assert (folder / "metrics.jsonl").read_bytes() == (runs["run"] / "metrics.jsonl").read_bytes()


def test_a_base_that_the_log_does_not_name_is_made_again(folder: Path, runs: Mapping[str, Path]) -> None:
    """Killed between the base and its event, a run does not train on what lies there."""
    cut_back(folder, 1, rounds=0)
    for name in ("attempts.jsonl", "metrics.jsonl", "timings.jsonl"):
        (folder / name).unlink()
    edit_base(folder)

    assert main(["resume", str(folder)]) == 0

    assert adapter_sha256(folder) == adapter_sha256(runs["run"])


def test_a_lost_base_that_comes_out_otherwise_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another machine may train another base: it is compared before it is written."""
    without("base")(folder)
    monkeypatch.setattr("rbla_secure.tasks.base_model.BASE_EPOCHS", 1)
    capsys.readouterr()

    assert main(["resume", str(folder)]) == 1

    assert "base is not the base that events.jsonl names" in capsys.readouterr().err
    assert not (folder / "base").exists()


def test_an_attempt_that_came_to_no_session_is_adopted_once(folder: Path) -> None:
    """The log holds it from the next resumption on: from then on it is missed like any other."""
    go_back_to(folder, 2)
    lines_of("attempts.jsonl", lambda lines: [*lines, '{"round": 4, "attempt": 1}'])(folder)
    assert main(["resume", str(folder)]) == 0
    events = read_events(folder / "events.jsonl")
    resumed = [event for event in events if event.kind is EventKind.RUN_RESUMED]
    opened = [(each.round, each.attempt) for each in events if each.kind is EventKind.SESSION_OPENED]

    lines_of("attempts.jsonl", lambda lines: [*lines[:3], *lines[4:]])(folder)

    assert [event.details["unopened"] for event in resumed] == [[4, 1]]
    assert opened[3:] == [(3, 2), (4, 2)]
    assert main(["resume", str(folder)]) == 1


@pytest.mark.parametrize("number", [1, 3, ROUNDS])
@pytest.mark.parametrize("ledger", LEDGERS)
def test_an_entry_that_a_crash_left_is_adopted_once(
    tmp_path: Path, runs: Mapping[str, Path], ledger: str, number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Killed between ledger and log, the entry counts, and from the next resumption on it is missed like any other."""
    folder = copy_of(runs["noisy"], tmp_path)
    die_before_the_log_of(folder, ledger, number)
    assert main(["account", str(folder)]) == 0

    assert main(["resume", str(folder)]) == 0
    spent = [
        event.details["entries"]
        for event in read_events(folder / "events.jsonl")
        if event.kind is EventKind.PRIVACY_SPENT and event.details["ledger"] == ledger
    ]
    entries(ledger, lambda found: found.pop())(folder)
    capsys.readouterr()

    assert spent == [1, 2, 3, 4, 5]
    assert main(["resume", str(folder)]) == 1
    assert f"{ledger} has 4 of the 5 entries that events.jsonl holds" in capsys.readouterr().err


def test_spending_is_in_the_log_before_it_is_spent(runs: Mapping[str, Path]) -> None:
    """Killed at any moment of a round, an entry whose sums may have been seen cannot be taken out again."""
    events = read_events(runs["noisy"] / "events.jsonl")

    for number in range(1, ROUNDS + 1):
        kinds = [
            (str(event.details.get("ledger", event.kind)))
            for event in events
            if event.round == number and event.kind in {EventKind.PRIVACY_SPENT, EventKind.ROUND_FINISHED}
        ]
        assert kinds == ["privacy-samples.json", "privacy.json", "round-finished"]


# Who looks.


@pytest.mark.parametrize("name", [name for name in EDITS if name.startswith("privacy")])
def test_account_refuses_a_ledger_that_is_not_the_logs(
    tmp_path: Path, runs: Mapping[str, Path], capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """What was spent is told from the ledger that the log holds, or not at all.

    But for the figures of an entry at client level that the log does not hold: nothing was revealed for it, and it only adds
    to what was.
    """
    run, edit, words = EDITS[name]
    folder = copy_of(runs[run], tmp_path)
    edit(folder)
    capsys.readouterr()

    code = main(["account", str(folder)])

    error = capsys.readouterr().err
    if name.startswith("privacy.json: an unlogged entry ") and words.endswith("has other figures or clients"):
        assert code == 0
    else:
        assert code == 1
        assert words in error


@pytest.mark.parametrize("case", [(1, 0, 1), (2, 0, 0), (3, 0, 0), (4, 0, 0), (3, 1, 1), (4, 3, 1)])
def test_account_of_a_run_that_goes_on_meanwhile(
    tmp_path: Path, runs: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch, case: tuple[int, int, int]
) -> None:
    """The log had two rounds before the ledgers were read, and four afterwards: they may have any number from two on.

    What they have is compared with what the log held when they had it.
    """
    kept, changed, code = case
    folder, earlier = copy_of(runs["noisy"], tmp_path), Path(shutil.copytree(runs["noisy"], tmp_path / "was"))
    go_back_to(earlier, 2)
    for name in LEDGERS:
        keep_entries(folder / name, kept)
    if changed:
        entries(LEDGERS[0], lambda found: found[changed - 1].update(attempt=9))(folder)
    logs = iter([earlier / "events.jsonl", folder / "events.jsonl"])

    def history_of(_folder: Path) -> History:
        path = next(logs)
        found = History(path)
        AuditLog(path, observe=found.take)
        return found

    monkeypatch.setattr("rbla_secure.run_folder.ledger_checks._history", history_of)

    assert main(["account", str(folder)]) == code


@pytest.mark.parametrize(
    "name", ["no noise any more", "another identity", "no log", "an empty log", "log of another run"]
)
def test_account_looks_at_runs_alone(
    tmp_path: Path, runs: Mapping[str, Path], capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """A folder whose configuration, identity or log was exchanged has no account."""
    run, edit, words = EDITS[name]
    folder = copy_of(runs[run], tmp_path)
    edit(folder)

    assert main(["account", str(folder)]) == 1

    assert words in capsys.readouterr().err


@pytest.mark.parametrize("make", [lambda _path: None, lambda path: (path / "mine").write_text("1")])
def test_account_of_what_is_no_run_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make: Edit
) -> None:
    """A folder without a run is not one in which nothing was spent."""
    make(tmp_path)

    assert main(["account", str(tmp_path)]) == 1

    assert "is no run folder: config.toml is missing" in capsys.readouterr().err


def test_account_writes_nothing(tmp_path: Path, runs: Mapping[str, Path]) -> None:
    """Not even a lock: a run may be looked at while it goes on, and by who may only read."""
    folder = copy_of(runs["noisy"], tmp_path)
    (folder / "lock").unlink()
    text_of("events.jsonl", lambda text: text + '{"attempt":nu')(folder)
    before = snapshot(folder)

    assert main(["account", str(folder)]) == 0

    assert snapshot(folder) == before
    assert not (folder / "lock").exists()


# Two processes.


def test_of_two_that_go_on_with_a_run_one_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By name, and it has written nothing."""
    held = RunFolder.open(folder)
    before = snapshot(folder)

    code = main(["resume", str(folder)])

    held.close()
    assert code == 1
    assert "is in use by another process" in capsys.readouterr().err
    assert snapshot(folder) == before


@pytest.mark.parametrize("there", [False, True])
def test_of_many_that_make_one_folder_one_wins(tmp_path: Path, there: bool) -> None:  # noqa: FBT001
    """The others are refused by name, and the winner's folder is whole."""
    path = tmp_path / "run"
    if there:
        path.mkdir()
    start = threading.Barrier(8)
    made: list[RunFolder] = []
    refused: list[str] = []

    def make() -> None:
        start.wait()
        try:
            made.append(RunFolder.create(path, make_config()))
        except RunFolderError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    (winner,) = made
    winner.close()
    again = RunFolder.open(path)
    again.close()
    assert len(refused) == 7
    assert again.run_id == winner.run_id
    assert all("in use" in text or "must not exist" in text or "meanwhile" in text for text in refused)
    assert [each.name for each in tmp_path.iterdir()] == ["run"]


# What goes unseen, and is stated: whoever holds the folder can write all of it anew.


@pytest.mark.parametrize("name", ["run", "noisy"])
@pytest.mark.parametrize("number", range(ROUNDS))
def test_a_folder_that_is_cut_back_as_a_whole_looks_like_a_crash(
    tmp_path: Path, runs: Mapping[str, Path], name: str, number: int
) -> None:
    """With the end of the log, everything that it held goes unmissed: only its head, known elsewhere, tells."""
    folder = copy_of(runs[name], tmp_path)
    go_back_to(folder, number) if number else die_before_the_end_of(folder, 1)

    assert main(["resume", str(folder)]) == 0


def test_the_rules_of_a_folder_are_those_of_the_log(runs: Mapping[str, Path]) -> None:
    """What the first lines say is what the folder was made with: identity, configuration, base."""
    created, base, *_ = read_events(runs["run"] / "events.jsonl")

    assert created.details == {
        "run": json.loads((runs["run"] / "run.json").read_text())["run"],
        "config": load_config(runs["run"] / "config.toml").digest().hex(),
    }
    assert base.kind is EventKind.BASE_MADE
    assert result_at(runs["run"], 1) > 1
