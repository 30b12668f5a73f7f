"""Edits of a run folder's settings, base, log and metrics that no party goes on from, and the words of each refusal."""

import hashlib
import json
import shutil
from pathlib import Path

from tests.support.folder_edits import (
    Edit,
    at,
    both,
    chain,
    drop_a_layer,
    edit_base,
    figures,
    from_run,
    left_out,
    lines_of,
    log_ends,
    replaced,
    shaped,
    text_of,
    told,
    unfinished,
    without,
)
from tests.support.run_folders import (
    die_before_the_log_of,
    keep_entries,
    keep_events,
)


def result_named(folder: Path) -> None:
    """The log's last line names the file that lies there."""
    digest = hashlib.sha256((folder / "adapter" / "adapter_model.safetensors").read_bytes()).hexdigest()
    chain(told("run-finished", adapter_file=digest))(folder)


def finished_early(folder: Path) -> None:
    """The log says that the run is over."""
    details = {"rounds": 2, "adapter_file": "00" * 32}
    last = {"kind": "run-finished", "round": None, "attempt": None, "details": details}
    chain(lambda events: [*events, {**events[-1], **last}])(folder)


def both_ahead(folder: Path) -> None:
    """The entries of one round in both ledgers, the log without either."""
    clients = (folder / "privacy.json").read_bytes()
    die_before_the_log_of(folder, "privacy-samples.json", 3)
    (folder / "privacy.json").write_bytes(clients)
    keep_entries(folder / "privacy.json", 3)


def leave_result(folder: Path) -> None:
    """The line of round 3, as a finished run of the same plan has it, and a checkpoint."""
    lines_of("metrics.jsonl", lambda lines: [*lines, shaped(lines[1], round=3)])(folder)
    shutil.copy(folder / at(2), folder / at(3))


def leave_abort(folder: Path) -> None:
    """The line of a round 3 that was aborted before anything was spent."""
    nothing: dict[str, object] = {"survivors": [], "holders": {}, "flags": {}, "aborted": "too few"}
    lines_of("metrics.jsonl", lambda lines: [*lines, shaped(lines[1], round=3, **nothing)])(folder)


def clients_first(folder: Path) -> None:
    """The entry of round 3 at client level, and none of single examples, which is written before."""
    both_ahead(folder)
    keep_entries(folder / "privacy-samples.json", 2)


ROUNDS = 4  # of the run that is edited
LEDGERS = ("privacy.json", "privacy-samples.json")
CUT = "its end was cut off"
# By what is edited: the run that is copied (`noisy` has both ledgers), the edit, the words.
LOG_EDITS: dict[str, tuple[str, Edit, str]] = {
    # Configuration and identity.
    "another secure sum": (
        "run",
        replaced("config.toml", 'secure-sum = "masking"', 'secure-sum = "plain"'),
        "config.toml is not the configuration that the run was created with, says events.jsonl: restore it; other",
    ),
    "no noise any more": (
        "noisy",
        replaced("config.toml", "noise-multiplier = 4.0", "noise-multiplier = 0.0"),
        "config.toml is not the configuration",
    ),
    "more rounds": (
        "run",
        replaced("config.toml", "rounds = 4", "rounds = 6"),
        "other settings need a new run",
    ),
    "config of another run": (
        "run",
        from_run("config.toml", "other"),
        "config.toml is not the configuration",
    ),
    "no config": ("run", without("config.toml"), "is no run folder: config.toml is missing"),
    "another identity": (
        "run",
        lambda folder: (folder / "run.json").write_text(json.dumps({"run": "ab" * 16})),
        "run.json names run abababababababababababababababab, but events.jsonl is of run",
    ),
    "identity of another run": ("run", from_run("run.json", "twin"), "restore whichever was changed"),
    "no identity": ("run", without("run.json"), "run.json is missing or damaged: restore it"),
    # The base.
    "other weights in the base": (
        "run",
        edit_base,
        "base is not the base that events.jsonl names: restore it",
    ),
    "a layer less in the base": ("run", drop_a_layer, "base is not the base that events.jsonl names"),
    "base of another run": (
        "run",
        from_run("base/model.safetensors", "other"),
        "base is not the base that events.jsonl names",
    ),
    # The log.
    "no log": ("run", without("events.jsonl"), "events.jsonl is missing"),
    "an empty log": (
        "run",
        text_of("events.jsonl", lambda _: ""),
        "events.jsonl is empty: a run's first event",
    ),
    "a log of one torn line": (
        "run",
        text_of("events.jsonl", lambda text: text[:40]),
        "events.jsonl is empty: a run's first event",
    ),
    "log of another run": ("run", from_run("events.jsonl", "twin"), "but events.jsonl is of run"),
    "log and identity of another run": (
        "run",
        both(from_run("events.jsonl", "twin"), from_run("run.json", "twin")),
        "was written in another run",
    ),
    "log of another seed": ("run", from_run("events.jsonl", "other"), "but events.jsonl is of run"),
    "a line of the log changed": (
        "run",
        replaced("events.jsonl", '"kind":"session-opened"', '"kind":"dropped"'),
        "events.jsonl line 4: it does not follow the line before it",
    ),
    "the log's first line alone": ("run", lambda folder: keep_events(folder, 1), CUT),
    "the log's first two lines alone": ("run", lambda folder: keep_events(folder, 2), CUT),
    "the log ends before a session": (
        "run",
        log_ends(after="session-opened", number=ROUNDS, keep=0),
        CUT,
    ),
    "the log ends before the last result": (
        "run",
        log_ends(after="round-finished", number=ROUNDS, keep=0),
        f"adapter is there, but events.jsonl knows 3 of 4 rounds: {CUT}",
    ),
    # A chain that was written anew in part, so that every digest in it fits.
    "chain: another configuration": (
        "run",
        chain(told("run-created", config="00" * 32)),
        "config.toml is not the configuration",
    ),
    "chain: other survivors": (
        "run",
        chain(told("round-finished", 1, survivors=[])),
        "metrics.jsonl line 1 tells of another end than events.jsonl does",
    ),
    "chain: another adapter": (
        "run",
        chain(told("round-finished", 2, adapter="00" * 32)),
        "metrics.jsonl line 2 tells of another end than events.jsonl does",
    ),
    "chain: other metrics": (
        "run",
        chain(told("round-finished", 2, metrics="00" * 32)),
        "metrics.jsonl line 2 is not the one whose digest",
    ),
    "chain: no digest of metrics": (
        "run",
        chain(told("round-finished", 2, metrics=None)),
        "round-finished does not belong there: round-finished must say metrics",
    ),
    "chain: a short digest": (
        "run",
        chain(told("round-finished", 2, metrics="00")),
        "metrics must be a SHA-256",
    ),
    "chain: a round left out": (
        "run",
        chain(left_out("round-finished", 2)),
        "round-finished does not belong there: the round after 1 is 2",
    ),
    "chain: a session left out": ("run", chain(left_out("session-opened", 2)), "was never opened"),
    "chain: a session twice": (
        "run",
        chain(lambda events: [*events, {**events[2], "attempt": 1}]),
        "attempt 1 at round 1 is not a new one",
    ),
    "chain: created twice": (
        "run",
        chain(lambda events: [*events, dict(events[0])]),
        "a run is created once",
    ),
    "chain: never created": ("run", chain(lambda events: events[1:]), "a run is created once"),
    "chain: two bases": ("run", chain(lambda events: [*events, dict(events[1])]), "a run has one base"),
    "chain: another base": (
        "run",
        chain(told("base-made", base="00" * 32)),
        "base is not the base that events.jsonl names",
    ),
    "chain: finished early": ("run", chain(told("run-finished", rounds=3)), "the run had 4 rounds then"),
    "chain: a spending left out": (
        "noisy",
        chain(left_out("privacy-spent", 2)),
        "privacy-samples.json must have 2 entries now",
    ),
    "chain: no spending at all": (
        "noisy",
        chain(lambda events: [each for each in events if each["kind"] != "privacy-spent"]),
        "privacy.json has 4 entries, of which events.jsonl holds 0",
    ),
    # Metrics.
    "accuracy of the first round": (
        "run",
        figures(1, accuracy=0.999),
        "metrics.jsonl line 1 is not the one whose digest events.jsonl holds for round 1: restore it",
    ),
    "accuracy of the last round": (
        "run",
        figures(ROUNDS, accuracy=0.999),
        "metrics.jsonl line 4 is not the one",
    ),
    "another spelling of the same line": (
        "run",
        lines_of("metrics.jsonl", lambda lines: [*lines[:3], json.dumps(json.loads(lines[3]))]),
        "metrics.jsonl line 4 is not the one",
    ),
    "a key twice": (
        "run",
        replaced("metrics.jsonl", '{"round":1,', '{"round":1,"round":1,'),
        "metrics.jsonl line 1 is not the one",
    ),
    "a line twice": (
        "run",
        lines_of("metrics.jsonl", lambda lines: [*lines[:2], lines[1], *lines[2:]]),
        "metrics.jsonl line 3 is not the one",
    ),
    "the last line twice": (
        "run",
        lines_of("metrics.jsonl", lambda lines: [*lines, lines[3]]),
        f"metrics.jsonl line 5: events.jsonl knows 4 rounds, so {CUT} or the line was put in",
    ),
    "a line for a round to come": (
        "run",
        lines_of("metrics.jsonl", lambda lines: [*lines, shaped(lines[3], round=5)]),
        "metrics.jsonl line 5: events.jsonl knows 4 rounds",
    ),
    "two lines exchanged": (
        "run",
        lines_of("metrics.jsonl", lambda lines: [lines[1], lines[0], *lines[2:]]),
        "metrics.jsonl line 1 is not the one",
    ),
    "the last line lost": (
        "run",
        lines_of("metrics.jsonl", lambda lines: lines[:3]),
        "metrics.jsonl must have one line for each of the rounds 1..4 and has 3: restore it",
    ),
    "the last line without its end": (
        "run",
        text_of("metrics.jsonl", lambda text: text[:-1]),
        "metrics.jsonl must have one line for each of the rounds 1..4 and has 3",
    ),
    "no metrics": ("run", without("metrics.jsonl"), "metrics.jsonl must have one line for each"),
    "metrics of another run": (
        "run",
        from_run("metrics.jsonl", "other"),
        "metrics.jsonl line 1 is not the one",
    ),
    "unfinished: two lines of the next round": (
        "run",
        unfinished(lines_of("metrics.jsonl", lambda lines: [*lines, lines[2]]), after=2),
        "metrics.jsonl line 3: events.jsonl knows 2 rounds",
    ),
    "unfinished: no record in the next line": (
        "run",
        unfinished(lines_of("metrics.jsonl", lambda lines: [*lines[:2], "{}"]), after=2),
        "metrics.jsonl line 3: events.jsonl knows 2 rounds",
    ),
}
