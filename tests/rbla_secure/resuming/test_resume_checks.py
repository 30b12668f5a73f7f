"""Whoever edits, exchanges, shortens or removes a file of a run folder is refused by name, and nothing is written.

Each case edits a copy of a finished run, or of one that was left unfinished, in one way, and opens it. The control is that the
same copy, untouched, goes on. What the checks cannot see is here as well, as a test that it goes unseen: the whole
chain written anew together with the files that it names, and everything cut back to an earlier state.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from rbla_secure.cli import main
from rbla_secure.run_folder.audit_log import EventKind, read_events
from rbla_secure.run_folder.history import History
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
from tests.support.resumed import copy_of
from tests.support.run_folders import (
    cut_back,
    die_before_the_end_of,
    die_before_the_log_of,
    go_back_to,
    keep_entries,
    keep_lines,
    rewrite_events,
    snapshot,
)
from tests.support.tiny_job import adapter_sha256, job, write_images


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


@pytest.mark.slow
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


@pytest.mark.slow
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
