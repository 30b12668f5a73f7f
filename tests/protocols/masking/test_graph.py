"""Graphs are regular, symmetric and connected, the same for all who hold the seed, and uniformly random over seeds."""

import hashlib
import itertools
import random
from collections import Counter
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.errors import RosterError, ThresholdError
from protocols.masking.graph import _below, graph_seed, neighbours
from tests.contracts.sessions import PROPERTY

SEED = bytes(range(32))
NONCES = {1: b"a" * 16, 2: b"b" * 16, 7: b"c" * 16}

Graph = Mapping[int, frozenset[int]]


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[int], int, Graph]:
    """Some members, a degree, and the graph of a drawn seed."""
    members = sorted(draw(st.sets(st.integers(1, 2**16 - 1), min_size=1, max_size=60)))
    complete = len(members) - 1
    degree = draw(st.sampled_from([*range(2, complete, 2), complete]))
    return members, degree, neighbours(members, degree, draw(st.binary(min_size=32, max_size=32)))


def component(graph: Graph, start: int, *, without: frozenset[int] = frozenset()) -> set[int]:
    """Everyone who can be reached from a member."""
    reached, ahead = {start}, [start]
    while ahead:
        fresh = graph[ahead.pop()] - reached - without
        reached |= fresh
        ahead += fresh
    return reached


def chi_square(counts: Counter[object], kinds: int) -> float:
    """The statistic against `kinds` equally likely outcomes; its mean is kinds - 1."""
    expected = counts.total() / kinds
    assert len(counts) <= kinds
    return (
        sum((count - expected) ** 2 for count in counts.values()) / expected
        + (kinds - len(counts)) * expected
    )


def seeds(count: int) -> list[bytes]:
    """So many seeds, the same in every run."""
    return [hashlib.sha256(number.to_bytes(4, "big")).digest() for number in range(count)]


@PROPERTY
@given(drawn=graphs())
def test_graphs_are_regular_and_symmetric_without_loops(drawn: tuple[list[int], int, Graph]) -> None:
    """Everyone has exactly the degree's number of neighbours among the members, and is a neighbour of each of them."""
    members, degree, graph = drawn

    assert sorted(graph) == members
    for member, around in graph.items():
        assert len(around) == degree
        assert around <= set(members) - {member}
        assert all(member in graph[peer] for peer in around)


@PROPERTY
@given(drawn=graphs(), data=st.data())
def test_graphs_stay_connected_until_two_gaps_open(
    drawn: tuple[list[int], int, Graph], data: st.DataObject
) -> None:
    """Any members fewer than the degree may leave and the others are still connected (Harary's theorem)."""
    members, degree, graph = drawn
    gone = data.draw(st.sets(st.sampled_from(members), max_size=max(0, degree - 1)))
    left = set(members) - gone

    assert component(graph, min(left), without=frozenset(gone)) == left


def test_two_gaps_of_half_the_degree_disconnect() -> None:
    """Ring neighbours are found from the graph itself: those who share most neighbours; two gaps of two cut degree 4."""
    members = list(range(1, 13))
    graph = neighbours(members, 4, SEED)
    ring = [1]
    while len(ring) < len(members):
        ahead = [
            peer for peer in graph[ring[-1]] if peer not in ring and len(graph[peer] & graph[ring[-1]]) == 2
        ]
        ring.append(min(ahead))
    gone = frozenset(ring[1:3] + ring[6:8])

    assert component(graph, ring[0], without=gone) == {ring[0], *ring[8:]}


def test_the_graph_depends_on_the_seed_alone() -> None:
    """The same seed gives the same graph and another seed another."""
    members = range(1, 40)

    assert neighbours(members, 6, SEED) == neighbours(list(members), 6, bytes(SEED))
    assert neighbours(members, 6, SEED) != neighbours(members, 6, SEED[::-1])


def test_a_known_graph() -> None:
    """The ring of one seed, from words hashed here and shuffled by picking from what is left."""
    text = b"".join(
        hashlib.sha256(b"rbla-secure graph order\x00" + SEED + bytes(7) + bytes([n])).digest() for n in (0, 1)
    )
    words = [int(text[at : at + 4].hex(), 16) for at in range(0, 64, 4)]
    members, ring = [3, 5, 6, 10, 11, 20, 31, 32, 40], []
    for left, word in zip(range(9, 0, -1), words, strict=False):
        members[word % left], members[left - 1] = members[left - 1], members[word % left]
        ring.insert(0, members[left - 1])

    graph = neighbours([3, 5, 6, 10, 11, 20, 31, 32, 40], 4, SEED)

    assert ring == [5, 6, 11, 31, 40, 20, 10, 3, 32]
    for place, member in enumerate(ring):
        assert graph[member] == {
            ring[place - 2],
            ring[place - 1],
            ring[(place + 1) % 9],
            ring[(place + 2) % 9],
        }


def test_everyones_neighbours_are_equally_likely() -> None:
    """Over seeds, one member's four neighbours among eight others are each of the 70 sets equally often (p > 0.001)."""
    counts = Counter[object](neighbours(range(1, 10), 4, seed)[5] for seed in seeds(7000))

    assert chi_square(counts, 70) < 111.1  # the 0.999 quantile of chi-square with 69 degrees of freedom


def test_all_rings_are_equally_likely() -> None:
    """Over seeds, each of the 12 rings of five members appears equally often (p > 0.001), so every pair does."""
    drawn = (neighbours(range(5), 2, seed) for seed in seeds(6000))
    counts = Counter[object](tuple(graph[member] for member in range(5)) for graph in drawn)

    assert chi_square(counts, 12) < 31.3  # the 0.999 quantile of chi-square with 11 degrees of freedom


def test_a_wrong_shuffle_would_be_noticed() -> None:
    """Swapping every place with any place, the classic mistake, fails the same test on as many rings."""
    counts, numbers = Counter[object](), random.Random(1)  # noqa: S311 - reproducible numbers
    for _ in range(6000):
        ring = list(range(5))
        for place in range(5):
            other = numbers.randrange(5)
            ring[place], ring[other] = ring[other], ring[place]
        counts[frozenset(frozenset({ring[i], ring[i - 1]}) for i in range(5))] += 1

    assert chi_square(counts, 12) > 31.3


def test_words_that_would_bias_the_shuffle_are_skipped() -> None:
    """2^32 is 1 more than a multiple of 3 and of 5: its last word is skipped, and one below it is not."""
    top = 2**32 - 1

    assert _below(3, iter([top, top - 1])) == (top - 1) % 3 == 2
    assert _below(5, iter([top, 7])) == 2
    assert _below(2, iter([top])) == 1


@pytest.mark.parametrize("degree", [-2, 0, 1, 3, 5, 10, 11])
def test_impossible_degrees_are_refused(degree: int) -> None:
    """A degree is even and positive, or that of the complete graph; here 9 of ten members."""
    with pytest.raises(ThresholdError, match=f"degree={degree} must be even and lie in 2..9, or be 9"):
        neighbours(range(10), degree, SEED)


@pytest.mark.parametrize("members", [[2, 1, 3], [1, 1, 2]])
def test_members_out_of_order_are_refused(members: list[int]) -> None:
    """Two parties that list the members in another order would derive another graph."""
    with pytest.raises(RosterError, match="increasing order"):
        neighbours(members, 2, SEED)


def test_everyone_is_a_neighbour_in_the_complete_graph() -> None:
    """The complete graph needs no seed and exists for odd degrees and a single member too."""
    assert neighbours([2, 3, 5, 8], 3, b"") == {2: {3, 5, 8}, 3: {2, 5, 8}, 5: {2, 3, 8}, 8: {2, 3, 5}}
    assert neighbours([4], 0, b"") == {4: frozenset()}


def test_a_known_seed() -> None:
    """The bytes that are hashed, written out."""
    text = b"rbla-secure graph seed\x00" + b"\0\0\0\x03ctx" + b"\0\0\0\x05label"
    text += b"\0\0\0\x01\0\0\0\x01x" + b"\0\0\1\x02\0\0\0\x02yz"

    assert graph_seed(b"ctx", {258: b"yz", 1: b"x"}, "label") == hashlib.sha256(text).digest()


def test_every_part_of_the_seed_counts() -> None:
    """Another context, label, nonce, holder of a nonce or list of members gives another seed; another order does not."""
    variants = [
        graph_seed(b"context", NONCES, "share graph"),
        graph_seed(b"Context", NONCES, "share graph"),
        graph_seed(b"context", NONCES, "mask graph 0"),
        graph_seed(b"contexts", NONCES, "hare graph"),
        graph_seed(b"context", {**NONCES, 2: b"d" * 16}, "share graph"),
        graph_seed(b"context", {1: NONCES[1], 2: NONCES[2], 8: NONCES[7]}, "share graph"),
        graph_seed(b"context", {1: NONCES[1], 2: NONCES[2]}, "share graph"),
        graph_seed(b"context", {1: NONCES[2], 2: NONCES[1], 7: NONCES[7]}, "share graph"),
    ]

    assert all(len(seed) == 32 for seed in variants)
    assert all(a != b for a, b in itertools.combinations(variants, 2))
    assert graph_seed(b"context", dict(reversed(NONCES.items())), "share graph") == variants[0]
