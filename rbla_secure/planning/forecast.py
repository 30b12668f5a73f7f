"""Forecast, before anything is trained, of the privacy that a run would spend and the signal that would be left.

Epsilons are exact for the planned cohorts and the expected drop-outs. The signal-to-noise ratios and the advice are
rules of thumb: they assume that clipped updates agree with each other and are spread evenly over all rows.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from rbla_secure.config import Config
from rbla_secure.config.choices import Adjacency, Factors, Mechanism
from rbla_secure.lora.bands import Band
from rbla_secure.planning.budget import coarsest, expected_present, participations, planned_steps
from rbla_secure.planning.noise import Views, views
from rbla_secure.planning.parameters import WORTHLESS
from rbla_secure.planning.plan import Plan
from rbla_secure.planning.promises import Promises
from rbla_secure.planning.round_costs import signal_to_noise
from rbla_secure.privacy.accounting import epsilon, epsilon_of_steps
from rbla_secure.privacy.figures import exact, rounded_up
from rbla_secure.privacy.ledger import Observer
from rbla_secure.privacy.noise import GaussianMechanism, Release, noise_kind
from rbla_secure.privacy.standing import standing_in_words

# Below 0.3 the noise of a round's average outweighs its signal three to one; below 0.1 a row learns next to nothing.
ENOUGH_SIGNAL, SOME_SIGNAL = 0.3, 0.1
# The share of runs in which a client is drawn more often than is told.
_RARELY = 0.01
# Fewer clients than this rarely get there at all.
ENOUGH_CLIENTS = 50
WHO_ANSWERED = (
    "the roster and ranks are public, and who answered is not: metrics.jsonl and events.jsonl name it, so the claim is about "
    "whoever reads adapters alone, and the run folder stays with the server"
)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class BandForecast:
    """One band: its (expected) holders per round and the signal-to-noise ratio of its average in one round."""

    band: Band
    holders: int
    signal_to_noise: float


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """The forecast of a plan's client-level privacy.

    Args:
        views: Epsilon against each observer; infinite if nothing is claimed.
        one_sum: Epsilon against the coalition if it saw one sum over everybody; the same as in `views` unless clients
            are summed in groups.
        lying_server: Epsilon against a coalition whose server gets every sum opened over no more clients than its quorum.
        colluders: Clients whose noise the coalition knows.
        mechanism: The party that adds the noise.
        delta: The delta of all three, in (0, 1).
        participations: Rounds of the client that takes part most.
        bands: The forecast of every band, in order.
        assumptions: The assumptions behind the epsilons, in words.
        advice: Rules of thumb, in words.
    """

    views: Mapping[Observer, float]
    one_sum: float
    lying_server: float
    colluders: int
    mechanism: Mechanism
    delta: float
    participations: int
    bands: tuple[BandForecast, ...]
    assumptions: tuple[str, ...]
    advice: tuple[str, ...]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SampleForecast:
    """The forecast of the privacy of single examples.

    Args:
        epsilon: Epsilon of the client that takes part most.
        delta: The delta of that epsilon, in (0, 1).
        steps: Training steps of that client, over all rounds.
        assumptions: The assumptions behind epsilon, in words.
    """

    epsilon: float
    delta: float
    steps: int
    assumptions: tuple[str, ...]


def sample_forecast(config: Config) -> SampleForecast:
    """Forecast the privacy of single examples under a configuration with noise inside clients."""
    wanted, steps = config.sample_level, config.training.steps * participations(config)
    neighbours = (
        "a neighbouring federation is one in which one example of one client is not there or counts as zero; who takes "
        "part and ranks are public"
    )
    assumptions = [
        neighbours,
        "a client draws its batches in secret, each example on its own",
        "nobody outside of a client measures how long it trains, which grows with its batches",
        *_of_time(config),
    ]
    if config.privacy.simulation:
        assumptions.append(f"SIMULATION: {WORTHLESS}")
    return SampleForecast(
        epsilon=epsilon_of_steps(planned_steps(config), wanted.delta),
        delta=wanted.delta,
        steps=steps,
        assumptions=tuple(assumptions),
    )


def forecast(plan: Plan, mechanism: GaussianMechanism) -> Forecast:
    """Forecast the privacy of a plan with noise."""
    config, promises = plan.config, plan.promises
    delta, rounds = config.privacy.delta, participations(config)
    least_clipped = coarsest(promises, mechanism)

    def seen(present: dict[int, int]) -> Views:
        return views(promises, least_clipped, present=present, colluding=promises.colluders)

    everybody = {each.band.index: each.counted + promises.colluders for each in promises.bands}
    expected = expected_present(promises)
    ratios = signal_to_noise(plan, mechanism.noise_multiplier)
    bands = tuple(
        BandForecast(band=band, holders=round(count), signal_to_noise=ratio)
        for (band, count), ratio in zip(expected_holders(promises), ratios, strict=True)
    )
    return Forecast(
        views={observer: _epsilon(each, rounds, delta) for observer, each in seen(expected).items()},
        one_sum=_epsilon(seen(everybody)[Observer.COALITION], rounds, delta),
        lying_server=_epsilon(
            seen(dict.fromkeys(expected, plan.segmentation.quorum))[Observer.COALITION], rounds, delta
        ),
        colluders=promises.colluders,
        mechanism=config.privacy.mechanism,
        delta=delta,
        participations=rounds,
        bands=bands,
        assumptions=tuple(_assumptions(plan)),
        advice=tuple(_advice(plan, bands) + _unrecovered(plan)),
    )


def _epsilon(release: Release, rounds: int, delta: float) -> float:
    return epsilon([release] * rounds, delta)


def expected_holders(promises: Promises) -> list[tuple[Band, float]]:
    """Return every rank band with its holders in a round; the expected number under secret draws."""
    rate = promises.config.privacy.sample_rate
    return [(each.band, rate * each.holders) for each in promises.bands]


def _assumptions(plan: Plan) -> list[str]:
    privacy = plan.config.privacy
    if privacy.sample_rate < 1:
        found = _of_draws(plan)
    else:
        found = [
            "a neighbouring federation is one in which one client "
            + (
                "sends zeros; who takes part, ranks and weights are public"
                if privacy.adjacency is Adjacency.ZERO_OUT
                else f"is not there; {WHO_ANSWERED}"
            ),
            "cohorts follow from a public seed: no amplification is claimed, and all views compose every round",
        ]
    found += noise_kind(privacy.mechanism).assumptions(plan.config)
    if plan.promises.noise_by_server:
        found.append("the server is trusted with the sums; against it nothing is claimed")
    else:
        found += _of_shares(plan)
    found += _of_time(plan.config)
    found.append(_standing(plan))
    if privacy.simulation:
        found.append(f"SIMULATION: {WORTHLESS}")
    return found


def _of_time(config: Config) -> list[str]:
    """Describe what no epsilon covers where a client's answer has a time limit."""
    if not config.stage_seconds:
        return []
    return [
        (
            f"no client's answer takes stage-seconds={config.stage_seconds:g} because of its data: one that does is silent, which no "
            "epsilon covers (0 sets no limit)"
        )
    ]


def _of_shares(plan: Plan) -> list[str]:
    """Describe the assumptions where clients add the noise."""
    found = [
        f"at most {plan.promises.colluders} clients pool what they know of noise, with the server or with each other, and {_missing(plan)}"
    ]
    found += plan.segmentation.smallest_sums
    if plan.promises.mode.reads_uploads:
        found.append("the server reads every single upload, which one noise share hides")
    return found


def _of_draws(plan: Plan) -> list[str]:
    """Describe who must not know the secret draws, and the privacy spent against whoever does."""
    config, rate = plan.config, plan.config.privacy.sample_rate
    most = most_drawn(clients=len(plan.ranks), rounds=config.rounds, rate=rate)
    if plan.mechanism is None:
        raise AssertionError("secret draws come with noise")
    present = {index: shares.uploaders for index, shares in enumerate(plan.mechanism.bands)}
    known = epsilon([plan.mechanism.event(present)] * most, config.privacy.delta)
    secret = (
        f"readers and other clients do not learn who takes part in a round: every client does with a probability of {exact(rate)}, by a draw "
        "that the server and itself know, and nobody watches whom the server asks"
    )
    return [
        f"a neighbouring federation is one in which one client is not there; {WHO_ANSWERED}",
        secret,
        f"whoever learns who took part: epsilon {rounded_up(known)} after {most} rounds of one client, which none exceeds in 99 of 100 runs",
    ]


def most_drawn(*, clients: int, rounds: int, rate: float) -> int:
    """Return a bound on the rounds of the client drawn most, valid in 99 of 100 runs (Chernoff, over all clients)."""
    low, high = math.floor(rounds * rate), rounds
    while low < high:
        middle = (low + high) // 2
        if clients * math.exp(-rounds * _divergence((middle + 1) / rounds, rate)) > _RARELY:
            low = middle + 1
        else:
            high = middle
    return high


def _divergence(share: float, rate: float) -> float:
    """Return the Kullback-Leibler divergence between two Bernoulli distributions, in nats."""
    rest = (1 - share) * math.log((1 - share) / (1 - rate)) if share < 1 else 0.0
    return share * math.log(share / rate) + rest


def _standing(plan: Plan) -> str:
    """Describe the status of the figures after the run."""
    privacy = plan.config.privacy
    return "after the run: " + standing_in_words(
        privacy.mechanism,
        max_epsilon=privacy.max_epsilon,
        recovered=privacy.recovered_dropout > 0,
        colluders=plan.promises.colluders,
    )


def _missing(plan: Plan) -> str:
    """Describe what the epsilons assume about drop-outs."""
    privacy, mechanism = plan.config.privacy, plan.mechanism
    if not privacy.recovered_dropout or mechanism is None:
        return plan.segmentation.expected_absence
    made_good = ", ".join(
        f"{shares.recovered} of {shares.uploaders} in {band}"
        for band, shares in zip(plan.bands, mechanism.bands, strict=True)
    )
    return (
        f"no more drop out than are made good exactly (privacy.recovered-dropout={privacy.recovered_dropout:g}: {made_good}); "
        "beyond that the ledger counts the noise that was really there"
    )


def _advice(plan: Plan, bands: tuple[BandForecast, ...]) -> list[str]:
    members, first = round(plan.config.privacy.sample_rate * plan.promises.members), bands[0]
    found = []
    if members < ENOUGH_CLIENTS:
        found.append(
            f"{members} clients a round are few for noise on the sum: below about {ENOUGH_CLIENTS}, noise inside each "
            "client (sample level) usually costs less accuracy"
        )
    if first.signal_to_noise < ENOUGH_SIGNAL and plan.config.lora.factors is Factors.BOTH:
        found.append("lora.factors=lora-b would send fewer values and need less noise")
    weak = [entry for entry in bands if entry.signal_to_noise < SOME_SIGNAL]
    if weak and weak[0] is not first:
        found.append(f"ranks above {weak[0].band.start} hold rows that are mostly noise: cap the rank there")
    elif weak:
        found.append("every row is mostly noise: more clients, fewer rounds or a larger epsilon are needed")
    return found or ["client level with these factors and ranks leaves signal above the noise"]


def _unrecovered(plan: Plan) -> list[str]:
    """Name the bands so small that the share of drop-outs that is made good rounds to zero clients."""
    wanted = plan.config.privacy.recovered_dropout
    if not wanted or plan.mechanism is None:
        return []
    return [
        f"privacy.recovered-dropout={wanted:g} makes good not one client of {band}: 1/{shares.uploaders} or more would"
        for band, shares in zip(plan.bands, plan.mechanism.bands, strict=True)
        if not shares.recovered
    ]
