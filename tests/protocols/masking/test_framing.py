"""Liars cannot have an honest client named, and sessions that end early name whom they know."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.errors import BelowThresholdError, CapacityError
from protocols.identity.trust import ThrowawayAuthority
from protocols.masking.commitments import Commitments
from protocols.masking.messages import (
    MaskedInput,
    RevealedShares,
)
from protocols.masking.server.tracing import Dealings
from protocols.profiles import ONE_ANSWER, SEMI_HONEST, MaskingProfile
from protocols.session import ClientId
from tests.contracts.sessions import (
    PROPERTY,
    make_inputs,
    make_session,
    names,
    plain_sum,
    segment,
)
from tests.protocols.masking import parties
from tests.protocols.masking.liars import (
    COUNT,
    LIAR,
    PROFILES,
    VICTIM,
    Tamper,
    a_full_ring,
    assert_exact,
    misdealing,
    most_liars,
    play,
    revealing,
    session_for,
)
from tests.protocols.masking.parties import NOW, EveryonesMasking, ReproducibleMasking


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
