"""What a trusted server does over the rounds of a run, as it really happened, and what that has cost. Shares no code with ours.

:class:`Watched` notes, round by round, the sums that the server opened, every number of noise that it drew, what it published and
what it divided by, and how clients were drawn. From these and metrics.jsonl alone the accountant finds what one client has spent:

*The matrix.* Of a band, let n_t be what was published in round t less the sum, and g_s the noise drawn in round s. The matrix M with
n = M g is found by least squares over the coordinates, and must leave nothing. M is lower triangular and has an inverse, so whoever reads
x + M g reads no more than inverse(M) x + g. With B = inverse(M), each row over the standard deviation of its g, a client that
moves x_t by at most D in each of its rounds t moves that by no more than

    mu^2 = D^2 x sum over its rounds t, t' of |B' B|_{t, t'}

(Choquette-Choo et al. 2023, arXiv 2306.08153, section 2; the largest over the bands of every term, as D is the length in all bands together),
and this is one Gaussian mechanism (Denisov et al. 2022, arXiv 2202.08312, Theorem 2.1).

*The draws.* A round whose weights and bands are the same whoever is drawn, by a key that came from the system's randomness, is a sampled
Gaussian of the rate at which the keys really draw. Of any other one, readers can tell who was drawn: it counts in full.
"""

import json
import math
import tomllib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.linalg

from rbla_secure.federation import secret_cohorts
from rbla_secure.federation.server import opened_totals
from rbla_secure.privacy.noise import banded_matrix, mechanism
from tests.support import privacy_loss
from tests.support.noise_law import has_std
from tests.support.own_epsilon import of_gaussian
from tests.support.recorded_noise import longest

Vector = npt.NDArray[np.float64]
# Rounds for which the keys of all clients are tried.
TRIED = 4000
WIDTH = 1e-4


@dataclass(frozen=True)
class Opened:
    """One round at the server; by band, vectors in integer units.

    Args:
        round: Of the run.
        sums: As they were opened.
        drawn: Standard deviation that was asked for, and what was drawn.
        published: The sums with their noise.
        weights: What they are divided by.
    """

    round: int
    sums: dict[int, Vector]
    drawn: dict[int, tuple[float, Vector]]
    published: dict[int, Vector]
    weights: dict[int, float]


@dataclass
class Watched:
    """What was noted: `asked` has by round who was drawn, `tried` by client in how many of `TRIED` rounds its own key draws it."""

    opened: list[Opened] = field(default_factory=list)
    asked: dict[int, frozenset[str]] = field(default_factory=dict)
    tried: dict[str, int] = field(default_factory=dict)
    keys: set[bytes] = field(default_factory=set)
    random: set[bytes] = field(default_factory=set)
    _drawn: list[tuple[float, Vector]] = field(default_factory=list)


@contextmanager
def watching(patch: pytest.MonkeyPatch) -> Iterator[Watched]:
    """Note what the server does while a run goes on."""
    watched = Watched()
    _watch_noise(watched, patch)
    _watch_draws(watched, patch)
    yield watched


def _watch_noise(watched: Watched, patch: pytest.MonkeyPatch) -> None:
    released = opened_totals.release

    def of_server(plan: Any, session: Any, mechanism: Any, sums: Any, *rest: Any) -> Any:
        watched._drawn.clear()
        found = released(plan, session, mechanism, sums, *rest)
        published = {band: total.weighted_sum * plan.quantizer.scale for band, total in found.totals.items()}
        watched.opened.append(
            Opened(
                round=session.round,
                sums={
                    band: np.asarray(sums.sums.get(band, np.zeros(len(each))), dtype=np.float64)
                    for band, each in published.items()
                },
                drawn=dict(zip(sorted(published), watched._drawn, strict=True)),
                published=published,
                weights={band: total.weight for band, total in found.totals.items()},
            )
        )
        return found

    for module in (banded_matrix, mechanism):
        draw = module.discrete_gaussian

        def drawn(sigma: float, count: int, stream: Any, draw: Any = draw) -> Any:
            values = draw(sigma, count, stream)
            watched._drawn.append((sigma, values.astype(np.float64)))
            return values

        patch.setattr(module, "discrete_gaussian", drawn)
    patch.setattr("rbla_secure.federation.round.release", of_server)


def _watch_draws(watched: Watched, patch: pytest.MonkeyPatch) -> None:
    cohorts, system = secret_cohorts.SecretCohorts, secret_cohorts.SYSTEM_RANDOM
    begin, draws_of, asked = cohorts.__init__, cohorts.draws_of, cohorts.asked

    def random(size: int) -> bytes:
        found = system(size)
        watched.random.add(found)
        return found

    def begun(self: Any, key: bytes, *, rate: float) -> None:
        watched.keys.add(key)
        begin(self, key, rate=rate)

    def given(self: Any, client: str) -> Any:
        draws = draws_of(self, client)
        if client not in watched.tried:
            watched.tried[client] = sum(draws.takes_part(number) for number in range(1, TRIED + 1))
        return draws

    def who(self: Any, clients: Any, round_number: int) -> frozenset[str]:
        watched.asked[round_number] = asked(self, clients, round_number)
        return watched.asked[round_number]

    patch.setattr(secret_cohorts, "SYSTEM_RANDOM", random)
    patch.setattr(cohorts, "__init__", begun)
    patch.setattr(cohorts, "draws_of", given)
    patch.setattr(cohorts, "asked", who)


def published_column(width: int) -> Vector:
    """The strategy as it is published: the square root of the matrix of prefix sums, cut to a band, in whole sixteenths of its diagonal."""
    root = np.real(scipy.linalg.sqrtm(np.tril(np.ones((width, width)))))
    return np.round(16 * root[:, 0])


def strategy_of(opened: list[Opened], band: int, rounds: int) -> tuple[Vector, Vector]:
    """inverse(M), and B of the docstring; shape (rounds, rounds), zero in the rows and columns of rounds that did not open the band."""
    of = [each for each in opened if band in each.published]
    left = np.array([each.published[band] - each.sums[band] for each in of])
    drawn = np.array([each.drawn[band][1] for each in of])
    stds = np.array([each.drawn[band][0] for each in of])
    mixing = np.linalg.lstsq(drawn.T, left.T)[0].T
    assert np.abs(left - mixing @ drawn).max() < 1e-6 * np.abs(left).max(), "something else than noise"
    assert np.abs(np.triu(mixing, 1)).max() < 1e-9, "noise of rounds to come"
    assert all(has_std(values, std) for values, std in zip(drawn, stds, strict=True))
    at = np.ix_([each.round - 1 for each in of], [each.round - 1 for each in of])
    inverse, strategy = np.zeros((rounds, rounds)), np.zeros((rounds, rounds))
    inverse[at] = np.linalg.inv(mixing)
    strategy[at] = inverse[at] / stds[:, None]
    return inverse, strategy


@dataclass(frozen=True)
class RecordedRounds:
    """A run folder and what was noted while it was made."""

    folder: Path
    watched: Watched

    @property
    def config(self) -> dict[str, Any]:
        """The keys of the run."""
        return tomllib.loads((self.folder / "config.toml").read_text())

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Of metrics.jsonl."""
        return [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]

    @property
    def bands(self) -> list[int]:
        """That were opened."""
        return sorted({band for each in self.watched.opened for band in each.published})

    def epsilon(self) -> float:
        """Against readers of adapters, of the client that spent most, where it is known who takes part."""
        products, moved = self._products(), self._moved()
        spent = []
        for client in self._holders(0):
            there = [line["round"] - 1 for line in self.lines if client in line["survivors"]]
            spent.append(moved * math.sqrt(products[np.ix_(there, there)].sum()))
        return of_gaussian(max(spent), self.config["privacy"]["delta"])

    def epsilon_of_draws(self, *, upper: bool = True) -> float:
        """The same where clients are drawn in secret: a bound from above or from below."""
        products, moved, rate = self._products(), self._moved(), self._rate()
        assert products.sum() - np.trace(products) < 1e-6 * np.trace(products), (
            "sampled rounds with one noise"
        )
        multipliers = [round(1 / (moved * math.sqrt(each)), 9) for each in np.diag(products)]
        secret = self.watched.keys <= self.watched.random
        shown = {each.round for each in self.watched.opened if not secret or self._tells(each)}
        worst = max(self._holders(0), key=lambda client: sum(client in self.watched.asked[t] for t in shown))
        counted = Counter(
            (multiplier, 1.0 if number in shown else rate)
            for number, multiplier in enumerate(multipliers, start=1)
            if number not in shown or worst in self.watched.asked[number]
        )

        def composed(*, removed: bool) -> float:
            parts = [
                privacy_loss._of_step(z, q, WIDTH, removed=removed, upper=upper).times(count)
                for (z, q), count in counted.items()
            ]
            whole = parts[0]
            for part in parts[1:]:
                whole = whole.plus(part)
            return whole.epsilon(self.config["privacy"]["delta"], WIDTH)

        return max(composed(removed=removed) for removed in (True, False))

    def _products(self) -> Vector:
        """By two rounds: |B' B|, the largest over the bands."""
        strategies = [strategy_of(self.watched.opened, band, len(self.lines))[1] for band in self.bands]
        largest: Vector = np.max([np.abs(each.T @ each) for each in strategies], axis=0)
        return largest

    def _moved(self) -> float:
        """D: how far one client moves the vector of all sums of a round, in integer units."""
        config = self.config
        lengths = {band: len(each) for one in self.watched.opened for band, each in one.published.items()}
        scale = (2 ** (config["quantization"]["bits"] - 1) - 1) / config["quantization"]["bound"]
        return longest(config["clip-norm"], scale, sum(lengths.values()))

    def _rate(self) -> float:
        """At which the keys of the clients draw: what is configured, unless they are seen to draw at another one."""
        told = self.config["privacy"]["sample-rate"]
        tried = self.watched.tried.values()
        seen = sum(tried) / (TRIED * len(tried))
        error = math.sqrt(told * (1 - told) / (TRIED * len(tried)))
        return told if abs(seen - told) < 5 * error else seen

    def _tells(self, opened: Opened) -> bool:
        """Whether the weights or the bands of a round are others than those of every other round."""
        ranks = sorted({tier["rank"] for tier in self.config["tiers"].values()})
        expected = {
            band: self.config["privacy"]["sample-rate"] * len(self._holders(rank))
            for band, rank in enumerate(ranks)
        }
        return opened.weights != pytest.approx(expected)

    def _holders(self, rank: int) -> list[str]:
        """Clients of this rank or a larger one."""
        return [
            f"{name}-{number:02d}"
            for name, tier in self.config["tiers"].items()
            for number in range(1, tier["clients"] + 1)
            if tier["rank"] >= rank
        ]
