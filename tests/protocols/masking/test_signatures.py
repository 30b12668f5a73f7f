"""What signatures change for an honest server: whose messages count, what a bad one costs, and what it shows to whom."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from protocols.errors import (
    BelowThresholdError,
    EnrolmentError,
    IdentityError,
    ProtocolError,
    RevokedError,
    RosterError,
    SessionError,
    SignatureError,
    StageError,
)
from protocols.identity.revocations import issue_revocations
from protocols.identity.trust import TrustStore
from protocols.masking.checks import view_of
from protocols.masking.client import create_signed_survivors, reveal_agreed
from protocols.masking.messages import (
    KeyAdvertisement,
    KeyDirectory,
    MaskedInput,
    RevealedShares,
    ShareDelivery,
    SignedSurvivors,
    SurvivorList,
    SurvivorSignatures,
)
from protocols.masking.secure_sum import Masking, MaskingClient
from protocols.profiles import CONSISTENCY, ONE_ANSWER, SEMI_HONEST, MaskingProfile
from tests.contracts.sessions import Play, make_inputs, make_session, names, plain_sum, same_bindings, segment
from tests.protocols.masking.parties import (
    AUTHORITY,
    NOW,
    TRUST,
    EveryonesMasking,
    ReproducibleMasking,
    advertise,
    agree,
    mask,
    share,
    signed_terms,
    stream,
    survivor_list,
)

SESSION = make_session(5, segment(0, 4, names(5), 2), segment(1, 2, names(3)), threshold=4)
INPUTS = make_inputs(SESSION)
TERMS = signed_terms(SESSION, CONSISTENCY)
FIRST, SECOND, *_, LAST = SESSION.members
PROFILES = pytest.mark.parametrize(
    "profile", [SEMI_HONEST, ONE_ANSWER, CONSISTENCY], ids=lambda profile: profile.name
)


def ready(stage: str, profile: MaskingProfile = CONSISTENCY) -> Play:
    """A signed session that stands before a stage."""
    play = Play(ReproducibleMasking(profile=profile, trust=TRUST), SESSION, INPUTS)
    play.play_before(stage)
    return play


def sums_without(play: Play, stage: str, replies: Mapping[str, bytes], *silent: str) -> dict[int, list[int]]:
    """The sums when a stage gets these replies, and some are silent ever after."""
    play.deliver(replies)
    play.server.close_stage()
    play.play_after(stage, silent)
    return play.sums()


def expected(*gone: str) -> dict[int, list[int]]:
    """The sums over everyone but some."""
    alive = [member for member in SESSION.members if member not in gone]
    return {part.index: plain_sum(INPUTS, part, alive) for part in SESSION.segments}


# A bad signature costs its sender the round, and nobody else.

Change = Callable[[Any, Any], Any]
BAD_KEYS: dict[str, Change] = {
    "unsigned": lambda mine, _other: replace(mine, signature=b""),
    "zeros": lambda mine, _other: replace(mine, signature=bytes(64)),
    "another's signature": lambda mine, other: replace(mine, signature=other.signature),
    "another nonce": lambda mine, _other: replace(mine, nonce=bytes(16)),
    "another sealing key": lambda mine, _other: replace(mine, sealing_key=b"\x09" + bytes(31)),
    "another mask key": lambda mine, _other: replace(
        mine, mask_keys={**mine.mask_keys, 1: b"\x09" + bytes(31)}
    ),
    "mask keys exchanged": lambda mine, _other: replace(
        mine, mask_keys={0: mine.mask_keys[1], 1: mine.mask_keys[0]}
    ),
    "signed for another purpose": lambda mine, _other: replace(
        mine, signature=AUTHORITY.identity(FIRST).sign(b"participants", mine.signed_part())
    ),
}


@PROFILES
@pytest.mark.parametrize("fault", BAD_KEYS)
def test_keys_that_their_sender_has_not_signed_are_refused(fault: str, profile: MaskingProfile) -> None:
    """Whatever was changed in a signed advertisement, its sender is out and the others finish exactly."""
    play = ready("advertise_keys", profile)
    replies = play.answers("advertise_keys")
    mine, other = (KeyAdvertisement.from_bytes(replies[member]) for member in (FIRST, SECOND))
    del replies[FIRST]

    with pytest.raises(SignatureError, match=FIRST):
        play.server.receive(FIRST, BAD_KEYS[fault](mine, other).to_bytes())

    assert sums_without(play, "advertise_keys", replies, FIRST) == expected(FIRST)


BAD_VIEWS: dict[str, Change] = {
    "unsigned": lambda mine, _other: replace(mine, view_signature=b""),
    "zeros": lambda mine, _other: replace(mine, view_signature=bytes(64)),
    "another's signature": lambda mine, other: replace(mine, view_signature=other.view_signature),
    "another view": lambda mine, _other: replace(
        mine, view_signature=AUTHORITY.identity(FIRST).sign(b"participants", bytes(32))
    ),
}


@PROFILES
@pytest.mark.parametrize("fault", BAD_VIEWS)
def test_an_upload_under_another_view_is_refused(fault: str, profile: MaskingProfile) -> None:
    """An upload whose sender has not signed who takes part is not added, and the others finish exactly."""
    play = ready("mask_input", profile)
    replies = play.answers("mask_input")
    mine, other = (MaskedInput.from_bytes(replies[member]) for member in (FIRST, SECOND))
    del replies[FIRST]

    with pytest.raises(SignatureError, match=FIRST):
        play.server.receive(FIRST, BAD_VIEWS[fault](mine, other).to_bytes())

    assert sums_without(play, "mask_input", replies, FIRST) == expected(FIRST)


def test_a_view_names_everyone_who_takes_part() -> None:
    """Clients told of different participants sign different views, so that only one of them can count."""
    play = ready("mask_input")
    requests = play.server.requests()
    told = ShareDelivery.from_bytes(requests[FIRST])
    fewer = replace(
        told,
        participants=told.participants[:-1],
        sealed={sender: blob for sender, blob in told.sealed.items() if sender != told.participants[-1]},
        digests={
            sender: digest for sender, digest in told.digests.items() if sender != told.participants[-1]
        },
    )

    misled = play.clients[FIRST].contribute(fewer.to_bytes(), INPUTS[FIRST])

    with pytest.raises(SignatureError, match=FIRST):
        play.server.receive(FIRST, misled)


def test_two_views_never_have_the_same_bytes() -> None:
    """A nonce that reads as eight positions, moved over to the participants, makes another view with other bytes."""
    spelt = b"".join(position.to_bytes(2, "big") for position in range(3, 11))
    first = ({1: bytes(16), 2: spelt}, (11, 12))
    second = ({1: bytes(16)}, tuple(range(2, 13)))

    # Without the two counts there would be nothing to tell them apart.
    run_together = {
        b"".join(position.to_bytes(2, "big") + nonces[position] for position in nonces)
        + b"".join(position.to_bytes(2, "big") for position in participants)
        for nonces, participants in (first, second)
    }

    assert len(run_together) == 1
    assert view_of(TERMS, *first) != view_of(TERMS, *second)


def test_an_upload_of_other_participants_is_what_its_signature_says() -> None:
    """The same keys and inputs with another participant less give another signature, and the same again the same."""
    plays = [ready("mask_input") for _ in range(2)]
    full = [MaskedInput.from_bytes(play.answers("mask_input")[FIRST]).view_signature for play in plays]
    short = Play(ReproducibleMasking(profile=CONSISTENCY, trust=TRUST), SESSION, INPUTS)
    short.play("advertise_keys")
    short.play("share_keys", [LAST])

    other = MaskedInput.from_bytes(short.answers("mask_input")[FIRST]).view_signature

    assert full[0] == full[1] != other


BAD_AGREEMENTS: dict[str, Change] = {
    "zeros": lambda mine, _other: replace(mine, signature=bytes(64)),
    "another's signature": lambda mine, other: replace(mine, signature=other.signature),
    "of another list": lambda mine, _other: replace(
        mine, signature=AUTHORITY.identity(FIRST).sign(b"survivor list", b"another list")
    ),
}


@pytest.mark.parametrize("fault", BAD_AGREEMENTS)
def test_a_signature_of_another_list_is_refused(fault: str) -> None:
    """A client that has not signed the server's list is asked for nothing more; its input stays in the sum."""
    play = ready("agree_survivors")
    replies = play.answers("agree_survivors")
    mine, other = (SignedSurvivors.from_bytes(replies[member]) for member in (FIRST, SECOND))
    del replies[FIRST]

    with pytest.raises(SignatureError, match=FIRST):
        play.server.receive(FIRST, BAD_AGREEMENTS[fault](mine, other).to_bytes())
    play.deliver(replies)
    play.server.close_stage()

    assert set(play.server.requests()) == set(SESSION.members) - {FIRST}
    play.play("reveal_shares")
    assert play.sums() == expected()


# Who is believed.


def trusting(trust: TrustStore, profile: MaskingProfile = CONSISTENCY) -> Play:
    """A session whose server and clients believe a given store."""
    return Play(ReproducibleMasking(profile=profile, trust=trust), SESSION, INPUTS)


@PROFILES
def test_a_revoked_client_is_out_and_the_others_finish(profile: MaskingProfile) -> None:
    """The advertisement of a client whose certificate was taken back raises RevokedError."""
    serial = AUTHORITY.identity(FIRST).certificate.serial
    taken = issue_revocations(
        AUTHORITY.key, AUTHORITY.certificate, serials=(serial,), number=2, now=NOW, valid_for=1000
    )
    play = trusting(TRUST.updated(now=NOW + 1, revocations=taken), profile)
    replies = play.answers("advertise_keys")

    with pytest.raises(RevokedError, match=FIRST):
        play.server.receive(FIRST, replies.pop(FIRST))

    assert sums_without(play, "advertise_keys", replies, FIRST) == expected(FIRST)


def test_a_client_without_a_certificate_is_out() -> None:
    """The advertisement of a client whose certificate is not at hand raises EnrolmentError."""
    known = {client: c for client, c in TRUST.certificates.items() if client != FIRST}
    play = trusting(replace(TRUST, certificates=known))
    replies = play.answers("advertise_keys")

    with pytest.raises(EnrolmentError, match=FIRST):
        play.server.receive(FIRST, replies.pop(FIRST))

    assert sums_without(play, "advertise_keys", replies, FIRST) == expected(FIRST)


def test_a_client_that_believes_another_roster_is_in_another_session() -> None:
    """What is signed under another enrolment raises an error by name, at the first message."""
    later = TRUST.roster.issue(
        AUTHORITY.key,
        number=2,
        least_revocations=1,
        issued_at=NOW,
        expires_at=NOW + 1000,
        entries=TRUST.roster.entries,
    )
    play, other = trusting(TRUST), trusting(TRUST.updated(now=NOW + 1, roster=later))

    for member, reply in other.answers("advertise_keys").items():
        with pytest.raises(ProtocolError, match="another session"):
            play.server.receive(member, reply)


def test_a_client_without_an_identity_cannot_agree() -> None:
    """A client that was made without an identity uploads unsigned, and cannot sign a list."""
    play = ready("agree_survivors")
    bare = MaskingClient(TERMS, FIRST, None, stream("bare"))
    bare._state = play.clients[FIRST]._state  # type: ignore[attr-defined]

    with pytest.raises(SessionError, match="identity"):
        bare.reply(play.server.requests()[FIRST])


# What the server shows.


@PROFILES
def test_the_list_shows_every_survivors_view(profile: MaskingProfile) -> None:
    """Each survivor's signature of the participants is on the survivor list, and nobody else's."""
    play = ready("mask_input", profile)
    uploads = play.answers("mask_input", [SECOND])
    play.deliver(uploads)
    play.server.close_stage()

    lists = [SurvivorList.from_bytes(request) for request in play.server.requests().values()]

    views = {
        SESSION.position(m): MaskedInput.from_bytes(reply).view_signature for m, reply in uploads.items()
    }
    assert {(shown.survivors, shown.dropped) for shown in lists} == {((1, 3, 4, 5), (2,))}
    assert [shown.view_signatures for shown in lists] == [views] * 4


def test_those_who_agree_are_shown_all_signatures() -> None:
    """Before shares are revealed, everyone who signed sees the signatures of all who did."""
    play = ready("agree_survivors")
    replies = play.answers("agree_survivors", [SECOND])
    play.deliver(replies)
    play.server.close_stage()

    requests = {m: SurvivorSignatures.from_bytes(r) for m, r in play.server.requests().items()}

    signatures = {SESSION.position(m): SignedSurvivors.from_bytes(r).signature for m, r in replies.items()}
    shown = SurvivorSignatures(context=TERMS.context, signatures=signatures)
    assert requests == dict.fromkeys(set(SESSION.members) - {SECOND}, shown)
    assert set(signatures) == {1, 3, 4, 5}


def test_without_enough_signatures_nothing_is_revealed() -> None:
    """Below the threshold at agree_survivors the session ends before any share is asked for."""
    play = ready("agree_survivors")
    play.deliver(play.answers("agree_survivors", [FIRST, SECOND]))

    with pytest.raises(BelowThresholdError, match="agree_survivors"):
        play.server.close_stage()

    with pytest.raises(StageError):
        play.server.requests()
    with pytest.raises(StageError):
        play.server.result(same_bindings(SESSION))


@pytest.mark.parametrize("member", [SECOND, LAST])
def test_one_who_did_not_sign_reveals_nothing(member: str) -> None:
    """The server takes no shares from a survivor that fell silent at agree_survivors."""
    play, whole = ready("agree_survivors"), ready("reveal_shares")
    play.play("agree_survivors", [member])
    shares = whole.answers("reveal_shares")

    with pytest.raises(StageError, match=member):
        play.server.receive(member, shares[member])
    play.play("reveal_shares")

    assert play.sums() == expected()


# The clients' steps of the signed list, without a server.


def masked() -> tuple[dict[int, Any], dict[int, MaskedInput]]:
    """Everyone's state after mask_input, and the uploads."""
    states, directory = advertise(TERMS)
    return mask(TERMS, *share(TERMS, states, directory), INPUTS)


MASKED, UPLOADS = masked()


def test_the_steps_reveal_what_was_agreed() -> None:
    """Agreeing and then revealing gives the same shares as revealing would, for the list that was signed."""
    request = survivor_list(TERMS, (1, 2, 3, 5), (4,), uploads=UPLOADS)
    agreed, signatures = agree(TERMS, MASKED, request)
    shown = SurvivorSignatures(
        context=TERMS.context, signatures={me: message.signature for me, message in signatures.items()}
    )

    revealed = {me: reveal_agreed(state, shown) for me, state in agreed.items()}

    for me, step in revealed.items():
        assert agreed[me].survivors == request
        assert step.state.refused == ()
        assert set(step.message.mask_key_shares) == {(4, 0)}
        assert {peer for peer, _ in step.message.self_mask_shares} == {1, 2, 3, 5}
        bundles = MASKED[me].bundles
        assert step.message.mask_key_shares[4, 0] == bundles[4].segments[0].mask_key


def test_a_list_is_checked_before_it_is_signed() -> None:
    """Every fault of a survivor list is found at agree_survivors already: nothing is signed."""
    good = survivor_list(TERMS, (1, 2, 3, 5), (4,), uploads=UPLOADS)
    missing = {me: signature for me, signature in good.view_signatures.items() if me != 5}
    bad = [
        (replace(good, view_signatures={}), RosterError),
        (replace(good, view_signatures=missing), RosterError),
        (replace(good, view_signatures={**good.view_signatures, 5: bytes(64)}), SignatureError),
        (replace(good, survivors=(1, 2, 3), view_signatures=missing), RosterError),
        (replace(good, context=SESSION.context), ProtocolError),
    ]

    for request, error in bad:
        with pytest.raises(error):
            create_signed_survivors(MASKED[1], request, AUTHORITY.identity(FIRST))


def test_signatures_are_no_secret_and_shares_are() -> None:
    """What agree_survivors sends holds no share: the shares go out after the agreement alone."""
    request = survivor_list(TERMS, (1, 2, 3, 4, 5), uploads=UPLOADS)

    _, signatures = agree(TERMS, MASKED, request)

    for me, message in signatures.items():
        assert len(message.to_bytes()) == 4 + 32 + 2 + 64
        assert message.sender == me
        for bundle in MASKED[me].bundles.values():
            for shares in bundle.segments.values():
                assert shares.self_mask not in message.to_bytes()


@PROFILES
def test_an_answer_of_one_profile_is_none_of_another(profile: MaskingProfile) -> None:
    """Directories and answers of sessions that differ in the profile alone do not mix."""
    play = ready("share_keys", profile)
    request = play.server.requests()[FIRST]

    for other in (SEMI_HONEST, ONE_ANSWER, CONSISTENCY):
        if other is not profile:
            with pytest.raises(ProtocolError, match="another session"):
                ready("share_keys", other).answer("share_keys", FIRST, request)
    assert KeyDirectory.from_bytes(request).context == signed_terms(SESSION, profile).context


def test_identities_are_kept_apart_in_one_process() -> None:
    """Each client's own Masking signs with its own key, so no client can speak for another."""
    everyone = EveryonesMasking(CONSISTENCY)
    play = Play(everyone, SESSION, INPUTS)

    replies = play.answers("advertise_keys")

    for member in SESSION.members:
        advertised = KeyAdvertisement.from_bytes(replies[member])
        TRUST.verify(member, b"key advertisement", advertised.signed_part(), advertised.signature)
        for other in set(SESSION.members) - {member}:
            with pytest.raises(IdentityError):
                TRUST.verify(other, b"key advertisement", advertised.signed_part(), advertised.signature)


def test_masking_takes_one_identity_for_one_client() -> None:
    """Every client side that a Masking gives is that of its own identity."""
    masking = Masking(CONSISTENCY, trust=TRUST, identity=AUTHORITY.identity(SECOND))

    client = masking.client(SESSION, SECOND)

    assert KeyAdvertisement.from_bytes(client.reply(b"")).sender == 2
    with pytest.raises(RosterError, match=FIRST):
        masking.client(SESSION, FIRST)


def test_revealed_shares_need_no_signature() -> None:
    """The last message is checked against what it opens: it is the same with and without identities."""
    play = ready("reveal_shares")

    sizes = {len(reply) for reply in play.answers("reveal_shares").values()}

    shares = 5 + 3  # self-mask seeds of all five in segment 0, of three in segment 1
    assert sizes == {4 + 32 + 2 + 3 * 4 + shares * (2 + 2 + 33)}
    assert RevealedShares.from_bytes(play.answers("reveal_shares")[FIRST]).mask_key_shares == {}
