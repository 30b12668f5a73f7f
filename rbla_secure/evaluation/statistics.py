"""Figures of a measured attack: areas under the curve, shares and means, each with its confidence interval.

Examples of one client are seen in one view, so their scores depend on each other. Intervals over examples therefore
resample whole clients (cluster bootstrap).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt
from scipy import stats

from rbla_secure.errors import DataError

Scores = npt.NDArray[np.float64]

CONFIDENCE = 0.95
RESAMPLES = 1000


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A measured figure.

    Args:
        value: The figure.
        low: Lower end of its 95 % confidence interval.
        high: Upper end of the same interval.
        count: n: how many independent observations (clients, trials) it rests on.
    """

    value: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def auc(positives: Scores, negatives: Scores) -> float:
    """Return the probability that a positive's score is above a negative's; ties count one half (Mann-Whitney).

    Raises:
        DataError: One of the sides is empty, or a score is not finite.
    """
    _check(positives, negatives)
    ranks = stats.rankdata(np.concatenate([positives, negatives]))
    above = float(ranks[: len(positives)].sum()) - len(positives) * (len(positives) + 1) / 2
    return above / (len(positives) * len(negatives))


def auc_by_client(positives: Sequence[Scores], negatives: Sequence[Scores], *, seed: int) -> Estimate:
    """Return the area under the curve over the scores of all clients, with the interval of resampled clients.

    Args:
        positives: Scores of each client, at least one.
        negatives: Scores of the same clients in the same order.
        seed: Seed of the resampling.
    """

    def pooled(chosen: npt.NDArray[np.int64]) -> float:
        return auc(
            np.concatenate([positives[i] for i in chosen]), np.concatenate([negatives[i] for i in chosen])
        )

    return bootstrap(pooled, count=len(positives), seed=seed)


def true_positive_rate(positives: Scores, negatives: Scores, *, false_positive_rate: float) -> Estimate:
    """Return the true-positive rate at a given false-positive rate (Carlini et al. 2022, arXiv 2112.03570).

    The share of positives above a threshold, which is the lowest score of the negatives that at most this share of them
    exceed. The interval is Clopper and Pearson's over positives, as if they were independent and the threshold were
    given. Examples of one client in one view are not independent, so it is somewhat too short.

    Raises:
        DataError: One of the sides is empty, a score is not finite, or the rate is not in [0, 1).
    """
    _check(positives, negatives)
    if not 0 <= false_positive_rate < 1:
        raise DataError(f"false_positive_rate={false_positive_rate} must lie in [0, 1)")
    allowed = math.floor(false_positive_rate * len(negatives))
    threshold = np.sort(negatives)[len(negatives) - 1 - allowed]
    return proportion(int((positives > threshold).sum()), len(positives))


def mean(values: Scores, *, seed: int) -> Estimate:
    """Return the mean of one value per client, with the interval of resampled clients."""
    return bootstrap(lambda chosen: float(values[chosen].mean()), count=len(values), seed=seed)


def bootstrap(
    statistic: Callable[[npt.NDArray[np.int64]], float],
    *,
    count: int,
    seed: int,
    resamples: int = RESAMPLES,
) -> Estimate:
    """Return a statistic of `count` clients with its percentile interval (Efron 1979).

    Args:
        statistic: Computes the figure for clients given by index; indices may repeat.
        count: Number of clients.
        seed: Seed of the resampling.
        resamples: Number of resamples.

    Raises:
        DataError: There are no clients.
    """
    if count < 1:
        raise DataError(f"count={count} clients must be at least 1")
    generator = np.random.default_rng(seed)
    drawn = [statistic(generator.integers(0, count, size=count)) for _ in range(resamples)]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Estimate(value=statistic(np.arange(count)), low=float(low), high=float(high), count=count)


def proportion(successes: int, trials: int) -> Estimate:
    """Return a share with its exact 95 % interval (Clopper and Pearson 1934, Biometrika 26).

    Raises:
        DataError: There are no trials, or more successes than trials.
    """
    if not 0 <= successes <= trials or not trials:
        raise DataError(f"successes={successes} of trials={trials} must be 0..trials, trials at least 1")
    tail = (1 - CONFIDENCE) / 2
    low = 0.0 if not successes else float(stats.beta.ppf(tail, successes, trials - successes + 1))
    high = 1.0 if successes == trials else float(stats.beta.isf(tail, successes + 1, trials - successes))
    return Estimate(value=successes / trials, low=low, high=high, count=trials)


def _check(positives: Scores, negatives: Scores) -> None:
    if not (len(positives) and len(negatives)):
        raise DataError(f"{len(positives)} and {len(negatives)} scores must be at least 1 each")
    if not (np.isfinite(positives).all() and np.isfinite(negatives).all()):
        raise DataError("scores must be finite")
