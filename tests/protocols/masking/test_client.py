"""What a masking client refuses, and what it reveals."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.errors import (
    BelowThresholdError,
    ContextError,
    InputError,
    KeyAgreementError,
    ProtocolError,
    RosterError,
    SealError,
    StageError,
)
from protocols.masking import client as steps
from protocols.masking.client import create_masked_input, create_revealed_shares, create_sealed_shares
from protocols.masking.messages import KeyDirectory, RevealedShares, ShareBundle, ShareDelivery, SurvivorList
from protocols.masking.secure_sum import Masking
from protocols.primitives.agreement import PrivateKey
from protocols.primitives.sealed import seal
from protocols.primitives.secret import Secret
from protocols.session import Session
from tests.contracts.sessions import PROPERTY, Play, make_inputs, make_session, names, segment
from tests.protocols.masking.parties import (
    ReproducibleMasking,
    advertise,
    directory_of,
    mask,
    reveal,
    share,
    survivor_list,
    with_sealed,
    without,
)

# Five members, threshold three; everyone holds segment 0, the first three hold segment 1 with a quorum of three.
SESSION = make_session(5, segment(0, 5, names(5), 3), segment(1, 4, names(3), 3))
OTHER_SESSION = replace(SESSION, attempt=2)
INPUTS = make_inputs(SESSION)
ADVERTISED, DIRECTORY = advertise(SESSION)
SHARED, DELIVERIES = share(SESSION, ADVERTISED, DIRECTORY)
MASKED, _ = mask(SESSION, SHARED, DELIVERIES, INPUTS)
ME = 1
SMALL_ORDER = bytes(32)

Change = Callable[[], Any]


# The key directory.


def directory(change: Callable[[int, Any], Any]) -> KeyDirectory:
    """The right directory with each entry changed, or left out where the change gives None."""
    changed = [change(entry.sender, entry) for entry in DIRECTORY.advertisements]
    return directory_of(SESSION, [entry for entry in changed if entry is not None])


def entry_changed(position: int, **fields: Any) -> KeyDirectory:
    """The right directory with other fields in one entry."""
    return directory(lambda sender, entry: replace(entry, **fields) if sender == position else entry)


def keys_of(position: int) -> Any:
    """One entry of the right directory."""
    return DIRECTORY.advertisements[position - 1]


def stranger(position: int) -> KeyDirectory:
    """The right directory with one more entry, of fresh keys, at a position outside the roster."""
    fresh = [PrivateKey(Secret(bytes([number]) * 32)).public for number in (1, 2)]
    extra = replace(keys_of(2), sender=position, mask_key=fresh[0], sealing_key=fresh[1])
    entries = sorted([*DIRECTORY.advertisements, extra], key=lambda entry: entry.sender)
    return directory_of(SESSION, entries)


BAD_DIRECTORIES: dict[str, tuple[type[ProtocolError], Change]] = {
    "without me": (RosterError, lambda: directory(lambda sender, entry: entry if sender != ME else None)),
    "another mask key for me": (RosterError, lambda: entry_changed(ME, mask_key=b"\x09" + bytes(31))),
    "another sealing key for me": (RosterError, lambda: entry_changed(ME, sealing_key=b"\x09" + bytes(31))),
    "my two keys exchanged": (
        RosterError,
        lambda: entry_changed(ME, mask_key=keys_of(ME).sealing_key, sealing_key=keys_of(ME).mask_key),
    ),
    "a peer with my mask key": (RosterError, lambda: entry_changed(2, mask_key=keys_of(ME).mask_key)),
    "a peer with my sealing key": (
        RosterError,
        lambda: entry_changed(2, sealing_key=keys_of(ME).sealing_key),
    ),
    "two peers with one mask key": (RosterError, lambda: entry_changed(2, mask_key=keys_of(3).mask_key)),
    "two peers with one sealing key": (
        RosterError,
        lambda: entry_changed(2, sealing_key=keys_of(3).sealing_key),
    ),
    "a peer's mask key as another's sealing key": (
        RosterError,
        lambda: entry_changed(2, mask_key=keys_of(3).sealing_key),
    ),
    "a peer with one key for both uses": (
        RosterError,
        lambda: entry_changed(2, sealing_key=keys_of(2).mask_key),
    ),
    "a stranger after the roster": (RosterError, lambda: stranger(6)),
    "a stranger far outside": (RosterError, lambda: stranger(65535)),
    "a stranger at position zero": (RosterError, lambda: stranger(0)),
    "another session": (ContextError, lambda: replace(DIRECTORY, context=OTHER_SESSION.context)),
    "too short": (
        BelowThresholdError,
        lambda: directory(lambda sender, entry: entry if sender <= 2 else None),
    ),
    "only me": (
        BelowThresholdError,
        lambda: directory(lambda sender, entry: entry if sender == ME else None),
    ),
    "empty": (RosterError, lambda: directory_of(SESSION, [])),
    "a sealing key of small order": (KeyAgreementError, lambda: entry_changed(2, sealing_key=SMALL_ORDER)),
}


@pytest.mark.parametrize("fault", BAD_DIRECTORIES)
def test_bad_directories_are_refused(fault: str) -> None:
    """A directory that breaks a rule raises its named error, and no share leaves the client."""
    error, make = BAD_DIRECTORIES[fault]
    bad = make()

    with pytest.raises(error) as caught:
        create_sealed_shares(ADVERTISED[ME], bad)

    assert caught.type is error


@pytest.mark.parametrize("gone", [(), (5,), (4, 5), (2, 3)])
def test_directories_down_to_the_threshold_are_accepted(gone: tuple[int, ...]) -> None:
    """A directory may lack peers as long as the threshold is met, and shares go to exactly those listed."""
    shorter = directory(lambda sender, entry: entry if sender not in gone else None)

    state, message = create_sealed_shares(ADVERTISED[ME], shorter)

    assert set(message.sealed) == set(state.peers) == {2, 3, 4, 5} - set(gone)


def test_a_mask_key_of_small_order_is_refused_at_masking() -> None:
    """A peer whose mask key has small order gets no mask: the client raises KeyAgreementError and sends nothing."""
    state = replace(SHARED[ME], peers={**SHARED[ME].peers, 2: SMALL_ORDER})

    with pytest.raises(KeyAgreementError):
        create_masked_input(state, DELIVERIES[ME], INPUTS["client-01"])


# The share delivery.


def delivered(sealed: dict[int, bytes]) -> ShareDelivery:
    """The right delivery with other bundles from some senders."""
    return with_sealed(DELIVERIES[ME], sealed)


def tampered(place: int) -> ShareDelivery:
    """The right delivery with one bit of the bundle of position 2 flipped."""
    bundle = bytearray(DELIVERIES[ME].sealed[2])
    bundle[place] ^= 1
    return delivered({2: bytes(bundle)})


def sealed_by_2(plaintext: bytes, session: Session = SESSION) -> bytes:
    """Any plaintext, sealed by position 2 for position 1 with the right key of a session."""
    key = steps._sealing_key(session, SHARED[2].sealing_secrets[ME], sender=2, recipient=ME)
    return seal(key, Secret(plaintext), context=session.context)


def bundle_for(indexes: Iterable[int]) -> bytes:
    """A bundle with shares of these segments, sealed by position 2, which owes shares of 0 and 1."""
    share_of_any = Secret(bytes(33))
    bundle = ShareBundle(mask_key_share=share_of_any, self_mask_shares=dict.fromkeys(indexes, share_of_any))
    return sealed_by_2(bundle.to_bytes())


def from_another_session() -> bytes:
    """The bundle that position 2 sealed for position 1 in another attempt, with the same keys."""
    states = {
        me: replace(state, session=OTHER_SESSION) for me, state in ADVERTISED.items()
    }  # the worst case: nothing but the context differs
    foreign = replace(
        DIRECTORY,
        context=OTHER_SESSION.context,
        advertisements=tuple(replace(e, context=OTHER_SESSION.context) for e in DIRECTORY.advertisements),
    )
    return share(OTHER_SESSION, states, foreign)[1][ME].sealed[2]


BAD_DELIVERIES: dict[str, tuple[type[ProtocolError], Change]] = {
    "for another": (RosterError, lambda: DELIVERIES[2]),
    "mine under another's name": (RosterError, lambda: replace(DELIVERIES[ME], recipient=2)),
    "from myself": (RosterError, lambda: delivered({ME: DELIVERIES[ME].sealed[2]})),
    "from a stranger": (RosterError, lambda: delivered({6: DELIVERIES[ME].sealed[2]})),
    "from position zero": (RosterError, lambda: delivered({0: DELIVERIES[ME].sealed[2]})),
    "too short": (BelowThresholdError, lambda: without(DELIVERIES[ME], 3, 4, 5)),
    "empty": (BelowThresholdError, lambda: without(DELIVERIES[ME], 2, 3, 4, 5)),
    "another session": (ContextError, lambda: replace(DELIVERIES[ME], context=OTHER_SESSION.context)),
    "an empty bundle": (SealError, lambda: delivered({2: b""})),
    "a bundle cut short": (SealError, lambda: delivered({2: DELIVERIES[ME].sealed[2][:-1]})),
    "a bundle with a byte more": (SealError, lambda: delivered({2: DELIVERIES[ME].sealed[2] + b"\x00"})),
    "a bundle of another sender": (SealError, lambda: delivered({2: DELIVERIES[ME].sealed[3]})),
    "a bundle for another recipient": (SealError, lambda: delivered({2: DELIVERIES[3].sealed[2]})),
    "my own bundle for the peer, reflected": (SealError, lambda: delivered({2: DELIVERIES[2].sealed[ME]})),
    "a bundle sealed in another session": (SealError, lambda: delivered({2: from_another_session()})),
    "a bundle that is no bundle": (SealError, lambda: delivered({2: sealed_by_2(b"garbage")})),
    "an empty plaintext": (SealError, lambda: delivered({2: sealed_by_2(b"")})),
    "a bundle without segment shares": (SealError, lambda: delivered({2: bundle_for(())})),
    "a bundle that lacks a segment": (SealError, lambda: delivered({2: bundle_for((0,))})),
    "a bundle with one segment too many": (SealError, lambda: delivered({2: bundle_for((0, 1, 2))})),
    "a bundle with another segment": (SealError, lambda: delivered({2: bundle_for((0, 2))})),
}


@pytest.mark.parametrize("fault", BAD_DELIVERIES)
def test_bad_deliveries_are_refused(fault: str) -> None:
    """A delivery that breaks a rule raises its named error, and no input leaves the client."""
    error, make = BAD_DELIVERIES[fault]
    bad = make()

    with pytest.raises(error) as caught:
        create_masked_input(SHARED[ME], bad, INPUTS["client-01"])

    assert caught.type is error


def test_the_planted_bundles_are_refused_for_their_content_alone() -> None:
    """A bundle of the right segments, sealed by the same helper as the bad ones, is accepted."""
    good = delivered({2: bundle_for((0, 1))})

    state, _ = create_masked_input(SHARED[ME], good, INPUTS["client-01"])

    assert state.bundles[2].mask_key_share == bytes(33)


def test_a_change_of_any_byte_of_a_bundle_is_refused() -> None:
    """Flipping one bit in any byte of one sealed bundle raises a SealError that names its sender."""
    for place in range(len(DELIVERIES[ME].sealed[2])):
        with pytest.raises(SealError, match="client-02"):
            create_masked_input(SHARED[ME], tampered(place), INPUTS["client-01"])


def test_inputs_are_checked_before_they_are_masked() -> None:
    """Inputs that do not fit raise InputError from the step itself."""
    with pytest.raises(InputError):
        create_masked_input(SHARED[ME], DELIVERIES[ME], INPUTS["client-05"])


# The survivor list.

BAD_SURVIVORS: dict[str, tuple[type[ProtocolError], Change]] = {
    "overlapping": (RosterError, lambda: survivor_list(SESSION, (1, 2, 3, 4), (4, 5))),
    "everyone on both": (RosterError, lambda: survivor_list(SESSION, (1, 2, 3, 4, 5), (1, 2, 3, 4, 5))),
    "me as dropped": (RosterError, lambda: survivor_list(SESSION, (2, 3, 4, 5), (1,))),
    "without me": (RosterError, lambda: survivor_list(SESSION, (2, 3, 4, 5))),
    "a sharer on neither": (RosterError, lambda: survivor_list(SESSION, (1, 2, 3, 4))),
    "a stranger survives": (RosterError, lambda: survivor_list(SESSION, (1, 2, 3, 4, 5, 6))),
    "a stranger dropped": (RosterError, lambda: survivor_list(SESSION, (1, 2, 3, 4, 5), (6,))),
    "position zero": (RosterError, lambda: survivor_list(SESSION, (0, 1, 2, 3, 4, 5))),
    "below threshold": (BelowThresholdError, lambda: survivor_list(SESSION, (1, 2), (3, 4, 5))),
    "only me": (BelowThresholdError, lambda: survivor_list(SESSION, (1,), (2, 3, 4, 5))),
    "empty": (RosterError, lambda: survivor_list(SESSION, ())),
    "another session": (ContextError, lambda: survivor_list(OTHER_SESSION, (1, 2, 3, 4, 5))),
}


@pytest.mark.parametrize("fault", BAD_SURVIVORS)
def test_bad_survivor_lists_are_refused(fault: str) -> None:
    """A survivor list that breaks a rule raises its named error, and no share is revealed."""
    error, make = BAD_SURVIVORS[fault]
    bad = make()

    with pytest.raises(error) as caught:
        create_revealed_shares(MASKED[ME], bad)

    assert caught.type is error


def test_someone_who_did_not_share_is_on_neither_list() -> None:
    """A peer whose bundle was not delivered is a stranger to the survivor list, as survivor and as dropped."""
    state, _ = create_masked_input(SHARED[ME], without(DELIVERIES[ME], 5), INPUTS["client-01"])

    for wrong in (survivor_list(SESSION, (1, 2, 3, 4, 5)), survivor_list(SESSION, (1, 2, 3, 4), (5,))):
        with pytest.raises(RosterError):
            create_revealed_shares(state, wrong)
    _, revealed = create_revealed_shares(state, survivor_list(SESSION, (1, 2, 3, 4)))

    assert {peer for peer, _ in revealed.self_mask_shares} == {1, 2, 3, 4}


# What is revealed.


def test_a_thin_segment_gets_no_self_mask_share() -> None:
    """A segment below its quorum is left out of the reveal, while the others are revealed whole."""
    states, messages = reveal(SESSION, MASKED, survivors=(1, 2, 4, 5))

    for me in (1, 2, 4, 5):
        assert states[me].refused == (1,)
        assert set(messages[me].self_mask_shares) == {(peer, 0) for peer in (1, 2, 4, 5)}
        assert set(messages[me].mask_key_shares) == {3}


def test_those_who_hold_no_part_of_a_segment_still_help_to_open_it() -> None:
    """Shares of a segment's seeds are revealed by all survivors, not only by its members."""
    states, messages = reveal(SESSION, MASKED, survivors=(1, 2, 3, 4, 5))

    for me in range(1, 6):
        assert states[me].refused == ()
        assert set(messages[me].self_mask_shares) == {(p, 0) for p in range(1, 6)} | {
            (p, 1) for p in (1, 2, 3)
        }
        assert messages[me].mask_key_shares == {}


@PROPERTY
@given(data=st.data(), me=st.integers(1, 5))
def test_never_both_kinds_of_share_of_one_peer(data: st.DataObject, me: int) -> None:
    """Whatever the survivor list, a reveal gives for each peer either self-mask shares or a mask-key share."""
    others = sorted({1, 2, 3, 4, 5} - {me})
    survivors = {me, *data.draw(st.sets(st.sampled_from(others), min_size=2))}
    request = survivor_list(SESSION, sorted(survivors), sorted({1, 2, 3, 4, 5} - survivors))

    _, revealed = create_revealed_shares(MASKED[me], request)

    alive, gone = {peer for peer, _ in revealed.self_mask_shares}, set(revealed.mask_key_shares)
    assert not alive & gone
    assert alive <= survivors
    assert gone == {1, 2, 3, 4, 5} - survivors


def test_revealed_shares_are_those_that_were_entrusted() -> None:
    """Each revealed share is the one that its owner put into this client's bundle."""
    _, messages = reveal(SESSION, MASKED, survivors=(1, 2, 3, 4))

    for me, message in messages.items():
        assert message.mask_key_shares == {5: MASKED[me].bundles[5].mask_key_share}
        for (peer, index), revealed in message.self_mask_shares.items():
            assert revealed == MASKED[me].bundles[peer].self_mask_shares[index]


# Through the contract: a refusal changes nothing.


def ready(stage: str) -> Play:
    """A session that stands before a stage, with the same keys and shares each time."""
    play = Play(ReproducibleMasking(), SESSION, INPUTS)
    play.play_before(stage)
    return play


def bad_requests(stage: str, play: Play) -> list[bytes]:
    """Bytes that the first client must refuse at a stage, made from the right request."""
    right = play.server.requests()["client-01"]
    cut, long = right[:-1], right + b"\x00"
    if stage == "share_keys":
        good = KeyDirectory.from_bytes(right)
        return [
            cut,
            long,
            replace(good, context=OTHER_SESSION.context).to_bytes(),
            replace(good, advertisements=good.advertisements[1:]).to_bytes(),
            replace(good, advertisements=good.advertisements[:2]).to_bytes(),
        ]
    if stage == "mask_input":
        delivery = ShareDelivery.from_bytes(right)
        bundle = bytes([delivery.sealed[5][0] ^ 1]) + delivery.sealed[5][1:]
        return [
            cut,
            long,
            replace(delivery, recipient=2).to_bytes(),
            without(delivery, 2, 3, 4).to_bytes(),
            with_sealed(delivery, {5: bundle}).to_bytes(),
        ]
    survivors = SurvivorList.from_bytes(right)
    return [
        cut,
        long,
        replace(survivors, survivors=(2, 3, 4, 5)).to_bytes(),
        replace(survivors, survivors=(1, 2), dropped=(3, 4, 5)).to_bytes(),
        replace(survivors, dropped=(5,)).to_bytes(),
    ]


@pytest.mark.parametrize("stage", Masking.stages[1:])
def test_a_refused_request_leaves_the_client_as_it_was(stage: str) -> None:
    """After every refusal the right request gets the answer it would have got without, and the sums are exact."""
    play, undisturbed = ready(stage), ready(stage)

    for request in bad_requests(stage, play):
        with pytest.raises(ProtocolError):
            play.answer(stage, "client-01", request)
    replies, expected = play.answers(stage), undisturbed.answers(stage)
    play.deliver(replies)
    play.server.close_stage()
    play.play_after(stage)

    assert replies == expected
    assert play.sums() == play.honest_sums()


@pytest.mark.parametrize(
    ("survivors", "dropped"), [((1, 2, 3, 4), (5,)), ((1, 2, 3), (4, 5)), ((1, 3, 4, 5), (2,))]
)
def test_a_second_survivor_list_is_refused(survivors: tuple[int, ...], dropped: tuple[int, ...]) -> None:
    """A client that has revealed repeats that answer and gives no other: two lists would open a difference."""
    play = ready("reveal_shares")
    client, request = play.clients["client-01"], play.server.requests()["client-01"]
    first = client.reply(request)

    with pytest.raises(StageError):
        client.reply(survivor_list(SESSION, survivors, dropped).to_bytes())
    again = client.reply(request)

    assert again == first
    assert RevealedShares.from_bytes(first).mask_key_shares == {}


@pytest.mark.parametrize("stage", Masking.stages[1:])
def test_a_second_different_request_of_a_stage_is_refused(stage: str) -> None:
    """A client that has answered a stage answers no other request of the same stage."""
    play = ready(stage)
    request = play.server.requests()["client-01"]
    answer = play.answer(stage, "client-01", request)
    shorter: dict[str, Callable[[], bytes]] = {
        "share_keys": lambda: replace(
            KeyDirectory.from_bytes(request),
            advertisements=KeyDirectory.from_bytes(request).advertisements[:4],
        ).to_bytes(),
        "mask_input": lambda: without(ShareDelivery.from_bytes(request), 5).to_bytes(),
        "reveal_shares": lambda: survivor_list(SESSION, (1, 2, 3, 4), (5,)).to_bytes(),
    }

    with pytest.raises(ProtocolError):
        play.answer(stage, "client-01", shorter[stage]())

    assert play.answer(stage, "client-01", request) == answer


def test_keys_and_seeds_are_fresh_in_every_session() -> None:
    """By default two sessions of one client share no key, no seed and no sealed byte string."""
    first, second = (Play(Masking(), SESSION, INPUTS) for _ in range(2))

    messages = [play.answers("advertise_keys") for play in (first, second)]

    assert all(messages[0][member] != messages[1][member] for member in SESSION.members)


def test_the_two_key_pairs_of_a_client_differ() -> None:
    """The mask key, which may be recovered, is never the sealing key, which must not be."""
    keys = [key for entry in DIRECTORY.advertisements for key in (entry.mask_key, entry.sealing_key)]

    assert len(set(keys)) == 2 * len(SESSION.members)
