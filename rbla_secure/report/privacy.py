"""Privacy figures for people and machines: before a run from its forecast, after it from its ledger."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict

from rbla_secure.config.choices import Adjacency, Mechanism
from rbla_secure.planning.forecast import WHO_ANSWERED, Forecast, SampleForecast
from rbla_secure.privacy.figures import exact, rounded_up
from rbla_secure.privacy.ledger import Ledger, Observer
from rbla_secure.privacy.noise import NoisePlace, noise_kind
from rbla_secure.privacy.sample_ledger import SampleLedger
from rbla_secure.privacy.standing import Standing, standing, standing_in_words
from rbla_secure.run_folder.ledger_checks import look_at_ledgers

WORTHLESS = "SIMULATION: the noise followed from the seed, so these figures are worthless as protection"


class PrivacySummary(BaseModel):
    """The ledger of a run in figures; in `views`, an epsilon is null where nothing is claimed against that observer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    views: dict[Observer, float | None]
    standing: Standing
    max_epsilon: float
    delta: float
    adjacency: Adjacency
    mechanism: Mechanism
    colluders: int
    attempts: int
    simulation: bool
    recovered: tuple[int, ...]
    sample_rate: float

    @classmethod
    def of(cls, ledger: Ledger) -> Self:
        """The figures of a ledger."""
        terms = ledger.terms
        return cls(
            views={observer: _finite(ledger.epsilon(observer)) for observer in Observer},
            standing=standing(terms.mechanism, max_epsilon=terms.max_epsilon),
            max_epsilon=terms.max_epsilon,
            delta=terms.delta,
            adjacency=terms.adjacency,
            mechanism=terms.mechanism,
            colluders=terms.colluders,
            attempts=len(ledger.entries),
            simulation=terms.simulation,
            recovered=terms.recovered,
            sample_rate=terms.sample_rate,
        )

    @property
    def epsilon(self) -> float | None:
        """Epsilon against the observer that learns most; None if nothing is claimed against one of them."""
        return _most(self.views)

    def lines(self) -> list[str]:
        """The figures for people."""
        text = (
            f"privacy spent in {self.attempts} attempts, {self.adjacency} adjacency, delta {exact(self.delta)}, {self.mechanism} "
            "noise:"
        )
        return [
            text,
            *view_lines(self.views, mechanism=self.mechanism, colluders=self.colluders),
            *([] if self.adjacency is Adjacency.ZERO_OUT else [f"assumes: {WHO_ANSWERED}"]),
            "this is: "
            + standing_in_words(
                self.mechanism,
                max_epsilon=self.max_epsilon,
                recovered=any(self.recovered),
                colluders=self.colluders,
            ),
            *([self._made_good()] if self.recovered else []),
            *([self._secret()] if self.sample_rate < 1 else []),
            *([WORTHLESS] if self.simulation else []),
        ]

    def _secret(self) -> str:
        return (
            f"assumes: readers and other clients do not learn who took part in a round, each client by a secret draw of probability "
            f"{exact(self.sample_rate)} (privacy.sample-rate); the run folder names who did, and stays with the server"
        )

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
            f"{exact(self.delta)}: epsilon {_figure(self.epsilon)} against everyone outside of their client who does not "
            "measure how long it trains"
        )
        return [text, WORTHLESS] if self.simulation else [text]


def spent_in(folder: Path) -> tuple[PrivacySummary | None, SamplePrivacySummary | None]:
    """Return the figures of a run folder, from ledgers that its audit log holds; None without a ledger.

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
        f"epsilon of single examples at delta {exact(found.delta)} after {found.steps} steps of one client: "
        f"{rounded_up(found.epsilon)} against everyone outside of it"
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
    views = _finite_views(forecast)
    lying = (
        f"epsilon {_figure(_finite(forecast.lying_server))} against a {Observer.COALITION} that opens every sum over its "
        "quorum alone"
    )
    groups = (
        f"sums over groups cost that much against the {Observer.COALITION}; one sum over everybody would cost "
        f"{_figure(_finite(forecast.one_sum))}"
    )
    return [
        f"epsilon at delta {exact(forecast.delta)} after {forecast.participations} rounds of one client:",
        *view_lines(views, mechanism=forecast.mechanism, colluders=forecast.colluders),
        lying,
        *([groups] if forecast.one_sum != forecast.views[Observer.COALITION] else []),
        *(f"assumes: {text}" for text in forecast.assumptions),
        *(f"advice: {text}" for text in forecast.advice),
    ]


def band_ratios(forecast: Forecast) -> list[tuple[str, str, str]]:
    """Return, per band, its rows, holders and signal-to-noise ratio of one round."""
    return [(str(each.band), str(each.holders), f"{each.signal_to_noise:.3f}") for each in forecast.bands]


def forecast_object(forecast: Forecast) -> dict[str, object]:
    """A forecast for machines."""
    return {
        "epsilon": _most(_finite_views(forecast)),
        "views": {str(observer): value for observer, value in _finite_views(forecast).items()},
        "epsilon_one_sum": _finite(forecast.one_sum),
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


def view_lines(views: Mapping[Observer, float | None], *, mechanism: Mechanism, colluders: int) -> list[str]:
    """The table of views: each observer in words, and epsilon against it."""
    return [
        f"  epsilon {_figure(views[observer])} against {observer}: {_who(observer, mechanism, colluders)}"
        for observer in Observer
    ]


def _who(observer: Observer, mechanism: Mechanism, colluders: int) -> str:
    """An observer in words."""
    central = noise_kind(mechanism).place is NoisePlace.SERVER
    match observer:
        case Observer.PUBLIC:
            return "whoever reads the adapters" + ("" if central else " and knows nobody's noise")
        case Observer.PARTICIPANT:
            known = (
                "" if central else f" and knows the noise of {_clients(max(1, colluders))}, its own included"
            )
            return "a client, which reads the adapters" + known
        case Observer.SERVER:
            trusted = "; it adds the noise and is trusted with the sums" if central else ""
            return "the server alone, with what the secure sum shows it" + trusted
        case Observer.COALITION:
            return f"the server together with {_clients(colluders)}, whose noise it knows"


def _clients(count: int) -> str:
    return "1 client" if count == 1 else f"{count} clients"


def _finite_views(forecast: Forecast) -> dict[Observer, float | None]:
    return {observer: _finite(value) for observer, value in forecast.views.items()}


def _most(views: Mapping[Observer, float | None]) -> float | None:
    found = [value for value in views.values() if value is not None]
    return max(found) if len(found) == len(views) else None


def _texts(texts: Sequence[str]) -> list[str]:
    return list(texts)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _figure(value: float | None) -> str:
    return "not bounded" if value is None else rounded_up(value)
