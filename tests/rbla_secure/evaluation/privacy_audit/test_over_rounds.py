"""What an audit's observer makes of several rounds, against algebra of the tests' own."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import special, stats

from rbla_secure.config import load_config
from rbla_secure.evaluation.privacy_audit.over_rounds import course_cases, turns_and_more
from rbla_secure.evaluation.privacy_audit.small_federation import SmallFederation
from rbla_secure.evaluation.privacy_audit.views import pattern
from rbla_secure.evaluation.privacy_audit.views_over_rounds import (
    drawn_score,
    measured_precisions,
    measured_score,
    published,
    released_score,
    server_noise,
)
from rbla_secure.privacy.accounting import epsilon
from rbla_secure.privacy.noise import Release
from tests.rbla_secure.evaluation.privacy_audit.test_suite import (
    CENTRAL,
    DRAWN_CLIENTS,
    READERS,
    as_sets,
    written,
)

Values = npt.NDArray[np.float64]
ROUNDS = 9
MATRIX = {
    **CENTRAL,
    "privacy.mechanism": "banded-matrix",
    "privacy.separation": 3,
    "tiers.large.cohort": 2,
    "min-holders": 1,
    "rounds": ROUNDS,
}


def federation(folder: Path, settings: dict[str, Any], *, large: int, small: int = 0) -> SmallFederation:
    path = written(folder, settings, large=large, small=small)
    return SmallFederation(load_config(path, as_sets(settings)))


def combining(column: tuple[int, ...], rounds: int, *, ended: int | None = None) -> Values:
    """Shape (rounds, rounds): from what is published to what was released; a round that ends parts those before from those after."""
    found = sum(entry * np.eye(rounds, k=-back) for back, entry in enumerate(column))
    if ended is not None:
        found[ended:, :ended] = 0.0
        found[ended - 1] = found[:, ended - 1] = 0.0
    return np.asarray(found)


@pytest.mark.parametrize("place", [0, -1], ids=["all rounds", "one of which ends"])
def test_the_correlation_that_is_claimed_is_taken_off(place: int, tmp_path: Path) -> None:
    """The score weighs rounds by the inverse covariance times the turns of the canary, which is the best test of it."""
    small = federation(tmp_path, MATRIX, large=6)
    course = course_cases(small)[0][place]._course
    ended = min(course.ended, default=None)
    played = small.play_rounds(course.side(()), course.rounds)
    plan, canary = small.plan, next(iter(course.pair.canaries))
    (own,) = pattern(plan, server_noise(plan), course.pair, canary).values()

    weights = [
        released_score(
            plan, course.pair, played, [{0: own * float(at == now)} for at in range(ROUNDS)], canary=canary
        )
        / float(np.dot(own, own))
        for now in range(ROUNDS)
    ]

    matrix = combining(server_noise(plan).column, ROUNDS, ended=ended)
    turns = np.array([float(canary in each.session.members) for each in played])
    assert turns.tolist() == [1, 0, 0] * 3
    assert weights == pytest.approx((matrix.T @ matrix @ turns).tolist())


def test_the_correlation_that_is_there_is_measured(tmp_path: Path) -> None:
    """The noise of rounds that were really played has the covariance that the matrix says, and the score is in its deviations."""
    small = federation(tmp_path, MATRIX, large=6)
    course = course_cases(small)[0][-2]._course
    assert course.measured
    plan, canary = small.plan, next(iter(course.pair.canaries))
    mechanism = server_noise(plan)

    (precision,) = measured_precisions(
        plan, [small.play_rounds(course.side(()), ROUNDS) for _ in range(40)]
    ).values()

    matrix = combining(mechanism.column, ROUNDS)
    expected = matrix.T @ matrix / mechanism.component_stds(0)[0] ** 2
    assert np.abs(precision - expected).max() < 0.25 * expected.max()
    score = [
        measured_score(
            plan, course.pair, played, published(plan, played), canary=canary, precisions={0: expected}
        )
        for played in (small.play_rounds(course.side(()), ROUNDS) for _ in range(40))
    ]
    assert stats.kstest(score, "norm").pvalue > 1e-6
    assert stats.kstest(np.array(score) * 8, "norm").pvalue < 1e-2


def test_draws_are_weighed_by_the_ratio_of_a_mixture(tmp_path: Path) -> None:
    """Round by round, the densities of the whole vector with and without the canary's change; what others sent is known."""
    small = federation(tmp_path, {**DRAWN_CLIENTS, "privacy.sample-rate": 0.5}, large=6)
    course = course_cases(small)[0][2]._course
    plan, canary = small.plan, next(iter(course.pair.canaries))
    mechanism, rate = server_noise(plan), plan.config.privacy.sample_rate
    played = small.play_rounds(course.side(()), course.rounds)
    own, std = pattern(plan, mechanism, course.pair, canary)[0], mechanism.variance() ** 0.5
    drawn = np.random.default_rng(1).normal(0, std, (course.rounds, len(own))) + own * np.array(
        [[1], [0], [2]]
    )

    expected = 0.0
    for values in drawn:
        there, absent = (stats.norm.logpdf(values, mean, std).sum() for mean in (own, 0.0))
        expected += special.logsumexp([there, absent], b=[rate, 1 - rate]) - absent

    others = [
        sum((upload[0] for upload in each.uploads.values()), np.zeros(len(own), dtype=np.int64))
        for each in played
    ]
    assert any(each.any() for each in others)
    sums = [{0: values + known} for values, known in zip(drawn, others, strict=True)]
    found = drawn_score(plan, course.pair, played, sums, canary=canary)
    assert found == pytest.approx(expected)


def test_claims_are_those_of_all_rounds(tmp_path: Path) -> None:
    """Three turns of a client, whatever else a round does; so many sampled rounds, which are no Gaussian mechanism."""

    def spent(multiplier: float, count: int, **more: Any) -> float:
        one = Release(noise_multiplier=multiplier, slack=0.0, rho=math.nan, **more)
        return epsilon([one] * count, 1e-5)

    for case in course_cases(federation(tmp_path, MATRIX, large=6))[0]:
        assert case.gaussian
        assert case.claims == pytest.approx(dict.fromkeys(READERS, spent(1.0, 3)), rel=1e-6)
    settings = {**DRAWN_CLIENTS, "privacy.delta": 1e-5}
    for case in course_cases(federation(tmp_path, settings, large=2))[0]:
        rounds = 1 if case.name.endswith("1 round") else 3
        assert not case.gaussian
        assert case.claims == pytest.approx(
            dict.fromkeys(READERS, spent(0.7, rounds, sample_rate=0.02)), rel=1e-6
        )


@pytest.mark.parametrize(
    ("large", "cohort", "separation", "rounds", "expected"),
    [(6, 2, 3, 100, 9), (6, 2, 3, 5, 5), (12, 2, 3, 100, 15), (60, 2, 30, 100, 30), (24, 2, 12, 100, 36)],
)
def test_so_many_rounds_have_the_turns_of_a_client(  # noqa: PLR0917  # the cases of a table
    large: int, cohort: int, separation: int, rounds: int, expected: int, tmp_path: Path
) -> None:
    """Three turns and the whole column after the last of them, or fewer where that would be more than a trial has time for."""
    changes = {"tiers.large.cohort": cohort, "privacy.separation": separation, "rounds": rounds}
    small = federation(tmp_path, {**MATRIX, **changes}, large=large)
    assert turns_and_more(small.plan) == expected


def test_all_canaries_of_a_case_have_the_same_turns(tmp_path: Path) -> None:
    """A tier whose cohort does not divide it gives clients turns of other numbers; those with most of them are the canaries."""
    changes = {"tiers.large.cohort": 4, "rounds": 8}
    small = federation(tmp_path, {**MATRIX, **changes}, large=13)

    for case in course_cases(small)[0]:
        course = case._course
        turns = {
            canary: [number for number in range(1, course.rounds + 1) if canary in small.plan.cohort(number)]
            for canary in course.pair.canaries
        }
        everybody = [
            sum(client in small.plan.cohort(number) for number in range(1, course.rounds + 1))
            for client in small.session.members
        ]
        assert len({tuple(each) for each in turns.values()}) == 1
        assert len(next(iter(turns.values()))) == max(everybody)
