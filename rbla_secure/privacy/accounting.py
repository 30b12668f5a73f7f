"""Composition of releases into (epsilon, delta): `dp-accounting` computes, this file says what is composed.

Each release is, up to `slack`, post-processing of a continuous Gaussian mechanism of some noise multiplier (noise/).
Gaussian mechanisms z_1, z_2, ... compose to exactly one of multiplier (sum 1/z_t^2)^(-1/2), whose epsilon is known in
closed form (Balle and Wang 2018, arXiv 1805.06530). Probabilities within e^(+-xi) on both sides turn (epsilon, delta)
into (epsilon + 2 xi, e^xi delta).

**The sampler's error goes into delta.** Let a run of ideal draws be (epsilon, delta') private, and let the real run be within a
total variation distance t of it whatever the data are (the distances of releases add up, adaptively, since each holds for
whatever came before). For neighbours D, D' and every set S

    P[real(D) in S] <= P[ideal(D) in S] + t <= e^epsilon P[ideal(D') in S] + delta' + t
                    <= e^epsilon P[real(D') in S] + delta' + (1 + e^epsilon) t,

and no factor below 1 + e^epsilon does: one law may have t more on S than the ideal one, and its neighbour t less. So epsilon is the
one at delta' = delta - (1 + e^epsilon) t, and infinite where that leaves nothing of delta: with t as small as it is here
(`discrete_gaussian.py`), above epsilons of about 600.

Noise that depends on earlier results (drop-outs may) is covered as long as a budget
fixed beforehand stops the run: Gaussian differential privacy composes fully adaptively under such a filter (Smith and
Thakurta 2022, arXiv 2210.17520).

:func:`epsilon_by_renyi` is the looser, independent road over zero-concentrated privacy that others take; the two are
compared in tests and never mixed.

Where clients take part by secret draws, a release is a Poisson-sampled Gaussian against whoever does not know them, under
add-or-remove: with what is divided by fixed and every sum opened, the client that is not drawn leaves the same trace as the one
that is not there. Sampling keeps a factor e^(+-xi), as both laws are mixed with the same weights. A lower rate never spends more
(a sample of a sample), and none more than a rate of 1, which is what is counted where there is next to no noise.

Steps of sample level are Poisson-sampled Gaussians too, composed by the library's privacy loss distributions with pessimistic
discretisation: an upper bound (Doroshenko et al. 2022, arXiv 2207.04380), but for the rounding of Fourier transforms. That is taken off
delta, and where nothing of delta is left, or they are less, the library's Renyi figures stand (Mironov et al. 2019,
arXiv 1908.10530). The central-limit approximation that some
accountants offer ("gdp") reports too little where examples are sampled and is not used anywhere.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import final

import dp_accounting
import numpy as np
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant

from rbla_secure.config import LEAST_SAMPLE_NOISE
from rbla_secure.errors import PrivacyError
from rbla_secure.privacy.noise import Release

# Less noise than this hides nothing: epsilon is above 1e199, and squares would leave the range of floats.
LEAST_NOISE = 1e-100
# The search for a noise multiplier stops when it is so close, on the side of more noise.
CALIBRATION_TOLERANCE = 1e-6
# The same where every try composes a thousand distributions.
SAMPLED_TOLERANCE = 1e-3
# The library finds epsilon to 1e-12, and variances are rounded to a few 1e-16 of themselves; added, so that the figure is never
# below the exact one.
_ROOT_TOLERANCE = 1e-10
# The library convolves distributions of losses by Fourier transforms in float64, which leaves an absolute error in delta, of either
# sign. Per step; against sums that keep their relative accuracy in the tail, at most 2.4e-17 was seen.
FOURIER_ERROR = 2.0**-50
# A few tries end it where the sampler's error costs little; where it takes more, next to nothing of delta is left.
_MOST_TRIES = 100


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SampledSteps:
    """Some steps of sample level, as sampled_gaussian.py describes them.

    Args:
        noise_multiplier: z, the noise of a step over its sensitivity.
        sample_rate: q, the probability of an example to be in a step's batch.
        steps: Number of steps.
        slack: Slack of all steps together, defined as for a release (noise/).
        total_variation: Total variation distance of all steps together, defined as for a release.
    """

    noise_multiplier: float
    sample_rate: float
    steps: int
    slack: float = 0.0
    total_variation: float = 0.0


def epsilon(releases: Iterable[Release], delta: float) -> float:
    """The epsilon of a client that took part in all of these releases; 0 for none, infinite without noise.

    Raises:
        PrivacyError: `delta` is not in (0, 1).
    """
    _check_delta(delta)
    inverse, slack, variation = 0.0, 0.0, 0.0
    sampled: Counter[tuple[float, float]] = Counter()
    for release in releases:
        if release.noise_multiplier < LEAST_NOISE:
            return math.inf
        if _amplified(release):
            sampled[release.noise_multiplier, release.sample_rate] += 1
        else:
            inverse += release.noise_multiplier**-2
        slack += release.slack
        variation += release.total_variation
    if sampled:
        return of_drawn(_sampled(sampled, inverse), delta, slack=slack, total_variation=variation)
    if inverse == 0:
        return 0.0
    return of_drawn(_gaussian(inverse), delta, slack=slack, total_variation=variation)


def _amplified(release: Release) -> bool:
    """Whether sampling is counted. With less noise it helps little, and its distribution of losses would take gigabytes."""
    return release.sample_rate < 1 and release.noise_multiplier >= LEAST_SAMPLE_NOISE


def epsilon_by_renyi(releases: Sequence[Release], delta: float) -> float:
    """Return the same epsilon by zero-concentrated privacy in a Renyi accountant: an upper bound, about a tenth larger.

    Raises:
        PrivacyError: `delta` is not in (0, 1).
    """
    _check_delta(delta)
    accountant = RdpAccountant(neighboring_relation=dp_accounting.NeighboringRelation.REPLACE_SPECIAL)
    for release in releases:
        if math.isinf(release.rho):
            return math.inf
        accountant.compose(dp_accounting.ZCDpEvent(rho=release.rho, xi=release.slack))
    variation = sum(release.total_variation for release in releases)
    return of_drawn(accountant.get_epsilon, delta, slack=0.0, total_variation=variation)


def epsilon_of_steps(history: Iterable[SampledSteps], delta: float) -> float:
    """The epsilon of one example of a client that has taken all of these steps; 0 for none.

    Adding or removing an example, and letting it count as zero, give the same. Where every example is in every batch, this
    is the exact Gaussian figure.

    Raises:
        PrivacyError: `delta` is not in (0, 1).
    """
    _check_delta(delta)
    steps: Counter[tuple[float, float]] = Counter()
    slack, variation = 0.0, 0.0
    for part in history:
        steps[part.noise_multiplier, part.sample_rate] += part.steps
        slack += part.slack
        variation += part.total_variation
    if not steps:
        return 0.0
    if all(rate == 1 for _, rate in steps):
        if min(multiplier for multiplier, _ in steps) < LEAST_NOISE:
            return math.inf
        spent = _gaussian(sum(count / multiplier**2 for (multiplier, _), count in steps.items()))
    else:
        spent = _sampled(steps, 0.0)
    return of_drawn(spent, delta, slack=slack, total_variation=variation)


def _gaussian(inverse: float) -> Callable[[float], float]:
    """By delta, the epsilon of a Gaussian mechanism with this sum of 1 / z^2."""

    def spent(delta: float) -> float:
        # Far out, where the search looks first, delta is 0 in floats, and the library takes its logarithm.
        with np.errstate(divide="ignore"):
            return float(dp_accounting.get_epsilon_gaussian(inverse**-0.5, delta)) + _ROOT_TOLERANCE

    return spent


def _sampled(steps: Mapping[tuple[float, float], int], inverse: float) -> Callable[[float], float]:
    """By delta, the epsilon of sampled Gaussians and others together.

    Args:
        steps: By multiplier and sampling rate, how many.
        inverse: The sum of 1 / z^2 over those that are not sampled; 0 without.
    """
    return _composed(tuple(sorted(steps.items())), inverse)


@lru_cache(maxsize=2)
def _composed(steps: tuple[tuple[tuple[float, float], int], ...], inverse: float) -> Callable[[float], float]:
    """Return the same from a cache: a round asks once for each observer and check, and composing takes seconds."""
    relation = dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE
    losses, orders = PLDAccountant(relation), RdpAccountant(neighboring_relation=relation)
    for accountant in (losses, orders):
        for (multiplier, rate), count in steps:
            event = dp_accounting.PoissonSampledDpEvent(rate, dp_accounting.GaussianDpEvent(multiplier))
            accountant.compose(event, count)
        if inverse:
            accountant.compose(dp_accounting.GaussianDpEvent(inverse**-0.5))
    error = sum(count for _, count in steps) * FOURIER_ERROR

    def spent(delta: float) -> float:
        left = delta - error
        by_orders = float(orders.get_epsilon(delta))
        return min(by_orders, float(losses.get_epsilon(left))) if left > 0 else by_orders

    return spent


def of_drawn(spent: Callable[[float], float], delta: float, *, slack: float, total_variation: float) -> float:
    """The epsilon of what was really drawn; infinite where the sampler's error leaves nothing of delta.

    Args:
        spent: By delta, what the continuous mechanism spends; falls with delta.
        delta: The delta of the claim, in (0, 1).
        slack: xi of the module's docstring.
        total_variation: t of the module's docstring.
    """

    def ideal(delta: float) -> float:
        return float(spent(delta * math.exp(-slack))) + 2 * slack

    found = ideal(delta)
    if not total_variation:
        return found
    # From below: what `found` costs leaves less of delta, which takes a larger one, until one is enough for its own cost.
    for _ in range(_MOST_TRIES):
        exponent = found + math.log(total_variation)
        left = delta - total_variation - math.exp(exponent) if exponent < 0 else 0.0
        if not (left := math.nextafter(left, 0.0)) > 0:
            return math.inf
        if (needed := ideal(left)) <= found:
            return found
        found = needed + _ROOT_TOLERANCE
    return math.inf


def noise_multiplier_of_steps(target: float, *, delta: float, sample_rate: float, steps: int) -> float:
    """The noise multiplier with which so many sampled steps spend at most `target`, found to a thousandth from above.

    Raises:
        PrivacyError: An argument is out of range.
    """
    if not (target > 0 and steps >= 1):
        raise PrivacyError(f"target={target} must be above 0 and steps={steps} at least 1")

    def spent(multiplier: float) -> float:
        part = SampledSteps(noise_multiplier=multiplier, sample_rate=sample_rate, steps=steps)
        return epsilon_of_steps([part], delta)

    return _smallest(spent, target, tolerance=SAMPLED_TOLERANCE)


def noise_multiplier_for(target: float, *, delta: float, releases: int, sample_rate: float = 1.0) -> float:
    """Return the smallest noise multiplier with which so many releases spend at most `target`, rounded up.

    Where clients are sampled it is found to a thousandth, and never below what the accountant counts as sampled.

    Raises:
        PrivacyError: An argument is out of range.
    """
    if not (target > 0 and releases >= 1):
        raise PrivacyError(f"target={target} must be above 0 and releases={releases} at least 1")

    if sample_rate < 1:
        return max(
            LEAST_SAMPLE_NOISE,
            noise_multiplier_of_steps(target, delta=delta, sample_rate=sample_rate, steps=releases),
        )

    def spent(multiplier: float) -> float:
        return epsilon([Release(noise_multiplier=multiplier / releases**0.5, slack=0.0, rho=0.0)], delta)

    return _smallest(spent, target, tolerance=CALIBRATION_TOLERANCE)


def _smallest(spent: Callable[[float], float], target: float, *, tolerance: float) -> float:
    """The smallest multiplier that spends at most `target`, from above; `spent` falls with the multiplier."""
    low, high = 0.0, 1.0
    while spent(high) > target:
        low, high = high, 2 * high
    while high - low > tolerance * high:
        middle = (low + high) / 2
        low, high = (middle, high) if spent(middle) > target else (low, middle)
    return high


def _check_delta(delta: float) -> None:
    if not 0 < delta < 1:
        raise PrivacyError(f"delta={delta} must lie in (0, 1)")
