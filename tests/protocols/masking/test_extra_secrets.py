"""Extra secrets are shared like the seeds, and come back as their segment's rule says and in no other way."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.errors import InputError, SessionError, ShareError
from protocols.interface import ExtraSecrets
from protocols.masking.client import create_key_advertisement
from protocols.masking.messages import RevealedShares
from protocols.masking.secure_sum import Masking, MaskingClient
from protocols.masking.terms import MaskingTerms
from protocols.primitives.secret import Secret
from protocols.profiles import CONSISTENCY, INSECURE_TEST_ONLY, ONE_ANSWER, SEMI_HONEST, MaskingProfile
from protocols.session import ClientId, ExtraReveal, Session
from tests.contracts.sessions import (
    PROPERTY,
    Play,
    make_inputs,
    make_session,
    names,
    plain_sum,
    same_bindings,
    segment,
)
from tests.protocols.masking.parties import (
    TRUST,
    EveryonesMasking,
    advertise,
    as_terms,
    mask,
    reveal,
    share,
)
from tests.support.reachable import secrets_of

FIELD = 2**257 - 93
BEYOND = ExtraReveal.BEYOND_MISSING

# What nobody is asked for: two secrets of everyone in segment 0, one of the first two in segment 2.
KEPT = make_session(
    5,
    segment(0, 2, names(5), extra_secrets=2),
    segment(1, 2, names(3)),
    segment(2, 2, names(2), extra_secrets=1),
)
# What survivors give out: of everyone in segment 0, of the first four in segment 2. Those of segment 1 are kept.
GIVEN = make_session(
    6,
    segment(0, 2, names(6), extra_secrets=3, extra_reveal=BEYOND),
    segment(1, 2, names(5), extra_secrets=2),
    segment(2, 2, names(4), 3, extra_secrets=1, extra_reveal=BEYOND),
    threshold=4,
)
GIVING = pytest.mark.parametrize("profile", [SEMI_HONEST, CONSISTENCY], ids=lambda profile: profile.name)


def secrets_for(session: Session, me: ClientId) -> dict[int, list[Secret]]:
    """A member's extra secrets: each names its owner, segment and number."""
    place = session.position(me)
    return {
        part.index: [
            Secret(bytes([place, part.index, number, 9]) * 8) for number in range(part.extra_secrets)
        ]
        for part in session.segments_of(me)
    }


class WithExtras(EveryonesMasking):
    """Every client shares its extra secrets through the door that a participant uses."""

    def client(
        self, session: Session, me: ClientId, *, extra_secrets: ExtraSecrets | None = None
    ) -> MaskingClient:
        """A client with the secrets above."""
        return self.of(me).client(session, me, extra_secrets=secrets_for(session, me))


def play(
    profile: MaskingProfile,
    session: Session = GIVEN,
    *,
    silent: Mapping[str, Iterable[ClientId]] | None = None,
) -> Play:
    """A session whose stages have all closed; by stage, who is silent from it on."""
    whole = Play(WithExtras(profile), session)
    gone: set[ClientId] = set()
    for stage in whole.secure_sum.stages:
        gone |= set((silent or {}).get(stage, ()))
        whole.play(stage, gone)
    return whole


def given_by(play: Play) -> dict[tuple[ClientId, int, int], bytes]:
    """The extra secrets that a result gives."""
    return dict(play.server.result(same_bindings(play.session)).extra_secrets)


def combined(shares: dict[int, bytes]) -> int:
    """Lagrange interpolation at zero, by hand."""
    total = 0
    for x, value in shares.items():
        weight = 1
        for y in set(shares) - {x}:
            weight = weight * y * pow(y - x, -1, FIELD) % FIELD
        total += weight * int.from_bytes(value, "big")
    return total % FIELD


# Sharing.


def shared_extras(session: Session) -> Any:
    """Everyone's bundles after masking."""
    extra: dict[int, ExtraSecrets] = {
        place: secrets_for(session, me) for place, me in enumerate(session.members, start=1)
    }
    advertised, keys = advertise(session, extra=extra)
    shared, deliveries = share(session, advertised, keys)
    return mask(session, shared, deliveries, make_inputs(session))[0]


def test_extra_secrets_come_back_from_any_threshold_of_holders() -> None:
    """Any three of five bundles give every extra secret of everyone, in its place; two give something else."""
    masked = shared_extras(KEPT)

    for owner, me in enumerate(KEPT.members, start=1):
        for index, values in secrets_for(KEPT, me).items():
            for holders in (*combinations(range(1, 6), 3), *combinations(range(1, 6), 2)):
                shares = {h: masked[h].bundles[owner].segments[index].extra for h in holders}
                assert {len(extra) for extra in shares.values()} == {len(values)}
                for place, value in enumerate(values):
                    recovered = combined({h: extra[place] for h, extra in shares.items()})
                    assert (recovered == int.from_bytes(value, "big")) == (len(holders) == 3)


ONE = Secret(bytes(32))
BAD_EXTRA: dict[str, dict[int, list[Secret]] | None] = {
    "none at all": None,
    "none of one segment": {0: [ONE, ONE]},
    "one too few": {0: [ONE], 2: [ONE]},
    "one too many": {0: [ONE, ONE, ONE], 2: [ONE]},
    "some where none belong": {0: [ONE, ONE], 1: [ONE], 2: [ONE]},
    "a segment that does not exist": {0: [ONE, ONE], 2: [ONE], 3: []},
    "a short one": {0: [ONE, Secret(bytes(31))], 2: [ONE]},
    "a long one": {0: [ONE, ONE], 2: [Secret(bytes(33))]},
    "an empty one": {0: [ONE, Secret(b"")], 2: [ONE]},
}


@pytest.mark.parametrize("fault", BAD_EXTRA)
def test_extra_secrets_fit_their_segments(fault: str) -> None:
    """Another number of extra secrets, another segment or another size raises InputError before any key is made."""
    with pytest.raises(InputError, match="segment"):
        Masking().client(KEPT, "client-01", extra_secrets=BAD_EXTRA[fault])

    assert Masking().client(KEPT, "client-01", extra_secrets=secrets_for(KEPT, "client-01")).reply(b"")


@pytest.mark.parametrize("fault", BAD_EXTRA)
def test_the_step_that_commits_to_them_refuses_the_same(fault: str) -> None:
    """Whoever calls the step itself is told so there."""
    with pytest.raises(InputError, match="segment"):
        create_key_advertisement(as_terms(KEPT), "client-01", extra_secrets=BAD_EXTRA[fault])


def test_a_member_of_other_segments_has_no_extra_secrets_there() -> None:
    """A client that gives secrets for a segment it does not belong to raises InputError."""
    secrets = {**secrets_for(KEPT, "client-05"), 2: [ONE]}

    with pytest.raises(InputError, match="segment 2"):
        create_key_advertisement(as_terms(KEPT), "client-05", extra_secrets=secrets)


def test_extra_secrets_go_once_they_are_shared() -> None:
    """After share_keys a client has no use for its extra secrets, and holds none, like the seeds after masking."""
    whole = Play(WithExtras(), KEPT)
    own = {Secret(value) for values in secrets_for(KEPT, "client-01").values() for value in values}

    whole.play("advertise_keys")
    before = secrets_of(whole.clients["client-01"])
    whole.play("share_keys")

    assert own < before
    assert not own & secrets_of(whole.clients["client-01"])


def test_a_session_with_extra_secrets_sums_exactly() -> None:
    """Through the contract, extra secrets change the size of the bundles and nothing else."""
    whole = play(SEMI_HONEST, KEPT, silent={"mask_input": ["client-02"]})

    survivors = [member for member in KEPT.members if member != "client-02"]
    assert whole.sums() == {part.index: plain_sum(whole.inputs, part, survivors) for part in KEPT.segments}


# Giving out.


def test_without_a_rule_extra_secrets_are_revealed_to_nobody() -> None:
    """No share of an extra secret is in what a client reveals to the server, whoever drops out."""
    masked = shared_extras(KEPT)

    _, messages = reveal(KEPT, masked, survivors=(1, 2, 3))

    for me, message in messages.items():
        held = [
            share
            for bundle in masked[me].bundles.values()
            for shares in bundle.segments.values()
            for share in shares.extra
        ]
        assert len(held) == 5 * 2 + 2
        assert not [share for share in held if share in message.to_bytes()]
    assert not given_by(play(SEMI_HONEST, KEPT))


def foretold(session: Session, survivors: Iterable[ClientId]) -> dict[tuple[ClientId, int, int], bytes]:
    """By hand: of every survivor of a segment that opens, all secrets but the first so many as are missing there."""
    alive = set(survivors)
    return {
        (me, part.index, number): bytes(secrets_for(session, me)[part.index][number])
        for part in session.segments
        if part.extra_reveal is BEYOND and len(alive & set(part.members)) >= part.quorum
        for me in sorted(alive & set(part.members))
        for number in range(part.extra_secrets)
        if number >= len(set(part.members) - alive)
    }


def under(profile: MaskingProfile) -> Session:
    """The session that gives out, with the profile's own threshold: 4, or 5 of 6 where the list is signed."""
    return replace(GIVEN, threshold=profile.threshold(6))


@pytest.mark.parametrize(
    ("profile", "gone"),
    [
        *((SEMI_HONEST, gone) for gone in ((), (1,), (6,), (5, 6), (1, 6))),
        *((CONSISTENCY, gone) for gone in ((), (1,), (6,))),
    ],
    ids=lambda value: getattr(value, "name", str(value)),
)
@pytest.mark.parametrize("stage", ["advertise_keys", "share_keys", "mask_input"])
def test_survivors_give_out_all_but_as_many_as_are_missing(
    profile: MaskingProfile, gone: tuple[int, ...], stage: str
) -> None:
    """Whenever members go missing, the server recovers exactly the secrets that the rule gives, of survivors alone."""
    session = under(profile)
    absent = {session.client_at(position) for position in gone}

    found = given_by(play(profile, session, silent={stage: absent}))

    assert found == foretold(session, set(session.members) - absent)
    assert all(type(value) is Secret for value in found.values())


@GIVING
def test_a_survivor_that_is_gone_at_the_reveal_gives_its_secrets_through_the_others(
    profile: MaskingProfile,
) -> None:
    """What shares are for: it has uploaded, so its secrets are needed, and it is there no more."""
    session = under(profile)

    found = given_by(play(profile, session, silent={"reveal_shares": ["client-02"]}))

    assert found == foretold(session, session.members)
    assert found["client-02", 0, 0] == secrets_for(session, "client-02")[0][0]


def test_a_segment_that_stays_closed_gives_nothing() -> None:
    """Below its quorum a segment's extra secrets stay where they are, and the others' come."""
    found = given_by(play(SEMI_HONEST, silent={"mask_input": ["client-01", "client-02"]}))

    assert {index for _, index, _ in found} == {0}
    assert {number for _, _, number in found} == {2}


@PROPERTY
@given(data=st.data())
def test_any_session_gives_what_its_rule_says(data: st.DataObject) -> None:
    """For any members, rooms, rules and drop-outs: exactly the secrets foretold, and exact sums."""
    count = data.draw(st.integers(3, 6))
    parts = [
        segment(
            index,
            1,
            sorted(data.draw(st.sets(st.sampled_from(names(count)), min_size=1))),
            extra_secrets=data.draw(st.integers(0, 4)),
            extra_reveal=data.draw(st.sampled_from(ExtraReveal)),
        )
        for index in range(data.draw(st.integers(1, 3)))
    ]
    session = make_session(count, *parts)
    gone = data.draw(st.sets(st.sampled_from(session.members), max_size=count - session.threshold))
    stage = data.draw(st.sampled_from(["share_keys", "mask_input"]))

    whole = play(SEMI_HONEST, session, silent={stage: gone})
    result = whole.server.result(same_bindings(session))

    survivors = set(session.members) - gone
    assert result.extra_secrets == foretold(session, survivors)
    assert {index: values.tolist() for index, values in result.sums.items()} == {
        part.index: plain_sum(whole.inputs, part, sorted(survivors))
        for part in parts
        if part.index in result.sums
    }


def test_a_sparse_graph_gives_them_too() -> None:
    """With few neighbours each, what they keep is enough."""
    session = make_session(101, segment(0, 1, names(101), extra_secrets=2, extra_reveal=BEYOND), threshold=51)

    found = given_by(play(INSECURE_TEST_ONLY, session, silent={"mask_input": ["client-007"]}))

    assert found == foretold(session, set(session.members) - {"client-007"})
    assert len(found) == 100


def test_a_profile_without_one_list_for_all_gives_nothing_out() -> None:
    """Where a server may tell clients different survivors, terms with such a rule raise SessionError; without, all is well."""
    kept = replace(
        GIVEN, segments=tuple(replace(part, extra_reveal=ExtraReveal.NOTHING) for part in GIVEN.segments)
    )

    with pytest.raises(SessionError, match="segment 0: extra_reveal=BEYOND_MISSING must be NOTHING"):
        MaskingTerms(session=GIVEN, profile=ONE_ANSWER, trust=TRUST)
    assert MaskingTerms(session=kept, profile=ONE_ANSWER, trust=TRUST).given_out(
        kept.segments[0], range(1, 7)
    ) == range(0)


def test_a_client_gives_out_by_its_own_list() -> None:
    """A list with one more missing takes one number more away, whatever a server would like to have."""
    masked = shared_extras(GIVEN)
    full = reveal(GIVEN, masked, survivors=(1, 2, 3, 4, 5, 6))[1][1]
    short = reveal(GIVEN, masked, survivors=(1, 2, 3, 4))[1][1]

    numbers = [{(index, number) for _, index, number in m.extra_shares} for m in (full, short)]

    assert numbers == [{(0, 0), (0, 1), (0, 2), (2, 0)}, {(0, 2), (2, 0)}]
    assert {peer for peer, _, _ in short.extra_shares} == {1, 2, 3, 4}
    assert len(full.extra_shares) == 6 * 3 + 4


def without_one(shares: RevealedShares) -> dict[tuple[int, int, int], Secret]:
    return dict(list(shares.extra_shares.items())[1:])


BAD_REVEALS = {
    "none": lambda _shares: {},
    "one missing": without_one,
    "of a kept secret": lambda shares: {**shares.extra_shares, (1, 1, 0): Secret(bytes(33))},
    "of a number too low": lambda shares: {**shares.extra_shares, (1, 0, 0): Secret(bytes(33))},
    "of a number too high": lambda shares: {**shares.extra_shares, (1, 0, 3): Secret(bytes(33))},
    "of the dropped": lambda shares: {**shares.extra_shares, (6, 0, 2): Secret(bytes(33))},
    "of a stranger": lambda shares: {**shares.extra_shares, (7, 0, 2): Secret(bytes(33))},
    "of no segment": lambda shares: {**shares.extra_shares, (1, 3, 0): Secret(bytes(33))},
}


@pytest.mark.parametrize("fault", BAD_REVEALS)
def test_other_extra_shares_than_the_rule_gives_are_refused(fault: str) -> None:
    """Too few, too many or malformed shares raise ShareError at the server; without their sender it all opens."""
    whole = Play(WithExtras(), GIVEN)
    whole.play("advertise_keys")
    whole.play("share_keys")
    whole.play("mask_input", ["client-06"])
    replies = whole.answers("reveal_shares")
    good = RevealedShares.from_bytes(replies.pop("client-02"))
    bad = replace(good, extra_shares=BAD_REVEALS[fault](good))

    with pytest.raises(ShareError, match="client-02"):
        whole.server.receive("client-02", bad.to_bytes())
    whole.deliver(replies)
    whole.server.close_stage()

    assert given_by(whole) == foretold(GIVEN, set(GIVEN.members) - {"client-06"})


def test_what_was_given_out_does_not_print() -> None:
    """A result shows its sums, and no secret."""
    whole = play(SEMI_HONEST)

    result = whole.server.result(same_bindings(GIVEN))

    assert result.extra_secrets
    assert not [value for value in result.extra_secrets.values() if bytes(value).hex() in repr(result)]
    assert "extra_secrets" not in repr(result)


def test_terms_with_another_rule_are_another_session() -> None:
    """Two parties that disagree about what is given out cannot complete a sum."""
    other = replace(
        GIVEN, segments=(replace(GIVEN.segments[0], extra_reveal=ExtraReveal.NOTHING), *GIVEN.segments[1:])
    )

    assert as_terms(other).context != as_terms(GIVEN).context
