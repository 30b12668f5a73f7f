"""An entry that the audit log does not hold is accepted as a crash leaves it, and no figure in it can take spent privacy back.

The attacks are on a run that was killed between its ledger and its log: whoever can write to the folder then edits the one entry
that nothing else holds.
"""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rbla_secure.errors import BudgetError, PrivacyError
from rbla_secure.privacy import ledger, sample_ledger
from rbla_secure.privacy.ledger import Ledger, Observer
from rbla_secure.privacy.ledger_state import LedgerState, OpenSession
from rbla_secure.privacy.sample_ledger import SampleLedger, SampleTerms, Trained
from rbla_secure.report.privacy import SamplePrivacySummary
from tests.rbla_secure.privacy.test_ledger import make_entry, make_terms, of_rounds
from tests.support.run_folders import as_ledger

ABOUT = OpenSession(round=3, attempt=1, cohort=("a", "b", "c"), threshold=2)


def make_trained(number: int, *clients: str, **changes: Any) -> Trained:
    fields: dict[str, Any] = {
        "round": number,
        "attempt": 1,
        "clients": clients or ("a", "b"),
        "noise_multiplier": 4.0,
        "sample_rate": 1.0,
        "steps": 4,
    }
    return Trained(**(fields | changes))


def make_sample_terms(**changes: Any) -> SampleTerms:
    fields: dict[str, Any] = {"run": "ab", "delta": 1e-5, "max_epsilon": 0.0, "simulation": False}
    return SampleTerms(**(fields | changes))


def of_clients(folder: Path, *, max_epsilon: float = 0.0) -> LedgerState:
    """A ledger with two rounds that the log holds."""
    made = Ledger.open(folder, make_terms(max_epsilon=max_epsilon))
    made.record(make_entry(1))
    return made.record(make_entry(2))


def of_samples(folder: Path, *, max_epsilon: float = 0.0) -> LedgerState:
    """The same of single examples."""
    made = SampleLedger.open(folder, make_sample_terms(max_epsilon=max_epsilon))
    made.record(make_trained(1))
    return made.record(make_trained(2))


def opened(
    folder: Path, name: str, known: LedgerState | None, about: OpenSession | None
) -> Ledger | SampleLedger:
    """The ledger of a name, as a run opens it."""
    if name == ledger.FILE:
        return Ledger.open(folder, make_terms(), known=known, about=about)
    return SampleLedger.open(folder, make_sample_terms(), known=known, about=about)


def leave(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """One entry more, for the round that was about to be revealed, with something in it changed."""
    content = json.loads(path.read_text())
    entry = json.loads(json.dumps(content["entries"][-1])) | {"round": 3}
    change(entry)
    content["entries"].append(entry)
    path.write_bytes(as_ledger(content))


def to_all(**figures: float) -> Callable[[dict[str, Any]], object]:
    """The figures against every observer."""
    seen = ("public", "participant", "server", "coalition")
    return lambda entry: [entry[each].update(figures) for each in seen]


NOT_FINITE = [math.nan, math.inf, -math.inf]
DAMAGED: list[tuple[str, Callable[[dict[str, Any]], object]]] = [
    *[(ledger.FILE, to_all(noise_multiplier=1e6, slack=value)) for value in (-4.0, -1e-9, *NOT_FINITE)],
    *[(ledger.FILE, to_all(noise_multiplier=value)) for value in (-1.0, *NOT_FINITE)],
    *[(ledger.FILE, to_all(noise_multiplier=value)) for value in (5e-324, 1e-200, 0.9e-15, 1.1e15, 1e300)],
    *[(ledger.FILE, to_all(slack=value)) for value in (100.1, 800.0, 1.7e308)],
    *[(sample_ledger.FILE, lambda e, n=n: e.update(steps=n)) for n in (10**7 + 1, 10**9, 10**400)],
    *[(sample_ledger.FILE, lambda e, v=v: e.update(sample_rate=v)) for v in (5e-324, 0.9e-9)],
    *[
        (sample_ledger.FILE, lambda e, v=v: e.update(noise_multiplier=v))
        for v in (5e-324, 1e-300, 1e-3, 0.099, 100.1, 1e300)
    ],
    *[(sample_ledger.FILE, lambda e, n=n: e.update(steps=n)) for n in (-7, 0)],
    *[(sample_ledger.FILE, lambda e, v=v: e.update(sample_rate=v)) for v in (0.0, -0.1, 1.5, *NOT_FINITE)],
    *[(sample_ledger.FILE, lambda e, v=v: e.update(noise_multiplier=v)) for v in (-4.0, *NOT_FINITE)],
    *[
        (name, lambda e, key=key, value=value: e.update({key: value}))
        for name in (ledger.FILE, sample_ledger.FILE)
        for key, value in (
            ("round", 0),
            ("round", -3),
            ("attempt", 0),
            ("clients", []),
            ("clients", ["b", "a"]),
            ("clients", ["a", "a"]),
            ("clients", [""]),
            ("clients", "ab"),
            ("more", 1),
        )
    ],
]


@pytest.mark.parametrize(("name", "change"), DAMAGED)
def test_a_figure_that_counts_nothing_is_damage(
    tmp_path: Path, name: str, change: Callable[[dict[str, Any]], object]
) -> None:
    """Negative, not finite, of nobody: nobody who keeps a ledger writes it, and reading it ends there."""
    known = (of_clients if name == ledger.FILE else of_samples)(tmp_path)
    leave(tmp_path / name, change)

    with pytest.raises(PrivacyError, match=f"{name} is damaged: restore it from a copy"):
        opened(tmp_path, name, known, ABOUT)


@pytest.mark.parametrize(
    "change",
    [{"delta": 0.0}, {"delta": 1.0}, {"delta": math.nan}, {"max_epsilon": -1.0}, {"max_epsilon": math.nan}],
)
def test_terms_mean_something(change: dict[str, float]) -> None:
    """A delta is in (0, 1), a budget finite and no debt."""
    for make in (make_terms, make_sample_terms):
        with pytest.raises(ValueError, match=next(iter(change))):
            make(**change)


UNLOGGED: list[tuple[Callable[[dict[str, Any]], object], OpenSession | None, str]] = [
    (
        lambda e: e.update(round=77),
        ABOUT,
        "is for attempt 1 at round 77 in the place of the open attempt 1 at round 3",
    ),
    (
        lambda e: e.update(attempt=2),
        ABOUT,
        "is for attempt 2 at round 3 in the place of the open attempt 1 at round 3",
    ),
    (lambda e: e.update(clients=["a", "nobody"]), ABOUT, "names 'nobody', who is not in the session"),
    (lambda _: None, None, "no session is open that could have written it"),
    (
        lambda e: e.update(round=2),
        OpenSession(round=2, attempt=1, cohort=("a", "b"), threshold=2),
        "attempt 1 at round 2 has one of its (sums|training) already",
    ),
]


@pytest.mark.parametrize(("change", "about", "reason"), UNLOGGED)
@pytest.mark.parametrize("name", [ledger.FILE, sample_ledger.FILE])
def test_an_entry_that_no_crash_leaves_is_refused(
    tmp_path: Path,
    name: str,
    change: Callable[[dict[str, Any]], object],
    about: OpenSession | None,
    reason: str,
) -> None:
    """Of another round or attempt, of strangers, twice, or without a session that was about to reveal."""
    known = (of_clients if name == ledger.FILE else of_samples)(tmp_path)
    leave(tmp_path / name, change)
    before = (tmp_path / name).read_bytes()

    with pytest.raises(
        PrivacyError, match=f"{name}: its last entry is not in events.jsonl, and {reason}"
    ) as told:
        opened(tmp_path, name, known, about)

    assert "restore the ledger with the 2 entries that events.jsonl holds" in str(told.value)
    assert (tmp_path / name).read_bytes() == before


def test_the_entry_that_a_crash_leaves_is_taken(tmp_path: Path) -> None:
    """The control: of the open session, once, of its members. It adds to what was spent."""
    known, samples = of_clients(tmp_path), of_samples(tmp_path)
    for name in (ledger.FILE, sample_ledger.FILE):
        leave(tmp_path / name, lambda _: None)

    clients = opened(tmp_path, ledger.FILE, known, ABOUT)
    examples = opened(tmp_path, sample_ledger.FILE, samples, ABOUT)

    assert len(clients.entries) == len(examples.entries) == 3
    assert isinstance(clients, Ledger)
    assert clients.epsilon(Observer.COALITION) == pytest.approx(of_rounds(2.0, 3))


def test_the_careless_party_reveals_more_than_its_budget(tmp_path: Path) -> None:
    """The control of the edits: entries that are believed whatever they say take spent privacy back, and no budget ends."""
    limit = of_rounds(2.0, 3) + 0.01
    careless = Ledger.open(tmp_path, make_terms(max_epsilon=limit))
    for number in (1, 2, 3):
        careless.record(make_entry(number))
    spent = careless.epsilon(Observer.COALITION)
    with pytest.raises(BudgetError):
        careless.check(make_entry(4))
    free = ledger.Spent.model_construct(noise_multiplier=1e6, slack=-4.0)

    careless._entries[-1] = make_entry(3).model_copy(
        update={"server": free, "coalition": free, "public": free, "participant": free}
    )

    assert careless.epsilon(Observer.COALITION) < spent - 4
    careless.check(make_entry(4))


@pytest.mark.parametrize("figure", [math.nan, math.inf])
def test_a_budget_is_not_kept_by_what_is_no_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, figure: float
) -> None:
    """An epsilon that compares with nothing is above every budget, at both levels; the ledger stays as it was."""
    clients, examples = (
        Ledger.open(tmp_path, make_terms(max_epsilon=100.0)),
        SampleLedger.open(tmp_path, make_sample_terms(max_epsilon=100.0)),
    )
    monkeypatch.setattr("rbla_secure.privacy.accounting.epsilon", lambda *_: figure)
    monkeypatch.setattr("rbla_secure.privacy.accounting.epsilon_of_steps", lambda *_: figure)

    for record in (lambda: clients.record(make_entry(1)), lambda: examples.record(make_trained(1))):
        with pytest.raises(BudgetError):
            record()

    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("figure", [0.0, 1e-15, 1e-12, 1e6, 1e15])
def test_figures_that_a_run_can_spend_are_taken(figure: float) -> None:
    """The control of the ranges: their ends, and nothing at all."""
    assert ledger.Spent(noise_multiplier=figure, slack=1e-10).noise_multiplier == figure
    for value in (0.0, 0.1, 100.0):
        assert (
            make_trained(1, noise_multiplier=value, sample_rate=1e-9, steps=10**7).noise_multiplier == value
        )


@pytest.mark.parametrize("error", [OverflowError("too large"), ValueError("no root"), MemoryError()])
def test_what_cannot_be_accounted_for_is_an_error_of_its_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """By the name of the file, at both levels; an error of the accountant is no end of a program."""
    of_clients(tmp_path)
    of_samples(tmp_path)

    def fail(*_: object) -> float:
        raise error

    monkeypatch.setattr("rbla_secure.privacy.accounting.epsilon", fail)
    monkeypatch.setattr("rbla_secure.privacy.accounting.epsilon_of_steps", fail)

    with pytest.raises(PrivacyError, match=r"privacy\.json: what it counts .*: restore it from a copy"):
        Ledger.read(tmp_path).epsilon(Observer.COALITION)
    with pytest.raises(
        PrivacyError, match=r"privacy-samples\.json: what it counts .*: restore it from a copy"
    ):
        SampleLedger.read(tmp_path).epsilon()


def test_a_ledger_of_single_examples_without_noise_has_no_figure(tmp_path: Path) -> None:
    """What is printed for machines is JSON, which has no infinity: null, and for people a word."""
    made = SampleLedger.open(tmp_path, make_sample_terms())
    made.record(make_trained(1, noise_multiplier=0.0))

    told = SamplePrivacySummary.of(made)

    assert made.epsilon() == math.inf
    assert json.loads(json.dumps(told.model_dump(mode="json"), allow_nan=False))["epsilon"] is None
    assert "epsilon not bounded against everyone" in told.lines()[0]


SPELLINGS: dict[str, Callable[[str], str]] = {
    "a key twice": lambda text: re.sub(r'("format": \d,)', r"\1\n \1", text, count=1),
    "entries twice": lambda text: text.replace('"entries": [', '"entries": [],\n "entries": [', 1),
    "spaces": lambda text: text.replace('"format": ', '"format":  ', 1),
    "no line feed": lambda text: text[:-1],
    "two line feeds": lambda text: text + "\n",
    "another spelling of a figure": lambda text: text.replace("0.0,", "0.00,", 1),
    "an escape": lambda text: text.replace('"a"', '"\\u0061"', 1),
}


@pytest.mark.parametrize("name", [ledger.FILE, sample_ledger.FILE])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_ledger_has_one_spelling(tmp_path: Path, name: str, spelling: str) -> None:
    """What another reader may read otherwise is refused by name, though it says the same to this one."""
    (of_clients if name == ledger.FILE else of_samples)(tmp_path)
    path = tmp_path / name
    before = path.read_text()
    path.write_text(SPELLINGS[spelling](before))
    assert path.read_text() != before

    with pytest.raises(PrivacyError, match=f"{name} is not spelt as a run writes it"):
        (Ledger if name == ledger.FILE else SampleLedger).read(tmp_path)


@pytest.mark.parametrize("name", [ledger.FILE, sample_ledger.FILE])
def test_a_ledger_of_another_format_is_refused(tmp_path: Path, name: str) -> None:
    """A later format may mean something else."""
    (of_clients if name == ledger.FILE else of_samples)(tmp_path)
    path = tmp_path / name
    path.write_text(re.sub(r'"format": \d', '"format": 99', path.read_text()))

    with pytest.raises(PrivacyError, match="has format 99" if name == ledger.FILE else "is damaged"):
        (Ledger if name == ledger.FILE else SampleLedger).read(tmp_path)


def test_a_ledger_without_entries_is_none(tmp_path: Path) -> None:
    """It is made with its first entry: an empty one was put there."""
    of_clients(tmp_path)
    path = tmp_path / ledger.FILE
    path.write_bytes(as_ledger(json.loads(path.read_text()) | {"entries": []}))

    with pytest.raises(PrivacyError, match="has no entry, and no run writes such a file: remove it"):
        Ledger.open(tmp_path, make_terms(), about=ABOUT)
