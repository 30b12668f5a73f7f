"""An attack on our own mechanism: how well can one client's presence be told from what is released?

A canary is an update of the largest allowed norm. The pipeline is run many times with and without it, an attacker scores
each output, and the error rates of the best threshold bound from below how private the pipeline can be. If that lower
bound exceeds the claim, the claim is false. The bound is Gaussian differential privacy (Dong, Roth, Su 2019, arXiv
1905.02383): a mechanism that is mu-GDP keeps Phi^-1(1 - FPR) - Phi^-1(FNR) at or below mu for every test. It refutes
Gaussian claims; it proves none.

:func:`lower_bounds` has beside it the bound that needs no Gaussian (Kairouz, Oh, Viswanath 2015, arXiv 1311.0776, Theorem
2.1): whatever is (epsilon, delta)-DP keeps FNR >= 1 - delta - e^epsilon FPR and FPR >= 1 - delta - e^epsilon FNR for every
test. Error rates are upper limits of Clopper and Pearson (1934) in both.
"""

import math
from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt
from scipy import stats

from rbla_secure.errors import PrivacyError
from rbla_secure.privacy.accounting import epsilon
from rbla_secure.privacy.figures import rounded_down, rounded_up
from rbla_secure.privacy.noise import Release

Scores = npt.NDArray[np.float64]

# The first part of the scores chooses the threshold, the rest judges it: no correction for having looked.
_TO_CHOOSE = 1 / 4
_QUANTILES = np.linspace(0.02, 0.98, 97)
# The same for bounds whose best test may have rare errors.
_FINE_QUANTILES = np.linspace(0.002, 0.998, 499)
# Two error rates for each of three bounds: the error of all of them together is split evenly.
_RATES = 6
_GUESS = 0.05
# Scores of each kind without which a quarter chooses nothing.
LEAST_SCORES = 40
_MOST_SCORES = 10**15


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """The result of an audit.

    Args:
        mu: The pipeline is not mu'-GDP for any mu' below this, with the audit's confidence.
        confidence: Probability that the bound holds of a pipeline that it is true of.
    """

    mu: float
    confidence: float

    def epsilon(self, delta: float) -> float:
        """The epsilon that the pipeline spends at least, if it is Gaussian."""
        if self.mu <= 0:
            return 0.0
        return epsilon([Release(noise_multiplier=1 / self.mu, slack=0.0, rho=0.0)], delta)

    def check(self, release: Release) -> None:
        """Refuse a claim that the audit refutes.

        Raises:
            PrivacyError: The pipeline showed more than the release is said to.
        """
        if self.mu * release.noise_multiplier > 1:
            raise PrivacyError(
                f"the audit shows mu >= {rounded_down(self.mu)}, above the claimed {rounded_up(1 / release.noise_multiplier)}: "
                "the pipeline adds less noise or bounds updates less than it says"
            )


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Lower bounds of epsilon from scores, by two methods, or the most that they can be; 0 where nothing is shown.

    Args:
        clopper_pearson: Bound for any mechanism, the larger one of both directions.
        gaussian: Bound for a Gaussian mechanism.
    """

    clopper_pearson: float
    gaussian: float


def lower_bounds(with_canary: Scores, without_canary: Scores, *, delta: float, confidence: float) -> Bounds:
    """Lower bounds of epsilon at a delta, which hold together with this confidence.

    Args:
        with_canary: One score per independent run with the canary; larger means "it was there". Infinite ones are scores, too.
        without_canary: The same for runs without it.
        delta: The delta of the claim, in (0, 1).
        confidence: Probability that no bound exceeds the epsilon it bounds.

    Raises:
        PrivacyError: There are too few runs, or a score is not a number.
    """
    if min(len(with_canary), len(without_canary)) < LEAST_SCORES:
        raise PrivacyError(
            f"{len(with_canary)} and {len(without_canary)} runs must be at least {LEAST_SCORES} each"
        )
    if np.isnan(with_canary).any() or np.isnan(without_canary).any():
        raise PrivacyError(
            "a score of a run is not a number: the attack has gone wrong, and nothing follows from it"
        )
    cut_in, cut_out = int(len(with_canary) * _TO_CHOOSE), int(len(without_canary) * _TO_CHOOSE)
    seen = np.concatenate([with_canary[:cut_in], without_canary[:cut_out]])
    # Of what was seen itself, never between two of them: infinite scores have no middle.
    candidates = np.unique(np.quantile(seen, _FINE_QUANTILES, method="lower"))
    guessed = _bounds(with_canary[:cut_in], without_canary[:cut_out], candidates, delta=delta, alpha=_GUESS)
    chosen = candidates[np.argmax(guessed, axis=1)]
    alpha = (1 - confidence) / _RATES
    found = np.diagonal(
        _bounds(with_canary[cut_in:], without_canary[cut_out:], chosen, delta=delta, alpha=alpha)
    )
    return Bounds(
        clopper_pearson=max(0.0, float(found[0]), float(found[1])),
        gaussian=Audit(mu=float(found[2]), confidence=confidence).epsilon(delta),
    )


def most_shown(with_canary: int, without_canary: int, *, delta: float, confidence: float) -> Bounds:
    """Return the most that :func:`lower_bounds` can find: with so many scores of each kind told apart without an error.

    Of m scores that judge none is wrong, and the upper limit of an error rate is still p = 1 - alpha^(1/m): the bound of any mechanism is
    ln((1 - delta - p) / p), about ln(m / ln(1/alpha)).

    Args:
        with_canary: Scores with the canary, those that choose the threshold included.
        without_canary: The same without it.
        delta: The delta of the claim, in (0, 1).
        confidence: Probability with which both bounds hold together, in (0, 1).
    """
    alpha = (1 - confidence) / _RATES
    judging = (_judging(with_canary), _judging(without_canary))
    apart = np.array([0.5])
    there, absent, mu = _bounds(np.ones(judging[0]), np.zeros(judging[1]), apart, delta=delta, alpha=alpha)
    return Bounds(
        clopper_pearson=max(0.0, float(there[0]), float(absent[0])),
        gaussian=Audit(mu=float(mu[0]), confidence=confidence).epsilon(delta),
    )


def scores_needed(claim: float, *, delta: float, confidence: float, gaussian: bool) -> int | None:
    """Return the fewest scores of each kind with which :func:`most_shown` exceeds a claim; None if above 10^15.

    Args:
        claim: The epsilon that is claimed.
        delta: The delta of the claim, in (0, 1).
        confidence: Probability with which both bounds hold together, in (0, 1).
        gaussian: Whether by the bound of Gaussian mechanisms, or else by that of any.
    """
    alpha = (1 - confidence) / _RATES

    def exceeds(count: int) -> bool:
        limit = -math.expm1(math.log(alpha) / _judging(count))
        if not gaussian:
            return 1 - delta - limit > 0 and math.log(1 - delta - limit) - math.log(limit) > claim
        mu = -2 * float(stats.norm.ppf(limit))
        return Audit(mu=mu, confidence=confidence).epsilon(delta) > claim

    low, high = 0, LEAST_SCORES
    while not exceeds(high):
        low, high = high, 2 * high
        if high > _MOST_SCORES:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if exceeds(middle) else (middle, high)
    return max(LEAST_SCORES, high)


def _judging(count: int) -> int:
    """Return how many of so many scores do not choose the threshold."""
    return count - int(count * _TO_CHOOSE)


def _bounds(
    with_canary: Scores, without_canary: Scores, thresholds: Scores, *, delta: float, alpha: float
) -> Scores:
    """Return epsilon by either direction, and mu, shape (3, thresholds); alpha is the error of each limit."""
    missed = np.searchsorted(np.sort(with_canary), thresholds, side="right")
    false = len(without_canary) - np.searchsorted(np.sort(without_canary), thresholds, side="right")
    negatives, positives = _upper(missed, len(with_canary), alpha), _upper(false, len(without_canary), alpha)
    with np.errstate(divide="ignore"):
        there = np.log(np.maximum(1 - delta - negatives, 0)) - np.log(positives)
        absent = np.log(np.maximum(1 - delta - positives, 0)) - np.log(negatives)
    return np.stack([there, absent, stats.norm.isf(positives) - stats.norm.ppf(negatives)])


def _upper(errors: npt.NDArray[np.intp], total: int, alpha: float) -> Scores:
    """Upper Clopper-Pearson limits of error rates."""
    inside = np.minimum(errors, total - 1)
    limits: Scores = np.where(errors >= total, 1.0, stats.beta.ppf(1 - alpha, inside + 1, total - inside))
    return limits


def audit(with_canary: Scores, without_canary: Scores, *, confidence: float = 0.999) -> Audit:
    """The lower bound from an attacker's scores.

    Args:
        with_canary: One score per independent run with the canary; larger means "it was there".
        without_canary: The same for runs without it.
        confidence: Probability with which the bound holds, in (0, 1).

    Raises:
        PrivacyError: There are too few runs to choose a threshold.
    """
    cut_in, cut_out = int(len(with_canary) * _TO_CHOOSE), int(len(without_canary) * _TO_CHOOSE)
    if min(cut_in, cut_out) < len(_QUANTILES):
        raise PrivacyError(
            f"{len(with_canary)} and {len(without_canary)} runs must be at least {4 * len(_QUANTILES)} each"
        )
    threshold = _best_threshold(with_canary[:cut_in], without_canary[:cut_out])
    # One half of the error for each of the two rates.
    alpha = (1 - confidence) / 2
    false_negatives = _upper_rate(with_canary[cut_in:] <= threshold, alpha)
    false_positives = _upper_rate(without_canary[cut_out:] > threshold, alpha)
    mu = float(stats.norm.isf(false_positives) - stats.norm.ppf(false_negatives))
    return Audit(mu=mu, confidence=confidence)


def _best_threshold(with_canary: Scores, without_canary: Scores) -> float:
    candidates = np.quantile(np.concatenate([with_canary, without_canary]), _QUANTILES)
    # The largest lower bound, not the largest estimate: rates from few errors are worth little.
    bounds = [
        stats.norm.isf(_upper_rate(without_canary > at, 0.05))
        - stats.norm.ppf(_upper_rate(with_canary <= at, 0.05))
        for at in candidates
    ]
    return float(candidates[int(np.argmax(bounds))])


def _upper_rate(errors: npt.NDArray[np.bool_], alpha: float) -> float:
    """The upper Clopper-Pearson limit of an error rate."""
    wrong, total = int(errors.sum()), len(errors)
    return 1.0 if wrong == total else float(stats.beta.ppf(1 - alpha, wrong + 1, total - wrong))
