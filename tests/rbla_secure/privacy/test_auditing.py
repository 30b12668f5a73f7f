"""The audit of the whole pipeline: it accepts what we ship and rejects each planted fault."""

import numpy as np
import pytest

from rbla_secure.errors import PrivacyError
from rbla_secure.privacy.accounting import epsilon
from rbla_secure.privacy.auditing import LEAST_SCORES, Audit, Bounds, audit, lower_bounds
from rbla_secure.privacy.noise import Release
from tests.support.audited import Fault, plan_of, scores

RUNS = 3000  # with the canary, and as many without it


def claim(upload: str = "banded") -> Release:
    """What the plan says that one of these rounds spends, if everybody is there and nobody colludes."""
    plan = plan_of(RUNS, upload)
    assert plan.mechanism is not None
    uploaders = {index: shares.uploaders for index, shares in enumerate(plan.mechanism.bands)}
    return plan.mechanism.event(uploaders)


def attack(fault: Fault, upload: str = "banded", *, weighted: bool = False) -> Audit:
    plan = plan_of(RUNS, upload, weighted=weighted)
    return audit(
        scores(plan, RUNS, canary=True, fault=fault, seed=1),
        scores(plan, RUNS, canary=False, fault=fault, seed=2),
    )


@pytest.mark.parametrize(("upload", "weighted"), [("banded", False), ("padded", False), ("banded", True)])
def test_the_pipeline_keeps_its_claim_and_the_claim_is_tight(upload: str, weighted: bool) -> None:  # noqa: FBT001
    """The audit does not refute the claim, and comes within four tenths of it (a confident bound of a difference that is really within a twentieth)."""
    result = attack(Fault.NONE, upload, weighted=weighted)

    result.check(claim(upload))
    assert result.mu > 0.6 / claim(upload).noise_multiplier
    assert 0 < result.epsilon(1e-5) < epsilon([claim(upload)], 1e-5)


@pytest.mark.parametrize("fault", [fault for fault in Fault if fault is not Fault.NONE])
def test_a_planted_fault_is_refuted(fault: Fault) -> None:
    """Each way to get it wrong shows more than the claim."""
    result = attack(fault, weighted=fault is Fault.CLIPPED_FIRST)

    with pytest.raises(PrivacyError, match="the audit shows mu >="):
        result.check(claim())


def test_the_bound_holds_of_gaussians_that_are_exactly_so_far_apart() -> None:
    """Over fifty audits of known Gaussians, a bound of 95 % fails in no more than seven, and is not empty."""
    generator = np.random.default_rng(0)
    results = [
        audit(generator.normal(1.0, 1, 1500), generator.normal(0, 1, 1500), confidence=0.95)
        for _ in range(50)
    ]

    assert sum(result.mu > 1.0 for result in results) <= 7
    assert np.mean([result.mu for result in results]) > 0.8


def test_equal_scores_show_nothing() -> None:
    """Where the canary makes no difference, epsilon is bounded by nothing."""
    generator = np.random.default_rng(1)

    result = audit(generator.normal(0, 1, 2000), generator.normal(0, 1, 2000))

    assert result.mu <= 0
    assert result.epsilon(1e-5) == 0


def test_too_few_runs_are_refused() -> None:
    """A handful of scores chooses no threshold."""
    with pytest.raises(PrivacyError, match="runs must be at least 388 each"):
        audit(np.zeros(100), np.zeros(400))


DELTA = 1e-5


def bounds_of(with_canary: np.ndarray, without: np.ndarray, confidence: float = 0.95) -> Bounds:
    return lower_bounds(with_canary, without, delta=DELTA, confidence=confidence)


def test_both_bounds_hold_of_known_mechanisms() -> None:
    """Over a hundred audits of mechanisms whose epsilon is known, a bound of 95 % fails in no more than eleven."""
    generator = np.random.default_rng(2)
    gaussian = epsilon([Release(noise_multiplier=1.0, slack=0.0, rho=0.0)], DELTA)
    # Randomised response tells the truth with probability e^2 / (1 + e^2): epsilon 2, at any delta.
    truth = np.exp(2) / (1 + np.exp(2))
    of_gaussian, of_response = [], []
    for _ in range(100):
        of_gaussian.append(bounds_of(generator.normal(1, 1, 800), generator.normal(0, 1, 800)))
        answers = generator.random((2, 800)) < truth
        of_response.append(bounds_of(answers[0].astype(float), 1 - answers[1].astype(float)))

    assert sum(max(each.clopper_pearson, each.gaussian) > gaussian for each in of_gaussian) <= 11
    assert sum(each.clopper_pearson > 2.0 for each in of_response) <= 11
    assert np.mean([each.gaussian for each in of_gaussian]) > 0.5 * gaussian
    assert np.mean([each.clopper_pearson for each in of_response]) > 1.5


@pytest.mark.parametrize("sides", [(1, 0), (0, 1)])
def test_the_bound_by_error_rates_sees_either_side(sides: tuple[int, int]) -> None:
    """A rare score that only one side has is found, whichever it is: with the canary, or without it."""
    generator = np.random.default_rng(3)
    found = []
    for rare in sides:
        scores_of = np.where(generator.random(4000) < 0.3 * rare, 9.0, 0.0)
        found.append(scores_of)
    there, absent = found if sides[0] else (-found[0], -found[1])

    assert bounds_of(there, absent).clopper_pearson > 3


def test_endless_scores_are_scores_and_no_numbers_are_none() -> None:
    """What only one side can show is infinitely far, and bounds no more than so many trials can; NaN is an error."""
    apart = bounds_of(np.full(400, np.inf), np.full(400, -np.inf))
    # No error in 300 trials: each of six limits may be wrong with a sixth of 5 %.
    limit = 1 - (0.05 / 6) ** (1 / 300)
    assert apart.clopper_pearson == pytest.approx(np.log((1 - DELTA - limit) / limit), rel=1e-9)
    with pytest.raises(PrivacyError, match="a score of a run is not a number"):
        bounds_of(np.full(400, np.nan), np.zeros(400))


def test_too_few_scores_bound_nothing() -> None:
    with pytest.raises(PrivacyError, match=f"runs must be at least {LEAST_SCORES} each"):
        bounds_of(np.zeros(LEAST_SCORES - 1), np.zeros(1000))


def test_equal_laws_have_bounds_of_zero() -> None:
    generator = np.random.default_rng(4)

    found = bounds_of(generator.normal(0, 1, 3000), generator.normal(0, 1, 3000))

    assert found == Bounds(clopper_pearson=0.0, gaussian=0.0)
