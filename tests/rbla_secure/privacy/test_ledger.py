"""The ledger only grows, is on the disk before anything is revealed, and forgets nothing."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rbla_secure.config.choices import Adjacency, Mechanism
from rbla_secure.errors import BudgetError, PrivacyError
from rbla_secure.privacy.accounting import epsilon
from rbla_secure.privacy.ledger import FILE, Ledger, LedgerEntry, LedgerTerms, Observer, Shown, Spent
from rbla_secure.privacy.noise import Release


def make_terms(**changes: Any) -> LedgerTerms:
    fields: dict[str, Any] = {
        "run": "00" * 16,
        "mechanism": Mechanism.DISTRIBUTED,
        "adjacency": Adjacency.ZERO_OUT,
        "delta": 1e-5,
        "max_epsilon": 0.0,
        "claimed": tuple(Observer),
        "colluders": 1,
        "simulation": False,
    }
    return LedgerTerms(**(fields | changes))


def make_entry(
    number: int, *clients: str, server: float = 2.0, reader: float = 4.0, attempt: int = 1
) -> LedgerEntry:
    """An attempt that spends releases of these noise multipliers: against the server's two views, and the readers' two."""
    seen = {
        observer: Release(noise_multiplier=multiplier, slack=0.0, rho=math.nan)
        for multiplier, observers in (
            (reader, (Observer.PUBLIC, Observer.PARTICIPANT)),
            (server, (Observer.SERVER, Observer.COALITION)),
        )
        for observer in observers
    }
    return LedgerEntry.of(seen, round_number=number, attempt=attempt, clients=clients or ("a", "b"))


def of_rounds(multiplier: float, rounds: int) -> float:
    """Epsilon of so many equal releases."""
    release = Release(noise_multiplier=multiplier, slack=0.0, rho=math.nan)
    return epsilon([release] * rounds, 1e-5)


def test_what_was_recorded_is_read_back(tmp_path: Path) -> None:
    """Terms and entries come back from the disk, in order."""
    ledger = Ledger.open(tmp_path, make_terms())
    entries = [make_entry(1), make_entry(2, attempt=3)]
    for entry in entries:
        ledger.record(entry)

    again = Ledger.open(
        tmp_path, make_terms(), spent=[(1, Shown.SUMS), (2, Shown.SUMS)], known=ledger.state(2)
    )

    assert list(again.entries) == entries
    assert (
        again.epsilon(Observer.SERVER) == ledger.epsilon(Observer.SERVER) == pytest.approx(of_rounds(2.0, 2))
    )
    assert again.epsilon(Observer.PUBLIC) == pytest.approx(of_rounds(4.0, 2))


def test_an_entry_is_on_the_disk_when_record_returns(tmp_path: Path) -> None:
    """Nothing is kept in memory alone: a second reader sees every entry at once."""
    ledger = Ledger.open(tmp_path, make_terms())

    for number in (1, 2, 3):
        ledger.record(make_entry(number))

        assert len(Ledger.read(tmp_path).entries) == number


def test_epsilon_is_that_of_the_client_that_took_part_most(tmp_path: Path) -> None:
    """Rounds without a client do not count against it."""
    ledger = Ledger.open(tmp_path, make_terms())
    for number, clients in enumerate([("a", "b"), ("b", "c"), ("b", "d")], start=1):
        ledger.record(make_entry(number, *clients))

    assert ledger.epsilon(Observer.SERVER) == pytest.approx(of_rounds(2.0, 3))


def test_both_attempts_at_a_round_count(tmp_path: Path) -> None:
    """An attempt that came to nothing may have been seen: it stays in the sum."""
    ledger = Ledger.open(tmp_path, make_terms())
    ledger.record(make_entry(1, attempt=1))
    ledger.record(make_entry(1, attempt=2))

    assert ledger.epsilon(Observer.SERVER) == pytest.approx(of_rounds(2.0, 2))


def test_what_nothing_protects_against_is_infinite(tmp_path: Path) -> None:
    """A release without noise against an observer spends everything there; a release of nothing spends nothing."""
    ledger = Ledger.open(tmp_path, make_terms(max_epsilon=0.0))
    ledger.record(make_entry(1, server=0.0))

    assert ledger.epsilon(Observer.SERVER) == math.inf
    assert math.isfinite(ledger.epsilon(Observer.PUBLIC))
    assert Spent.of(Release(noise_multiplier=math.inf, slack=0.0, rho=0.0)) is None


def test_the_samplers_error_is_recorded_and_taken_off_delta(tmp_path: Path) -> None:
    """A release comes back as it was; where its error leaves nothing of delta, nothing is claimed. The control has no error."""
    release = Release(noise_multiplier=0.033, slack=1e-30, rho=math.nan, total_variation=1e-250)
    spent = Spent.of(release)
    assert spent is not None
    assert replace(spent.release(), rho=0.0) == replace(release, rho=0.0)
    for variation, bounded in ((0.0, True), (1e-250, False)):
        (tmp_path / str(variation)).mkdir()
        ledger = Ledger.open(tmp_path / str(variation), make_terms())
        found = spent.model_copy(update={"total_variation": variation})
        ledger.record(make_entry(1).model_copy(update={"server": found, "public": found}))
        assert math.isfinite(ledger.epsilon(Observer.SERVER)) is bounded
        assert math.isfinite(ledger.epsilon(Observer.PUBLIC)) is bounded


def test_the_budget_stops_the_entry_that_would_exceed_it(tmp_path: Path) -> None:
    """Two rounds fit, the third is refused by name, is not written, and the ledger is as it was."""
    limit = of_rounds(2.0, 2) + 0.01
    ledger = Ledger.open(tmp_path, make_terms(max_epsilon=limit))
    for number in (1, 2):
        ledger.record(make_entry(number))
    before = (tmp_path / FILE).read_bytes()

    for refuse in (ledger.check, ledger.record):
        with pytest.raises(
            BudgetError, match=r"round 3 attempt 1 would take epsilon against the server to .* above max"
        ):
            refuse(make_entry(3))

    assert (tmp_path / FILE).read_bytes() == before
    assert len(ledger.entries) == 2
    ledger.record(make_entry(3, "z"))  # somebody who has spent nothing yet


def test_the_budget_counts_against_whom_something_is_claimed(tmp_path: Path) -> None:
    """With a trusted server the readers' views are limited, whatever the server's are, which have no epsilon at all."""
    limit = of_rounds(4.0, 1) + 0.01
    readers = (Observer.PUBLIC, Observer.PARTICIPANT)
    ledger = Ledger.open(tmp_path, make_terms(max_epsilon=limit, claimed=readers))

    ledger.record(make_entry(1, server=0.0))

    assert ledger.epsilon(Observer.SERVER) == ledger.epsilon(Observer.COALITION) == math.inf
    with pytest.raises(BudgetError, match="against the public-reader"):
        ledger.record(make_entry(2, server=0.0))


@pytest.mark.parametrize("observer", Observer)
def test_the_budget_limits_every_observer(tmp_path: Path, observer: Observer) -> None:
    """Whoever of the four faces least noise is the one whose epsilon stops the run."""
    seen = {
        each: Release(noise_multiplier=2.0 if each is observer else 4.0, slack=0.0, rho=math.nan)
        for each in Observer
    }
    entries = [LedgerEntry.of(seen, round_number=number, attempt=1, clients="ab") for number in (1, 2)]
    ledger = Ledger.open(tmp_path, make_terms(max_epsilon=of_rounds(2.0, 2) - 0.01))
    ledger.record(entries[0])

    with pytest.raises(BudgetError, match=f"against the {observer} to"):
        ledger.record(entries[1])
    roomy = Ledger(tmp_path / "other", make_terms(max_epsilon=of_rounds(2.0, 2) + 0.01), entries[:1])
    roomy.check(entries[1])


def test_a_ledger_of_an_older_format_is_refused_by_name(tmp_path: Path) -> None:
    """It counted two observers, and some of its figures were too small: it is not read, and not called damaged."""
    path = tmp_path / FILE
    path.write_text('{"format": 1, "terms": {"limits": "server"}, "entries": []}')

    with pytest.raises(
        PrivacyError, match=r"is of format 1 and must be of 2.*four observers.*start a new run"
    ):
        Ledger.read(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"delta": 1e-6},
        {"max_epsilon": 9.0},
        {"run": "11" * 16},
        {"colluders": 0},
        {"mechanism": Mechanism.CENTRAL},
        {"adjacency": Adjacency.ADD_OR_REMOVE},
        {"simulation": True},
    ],
)
def test_a_ledger_of_other_terms_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    """What an epsilon means cannot be changed afterwards."""
    known = Ledger.open(tmp_path, make_terms()).record(make_entry(1))

    with pytest.raises(PrivacyError, match="other terms"):
        Ledger.open(tmp_path, make_terms(**change), known=known)


@pytest.mark.parametrize("spent", [[1], [1, 2], [3]])
def test_a_round_that_was_revealed_must_be_in_the_ledger(tmp_path: Path, spent: list[int]) -> None:
    """A ledger that is missing, or lacks a round whose result is there, would forget spent privacy."""
    known = None
    if spent != [1]:
        known = Ledger.open(tmp_path, make_terms()).record(make_entry(1))

    with pytest.raises(PrivacyError, match="lacks the sums of round"):
        Ledger.open(tmp_path, make_terms(), spent=[(number, Shown.SUMS) for number in spent], known=known)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:-20],
        lambda text: text.replace('"round": 1', '"round": "1"'),
        lambda text: text.replace('"entries"', '"entrees"'),
        lambda _: "[]",
        lambda _: "",
    ],
)
def test_a_damaged_ledger_is_refused_by_name(tmp_path: Path, damage: Any) -> None:
    """Torn, retyped or renamed, it is not read as if it were whole."""
    Ledger.open(tmp_path, make_terms()).record(make_entry(1))
    path = tmp_path / FILE
    path.write_text(damage(path.read_text()))

    with pytest.raises(PrivacyError, match="is damaged"):
        Ledger.open(tmp_path, make_terms())


def test_the_file_is_plain_json(tmp_path: Path) -> None:
    """A third party reads it with any tool."""
    Ledger.open(tmp_path, make_terms()).record(make_entry(7))

    found = json.loads((tmp_path / FILE).read_text())

    assert set(found) == {"format", "terms", "entries"}
    assert found["entries"][0]["round"] == 7
