"""A client's ledger over runs: its figures by hand, at two levels, and what it does not read."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from rbla_secure.errors import PrivacyError
from rbla_secure.privacy.accounting import SampledSteps, epsilon_of_steps
from rbla_secure.privacy.ledger import Spent
from rbla_secure.privacy.lifetime_ledger import (
    Level,
    LifetimeLedger,
    LifetimeTerms,
    Participation,
    Stepped,
)

PATH = Path("data-ward.json")
RUNS = ("0" * 32, "a" * 32)


def terms(**changes: Any) -> LifetimeTerms:
    fields: dict[str, Any] = {
        "client": "small-01",
        "label": "ward",
        "delta": 1e-5,
        "max_epsilon": 0.0,
        "max_sample_epsilon": 0.0,
        "sample_order": 0,
    }
    return LifetimeTerms(**{**fields, **changes})


def spent(multiplier: float) -> Spent:
    return Spent(noise_multiplier=multiplier, slack=0.0)


def entry(
    number: int = 1,
    *,
    run: str = RUNS[0],
    attempt: int = 1,
    counted: Spent | None = None,
    expected: Spent | None = None,
    noise: float = 1.0,
    rate: float = 0.1,
    steps: int = 5,
) -> Participation:
    return Participation(
        run=run,
        round=number,
        attempt=attempt,
        counted=counted or spent(2.0),
        expected=expected or spent(4.0),
        samples=Stepped(noise_multiplier=noise, sample_rate=rate, steps=steps),
    )


def of_gaussians(multipliers: list[float], delta: float) -> float:
    """Composition by hand: sum of 1/z^2, then the smallest epsilon of the exact curve (Balle and Wang 2018)."""
    mu = math.sqrt(sum(z**-2 for z in multipliers))

    def left(value: float) -> float:
        def below(x: float) -> float:
            return 0.5 * math.erfc(-x / math.sqrt(2))

        return below(mu / 2 - value / mu) - math.exp(value) * below(-mu / 2 - value / mu)

    low, high = 0.0, 200.0
    while high - low > 1e-10:
        middle = (low + high) / 2
        low, high = (middle, high) if left(middle) > delta else (low, middle)
    return high


def test_runs_compose_as_by_hand_at_client_level() -> None:
    """Two runs of other noise, an attempt that was repeated, both figures; nothing for a round that opens nothing."""
    ledger = LifetimeLedger(
        PATH,
        terms(),
        [
            entry(1),
            entry(1, attempt=2),
            entry(1, run=RUNS[1], counted=spent(0.9), expected=spent(3.0)),
            entry(2, run=RUNS[1]).model_copy(update={"counted": None, "expected": None}),
        ],
    )

    assert ledger.epsilon() == pytest.approx(of_gaussians([2.0, 2.0, 0.9], 1e-5), rel=1e-6)
    assert ledger.expected_epsilon() == pytest.approx(of_gaussians([4.0, 4.0, 3.0], 1e-5), rel=1e-6)
    assert ledger.rounds_of(RUNS[1]) == {1, 2}


def test_steps_compose_over_runs_and_the_limit_counts_them_by_the_filter() -> None:
    """Without a limit the figure is that of fixed settings, with one that of the filter, which is above it."""
    entries = [entry(1), entry(2), entry(1, run=RUNS[1], noise=2.0, steps=30)]
    fixed = epsilon_of_steps(
        [
            SampledSteps(noise_multiplier=1.0, sample_rate=0.1, steps=10),
            SampledSteps(noise_multiplier=2.0, sample_rate=0.1, steps=30),
        ],
        1e-5,
    )

    unlimited = LifetimeLedger(PATH, terms(), entries)
    limited = LifetimeLedger(PATH, terms(max_sample_epsilon=9.0, sample_order=4), entries)

    assert unlimited.sample_epsilon() == unlimited.fixed_sample_epsilon() == pytest.approx(fixed)
    assert limited.fixed_sample_epsilon() == pytest.approx(fixed)
    assert fixed < limited.sample_epsilon() < 1.5 * fixed


@pytest.mark.parametrize("level", Level)
def test_a_round_without_noise_spends_everything(level: Level) -> None:
    """Of its level, and of no other; no limit is kept with it."""
    bare = entry(2, counted=spent(0.0)) if level is Level.CLIENT else entry(2, noise=0.0, rate=1.0, steps=1)
    ledger = LifetimeLedger(
        PATH, terms(max_epsilon=100.0, max_sample_epsilon=100.0, sample_order=4), [entry(1)]
    )

    found = ledger.exceeded([bare])

    assert set(found) == {level}
    assert "to inf, above the lifetime limit of 100" in found[level]
    ledger.append(bare)
    assert math.isinf(ledger.epsilon()) == (level is Level.CLIENT)
    assert math.isinf(ledger.fixed_sample_epsilon()) == (level is Level.SAMPLES)


@pytest.mark.parametrize("share", [0.999, 1.001])
def test_a_limit_holds_to_the_digit(share: float) -> None:
    """Of two entries at once: a limit above their figure is kept, one below it is exceeded."""
    limit = share * of_gaussians([2.0, 2.0, 2.0], 1e-5)
    ledger = LifetimeLedger(PATH, terms(max_epsilon=limit), [entry(1)])

    assert bool(ledger.exceeded([entry(2), entry(3)])) == (share < 1)


# The file.


def test_what_is_written_is_read_back() -> None:
    """To the byte, with the digest that is known of it."""
    ledger = LifetimeLedger(PATH, terms(), [entry(1), entry(2)])

    again = LifetimeLedger.parse(PATH, ledger.text().encode())

    assert again.entries == ledger.entries
    assert again.state() == ledger.state()
    assert ledger.state(1) == LifetimeLedger(PATH, terms(), [entry(1)]).state()
    assert ledger.text(entry(3)) == LifetimeLedger(PATH, terms(), [*ledger.entries, entry(3)]).text()


def edited(change: Callable[[dict[str, Any]], object]) -> bytes:
    data = json.loads(LifetimeLedger(PATH, terms(), [entry(1)]).text())
    change(data)
    return (json.dumps(data, indent=1) + "\n").encode()


FIELDS: dict[str, Callable[[dict[str, Any]], object]] = {
    "no entries": lambda data: data["entries"].clear(),
    "a negative slack": lambda data: data["entries"][0]["counted"].update(slack=-4.0),
    "noise that no plan has": lambda data: data["entries"][0]["counted"].update(noise_multiplier=1e300),
    "noise that is no number": lambda data: data["entries"][0]["samples"].update(noise_multiplier=math.nan),
    "a rate above one": lambda data: data["entries"][0]["samples"].update(sample_rate=2.0),
    "no steps": lambda data: data["entries"][0]["samples"].update(steps=0),
    "a run of another length": lambda data: data["entries"][0].update(run="ab"),
    "an unknown key": lambda data: data["entries"][0].update(refund=1.0),
    "an unknown term": lambda data: data["terms"].update(more=1),
    "a label that is a path": lambda data: data["terms"].update(label="../ward"),
    "a limit that is no number": lambda data: data["terms"].update(max_epsilon=math.nan),
    "an order without a limit": lambda data: data["terms"].update(sample_order=4),
    "a limit without an order": lambda data: data["terms"].update(max_sample_epsilon=4.0),
    "another format": lambda data: data.update(format=2),
}


@pytest.mark.parametrize("name", FIELDS)
def test_fields_are_bounded_and_unknown_ones_refused(name: str) -> None:
    """Whatever no client writes is damage; the file as it was is read."""
    assert LifetimeLedger.parse(PATH, LifetimeLedger(PATH, terms(), [entry(1)]).text().encode())

    with pytest.raises(PrivacyError, match=r"data-ward\.json is damaged: restore it"):
        LifetimeLedger.parse(PATH, edited(FIELDS[name]))


@pytest.mark.parametrize(
    "spelling",
    [
        lambda text: text.replace('"round": 1', '"round":  1'),
        lambda text: text.replace('"slack": 0.0', '"slack": 0e0', 1),
        lambda text: text + "\n",
        lambda text: text.replace('"format": 1,', '"format": 1, "format": 1,'),
    ],
)
def test_there_is_one_spelling(spelling: Callable[[str], str]) -> None:
    """Every other one is refused, for it may be read otherwise elsewhere."""
    text = spelling(LifetimeLedger(PATH, terms(), [entry(1)]).text())

    with pytest.raises(PrivacyError, match=r"is not spelt as a client writes it"):
        LifetimeLedger.parse(PATH, text.encode())


@pytest.mark.parametrize("label", ["", "Ward", "a/b", "..", "a" * 65, "ward\n", "-x"])
def test_labels_are_names_of_files(label: str) -> None:
    """On every file system, whatever it makes of capitals; nothing leads elsewhere."""
    with pytest.raises(ValidationError):
        terms(label=label)
