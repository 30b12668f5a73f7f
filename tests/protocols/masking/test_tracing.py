"""Clients that reveal wrong shares, deal wrong ones or say that others did: sums stay exact, liars are named, nobody else is.

Each attack is also played against a server or a client that does without the check in question, and succeeds there.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.masking import checks
from protocols.masking import client as steps
from protocols.masking.messages import (
    KeyAdvertisement,
    RevealedShares,
)
from protocols.masking.server.tracing import Dealings
from protocols.primitives.secret import Secret
from protocols.profiles import CONSISTENCY, INSECURE_TEST_ONLY, ONE_ANSWER, SEMI_HONEST, MaskingProfile
from protocols.session import ClientId, ExtraReveal, Session
from tests.contracts.sessions import (
    PROPERTY,
    make_inputs,
    make_session,
    names,
    plain_sum,
    segment,
)
from tests.protocols.masking.liars import (
    COUNT,
    GONE,
    LIAR,
    PROFILES,
    VICTIM,
    a_full_ring,
    assert_exact,
    misdealing,
    most_liars,
    moved,
    play,
    revealing,
    session_for,
)
from tests.protocols.masking.parties import AUTHORITY, EveryonesMasking
from tests.protocols.masking.test_extra_secrets import WithExtras


def dealing_nothing(monkeypatch: pytest.MonkeyPatch, dealer: ClientId, index: int = 0) -> None:
    """A dealer whose shares of one segment fit its commitments and lie on no polynomial."""
    genuine = steps._split_secrets

    def split(state: Any, holders: list[int], random_bytes: Any) -> Any:
        bundles = genuine(state, holders, random_bytes)
        if state.me != state.terms.session.position(dealer):
            return bundles
        return {
            holder: replace(
                bundle,
                segments={
                    **bundle.segments,
                    index: replace(
                        bundle.segments[index],
                        mask_key=moved(bundle.segments[index].mask_key, holder**40),
                        self_mask=moved(bundle.segments[index].self_mask, holder**40),
                    ),
                },
            )
            for holder, bundle in bundles.items()
        }

    monkeypatch.setattr(steps, "_split_secrets", split)


def a_careless_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server compares nothing with any commitment."""
    monkeypatch.setattr(Dealings, "check", lambda _self, _message: None)
    monkeypatch.setattr(Dealings, "fits", lambda _self, _secret, **_what: True)


KINDS = ("mask_key_shares", "self_mask_shares")


# Those who reveal wrong shares.


@PROFILES
@pytest.mark.parametrize("kinds", [KINDS[:1], KINDS[1:], KINDS], ids=["mask keys", "seeds", "both"])
@pytest.mark.parametrize("silent", [{}, {GONE: "mask_input"}], ids=["all stay", "one drops out"])
def test_wrong_shares_change_nothing_up_to_the_threshold(
    profile: MaskingProfile, kinds: tuple[str, ...], silent: dict[ClientId, str]
) -> None:
    """With one liar, two, half of those beyond the threshold and all of them: exact sums, the liars named and nobody else."""
    session = session_for(profile)
    answering = COUNT - len(silent)
    spare = answering - session.threshold

    for number in sorted({1, 2, spare // 2, spare} & set(range(spare + 1))):
        liars = names(COUNT)[:number]
        result = play(profile, revealing(liars, *kinds), silent=silent)

        assert_exact(result, session)
        # A wrong mask-key share is there only if somebody has dropped out.
        assert set(result.faults) == (set(liars) if silent or kinds != KINDS[:1] else set())
        assert result.disputes == {}


@PROFILES
def test_with_more_liars_segments_stay_closed_and_all_of_them_are_named(profile: MaskingProfile) -> None:
    """One right share too few closes the segments: no sum is wrong, and the text says what was missing."""
    session = session_for(profile)
    liars = names(COUNT)[: COUNT - session.threshold + 1]

    result = play(profile, revealing(liars, *KINDS))

    assert result.sums == {}
    assert all("right shares" in reason for reason in result.refused.values())
    assert set(result.faults) == set(liars)


@PROFILES
def test_a_careless_server_cannot_tell_who_spoilt_its_sums(
    profile: MaskingProfile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: without commitments one wrong share closes every segment, and nobody is named."""
    a_careless_server(monkeypatch)

    result = play(profile, revealing([LIAR], "self_mask_shares"))

    assert result.sums == {}
    assert result.faults == {}


def test_a_careless_server_opens_a_wrong_sum_in_a_full_ring(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control at full capacity: the sum opens, is wrong and nobody is named; with commitments it is exact."""
    session = session_for(SEMI_HONEST, **a_full_ring(monkeypatch))
    whole = play(SEMI_HONEST, revealing([LIAR], "self_mask_shares"), session=session)
    a_careless_server(monkeypatch)
    spoilt = play(SEMI_HONEST, revealing([LIAR], "self_mask_shares"), session=session)

    assert_exact(whole, session)
    assert set(whole.faults) == {LIAR}
    assert spoilt.faults == {}
    assert spoilt.sums[0].tolist() != whole.sums[0].tolist()


REPLACED: dict[str, Callable[[RevealedShares], Mapping[tuple[int, int], Secret]]] = {
    "another owner's": lambda m: {**m.self_mask_shares, (2, 0): m.self_mask_shares[3, 0]},
    "another segment's": lambda m: {**m.self_mask_shares, (2, 0): m.self_mask_shares[2, 1]},
    "its own": lambda m: {**m.self_mask_shares, (2, 0): m.self_mask_shares[1, 0]},
    "zero": lambda m: {**m.self_mask_shares, (2, 0): Secret(bytes(33))},
}


@pytest.mark.parametrize("which", REPLACED)
def test_a_right_share_in_the_wrong_place_is_a_wrong_one(which: str) -> None:
    """A commitment is to one share of one owner, holder and segment: none passes for another."""

    def tamper(client: ClientId, stage: str, reply: bytes) -> bytes:
        if client != LIAR or stage != "reveal_shares":
            return reply
        message = RevealedShares.from_bytes(reply)
        return replace(message, self_mask_shares=REPLACED[which](message)).to_bytes()

    result = play(ONE_ANSWER, tamper)

    assert_exact(result, session_for(ONE_ANSWER))
    assert result.faults == {LIAR: "revealed a wrong share of the self-mask seed of client-02 in segment 0"}


def test_another_holders_share_is_a_wrong_one() -> None:
    """A holder that reveals what a colluding one was dealt is named itself, and the other is not."""
    stolen: dict[str, RevealedShares] = {}

    def tamper(client: ClientId, stage: str, reply: bytes) -> bytes:
        if stage != "reveal_shares":
            return reply
        message = stolen.setdefault(client, RevealedShares.from_bytes(reply))
        return replace(stolen[LIAR], sender=2).to_bytes() if client == VICTIM else message.to_bytes()

    result = play(ONE_ANSWER, tamper)

    assert_exact(result, session_for(ONE_ANSWER))
    assert set(result.faults) == {VICTIM}


@settings(parent=PROPERTY, max_examples=25)
@given(data=st.data())
def test_whatever_lies_are_told_sums_are_exact_or_closed_and_exactly_the_liars_named(
    data: st.DataObject,
) -> None:
    """Any shares of any holders, changed in any way: a segment opens if every owner has enough right shares left."""
    profile = data.draw(st.sampled_from([SEMI_HONEST, ONE_ANSWER, CONSISTENCY]))
    session = session_for(profile, length=40)
    lies = data.draw(
        st.sets(st.tuples(st.integers(1, COUNT), st.integers(1, COUNT), st.sampled_from([0, 1])), max_size=40)
    )
    lies = {lie for lie in lies if lie[2] == 0 or lie[1] <= 7}
    by = data.draw(st.integers(1, 2**257 - 94))

    def tamper(client: ClientId, stage: str, reply: bytes) -> bytes:
        holder = session.position(client)
        if stage != "reveal_shares":
            return reply
        message = RevealedShares.from_bytes(reply)
        shares = {
            (owner, index): moved(share, by) if (holder, owner, index) in lies else share
            for (owner, index), share in message.self_mask_shares.items()
        }
        return replace(message, self_mask_shares=shares).to_bytes()

    result = play(profile, tamper, session=session)

    lost = {
        index
        for index in (0, 1)
        for owner in range(1, COUNT + 1)
        if COUNT - sum((h, owner, index) in lies for h in range(1, COUNT + 1)) < session.threshold
    }
    assert_exact(result, session, {0, 1} - lost)
    assert set(result.refused) == lost
    assert set(result.faults) == {session.client_at(holder) for holder, _, _ in lies}


def test_liars_in_a_sparse_graph_are_named() -> None:
    """Where everyone shares with four others and two shares recover a secret, a liar among them spoils nothing."""
    members = names(104)
    session = make_session(104, segment(0, 60, members, 50))
    liars = members[3:100:20]

    result = play(INSECURE_TEST_ONLY, revealing(liars, *KINDS), session=session)

    assert_exact(result, session, (0,))
    assert set(result.faults) == set(liars)


def test_wrong_shares_of_extra_secrets_are_not_used_either() -> None:
    """Of the secrets that a segment gives out, the right ones come whatever one holder reveals."""
    session = make_session(
        COUNT, segment(0, 40, names(COUNT), extra_secrets=2, extra_reveal=ExtraReveal.BEYOND_MISSING)
    )
    honest = play(SEMI_HONEST, session=session, secure_sum=WithExtras(SEMI_HONEST))

    result = play(
        SEMI_HONEST,
        revealing([LIAR], "extra_shares"),
        session=session,
        secure_sum=WithExtras(SEMI_HONEST),
    )

    assert len(result.extra_secrets) == 2 * COUNT
    assert result.extra_secrets == honest.extra_secrets
    assert "a wrong share of the extra secret 0 of client-01 in segment 0, and 19 more" in result.faults[LIAR]


# Those who deal wrong shares.


@PROFILES
@pytest.mark.parametrize("cheated", [1, 2, 3])
def test_bundles_that_do_not_fit_are_put_aside(profile: MaskingProfile, cheated: int) -> None:
    """The round goes on with all ten clients and exact sums; more disputes than corrupt clients name the dealer alone."""
    session = session_for(profile)
    holders = range(COUNT - cheated + 1, COUNT + 1)

    result = play(profile, misdealing(LIAR, holders), session=session)

    assert_exact(result, session)
    assert result.survivors == names(COUNT)
    assert result.disputes == {session.client_at(holder): (LIAR,) for holder in holders}
    assert set(result.faults) == ({LIAR} if cheated > most_liars(profile) else set())


@PROFILES
def test_a_dealer_who_cheats_too_many_closes_its_segments_and_is_named(profile: MaskingProfile) -> None:
    """Segments of which its secrets cannot be recovered stay closed; that costs it its name, and nobody else theirs."""
    session = session_for(profile)
    holders = range(3, COUNT)

    result = play(profile, misdealing(GONE, holders), session=session)

    assert_exact(result, session, (1,))  # of which it is no member
    assert set(result.faults) == {GONE}
    assert f"about share bundles with 7 clients, more than the {most_liars(profile)} " in result.faults[GONE]


@PROFILES
def test_shares_of_nothing_close_their_segment_alone_and_name_their_dealer(
    profile: MaskingProfile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All shares fit the commitments of the one who dealt them, and give no secret that it committed to: its own word."""
    session = session_for(profile)
    dealing_nothing(monkeypatch, LIAR)

    result = play(profile, session=session)

    assert_exact(result, session, (1,))
    assert "client-01 dealt do not give the secrets" in result.refused[0]
    assert result.faults == {LIAR: "dealt shares of segment 0 that do not give the secrets it committed to"}


@PROFILES
def test_shares_of_nothing_are_found_when_their_dealer_drops_out(
    profile: MaskingProfile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a dealer that never uploads it is the mask key that does not come out: the public key shows it."""
    session = session_for(profile)
    dealing_nothing(monkeypatch, LIAR)

    result = play(profile, session=session, silent={LIAR: "mask_input"})

    assert_exact(result, session, (1,))
    assert set(result.faults) == {LIAR}


def test_a_careless_server_names_nobody_for_shares_of_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: without the commitment to the seed the sum is noise; in a full ring it even opens."""
    session = session_for(SEMI_HONEST, length=1, **a_full_ring(monkeypatch))
    dealing_nothing(monkeypatch, LIAR)
    a_careless_server(monkeypatch)
    monkeypatch.setattr("protocols.masking.server.opening._combined", lambda *_shares: Secret(bytes(32)))

    result = play(SEMI_HONEST, session=session)

    assert result.faults == {}
    assert result.sums[0].tolist() != plain_sum(make_inputs(session), session.segments[0], names(COUNT))


@PROFILES
def test_a_seed_other_than_advertised_names_its_dealer(profile: MaskingProfile) -> None:
    """Whoever signs one commitment and shares another seed has signed its own conviction."""
    session = session_for(profile)

    def tamper(client: ClientId, stage: str, reply: bytes) -> bytes:
        if client != LIAR or stage != "advertise_keys":
            return reply
        message = KeyAdvertisement.from_bytes(reply)
        other = replace(message, commitments={**message.commitments, 1: (bytes(16),)})
        return checks.signed(other, AUTHORITY.identity(LIAR) if message.signature else None).to_bytes()

    # The cheat itself goes by what it has advertised, as far as the directory is concerned.
    secure_sum = EveryonesMasking(profile)
    genuine = secure_sum.client

    def client(session: Session, me: ClientId) -> Any:
        made = genuine(session, me)
        if me == LIAR:
            reply = made.reply

            def cheat(request: bytes) -> bytes:
                answer = reply(request)
                if isinstance(made._state, steps.Advertised):  # type: ignore[attr-defined]
                    shown = KeyAdvertisement.from_bytes(tamper(LIAR, "advertise_keys", answer))
                    made._state = replace(made._state, advertisement=shown)  # type: ignore[attr-defined]
                return answer

            made.reply = cheat  # type: ignore[method-assign]
        return made

    secure_sum.client = client  # type: ignore[method-assign]
    result = play(profile, tamper, session=session, secure_sum=secure_sum)

    assert_exact(result, session, (0,))
    assert result.faults == {LIAR: "dealt shares of segment 1 that do not give the secrets it committed to"}


def test_an_extra_secret_other_than_advertised_closes_the_segment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sum whose noise could not be taken off rightly is not given out."""
    session = make_session(
        COUNT, segment(0, 40, names(COUNT), extra_secrets=1, extra_reveal=ExtraReveal.BEYOND_MISSING)
    )
    genuine = steps._split_secrets

    def split(state: Any, holders: list[int], random_bytes: Any) -> Any:
        if state.me == 1:
            state = replace(state, extra_secrets={0: [Secret(bytes(32))]})
        return genuine(state, holders, random_bytes)

    monkeypatch.setattr(steps, "_split_secrets", split)
    result = play(SEMI_HONEST, session=session, secure_sum=WithExtras(SEMI_HONEST))

    assert (result.sums, result.extra_secrets) == ({}, {})
    assert set(result.faults) == {LIAR}
