"""Clients that reveal wrong shares, deal wrong ones or say that others did: sums stay exact, liars are named, nobody else is.

Each attack is also played against a server or a client that does without the check in question, and succeeds there.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.errors import BelowThresholdError, CapacityError
from protocols.identity.trust import ThrowawayAuthority
from protocols.interface import SumResult
from protocols.masking import checks
from protocols.masking import client as steps
from protocols.masking.commitments import Commitments
from protocols.masking.messages import (
    KeyAdvertisement,
    MaskedInput,
    RevealedShares,
    SealedShares,
)
from protocols.masking.server.tracing import Dealings
from protocols.primitives.secret import Secret
from protocols.profiles import CONSISTENCY, INSECURE_TEST_ONLY, ONE_ANSWER, SEMI_HONEST, MaskingProfile
from protocols.run import run_session
from protocols.session import ClientId, ExtraReveal, Session
from tests.contracts.sessions import (
    PROPERTY,
    make_inputs,
    make_session,
    names,
    plain_sum,
    same_bindings,
    segment,
)
from tests.protocols.masking import parties
from tests.protocols.masking.parties import AUTHORITY, NOW, EveryonesMasking, ReproducibleMasking
from tests.protocols.masking.test_extra_secrets import WithExtras

PROFILES = pytest.mark.parametrize(
    "profile", [SEMI_HONEST, ONE_ANSWER, CONSISTENCY], ids=lambda profile: profile.name
)
COUNT = 10
LIAR, VICTIM, GONE = "client-01", "client-02", "client-10"
Tamper = Callable[[ClientId, str, bytes], bytes]


def session_for(profile: MaskingProfile, length: int = 60, **terms: Any) -> Session:
    """Ten members; one segment for all of them and one for the first seven."""
    everyone = names(COUNT)
    parts = (segment(0, length, everyone, 3), segment(1, length, everyone[:7], 2))
    return make_session(COUNT, *parts, threshold=profile.threshold(COUNT), **terms)


def play(
    profile: MaskingProfile,
    *tampers: Tamper,
    session: Session | None = None,
    silent: Mapping[ClientId, str] | None = None,
    secure_sum: EveryonesMasking | None = None,
) -> SumResult:
    """A session on whose replies every tamper has a go."""
    session = session or session_for(profile)

    def tamper(client: ClientId, stage: str, reply: bytes) -> bytes:
        for one in tampers:
            reply = one(client, stage, reply)
        return reply

    return run_session(
        secure_sum or ReproducibleMasking(profile=profile),
        session,
        make_inputs(session),
        bindings=same_bindings(session),
        silent_from=silent,
        tamper=tamper,
    )


def assert_exact(result: SumResult, session: Session, segments: Iterable[int] = (0, 1)) -> None:
    """These segments and no others are open, and are the sums over the survivors."""
    inputs = make_inputs(session)
    assert {index: values.tolist() for index, values in result.sums.items()} == {
        index: plain_sum(inputs, session.segments[index], result.survivors) for index in segments
    }


def moved(share: bytes, by: int = 1) -> Secret:
    """Another element of the field."""
    return Secret(((int.from_bytes(share, "big") + by) % (2**257 - 93)).to_bytes(33, "big"))


def revealing(liars: Iterable[ClientId], *kinds: str) -> Tamper:
    """Liars whose shares of these kinds are all wrong."""
    lying = set(liars)

    def tamper(client: ClientId, stage: str, reply: bytes) -> bytes:
        if client not in lying or stage != "reveal_shares":
            return reply
        message = RevealedShares.from_bytes(reply)
        changed = {kind: {k: moved(s) for k, s in getattr(message, kind).items()} for kind in kinds}
        return replace(message, **changed).to_bytes()

    return tamper


def disputing(accusations: Mapping[ClientId, Iterable[ClientId]]) -> Tamper:
    """Clients that cannot use bundles, they say."""

    def tamper(client: ClientId, stage: str, reply: bytes) -> bytes:
        if client not in accusations or stage not in {"mask_input", "reveal_shares"}:
            return reply
        accused = tuple(sorted(names(COUNT).index(name) + 1 for name in accusations[client]))
        if stage == "mask_input":
            return replace(MaskedInput.from_bytes(reply), disputed=accused).to_bytes()
        message = RevealedShares.from_bytes(reply)
        kept = {
            kind: {key: share for key, share in getattr(message, kind).items() if key[0] not in accused}
            for kind in ("mask_key_shares", "self_mask_shares")
        }
        return replace(message, **kept).to_bytes()

    return tamper


def misdealing(dealer: ClientId, holders: Iterable[int]) -> Tamper:
    """A dealer whose bundles for some holders are not what it commits to."""
    cheated = set(holders)

    def tamper(client: ClientId, stage: str, reply: bytes) -> bytes:
        if client != dealer or stage != "share_keys":
            return reply
        message = SealedShares.from_bytes(reply)
        spoilt = {h: bytes(len(c)) if h in cheated else c for h, c in message.commitments.items()}
        return replace(message, commitments=spoilt).to_bytes()

    return tamper


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


def a_full_ring(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Sessions may use up the ring to the last bit; terms that do."""
    monkeypatch.setattr("protocols.session.capacity", lambda n, *, bits: (2 ** (bits - 1) - 1) // n)
    return {"ring_bits": 20, "input_bound": (2**19 - 1) // COUNT}


def most_liars(profile: MaskingProfile) -> int:
    """How many of the ten the profile stands: beside a server that follows the protocol all below the threshold."""
    return profile.threshold(COUNT) - 1 if profile is SEMI_HONEST else profile.corrupt(COUNT)


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


# Those who try to have others named.


@PROFILES
def test_one_client_cannot_have_an_honest_one_named(profile: MaskingProfile) -> None:
    """Whoever says of one or of all others that their bundles are no use is in dispute with them: only itself can be named."""
    session = session_for(profile)
    others = names(COUNT)[1:]

    one = play(profile, disputing({LIAR: [VICTIM]}), session=session)
    everyone = play(profile, disputing({LIAR: others}), session=session)

    for result in (one, everyone):
        assert_exact(result, session)
    assert (one.faults, one.disputes) == ({}, {LIAR: (VICTIM,)})
    assert set(everyone.faults) == {LIAR}
    assert everyone.disputes == {LIAR: others}


def test_as_many_as_may_be_corrupt_cannot_have_an_honest_one_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound is the profile's: with a tenth of the members in league, all against one, the one is not named."""
    members = names(20)
    authority = ThrowawayAuthority.create(dict.fromkeys(members, 4), now=NOW)
    monkeypatch.setattr(parties, "AUTHORITY", authority)
    session = make_session(20, segment(0, 40, members), threshold=ONE_ANSWER.threshold(20))
    assert ONE_ANSWER.corrupt(20) == 2

    for accusers, named in ((members[:2], set()), (members[:3], {"client-20"})):

        def tamper(client: ClientId, stage: str, reply: bytes, accusers: tuple[str, ...] = accusers) -> bytes:
            if client not in accusers:
                return reply
            if stage == "mask_input":
                return replace(MaskedInput.from_bytes(reply), disputed=(20,)).to_bytes()
            if stage == "reveal_shares":
                message = RevealedShares.from_bytes(reply)
                kept = {key: share for key, share in message.self_mask_shares.items() if key[0] != 20}
                return replace(message, self_mask_shares=kept).to_bytes()
            return reply

        everyone = EveryonesMasking(ONE_ANSWER, trust=authority.trust(NOW + 1))
        result = play(ONE_ANSWER, tamper, session=session, secure_sum=everyone)

        assert_exact(result, session, (0,))
        assert set(result.faults) == named


@PROFILES
def test_liars_below_what_the_profile_stands_have_no_honest_one_named(profile: MaskingProfile) -> None:
    """Accusers name pairs alone; one more than may lie, or an accuser of too many, is named."""
    most, session = most_liars(profile), session_for(profile)
    for number in (1, 2, most, most + 1):
        accusers = names(COUNT)[2 : 2 + number]

        result = play(profile, disputing(dict.fromkeys(accusers, (VICTIM,))), session=session)

        assert set(result.faults) == ({VICTIM} if number > most else set())
        assert result.disputes == dict.fromkeys(accusers, (VICTIM,))


def test_two_liars_frame_an_honest_client_where_a_tenth_is_taken_for_all_who_lie(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The control: beside a server that follows the protocol more than a tenth may lie, and two are enough for a name."""
    monkeypatch.setattr(Dealings, "_most", lambda _self: 1)

    result = play(SEMI_HONEST, disputing(dict.fromkeys(names(COUNT)[2:4], (VICTIM,))))

    assert set(result.faults) == {VICTIM}


@PROFILES
def test_a_session_that_ends_below_its_threshold_names_whom_it_knows(profile: MaskingProfile) -> None:
    """Nothing opens; who has revealed wrong shares, and who is in dispute, the server can tell all the same."""
    session = session_for(profile)
    server: list[Any] = []
    secure_sum = EveryonesMasking(profile)
    genuine = secure_sum.server
    secure_sum.server = lambda session: server.append(genuine(session)) or server[0]  # type: ignore[method-assign, func-returns-value]
    silent = dict.fromkeys(names(COUNT)[session.threshold - 1 :], "reveal_shares")

    with pytest.raises(BelowThresholdError):
        play(
            profile,
            revealing([LIAR], "self_mask_shares"),
            disputing({VICTIM: ["client-03"]}),
            session=session,
            silent=silent,
            secure_sum=secure_sum,
        )

    assert set(server[0].faults) == {LIAR}
    assert server[0].disputes == {VICTIM: ("client-03",)}


@PROFILES
def test_a_dealer_cannot_have_a_holder_named(profile: MaskingProfile) -> None:
    """A holder that was dealt a share other than its commitment says so before it reveals anything, and is not named."""
    result = play(profile, misdealing(LIAR, [2]))

    assert result.faults == {}
    assert result.disputes == {VICTIM: (LIAR,)}


@PROFILES
def test_a_careless_holder_is_named_for_its_dealers_lie(
    profile: MaskingProfile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: a holder that does not compare on delivery reveals what it was dealt, and is named for it."""
    monkeypatch.setattr(Commitments, "digest", lambda _self, _made, **_whose: bytes(32))

    result = play(profile, misdealing(LIAR, [2]))

    assert set(result.faults) == {VICTIM}


# Garbage.


def garbling(client: ClientId, stage: str, reply: bytes) -> bytes:
    """An upload that one client has made something else of."""
    if client != LIAR or stage != "mask_input":
        return reply
    message = MaskedInput.from_bytes(reply)
    noise = np.random.default_rng(7)
    garbage = {
        index: v ^ noise.integers(2**32, size=len(v), dtype=np.uint32)
        for index, v in message.segments.items()
    }
    return replace(message, segments=garbage).to_bytes()


@PROFILES
@pytest.mark.parametrize("bits", [16, 20, 24, 32])
def test_a_garbled_upload_closes_its_segments_with_the_largest_inputs_too(
    profile: MaskingProfile, bits: int
) -> None:
    """One bit of the ring is kept free: at the largest bound a session may have, noise does not pass for a sum."""
    bound = (2 ** (bits - 2) - 1) // COUNT
    session = session_for(profile, ring_bits=bits, input_bound=bound)

    result = play(profile, garbling, session=session)

    assert result.sums == {}
    assert all("did not follow the protocol" in reason for reason in result.refused.values())
    assert result.faults == {}  # masks hide whose it is
    with pytest.raises(CapacityError, match="a sum that went wrong could pass for a right one"):
        session_for(profile, ring_bits=bits, input_bound=bound + 1)


def test_a_garbled_upload_opens_to_a_wrong_sum_in_a_full_ring(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: with the ring used up any value can be a sum, and a wrong one is given out."""
    full = a_full_ring(monkeypatch)
    session = session_for(SEMI_HONEST, **full)

    result = play(SEMI_HONEST, garbling, session=session)

    assert result.sums[0].tolist() != plain_sum(make_inputs(session), session.segments[0], names(COUNT))


def test_short_segments_pass_as_often_as_the_claim_says() -> None:
    """With L elements a uniform error passes with probability 2^-L at most: of 400 draws about half, a quarter, an eighth."""
    for length in (1, 2, 3):
        members = names(3)
        session = make_session(3, segment(0, length, members), input_bound=(2**14 - 1) // 3, ring_bits=16)
        passed = 0
        for seed in range(400):
            noise = np.random.default_rng([seed, length])

            def garble(client: ClientId, stage: str, reply: bytes, noise: Any = noise) -> bytes:
                if client != LIAR or stage != "mask_input":
                    return reply
                upload = MaskedInput.from_bytes(reply)
                garbage = noise.integers(2**32, size=len(upload.segments[0]), dtype=np.uint32)
                return replace(upload, segments={0: garbage}).to_bytes()

            drawn = ReproducibleMasking(f"{seed} {length}")
            passed += 0 in play(SEMI_HONEST, garble, session=session, secure_sum=drawn).sums

        # Within 4.5 standard deviations.
        share = 2.0**-length
        assert abs(passed - 400 * share) < 4.5 * (400 * share * (1 - share)) ** 0.5


# The commitments themselves.


@PROPERTY
@given(data=st.data())
def test_no_two_commitments_are_to_the_same(data: st.DataObject) -> None:
    """Whatever differs (context, owner, holder, segment, number, value, kind) makes another commitment."""
    numbers = st.integers(0, 2**16 - 1)
    what = st.tuples(
        st.sampled_from([bytes(32), b"\x01" * 32]),
        numbers,
        numbers,
        numbers,
        numbers,
        st.binary(min_size=32, max_size=33),
    )
    one, other = data.draw(what), data.draw(what)

    def share(given: tuple[bytes, int, int, int, int, bytes]) -> bytes:
        context, owner, holder, index, number, value = given
        return Commitments(context).shares([(owner, index, number, value)], holder=holder)[0]

    def secret(given: tuple[bytes, int, int, int, int, bytes]) -> bytes:
        context, owner, _, index, number, value = given
        return Commitments(context).secret(value, owner=owner, segment=index, number=number)

    assert (share(one) == share(other)) == (one == other)
    assert secret(one) not in {share(one), share(other)}
    assert (secret(one) == secret(other)) == (one[:2] + one[3:] == other[:2] + other[3:])
    assert len(share(one)) == len(secret(one)) == 16
