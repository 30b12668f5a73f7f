"""Edits of a run folder's ledgers that no party goes on from, and the words of each refusal."""

from tests.support.folder_edits import (
    Edit,
    entries,
    last_entry,
    replaced,
    text_of,
    to_link,
    unlogged,
    without,
)
from tests.support.refused_log_edits import LEDGERS

LEDGER_EDITS: dict[str, tuple[str, Edit, str]] = {}
for ledger in LEDGERS:
    LEDGER_EDITS |= {
        f"{ledger}: lost": (
            "noisy",
            without(ledger),
            f"{ledger} is missing with the 4 entries that events.jsonl holds: spent privacy would be forgotten; restore",
        ),
        f"{ledger}: the last entry left out": (
            "noisy",
            entries(ledger, lambda found: found.pop()),
            f"{ledger} has 3 of the 4 entries that events.jsonl holds",
        ),
        f"{ledger}: the first entry left out": (
            "noisy",
            entries(ledger, lambda found: found.pop(0)),
            f"{ledger} has 3 of the 4 entries that events.jsonl holds",
        ),
        f"{ledger}: emptied": (
            "noisy",
            entries(ledger, lambda found: found.clear()),
            f"{ledger} has 0 of the 4",
        ),
        f"{ledger}: as many entries, one of them altered": (
            "noisy",
            entries(ledger, lambda found: found[1].update(clients=found[1]["clients"][:1])),
            f"{ledger}: its terms or its first 4 entries are not those that events.jsonl holds; restore it",
        ),
        f"{ledger}: two entries exchanged": (
            "noisy",
            entries(ledger, lambda found: found.reverse()),
            f"{ledger}: its terms or its first 4 entries are not those",
        ),
        f"{ledger}: other terms": (
            "noisy",
            replaced(ledger, '"max_epsilon": 0.0', '"max_epsilon": 9.0'),
            f"{ledger}: its terms or its first 4 entries are not those",
        ),
        f"{ledger}: two entries more": (
            "noisy",
            entries(ledger, lambda found: found.extend(found[:2])),
            f"{ledger} has 6 entries, of which events.jsonl holds 4 and a crash can leave one more",
        ),
        f"{ledger}: an entry after the last round": (
            "noisy",
            entries(ledger, lambda found: found.append({**found[-1], "attempt": 2})),
            f"{ledger}: its last entry is not in events.jsonl, and no session is open that could have written it",
        ),
        f"{ledger}: an unlogged entry for round 77 of nobody": (
            "noisy",
            unlogged(ledger, last_entry(ledger, lambda e: e.update(round=77, clients=["nobody"]))),
            f"{ledger}: its last entry is not in events.jsonl, and is for attempt 1 at round 77 in the place of the open",
        ),
        f"{ledger}: an unlogged entry for the session that rides along": (
            "noisy",
            unlogged(ledger, last_entry(ledger, lambda e: e.update(round=4))),
            "is for attempt 1 at round 4 in the place of the open attempt 1 at round 3",
        ),
        f"{ledger}: an unlogged entry of a stranger": (
            "noisy",
            unlogged(ledger, last_entry(ledger, lambda e: e.update(clients=["a", *e["clients"]]))),
            f"{ledger}: its last entry is not in events.jsonl, and names 'a', who is not in the session",
        ),
        f"{ledger}: an unlogged entry of the round before": (
            "noisy",
            unlogged(ledger, last_entry(ledger, lambda e: e.update(round=2))),
            "is for attempt 1 at round 2 in the place of the open attempt 1 at round 3",
        ),
        f"{ledger}: a key twice": (
            "noisy",
            replaced(ledger, '"format": 2,', '"format": 2,\n "format": 2,'),
            f"{ledger} is not spelt as a run writes it",
        ),
        f"{ledger}: another format": (
            "noisy",
            replaced(ledger, '"format": 2,', '"format": 99,'),
            f"{ledger} is of format 99 and must be of 2",
        ),
        f"{ledger}: torn": ("noisy", text_of(ledger, lambda text: text[:-5]), f"{ledger} is damaged"),
        f"{ledger}: a link": ("noisy", to_link(ledger), f"{ledger} must be a file of its own and no link"),
        f"{ledger}: of another run": (
            "noisy",
            replaced(ledger, '"run": "', '"run": "00'),
            f"{ledger}: its terms or its first 4 entries are not those",
        ),
    }
