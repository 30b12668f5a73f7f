"""How uploads are cut into segments and opened sums into bands: by rank band and by group (also tests/rbla_secure/federation/test_groups.py)."""

from typing import Any

import numpy as np
import pytest

from protocols.session import ClientId, Session
from rbla_secure.config.choices import AcrossRule
from rbla_secure.federation.noise_shares import Integers
from rbla_secure.planning.plan import Plan
from tests.support.federations import LARGE, MEMBERS, SMALL, make_plan, make_session

# Five clients of one row and seven of three, so that groups of two or three differ in size.
WIDE = {"large": {"rank": 3, "clients": 7}, "small": {"rank": 1, "clients": 5}}
GROUPED: dict[str, Any] = {
    "tiers": WIDE,
    "secure_sum": "masking",
    "robustness": {"group_size": 2, "f": 1},
    "min_holders": 2,
}


def integers(plan: Plan, client: ClientId) -> Integers:
    """A client's vectors by band, all of them different."""
    held, start = plan.held_bands(client), 0
    found = {}
    for band in held:
        length = plan.band_length(band)
        found[band.index] = np.arange(start, start + length, dtype=np.int64) + 1
        start += length
    return found


def cut(plan: Plan, session: Session, client: ClientId) -> Integers:
    """The same by segment."""
    segmentation = plan.segmentation
    return segmentation.by_segment(
        session, client, segmentation.uploaded(session, client, integers(plan, client))
    )


@pytest.mark.parametrize("changes", [{}, {"upload": "padded"}, GROUPED])
def test_a_client_fills_its_segments_and_no_others(changes: dict[str, Any]) -> None:
    """One vector a segment of its own, as long as the segment, whatever the cut."""
    plan = make_plan(**changes)
    session = make_session(plan)

    for client in session.members:
        own = {segment.index: segment.length for segment in session.segments_of(client)}
        assert {index: len(values) for index, values in cut(plan, session, client).items()} == own


@pytest.mark.parametrize("changes", [{}, GROUPED])
def test_a_sum_is_cut_into_the_bands_it_was_joined_from(changes: dict[str, Any]) -> None:
    """What comes back from an opened segment is the sum of what its members joined, band by band."""
    plan = make_plan(**changes)
    session = make_session(plan)

    for segment in session.segments:
        summed = sum(cut(plan, session, client)[segment.index] for client in segment.members)
        back = plan.segmentation.by_band(session, segment.index, np.asarray(summed, dtype=np.int64))

        for index, values in back.items():
            expected = sum(integers(plan, client)[index] for client in segment.members)
            assert np.array_equal(values, expected)
        assert sum(map(len, back.values())) == segment.length


def test_what_is_not_held_is_uploaded_as_zeros_where_uploads_are_padded() -> None:
    """Ranks do not show: a client of one row sends all bands, and a band without a segment nobody sends."""
    padded = make_plan(upload="padded")

    found = cut(padded, make_session(padded), SMALL[0])

    assert list(found) == [0, 1]
    assert not found[1].any()
    assert found[1].dtype == np.int64
    assert list(cut(make_plan(), make_session(make_plan()), SMALL[0])) == [0]


def test_a_band_that_never_opens_has_no_segment_and_is_not_uploaded() -> None:
    """Three clients hold the highest rows where the filter needs four."""
    plan = make_plan(
        tiers={"large": {"rank": 3, "clients": 2}, "small": {"rank": 1, "clients": 4}},
        min_holders=2,
        robustness={"f": 1},
    )
    session = make_session(plan)

    assert [band.index for band in plan.segmentation.opening] == [0]
    assert len(plan.bands) == 2
    assert list(cut(plan, session, "large-01")) == [0]
    assert [band.index for band in plan.segmentation.bands_of("large-01")] == [0]


def test_who_is_present_counts_by_band_in_either_cut() -> None:
    """By band: all uploaders if the holders meet the quorum. By group: the smallest group that opens."""
    bands = make_plan(min_holders=3)
    assert bands.segmentation.present(make_session(bands), MEMBERS) == {0: 6, 1: 3}
    assert bands.segmentation.present(make_session(bands), MEMBERS[1:]) == {0: 5}

    groups = make_plan(**GROUPED)
    session = make_session(groups)
    pairs = [group for group in groups.segmentation.groups(session) if len(group.members) == 2]
    (gone, *_) = next(group.members for group in pairs if group.rank == 3)
    arrived = [client for client in session.members if client != gone]

    assert groups.segmentation.present(session, session.members) == {0: 2, 1: 2}
    # The group that lacks one stays closed, and shows nothing.
    assert groups.segmentation.present(session, arrived) == {0: 2, 1: min_open(groups, session, arrived)}


def min_open(plan: Plan, session: Session, arrived: list[ClientId]) -> int:
    """The fewest arrived members of an open group of the highest rank, counted without the code under test."""
    counts = [
        len([client for client in segment.members if client in arrived])
        for segment in session.segments
        if plan.ranks[segment.members[0]] == 3
    ]
    return min(count for count in counts if count >= plan.config.min_holders)


@pytest.mark.parametrize(
    ("changes", "absent", "fewest"),
    [
        ({}, 0, [6, 3]),
        ({}, 1, [5, 2]),
        ({}, 6, [2, 2]),
        ({"upload": "padded"}, 2, [4, 4]),
        (GROUPED, 0, [2, 2]),
    ],
)
def test_a_list_that_leaves_clients_out_leaves_fewer_in_a_band(
    changes: dict[str, Any], absent: int, fewest: list[int]
) -> None:
    """Never below the quorum; all members of a group may be the ones."""
    plan = make_plan(**{"min_holders": 2, **changes})

    assert [plan.segmentation.least_present(band, absent) for band in plan.bands] == fewest


@pytest.mark.parametrize(
    ("changes", "others", "spare"),
    [({}, [0, 0], [4, 1]), ({"upload": "padded"}, [0, 3], [4, 4]), (GROUPED, [0, 0], [0, 0])],
)
def test_who_may_be_missing_and_whose_noise_comes_along(
    changes: dict[str, Any], others: list[int], spare: list[int]
) -> None:
    """Of six and three holders two must be left; padded uploads of the others close nothing; a pair is complete or closed."""
    plan = make_plan(**{"min_holders": 2, **changes})
    session = make_session(plan)

    assert [plan.segmentation.noise_of_others(band.index) for band in plan.bands] == others
    assert [plan.segmentation.spare(session, band) for band in plan.bands] == spare


def test_a_closed_group_closes_no_band() -> None:
    """By band a refused segment is a refused band; by group other groups may hold it."""
    refused = {0: "masks did not cancel"}

    assert make_plan().segmentation.refused_bands(refused) == refused
    assert make_plan(**GROUPED).segmentation.refused_bands(refused) == {}


def test_only_groups_have_a_rule_across_and_votes_of_their_own() -> None:
    """Two groups of small clients and three of large ones, each with one vote."""
    bands, groups = make_plan(min_holders=2), make_plan(**GROUPED)

    assert bands.segmentation.rule_across is None
    assert groups.segmentation.rule_across is AcrossRule.COORDINATE_MEDIAN
    votes = groups.segmentation.votes(0.25)
    assert (list(votes.counts), votes.quorum, votes.least_weight) == ([5, 3], 3, 1.0)
    single = bands.segmentation.votes(0.25)
    assert (list(single.counts), single.quorum, single.least_weight) == ([6, 3], 2, 0.25)
    assert (bands.segmentation.most_segments, groups.segmentation.most_segments) == (2, 5)


def test_each_cut_has_its_words() -> None:
    """What reports and forecasts say of it."""
    bands, groups = make_plan().segmentation, make_plan(**GROUPED).segmentation

    assert (bands.part, bands.sums, bands.smallest_sums) == ("band", "band sums", [])
    assert (groups.part, groups.sums) == ("group", "sums of groups")
    assert "the smallest has 2 in rows 1-1, 2 in rows 2-3" in groups.smallest_sums[0]
    assert "at most a share of 0 of a band's clients drops out" in bands.expected_absence
    assert "nobody drops out of the smallest group" in groups.expected_absence
    assert bands.smallest_sum(make_session(make_plan()), make_plan().bands[1]) == LARGE
