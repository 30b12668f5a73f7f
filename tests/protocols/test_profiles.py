"""A profile's threshold is the smallest that its claim allows, and one that every session accepts."""

from fractions import Fraction

import pytest

from protocols.errors import SessionError, ThresholdError
from protocols.profiles import (
    CONSISTENCY,
    INSECURE_TEST_ONLY,
    ONE_ANSWER,
    PROFILES,
    SEMI_HONEST,
    Adversary,
    MaskingProfile,
    SurvivorCheck,
    by_name,
)
from tests.contracts.sessions import make_session

SIZES = range(1, 2001)


def make_profile(corrupt_share: Fraction, dropout_share: Fraction, bits: int = 40) -> MaskingProfile:
    """A profile with the shares that a test is about."""
    return MaskingProfile(
        name="a profile",
        source="a test",
        survivor_check=SurvivorCheck.REVEAL_QUORUM,
        corrupt_share=corrupt_share,
        dropout_share=dropout_share,
        security_bits=bits,
    )


@pytest.mark.parametrize(
    ("profile", "thresholds"),
    [
        (SEMI_HONEST, [2, 2, 3, 3, 6, 6, 26, 51, 501]),
        (ONE_ANSWER, [2, 2, 3, 3, 6, 7, 28, 56, 551]),
        (CONSISTENCY, [2, 3, 3, 4, 7, 8, 34, 67, 667]),
        (INSECURE_TEST_ONLY, [2, 2, 3, 3, 6, 6, 26, 51, 501]),
    ],
    ids=lambda value: value.name if isinstance(value, MaskingProfile) else None,
)
def test_thresholds_worked_out_by_hand(profile: MaskingProfile, thresholds: list[int]) -> None:
    """Known answers for 2, 3, 4, 5, 10, 11, 50, 100 and 1000 members."""
    assert [profile.threshold(n) for n in (2, 3, 4, 5, 10, 11, 50, 100, 1000)] == thresholds


def test_two_disjoint_halves_never_both_reach_the_semi_honest_threshold() -> None:
    """Twice the threshold is more than all members and one less would not be."""
    for n in SIZES:
        assert 2 * SEMI_HONEST.threshold(n) > n >= 2 * (SEMI_HONEST.threshold(n) - 1)


def test_one_answer_each_never_gives_both_secrets_of_a_peer() -> None:
    """Honest members answer once and corrupt ones twice: 2t is more than that, and one less would not be."""
    for n in SIZES:
        t, answers = ONE_ANSWER.threshold(n), n + n // 10

        assert 2 * t > answers >= 2 * (t - 1)


def test_the_signed_list_threshold_is_the_published_one() -> None:
    """It is the smallest above two thirds, and two lists cannot both be signed by t when fewer than n/3 sign twice."""
    for n in SIZES:
        t, most_corrupt = CONSISTENCY.threshold(n), -(-n // 3) - 1

        assert 3 * t > 2 * n >= 3 * (t - 1)
        assert 2 * t > n + most_corrupt


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
@pytest.mark.parametrize("members", [2, 3, 4, 5, 6, 7, 50])
def test_sessions_accept_the_threshold(profile: MaskingProfile, members: int) -> None:
    """A session can be built with the threshold of any profile, and the profile accepts it."""
    session = make_session(members, threshold=profile.threshold(members))

    profile.check_threshold(session.threshold, members=members)


@pytest.mark.parametrize("profile", [SEMI_HONEST, ONE_ANSWER, CONSISTENCY], ids=lambda profile: profile.name)
def test_the_expected_drop_outs_leave_enough(profile: MaskingProfile) -> None:
    """From 6 to 100 members the threshold is reached when as many drop out as the profile expects."""
    for n in range(6, 101):
        assert n - profile.dropped(n) >= profile.threshold(n)


@pytest.mark.parametrize("threshold", [0, 66, 101])
def test_a_threshold_outside_the_profile_is_refused(threshold: int) -> None:
    """A session may raise its profile's threshold up to all members but not lower it."""
    for allowed in (67, 100):
        CONSISTENCY.check_threshold(allowed, members=100)

    with pytest.raises(ThresholdError, match=rf"threshold={threshold} must lie in 67\.\.100"):
        CONSISTENCY.check_threshold(threshold, members=100)


@pytest.mark.parametrize(
    ("share", "members", "corrupt"),
    [("0.1", 9, 0), ("0.1", 10, 1), ("0.1", 99, 9), ("0.29", 100, 29), ("0.57", 100, 57), ("1/3", 3, 1)],
)
def test_shares_of_members_are_exact(share: str, members: int, corrupt: int) -> None:
    """The number is rounded down from the exact product: 100 times 0.29 or 0.57 is less than it should be in floats."""
    profile = make_profile(Fraction(share), Fraction(share))

    assert profile.corrupt(members) == profile.dropped(members) == corrupt


@pytest.mark.parametrize(
    ("corrupt", "dropout", "bits"),
    [("-0.1", "0", 40), ("1", "0", 40), ("0", "1", 40), ("0", "-1", 40), ("0", "0", 0)],
)
def test_impossible_shares_are_refused(corrupt: str, dropout: str, bits: int) -> None:
    """Shares lie in [0, 1), and no bits of security are no security."""
    with pytest.raises(ThresholdError, match="a profile"):
        make_profile(Fraction(corrupt), Fraction(dropout), bits)


def test_what_each_profile_claims() -> None:
    """Only profiles in which clients check the survivor list are claimed against a malicious server."""
    claims = {profile.name: (profile.survivor_check, profile.adversary) for profile in PROFILES}

    assert claims == {
        "semi-honest": (SurvivorCheck.TRUST_SERVER, Adversary.SEMI_HONEST),
        "one-answer": (SurvivorCheck.REVEAL_QUORUM, Adversary.MALICIOUS),
        "consistency": (SurvivorCheck.SIGNED_LIST, Adversary.MALICIOUS),
        "insecure-test-only": (SurvivorCheck.TRUST_SERVER, Adversary.SEMI_HONEST),
    }


def test_profiles_name_their_source() -> None:
    """Every secure profile cites the paper of its rule and keeps 40 bits; the insecure one says that it has none."""
    for profile in (SEMI_HONEST, ONE_ANSWER, CONSISTENCY):
        assert "et al. 20" in profile.source
        assert (profile.security_bits, profile.correctness_bits) == (40, 20)
    assert INSECURE_TEST_ONLY.source.startswith("none")


def test_profiles_are_found_by_name() -> None:
    """The look-up returns the profile itself and names the choices when there is none."""
    assert all(by_name(profile.name) is profile for profile in PROFILES)

    with pytest.raises(SessionError, match="'paranoid' must be one of semi-honest, one-answer, consistency"):
        by_name("paranoid")
