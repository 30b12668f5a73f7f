"""What is said about privacy, to people and machines: before a run from its forecast, after it from its ledger."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict

from rbla_secure.choices import Adjacency, Mechanism
from rbla_secure.federation.forecast import Forecast, SampleForecast
from rbla_secure.federation.ledger_checks import look_at_ledgers
from rbla_secure.privacy.ledger import Ledger, Observer
from rbla_secure.privacy.sample_ledger import SampleLedger

WORTHLESS = "SIMULATION: the noise followed from the seed, so these figures are worthless as protection"


class PrivacySummary(BaseModel):
    """The ledger of a run in figures; an epsilon is null where nothing is claimed against that observer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epsilon_server: float | None
    epsilon_reader: float | None
    delta: float
    adjacency: Adjacency
    mechanism: Mechanism
    colluders: int
    attempts: int
    simulation: bool
    recovered: tuple[int, ...]

    @classmethod
    def of(cls, ledger: Ledger) -> Self:
        """The figures of a ledger."""
        terms = ledger.terms
        return cls(
            epsilon_server=_finite(ledger.epsilon(Observer.SERVER)),
            epsilon_reader=_finite(ledger.epsilon(Observer.READER)),
            delta=terms.delta,
            adjacency=terms.adjacency,
            mechanism=terms.mechanism,
            colluders=terms.colluders,
            attempts=len(ledger.entries),
            simulation=terms.simulation,
            recovered=terms.recovered,
        )

    def lines(self) -> list[str]:
        """The figures for people."""
        text = (
            f"privacy spent in {self.attempts} attempts, {self.adjacency} adjacency, delta {self.delta:g}, {self.mechanism} "
            f"noise: epsilon {_figure(self.epsilon_server)} against the server with {self.colluders} clients, "
            f"{_figure(self.epsilon_reader)} against readers of the adapters"
        )
        return [
            text,
            *([self._made_good()] if self.recovered else []),
            *([WORTHLESS] if self.simulation else []),
        ]

    def _made_good(self) -> str:
        bounds = ", ".join(map(str, self.recovered))
        return (
            f"assumes: up to {bounds} missing clients of a round, band by band, were made good exactly "
            "(privacy.recovered-dropout); beyond that the noise that was really there is counted"
        )


class SamplePrivacySummary(BaseModel):
    """The ledger of single examples in figures; epsilon is null where a step had no noise."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epsilon: float | None
    delta: float
    attempts: int
    simulation: bool

    @classmethod
    def of(cls, ledger: SampleLedger) -> Self:
        """The figures of a ledger."""
        return cls(
            epsilon=_finite(ledger.epsilon()),
            delta=ledger.terms.delta,
            attempts=len(ledger.entries),
            simulation=ledger.terms.simulation,
        )

    def lines(self) -> list[str]:
        """The figures for people."""
        text = (
            f"privacy of single examples (one is there, or not, or counts as zero) spent in {self.attempts} attempts, delta "
            f"{self.delta:g}: epsilon {_figure(self.epsilon)} against everyone outside of their client who does not "
            "measure how long it trains"
        )
        return [text, WORTHLESS] if self.simulation else [text]


def spent_in(folder: Path) -> tuple[PrivacySummary | None, SamplePrivacySummary | None]:
    """The figures of a run folder, from ledgers that its audit log holds; None without a ledger.

    Raises:
        RunFolderError: It is no run folder, or was changed.
        PrivacyError: A ledger is missing, damaged, not the one that the log holds, or beyond what can be accounted for.
        ConfigError: Its config.toml is damaged.
    """
    ledger, samples = look_at_ledgers(folder)
    return (
        PrivacySummary.of(ledger) if ledger is not None else None,
        SamplePrivacySummary.of(samples) if samples is not None else None,
    )


def sample_forecast_lines(found: SampleForecast) -> list[str]:
    """A forecast of single examples for people."""
    text = (
        f"epsilon of single examples at delta {found.delta:g} after {found.steps} steps of one client: "
        f"{found.epsilon:.3f} against everyone outside of it"
    )
    return [text, *(f"assumes: {assumption}" for assumption in found.assumptions)]


def sample_forecast_object(found: SampleForecast) -> dict[str, object]:
    """A forecast of single examples for machines."""
    return {
        "epsilon": found.epsilon,
        "delta": found.delta,
        "steps": found.steps,
        "assumptions": _texts(found.assumptions),
    }


def forecast_lines(forecast: Forecast) -> list[str]:
    """A forecast for people."""
    epsilons = (
        f"epsilon at delta {forecast.delta:g} after {forecast.participations} rounds of one client: "
        f"{_figure(_finite(forecast.server))} against the server, "
        f"{_figure(_finite(forecast.reader))} against readers of the adapters, "
        f"{_figure(_finite(forecast.lying_server))} against a server that opens every sum over its quorum alone"
    )
    groups = (
        f"sums over groups cost that much against the server; one sum over everybody would cost "
        f"{_figure(_finite(forecast.one_sum))}"
    )
    return [
        epsilons,
        *([groups] if forecast.one_sum != forecast.server else []),
        *(f"assumes: {text}" for text in forecast.assumptions),
        *(f"advice: {text}" for text in forecast.advice),
    ]


def band_ratios(forecast: Forecast) -> list[tuple[str, str, str]]:
    """Per band: its rows, holders, signal-to-noise ratio of one round."""
    return [(str(each.band), str(each.holders), f"{each.signal_to_noise:.3f}") for each in forecast.bands]


def forecast_object(forecast: Forecast) -> dict[str, object]:
    """A forecast for machines."""
    return {
        "epsilon": _finite(forecast.server),
        "epsilon_one_sum": _finite(forecast.one_sum),
        "epsilon_reader": _finite(forecast.reader),
        "epsilon_lying_server": _finite(forecast.lying_server),
        "delta": forecast.delta,
        "participations": forecast.participations,
        "bands": [
            {"band": str(each.band), "holders": each.holders, "signal_to_noise": each.signal_to_noise}
            for each in forecast.bands
        ],
        "assumptions": _texts(forecast.assumptions),
        "advice": _texts(forecast.advice),
    }


def _texts(texts: Sequence[str]) -> list[str]:
    return list(texts)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _figure(value: float | None) -> str:
    return "not bounded" if value is None else f"{value:.3f}"
