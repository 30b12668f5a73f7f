"""A hostile server that shows clients different lists opens no segment over fewer than its quorum."""

import copy
from collections.abc import Collection, Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import combinations, product
from typing import Any, Final

import pytest

from protocols.errors import (
    BelowThresholdError,
    ProtocolError,
    SignatureError,
    StageError,
    WireError,
)
from protocols.masking import checks
from protocols.masking.messages import (
    RevealedShares,
    SignedSurvivors,
)
from protocols.masking.secure_sum import MaskingClient
from protocols.masking.terms import MaskingTerms
from protocols.profiles import CONSISTENCY, ONE_ANSWER, SEMI_HONEST, MaskingProfile
from tests.protocols.masking.hostile import (
    MASK,
    REVEAL,
    SHARE,
    HostileServer,
    authority,
    make_session,
    names,
    plain_sum,
    segment,
    subsets,
)
from tests.protocols.masking.hostile_scenes import (
    PEER,
    SIGNED,
    VICTIM,
    assert_finishes,
    assert_refused,
    profile_name,
    scene,
)
from tests.protocols.masking.hostile_search import answers_to_every_list, best_split, fewest_opened, mount

# One list, and of each peer one kind of share.


@pytest.mark.parametrize("profile", SIGNED, ids=profile_name)
def test_a_second_survivor_list_is_refused(profile: MaskingProfile) -> None:
    """After the first list every other one is out of order, and the first is answered as before."""
    server = scene(profile)
    server.play_before(server.stages[3])
    first = server.request(VICTIM)
    answer = server.hand(VICTIM, first)
    others = [
        server.survivors(VICTIM, survivors | {VICTIM}).to_bytes()
        for survivors in subsets([2, 3, 4, 5])
        if survivors != {2, 3, 4, 5}
    ]
    # After agree_survivors the client reads signatures: a list is not even the right message.
    error = StageError if profile is ONE_ANSWER else WireError

    for request in others:
        with pytest.raises(error):
            server.hand(VICTIM, request)

    assert server.hand(VICTIM, first) == answer
    assert_finishes(server)


@pytest.mark.parametrize("first", [set(), {2}, {3}, {4}, {2, 3}, {3, 4}, {4, 5}], ids=str)
def test_no_order_of_lists_gets_both_kinds_of_share_of_a_peer(first: set[int]) -> None:
    """Asked with every list there is, a client reveals per peer and segment one kind of share, once."""
    server = scene(ONE_ANSWER, REVEAL)
    everyone = {1, 2, 3, 4, 5}
    lists = [everyone - first, *subsets(sorted(everyone))]
    revealed = []

    for survivors in lists:
        for participants in (everyone, set(survivors)):
            request = server.survivors(VICTIM, survivors, participants).to_bytes()
            try:
                revealed.append(RevealedShares.from_bytes(server.hand(VICTIM, request)))
            except ProtocolError:
                continue

    mask_keys = {key for message in revealed for key in message.mask_key_shares}
    self_masks = {key for message in revealed for key in message.self_mask_shares}
    assert not mask_keys & self_masks
    assert {peer for peer, _ in mask_keys} == first
    assert {peer for peer, _ in self_masks} == everyone - first
    assert all(message.to_bytes() == revealed[0].to_bytes() for message in revealed)


def test_a_segment_below_its_reveal_quorum_stays_closed() -> None:
    """A list with two of a segment's holders, its quorum, but fewer than the reveal quorum of three, opens only others."""
    server = scene(ONE_ANSWER, REVEAL)
    server.present = {1, 2, 5}
    server.step()

    assert server.session.segments[1].quorum == 2
    assert server.terms.quorum(server.session.segments[1]) == 3
    assert set(server.opened(0)) == {frozenset({1, 2})}
    assert server.opened(1) == {}
    for position in (1, 2):
        _, answer = server.clients[position]._replied or (b"", b"")
        revealed = RevealedShares.from_bytes(answer)
        assert {index for _, index in revealed.mask_key_shares} == {0}
        assert {index for _, index in revealed.self_mask_shares} == {0}


# Split views: the victim hears of few participants, the others of all.


def split_view(profile: MaskingProfile = ONE_ANSWER, **terms: Any) -> HostileServer:
    """Five clients; the victim masks with 2 and 3 alone, and everybody else with everybody."""
    server = HostileServer(make_session(5, **terms), profile).play_before(MASK)
    server.upload(VICTIM, {1, 2, 3})
    for position in (2, 3, 4, 5):
        server.upload(position, {1, 2, 3, 4, 5})
    server.stage = REVEAL
    return server


# Those who should count the victim's partners as dropped, and the victim as surviving.
SPLIT_VIEW_LISTS: Final = {2: {1, 2, 4, 5}, 3: {1, 3, 4, 5}, 4: {1, 4, 5}, 5: {1, 4, 5}}


def test_a_split_view_is_stopped_by_the_signatures_of_views() -> None:
    """Nobody reveals a share of the victim, which signed that it saw others taking part."""
    server = split_view()

    for position, survivors in SPLIT_VIEW_LISTS.items():
        request = server.survivors(position, survivors).to_bytes()
        assert_refused(server, position, request, SignatureError, "'client-01', participants")

    # The victim itself refuses the others' signatures, and they go on without it.
    request = server.survivors(VICTIM, {1, 2, 3}).to_bytes()
    assert_refused(server, VICTIM, request, SignatureError, "'client-02', participants")
    server.present -= {VICTIM}
    assert_finishes(server)
    assert set(server.opened(0)) == {frozenset({2, 3, 4, 5})}


def test_a_split_view_without_the_check_shows_the_victims_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each client answers once and every list meets the reveal quorum, and yet the victim stands alone and in clear."""
    monkeypatch.setattr(checks, "verify_view", lambda *_args, **_more: None)
    server = split_view()

    for position, survivors in SPLIT_VIEW_LISTS.items():
        server.take(position, server.hand(position, server.survivors(position, survivors).to_bytes()))

    assert server.opened(0)[frozenset({VICTIM})] == plain_sum(server.inputs, 0, [VICTIM])


@pytest.mark.parametrize("profile", SIGNED, ids=profile_name)
def test_a_split_directory_is_stopped_by_the_signatures_of_views(profile: MaskingProfile) -> None:
    """The same with the directory: hiding peers already while keys are shared gives the victim another view, too."""
    server = HostileServer(make_session(5, threshold=profile.threshold(5)), profile).play_before(SHARE)
    few = server.fork()
    few.present = {1, 2, 3, 4}
    server.take(VICTIM, server.hand(VICTIM, few.request(VICTIM)))
    for position in (2, 3, 4, 5):
        server.take(position, server.hand(position, server.request(position)))
    server.stage = MASK
    server.upload(VICTIM, {1, 2, 3, 4})
    for position in (2, 3, 4):
        server.upload(position, {1, 2, 3, 4})  # the same participants, but more have advertised
    server.stage = server.stages[3]

    for position in (2, 3, 4):
        request = server.survivors(position, {1, 2, 3, 4}).to_bytes()
        assert_refused(server, position, request, SignatureError, "'client-01', participants")


def test_a_semi_honest_profile_with_identities_checks_views_too() -> None:
    """Where there are identities the check of views does not depend on the profile."""
    session = make_session(5)
    terms = MaskingTerms(session=session, profile=SEMI_HONEST, trust=authority().view)
    server = HostileServer(session, SEMI_HONEST)
    server.terms = terms
    server.clients = {position: server.client(position, terms) for position in server.present}
    server.play_before(MASK)
    server.upload(VICTIM, {1, 2, 3})
    server.upload(PEER, {1, 2, 3, 4, 5})
    for position in (3, 4, 5):
        server.upload(position, {1, 2, 3, 4, 5})
    server.stage = REVEAL

    request = server.survivors(PEER, {1, 2, 4, 5}).to_bytes()
    assert_refused(server, PEER, request, SignatureError, "'client-01', participants")


# Split lists: different survivors for different clients, one answer from each.


def colluding(profile: MaskingProfile, count: int, corrupt: int) -> MaskingProfile:
    """The profile for just so many colluders among so many members."""
    return replace(profile, corrupt_share=Fraction(corrupt, count))


def all_segments(count: int) -> list[Any]:
    """Every number of holders and every quorum, first with holders alone as members, then padded to the cohort."""
    shapes = [(held, quorum) for held in range(1, count + 1) for quorum in range(1, held + 1)]
    thin = [segment(at, names(count)[:held], quorum, 1) for at, (held, quorum) in enumerate(shapes)]
    padded = [
        replace(part, index=len(shapes) + part.index, members=names(count), holders=part.members)
        for part in thin
        if len(part.members) < count
    ]
    return [*thin, *(replace(part, index=len(shapes) + at) for at, part in enumerate(padded))]


def ready_to_reveal(
    count: int, corrupt: tuple[int, ...], profile: MaskingProfile, *parts: Any, participants: Collection[int]
) -> HostileServer:
    """Everyone has masked for these participants; the others have gone."""
    terms = colluding(profile, count, len(corrupt))
    session = make_session(count, *parts, threshold=terms.threshold(count))
    server = HostileServer(session, terms, corrupt=corrupt).play_before(MASK)
    server.present = set(participants)
    server.step()
    return server


@pytest.mark.parametrize(
    ("count", "corrupt"),
    [(2, ()), (3, ()), (4, ()), (5, ()), (3, (1,)), (3, (3,)), (4, (1,)), (4, (4,)), (5, (1,)), (5, (5,))],
    ids=str,
)
def test_no_split_of_lists_opens_fewer_than_the_quorum(count: int, corrupt: tuple[int, ...]) -> None:
    """Exhaustively: every segment, set of participants and combination of one list per client, asked of real clients.

    A corrupt client, holder of every segment or of the largest alone, gives both kinds of share of everybody.
    """
    parts = all_segments(count)
    threshold = colluding(ONE_ANSWER, count, len(corrupt)).threshold(count)
    opened_somewhere = 0
    for participants in filter(lambda chosen: len(chosen) >= threshold, subsets(range(1, count + 1))):
        server = ready_to_reveal(count, corrupt, ONE_ANSWER, *parts, participants=participants)
        answers = answers_to_every_list(server)

        for part in server.session.segments:
            split = best_split(server, part.index, participants, answers)

            assert not split.both_kinds
            assert split.fewest is None or split.fewest >= part.quorum
            opened_somewhere += split.fewest is not None
    assert opened_somewhere > 0


@pytest.mark.parametrize(("count", "corrupt"), [(3, ()), (4, ()), (3, (1,)), (4, (1,)), (4, (4,))], ids=str)
def test_no_split_of_views_and_lists_opens_fewer_than_the_quorum(
    count: int, corrupt: tuple[int, ...]
) -> None:
    """Exhaustively: every combination of one view and one list per client, asked of real clients.

    The corrupt client signs everybody's view. Quorums of one need no search.
    """
    parts = [part for part in all_segments(count) if part.quorum > 1 and part.members == part.holders]
    parts = [replace(part, index=index) for index, part in enumerate(parts)]
    opened_somewhere, mixed_answers = 0, 0

    for server in with_all_views(count, corrupt, parts):
        answers = answers_to_every_list(server)
        mixed_answers += len({server.views[p] for p in answers}) > 1 and any(answers.values())
        for part in parts:
            fewest = fewest_opened(server, part.index, answers)

            assert fewest is None or fewest >= part.quorum
            opened_somewhere += fewest is not None
    assert opened_somewhere > 0
    assert (mixed_answers > 0) == (
        (count, len(corrupt)) != (3, 1)
    )  # there all three must take part: one view


def test_without_the_check_of_views_the_same_search_finds_the_victim(monkeypatch: pytest.MonkeyPatch) -> None:
    """The split view of five clients opens over no fewer than the quorum with the check, without it over the victim alone."""
    server = split_view()
    checked = fewest_opened(server, 0, answers_to_every_list(server))
    monkeypatch.setattr(checks, "verify_view", lambda *_args, **_more: None)

    unchecked = fewest_opened(server, 0, answers_to_every_list(server))

    assert server.session.segments[0].quorum == 2
    assert (checked, unchecked) == (3, 1)


def with_all_views(count: int, corrupt: tuple[int, ...], parts: list[Any]) -> Iterator[HostileServer]:
    """Everyone has masked: once for every way to tell each honest client of enough participants."""
    terms = colluding(ONE_ANSWER, count, len(corrupt))
    everyone = range(1, count + 1)
    session = make_session(count, *parts, threshold=terms.threshold(count))
    start = HostileServer(session, terms, corrupt=corrupt).play_before(MASK)
    honest = sorted(start.clients)
    views = [
        [told for told in subsets(everyone) if position in told and len(told) >= session.threshold]
        for position in honest
    ]
    for told in product(*views):
        server = start.fork()
        for position, participants in zip(honest, told, strict=True):
            server.upload(position, participants)
        for position in corrupt:
            server.upload(position, everyone)
        server.stage = REVEAL
        yield server


def test_what_the_search_finds_is_what_the_attacker_can_open() -> None:
    """The best split of a search, really mounted, opens just the sum that was foretold and no other."""
    parts = all_segments(4)
    server = ready_to_reveal(4, (), ONE_ANSWER, *parts, participants={1, 2, 3, 4})
    answers = answers_to_every_list(server)

    for part in server.session.segments:
        split = best_split(server, part.index, {1, 2, 3, 4}, answers)
        opened = mount(server, split, answers).opened(part.index)

        assert opened == {split.opened: plain_sum(server.inputs, part.index, split.opened)}


def test_with_the_quorum_for_a_reveal_quorum_a_split_shows_the_victims_input(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Four holders of five members, quorum two: lists with two holders each leave one of them in clear."""
    everyone = {1, 2, 3, 4, 5}
    part = segment(0, names(4), quorum=2)
    strict = ready_to_reveal(5, (), ONE_ANSWER, part, participants=everyone)
    monkeypatch.setattr(MaskingTerms, "quorum", lambda _terms, part: part.quorum)
    loose = ready_to_reveal(5, (), ONE_ANSWER, part, participants=everyone)
    answers = answers_to_every_list(loose)

    split = best_split(loose, 0, everyone, answers)
    (victim,) = split.opened

    assert split.fewest == 1
    assert mount(loose, split, answers).opened(0) == {
        split.opened: plain_sum(loose.inputs, 0, [victim]),
    }
    # The very same lists, given to clients that keep the reveal quorum of three, open nothing.
    monkeypatch.undo()
    for position, survivors in split.lists.items():
        strict.take(position, strict.hand(position, strict.survivors(position, survivors).to_bytes()))
    assert strict.terms.quorum(part) == 3
    assert strict.opened(0) == {}


def test_with_a_colluder_too_the_quorum_alone_is_not_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five holders of six, one of them corrupt, quorum three: a split leaves the victim with the colluder alone."""
    everyone, corrupt = {1, 2, 3, 4, 5, 6}, (2,)
    part = segment(0, names(5), quorum=3)
    strict = ready_to_reveal(6, corrupt, ONE_ANSWER, part, participants=everyone)
    strict_answers = answers_to_every_list(strict)
    monkeypatch.setattr(MaskingTerms, "quorum", lambda _terms, part: part.quorum)
    loose = ready_to_reveal(6, corrupt, ONE_ANSWER, part, participants=everyone)
    answers = answers_to_every_list(loose)

    split = best_split(loose, 0, everyone, answers)
    (victim,) = split.opened

    assert split.fewest == 2
    assert mount(loose, split, answers).open_over([victim], 0) == plain_sum(loose.inputs, 0, [victim])
    monkeypatch.undo()
    assert strict.terms.quorum(part) == 4
    assert best_split(strict, 0, everyone, strict_answers).fewest in {None, 3, 4, 5}


@pytest.mark.parametrize("count", [3, 4, 5])
def test_below_the_threshold_of_the_profile_both_secrets_of_a_client_come_out(
    monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """With a threshold of half the members a split recovers mask key and self mask of one client: 2t > n + c is needed."""
    everyone = set(range(1, count + 1))
    low = count // 2
    monkeypatch.setattr(MaskingProfile, "threshold", lambda _profile, _members: low)
    session = make_session(count, segment(0, names(count), 1), threshold=count // 2 + 1)
    object.__setattr__(session, "threshold", low)
    monkeypatch.setattr(MaskingTerms, "quorum", lambda _terms, part: part.quorum)
    server = HostileServer(session, ONE_ANSWER).play_before(REVEAL)
    answers = answers_to_every_list(server)

    split = best_split(server, 0, everyone, answers)

    assert split.both_kinds


# Split lists under a signed list.


@pytest.mark.parametrize(
    ("count", "corrupt"), [(3, ()), (4, ()), (5, ()), (3, (3,)), (4, (4,)), (5, (5,))], ids=str
)
def test_two_different_lists_are_never_both_answered(count: int, corrupt: tuple[int, ...]) -> None:
    """Exhaustively: any two lists, honest clients split between them in every way, corrupt ones signing both."""
    everyone = frozenset(range(1, count + 1))
    server = ready_to_reveal(count, corrupt, CONSISTENCY, segment(0, names(count), 1), participants=everyone)
    threshold = server.session.threshold
    signed: dict[frozenset[int], dict[int, MaskingClient]] = {}
    signatures: dict[frozenset[int], dict[int, bytes]] = {}
    for survivors in subsets(sorted(everyone)):
        for position, client in server.clients.items():
            agreed = copy.copy(client)
            try:
                agreed.reply(server.survivors(position, survivors).to_bytes())
            except ProtocolError:
                continue
            signed.setdefault(survivors, {})[position] = agreed
    for survivors, clients in signed.items():
        server_view = {p: SignedSurvivors.from_bytes(c._replied[1]).signature for p, c in clients.items()}  # type: ignore[index]
        puppets = {p: server.puppet_signature(p, server.survivors(min(clients), survivors)) for p in corrupt}
        signatures[survivors] = server_view | {p: s for p, s in puppets.items() if p in survivors}
    one_revealed = 0

    for one, other in combinations(signed, 2):
        honest = sorted(server.clients)
        for side in product((one, other), repeat=len(honest)):
            asked = {p: chosen for p, chosen in zip(honest, side, strict=True) if p in signed[chosen]}
            revealed = set()
            for position, chosen in asked.items():
                given = {
                    p: s for p, s in signatures[chosen].items() if p in corrupt or asked.get(p) == chosen
                }
                try:
                    copy.copy(signed[chosen][position]).reply(server.shown(given).to_bytes())
                except BelowThresholdError:
                    assert len(given) < threshold
                else:
                    revealed.add(chosen)
            assert len(revealed) <= 1
            one_revealed += len(revealed)
    assert (one_revealed > 0) == (count > 3)  # of three, all must sign: there is one list


def test_without_the_signatures_a_split_shows_the_victims_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven clients, one corrupt, five holders, quorum three: lists that drop two holders each isolate the victim."""
    everyone, victim, corrupt = set(range(1, 8)), 1, (2,)
    part = segment(0, names(5), quorum=3)
    server = ready_to_reveal(7, corrupt, CONSISTENCY, part, participants=everyone)
    # Holders 3, 4 and 5 must each be dropped by four of the six honest clients.
    drops = {1: {3, 4}, 3: {4, 5}, 4: {3, 5}, 5: {3, 4}, 6: {3, 5}, 7: {4, 5}}
    strict = server.fork()

    monkeypatch.setattr(checks, "check_signatures", lambda *_args: None)
    for position, dropped in drops.items():
        server.hand(position, server.survivors(position, everyone - dropped).to_bytes())
        revealed = server.clients[position].reply(server.shown({}).to_bytes())
        server.seen.keep(RevealedShares.from_bytes(revealed))

    assert server.opened(0) == {frozenset({victim}): plain_sum(server.inputs, 0, [victim])}
    # With the check, all signatures that such lists can get do not satisfy anybody.
    monkeypatch.undo()
    lists = {p: strict.survivors(p, everyone - dropped) for p, dropped in drops.items()}
    given = {p: SignedSurvivors.from_bytes(strict.hand(p, lists[p].to_bytes())).signature for p in lists}
    for position, survivors in lists.items():
        shown_to_it = {**given, 2: strict.puppet_signature(2, survivors)}
        mine = {p: s for p, s in shown_to_it.items() if p in survivors.survivors}
        strict.stage = REVEAL
        assert_refused(strict, position, strict.shown(mine).to_bytes(), SignatureError, "survivor list")
        alike = {p: s for p, s in mine.items() if p == 2 or lists[p] == survivors}
        assert_refused(strict, position, strict.shown(alike).to_bytes(), BelowThresholdError, "signatures")
    assert strict.opened(0) == {}
