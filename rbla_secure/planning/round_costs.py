"""The cost of rounds and of band weights at one epsilon, before anything is trained.

T rounds of a client at one epsilon take a noise multiplier that grows with sqrt(T), so the signal-to-noise ratio of one round
falls with 1 / sqrt(T). That of the sum of all rounds, if they agree, stays: rounds beyond those that training has use for add no
signal and do add noise. The ratios are rules of thumb: they assume clipped updates that agree, and whose squared norm is
spread over rows as `privacy.rank-decay` says, evenly if it is 0.
"""

import math
from dataclasses import dataclass
from typing import Final, final

from rbla_secure.config.choices import BandWeights, RowOrder
from rbla_secure.planning.band_weights import band_profiles
from rbla_secure.planning.budget import expected_views, least_faced, noise_for, participations
from rbla_secure.planning.plan import Plan
from rbla_secure.privacy.accounting import epsilon, noise_multiplier_for
from rbla_secure.privacy.band_weights import expected_signal, least_noise_weights, noise_energy
from rbla_secure.privacy.noise import Release

# Numbers of rounds that are compared with the configured one, as far as they are below it.
COMPARED: Final = (2, 3, 5, 8, 12, 20, 50, 100)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RoundCost:
    """A number of rounds at the plan's epsilon.

    Args:
        rounds: Number of rounds of the run.
        participations: Rounds in which the client that takes part most takes part.
        noise_multiplier: The multiplier that keeps the epsilon on the plan's own grid, in place of the configured one.
        signal_to_noise: By band index, the signal-to-noise ratio of its average in one round.
    """

    rounds: int
    participations: int
    noise_multiplier: float
    signal_to_noise: tuple[float, ...]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class WeightedNoise:
    """The noise and epsilon that weights of bands save.

    Args:
        used: Whether the plan has them.
        energy: Noise energy of one average with the weights that leave the least, over that with equal ones.
        epsilon: Epsilon that a run with these weights would spend at the noise energy that equal ones have at the
            plan's epsilon.
    """

    used: bool
    energy: float
    epsilon: float


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RoundCosts:
    """Numbers of rounds side by side.

    Args:
        epsilon: The epsilon at which all are compared: privacy.max-epsilon, or without one what the plan spends against
            the observer that faces least noise.
        rounds: The costs, by increasing number of rounds; the last one is the plan's own.
        weights: The savings of band weights; None where the plan can have none.
    """

    epsilon: float
    rounds: tuple[RoundCost, ...]
    weights: WeightedNoise | None


def round_costs(plan: Plan) -> RoundCosts | None:
    """Return the costs of a plan; None without noise, or where some observer faces none."""
    config, delta, mechanism = plan.config, plan.config.privacy.delta, plan.mechanism
    if mechanism is None:
        return None
    promises, seen = plan.promises, expected_views(plan.promises, mechanism)
    if not least_faced(promises, mechanism):
        return None
    rate = config.privacy.sample_rate
    target = config.privacy.max_epsilon or max(
        epsilon([seen[each]] * participations(config), delta) for each in promises.claimed
    )
    compared = sorted({*(number for number in COMPARED if number < config.rounds), config.rounds})
    found = []
    for number in compared:
        counted = participations(config.model_copy(update={"rounds": number}))
        faced = noise_multiplier_for(target, delta=delta, releases=counted, sample_rate=rate)
        # The plan's own noise keeps the epsilon for as many rounds as the plan has; the search ends a little above it.
        needed = noise_for(faced, promises, plan.mechanism_with) or math.inf
        needed = min(needed, config.noise_multiplier)
        found.append(
            RoundCost(
                rounds=number,
                participations=counted,
                noise_multiplier=needed,
                signal_to_noise=signal_to_noise(plan, needed),
            )
        )
    return RoundCosts(epsilon=target, rounds=tuple(found), weights=_weighted_noise(plan, target))


def signal_to_noise(plan: Plan, noise_multiplier: float) -> tuple[float, ...]:
    """Return, by band index, the signal-to-noise ratio of one value if updates of least-rank holders agree.

    With w values in a row, D_b holders (expected ones, where clients are drawn), s and a of `privacy/band_weights.py`,
    and h_b rows: an update of the bands up to b, clipped at C, has C sqrt(s_b / (h_b w)) / sqrt(sum_{k <= b} a_k^2 s_k)
    in a value of band b, and the noise there is z C / (D_b a_b). At equal weights and an even spread the ratio is D_b /
    (z sqrt(d)), d the values of such an update.
    """
    privacy, bands = plan.config.privacy, plan.promises.bands
    signals = expected_signal([(each.band.start, each.band.stop) for each in bands], privacy.rank_decay)
    found, length = [], 0.0
    for each, weight, signal in zip(bands, plan.band_weights, signals, strict=True):
        length += weight**2 * signal
        value = math.sqrt(signal / (each.band.height * plan.width) / length)
        found.append(privacy.sample_rate * each.holders * weight * value / noise_multiplier)
    return tuple(found)


def _weighted_noise(plan: Plan, target: float) -> WeightedNoise | None:
    config = plan.config
    if config.training.rows is RowOrder.IN_TURNS:
        return None
    profiles = band_profiles(plan.promises, plan.layout)
    costs, signals = [each.cost for each in profiles], [each.signal for each in profiles]
    ratio = noise_energy(costs, least_noise_weights(costs, signals)) / math.fsum(costs)
    counted, rate = participations(config), config.privacy.sample_rate
    equal = noise_multiplier_for(target, delta=config.privacy.delta, releases=counted, sample_rate=rate)
    return WeightedNoise(
        used=config.privacy.band_weights is BandWeights.HOLDERS,
        energy=ratio,
        epsilon=_epsilon(equal / math.sqrt(ratio), counted, config.privacy.delta, rate),
    )


def _epsilon(multiplier: float, releases: int, delta: float, rate: float) -> float:
    release = Release(noise_multiplier=multiplier, slack=0.0, rho=0.0, sample_rate=rate)
    return epsilon([release] * releases, delta)
