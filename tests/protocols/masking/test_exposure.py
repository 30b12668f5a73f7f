"""How many corrupt members the share graphs stand: what threat_model.md says of sparse graphs, derived and measured."""

import itertools
from math import comb

import numpy as np
import pytest

from protocols.errors import ThresholdError
from protocols.masking.graph import graph_seed, neighbours
from protocols.masking.parameters import GraphParameters, expected_exposed, share_graph_parameters
from protocols.profiles import CONSISTENCY, PROFILES, SEMI_HONEST, MaskingProfile

# Members: degree and threshold of the semi-honest profile; the most corrupt members with whom anybody is exposed with a
# probability of at most 2^-40 and 2^-20; the fewest with whom one is expected to be; how many a quarter, a third and a
# half of all members expose on average.
TABLE = {
    101: (22, 11, 10, 11, 29, (0.28, 3.4, 30.4)),
    150: (28, 16, 15, 23, 54, (0.005, 0.31, 20.9)),
    200: (34, 19, 21, 33, 72, (0.003, 0.32, 29.7)),
    500: (42, 24, 53, 90, 181, (0.001, 0.23, 53.5)),
    1000: (48, 27, 107, 181, 349, (0.002, 0.39, 116.0)),
    5000: (52, 30, 548, 918, 1683, (0.002, 0.68, 412.4)),
}


def most_with(members: int, graph: GraphParameters, bound: float) -> int:
    """The most corrupt members with whom fewer than so many honest ones are exposed on average."""
    return next(c for c in range(1, members) if expected_exposed(members, c, graph) >= bound) - 1


@pytest.mark.parametrize("members", TABLE)
def test_the_table_of_the_threat_model(members: int) -> None:
    """Degrees, thresholds, and what shares of corrupt members do to them are those that are published."""
    degree, threshold, safe, likely, first, exposed = TABLE[members]
    graph = share_graph_parameters(members, SEMI_HONEST)

    assert (graph.degree, graph.threshold) == (degree, threshold)
    assert most_with(members, graph, 2.0**-40) == safe
    assert most_with(members, graph, 2.0**-20) == likely
    assert most_with(members, graph, 1.0) + 1 == first
    shares = [expected_exposed(members, int(share * members), graph) for share in (0.25, 0.33, 0.5)]
    assert shares == pytest.approx(exposed, rel=0.06, abs=0.0006)


@pytest.mark.parametrize("members", TABLE)
@pytest.mark.parametrize("profile", [SEMI_HONEST, CONSISTENCY], ids=lambda profile: profile.name)
def test_a_sparse_graph_keeps_what_its_profile_promises(profile: MaskingProfile, members: int) -> None:
    """With the corrupt share of the profile nobody is exposed but with a probability below 2^-security_bits."""
    graph = share_graph_parameters(members, profile)

    assert expected_exposed(members, profile.corrupt(members), graph) < 2.0**-profile.security_bits


@pytest.mark.parametrize("members", TABLE)
def test_a_sparse_graph_does_not_stand_half_of_its_members(members: int) -> None:
    """Fewer than t > n/2 corrupt members, which a complete graph stands, read honest ones where graphs are sparse."""
    graph = share_graph_parameters(members, SEMI_HONEST)

    assert expected_exposed(members, members // 2, graph) > 20


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
@pytest.mark.parametrize("members", [3, 10, 99, 100])
def test_a_complete_graph_stands_one_less_than_its_threshold(profile: MaskingProfile, members: int) -> None:
    """Up to a hundred members t - 1 corrupt ones expose nobody, and t expose everybody."""
    graph = share_graph_parameters(members, profile)

    assert expected_exposed(members, graph.threshold - 1, graph) == 0
    assert expected_exposed(members, graph.threshold, graph) == members - graph.threshold


def test_a_hundred_of_two_hundred_read_thirty_in_real_graphs() -> None:
    """Counted in 60 graphs as sessions derive them, a random hundred of 200 members holds t shares of about 30 others.

    Counted with the profile's tenth as well: nobody.
    """
    members, graph = 200, share_graph_parameters(200, SEMI_HONEST)
    generator = np.random.default_rng(7)
    counted = {100: [0] * 60, 20: [0] * 60}
    for number in range(60):
        nonces = {position: generator.bytes(16) for position in range(1, members + 1)}
        shares = neighbours(list(nonces), graph.degree, graph_seed(bytes(32), nonces, "share graph"))
        for corrupt, found in counted.items():
            puppets = set(generator.choice(members, corrupt, replace=False) + 1)
            honest = set(nonces) - puppets
            found[number] = sum(len(shares[member] & puppets) >= graph.threshold for member in honest)

    assert np.mean(counted[100]) == pytest.approx(expected_exposed(members, 100, graph), rel=0.15)
    assert max(counted[20]) == 0


def test_the_expectation_is_the_hypergeometric_one() -> None:
    """It equals the tail as integers give it, for every number of corrupt members of a small graph."""
    members, graph = 12, GraphParameters(degree=6, threshold=4)

    for corrupt in range(members + 1):
        ways = sum(
            comb(corrupt, k) * comb(members - 1 - corrupt, 6 - k) for k in range(4, 7) if corrupt < members
        )
        expected = (members - corrupt) * ways / comb(members - 1, 6)
        assert expected_exposed(members, corrupt, graph) == pytest.approx(expected)


def test_more_corrupt_members_expose_a_larger_share() -> None:
    """The share of the honest that is exposed never falls as corrupt members are added."""
    graph = share_graph_parameters(200, SEMI_HONEST)

    shares = [expected_exposed(200, corrupt, graph) / (200 - corrupt) for corrupt in range(200)]

    assert all(fewer <= more * (1 + 1e-12) for fewer, more in itertools.pairwise(shares))
    assert shares[-1] == pytest.approx(1.0)


@pytest.mark.parametrize("corrupt", [-1, 201])
def test_impossible_numbers_of_corrupt_members_are_refused(corrupt: int) -> None:
    """Fewer than none or more than all raise ThresholdError."""
    with pytest.raises(ThresholdError, match=f"corrupt={corrupt} must lie in 0..200"):
        expected_exposed(200, corrupt, share_graph_parameters(200, SEMI_HONEST))
