"""A hostile server that tells clients other terms, or mixes sessions, learns nothing."""

import copy
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from protocols.errors import (
    ContextError,
    RosterError,
    SealError,
    SignatureError,
    StageError,
    WireError,
)
from protocols.masking.messages import (
    MaskedInput,
)
from protocols.masking.terms import MaskingTerms
from protocols.profiles import CONSISTENCY, ONE_ANSWER, SEMI_HONEST, MaskingProfile
from tests.protocols.masking.hostile import (
    ADVERTISE,
    MASK,
    REVEAL,
    SHARE,
    HostileServer,
    bytes_in,
    make_inputs,
    make_session,
    names,
    plain_sum,
    secrets_in,
    segment,
)
from tests.protocols.masking.hostile_scenes import (
    PEER,
    SIGNED,
    VICTIM,
    assert_finishes,
    assert_refused,
    delivered,
    genuine,
    profile_name,
    relabelled,
    scene,
    shown,
    swap,
    view_with,
    with_view_signature,
)

# Other terms for one client than for the rest.


def other_terms(server: HostileServer, what: str) -> MaskingTerms:
    """The terms of the scene with one of them different."""
    session, terms = server.session, server.terms
    first, second = session.segments
    changed: dict[str, dict[str, Any]] = {
        "threshold": {"threshold": session.threshold + 1},
        "ring": {"ring_bits": 24},
        "bound": {"input_bound": 999},
        "round": {"round": 3},
        "attempt": {"attempt": 2},
        "run": {"run": bytes(16)},
        "configuration": {"config_digest": bytes(32)},
        "segment length": {"segments": (first, replace(second, length=2))},
        "segment quorum": {"segments": (replace(first, quorum=1), second)},
        "segment members": {"segments": (first, replace(second, members=names(3), holders=names(3)))},
        "segment holders": {"segments": (first, replace(second, holders=names(3)))},
        "one segment less": {"segments": (first,)},
        "cohort": {"members": names(6), "threshold": server.profile.threshold(6)},
    }
    if what == "profile":
        return replace(terms, profile=SEMI_HONEST)
    if what == "roster":
        return replace(terms, trust=view_with(genuine(5).certificate))
    return replace(terms, session=replace(session, **changed[what]))


TERMS = (
    *("threshold", "ring", "bound", "round", "attempt", "run", "configuration", "segment length"),
    *(
        "segment quorum",
        "segment members",
        "segment holders",
        "one segment less",
        "cohort",
        "profile",
        "roster",
    ),
)


@pytest.mark.parametrize("profile", SIGNED, ids=profile_name)
@pytest.mark.parametrize("what", TERMS)
def test_a_client_that_was_told_other_terms_meets_nobody(what: str, profile: MaskingProfile) -> None:
    """Neither the odd client nor the others accept each other's keys, however the server relabels them."""
    server = scene(profile)
    odd = other_terms(server, what)
    server.clients[VICTIM] = server.client(VICTIM, odd)
    server.step()
    mixed = server.directory()
    named_alike = relabelled(mixed, server.terms.context)
    named_odd = replace(
        relabelled(mixed, odd.context),
        advertisements=(
            mixed.advertisements[0],
            *relabelled(mixed, odd.context).advertisements[1:],
        ),
    )
    # With another number of segments the shape of an advertisement gives it away first.
    error = RosterError if what == "one segment less" else SignatureError

    assert odd.context != server.terms.context
    assert_refused(server, PEER, mixed.to_bytes(), ContextError, "another session")
    assert_refused(server, PEER, named_alike.to_bytes(), error, "client-01")
    assert_refused(server, VICTIM, mixed.to_bytes(), ContextError, "another session")
    assert_refused(server, VICTIM, named_odd.to_bytes(), error, "client-02")

    server.present -= {VICTIM}
    assert_finishes(server)


@pytest.mark.parametrize("what", [w for w in TERMS if w not in {"profile", "roster", "one segment less"}])
def test_without_signatures_other_terms_are_found_when_shares_are_opened(what: str) -> None:
    """Even where the server can relabel every key unnoticed, nobody can open what was sealed under other terms."""
    server = HostileServer(make_session(5), SEMI_HONEST).play_before(ADVERTISE)
    odd = other_terms(server, what)
    server.clients[VICTIM] = server.client(VICTIM, odd)
    server.inputs[VICTIM] = make_inputs(odd.session)[VICTIM]
    server.step()
    own = replace(server.advertisements[VICTIM], context=server.terms.context)
    context = server.terms.context
    whole = server.directory(own)
    for position in (2, 3, 4, 5):
        server.take(position, server.hand(position, relabelled(whole, context).to_bytes()))
    if what != "segment members":  # there the advertisements of others have the wrong shape
        server.take(VICTIM, server.hand(VICTIM, relabelled(whole, odd.context).to_bytes()))
        server.stage = MASK
        to_victim = replace(server.delivery(VICTIM), context=odd.context)

        assert_refused(server, VICTIM, to_victim.to_bytes(), SealError, "client-02")
        # One odd bundle is put aside; the others, who were told the same, can go on.
        twin = copy.copy(server.clients[PEER])
        upload = twin.contribute(server.delivery(PEER).to_bytes(), server.inputs[PEER])
        assert MaskedInput.from_bytes(upload).disputed == (VICTIM,)
    else:
        with pytest.raises(RosterError, match="one mask key for each"):
            server.hand(VICTIM, relabelled(whole, odd.context).to_bytes())
        server.stage = MASK

    server.present -= {VICTIM}
    assert_finishes(server)


# Messages again, late, early, or of another session.


@pytest.mark.parametrize("profile", SIGNED, ids=profile_name)
def test_messages_out_of_order_change_nothing(profile: MaskingProfile) -> None:
    """At every stage every request of every other stage is refused, or is the last one and answered as before."""
    server = scene(profile)
    moments, requests, answered = [], [], {}
    while server.stage is not None:
        moments.append(server.fork())
        requests.append(server.request(VICTIM))
        server.step()
        client = server.clients[VICTIM]
        answered.update(kept for kept in (client._replied, client._contributed) if kept is not None)
    moments.append(server.fork())
    repeated = 0

    for now, moment in enumerate(moments):
        client = moment.clients[VICTIM]
        before = dict(vars(client))
        for request in requests[:now] + requests[now + 1 :]:
            for call in (client.reply, partial(client.contribute, inputs=moment.inputs[VICTIM])):
                try:
                    answer = call(request)
                except (StageError, WireError):
                    continue
                finally:
                    assert vars(client) == before
                assert request in requests[:now]
                assert answer == answered[request]
                repeated += 1

    # From mask_input on both calls have a last request.
    assert repeated == 2 * (len(requests) - 1)


@pytest.mark.parametrize("profile", SIGNED, ids=profile_name)
@pytest.mark.parametrize("terms", [{"round": 1}, {"attempt": 2}, {"run": bytes(16)}], ids=str)
def test_requests_of_another_session_are_refused_at_every_stage(
    terms: dict[str, Any], profile: MaskingProfile
) -> None:
    """The client of one session takes no request of another, whatever the stage of either."""
    server, other = scene(profile), scene(profile, **terms)
    server.step()
    other.step()
    foreign = []
    while other.stage is not None:
        foreign.append(other.request(VICTIM))
        other.step()

    while server.stage is not None:
        for request in foreign:
            with pytest.raises((ContextError, WireError)):
                server.hand(VICTIM, request)
        server.step()

    assert server.finish() == server.plain()


@pytest.mark.parametrize("terms", [{"round": 1}, {"attempt": 2}, {"run": bytes(16)}], ids=str)
def test_uploads_and_shares_of_two_sessions_do_not_combine(terms: dict[str, Any]) -> None:
    """A client surviving here and dropped there gives both kinds of share, but of different secrets: nothing opens."""
    here, there = scene(ONE_ANSWER, MASK), scene(ONE_ANSWER, MASK, **terms)
    here.step()
    there.step()
    there.present -= {VICTIM}
    assert here.finish() == here.plain()
    assert there.finish() == there.plain()

    for index in (0, 1):
        here.seen.mask_keys |= {key: s for key, s in there.seen.mask_keys.items() if key[1] == index}
        there.seen.self_masks[VICTIM, index] = here.seen.self_masks[VICTIM, index]

        found = here.mask_key_of(VICTIM, index)

        assert found is not None
        assert found.public == there.advertisements[VICTIM].mask_keys[index]
        assert found.public != here.advertisements[VICTIM].mask_keys[index]
        for server in (here, there):
            alone = server.open_over([VICTIM], index)
            assert alone is not None
            assert alone != plain_sum(server.inputs, index, [VICTIM])


@pytest.mark.parametrize("terms", [{"round": 1}, {"attempt": 2}, {"run": bytes(16)}], ids=str)
@pytest.mark.parametrize("profile", SIGNED, ids=profile_name)
def test_clients_that_repeat_their_randomness_still_bind_everything_to_the_session(
    profile: MaskingProfile, terms: dict[str, Any]
) -> None:
    """Set back to a copy of themselves, clients have the same keys and nonces: no signature or bundle fits both sessions."""
    here, there = (
        HostileServer(make_session(5, **{"threshold": profile.threshold(5), **more}), profile, repeats=True)
        for more in ({}, terms)
    )
    there.play_before(REVEAL)

    here.play_before(SHARE)
    stolen = there.advertisements[PEER].signature
    assert there.advertisements[PEER].mask_keys == here.advertisements[PEER].mask_keys
    assert_refused(here, VICTIM, swap(here, signature=stolen), SignatureError, "'client-02'")
    here.play_before(MASK)
    others = {f"p{peer}": there.sealed[peer].sealed[VICTIM] for peer in (2, 3, 4, 5)}
    assert_refused(here, VICTIM, delivered(here, **others), SealError, "client-02.*client-05")
    here.play_before(here.stages[3])
    stolen = there.uploads[PEER].view_signature
    request = with_view_signature(here, stolen)
    assert_refused(here, VICTIM, request, SignatureError, "'client-02', participants")
    difference = here.uploads[PEER].segments[0] - there.uploads[PEER].segments[0]
    assert difference.any()  # the inputs are the same, the masks are not
    if profile is CONSISTENCY:
        here.play_before(REVEAL)
        forged = shown(here, p2=there.signatures[PEER])
        assert_refused(here, VICTIM, forged, SignatureError, "'client-02', survivor list")

    assert_finishes(here)


# What is left of a client.


@pytest.mark.parametrize("profile", [SEMI_HONEST, *SIGNED], ids=profile_name)
def test_an_ended_client_holds_no_secret_whatever_the_stage(profile: MaskingProfile) -> None:
    """After every stage, ending drops keys, seeds, shares, extra secrets and answers."""
    part = replace(segment(0, names(5)), extra_secrets=2)
    server = HostileServer(make_session(5, part, threshold=profile.threshold(5)), profile)

    while server.stage is not None:
        server.step()
        client = copy.copy(server.clients[VICTIM])
        known = secrets_in(client)
        answers = [kept[1] for kept in (client._replied, client._contributed) if kept is not None]
        client.end()

        assert known or server.stage is None, "only after the last stage there is nothing left to drop"
        assert answers
        assert not secrets_in(client)
        assert not {*known, *answers} & set(bytes_in(client))


def test_the_last_state_holds_no_secret() -> None:
    """A client that has revealed its shares keeps nothing but its last answers, which the server has."""
    server = scene(ONE_ANSWER)
    server.finish()

    assert all(not secrets_in(client._state) for client in server.clients.values())
