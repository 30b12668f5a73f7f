"""One quorum against capture and against exposure."""

import pytest

from rbla_secure.errors import RobustnessError
from rbla_secure.lora.bands import rank_bands
from rbla_secure.robustness.quorum import band_quorum, closed_bands


@pytest.mark.parametrize(
    ("f", "privacy", "expected"), [(0, 1, 1), (0, 3, 3), (1, 3, 3), (2, 3, 5), (8, 3, 17), (1, 10, 10)]
)
def test_the_larger_of_both_counts(f: int, privacy: int, expected: int) -> None:
    assert band_quorum(f, privacy) == expected


@pytest.mark.parametrize(("f", "privacy"), [(-1, 3), (0, 0)])
def test_numbers_without_meaning_are_refused(f: int, privacy: int) -> None:
    with pytest.raises(RobustnessError):
        band_quorum(f, privacy)


def test_bands_that_can_never_open_are_named_with_the_numbers() -> None:
    ranks = [2] * 5 + [4] * 3 + [8] * 2
    bands = rank_bands(ranks)

    assert closed_bands(bands, ranks, f=0, privacy_quorum=1) == ()
    assert closed_bands(bands, ranks, f=0, privacy_quorum=3) == ("rows 5-8: 2 holders, 3 needed",)
    assert closed_bands(bands, ranks, f=3, privacy_quorum=3) == (
        "rows 3-4: 5 holders, 7 needed",
        "rows 5-8: 2 holders, 7 needed",
    )
