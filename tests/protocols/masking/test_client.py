"""What a masking client refuses, and what it reveals."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.errors import (
    BelowThresholdError,
    ContextError,
    KeyAgreementError,
    ProtocolError,
    RosterError,
    SignatureError,
    StageError,
)
from protocols.masking.client import create_masked_input, create_revealed_shares, create_sealed_shares
from protocols.masking.messages import (
    KeyAdvertisement,
    KeyDirectory,
    RevealedShares,
    ShareDelivery,
    SurvivorList,
)
from protocols.masking.secure_sum import Masking
from protocols.primitives.agreement import PrivateKey
from protocols.primitives.secret import Secret
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
from tests.protocols.masking.played_client import (
    ADVERTISED,
    DELIVERIES,
    DIRECTORY,
    INPUTS,
    MASKED,
    ME,
    OTHER_SESSION,
    OTHER_TERMS,
    SESSION,
    SHARED,
    Change,
    directory,
)

STAGES = Masking().stages
SMALL_ORDER = bytes(32)


def entry_changed(position: int, **fields: Any) -> KeyDirectory:
    """The right directory with other fields in one entry."""
    return directory(lambda sender, entry: replace(entry, **fields) if sender == position else entry)


def keys_of(position: int) -> Any:
    """One entry of the right directory."""
    return DIRECTORY.advertisements[position - 1]


def masked_with(position: int, index: int, key: bytes) -> KeyDirectory:
    """The right directory with another mask key in one entry."""
    return entry_changed(position, mask_keys={**keys_of(position).mask_keys, index: key})


def stranger(position: int, *, listed: bool = True) -> KeyDirectory:
    """The right directory with one more entry, of fresh keys, at a position outside the roster."""
    fresh = [PrivateKey(Secret(bytes([number]) * 32)).public for number in (1, 2)]
    extra = replace(
        keys_of(4), sender=position, mask_keys={0: fresh[0]}, sealing_key=fresh[1], nonce=bytes(16)
    )
    entries = sorted(
        [*DIRECTORY.advertisements, *([extra] if listed else [])], key=lambda entry: entry.sender
    )
    return replace(directory_of(SESSION, entries), nonces={**DIRECTORY.nonces, position: bytes(16)})


def with_nonces(**changed: bytes | None) -> KeyDirectory:
    """The right directory with other nonces, or without those that are None, by `p<position>`."""
    by_position = {int(name[1:]): nonce for name, nonce in changed.items()}
    nonces = {**DIRECTORY.nonces, **by_position}
    return replace(DIRECTORY, nonces={p: nonce for p, nonce in nonces.items() if nonce is not None})


BAD_DIRECTORIES: dict[str, tuple[type[ProtocolError], Change]] = {
    "without me": (RosterError, lambda: directory(lambda sender, entry: entry if sender != ME else None)),
    "another mask key for me": (RosterError, lambda: masked_with(ME, 0, b"\x09" + bytes(31))),
    "another sealing key for me": (RosterError, lambda: entry_changed(ME, sealing_key=b"\x09" + bytes(31))),
    "my two keys exchanged": (
        RosterError,
        lambda: entry_changed(
            ME,
            mask_keys={**keys_of(ME).mask_keys, 0: keys_of(ME).sealing_key},
            sealing_key=keys_of(ME).mask_keys[0],
        ),
    ),
    "my mask keys exchanged": (
        RosterError,
        lambda: entry_changed(ME, mask_keys={0: keys_of(ME).mask_keys[1], 1: keys_of(ME).mask_keys[0]}),
    ),
    "my mask keys in part": (RosterError, lambda: entry_changed(ME, mask_keys={0: keys_of(ME).mask_keys[0]})),
    "another nonce for me": (RosterError, lambda: entry_changed(ME, nonce=bytes(16))),
    "another nonce for me in the list alone": (RosterError, lambda: with_nonces(p1=bytes(16))),
    "another nonce for me in my entry alone": (
        RosterError,
        lambda: replace(entry_changed(ME, nonce=bytes(16)), nonces=DIRECTORY.nonces),
    ),
    "a signature on my entry": (RosterError, lambda: entry_changed(ME, signature=bytes(64))),
    "a signature on a peer's entry": (SignatureError, lambda: entry_changed(2, signature=bytes(64))),
    "my nonce missing": (RosterError, lambda: with_nonces(p1=None)),
    "a peer's nonce missing": (RosterError, lambda: with_nonces(p3=None)),
    "a peer's entry missing": (
        RosterError,
        lambda: replace(
            directory(lambda sender, entry: entry if sender != 3 else None), nonces=DIRECTORY.nonces
        ),
    ),
    "another nonce for a peer": (RosterError, lambda: with_nonces(p3=bytes(16))),
    "two peers with one nonce": (RosterError, lambda: entry_changed(3, nonce=keys_of(2).nonce)),
    "a peer with my nonce": (RosterError, lambda: entry_changed(3, nonce=keys_of(ME).nonce)),
    "a peer's entry of another session": (
        ContextError,
        lambda: entry_changed(3, context=OTHER_TERMS.context),
    ),
    "a peer without a mask key": (RosterError, lambda: entry_changed(3, mask_keys={})),
    "a peer with one segment too few": (
        RosterError,
        lambda: entry_changed(3, mask_keys={0: keys_of(3).mask_keys[0]}),
    ),
    "a peer with one segment too many": (RosterError, lambda: masked_with(4, 1, b"\x09" + bytes(31))),
    "a peer with a segment that does not exist": (
        RosterError,
        lambda: masked_with(4, 2, b"\x09" + bytes(31)),
    ),
    "a peer with another segment": (
        RosterError,
        lambda: entry_changed(4, mask_keys={1: keys_of(4).mask_keys[0]}),
    ),
    "a peer with one key for two segments": (
        RosterError,
        lambda: masked_with(2, 1, keys_of(2).mask_keys[0]),
    ),
    "a peer with my mask key": (RosterError, lambda: masked_with(2, 0, keys_of(ME).mask_keys[0])),
    "a peer with my mask key of another segment": (
        RosterError,
        lambda: masked_with(2, 0, keys_of(ME).mask_keys[1]),
    ),
    "a peer with my sealing key": (
        RosterError,
        lambda: entry_changed(2, sealing_key=keys_of(ME).sealing_key),
    ),
    "two peers with one mask key": (RosterError, lambda: masked_with(2, 0, keys_of(3).mask_keys[0])),
    "two peers with one sealing key": (
        RosterError,
        lambda: entry_changed(2, sealing_key=keys_of(3).sealing_key),
    ),
    "a peer's mask key as another's sealing key": (
        RosterError,
        lambda: masked_with(2, 0, keys_of(3).sealing_key),
    ),
    "a peer with one key for both uses": (
        RosterError,
        lambda: entry_changed(2, sealing_key=keys_of(2).mask_keys[0]),
    ),
    "a stranger after the roster": (RosterError, lambda: stranger(6)),
    "a stranger far outside": (RosterError, lambda: stranger(65535)),
    "a stranger at position zero": (RosterError, lambda: stranger(0)),
    "a stranger among the nonces alone": (RosterError, lambda: stranger(6, listed=False)),
    "another session": (ContextError, lambda: replace(DIRECTORY, context=OTHER_TERMS.context)),
    "the session's context instead of the terms'": (
        ContextError,
        lambda: replace(DIRECTORY, context=SESSION.context),
    ),
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

    present = {2, 3, 4, 5} - set(gone)
    assert set(message.sealed) == set(state.sealing_secrets) == present
    assert {index: set(keys) for index, keys in state.partners.items()} == {0: present, 1: present & {2, 3}}
    assert set(state.nonces) == {ME, *present}


def test_a_mask_key_of_small_order_is_refused_at_masking() -> None:
    """A peer whose mask key has small order gets no mask: the client raises KeyAgreementError and sends nothing."""
    shared, _ = create_sealed_shares(ADVERTISED[ME], masked_with(2, 1, SMALL_ORDER))

    with pytest.raises(KeyAgreementError):
        create_masked_input(shared, DELIVERIES[ME], INPUTS["client-01"])


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
    "signed where nobody signs": (
        RosterError,
        lambda: replace(
            survivor_list(SESSION, (1, 2, 3, 4, 5)), view_signatures=dict.fromkeys(range(1, 6), bytes(64))
        ),
    ),
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


def test_a_thin_segment_gets_no_share_of_either_kind() -> None:
    """A segment below its quorum is left out of the reveal altogether, while the others are revealed whole."""
    states, messages = reveal(SESSION, MASKED, survivors=(1, 2, 4, 5))

    for me in (1, 2, 4, 5):
        assert states[me].refused == (1,)
        assert set(messages[me].self_mask_shares) == {(peer, 0) for peer in (1, 2, 4, 5)}
        assert set(messages[me].mask_key_shares) == {(3, 0)}


def test_those_who_hold_no_part_of_a_segment_still_help_to_open_it() -> None:
    """Shares of a segment's seeds are revealed by all survivors, not only by its members."""
    states, messages = reveal(SESSION, MASKED, survivors=(1, 2, 3, 4, 5))

    for me in range(1, 6):
        assert states[me].refused == ()
        assert set(messages[me].self_mask_shares) == {(p, 0) for p in range(1, 6)} | {
            (p, 1) for p in (1, 2, 3)
        }
        assert messages[me].mask_key_shares == {}


def test_padding_does_not_keep_a_segment_open() -> None:
    """A client counts the surviving holders of a segment, not its members."""
    padded = make_session(5, segment(0, 5, names(5)), segment(1, 4, names(4), 2, holders=names(2)))
    advertised, keys = advertise(padded)
    masked, _ = mask(padded, *share(padded, advertised, keys), make_inputs(padded))

    thin, _ = reveal(padded, masked, survivors=(1, 3, 4, 5))
    whole, messages = reveal(padded, masked, survivors=(1, 2, 3))

    assert {state.refused for state in thin.values()} == {(1,)}
    assert {state.refused for state in whole.values()} == {()}
    assert set(messages[3].self_mask_shares) == {(peer, index) for peer in (1, 2, 3) for index in (0, 1)}
    assert set(messages[3].mask_key_shares) == {(4, 0), (4, 1), (5, 0)}


@PROPERTY
@given(data=st.data(), me=st.integers(1, 5))
def test_never_both_kinds_of_share_of_one_peer(data: st.DataObject, me: int) -> None:
    """Whatever the survivor list, a reveal gives for each peer either self-mask shares or a mask-key share."""
    others = sorted({1, 2, 3, 4, 5} - {me})
    survivors = {me, *data.draw(st.sets(st.sampled_from(others), min_size=2))}
    request = survivor_list(SESSION, sorted(survivors), sorted({1, 2, 3, 4, 5} - survivors))

    _, revealed = create_revealed_shares(MASKED[me], request)

    alive, gone = ({peer for peer, _ in s} for s in (revealed.self_mask_shares, revealed.mask_key_shares))
    assert not alive & gone
    assert alive <= survivors
    assert gone == {1, 2, 3, 4, 5} - survivors


def test_revealed_shares_are_those_that_were_entrusted() -> None:
    """Each revealed share is the one that its owner put into this client's bundle."""
    _, messages = reveal(SESSION, MASKED, survivors=(1, 2, 3, 4))

    for me, message in messages.items():
        assert message.mask_key_shares == {(5, 0): MASKED[me].bundles[5].segments[0].mask_key}
        for (peer, index), revealed in message.self_mask_shares.items():
            assert revealed == MASKED[me].bundles[peer].segments[index].self_mask


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
            replace(good, context=OTHER_TERMS.context).to_bytes(),
            replace(good, advertisements=good.advertisements[1:]).to_bytes(),
            replace(good, advertisements=good.advertisements[:2]).to_bytes(),
            directory_of(SESSION, good.advertisements[1:]).to_bytes(),
            directory_of(SESSION, good.advertisements[:2]).to_bytes(),
        ]
    if stage == "mask_input":
        delivery = ShareDelivery.from_bytes(right)
        bundle = bytes([delivery.sealed[5][0] ^ 1]) + delivery.sealed[5][1:]
        return [
            cut,
            long,
            replace(delivery, recipient=2).to_bytes(),
            without(delivery, 2, 3, 4).to_bytes(),
            replace(delivery, participants=(1, 2, 3, 4)).to_bytes(),
            with_sealed(delivery, {2: bundle, 3: bundle, 5: bundle}).to_bytes(),
        ]
    survivors = SurvivorList.from_bytes(right)
    return [
        cut,
        long,
        replace(survivors, survivors=(2, 3, 4, 5)).to_bytes(),
        replace(survivors, survivors=(1, 2), dropped=(3, 4, 5)).to_bytes(),
        replace(survivors, dropped=(5,)).to_bytes(),
    ]


@pytest.mark.parametrize("stage", STAGES[1:])
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


@pytest.mark.parametrize("stage", STAGES[1:])
def test_a_second_different_request_of_a_stage_is_refused(stage: str) -> None:
    """A client that has answered a stage answers no other request of the same stage."""
    play = ready(stage)
    request = play.server.requests()["client-01"]
    answer = play.answer(stage, "client-01", request)
    shorter: dict[str, Callable[[], bytes]] = {
        "share_keys": lambda: directory_of(
            SESSION, KeyDirectory.from_bytes(request).advertisements[:4]
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


def test_all_key_pairs_of_a_client_differ() -> None:
    """The mask keys, which may be recovered one by one, are never the sealing key, which must not be."""
    keys = [
        key for entry in DIRECTORY.advertisements for key in (*entry.mask_keys.values(), entry.sealing_key)
    ]

    assert len(set(keys)) == len(keys) == 3 * 3 + 2 * 2


def test_nonces_differ_between_clients_and_sessions() -> None:
    """Everyone adds fresh randomness to what the graphs are drawn from."""
    plays = [Play(Masking(), SESSION, INPUTS) for _ in range(2)]

    nonces = [
        KeyAdvertisement.from_bytes(reply).nonce
        for play in plays
        for reply in play.answers("advertise_keys").values()
    ]

    assert len(set(nonces)) == 2 * 5
