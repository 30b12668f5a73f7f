"""A profile's threshold is one that every session accepts."""

import pytest

from protocols.profiles import SEMI_HONEST, MaskingProfile
from tests.contracts.sessions import make_session


@pytest.mark.parametrize(
    ("members", "threshold"),
    [(2, 2), (3, 2), (4, 3), (5, 3), (10, 6), (11, 6), (99, 50), (100, 51), (1000, 501)],
)
def test_the_semi_honest_threshold_is_just_above_half(members: int, threshold: int) -> None:
    """The smallest whole number above half of the members."""
    assert SEMI_HONEST.threshold(members) == threshold


def test_two_disjoint_halves_never_both_reach_the_threshold() -> None:
    """Twice the threshold is more than all members and one less would not be, for every size up to 2000."""
    for members in range(2, 2001):
        threshold = SEMI_HONEST.threshold(members)

        assert 2 * threshold > members >= 2 * (threshold - 1)


@pytest.mark.parametrize("members", [2, 3, 4, 5, 6, 7, 50])
def test_sessions_accept_the_threshold(members: int) -> None:
    """A session can be built with the threshold of the profile."""
    session = make_session(members, threshold=SEMI_HONEST.threshold(members))

    assert session.threshold == SEMI_HONEST.threshold(members)


@pytest.mark.parametrize(
    ("numerator", "denominator", "members", "threshold"),
    [(2, 3, 9, 7), (2, 3, 10, 7), (2, 3, 11, 8), (1, 3, 9, 4)],
)
def test_a_threshold_is_the_floor_of_the_share_plus_one(
    numerator: int, denominator: int, members: int, threshold: int
) -> None:
    """The threshold is floor(n * numerator / denominator) + 1."""
    profile = MaskingProfile(name="a profile", source="a test", numerator=numerator, denominator=denominator)

    assert profile.threshold(members) == threshold


def test_a_profile_names_its_source() -> None:
    """A profile says what it is called and where its rule comes from."""
    assert SEMI_HONEST.name == "semi-honest"
    assert "Bonawitz et al. 2017" in SEMI_HONEST.source
