"""Where a filter leaves holders out, the honest are the majority of those it keeps, whoever it leaves out.

The attackers sit closer to the honest mean than any honest client does, and share a direction of their own: every rule that looks for
outliers keeps all of them and rejects honest clients instead.
"""

from itertools import product
from typing import Any

import numpy as np
import pytest

from rbla_secure.config import RobustnessConfig
from rbla_secure.config.choices import FilterName, PreStepName
from rbla_secure.robustness import selection
from rbla_secure.robustness.filter import FilterOptions
from rbla_secure.robustness.pre_steps import neighbor_mixing
from rbla_secure.robustness.quorum import band_quorum, quorum_before_selection
from rbla_secure.robustness.registry import build, least_holders
from rbla_secure.robustness.updates import BandUpdates, Updates
from rbla_secure.robustness.verdicts import Filtered
from tests.support.filtered import names

WIDTH = 500
BACKDOOR = 0.3
SELECTING = (
    FilterName.MULTI_KRUM,
    FilterName.DIVIDE_AND_CONQUER,
    FilterName.COSINE_TO_PREVIOUS,
    FilterName.TIER_DNC_COSINE,
)
ALONE = RobustnessConfig(bound=2.0, radius=2.0, bucket_size=1)
COMBINATIONS = list(product(FilterName, PreStepName))


def hidden(holders: int, attackers: int, seed: int) -> tuple[Updates, dict[int, Any], np.ndarray]:
    """One band of one tier, the last of whose holders attack; the step before it, and the attackers' direction, of length one."""
    generator = np.random.default_rng(seed)
    honest = 0.05 * generator.standard_normal((holders - attackers, WIDTH))
    honest += 0.02 * generator.standard_normal(WIDTH)
    middle = honest.mean(axis=0)
    direction = generator.standard_normal(WIDTH)
    direction /= np.linalg.norm(direction)
    values = np.concatenate([honest, np.tile(middle + BACKDOOR * direction, (attackers, 1))])
    updates = Updates(
        clients=names(holders),
        ranks=np.full(holders, 4),
        weights=np.ones(holders),
        bands={0: BandUpdates(holders=np.arange(holders), values=values)},
    )
    return updates, {0: middle}, direction


def applied(
    name: FilterName, step: PreStepName, f: int, holders: int, *, seed: int, pair: int = 2
) -> tuple[Filtered, float]:
    """What the filter makes of it, and how much of the attackers' direction is in the average: 1 is all, f / n an even share."""
    updates, previous, direction = hidden(holders, f, seed)
    options = FilterOptions(
        settings=RobustnessConfig(bound=2.0, radius=2.0, bucket_size=pair), reference=previous
    )
    least = 1 if name is FilterName.KRUM else 3
    found = build(name, f=f, privacy_quorum=least, pre_step=step, options=options).apply(
        updates, previous=previous, seed=seed
    )
    if 0 not in found.totals:
        return found, 0.0
    average = found.totals[0].weighted_sum / found.totals[0].weight
    return found, float((average - previous[0]) @ direction) / BACKDOOR


@pytest.mark.parametrize("f", [1, 2, 3])
@pytest.mark.parametrize(
    ("name", "step"),
    [
        *((name, PreStepName.NONE) for name in SELECTING),
        *((name, PreStepName.NEIGHBOR_MIXING) for name in (*SELECTING, FilterName.TRIMMED_MEAN)),
    ],
)
def test_below_three_f_and_one_the_band_stays_closed_and_from_there_the_honest_have_the_majority(
    name: FilterName, step: PreStepName, f: int
) -> None:
    least = least_holders(name, f=f, privacy_quorum=3, pre_step=step)
    assert least >= 3 * f + 1

    for holders in (2 * f + 1, least - 1):
        found, _ = applied(name, step, f, holders, seed=1)
        assert set(found.closed) == {0}
    shares = []
    for seed in range(20):
        found, share = applied(name, step, f, least, seed=seed)
        shares.append(share)
        kept = [verdict.accepted for verdict in found.verdicts.values()]
        assert set(found.totals) == {0}
        assert sum(kept[-f:]) * 2 < sum(kept)
    # f / (2f + 1) at the most, and what honest clients have along the direction by chance.
    assert np.mean(shares) < 0.5


@pytest.mark.parametrize(
    ("name", "step"),
    [
        (FilterName.TIER_DNC_COSINE, PreStepName.NONE),
        (FilterName.DIVIDE_AND_CONQUER, PreStepName.NONE),
        (FilterName.COSINE_TO_PREVIOUS, PreStepName.NONE),
        (FilterName.TRIMMED_MEAN, PreStepName.NEIGHBOR_MIXING),
    ],
)
def test_with_two_f_and_one_the_attackers_have_two_thirds(
    name: FilterName, step: PreStepName, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: a filter that opens the band over the quorum of the others averages what attackers send."""
    monkeypatch.setattr(selection, "quorum_before_selection", band_quorum)
    monkeypatch.setattr(neighbor_mixing, "quorum_before_selection", band_quorum)

    shares = [applied(name, step, 2, 5, seed=seed)[1] for seed in range(20)]

    assert np.mean(shares) > 0.6


def test_behind_bucketing_a_selection_needs_as_many_buckets() -> None:
    """Six buckets of two hold two attackers' two at the most; seven are asked for."""
    for holders, opens in ((12, False), (14, True)):
        found, share = applied(FilterName.TIER_DNC_COSINE, PreStepName.BUCKETING, 2, holders, seed=3)
        assert bool(found.totals) == opens
        assert share < 0.5


@pytest.mark.parametrize(("name", "step"), COMBINATIONS)
@pytest.mark.parametrize("f", [0, 1, 2])
def test_what_is_asked_before_a_run_is_what_the_filter_asks_in_it(
    name: FilterName, step: PreStepName, f: int
) -> None:
    """One number for the plan and for the filter, and bands open with exactly it; behind buckets of one as well."""
    least = least_holders(name, f=f, privacy_quorum=1, pre_step=step)
    options = FilterOptions(settings=ALONE, reference={0: np.ones(WIDTH)})
    built = build(name, f=f, privacy_quorum=1, pre_step=step, options=options)
    assert built.quorum == least

    for holders in (least - 1, least):
        if holders > f:
            updates, previous, _ = hidden(holders, 0, 5)
            along = FilterOptions(settings=ALONE, reference=previous)
            found = build(name, f=f, privacy_quorum=1, pre_step=step, options=along).apply(
                updates, previous=previous, seed=1
            )
            assert bool(found.totals) == (holders == least), found.closed


def test_where_nothing_opens_nobody_counts() -> None:
    """A client that is not judged in a round without an open band is not told that it was kept."""
    found, _ = applied(FilterName.TIER_DNC_COSINE, PreStepName.NONE, 2, 5, seed=1)

    assert not any(verdict.accepted for verdict in found.verdicts.values())
    assert all("nothing is averaged" in verdict.reason for verdict in found.verdicts.values())


def test_trust_in_fewer_than_a_majority_opens_nothing() -> None:
    """A reference along which attackers alone point: two of five trusted, where three would be a majority of honest ones."""
    updates, _, direction = hidden(5, 2, 1)
    values = updates.bands[0].values.copy()
    values[:3] -= direction * (values[:3] @ direction + 0.1)[:, None]
    bands = {0: BandUpdates(holders=np.arange(5), values=values)}
    turned = Updates(clients=updates.clients, ranks=updates.ranks, weights=updates.weights, bands=bands)
    options = FilterOptions(reference={0: direction})

    found = build(FilterName.FL_TRUST, f=2, privacy_quorum=1, options=options).apply(
        turned, previous=None, seed=1
    )

    assert found.closed == {0: "2 trusted holders, 5 needed against f=2"}


@pytest.mark.parametrize(
    ("f", "privacy", "needed"), [(0, 1, 1), (0, 3, 3), (1, 3, 4), (2, 3, 7), (2, 10, 12)]
)
def test_a_selection_leaves_a_whole_quorum(f: int, privacy: int, needed: int) -> None:
    assert quorum_before_selection(f, privacy) == needed
    assert needed - f == band_quorum(f, privacy)
