"""The audit of the whole pipeline: it accepts what we ship and rejects each planted fault."""

import numpy as np
import pytest

from rbla_secure.errors import PrivacyError
from rbla_secure.privacy.accounting import epsilon
from rbla_secure.privacy.auditing import Audit, audit
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
