"""Areas, shares and intervals against values worked out by hand, against scipy, and against what an interval promises."""

import numpy as np
import pytest
from scipy import stats

from rbla_secure.errors import DataError
from rbla_secure.evaluation.statistics import (
    Estimate,
    auc,
    auc_by_client,
    bootstrap,
    mean,
    proportion,
)


def test_the_area_by_hand() -> None:
    """Of the six pairs of (1, 3) and (0, 1, 2): 4 above, 1 equal, 1 below."""
    assert auc(np.array([1.0, 3.0]), np.array([0.0, 1.0, 2.0])) == pytest.approx(4.5 / 6)
    assert auc(np.array([2.0]), np.array([1.0])) == 1.0
    assert auc(np.array([1.0]), np.array([2.0])) == 0.0
    assert auc(np.array([1.0]), np.array([1.0])) == 0.5


def test_the_area_is_scipys_mann_whitney() -> None:
    """U over the number of pairs, ties and all."""
    generator = np.random.default_rng(0)
    positives = np.round(generator.normal(0.5, 1, 80), 1)
    negatives = np.round(generator.normal(0, 1, 50), 1)

    statistic = stats.mannwhitneyu(positives, negatives).statistic

    assert auc(positives, negatives) == pytest.approx(statistic / (80 * 50))


def test_clients_that_stand_and_fall_together_widen_the_interval() -> None:
    """Twenty scores of each client are one observation, not twenty."""
    generator = np.random.default_rng(2)
    shifts = generator.normal(0, 3, 25)
    positives = [shift + 0.5 + generator.normal(0, 0.1, 20) for shift in shifts]
    negatives = [-shift + generator.normal(0, 0.1, 20) for shift in shifts]

    by_client = auc_by_client(positives, negatives, seed=0)
    independent = auc_by_client(
        np.concatenate(positives)[:, None], np.concatenate(negatives)[:, None], seed=0
    )

    assert by_client.value == pytest.approx(independent.value)
    assert by_client.high - by_client.low > 2 * (independent.high - independent.low)
    assert by_client.count == 25


def test_a_bootstrapped_mean_has_about_its_normal_interval() -> None:
    """And is the same for the same seed."""
    values = np.random.default_rng(3).normal(5, 2, 200)

    found = mean(values, seed=0)

    reach = 1.96 * values.std() / np.sqrt(200)
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - reach, abs=0.1 * reach)
    assert found.high == pytest.approx(values.mean() + reach, abs=0.1 * reach)
    assert mean(values, seed=0) == found


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (3, 10), (10, 10), (47, 100)])
def test_clopper_and_pearson(successes: int, trials: int) -> None:
    """As scipy's binomial test has it; nothing of ten is at most 1 - 0.025^(1/10)."""
    found = proportion(successes, trials)

    exact = stats.binomtest(successes, trials).proportion_ci(method="exact")
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high))
    assert found.value == successes / trials
    assert proportion(0, 10).high == pytest.approx(1 - 0.025**0.1)


def test_an_estimate_says_what_it_is() -> None:
    """With its interval."""
    assert str(Estimate(value=0.5, low=0.25, high=0.75, count=9)) == "0.500 [0.250, 0.750]"


def test_what_statistics_refuse() -> None:
    """Empty sides, scores that are no numbers, shares above one, nobody to resample."""
    one, none = np.ones(1), np.ones(0)
    with pytest.raises(DataError, match="at least 1 each"):
        auc(one, none)
    with pytest.raises(DataError, match="finite"):
        auc(one, np.array([np.nan]))
    for successes, trials in ((3, 2), (-1, 2), (0, 0)):
        with pytest.raises(DataError, match="successes="):
            proportion(successes, trials)
    with pytest.raises(DataError, match="count=0"):
        bootstrap(lambda _: 0.0, count=0, seed=0)
