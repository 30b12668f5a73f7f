"""The parameters are the published ones, the smallest that the rules allow, and the reveal quorum stops split lists."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.errors import QuorumError, ThresholdError
from protocols.masking.parameters import (
    COMPLETE_UP_TO,
    GraphParameters,
    log_disconnected,
    log_upper_tail,
    reveal_quorum,
    share_graph_parameters,
    sparse_graph_parameters,
)
from protocols.masking.terms import MaskingTerms
from protocols.profiles import (
    CONSISTENCY,
    INSECURE_TEST_ONLY,
    ONE_ANSWER,
    PROFILES,
    SEMI_HONEST,
    MaskingProfile,
)
from tests.contracts.sessions import PROPERTY, make_session, names, segment
from tests.protocols.masking.parties import TRUST

Table = dict[tuple[str, str, MaskingProfile], list[tuple[int, int, int]]]

# (corrupt share, dropout share, profile whose rule applies) -> (members, degree, threshold): every feasible value that
# the test of google-parfait/federated-compute, fcp/secagg/server/graph_parameter_finder_test.cc, expects. Its cases
# without any adversary are those of a semi-honest server and no corrupt clients.
PUBLISHED: Table = {
    ("0.45", "0.45", SEMI_HONEST): [
        (10**2, 92, 46),
        (10**3, 822, 417),
        (10**4, 3494, 1771),
        (10**5, 5508, 2788),
        (10**6, 6240, 3156),
    ],
    ("0.33", "0.33", SEMI_HONEST): [
        (10**1, 8, 4),
        (10**2, 68, 34),
        (10**3, 286, 150),
        (10**4, 422, 221),
        (10**5, 480, 251),
        (10**6, 518, 270),
    ],
    ("0.3", "0.3", ONE_ANSWER): [
        (10**2, 92, 62),
        (10**3, 872, 584),
        (10**4, 4822, 3230),
        (10**5, 9388, 6286),
        (10**6, 11136, 7454),
    ],
    ("0.05", "0.33", SEMI_HONEST): [
        (10**1, 4, 2),
        (10**2, 28, 6),
        (10**3, 72, 24),
        (10**4, 86, 29),
        (10**5, 96, 32),
        (10**6, 102, 34),
    ],
    ("0.05", "0.33", ONE_ANSWER): [
        (10**1, 8, 5),
        (10**2, 72, 39),
        (10**3, 398, 223),
        (10**4, 746, 420),
        (10**5, 882, 496),
        (10**6, 970, 545),
    ],
    ("0.33", "0.05", SEMI_HONEST): [
        (10**1, 4, 4),
        (10**2, 34, 29),
        (10**3, 78, 60),
        (10**4, 92, 70),
        (10**5, 102, 77),
        (10**6, 110, 83),
    ],
    ("0.33", "0.05", ONE_ANSWER): [
        (10**1, 4, 4),
        (10**2, 42, 37),
        (10**3, 132, 109),
        (10**4, 178, 146),
        (10**5, 196, 160),
        (10**6, 212, 173),
    ],
    ("0.05", "0.05", SEMI_HONEST): [
        (10**1, 2, 2),
        (10**2, 12, 6),
        (10**3, 30, 17),
        (10**4, 34, 20),
        (10**5, 36, 21),
        (10**6, 38, 22),
    ],
    ("0.05", "0.05", ONE_ANSWER): [
        (10**1, 2, 2),
        (10**2, 16, 11),
        (10**3, 52, 37),
        (10**4, 62, 44),
        (10**5, 68, 48),
        (10**6, 74, 52),
    ],
    ("0.33", "0", SEMI_HONEST): [
        (10**1, 4, 4),
        (10**2, 26, 25),
        (10**3, 38, 36),
        (10**4, 42, 40),
        (10**5, 46, 44),
        (10**6, 50, 47),
    ],
    ("0.33", "0", ONE_ANSWER): [
        (10**1, 4, 4),
        (10**2, 26, 26),
        (10**3, 38, 37),
        (10**4, 42, 41),
        (10**5, 46, 45),
        (10**6, 50, 49),
    ],
    ("0", "0.33", SEMI_HONEST): [
        (10**1, 4, 2),
        (10**2, 26, 2),
        (10**3, 38, 2),
        (10**4, 42, 2),
        (10**5, 46, 2),
        (10**6, 50, 2),
    ],
    ("0", "0.33", ONE_ANSWER): [
        (10**1, 8, 5),
        (10**2, 68, 35),
        (10**3, 228, 115),
        (10**4, 326, 164),
        (10**5, 372, 187),
        (10**6, 410, 206),
    ],
    ("0", "0", SEMI_HONEST): [
        (10**1, 2, 2),
        (10**2, 2, 2),
        (10**3, 2, 2),
        (10**4, 2, 2),
        (10**5, 2, 2),
        (10**6, 2, 2),
    ],
    ("0", "0", ONE_ANSWER): [
        (10**1, 2, 2),
        (10**2, 2, 2),
        (10**3, 2, 2),
        (10**4, 2, 2),
        (10**5, 2, 2),
        (10**6, 2, 2),
    ],
}

# The same rules, computed once elsewhere with another implementation.
COMPUTED: Table = {
    ("0.05", "0.05", SEMI_HONEST): [(200, 20, 11), (500, 28, 16)],
    ("0.1", "0.1", SEMI_HONEST): [
        (50, 12, 6),
        (100, 22, 11),
        (200, 34, 19),
        (500, 42, 24),
        (1000, 48, 27),
        (10**4, 54, 31),
    ],
    ("0.1", "0.1", ONE_ANSWER): [
        (50, 16, 11),
        (100, 32, 22),
        (200, 56, 39),
        (500, 82, 57),
        (1000, 96, 67),
        (10**4, 122, 85),
    ],
    ("0.2", "0.1", ONE_ANSWER): [(200, 76, 57), (500, 116, 86), (1000, 140, 104), (10**4, 184, 136)],
    ("0.1", "0.3", ONE_ANSWER): [(200, 134, 78), (500, 276, 164), (1000, 414, 247), (10**4, 778, 465)],
}


def with_shares(profile: MaskingProfile, corrupt: str, dropout: str) -> MaskingProfile:
    """The profile's rule for other shares."""
    return replace(profile, corrupt_share=Fraction(corrupt), dropout_share=Fraction(dropout))


def cases(table: Table) -> list[object]:
    """One parameter set per row of a table."""
    return [
        pytest.param(
            with_shares(profile, corrupt, dropout),
            n,
            (degree, threshold),
            id=f"{profile.name}-{corrupt}-{dropout}-{n}",
        )
        for (corrupt, dropout, profile), rows in table.items()
        for n, degree, threshold in rows
    ]


def exact_tail(population: int, marked: int, drawn: int, least: int) -> Fraction:
    """P[at least so many marked] by counting draws."""
    hits = sum(
        math.comb(marked, x) * math.comb(population - marked, drawn - x)
        for x in range(max(0, least), min(drawn, marked) + 1)
    )
    return Fraction(hits, math.comb(population, drawn))


def exact_gaps(members: int, gone: int, degree: int) -> Fraction:
    """The union bound over two disjoint gaps as a product of fractions."""
    chance = Fraction(members * (members - degree - 1), 2)
    for i in range(degree):
        chance *= Fraction(max(0, gone - i), members - i)
    return chance


def thresholds_allowed(n: int, degree: int, profile: MaskingProfile, *, one_answer: bool) -> list[int]:
    """Every threshold from 2 that meets the profile at this degree, by exact arithmetic and trial."""
    corrupt, dropped = math.floor(profile.corrupt_share * n), math.floor(profile.dropout_share * n)
    if exact_gaps(n, corrupt + dropped, degree) >= Fraction(1, 2**41):
        return []
    tails = {x: n * exact_tail(n, corrupt, degree, x) for x in range(degree + 2)}
    worst = min(x for x in range(degree + 1) if tails[x + 1] < Fraction(1, 2**41))
    return [
        t
        for t in range(2, degree + 1)
        if t > worst
        and (2 * t > degree + worst or not one_answer)
        and n * (1 - exact_tail(n, n - dropped, degree, t)) < Fraction(1, 2**20)
    ]


@pytest.mark.parametrize(("profile", "members", "expected"), cases(PUBLISHED))
def test_the_published_parameters_are_reproduced(
    profile: MaskingProfile, members: int, expected: tuple[int, int]
) -> None:
    """Degree and threshold are those that the reference implementation's own test expects, up to a million members."""
    found = sparse_graph_parameters(members, profile)

    assert (found.degree, found.threshold) == expected


@pytest.mark.parametrize(("profile", "members", "expected"), cases(COMPUTED))
def test_parameters_computed_elsewhere_are_reproduced(
    profile: MaskingProfile, members: int, expected: tuple[int, int]
) -> None:
    """Another implementation of the same rules found the same values."""
    found = sparse_graph_parameters(members, profile)

    assert (found.degree, found.threshold) == expected


@pytest.mark.parametrize("members", [101, 127, 200, 301])
@pytest.mark.parametrize("profile", [SEMI_HONEST, ONE_ANSWER, CONSISTENCY], ids=lambda profile: profile.name)
def test_the_parameters_are_the_smallest_that_exact_arithmetic_allows(
    profile: MaskingProfile, members: int
) -> None:
    """The found threshold is the least allowed one at the found degree, and no smaller even degree allows any."""
    found = share_graph_parameters(members, profile)
    one_answer = profile is not SEMI_HONEST

    assert thresholds_allowed(members, found.degree, profile, one_answer=one_answer)[0] == found.threshold
    for degree in range(2, found.degree, 2):
        assert not thresholds_allowed(members, degree, profile, one_answer=one_answer)


def test_up_to_a_hundred_members_everyone_shares_with_everyone() -> None:
    """The complete graph has the profile's own threshold; one member more makes it sparse."""
    for profile in PROFILES:
        for n in range(1, COMPLETE_UP_TO + 1):
            complete = GraphParameters(degree=n - 1, threshold=profile.threshold(n))
            assert share_graph_parameters(n, profile) == complete
    assert share_graph_parameters(101, SEMI_HONEST).degree < 50


def test_the_insecure_profile_gives_small_sparse_graphs() -> None:
    """Its graphs have few neighbours, which is what it is for."""
    assert share_graph_parameters(101, INSECURE_TEST_ONLY).degree <= 10


@pytest.mark.parametrize(
    ("profile", "members", "corrupt", "dropout"),
    [
        (SEMI_HONEST, 0, "0.1", "0.1"),
        (SEMI_HONEST, 1000, "0.5", "0.5"),
        (ONE_ANSWER, 1000, "0.5", "0.5"),
        (ONE_ANSWER, 1000, "0.33", "0.33"),
        (SEMI_HONEST, 10, "0.45", "0.45"),
        (SEMI_HONEST, 2, "0", "0"),
    ],
)
def test_infeasible_parameters_are_refused(
    profile: MaskingProfile, members: int, corrupt: str, dropout: str
) -> None:
    """No members, more lost than any graph bears, or too few members for a sparse graph: refused by name."""
    with pytest.raises(ThresholdError):
        sparse_graph_parameters(members, with_shares(profile, corrupt, dropout))


def test_no_members_have_no_graph() -> None:
    """An empty roster is refused before anything is computed."""
    with pytest.raises(ThresholdError, match="members=0 must be >= 1"):
        share_graph_parameters(0, SEMI_HONEST)


@PROPERTY
@given(data=st.data())
def test_tails_agree_with_exact_counting(data: st.DataObject) -> None:
    """Any tail of any small hypergeometric distribution is right to ten digits, impossible and certain ones included."""
    population = data.draw(st.integers(1, 300))
    marked, drawn = data.draw(st.integers(0, population)), data.draw(st.integers(0, population))
    least = data.draw(st.integers(-1, drawn + 1))

    found = math.exp(log_upper_tail(population, marked, drawn, least))

    assert found == pytest.approx(float(exact_tail(population, marked, drawn, least)), rel=1e-10)


@pytest.mark.parametrize(
    ("population", "marked", "drawn", "least"),
    [(1000, 100, 48, 28), (1000, 100, 96, 37), (10_000, 1000, 122, 50), (1_000_000, 50_000, 74, 32)],
)
def test_far_tails_keep_their_relative_accuracy(population: int, marked: int, drawn: int, least: int) -> None:
    """Tails around 2^-60, where one minus a distribution function would be noise, are right to seven digits."""
    exact = exact_tail(population, marked, drawn, least)

    assert Fraction(1, 2**75) < exact < Fraction(1, 2**50)
    assert math.exp(log_upper_tail(population, marked, drawn, least)) == pytest.approx(float(exact), rel=1e-7)


@pytest.mark.parametrize(
    ("members", "gone", "degree"), [(200, 40, 34), (1000, 200, 48), (50, 10, 12), (9, 8, 4)]
)
def test_the_disconnection_bound_agrees_with_exact_counting(members: int, gone: int, degree: int) -> None:
    """The bound in logarithms is the product of fractions; it is zero when too few are gone to make the gaps."""
    exact = float(exact_gaps(members, gone, degree))

    assert math.exp(log_disconnected(members, gone, degree)) == pytest.approx(exact, rel=1e-10)


# The reveal quorum: which answers a server can get by giving every honest client any list or none, and what they open.
# A state is, for each honest holder, how many honest clients have revealed its self mask and how many its mask key.

State = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Splits:
    """A server that splits survivor lists.

    Args:
        members, corrupt, threshold: n, c and t; members are 0..n-1, the last c of them corrupt.
        holders: Of the one segment that the server is after.
        own: Whether a client insists that it is on its own list.
        altogether: Whether a client whose list is too short keeps its mask-key shares of the segment as well.
    """

    members: int
    corrupt: int
    threshold: int
    holders: frozenset[int]
    own: bool = True
    altogether: bool = True

    def smallest_opening(self, needed: int) -> int | None:
        """The fewest holders, corrupt ones included, over whom the segment can be opened; None if it stays closed.

        Honest clients reveal its self masks over lists with `needed` holders.
        """
        honest = self.members - self.corrupt
        corrupt_holders = sum(holder >= honest for holder in self.holders)
        sizes = (size for state in self._reachable(needed) for size in self._opened(state))
        return min((corrupt_holders + size for size in sizes), default=None)

    def _answers(self, client: int, needed: int) -> set[tuple[int, ...]]:
        """What a client can be made to reveal: 1 for a self-mask share of an honest holder, -1 for a mask-key share.

        Its list has t survivors. With too few holders on it nothing is revealed, or not `altogether` the mask keys.
        """
        seen = sorted(holder for holder in self.holders if holder < self.members - self.corrupt)
        found = {tuple(0 for _ in seen)}
        for size in range(self.threshold, self.members + 1):
            for listed in itertools.combinations(range(self.members), size):
                if client in listed or not self.own:
                    alive = int(len(self.holders.intersection(listed)) >= needed)
                    gone = -1 if alive or not self.altogether else 0
                    found.add(tuple(alive if holder in listed else gone for holder in seen))
        return found

    def _reachable(self, needed: int) -> set[State]:
        """Every state that all honest clients together can be brought into; counts stop where they are enough."""
        enough = self.threshold - self.corrupt
        honest = range(self.members - self.corrupt)
        states: set[State] = {tuple((0, 0) for holder in self.holders if holder in honest)}
        for client in honest:
            answers = self._answers(client, needed)
            states = {
                tuple(
                    (min(enough, alive + (said > 0)), min(enough, gone + (said < 0)))
                    for (alive, gone), said in zip(state, answer, strict=True)
                )
                for state in states
                for answer in answers
            }
            if not self.own:  # nobody is special, so neither is the order of the holders
                states = {tuple(sorted(state)) for state in states}
        return states

    def _opened(self, state: State) -> Iterator[int]:
        """The sizes of all sets of honest holders whose sum is free of unknown masks."""
        enough = self.threshold - self.corrupt
        seeds = {i for i, (alive, _) in enumerate(state) if alive >= enough}
        keys = {i for i, (_, gone) in enumerate(state) if gone >= enough}
        everyone = range(len(state))
        for size in range(1, len(state) + 1):
            for inside in itertools.combinations(everyone, size):
                pairs = ((v, w) for v in inside for w in everyone if w not in inside)
                if seeds.issuperset(inside) and all(v in keys or w in keys for v, w in pairs):
                    yield size


def all_splits(largest: int, *, own: bool) -> Iterator[Splits]:
    """Every (n, c, t) with 2t > n + c and every number of honest and corrupt holders."""
    for n in range(3, largest + 1):
        for c in range(n - 1):
            for t in range((n + c) // 2 + 1, n + 1):
                for honest, corrupt in itertools.product(range(1, n - c + 1), range(c + 1)):
                    holders = frozenset({*range(honest), *range(n - corrupt, n)})
                    yield Splits(members=n, corrupt=c, threshold=t, holders=holders, own=own)


def the_rule(splits: Splits, quorum: int) -> int:
    """The reveal quorum of the situation."""
    return reveal_quorum(
        segment_members=len(splits.holders),
        quorum=quorum,
        members=splits.members,
        threshold=splits.threshold,
        corrupt=splits.corrupt,
    )


@pytest.mark.parametrize(
    "splits",
    [*all_splits(5, own=True), *all_splits(6, own=False)],
    ids=lambda s: f"{s.members}-{s.corrupt}-{s.threshold}-{sorted(s.holders)}-{s.own}",
)
def test_no_split_of_lists_opens_fewer_than_the_quorum(splits: Splits) -> None:
    """All strategies against all small sessions; the server can do more where clients need not be on their own list."""
    for quorum in range(1, len(splits.holders) + 1):
        needed = the_rule(splits, quorum)
        smallest = splits.smallest_opening(needed)

        assert quorum <= needed <= len(splits.holders)
        assert smallest is None or smallest >= quorum


def test_the_quorum_alone_exposes_one_client() -> None:
    """Five honest members, t = 3, four holders, quorum 2: lists with two holders each open one holder's values."""
    splits = Splits(members=5, corrupt=0, threshold=3, holders=frozenset({0, 1, 2, 3}))

    assert the_rule(splits, 2) == 3
    assert splits.smallest_opening(2) == 1
    assert (splits.smallest_opening(3) or 4) >= 2


def test_one_mask_key_for_all_segments_would_break_the_rule() -> None:
    """A client that refuses a segment but reveals mask keys helps to open it: three holders, quorum 2, one exposed."""
    splits = Splits(members=5, corrupt=0, threshold=3, holders=frozenset({0, 1, 2}))
    careless = replace(splits, altogether=False)

    assert the_rule(splits, 2) == 2
    assert splits.smallest_opening(2) == 2
    assert careless.smallest_opening(2) == 1


def test_a_split_needs_one_answer_per_peer_to_be_harmless() -> None:
    """The simulator can find more: where 2t <= n + c, lists with all holders do not protect a single one."""
    splits = Splits(members=4, corrupt=2, threshold=3, holders=frozenset({0, 1}), own=False, altogether=False)

    assert splits.smallest_opening(2) == 1


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        ((10, 3, 10, 6, 1), 6),  # 2 + 8 * 4/9 = 5.56
        ((5, 3, 10, 6, 1), 4),  # 2 + 3 * 4/9 = 3.33
        ((4, 3, 10, 6, 1), 3),  # 2 + 2 * 4/9 = 2.89
        ((20, 12, 100, 56, 10), 16),  # 11 + 9 * 44/90 = 15.4
        ((20, 12, 100, 80, 10), 14),  # 11 + 9 * 20/90 = 13
        ((9, 4, 9, 9, 0), 4),  # nobody may drop out: split lists are impossible
        ((9, 1, 12, 8, 2), 4),  # 0 + 9 * 4/10 = 3.6
    ],
)
def test_reveal_quorums_worked_out_by_hand(terms: tuple[int, ...], expected: int) -> None:
    """Known answers for the smallest whole number above the bound, given m, q, n, t and c."""
    m, q, n, t, c = terms

    assert reveal_quorum(segment_members=m, quorum=q, members=n, threshold=t, corrupt=c) == expected


@PROPERTY
@given(data=st.data())
def test_a_reveal_quorum_lies_between_the_quorum_and_all_holders(data: st.DataObject) -> None:
    """It never asks for less than the quorum nor for more than everyone, and a higher threshold never raises it."""
    n = data.draw(st.integers(2, 10**6))
    c = data.draw(st.integers(0, n - 2))
    t = data.draw(st.integers((n + c) // 2 + 1, n))
    m = data.draw(st.integers(1, n))
    q = data.draw(st.integers(1, m))

    found = reveal_quorum(segment_members=m, quorum=q, members=n, threshold=t, corrupt=c)

    assert q <= found <= m
    if t < n:
        assert reveal_quorum(segment_members=m, quorum=q, members=n, threshold=t + 1, corrupt=c) <= found


@pytest.mark.parametrize("n", range(2, 15))
def test_no_reveal_quorum_is_out_of_reach(n: int) -> None:
    """For all thresholds, corrupt shares and segments that there are, everyone together is enough, and is needed at q = m."""
    for c in range(n):
        for t in range((n + c) // 2 + 1, n + 1):
            for m in range(1, n + 1):
                found = [
                    reveal_quorum(segment_members=m, quorum=q, members=n, threshold=t, corrupt=c)
                    for q in range(1, m + 1)
                ]
                assert all(q <= quorum <= m for q, quorum in enumerate(found, start=1))
                assert found[-1] == m


@pytest.mark.parametrize("profile", [SEMI_HONEST, ONE_ANSWER, CONSISTENCY], ids=lambda profile: profile.name)
@pytest.mark.parametrize("members", [2, 3, 9, 10, 11, 30, 100])
def test_every_segment_of_a_session_can_open(profile: MaskingProfile, members: int) -> None:
    """Whatever quorum a segment has, its holders together meet what clients want to see before they reveal."""
    holders = [names(members)[:count] for count in {1, 2, members // 2 or 1, members}]
    parts = [(held, quorum) for held in holders for quorum in {1, len(held) // 2 or 1, len(held)}]
    session = make_session(
        members,
        *(segment(index, 1, held, quorum) for index, (held, quorum) in enumerate(parts)),
        threshold=profile.threshold(members),
    )

    terms = MaskingTerms(session=session, profile=profile, trust=TRUST)

    for part in session.segments:
        assert part.quorum <= terms.quorum(part) <= len(part.holders)


@pytest.mark.parametrize(("m", "q", "n"), [(5, 0, 10), (5, 6, 10), (11, 3, 10), (0, 0, 10)])
def test_reveal_quorums_of_impossible_segments_are_refused(m: int, q: int, n: int) -> None:
    """A quorum is at least one and at most the holders, who are members."""
    with pytest.raises(QuorumError, match=f"quorum={q} must lie in 1..{m} holders, of {n} members"):
        reveal_quorum(segment_members=m, quorum=q, members=n, threshold=n, corrupt=0)


@pytest.mark.parametrize(("t", "c"), [(5, 0), (6, 2), (11, 0), (6, -1)])
def test_reveal_quorums_need_one_answer_per_peer_to_mean_something(t: int, c: int) -> None:
    """Unless 2t > n + c both secrets of a peer can be recovered and no list is long enough."""
    with pytest.raises(ThresholdError, match=f"threshold={t} must be"):
        reveal_quorum(segment_members=5, quorum=3, members=10, threshold=t, corrupt=c)
