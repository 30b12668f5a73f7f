"""What the masking server refuses, stage by stage, and what it asks."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from protocols.errors import (
    InputError,
    KeyAgreementError,
    RosterError,
    SealError,
    ShareError,
    SignatureError,
    StageError,
)
from protocols.masking.messages import (
    KeyAdvertisement,
    KeyDirectory,
    MaskedInput,
    RevealedShares,
    SealedShares,
    ShareDelivery,
    SurvivorList,
)
from protocols.masking.secure_sum import Masking, MaskingServer
from protocols.primitives.secret import Secret
from tests.contracts.sessions import Play, make_inputs, make_session, names, plain_sum, same_bindings, segment
from tests.protocols.masking.parties import ReproducibleMasking, as_terms

# Five members, threshold three; segment 1 belongs to the first three and needs them all, segment 2 to the last two.
SESSION = make_session(
    5, segment(0, 5, names(5), 3), segment(1, 4, names(3), 3), segment(2, 2, names(5)[3:], 1)
)
INPUTS = make_inputs(SESSION)
CONTEXT = as_terms(SESSION).context
STAGES = Masking().stages
FIELD = 2**257 - 93
SILENT = "client-05"
ALIVE = names(4)


def ready(stage: str, silent_from: Mapping[str, str] | None = None) -> Play:
    """A session that stands before a stage."""
    play, silent = Play(ReproducibleMasking(), SESSION, INPUTS), silent_from or {}
    order = STAGES
    for number, earlier in enumerate(order[: order.index(stage)]):
        play.play(earlier, [member for member, since in silent.items() if order.index(since) <= number])
    return play


def finish(play: Play, stage: str, replies: Mapping[str, bytes]) -> Any:
    """The result when a stage gets these replies and the later ones are honest."""
    play.deliver(replies)
    play.server.close_stage()
    play.play_after(stage)
    return play.server.result(same_bindings(SESSION))


def assert_exact(result: Any, survivors: tuple[str, ...], open_segments: tuple[int, ...]) -> None:
    """The segments that should open, and no others, hold their plain sums."""
    assert {index: values.tolist() for index, values in result.sums.items()} == {
        index: plain_sum(INPUTS, SESSION.segments[index], survivors) for index in open_segments
    }


# What it asks.


def test_each_stage_asks_with_its_own_message() -> None:
    """The requests are the directory, the deliveries and the survivor list of exactly those who answered before."""
    play = ready("advertise_keys")
    server = play.server
    advertisements = play.answers("advertise_keys", ["client-05"])
    assert dict(server.requests()) == dict.fromkeys(names(5), b"")

    play.deliver(advertisements)
    server.close_stage()
    directories = [KeyDirectory.from_bytes(request) for request in server.requests().values()]
    entries = tuple(KeyAdvertisement.from_bytes(reply) for reply in advertisements.values())
    nonces = {entry.sender: entry.nonce for entry in entries}
    assert directories == [KeyDirectory(context=CONTEXT, nonces=nonces, advertisements=entries)] * 4

    sealed = play.answers("share_keys", ["client-04"])
    play.deliver(sealed)
    server.close_stage()
    deliveries = {member: ShareDelivery.from_bytes(r) for member, r in server.requests().items()}
    for position, member in enumerate(names(3), start=1):
        assert deliveries[member].recipient == position
        assert deliveries[member].participants == (1, 2, 3)
        assert deliveries[member].sealed == {
            other: SealedShares.from_bytes(sealed[SESSION.client_at(other)]).sealed[position]
            for other in {1, 2, 3} - {position}
        }
    assert set(deliveries) == set(names(3))

    play.deliver(play.answers("mask_input"))
    server.close_stage()
    lists = [SurvivorList.from_bytes(request) for request in server.requests().values()]
    assert lists == [SurvivorList(context=CONTEXT, survivors=(1, 2, 3), dropped=())] * 3


def test_dropped_are_those_who_shared_and_did_not_upload() -> None:
    """A client that went before sharing is on neither list."""
    play = ready("reveal_shares", {"client-04": "share_keys", "client-02": "mask_input"})

    lists = [SurvivorList.from_bytes(request) for request in play.server.requests().values()]

    assert lists == [SurvivorList(context=CONTEXT, survivors=(1, 3, 5), dropped=(2,))] * 3


def test_the_stages_come_in_the_order_of_the_protocol() -> None:
    """advertise_keys, share_keys, mask_input, reveal_shares; a reply to another stage than the current is refused."""
    play = ready("advertise_keys")
    seen = []

    for stage in STAGES:
        assert isinstance(play.server, MaskingServer)
        assert play.server._stage is not None
        seen.append(play.server._stage.name)
        play.play(stage)

    assert seen == ["advertise_keys", "share_keys", "mask_input", "reveal_shares"]
    assert play.server._stage is None


# share_keys.

BAD_SEALED: dict[str, Callable[[dict[int, bytes]], dict[int, bytes]]] = {
    "none": lambda _sealed: {},
    "one peer missing": lambda sealed: {peer: blob for peer, blob in sealed.items() if peer != 3},
    "one for itself": lambda sealed: {**sealed, 1: b"to myself"},
    "one for a stranger": lambda sealed: {**sealed, 9: b"to nobody"},
    "one for a silent member": lambda sealed: {**sealed, 5: b"too late"},
    "a peer exchanged for a stranger": lambda sealed: {2: sealed[2], 3: sealed[3], 9: sealed[4]},
}


@pytest.mark.parametrize("fault", BAD_SEALED)
def test_sealed_shares_are_for_every_peer_in_the_directory(fault: str) -> None:
    """Shares that lack a recipient, or have one too many, raise RosterError; the right ones still count."""
    play = ready("share_keys", {SILENT: "advertise_keys"})
    replies = play.answers("share_keys")
    message = SealedShares.from_bytes(replies["client-01"])
    bad = replace(message, sealed=BAD_SEALED[fault](dict(message.sealed)))

    with pytest.raises(RosterError, match="client-01"):
        play.server.receive("client-01", bad.to_bytes())
    result = finish(play, "share_keys", replies)

    assert_exact(result, ALIVE, (0, 1, 2))


# mask_input.

ZEROS = {length: np.zeros(length, dtype=np.uint32) for length in (1, 2, 3, 4, 5, 6)}
BAD_UPLOADS: dict[str, Callable[[dict[int, Any]], dict[int, Any]]] = {
    "nothing": lambda _good: {},
    "a segment missing": lambda good: {0: good[0]},
    "the other segment missing": lambda good: {1: good[1]},
    "a segment it does not hold": lambda good: {**good, 2: ZEROS[2]},
    "a segment that does not exist": lambda good: {**good, 3: ZEROS[1]},
    "a segment too short": lambda good: {**good, 1: ZEROS[3]},
    "a segment too long": lambda good: {**good, 0: ZEROS[6]},
    "one value that would broadcast": lambda good: {**good, 0: ZEROS[1]},
    "an empty segment": lambda good: {**good, 1: np.zeros(0, dtype=np.uint32)},
    "segments exchanged": lambda good: {0: good[1], 1: good[0]},
}


@pytest.mark.parametrize("fault", BAD_UPLOADS)
def test_an_upload_holds_exactly_the_clients_segments(fault: str) -> None:
    """An upload that is not whole raises InputError and adds nothing; the right one still counts."""
    play = ready("mask_input")
    replies = play.answers("mask_input")
    message = MaskedInput.from_bytes(replies["client-01"])
    bad = replace(message, segments=BAD_UPLOADS[fault](dict(message.segments)))

    with pytest.raises(InputError, match="client-01"):
        play.server.receive("client-01", bad.to_bytes())
    result = finish(play, "mask_input", replies)

    assert_exact(result, names(5), (0, 1, 2))


# reveal_shares.

ANY = Secret(bytes(33))
Shares = dict[Any, Any]
BAD_REVEALS: dict[str, Callable[[Shares, Shares], tuple[Shares, Shares]]] = {
    "no share of the dropped client": lambda _gone, alive: ({}, alive),
    "no share of the dropped client in one segment": lambda gone, alive: ({(5, 0): gone[5, 0]}, alive),
    "a mask-key share of a survivor": lambda gone, alive: ({**gone, (2, 0): ANY}, alive),
    "a mask-key share of itself": lambda gone, alive: ({**gone, (1, 0): ANY}, alive),
    "a mask-key share of another instead": lambda gone, alive: ({(4, 0): ANY, (5, 2): gone[5, 2]}, alive),
    "a mask-key share of a stranger": lambda gone, alive: ({**gone, (9, 0): ANY}, alive),
    "a mask-key share of a segment that the dropped client does not hold": lambda gone, alive: (
        {**gone, (5, 1): ANY},
        alive,
    ),
    "a mask-key share of a segment that does not exist": lambda gone, alive: ({**gone, (5, 3): ANY}, alive),
    "mask-key shares alone": lambda gone, _alive: (gone, {}),
    "mask-key shares alone in one segment": lambda gone, alive: (
        gone,
        {k: s for k, s in alive.items() if k[1] != 2},
    ),
    "one survivor missing in a segment": lambda gone, alive: (
        gone,
        {k: s for k, s in alive.items() if k != (2, 0)},
    ),
    "a self-mask share of the dropped client": lambda gone, alive: (gone, {**alive, (5, 0): ANY}),
    "a self-mask share of one who does not hold the segment": lambda gone, alive: (
        gone,
        {**alive, (4, 1): ANY},
    ),
    "a segment that does not exist": lambda gone, alive: (gone, {**alive, (1, 3): ANY}),
    "a segment far away": lambda gone, alive: (gone, {**alive, (1, 65535): ANY}),
}


@pytest.mark.parametrize("fault", BAD_REVEALS)
def test_a_reveal_is_for_exactly_the_dropped_and_for_whole_segments(fault: str) -> None:
    """Missing or extra shares raise ShareError and reveal nothing; the right reveal still counts."""
    play = ready("reveal_shares", {SILENT: "mask_input"})
    replies = play.answers("reveal_shares")
    message = RevealedShares.from_bytes(replies["client-01"])
    gone, alive = BAD_REVEALS[fault](dict(message.mask_key_shares), dict(message.self_mask_shares))
    bad = replace(message, mask_key_shares=gone, self_mask_shares=alive)

    with pytest.raises(ShareError, match="client-01"):
        play.server.receive("client-01", bad.to_bytes())
    result = finish(play, "reveal_shares", replies)

    assert_exact(result, ALIVE, (0, 1, 2))


def changed(
    replies: Mapping[str, bytes], member: str, change: Callable[[RevealedShares], Any]
) -> dict[str, bytes]:
    """The replies with one client's reveal changed."""
    message = RevealedShares.from_bytes(replies[member])
    return {**replies, member: change(message).to_bytes()}


@pytest.mark.parametrize(("unwilling", "opens"), [(1, True), (2, True), (3, False), (5, False)])
def test_a_segment_opens_when_enough_clients_let_it(unwilling: int, opens: bool) -> None:  # noqa: FBT001
    """A segment that fewer clients than the threshold reveal stays closed, and the others open."""
    play = ready("reveal_shares")
    replies = play.answers("reveal_shares")
    for member in names(5)[:unwilling]:
        replies = changed(
            replies,
            member,
            lambda message: closing(message, 0),
        )

    result = finish(play, "reveal_shares", replies)

    assert_exact(result, names(5), (0, 1, 2) if opens else (1, 2))
    assert ("threshold 3" in result.refused.get(0, "")) == (not opens)


def closing(message: RevealedShares, index: int) -> RevealedShares:
    """A reveal without the shares of one segment."""
    return replace(
        message,
        mask_key_shares={key: s for key, s in message.mask_key_shares.items() if key[1] != index},
        self_mask_shares={key: s for key, s in message.self_mask_shares.items() if key[1] != index},
    )


@pytest.mark.parametrize(("unwilling", "opens"), [(0, True), (1, True), (2, False), (4, False)])
def test_a_segment_with_drop_outs_opens_when_enough_clients_let_it(
    unwilling: int,
    opens: bool,  # noqa: FBT001
) -> None:
    """Without the mask keys of the dropped for a segment it stays closed, while the other segments open."""
    play = ready("reveal_shares", {SILENT: "mask_input"})
    replies = play.answers("reveal_shares")
    for member in ALIVE[:unwilling]:
        replies = changed(replies, member, lambda message: closing(message, 2))

    result = finish(play, "reveal_shares", replies)

    assert_exact(result, ALIVE, (0, 1, 2) if opens else (0, 1))
    assert ("threshold 3" in result.refused.get(2, "")) == (not opens)


def test_shares_of_a_thin_segment_do_not_open_it() -> None:
    """Clients that reveal a segment below its quorum against the rule cannot make the server open it."""
    play = ready("reveal_shares", {"client-03": "mask_input"})
    replies = play.answers("reveal_shares")
    for member in replies:
        replies = changed(
            replies,
            member,
            lambda message: replace(
                message,
                self_mask_shares={**message.self_mask_shares, (1, 1): ANY, (2, 1): ANY},
                mask_key_shares={**message.mask_key_shares, (3, 1): ANY},
            ),
        )

    result = finish(play, "reveal_shares", replies)

    assert_exact(result, ("client-01", "client-02", "client-04", "client-05"), (0, 2))
    assert "quorum 3" in result.refused[1]


def moved(share: bytes, holder: int, *, by: int) -> Secret:
    """A holder's share, changed so that the shares of holders 1, 2, 3 combine to a value this much larger."""
    weight = 1
    for other in {1, 2, 3} - {holder}:
        weight = weight * other * pow(other - holder, -1, FIELD) % FIELD
    value = (int.from_bytes(share, "big") + by * pow(weight, -1, FIELD)) % FIELD
    return Secret(value.to_bytes(33, "big"))


def with_wrong_key_share(
    replies: Mapping[str, bytes], holder: int, wrong: Callable[[bytes], Secret]
) -> dict[str, bytes]:
    """The replies in which one holder gives another share of the dropped client's mask key."""
    return changed(
        replies,
        SESSION.client_at(holder),
        lambda message: replace(
            message,
            mask_key_shares={**message.mask_key_shares, (5, 0): wrong(message.mask_key_shares[5, 0])},
        ),
    )


@pytest.mark.parametrize("by", [1, 2**256], ids=["another key", "no 32 bytes at all"])
@pytest.mark.parametrize("holder", [1, 2, 3])
def test_a_wrong_mask_key_share_is_not_used_and_its_holder_named(holder: int, by: int) -> None:
    """Whatever a wrong share would have combined to, the sums are exact and the one who revealed it is named."""
    play = ready("reveal_shares", {SILENT: "mask_input"})
    replies = with_wrong_key_share(
        play.answers("reveal_shares"), holder, lambda share: moved(share, holder, by=by)
    )

    result = finish(play, "reveal_shares", replies)

    assert_exact(result, ALIVE, (0, 1, 2))
    assert set(result.faults) == {f"client-0{holder}"}
    assert "a wrong share of the mask key of client-05 in segment 0" in result.faults[f"client-0{holder}"]


@pytest.mark.parametrize("by", [1, 2**256], ids=["another seed", "no 32 bytes at all"])
@pytest.mark.parametrize("owner", [1, 4])
def test_a_wrong_self_mask_share_is_not_used_and_its_holder_named(owner: int, by: int) -> None:
    """The same of shares of a seed: nobody but who revealed the wrong one is named."""
    play = ready("reveal_shares")
    replies = changed(
        play.answers("reveal_shares"),
        "client-02",
        lambda message: replace(
            message,
            self_mask_shares={
                **message.self_mask_shares,
                (owner, 0): moved(message.self_mask_shares[owner, 0], 2, by=by),
            },
        ),
    )

    result = finish(play, "reveal_shares", replies)

    assert_exact(result, names(5), (0, 1, 2))
    assert result.faults == {
        "client-02": f"revealed a wrong share of the self-mask seed of client-0{owner} in segment 0"
    }


@pytest.mark.parametrize("value", [FIELD, 2**264 - 1], ids=["the field size", "all bits"])
def test_a_share_outside_the_field_is_a_wrong_one(value: int) -> None:
    """A share that is no element of the field costs the others nothing either, and its holder is named."""
    play = ready("reveal_shares", {SILENT: "mask_input"})
    outside = Secret(value.to_bytes(33, "big"))
    replies = with_wrong_key_share(play.answers("reveal_shares"), 1, lambda _share: outside)

    result = finish(play, "reveal_shares", replies)

    assert_exact(result, ALIVE, (0, 1, 2))
    assert set(result.faults) == {"client-01"}


def test_only_as_many_shares_as_the_threshold_are_combined() -> None:
    """Wrong shares of a client beyond the first t do not reach the sums."""
    play = ready("reveal_shares", {SILENT: "mask_input"})
    replies = with_wrong_key_share(play.answers("reveal_shares"), 4, lambda _share: ANY)

    result = finish(play, "reveal_shares", replies)

    assert_exact(result, ALIVE, (0, 1, 2))


def test_sums_are_opened_once() -> None:
    """A second call of result raises StageError: the sums are opened in place."""
    play = ready("reveal_shares")
    assert_exact(finish(play, "reveal_shares", play.answers("reveal_shares")), names(5), (0, 1, 2))

    with pytest.raises(StageError):
        play.server.result(same_bindings(SESSION))


# One faulty client costs itself the round, not the others.


def spoilt_key(replies: Mapping[str, bytes], kind: str) -> bytes:
    """The first client's advertisement with a key that every peer would refuse."""
    message = KeyAdvertisement.from_bytes(replies["client-01"])
    other = KeyAdvertisement.from_bytes(replies["client-02"])
    spoilt = {
        "a peer's": replace(message, mask_keys={**message.mask_keys, 0: other.mask_keys[0]}),
        "a peer's of another segment": replace(
            message, mask_keys={**message.mask_keys, 0: other.mask_keys[1]}
        ),
        "a peer's for another purpose": replace(message, sealing_key=other.mask_keys[0]),
        "one for two purposes": replace(message, sealing_key=message.mask_keys[1]),
        "one for two segments": replace(message, mask_keys=dict.fromkeys((0, 1), message.mask_keys[0])),
        "of small order": replace(message, sealing_key=bytes(32)),
        "a mask key of small order": replace(message, mask_keys={**message.mask_keys, 1: bytes(32)}),
        "a peer's nonce": replace(message, nonce=other.nonce),
        "no key for a segment": replace(message, mask_keys={0: message.mask_keys[0]}),
        "a key for a segment too many": replace(
            message, mask_keys={**message.mask_keys, 2: b"\x09" + bytes(31)}
        ),
    }
    return spoilt[kind].to_bytes()


@pytest.mark.parametrize(
    "kind",
    [
        "a peer's",
        "a peer's of another segment",
        "a peer's for another purpose",
        "one for two purposes",
        "one for two segments",
        "of small order",
        "a mask key of small order",
        "a peer's nonce",
        "no key for a segment",
        "a key for a segment too many",
    ],
)
def test_a_key_that_every_peer_would_refuse_is_refused_on_receipt(kind: str) -> None:
    """Its sender is out of the session; the others finish it exactly."""
    play = ready("advertise_keys")
    replies = play.answers("advertise_keys")
    bad = spoilt_key(replies, kind)
    del replies["client-01"]
    play.deliver(replies)

    with pytest.raises((RosterError, KeyAgreementError), match="client-01"):
        play.server.receive("client-01", bad)
    result = finish(play, "advertise_keys", {})

    assert_exact(result, names(5)[1:], (0, 2))


def test_bundles_of_the_wrong_size_are_refused_on_receipt() -> None:
    """Blobs that nobody could open never reach the others, who finish exactly."""
    play = ready("share_keys")
    replies = play.answers("share_keys")
    message = SealedShares.from_bytes(replies.pop("client-01"))
    bad = replace(message, sealed={**message.sealed, 3: b""}).to_bytes()

    with pytest.raises(SealError, match="client-01"):
        play.server.receive("client-01", bad)
    result = finish(play, "share_keys", replies)

    assert_exact(result, names(5)[1:], (0, 2))


@pytest.mark.parametrize("extra", [1, -1, 33, 66])
def test_bundles_have_room_for_exactly_the_extra_secrets(extra: int) -> None:
    """A bundle whose size is that of another number of shares costs its sender the round and nobody else."""
    play = ready("share_keys")
    replies = play.answers("share_keys")
    message = SealedShares.from_bytes(replies.pop("client-01"))
    wrong = (message.sealed[3] + bytes(max(extra, 0)))[: len(message.sealed[3]) + extra]
    bad = replace(message, sealed={**message.sealed, 3: wrong}).to_bytes()

    with pytest.raises(SealError, match="client-01"):
        play.server.receive("client-01", bad)
    result = finish(play, "share_keys", replies)

    assert_exact(result, names(5)[1:], (0, 2))


@pytest.mark.parametrize("bits", [16, 20, 24])
def test_an_upload_in_another_ring_is_refused(bits: int) -> None:
    """An upload packed for another ring than the session's raises InputError and adds nothing."""
    play = ready("mask_input")
    replies = play.answers("mask_input")
    bad = replace(MaskedInput.from_bytes(replies["client-01"]), ring_bits=bits)

    with pytest.raises(InputError, match=f"client-01: ring_bits={bits}"):
        play.server.receive("client-01", bad.to_bytes())
    result = finish(play, "mask_input", replies)

    assert_exact(result, names(5), (0, 1, 2))


def test_padding_counts_for_no_quorum() -> None:
    """A segment in which only padding members are left is refused, whatever shares the clients reveal."""
    session = make_session(5, segment(0, 3, names(5)), segment(1, 3, names(5), 2, holders=names(2)))
    play = Play(ReproducibleMasking(), session)
    play.play_before("mask_input")
    play.play("mask_input", ["client-01"])
    play.play_after("mask_input")

    result = play.server.result(same_bindings(session))

    assert set(result.sums) == {0}
    assert "1 surviving holders, quorum 2" in result.refused[1]


@pytest.mark.parametrize("stage", ["advertise_keys", "mask_input"])
def test_where_nobody_signs_a_signature_is_refused(stage: str) -> None:
    """In a session without identities 64 bytes more raise SignatureError: a message has one form; the right one counts."""
    play = ready(stage)
    replies = play.answers(stage)

    with pytest.raises(SignatureError, match="client-01"):
        play.server.receive("client-01", replies["client-01"] + bytes(64))
    result = finish(play, stage, replies)

    assert_exact(result, names(5), (0, 1, 2))
