"""What a hostile server forges is refused by a named error; without the check it works."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from protocols.errors import (
    BelowThresholdError,
    ContextError,
    KeyAgreementError,
    ProtocolError,
    RosterError,
    SealError,
    SignatureError,
    WireError,
)
from protocols.identity.trust import Identity
from protocols.masking import checks
from protocols.masking import client as steps
from protocols.masking.messages import (
    KeyDirectory,
    MaskedInput,
    ShareBundle,
)
from protocols.primitives.agreement import PrivateKey
from protocols.primitives.sealed import seal
from protocols.primitives.secret import Secret
from protocols.profiles import CONSISTENCY, ONE_ANSWER, MaskingProfile
from protocols.wire import MessageType, Writer
from tests.protocols.masking.hostile import (
    AGREE,
    MASK,
    REVEAL,
    SHARE,
    HostileServer,
    authority,
    names,
    stream,
    tampered,
)
from tests.protocols.masking.hostile_scenes import (
    PEER,
    PUPPET,
    SIGNED,
    VICTIM,
    assert_ends_clean,
    assert_finishes,
    assert_refused,
    delivered,
    genuine,
    listed,
    profile_name,
    scene,
    shown,
    swap,
    told,
    with_view_signature,
)


def earlier(server: HostileServer, stage: str = REVEAL, **terms: Any) -> HostileServer:
    """Another session of the same clients, the round before unless said otherwise, as far as it was recorded."""
    return scene(server.profile, stage, **({"round": 1} | terms))


# The attacks that one forged request makes.


@dataclass(frozen=True, slots=True)
class Forgery:
    """A request to the victim, and how it is refused."""

    make: Callable[[HostileServer], bytes]
    error: type[ProtocolError]
    match: str


def own_keys(server: HostileServer, position: int = PEER) -> dict[str, Any]:
    """Keys whose private halves the server knows, in the shape of a client's own."""
    fresh = [PrivateKey(Secret(bytes([number]) * 32)).public for number in range(1, 4)]
    mask_keys = server.advertisements[position].mask_keys
    return {"sealing_key": fresh[2], "mask_keys": dict(zip(sorted(mask_keys), fresh, strict=False))}


def impostor(position: int = PEER) -> Identity:
    """An identity in a client's name that the server's own authority certified."""
    return authority("the server's own").identity(names(7)[position - 1])


def stale(server: HostileServer, *, relabelled: bool = False, **terms: Any) -> bytes:
    """The directory with a peer's recorded advertisement of another session."""
    old = earlier(server, SHARE, **terms).advertisements[PEER]
    if relabelled:
        old = replace(old, context=server.terms.context)
    return server.directory(old).to_bytes()


def puppet_copies(server: HostileServer, **changes: Any) -> bytes:
    """The directory in which the corrupt client has signed something else."""
    return swap(server, PUPPET, signer=genuine(PUPPET), **changes)


def without_entry(server: HostileServer, position: int) -> KeyDirectory:
    """The directory whose nonces name somebody whose advertisement is kept back."""
    whole = server.directory()
    return replace(
        whole, advertisements=tuple(entry for entry in whole.advertisements if entry.sender != position)
    )


def with_nonce(server: HostileServer, position: int) -> KeyDirectory:
    """The directory whose table gives another nonce for somebody."""
    whole = server.directory()
    return replace(whole, nonces={**whole.nonces, position: bytes(16)})


def among(server: HostileServer, *positions: int) -> KeyDirectory:
    """The directory of a few."""
    few = server.fork()
    few.present = set(positions)
    return few.directory()


DIRECTORIES: dict[str, Forgery] = {
    "its own keys for a peer, under the peer's signature": Forgery(
        lambda s: swap(s, **own_keys(s)), SignatureError, "client-02"
    ),
    "its own keys for a peer, signed by an impostor": Forgery(
        lambda s: swap(s, signer=impostor(), **own_keys(s)), SignatureError, "client-02"
    ),
    "its own keys for a peer, signed by a corrupt client": Forgery(
        lambda s: swap(s, signer=genuine(PUPPET), **own_keys(s)), SignatureError, "client-02"
    ),
    "its own keys for a peer, not signed": Forgery(
        lambda s: swap(s, signature=b"", **own_keys(s)), SignatureError, "client-02"
    ),
    "only its own sealing key for a peer": Forgery(
        lambda s: swap(s, sealing_key=own_keys(s)["sealing_key"]), SignatureError, "client-02"
    ),
    "a corrupt client's advertisement under a peer's name": Forgery(
        lambda s: s.directory(replace(s.advertisements[PUPPET], sender=PEER)).to_bytes(),
        RosterError,
        "one nonce twice",
    ),
    "a peer's signature of something else": Forgery(
        lambda s: swap(s, signature=earlier(s).uploads[PEER].view_signature), SignatureError, "client-02"
    ),
    "a peer's advertisement of the round before": Forgery(stale, ContextError, "another session"),
    "a peer's advertisement of another attempt": Forgery(
        lambda s: stale(s, round=2, attempt=2), ContextError, "another session"
    ),
    "a peer's advertisement of another run": Forgery(
        lambda s: stale(s, round=2, run=bytes(16)), ContextError, "another session"
    ),
    "a peer's advertisement of the round before, relabelled": Forgery(
        lambda s: stale(s, relabelled=True), SignatureError, "client-02"
    ),
    "a peer's advertisement of another attempt, relabelled": Forgery(
        lambda s: stale(s, relabelled=True, round=2, attempt=2), SignatureError, "client-02"
    ),
    "a peer's advertisement of another run, relabelled": Forgery(
        lambda s: stale(s, relabelled=True, round=2, run=bytes(16)), SignatureError, "client-02"
    ),
    "the directory of the round before": Forgery(
        lambda s: earlier(s, SHARE).directory().to_bytes(), ContextError, "another session"
    ),
    "a directory without the client": Forgery(
        lambda s: among(s, 2, 3, 4, 5).to_bytes(), RosterError, "lacks this client"
    ),
    "a directory without the client's advertisement": Forgery(
        lambda s: without_entry(s, VICTIM).to_bytes(), RosterError, "lacks this client"
    ),
    "another nonce for the client": Forgery(
        lambda s: with_nonce(s, VICTIM).to_bytes(), RosterError, "another nonce"
    ),
    "other keys for the client": Forgery(
        lambda s: swap(s, VICTIM, **own_keys(s, VICTIM)), RosterError, "other keys"
    ),
    "the client's own advertisement under a peer's name": Forgery(
        lambda s: s.directory(replace(s.advertisements[VICTIM], sender=PEER)).to_bytes(), RosterError, "twice"
    ),
    "another nonce for a peer": Forgery(
        lambda s: with_nonce(s, PEER).to_bytes(), RosterError, "another nonce"
    ),
    "a peer hidden whose nonce is shown": Forgery(
        lambda s: without_entry(s, PEER).to_bytes(), RosterError, "exactly this client's"
    ),
    "a corrupt client with a peer's nonce": Forgery(
        lambda s: puppet_copies(s, nonce=s.advertisements[PEER].nonce), RosterError, "one nonce twice"
    ),
    "a corrupt client with a peer's mask key": Forgery(
        lambda s: puppet_copies(s, mask_keys={0: s.advertisements[PEER].mask_keys[0]}),
        RosterError,
        "one key twice",
    ),
    "a corrupt client with the victim's mask key": Forgery(
        lambda s: puppet_copies(s, mask_keys={0: s.advertisements[VICTIM].mask_keys[0]}),
        RosterError,
        "one key twice",
    ),
    "a corrupt client whose mask key is a peer's sealing key": Forgery(
        lambda s: puppet_copies(s, mask_keys={0: s.advertisements[PEER].sealing_key}),
        RosterError,
        "one key twice",
    ),
    "a corrupt client whose sealing key is a peer's mask key": Forgery(
        lambda s: puppet_copies(s, sealing_key=s.advertisements[PEER].mask_keys[1]),
        RosterError,
        "one key twice",
    ),
    "a corrupt client with one key for two purposes": Forgery(
        lambda s: puppet_copies(s, sealing_key=s.advertisements[PUPPET].mask_keys[0]),
        RosterError,
        "one key twice",
    ),
    "a corrupt client in a segment that it does not hold": Forgery(
        lambda s: puppet_copies(
            s, mask_keys={**s.advertisements[PUPPET].mask_keys, 1: own_keys(s)["sealing_key"]}
        ),
        RosterError,
        "one mask key for each",
    ),
    "a corrupt client without a mask key": Forgery(
        lambda s: puppet_copies(s, mask_keys={}), RosterError, "one mask key for each"
    ),
    "a corrupt client with a sealing key of small order": Forgery(
        lambda s: puppet_copies(s, sealing_key=bytes(32)), KeyAgreementError, "small order"
    ),
    "a stranger": Forgery(
        lambda s: s.directory(replace(s.advertisements[PEER], sender=6, nonce=bytes(16))).to_bytes(),
        RosterError,
        "position 6",
    ),
    "too few": Forgery(lambda s: among(s, VICTIM, PUPPET).to_bytes(), BelowThresholdError, "2 advertised"),
    "a directory cut short": Forgery(lambda s: s.directory().to_bytes()[:-1], WireError, "early|bytes"),
    "a directory with something behind it": Forgery(
        lambda s: s.directory().to_bytes() + b"\x00", WireError, "trailing"
    ),
}


def puppet_seals(server: HostileServer, bundle: ShareBundle | bytes) -> bytes:
    """The victim's delivery with a bundle that the corrupt client made up and sealed properly."""
    state = server.puppets[PUPPET]
    key = steps._sealing_key(server.terms, state.sealing_secrets[VICTIM], sender=PUPPET, recipient=VICTIM)
    plaintext = Secret(bundle) if isinstance(bundle, bytes) else bundle.to_bytes()
    blob = seal(key, plaintext, context=server.terms.context, random_bytes=stream("made up"))
    return delivered(server, p5=blob)


# By name: the victim's delivery, and whose bundles in it cannot be used.
BUNDLES: dict[str, tuple[Callable[[HostileServer], bytes], tuple[int, ...]]] = {
    "a bundle reflected to its sender": (lambda s: delivered(s, p2=s.sealed[VICTIM].sealed[PEER]), (2,)),
    "two peers' bundles swapped": (
        lambda s: delivered(s, p2=s.sealed[3].sealed[VICTIM], p3=s.sealed[2].sealed[VICTIM]),
        (2, 3),
    ),
    "a peer's bundle for somebody else": (lambda s: delivered(s, p2=s.sealed[PEER].sealed[3]), (2,)),
    "a peer's bundle of the round before": (
        lambda s: delivered(s, p2=earlier(s).sealed[PEER].sealed[VICTIM]),
        (2,),
    ),
    "a peer's bundle of another attempt": (
        lambda s: delivered(s, p2=earlier(s, round=2, attempt=2).sealed[PEER].sealed[VICTIM]),
        (2,),
    ),
    "a bundle with one bit turned": (
        lambda s: delivered(
            s, p2=s.sealed[PEER].sealed[VICTIM][:-1] + bytes([s.sealed[PEER].sealed[VICTIM][-1] ^ 1])
        ),
        (2,),
    ),
    "an empty bundle": (lambda s: delivered(s, p2=b""), (2,)),
    "a corrupt client's bundle without shares": (lambda s: puppet_seals(s, ShareBundle(segments={})), (5,)),
    "a corrupt client's bundle for a segment that it does not hold": (
        lambda s: puppet_seals(
            s, ShareBundle(segments=dict.fromkeys((0, 1), s.puppets[PUPPET].own_bundle.segments[0]))
        ),
        (5,),
    ),
    "a corrupt client's bundle that is none": (lambda s: puppet_seals(s, b"nonsense"), (5,)),
    "a corrupt client's bundle of other shares": (
        lambda s: puppet_seals(s, s.puppets[PUPPET].own_bundle),
        (5,),
    ),
    "every bundle replaced": (lambda s: delivered(s, p2=b"", p3=b"", p4=b"", p5=b""), (2, 3, 4, 5)),
}


DELIVERIES: dict[str, Forgery] = {
    "the delivery of the round before": Forgery(
        lambda s: earlier(s).delivery(VICTIM).to_bytes(), ContextError, "another session"
    ),
    "somebody else's delivery": Forgery(
        lambda s: s.delivery(PEER).to_bytes(), RosterError, "position 2 were delivered"
    ),
    "somebody else's delivery, readdressed": Forgery(
        lambda s: replace(s.delivery(PEER), recipient=VICTIM).to_bytes(),
        RosterError,
        "exactly the participating",
    ),
    "participants without the client": Forgery(
        lambda s: replace(s.delivery(VICTIM), participants=(2, 3, 4, 5)).to_bytes(),
        RosterError,
        "lacks this client",
    ),
    "a participant that never advertised": Forgery(
        lambda s: replace(told(s, 1, 2, 3, 4, 5), participants=(1, 2, 3, 4, 5, 6)).to_bytes(),
        RosterError,
        "position 6",
    ),
    "a promised bundle kept back": Forgery(
        lambda s: replace(told(s, 1, 3, 4, 5), participants=(1, 2, 3, 4, 5)).to_bytes(),
        RosterError,
        "exactly the participating",
    ),
    "a bundle of somebody who does not take part": Forgery(
        lambda s: replace(told(s, 1, 2, 3, 4, 5), participants=(1, 3, 4, 5)).to_bytes(),
        RosterError,
        "exactly the participating",
    ),
    "too few participants": Forgery(
        lambda s: told(s, VICTIM, PUPPET).to_bytes(), BelowThresholdError, "2 sharing"
    ),
    "the victim alone": Forgery(lambda s: told(s, VICTIM).to_bytes(), BelowThresholdError, "1 sharing"),
    "a delivery cut short": Forgery(lambda s: s.delivery(VICTIM).to_bytes()[:-1], WireError, "early"),
}


LISTS: dict[str, Forgery] = {
    "somebody both surviving and dropped": Forgery(
        lambda s: listed(s, dropped=(PEER,)), RosterError, "position 2 is listed both"
    ),
    "the client both surviving and dropped": Forgery(
        lambda s: listed(s, dropped=(VICTIM,)), RosterError, "position 1 is listed both"
    ),
    "everyone both surviving and dropped": Forgery(
        lambda s: listed(s, dropped=(1, 2, 3, 4, 5)), RosterError, "listed both"
    ),
    "the client dropped": Forgery(
        lambda s: s.survivors(VICTIM, (2, 3, 4, 5)).to_bytes(), RosterError, "lacks this client"
    ),
    "the client nowhere": Forgery(
        lambda s: s.survivors(VICTIM, (2, 3, 4, 5), (2, 3, 4, 5)).to_bytes(), RosterError, "lacks this client"
    ),
    "a participant nowhere": Forgery(
        lambda s: s.survivors(VICTIM, (1, 3, 4, 5), (1, 3, 4, 5)).to_bytes(),
        RosterError,
        "exactly the clients",
    ),
    "somebody dropped who did not take part": Forgery(
        lambda s: listed(s, dropped=(6,)), RosterError, "exactly the clients"
    ),
    "position zero dropped": Forgery(lambda s: listed(s, dropped=(0,)), RosterError, "exactly the clients"),
    "too few survivors": Forgery(
        lambda s: s.survivors(VICTIM, (VICTIM, PUPPET)).to_bytes(), BelowThresholdError, "2 survivors"
    ),
    "the victim alone": Forgery(
        lambda s: s.survivors(VICTIM, (VICTIM,)).to_bytes(), BelowThresholdError, "1 surviv"
    ),
    "the list of the round before": Forgery(
        lambda s: earlier(s).survivors(VICTIM).to_bytes(), ContextError, "another session"
    ),
    "the list of another attempt": Forgery(
        lambda s: earlier(s, round=2, attempt=2).survivors(VICTIM).to_bytes(), ContextError, "another session"
    ),
    "a survivor without a signature of its view": Forgery(
        lambda s: listed(
            s, view_signatures={p: v for p, v in s.survivors(VICTIM).view_signatures.items() if p != PEER}
        ),
        RosterError,
        "every survivor's signature",
    ),
    "no signatures of views": Forgery(
        lambda s: listed(s, view_signatures={}), RosterError, "every survivor's signature"
    ),
    "the view signature of somebody who did not survive": Forgery(
        lambda s: replace(
            s.survivors(VICTIM, (1, 3, 4, 5)), view_signatures=s.survivors(VICTIM).view_signatures
        ).to_bytes(),
        RosterError,
        "every survivor's signature",
    ),
    "a view signature made by an impostor": Forgery(
        lambda s: with_view_signature(s, impostor().sign(checks.VIEW, s.view(VICTIM))),
        SignatureError,
        "'client-02', participants",
    ),
    "a peer's view signature made by a corrupt client": Forgery(
        lambda s: with_view_signature(s, genuine(PUPPET).sign(checks.VIEW, s.view(VICTIM))),
        SignatureError,
        "'client-02', participants",
    ),
    "a peer's view signature of the round before": Forgery(
        lambda s: with_view_signature(s, earlier(s).uploads[PEER].view_signature),
        SignatureError,
        "'client-02', participants",
    ),
    "one peer's view signature for another": Forgery(
        lambda s: with_view_signature(s, s.uploads[3].view_signature),
        SignatureError,
        "'client-02', participants",
    ),
    "a peer's signature of its advertisement for its view": Forgery(
        lambda s: with_view_signature(s, s.advertisements[PEER].signature),
        SignatureError,
        "'client-02', participants",
    ),
    "a corrupt client's signature of another view": Forgery(
        lambda s: with_view_signature(s, genuine(PUPPET).sign(checks.VIEW, bytes(32)), PUPPET),
        SignatureError,
        "'client-05', participants",
    ),
    "a list cut short": Forgery(lambda s: s.survivors(VICTIM).to_bytes()[:-1], WireError, "early"),
}


def signed_by(server: HostileServer, *positions: int) -> bytes:
    """The signatures of these alone."""
    return server.shown({p: server.signatures[p] for p in positions}).to_bytes()


def shown_twice(server: HostileServer) -> bytes:
    """One client's signature counted twice under its own name, as no honest encoder writes it."""
    positions = (1, 2, 2, 3)
    writer = Writer(MessageType.SURVIVOR_SIGNATURES).fixed(server.terms.context, 32).positions(positions)
    for position in positions:
        writer.fixed(server.signatures[position], 64)
    return writer.done()


def signature_of_another_list(server: HostileServer, position: int = PEER) -> bytes:
    """What a client would have signed if it had been given another list; the corrupt client signs any."""
    other = server.survivors(position, server.views[position] - {4})
    return genuine(position).sign(checks.SURVIVORS, other.to_bytes())


SIGNATURES: dict[str, Forgery] = {
    "a signature made by an impostor": Forgery(
        lambda s: shown(s, p2=impostor().sign(checks.SURVIVORS, s.survivors(VICTIM).to_bytes())),
        SignatureError,
        "'client-02', survivor list",
    ),
    "a peer's signature made by a corrupt client": Forgery(
        lambda s: shown(s, p2=s.signatures[PUPPET]), SignatureError, "'client-02', survivor list"
    ),
    "a signature of nothing": Forgery(
        lambda s: shown(s, p2=bytes(64)), SignatureError, "'client-02', survivor list"
    ),
    "a peer's signature of another list": Forgery(
        lambda s: shown(s, p2=signature_of_another_list(s)), SignatureError, "'client-02', survivor list"
    ),
    "a corrupt client's signature of another list": Forgery(
        lambda s: shown(s, p5=signature_of_another_list(s, PUPPET)),
        SignatureError,
        "'client-05', survivor list",
    ),
    "a peer's signature of its view for that of the list": Forgery(
        lambda s: shown(s, p2=s.uploads[PEER].view_signature), SignatureError, "'client-02', survivor list"
    ),
    "a peer's signature of the list of the round before": Forgery(
        lambda s: shown(s, p2=earlier(s).signatures[PEER]), SignatureError, "'client-02', survivor list"
    ),
    "one signature under two names": Forgery(
        lambda s: s.shown({**{p: s.signatures[p] for p in (1, 2, 3)}, 4: s.signatures[3]}).to_bytes(),
        SignatureError,
        "'client-04', survivor list",
    ),
    "one signature twice under one name": Forgery(shown_twice, WireError, "strictly increasing"),
    "one signature too few": Forgery(lambda s: signed_by(s, 1, 2, 3), BelowThresholdError, "3 signatures"),
    "no signatures": Forgery(signed_by, BelowThresholdError, "0 signatures"),
    "the signatures of the round before": Forgery(
        lambda s: earlier(s).shown().to_bytes(), ContextError, "another session"
    ),
    "a stranger's signature": Forgery(lambda s: shown(s, p6=bytes(64)), RosterError, "position 6 signs"),
}


@pytest.mark.parametrize("profile", SIGNED, ids=profile_name)
@pytest.mark.parametrize("name", DIRECTORIES)
def test_a_forged_directory_is_refused(name: str, profile: MaskingProfile) -> None:
    """Whatever the directory says that its clients have not signed, or say of two things at once, stops it."""
    forgery, server = DIRECTORIES[name], scene(profile, SHARE)

    assert_refused(server, VICTIM, forgery.make(server), forgery.error, forgery.match)

    assert_finishes(server)


@pytest.mark.parametrize("profile", SIGNED, ids=profile_name)
@pytest.mark.parametrize("name", DELIVERIES)
def test_a_forged_delivery_is_refused(name: str, profile: MaskingProfile) -> None:
    """Bundles that were not sealed for this client by that peer in this session, and odd participants, stop it."""
    forgery, server = DELIVERIES[name], scene(profile, MASK)

    assert_refused(server, VICTIM, forgery.make(server), forgery.error, forgery.match)

    assert_finishes(server)


@pytest.mark.parametrize("profile", SIGNED, ids=profile_name)
@pytest.mark.parametrize("name", BUNDLES)
def test_a_forged_bundle_gets_the_server_fewer_shares_and_nothing_else(
    name: str, profile: MaskingProfile
) -> None:
    """Bundles not sealed for this client by that peer in this session are put aside; if most are, the client stops."""
    make, bad = BUNDLES[name]
    server = scene(profile, MASK)
    usable = len(server.present) - len(bad)
    request = make(server)

    if usable < server.terms.share_threshold:
        assert_refused(server, VICTIM, request, SealError, f"{usable} bundles.*client-0{bad[0]}")
    else:
        twin = copy.copy(server.clients[VICTIM])
        upload = MaskedInput.from_bytes(twin.contribute(request, server.inputs[VICTIM]))
        assert upload.disputed == bad
        assert isinstance(twin._state, steps.Masked)
        assert set(twin._state.bundles) == server.present - set(bad)
        assert_ends_clean(twin, request)

    assert_finishes(server)


@pytest.mark.parametrize("profile", SIGNED, ids=profile_name)
@pytest.mark.parametrize("name", LISTS)
def test_a_forged_survivor_list_is_refused(name: str, profile: MaskingProfile) -> None:
    """A list that is not about exactly those who masked, all of whom signed the client's own view, stops it."""
    forgery, server = LISTS[name], scene(profile)
    server.play_before(server.stages[3])

    assert_refused(server, VICTIM, forgery.make(server), forgery.error, forgery.match)

    assert_finishes(server)


@pytest.mark.parametrize("name", SIGNATURES)
def test_forged_signatures_of_the_list_are_refused(name: str) -> None:
    """Signatures that are forged, repeated, of something else or too few reveal nothing."""
    forgery, server = SIGNATURES[name], scene(CONSISTENCY, REVEAL)

    assert_refused(server, VICTIM, forgery.make(server), forgery.error, forgery.match)

    assert_finishes(server)


def test_the_signature_of_somebody_dropped_is_refused() -> None:
    """Who is on the list as dropped cannot vouch for it."""
    server = scene(CONSISTENCY, AGREE)
    server.present -= {4}
    server.play_before(REVEAL)
    request = shown(server, p4=genuine(4).sign(checks.SURVIVORS, server.survivors(VICTIM).to_bytes()))

    assert_refused(server, VICTIM, request, RosterError, "position 4 signs")

    assert_finishes(server)


def test_as_many_signatures_as_the_threshold_are_enough() -> None:
    """One client withholding its signature stops nobody: the sum still holds it."""
    server = scene(CONSISTENCY, REVEAL)
    del server.signatures[4]

    assert_finishes(server)


def test_a_mask_key_of_small_order_is_refused_before_it_masks_anything() -> None:
    """A corrupt client's mask key with which everybody would agree on the same secret stops the victim by name."""
    server = scene(ONE_ANSWER, SHARE)
    weak = tampered(server.advertisements[PUPPET], genuine(PUPPET), mask_keys={0: bytes(32)})
    server.advertisements[PUPPET] = weak
    server.puppets[PUPPET] = replace(server.puppets[PUPPET], advertisement=weak)
    server.step()

    assert_refused(server, VICTIM, server.delivery(VICTIM).to_bytes(), KeyAgreementError, "small order")

    server.present -= {PUPPET}
    assert_finishes(server)
