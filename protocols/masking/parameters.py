"""The numbers that the masking protocol rests on: neighbours, shares and survivors.

Up to a hundred members everyone shares with everyone. Above, a member's neighbours are a random sample of the others,
so what it may fear of them is the tail of a hypergeometric distribution (Bell et al. 2020, section 3). Who is corrupt or
drops out is counted among all members of the session, also for the graph of a segment: they may all be in one.
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import exp, inf, lgamma, log, log1p
from typing import Final, final

from protocols.errors import QuorumError, ThresholdError
from protocols.profiles import Adversary, MaskingProfile

COMPLETE_UP_TO: Final = 100  # members; below, the sparse graph saves little and its bounds degenerate

# The rule of Google's federated-compute library (secagg/server/graph_parameter_finder.cc): beyond it no degree is
# worth having, and the caller has most likely mistaken a share.
_MOST_LOST: Final = Fraction(9, 10)
_LEAST_THRESHOLD: Final = 2
_NEGLIGIBLE: Final = 1e-18  # of a sum of doubles


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class GraphParameters:
    """The shape of a share graph.

    Args:
        degree: Neighbours of every member.
        threshold: Shares that recover a secret. In the complete graph it is counted among all members, the owner
            included. In a sparse graph it is counted among the neighbours: if the owner keeps a share of its own
            secret and reveals it, 2t > degree + corrupt loses its margin, so against a malicious server it must not.
    """

    degree: int
    threshold: int


def share_graph_parameters(members: int, profile: MaskingProfile) -> GraphParameters:
    """Return the graph over which so many members share: complete up to COMPLETE_UP_TO, above it sparse.

    Raises:
        ThresholdError: There are no members, or no sparse graph meets the profile.
    """
    if members < 1:
        raise ThresholdError(f"members={members} must be >= 1")
    if members <= COMPLETE_UP_TO:
        return GraphParameters(degree=members - 1, threshold=profile.threshold(members))
    return sparse_graph_parameters(members, profile)


@lru_cache(maxsize=256)
def sparse_graph_parameters(members: int, profile: MaskingProfile) -> GraphParameters:
    """Return the smallest even degree k, and its smallest threshold t, for a random Harary graph of n members.

    With c corrupt and d dropped members (both the profile's most), s = security_bits and r = correctness_bits:

        P[two disjoint gaps of k/2 corrupt or dropped in the ring]    < 2^-(s+1)    (the others stay connected)
        n * P[more than x of k neighbours are corrupt]                < 2^-(s+1)    (defines x)
        t = x + 1, or against a malicious server the least t with 2t > k + x        (each answers once per peer)
        n * P[fewer than t of k neighbours survive]                   < 2^-r        (sums can be opened)

    Source: Bell et al. 2020, section 3, in the exact form of Google's federated-compute library. It holds if the server
    does not choose the graph (see :func:`protocols.masking.graph.graph_seed`). There one graph serves for shares and
    masks; here each segment has a mask graph of its own (:func:`mask_graph_degree`), and the first line is kept so that
    the numbers are the published ones. In the second line all n advertise. Where d members fall silent before that and every corrupt
    one advertises, neighbours are drawn from n - d, and the failure stays below 2^-37 up to 10,000 members instead (s = 40).

    Raises:
        ThresholdError: No degree below members - 1 will do, or more than 9/10 are lost at worst.
    """
    _check_losses(members, profile)
    security = -(profile.security_bits + 1) * log(2)
    correctness = -profile.correctness_bits * log(2) - log(members)
    corrupt, dropped = profile.corrupt(members), profile.dropped(members)
    tolerated = 0
    for degree in range(2, members - 1, 2):
        if log_disconnected(members, corrupt + dropped, degree) >= security:
            continue
        while log_upper_tail(members, corrupt, degree, tolerated + 1) >= security - log(members):
            tolerated += 1  # never falls as the degree grows
        threshold = _least_threshold(profile.adversary, degree, tolerated)
        if log_upper_tail(members, dropped, degree, degree - threshold + 1) < correctness:
            return GraphParameters(degree=degree, threshold=max(threshold, _LEAST_THRESHOLD))
    raise ThresholdError(f"no share graph of {members} members meets profile {profile.name}")


def mask_graph_degree(
    segment_members: int, *, members: int, profile: MaskingProfile, segments: int = 1
) -> int:
    """Return a segment's mask-graph degree: all others up to COMPLETE_UP_TO, above it perhaps fewer.

    An honest input is hidden as long as its member is connected, over honest members that stay, with another such one: what
    the server can open are the sums over the connected parts that are left once all corrupt and dropped members, whose
    masks it can compute, have been taken out of the graph. Bell et al. 2020, section 3, bound the probability that a random
    Harary graph has more than one such part by its number of vertices and the shares of them that are corrupt and that drop
    out. The vertices are the segment's m members here, but the profile's shares are of the session's n: ranks are public, and
    whoever buys or breaks clients may choose them all from the one tier that holds the segment. So with c corrupt and d dropped
    members of the session and B segments of more than COMPLETE_UP_TO members, k is the least even number, from the degree of the
    session's share graph up, with

        P[two disjoint gaps of k/2 in the ring of m lie within g = min(m - 1, c + d) gone members]  < 2^-(s+1) / B

    and m - 1, the complete graph, if there is none: then two honest members always mask with each other. With
    :func:`share_graph_parameters`, whose failure is below 2^-(s+1) too, a session exposes somebody with a probability below 2^-s.

    Pre-conditions: who is corrupt and who drops out does not depend on the graph, and the server does not choose it. Members
    that never advertise are not in the graph; each of them takes one from m and one from g, which makes the left side smaller.
    More drop-outs than d make it larger (threat_model.md has the numbers).

    Args:
        segment_members: m, everyone who uploads the segment.
        members: n, the members of the session.
        profile: Gives c, d and s.
        segments: B, from 1.

    Raises:
        ThresholdError: Not 1 <= m <= n, or no share graph of the session meets the profile.
    """
    if not 1 <= segment_members <= members:
        raise ThresholdError(f"segment_members={segment_members} must lie in 1..{members} members")
    if segment_members <= COMPLETE_UP_TO:
        return segment_members - 1
    return _sparse_mask_degree(segment_members, members, profile, segments)


@lru_cache(maxsize=256)
def _sparse_mask_degree(segment_members: int, members: int, profile: MaskingProfile, segments: int) -> int:
    gone = min(segment_members - 1, profile.corrupt(members) + profile.dropped(members))
    most = -(profile.security_bits + 1) * log(2) - log(segments)
    for degree in range(sparse_graph_parameters(members, profile).degree, segment_members - 1, 2):
        if log_disconnected(segment_members, gone, degree) < most:
            return degree
    return segment_members - 1


def _check_losses(members: int, profile: MaskingProfile) -> None:
    if members < 1:
        raise ThresholdError(f"members={members} must be >= 1")
    malicious = profile.adversary is Adversary.MALICIOUS
    lost = profile.corrupt_share + profile.dropout_share * (2 if malicious else 1)
    if lost > _MOST_LOST:
        rule = "corrupt_share + 2 * dropout_share" if malicious else "corrupt_share + dropout_share"
        raise ThresholdError(f"profile {profile.name}: {rule} = {lost} must be <= {_MOST_LOST}")


def _least_threshold(adversary: Adversary, degree: int, corrupt: int) -> int:
    if adversary is Adversary.MALICIOUS:
        return (degree + corrupt) // 2 + 1
    return corrupt + 1


def log_disconnected(members: int, gone: int, degree: int) -> float:
    """Return the natural log of a bound on P[a random Harary graph falls apart when `gone` members leave it].

    Only if two disjoint stretches of degree/2 ring neighbours are gone; there are n (n - degree - 1) / 2 such pairs,
    and each is gone with probability C(n - degree, gone - degree) / C(n, gone).
    """
    if degree > gone:
        return -inf
    pairs = log(members) + log(members - degree - 1) - log(2)
    return pairs + _log_choose(members - degree, gone - degree) - _log_choose(members, gone)


def expected_exposed(members: int, corrupt: int, graph: GraphParameters) -> float:
    """Return the expected number of honest members that a protocol-following server reads, given the corrupt ones.

    A member is exposed if its corrupt neighbours alone hold as many shares of its mask keys as recover them: the self masks of
    survivors are opened anyway, so nothing hides its upload any more. Its neighbours are a uniform sample of the other
    members, hence by linearity (n - c) P[at least t of k neighbours among n - 1 members, c of them corrupt, are corrupt].
    It bounds the probability that anybody is exposed this way, too; the other way is a mask graph that falls apart, which
    :func:`log_disconnected` bounds with the corrupt and the dropped members of its segment.

    What a sparse graph stands is therefore the profile's corrupt_share and little more, not "fewer than t": t is counted
    among neighbours there. In the complete graph the t-th corrupt member exposes everybody, and one fewer nobody.

    Args:
        members: n, everyone who shares.
        corrupt: c, those whose secrets the server holds, chosen without regard to the graph.
        graph: Its degree k and threshold t.

    Raises:
        ThresholdError: Not 0 <= corrupt <= members.
    """
    if not 0 <= corrupt <= members:
        raise ThresholdError(f"corrupt={corrupt} must lie in 0..{members} members")
    return (members - corrupt) * exp(log_upper_tail(members - 1, corrupt, graph.degree, graph.threshold))


def log_upper_tail(population: int, marked: int, drawn: int, least: int) -> float:
    """Return the natural logarithm of P[at least so many marked] in a draw without replacement.

    Summed outwards from the largest term, so that a tail of 2^-60 is as accurate as one of 1/2: to about 1e-15 times
    the logarithm of `population` factorial.
    """
    if least <= max(0, drawn + marked - population):
        return 0.0
    if least > min(drawn, marked):
        return -inf
    if least * population <= marked * drawn:  # below the mean: the other tail is the small one
        return log1p(-exp(log_upper_tail(population, population - marked, drawn, drawn - least + 1)))
    first = _log_choose(marked, least) + _log_choose(population - marked, drawn - least)
    return first - _log_choose(population, drawn) + log(_relative_tail(population, marked, drawn, least))


def _relative_tail(population: int, marked: int, drawn: int, least: int) -> float:
    """Return the tail in units of its first and largest term."""
    total, term, count = 0.0, 1.0, least
    while term > _NEGLIGIBLE * total:
        total += term
        term *= (marked - count) * (drawn - count)
        term /= (count + 1) * (population - marked - drawn + count + 1)
        count += 1
    return total


def _log_choose(total: int, chosen: int) -> float:
    return lgamma(total + 1) - lgamma(chosen + 1) - lgamma(total - chosen + 1)


def reveal_quorum(*, segment_members: int, quorum: int, members: int, threshold: int, corrupt: int) -> int:
    """Return the least number of a segment's holders on a client's list at which it may reveal shares for the segment.

    It is the smallest whole number above e + (m - e) (n - t) / (n - c), with e = q - 1, and stops a server that gives
    clients different survivor lists from opening a sum over fewer than q holders.

    Pre-conditions: everyone shares with everyone; every client answers one list only; the list splits one and the same
    list of participants, on which all honest clients agree (their signed views), into survivors and dropped, and has t
    survivors or more; a client whose list is too short for a segment gives no share of any secret of that segment, mask
    keys included (which is why every segment has mask keys of its own).

    Why. Let the server open a sum over the honest holders T, and let e count T and all corrupt holders; suppose e < q.
    Every self mask of T is recovered from t shares, at least t - c of them from honest clients that listed its owner
    as surviving and let the segment open: call those clients A, a of them, a <= n - c. As 2t > n + c, nobody's mask key
    and self mask are both recovered. So T's masks towards an honest holder w outside T were removed with the mask key of
    w: at least t - c of A listed w as dropped, and at most a - (t - c) as surviving. Count the pairs (client of A, honest
    holder outside T on its list) twice: by holder there are at most (m - e) (a - (t - c)), by client at least a (Q - e).
    Hence Q <= e + (m - e) (a - t + c) / a, which grows with a up to a = n - c. It grows with e too, so a Q above it for
    e = q - 1 excludes all e < q.

    The result never exceeds m: with everyone there, a segment opens. For t > (n + c) / 2 >= c, so (n - t) / (n - c) < 1, and
    as m - e >= 1, the whole part of (m - e) (n - t) / (n - c) is at most m - e - 1.

    Args:
        segment_members: m, the holders of the segment.
        quorum: q, the fewest holders over whom a sum may be opened; corrupt ones count.
        members: n, the members of the session.
        threshold: t, shares that recover a secret.
        corrupt: c, at most so many members collude with the server.

    Raises:
        QuorumError: Not 1 <= q <= m <= n.
        ThresholdError: Not 0 <= c and n + c < 2t <= 2n.
    """
    m, q, n, t, c = segment_members, quorum, members, threshold, corrupt
    if not 1 <= q <= m <= n:
        raise QuorumError(f"quorum={q} must lie in 1..{m} holders, of {n} members")
    if c < 0 or not n + c < 2 * t <= 2 * n:
        raise ThresholdError(f"threshold={t} must be at most {n} members and above half of {n} + corrupt={c}")
    below = q - 1
    return below + (m - below) * (n - t) // (n - c) + 1


def class_reveal_quorum(
    *, class_members: int, quorum: int, members: int, threshold: int, corrupt: int
) -> int:
    """Return the least number of a class's members on a client's list, if any, at which it may reveal anything.

    A class are the members that a server may make contribute while all others add zeros. The number is the smallest whole one
    above e + (m - e) (n - t) / (t - c), with e = q - 1. It stops a server that gives clients different survivor lists from
    opening a sum over some members of a class, but fewer than q, the corrupt ones counted.

    Pre-conditions: those of :func:`reveal_quorum`; a client whose list has some members of a class, but fewer than this,
    reveals nothing at all.

    Why. As there, let a sum open over the honest clients T; let T hold a member of the class, and let e < q count the
    honest members of the class in T and all its corrupt ones. Call A the honest clients that revealed for it, a of them,
    a <= n - c; A1 those whose list has the class, a1 of them, and A0 the others, a0. A member of the class in T has its
    self mask opened by at least t - c of A, whose lists have it: a1 >= t - c. As 2t > n + c, so 2 (t - c) > n - c, and a0 < t - c.
    An honest member w of the class outside T had its mask key opened by at least t - c of A, whose lists have it dropped; at
    most a - (t - c) list it as surviving, all of them in A1. Count the pairs (client of A1, honest member of the class
    outside T on its list): by member at most (m - e) (a - (t - c)), by client at least a1 (Q - e). Hence
    Q <= e + (m - e) (a - t + c) / a1 <= e + (m - e) (n - t) / (t - c), which grows with e. A Q above it for e = q - 1
    excludes all e < q.

    The result never exceeds m: (n - t) / (t - c) < 1, since 2t > n + c.

    Args:
        class_members: m, the members of the class.
        quorum: q, the fewest of them over whom a sum may be opened, if over any.
        members: n, the members of the session.
        threshold: t, shares that recover a secret.
        corrupt: c, at most so many members collude with the server.

    Raises:
        QuorumError: Not 1 <= q <= m <= n.
        ThresholdError: Not 0 <= c and n + c < 2t <= 2n.
    """
    m, q, n, t, c = class_members, quorum, members, threshold, corrupt
    if not 1 <= q <= m <= n:
        raise QuorumError(f"class quorum={q} must lie in 1..{m} members of a class, of {n} members")
    if c < 0 or not n + c < 2 * t <= 2 * n:
        raise ThresholdError(f"threshold={t} must be at most {n} members and above half of {n} + corrupt={c}")
    below = q - 1
    return below + (m - below) * (n - t) // (t - c) + 1
