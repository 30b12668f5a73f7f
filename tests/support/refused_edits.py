"""Edits of a run folder that are refused, each with the words of its refusal."""

import os
import shutil

from tests.support.folder_edits import (
    Edit,
    at,
    both,
    chain,
    deep_link,
    exchange,
    from_run,
    last_entry,
    lines_of,
    one_byte,
    poison,
    poison_with_figures,
    replaced,
    rollback,
    to_link,
    told,
    unfinished,
    unlogged,
    with_hidden_tensor,
    with_metadata,
    without,
)
from tests.support.refused_ledger_edits import LEDGER_EDITS
from tests.support.refused_log_edits import (
    CUT,
    LEDGERS,
    LOG_EDITS,
    ROUNDS,
    both_ahead,
    clients_first,
    finished_early,
    leave_abort,
    leave_result,
    result_named,
)
from tests.support.run_folders import (
    die_before_the_end_of,
    go_back_to,
    keep_entries,
)

__all__ = ["EDITS", "LEDGERS", "ROUNDS", "leave_abort", "leave_result"]

# By what is edited: the run that is copied (`noisy` has both ledgers), the edit, the words.
EDITS: dict[str, tuple[str, Edit, str]] = LOG_EDITS | {
    # Checkpoints.
    "a poisoned checkpoint": (
        "run",
        lambda folder: poison(folder, ROUNDS),
        "round-0004.safetensors is not the adapter that events.jsonl names for round 4: restore it from a copy",
    ),
    "a poisoned checkpoint with fitting metrics": (
        "run",
        poison_with_figures(ROUNDS),
        "metrics.jsonl line 4 is not the one",
    ),
    "a poisoned checkpoint of an early round": (
        "run",
        lambda folder: poison(folder, 1),
        "round-0001.safetensors is not the adapter that events.jsonl names for round 1",
    ),
    "rolled back to a poisoned checkpoint with fitting metrics": (
        "run",
        both(rollback(of=ROUNDS, to=2), poison_with_figures(2)),
        "metrics.jsonl must have one line for each of the rounds 1..4 and has 2",
    ),
    "two checkpoints exchanged": (
        "run",
        exchange(at(1), at(2)),
        "round-0001.safetensors is not the adapter that events.jsonl names for round 1",
    ),
    "an early checkpoint in the place of the last": (
        "run",
        lambda folder: shutil.copy(folder / at(1), folder / at(ROUNDS)),
        "round-0004.safetensors is not the adapter that events.jsonl names for round 4",
    ),
    "a checkpoint of another run with the same plan": (
        "run",
        from_run(at(ROUNDS), "twin"),
        "round-0004.safetensors was written in another run or under another plan",
    ),
    "a checkpoint of another plan": (
        "run",
        from_run(at(ROUNDS), "other"),
        "round-0004.safetensors was written in another run or under another plan",
    ),
    "the last checkpoint lost": (
        "run",
        without(at(ROUNDS)),
        "round-0004.safetensors is missing, but events.jsonl holds round 4: restore it from a copy (a run never goes back",
    ),
    "the last two checkpoints lost": (
        "run",
        both(without(at(4)), without(at(3))),
        "round-0003.safetensors is missing",
    ),
    "an early checkpoint lost": ("run", without(at(1)), "round-0001.safetensors is missing"),
    "no checkpoints": ("run", without("checkpoints"), "checkpoints is missing"),
    "a checkpoint for a round to come": (
        "run",
        lambda folder: shutil.copy(folder / at(4), folder / at(5)),
        f"round-0005.safetensors is there, but events.jsonl knows 4 rounds: {CUT} or the file was put there",
    ),
    "a checkpoint for round 0": (
        "run",
        lambda folder: shutil.copy(folder / at(4), folder / at(0)),
        "round-0000.safetensors is there, but events.jsonl knows 4 rounds",
    ),
    "unfinished: a checkpoint of the round after the next": (
        "run",
        unfinished(lambda folder: shutil.copy(folder / at(1), folder / at(4)), after=2),
        "round-0004.safetensors is there, but events.jsonl knows 2 rounds",
    ),
    "everything but the log rolled back": (
        "noisy",
        both(rollback(of=ROUNDS, to=2, ledgers=True), without("adapter")),
        "metrics.jsonl must have one line for each of the rounds 1..4 and has 2",
    ),
    # Attempts.
    "no attempts": ("run", without("attempts.jsonl"), "attempts.jsonl is missing with the 4 attempts"),
    "an attempt left out": (
        "run",
        lines_of("attempts.jsonl", lambda lines: lines[1:]),
        "attempts.jsonl line 1 must be attempt 1 at round 1, says events.jsonl",
    ),
    "the last attempt left out": (
        "run",
        lines_of("attempts.jsonl", lambda lines: lines[:-1]),
        "attempts.jsonl line 4 must be attempt 1 at round 4",
    ),
    "another attempt": (
        "run",
        replaced("attempts.jsonl", '"attempt": 1', '"attempt": 2'),
        "attempts.jsonl line 1 must be attempt 1 at round 1",
    ),
    "two attempts more": (
        "run",
        lines_of(
            "attempts.jsonl",
            lambda lines: [*lines, '{"round": 5, "attempt": 1}', '{"round": 5, "attempt": 2}'],
        ),
        "attempts.jsonl line 5: events.jsonl knows 4 attempts and no other was to come, which alone a crash can leave",
    ),
    "an attempt that is none": (
        "run",
        replaced("attempts.jsonl", '"attempt": 1', '"attempt": "1"'),
        "attempts.jsonl line 1 is damaged: restore it from a copy, or attempts could be numbered twice",
    ),
    "an attempt after the last round": (
        "run",
        lines_of("attempts.jsonl", lambda lines: [*lines, '{"round": 4, "attempt": 2}']),
        "attempts.jsonl line 5: events.jsonl knows 4 attempts and no other was to come",
    ),
    **{
        f"unfinished: attempt {attempt} at round {number}": (
            "run",
            both(
                lambda folder: go_back_to(folder, 2),
                lines_of(
                    "attempts.jsonl",
                    lambda lines, n=number, a=attempt: [*lines, f'{{"round": {n}, "attempt": {a}}}'],
                ),
            ),
            "attempts.jsonl line 4: events.jsonl knows 3 attempts and after them comes attempt 1 at round 4",
        )
        for number, attempt in ((99, -7), (1, 2), (3, 2), (4, 2), (5, 1))
    },
    "unfinished: an attempt while two are open": (
        "run",
        unfinished(lines_of("attempts.jsonl", lambda lines: [*lines, '{"round": 4, "attempt": 1}']), after=1),
        "attempts.jsonl line 4: events.jsonl knows 3 attempts and no other was to come",
    ),
    "unfinished: the next attempt twice": (
        "run",
        both(
            lambda folder: go_back_to(folder, 2),
            lines_of("attempts.jsonl", lambda lines: [*lines, *['{"round": 4, "attempt": 1}'] * 2]),
        ),
        "attempts.jsonl line 5: events.jsonl knows 3 attempts",
    ),
    "another spelling of an attempt": (
        "run",
        replaced("attempts.jsonl", '{"round": 2, "attempt": 1}', '{"attempt": 1, "round": 2}'),
        "attempts.jsonl line 2 is damaged",
    ),
    "an attempt with a key twice": (
        "run",
        replaced("attempts.jsonl", '{"round": 2,', '{"round": 9, "round": 2,'),
        "attempts.jsonl line 2 is damaged",
    ),
    # Bytes, not readings.
    "another spelling of the identity": (
        "run",
        replaced("run.json", '{"run": ', '{"run":  '),
        "run.json is not spelt as a run writes it",
    ),
    "an identity twice": (
        "run",
        replaced("run.json", '{"run": ', '{"run": "00", "run": '),
        "run.json is not spelt as a run writes it",
    ),
    "another spelling of the base": (
        "run",
        replaced("base/architecture.json", '"format": 1', '"format":  1'),
        "architecture.json is not spelt as a run writes it",
    ),
    "another format of the base": (
        "run",
        replaced("base/architecture.json", '"format": 1', '"format": 99'),
        "architecture.json is not spelt as a run writes it",
    ),
    "a base with more metadata": (
        "run",
        with_metadata("base/model.safetensors"),
        "model.safetensors is not spelt as a run writes it",
    ),
    "a checkpoint with another tensor": (
        "run",
        with_hidden_tensor(at(2)),
        "round-0002.safetensors holds more than the rows of a round, or in another spelling: restore it from a copy",
    ),
    "a checkpoint with more metadata": (
        "run",
        with_metadata(at(ROUNDS)),
        "round-0004.safetensors holds more than the rows of a round",
    ),
    # The result of a finished run.
    "another byte in the result": (
        "run",
        one_byte("adapter/adapter_model.safetensors"),
        "adapter_model.safetensors is not the one that the run exports: restore it from a copy, or move it away",
    ),
    "another configuration of the result": (
        "run",
        replaced("adapter/adapter_config.json", '"lora_alpha": ', '"lora_alpha": 1'),
        "adapter_config.json is not the one that the run exports",
    ),
    "a card that praises the result": (
        "run",
        replaced(
            "adapter/README.md", "accuracy on held-out examples | ", "accuracy on held-out examples | 1"
        ),
        "README.md is not the one that the run exports",
    ),
    "chain: another result": (
        "run",
        chain(told("run-finished", adapter_file="00" * 32)),
        "events.jsonl names an adapter_file that the checkpoint of the last round does not give: restore it",
    ),
    "chain: another result, and a file of it": (
        "run",
        both(one_byte("adapter/adapter_model.safetensors"), result_named),
        "events.jsonl names an adapter_file that the checkpoint of the last round does not give",
    ),
    "chain: finished without a result": (
        "run",
        chain(told("run-finished", adapter_file=None)),
        "run-finished must say adapter_file",
    ),
    "chain: a result of an unfinished run": (
        "run",
        both(lambda folder: go_back_to(folder, 2), finished_early),
        "events.jsonl says that the run has ended after 2 of 4 rounds",
    ),
    # What comes first is written first: of a round that has left its checkpoint the line is there as well.
    "unfinished: a checkpoint of the next round without its line": (
        "run",
        both(
            lambda folder: die_before_the_end_of(folder, 3),
            lines_of("metrics.jsonl", lambda lines: lines[:2]),
        ),
        "round-0003.safetensors is there, but metrics.jsonl has no line for round 3, which is written first",
    ),
    "unfinished: a checkpoint of a round whose session is not open": (
        "run",
        both(
            lambda folder: go_back_to(folder, 2),
            lambda folder: shutil.copy(folder / at(2), folder / at(4)),
        ),
        "round-0004.safetensors is there, but events.jsonl knows 2 rounds",
    ),
    # A base that is gone is trained again, and nothing of it is written before everything else was compared.
    "no base, and a poisoned checkpoint": (
        "run",
        both(without("base"), lambda folder: poison(folder, 2)),
        "round-0002.safetensors is not the adapter that events.jsonl names for round 2",
    ),
    "no base, and another result": (
        "run",
        both(without("base"), one_byte("adapter/adapter_model.safetensors")),
        "adapter_model.safetensors is not the one that the run exports",
    ),
    "no base, and the figures of a ledger": (
        "noisy",
        both(
            unlogged("privacy.json", last_entry("privacy.json", lambda e: e["server"].update(slack=0.5))),
            without("base"),
        ),
        "privacy.json: its last entry is not in events.jsonl, and has other figures or clients",
    ),
    # What a crash leaves one at a time, together or too early.
    "an entry that the log does not hold, and the result of its round": (
        "noisy",
        both(unlogged("privacy.json"), leave_result),
        "metrics.jsonl line 3 tells of a round whose entry of privacy.json is not in events.jsonl, which comes first",
    ),
    "an entry that the log does not hold, and an aborted round": (
        "noisy",
        both(unlogged("privacy.json"), leave_abort),
        "privacy.json has an entry that events.jsonl does not hold, and metrics.jsonl a line, which comes after that",
    ),
    "an entry of examples that the log does not hold, and an aborted round": (
        "noisy",
        both(unlogged("privacy-samples.json"), leave_abort),
        "privacy-samples.json has an entry that events.jsonl does not hold, and metrics.jsonl a line",
    ),
    "a result of a round whose spending the log does not hold": (
        "noisy",
        both(unlogged("privacy.json"), lambda folder: keep_entries(folder / "privacy.json", 2), leave_result),
        "metrics.jsonl line 3 tells of a round whose entry of privacy.json is not in events.jsonl",
    ),
    "a result before the session after it was opened": (
        "run",
        both(lambda folder: go_back_to(folder, 2), leave_result),
        "metrics.jsonl line 3: events.jsonl knows 2 rounds, so its end was cut off or the line was put in",
    ),
    "an attempt without its session, and a result": (
        "run",
        both(
            lambda folder: go_back_to(folder, 2),
            leave_result,
            lines_of("attempts.jsonl", lambda lines: [*lines, '{"round": 4, "attempt": 1}']),
        ),
        "metrics.jsonl line 3: events.jsonl knows 2 rounds",
    ),
    "privacy.json: fewer in an unlogged entry than open a sum": (
        "noisy",
        unlogged("privacy.json", last_entry("privacy.json", lambda e: e.update(clients=e["clients"][:1]))),
        "privacy.json: its last entry is not in events.jsonl, and names 1 clients where it takes ",
    ),
    "privacy.json: ahead of the entry that comes first": (
        "noisy",
        clients_first,
        "privacy.json: its last entry is not in events.jsonl, and the entry of privacy-samples.json that comes before it is not",
    ),
    **{
        f"{ledger}: ahead with {key}={value}": (
            "noisy",
            unlogged(
                ledger, last_entry(ledger, lambda e, k=key, v=value: (e.get("server", e)).update({k: v}))
            ),
            f"{ledger} is damaged",
        )
        for ledger, key, value in (
            ("privacy.json", "noise_multiplier", 1e-200),
            ("privacy.json", "slack", 800.0),
            ("privacy-samples.json", "noise_multiplier", 1e-300),
            ("privacy-samples.json", "noise_multiplier", 1e300),
            ("privacy-samples.json", "noise_multiplier", 1e-3),
            ("privacy-samples.json", "sample_rate", 5e-324),
            ("privacy-samples.json", "steps", 10**9),
        )
    },
    # Ledgers that the configuration has no use for.
    "a ledger of a run without noise": (
        "run",
        from_run("privacy.json", "noisy"),
        "privacy.json is there, but config.toml adds no noise that it could count: it was put there; move it away",
    ),
    "a ledger of examples of a run without noise": (
        "run",
        from_run("privacy-samples.json", "noisy"),
        "privacy-samples.json is there, but config.toml adds no noise",
    ),
    "both ledgers ahead of the log": (
        "noisy",
        both_ahead,
        "privacy.json and privacy-samples.json each have an entry that events.jsonl does not hold",
    ),
    # The entry of single examples that the log does not hold yet: other figures than those of the plan.
    **{
        f"privacy-samples.json: an unlogged entry with {key}={value}": (
            "noisy",
            unlogged(
                "privacy-samples.json",
                last_entry("privacy-samples.json", lambda e, k=key, v=value: e.update({k: v})),
            ),
            "privacy-samples.json: its last entry is not in events.jsonl, and has other figures or clients",
        )
        for key, value in (
            ("noise_multiplier", 50.0),
            ("noise_multiplier", 0.0),
            ("sample_rate", 0.01),
            ("steps", 1),
            ("slack", 0.0),
            ("total_variation", 0.0),
        )
    },
    "privacy-samples.json: an unlogged entry of a part of the cohort": (
        "noisy",
        unlogged("privacy-samples.json", last_entry("privacy-samples.json", lambda e: e["clients"].pop())),
        "privacy-samples.json: its last entry is not in events.jsonl, and names 9 clients where it takes 10",
    ),
    **{
        f"privacy.json: an unlogged entry with another {key} against the {observer}": (
            "noisy",
            unlogged(
                "privacy.json",
                last_entry("privacy.json", lambda e, o=observer, k=key, v=value: e[o].update({k: v})),
            ),
            "privacy.json: its last entry is not in events.jsonl, and has other figures or clients",
        )
        for observer in ("public", "participant", "server", "coalition")
        for key, value in (("noise_multiplier", 90.0), ("slack", 0.0), ("total_variation", 0.0))
    },
    **{
        f"privacy.json: an unlogged entry that spends nothing against the {observer}": (
            "noisy",
            unlogged("privacy.json", last_entry("privacy.json", lambda e, o=observer: e.update({o: None}))),
            "privacy.json: its last entry is not in events.jsonl, and has other figures or clients",
        )
        for observer in ("public", "participant", "server", "coalition")
    },
    "privacy.json: an unlogged entry with the figures of more clients": (
        "noisy",
        unlogged("privacy.json", last_entry("privacy.json", lambda e: e["clients"].pop())),
        "privacy.json: its last entry is not in events.jsonl, and has other figures or clients",
    ),
    # Links: two runs could write one file.
    **{
        f"a link inside at {name}": ("run", edit, "must be a file of its own and no link or anything else")
        for name, edit in {
            "model.safetensors": to_link("base/model.safetensors"),
            "adapter_config.json": to_link("adapter/adapter_config.json"),
            "base/more": deep_link("base"),
            "adapter/more": deep_link("adapter"),
            "a pipe": lambda folder: os.mkfifo(folder / "adapter" / "pipe"),
        }.items()
    },
    **{
        f"a link in the place of {name}": (
            "run",
            to_link(name),
            f"{name} must be a file of its own and no link",
        )
        for name in (
            "config.toml",
            "run.json",
            "events.jsonl",
            "attempts.jsonl",
            "metrics.jsonl",
            "timings.jsonl",
            "lock",
            at(2),
        )
    },
    **{
        f"a link in the place of {name}": (
            "run",
            to_link(name),
            f"{name} must be a folder of its own and no link",
        )
        for name in ("checkpoints", "base", "adapter")
    },
    "a link that leads nowhere": (
        "run",
        both(lambda folder: go_back_to(folder, 2), to_link("timings.jsonl", empty=True)),
        "timings.jsonl must be a file of its own and no link",
    ),
    "a pipe in the place of a file": (
        "run",
        both(without("metrics.jsonl"), lambda folder: os.mkfifo(folder / "metrics.jsonl")),
        "metrics.jsonl must be a file of its own",
    ),
}
EDITS |= LEDGER_EDITS
