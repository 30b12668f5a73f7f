"""Rank bands cut the rows where ranks differ, and a packed update fills every band its client holds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbla_secure.lora.bands import held_bands, pack, rank_bands
from rbla_secure.lora.update import ClientUpdate
from tests.support.properties import PROPERTY
from tests.support.updates import bounded

RANKS = st.lists(st.integers(1, 20), min_size=1, max_size=8)


@PROPERTY
@given(ranks=RANKS)
def test_bands_cover_the_rows_once(ranks: list[int]) -> None:
    """Every row up to the largest rank lies in exactly one band, and the bands are numbered in order."""
    bands = rank_bands(ranks)

    covered = [row for band in bands for row in range(band.start, band.stop)]

    assert covered == list(range(max(ranks)))
    assert [band.index for band in bands] == list(range(len(set(ranks))))
    assert all(band.height == band.stop - band.start > 0 for band in bands)


@PROPERTY
@given(ranks=RANKS)
def test_all_rows_of_a_band_have_the_same_holders(ranks: list[int]) -> None:
    """Who holds the first row of a band holds its last one, and neighbouring bands differ in their holders."""
    bands = rank_bands(ranks)

    holders = {row: [k for k, rank in enumerate(ranks) if rank > row] for row in range(max(ranks))}

    for band in bands:
        assert all(holders[row] == holders[band.start] for row in range(band.start, band.stop))
    for upper in bands[1:]:
        assert holders[upper.start] != holders[upper.start - 1]


@PROPERTY
@given(ranks=RANKS)
def test_a_client_holds_whole_bands_up_to_its_rank(ranks: list[int]) -> None:
    """The bands a client holds are exactly its rows."""
    bands = rank_bands(ranks)

    for rank in ranks:
        held = held_bands(bands, rank)
        assert [row for band in held for row in range(band.start, band.stop)] == list(range(rank))


@pytest.mark.parametrize(
    ("rank", "held"), [(1, []), (2, [0]), (3, [0]), (4, [0, 1]), (7, [0, 1]), (9, [0, 1, 2])]
)
def test_a_band_is_held_whole_or_not_at_all(rank: int, held: list[int]) -> None:
    """A rank between two edges holds the bands below it and nothing of the one it ends in."""
    bands = rank_bands([2, 4, 8])

    found = held_bands(bands, rank)

    assert [band.index for band in found] == held


def test_a_band_is_named_by_its_rows_counted_from_one() -> None:
    """Reports speak of rows 1-2, 3-4, 5-8."""
    bands = rank_bands([8, 2, 4, 2])

    assert [str(band) for band in bands] == ["rows 1-2", "rows 3-4", "rows 5-8"]


@PROPERTY
@given(ranks=RANKS, weight=st.floats(0, 1), seed=st.integers(0, 1000))
def test_packing_weights_every_row_and_loses_none(ranks: list[int], weight: float, seed: int) -> None:
    """The bands of a packed update, one after the other, are its rows times its weight."""
    rank = ranks[0]
    rows = np.random.default_rng(seed).standard_normal((rank, 5))

    packed = pack(bounded(rows, weight=weight), rank_bands(ranks))

    assert sorted(packed.bands) == list(range(sum(edge <= rank for edge in set(ranks))))
    flat = np.concatenate([packed.bands[index] for index in sorted(packed.bands)])
    assert flat.tolist() == [weight * value for value in rows.ravel().tolist()]
    assert packed.weight == weight
    assert packed.norm_bound == pytest.approx(weight * (1 + np.linalg.norm(rows)))


def test_the_packed_length_is_within_its_bound() -> None:
    """The bound that a packed update carries holds for all of its bands together."""
    rows = np.random.default_rng(1).standard_normal((4, 7))

    packed = pack(bounded(rows, weight=0.3), rank_bands([2, 4]))

    squares = sum(float(values @ values) for values in packed.bands.values())
    assert squares**0.5 <= packed.norm_bound


def test_an_unclipped_update_cannot_be_packed() -> None:
    """A client update has no bound to hand on, so leaving out the clip fails at once."""
    update = ClientUpdate(rows=np.ones((2, 3)), weight=1.0)

    with pytest.raises(AttributeError, match="clip_norm"):
        pack(update, rank_bands([2]))  # type: ignore[arg-type]
