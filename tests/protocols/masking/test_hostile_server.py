"""What a hostile server tries, written as it would try it, and the named error that stops it.

The attacker (`HostileServer`) speaks to honest clients in bytes, keeps everything, and holds the secrets of its corrupt
clients. Where an attack is stopped by one check, the check is switched off in a second test and the attack succeeds: so
the first test shows what it says.
"""

import copy
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from itertools import combinations, product
from typing import Any, Final

import numpy as np
import pytest

from protocols.errors import (
    BelowThresholdError,
    CertificateError,
    ContextError,
    EnrolmentError,
    KeyAgreementError,
    ProtocolError,
    RevokedError,
    RosterError,
    SealError,
    SignatureError,
    StageError,
    WireError,
)
from protocols.identity.certificates import Certificate, issue_certificate
from protocols.identity.revocations import issue_revocations
from protocols.identity.trust import Identity, Roster, RosterEntry, TrustStore
from protocols.interface import SegmentInput, SumResult
from protocols.masking import checks
from protocols.masking import client as steps
from protocols.masking.messages import (
    KeyDirectory,
    MaskedInput,
    RevealedShares,
    ShareBundle,
    ShareDelivery,
    SignedSurvivors,
)
from protocols.masking.secure_sum import Masking, MaskingClient
from protocols.masking.server import opening
from protocols.masking.terms import Terms
from protocols.primitives.agreement import PrivateKey
from protocols.primitives.sealed import seal
from protocols.primitives.secret import Secret
from protocols.primitives.signing import SigningKey
from protocols.profiles import CONSISTENCY, ONE_ANSWER, SEMI_HONEST, MaskingProfile
from protocols.ring import RingVector, to_ring
from protocols.run import run_session
from protocols.wire import MessageType, Writer
from tests.protocols.masking.hostile import (
    ADVERTISE,
    AGREE,
    MASK,
    MODEL,
    NOW,
    OTHER_MODEL,
    REVEAL,
    SHARE,
    HostileServer,
    answers_to_every_list,
    authority,
    best_split,
    bytes_in,
    fewest_opened,
    make_inputs,
    make_session,
    mount,
    names,
    plain_sum,
    secrets_in,
    segment,
    stream,
    subsets,
    tampered,
)

VICTIM: Final = 1
PEER: Final = 2
PUPPET: Final = 5
SIGNED = [ONE_ANSWER, CONSISTENCY]
NOISE_WORDS: Final = 20_000

# 255 degrees of freedom: mean 255, standard deviation 22.6. Uniform bytes exceed this once in more than 10^9 draws.
UNIFORM_BELOW: Final = 400.0


def profile_name(profile: MaskingProfile) -> str:
    """How a parameter is shown."""
    return profile.name


def scene(profile: MaskingProfile = ONE_ANSWER, stage: str = ADVERTISE, **terms: Any) -> HostileServer:
    """Five clients, the last one corrupt, played honestly up to a stage."""
    session = make_session(5, **{"threshold": profile.threshold(5), **terms})
    return HostileServer(session, profile, corrupt=(PUPPET,)).play_before(stage)


def earlier(server: HostileServer, stage: str = REVEAL, **terms: Any) -> HostileServer:
    """Another session of the same clients, the round before unless said otherwise, as far as it was recorded."""
    return scene(server.profile, stage, **({"round": 1} | terms))


def assert_refused(
    server: HostileServer, position: int, request: bytes, error: type[ProtocolError], match: str
) -> None:
    """The client refuses by name, is left as it was, and could drop everything it knows."""
    client = server.clients[position]
    before = dict(vars(client))

    with pytest.raises(error, match=match) as caught:
        server.hand(position, request)

    assert type(caught.value) is error
    assert vars(client) == before
    assert_ends_clean(client, request)


def assert_ends_clean(client: MaskingClient, request: bytes = b"") -> None:
    """Ended, a client holds none of the secrets that it held, and answers nothing."""
    twin = copy.copy(client)
    known = secrets_in(twin)

    twin.end()

    assert known
    assert not secrets_in(twin)
    assert not set(known) & set(bytes_in(twin))
    with pytest.raises(StageError):
        twin.reply(request)
    with pytest.raises(StageError):
        twin.contribute(request, {})


def assert_finishes(server: HostileServer) -> None:
    """With honest messages from here on, everyone still gets to the exact sums."""
    assert server.finish() == server.plain()


# The attacks that one forged request makes.


@dataclass(frozen=True, slots=True)
class Forgery:
    """A request to the victim, and how it is refused."""

    make: Callable[[HostileServer], bytes]
    error: type[ProtocolError]
    match: str


def swap(
    server: HostileServer, position: int = PEER, *, signer: Identity | None = None, **changes: Any
) -> bytes:
    """The directory in which one advertisement says something else."""
    return server.directory(tampered(server.advertisements[position], signer, **changes)).to_bytes()


def own_keys(server: HostileServer, position: int = PEER) -> dict[str, Any]:
    """Keys whose private halves the server knows, in the shape of a client's own."""
    fresh = [PrivateKey(Secret(bytes([number]) * 32)).public for number in range(1, 4)]
    mask_keys = server.advertisements[position].mask_keys
    return {"sealing_key": fresh[2], "mask_keys": dict(zip(sorted(mask_keys), fresh, strict=False))}


def genuine(position: int) -> Identity:
    """The identity that the authority gave the client at a position."""
    return authority().identity(names(7)[position - 1])


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


def delivered(server: HostileServer, **blobs: bytes) -> bytes:
    """The victim's delivery with other bundles, named p2, p3 and so on."""
    whole = server.delivery(VICTIM)
    others = {int(name[1:]): blob for name, blob in blobs.items()}
    return replace(whole, sealed={**whole.sealed, **others}).to_bytes()


def puppet_seals(server: HostileServer, bundle: ShareBundle | bytes) -> bytes:
    """The victim's delivery with a bundle that the corrupt client made up and sealed properly."""
    state = server.puppets[PUPPET]
    key = steps._sealing_key(server.terms, state.sealing_secrets[VICTIM], sender=PUPPET, recipient=VICTIM)
    plaintext = Secret(bundle) if isinstance(bundle, bytes) else bundle.to_bytes()
    blob = seal(key, plaintext, context=server.terms.context, random_bytes=stream("made up"))
    return delivered(server, p5=blob)


def told(server: HostileServer, *participants: int) -> ShareDelivery:
    """The victim's delivery when it is told of these participants."""
    return server.delivery(VICTIM, participants)


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


def listed(server: HostileServer, **changes: Any) -> bytes:
    """The victim's honest survivor list with something else in it."""
    return replace(server.survivors(VICTIM), **changes).to_bytes()


def with_view_signature(server: HostileServer, signature: bytes, position: int = PEER) -> bytes:
    """The victim's survivor list with another signature of somebody's view."""
    given = server.survivors(VICTIM).view_signatures
    return listed(server, view_signatures={**given, position: signature})


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


def shown(server: HostileServer, **others: bytes) -> bytes:
    """The signatures of the honest list, some of them replaced; named p2, p3 and so on."""
    changed = {int(name[1:]): signature for name, signature in others.items()}
    return server.shown({**server.signatures, **changed}).to_bytes()


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


# Who is who.


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """A client's identity that is not to be believed, and what the attacker signs with."""

    trust: Callable[[], TrustStore]
    signer: Callable[[], Identity]
    doubted: frozenset[int]
    error: type[ProtocolError]
    match: str


def certified(key: SigningKey, *, valid_for: int = 86_400) -> Certificate:
    """A certificate of the last client for a key, by the real authority."""
    issuer = authority()
    return issue_certificate(
        issuer.key,
        issuer.certificate,
        client="client-05",
        rank=8,
        public_key=key.public,
        now=NOW,
        valid_for=valid_for,
        random_bytes=stream("another certificate"),
    )


def roster_of(*certificates: Certificate) -> Roster:
    """The authority's second roster."""
    return Roster.issue(
        authority().key,
        number=2,
        least_revocations=1,
        issued_at=NOW,
        expires_at=NOW + 86_400,
        entries=map(RosterEntry.of, certificates),
    )


def first_four() -> list[Certificate]:
    """The certificates of the clients that are not in doubt."""
    return [authority().identity(name).certificate for name in names(4)]


def view_with(certificate: Certificate, *, on_roster: bool = True, now: int = NOW) -> TrustStore:
    """A view in which the last client has this certificate."""
    entries = [*first_four(), *([certificate] if on_roster else [genuine(5).certificate])]
    return authority().view.updated(now=now, roster=roster_of(*entries), certificates=[certificate])


def view_without_the_last() -> TrustStore:
    """A view in which the last client is not enrolled."""
    return authority().view.updated(now=NOW, roster=roster_of(*first_four()))


def view_with_revocation() -> TrustStore:
    """A view in which the last client's certificate was taken back."""
    issuer = authority()
    taken_back = issue_revocations(
        issuer.key,
        issuer.certificate,
        serials=[genuine(5).certificate.serial],
        number=2,
        now=NOW,
        valid_for=86_400,
    )
    return issuer.view.updated(now=NOW, revocations=taken_back)


def fifth_with(key: SigningKey) -> Identity:
    """The last client's identity with this key."""
    return Identity(client="client-05", key=key, certificate=certified(key))


NEW_KEY = SigningKey(Secret(bytes(range(32))))

DOUBTS: dict[str, Doubt] = {
    "unknown": Doubt(
        trust=view_without_the_last,
        signer=lambda: genuine(5),
        doubted=frozenset({5}),
        error=EnrolmentError,
        match="'client-05' is not enrolled",
    ),
    "duplicate: two clients with one key": Doubt(
        trust=lambda: view_with(certified(genuine(4).key)),
        signer=lambda: fifth_with(genuine(4).key),
        doubted=frozenset({4, 5}),
        error=EnrolmentError,
        match="'client-0[45]' shares its key",
    ),
    "re-bound to another key": Doubt(
        trust=lambda: view_with(certified(NEW_KEY), on_roster=False),
        signer=lambda: fifth_with(NEW_KEY),
        doubted=frozenset({5}),
        error=EnrolmentError,
        match="'client-05' is not the one on roster 2",
    ),
    "expired": Doubt(
        trust=lambda: view_with(certified(NEW_KEY, valid_for=60), now=NOW + 61),
        signer=lambda: fifth_with(NEW_KEY),
        doubted=frozenset({5}),
        error=CertificateError,
        match="'client-05' expired",
    ),
    "revoked": Doubt(
        trust=view_with_revocation,
        signer=lambda: genuine(5),
        doubted=frozenset({5}),
        error=RevokedError,
        match="'client-05' was revoked",
    ),
    "signed with a key that was replaced": Doubt(
        trust=lambda: view_with(certified(NEW_KEY)),
        signer=lambda: genuine(5),
        doubted=frozenset({5}),
        error=SignatureError,
        match="'client-05', key advertisement",
    ),
}


@pytest.mark.parametrize("name", DOUBTS)
def test_an_identity_in_doubt_is_refused_by_everyone(name: str) -> None:
    """A peer whose key is unknown, shared, re-bound, expired or revoked gets no share from anybody."""
    doubt = DOUBTS[name]
    server = HostileServer(make_session(5), ONE_ANSWER, corrupt=(PUPPET,), trust=doubt.trust())
    server.play_before(SHARE)
    request = swap(server, PUPPET, signer=doubt.signer())

    for position in (1, 2, 3):
        assert_refused(server, position, request, doubt.error, doubt.match)

    server.present -= doubt.doubted
    assert_finishes(server)


def test_a_certificate_of_the_servers_own_authority_is_not_believed() -> None:
    """Only certificates and rosters of the one authority that the client knows enter its view."""
    fake = authority("the server's own")

    with pytest.raises(CertificateError):
        authority().view.updated(now=NOW, certificates=[fake.identity("client-02").certificate])
    with pytest.raises(SignatureError):
        authority().view.updated(
            now=NOW, roster=replace(fake.view.roster, number=2, signature=fake.view.roster.signature)
        )


def test_a_roster_from_before_is_not_believed() -> None:
    """The server cannot bring back a roster that still lists somebody."""
    newer = authority().view.updated(now=NOW, roster=roster_of(*first_four()))

    with pytest.raises(EnrolmentError, match="older than number 2"):
        newer.updated(now=NOW, roster=authority().view.roster)


@pytest.mark.parametrize("profile", SIGNED, ids=profile_name)
def test_a_session_without_the_client_is_refused(profile: MaskingProfile) -> None:
    """A client asked into a session whose cohort lacks it says so before it makes any key."""
    session = make_session(5, threshold=profile.threshold(5))
    outside = authority().identity("client-06")

    with pytest.raises(RosterError, match="'client-06' is no member"):
        Masking(profile, trust=authority().view, identity=outside).client(session, "client-06")


@pytest.mark.parametrize("profile", SIGNED, ids=profile_name)
def test_a_session_that_speaks_for_another_client_is_refused(profile: MaskingProfile) -> None:
    """A client takes part under its own name alone."""
    session = make_session(5, threshold=profile.threshold(5))

    with pytest.raises(RosterError, match="no identity"):
        Masking(profile, trust=authority().view, identity=genuine(2)).client(session, "client-01")


# Other terms for one client than for the rest.


def other_terms(server: HostileServer, what: str) -> Terms:
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


def relabelled(directory: KeyDirectory, context: bytes) -> KeyDirectory:
    """A directory whose entries all claim another session."""
    entries = tuple(replace(entry, context=context) for entry in directory.advertisements)
    return replace(directory, context=context, advertisements=entries)


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


# One list, and of each peer one kind of share.


@pytest.mark.parametrize("profile", SIGNED, ids=profile_name)
def test_a_second_survivor_list_is_refused(profile: MaskingProfile) -> None:
    """After the first list every other one is out of order, and the first is answered as before."""
    server = scene(profile)
    server.play_before(server.stages[3])
    first = server.request(VICTIM)
    answer = server.hand(VICTIM, first)
    others = [
        server.survivors(VICTIM, survivors | {VICTIM}).to_bytes()
        for survivors in subsets([2, 3, 4, 5])
        if survivors != {2, 3, 4, 5}
    ]
    # After agree_survivors the client reads signatures: a list is not even the right message.
    error = StageError if profile is ONE_ANSWER else WireError

    for request in others:
        with pytest.raises(error):
            server.hand(VICTIM, request)

    assert server.hand(VICTIM, first) == answer
    assert_finishes(server)


@pytest.mark.parametrize("first", [set(), {2}, {3}, {4}, {2, 3}, {3, 4}, {4, 5}], ids=str)
def test_no_order_of_lists_gets_both_kinds_of_share_of_a_peer(first: set[int]) -> None:
    """Asked with every list there is, a client reveals per peer and segment one kind of share, once."""
    server = scene(ONE_ANSWER, REVEAL)
    everyone = {1, 2, 3, 4, 5}
    lists = [everyone - first, *subsets(sorted(everyone))]
    revealed = []

    for survivors in lists:
        for participants in (everyone, set(survivors)):
            request = server.survivors(VICTIM, survivors, participants).to_bytes()
            try:
                revealed.append(RevealedShares.from_bytes(server.hand(VICTIM, request)))
            except ProtocolError:
                continue

    mask_keys = {key for message in revealed for key in message.mask_key_shares}
    self_masks = {key for message in revealed for key in message.self_mask_shares}
    assert not mask_keys & self_masks
    assert {peer for peer, _ in mask_keys} == first
    assert {peer for peer, _ in self_masks} == everyone - first
    assert all(message.to_bytes() == revealed[0].to_bytes() for message in revealed)


def test_a_segment_below_its_reveal_quorum_stays_closed() -> None:
    """A list with two of a segment's holders, its quorum, but fewer than the reveal quorum of three, opens only others."""
    server = scene(ONE_ANSWER, REVEAL)
    server.present = {1, 2, 5}
    server.step()

    assert server.session.segments[1].quorum == 2
    assert server.terms.quorum(server.session.segments[1]) == 3
    assert set(server.opened(0)) == {frozenset({1, 2})}
    assert server.opened(1) == {}
    for position in (1, 2):
        _, answer = server.clients[position]._replied or (b"", b"")
        revealed = RevealedShares.from_bytes(answer)
        assert {index for _, index in revealed.mask_key_shares} == {0}
        assert {index for _, index in revealed.self_mask_shares} == {0}


# Split views: the victim hears of few participants, the others of all.


def split_view(profile: MaskingProfile = ONE_ANSWER, **terms: Any) -> HostileServer:
    """Five clients; the victim masks with 2 and 3 alone, and everybody else with everybody."""
    server = HostileServer(make_session(5, **terms), profile).play_before(MASK)
    server.upload(VICTIM, {1, 2, 3})
    for position in (2, 3, 4, 5):
        server.upload(position, {1, 2, 3, 4, 5})
    server.stage = REVEAL
    return server


# Those who should count the victim's partners as dropped, and the victim as surviving.
SPLIT_VIEW_LISTS: Final = {2: {1, 2, 4, 5}, 3: {1, 3, 4, 5}, 4: {1, 4, 5}, 5: {1, 4, 5}}


def test_a_split_view_is_stopped_by_the_signatures_of_views() -> None:
    """Nobody reveals a share of the victim, which signed that it saw others taking part."""
    server = split_view()

    for position, survivors in SPLIT_VIEW_LISTS.items():
        request = server.survivors(position, survivors).to_bytes()
        assert_refused(server, position, request, SignatureError, "'client-01', participants")

    # The victim itself refuses the others' signatures, and they go on without it.
    request = server.survivors(VICTIM, {1, 2, 3}).to_bytes()
    assert_refused(server, VICTIM, request, SignatureError, "'client-02', participants")
    server.present -= {VICTIM}
    assert_finishes(server)
    assert set(server.opened(0)) == {frozenset({2, 3, 4, 5})}


def test_a_split_view_without_the_check_shows_the_victims_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each client answers once and every list meets the reveal quorum, and yet the victim stands alone and in clear."""
    monkeypatch.setattr(checks, "verify_view", lambda *_args, **_more: None)
    server = split_view()

    for position, survivors in SPLIT_VIEW_LISTS.items():
        server.take(position, server.hand(position, server.survivors(position, survivors).to_bytes()))

    assert server.opened(0)[frozenset({VICTIM})] == plain_sum(server.inputs, 0, [VICTIM])


@pytest.mark.parametrize("profile", SIGNED, ids=profile_name)
def test_a_split_directory_is_stopped_by_the_signatures_of_views(profile: MaskingProfile) -> None:
    """The same with the directory: hiding peers already while keys are shared gives the victim another view, too."""
    server = HostileServer(make_session(5, threshold=profile.threshold(5)), profile).play_before(SHARE)
    few = server.fork()
    few.present = {1, 2, 3, 4}
    server.take(VICTIM, server.hand(VICTIM, few.request(VICTIM)))
    for position in (2, 3, 4, 5):
        server.take(position, server.hand(position, server.request(position)))
    server.stage = MASK
    server.upload(VICTIM, {1, 2, 3, 4})
    for position in (2, 3, 4):
        server.upload(position, {1, 2, 3, 4})  # the same participants, but more have advertised
    server.stage = server.stages[3]

    for position in (2, 3, 4):
        request = server.survivors(position, {1, 2, 3, 4}).to_bytes()
        assert_refused(server, position, request, SignatureError, "'client-01', participants")


def test_a_semi_honest_profile_with_identities_checks_views_too() -> None:
    """Where there are identities the check of views does not depend on the profile."""
    session = make_session(5)
    terms = Terms(session=session, profile=SEMI_HONEST, trust=authority().view)
    server = HostileServer(session, SEMI_HONEST)
    server.terms = terms
    server.clients = {position: server.client(position, terms) for position in server.present}
    server.play_before(MASK)
    server.upload(VICTIM, {1, 2, 3})
    server.upload(PEER, {1, 2, 3, 4, 5})
    for position in (3, 4, 5):
        server.upload(position, {1, 2, 3, 4, 5})
    server.stage = REVEAL

    request = server.survivors(PEER, {1, 2, 4, 5}).to_bytes()
    assert_refused(server, PEER, request, SignatureError, "'client-01', participants")


# Split lists: different survivors for different clients, one answer from each.


def colluding(profile: MaskingProfile, count: int, corrupt: int) -> MaskingProfile:
    """The profile for just so many colluders among so many members."""
    return replace(profile, corrupt_share=Fraction(corrupt, count))


def all_segments(count: int) -> list[Any]:
    """Every number of holders and every quorum, first with holders alone as members, then padded to the cohort."""
    shapes = [(held, quorum) for held in range(1, count + 1) for quorum in range(1, held + 1)]
    thin = [segment(at, names(count)[:held], quorum, 1) for at, (held, quorum) in enumerate(shapes)]
    padded = [
        replace(part, index=len(shapes) + part.index, members=names(count), holders=part.members)
        for part in thin
        if len(part.members) < count
    ]
    return [*thin, *(replace(part, index=len(shapes) + at) for at, part in enumerate(padded))]


def ready_to_reveal(
    count: int, corrupt: tuple[int, ...], profile: MaskingProfile, *parts: Any, participants: Collection[int]
) -> HostileServer:
    """Everyone has masked for these participants; the others have gone."""
    terms = colluding(profile, count, len(corrupt))
    session = make_session(count, *parts, threshold=terms.threshold(count))
    server = HostileServer(session, terms, corrupt=corrupt).play_before(MASK)
    server.present = set(participants)
    server.step()
    return server


@pytest.mark.parametrize(
    ("count", "corrupt"),
    [(2, ()), (3, ()), (4, ()), (5, ()), (3, (1,)), (3, (3,)), (4, (1,)), (4, (4,)), (5, (1,)), (5, (5,))],
    ids=str,
)
def test_no_split_of_lists_opens_fewer_than_the_quorum(count: int, corrupt: tuple[int, ...]) -> None:
    """Exhaustively: every segment, set of participants and combination of one list per client, asked of real clients.

    A corrupt client, holder of every segment or of the largest alone, gives both kinds of share of everybody.
    """
    parts = all_segments(count)
    threshold = colluding(ONE_ANSWER, count, len(corrupt)).threshold(count)
    opened_somewhere = 0
    for participants in filter(lambda chosen: len(chosen) >= threshold, subsets(range(1, count + 1))):
        server = ready_to_reveal(count, corrupt, ONE_ANSWER, *parts, participants=participants)
        answers = answers_to_every_list(server)

        for part in server.session.segments:
            split = best_split(server, part.index, participants, answers)

            assert not split.both_kinds
            assert split.fewest is None or split.fewest >= part.quorum
            opened_somewhere += split.fewest is not None
    assert opened_somewhere > 0


@pytest.mark.parametrize(("count", "corrupt"), [(3, ()), (4, ()), (3, (1,)), (4, (1,)), (4, (4,))], ids=str)
def test_no_split_of_views_and_lists_opens_fewer_than_the_quorum(
    count: int, corrupt: tuple[int, ...]
) -> None:
    """Exhaustively: every combination of one view and one list per client, asked of real clients.

    The corrupt client signs everybody's view. Quorums of one need no search.
    """
    parts = [part for part in all_segments(count) if part.quorum > 1 and part.members == part.holders]
    parts = [replace(part, index=index) for index, part in enumerate(parts)]
    opened_somewhere, mixed_answers = 0, 0

    for server in with_all_views(count, corrupt, parts):
        answers = answers_to_every_list(server)
        mixed_answers += len({server.views[p] for p in answers}) > 1 and any(answers.values())
        for part in parts:
            fewest = fewest_opened(server, part.index, answers)

            assert fewest is None or fewest >= part.quorum
            opened_somewhere += fewest is not None
    assert opened_somewhere > 0
    assert (mixed_answers > 0) == (
        (count, len(corrupt)) != (3, 1)
    )  # there all three must take part: one view


def test_without_the_check_of_views_the_same_search_finds_the_victim(monkeypatch: pytest.MonkeyPatch) -> None:
    """The split view of five clients opens over no fewer than the quorum with the check, without it over the victim alone."""
    server = split_view()
    checked = fewest_opened(server, 0, answers_to_every_list(server))
    monkeypatch.setattr(checks, "verify_view", lambda *_args, **_more: None)

    unchecked = fewest_opened(server, 0, answers_to_every_list(server))

    assert server.session.segments[0].quorum == 2
    assert (checked, unchecked) == (3, 1)


def with_all_views(count: int, corrupt: tuple[int, ...], parts: list[Any]) -> Iterator[HostileServer]:
    """Everyone has masked: once for every way to tell each honest client of enough participants."""
    terms = colluding(ONE_ANSWER, count, len(corrupt))
    everyone = range(1, count + 1)
    session = make_session(count, *parts, threshold=terms.threshold(count))
    start = HostileServer(session, terms, corrupt=corrupt).play_before(MASK)
    honest = sorted(start.clients)
    views = [
        [told for told in subsets(everyone) if position in told and len(told) >= session.threshold]
        for position in honest
    ]
    for told in product(*views):
        server = start.fork()
        for position, participants in zip(honest, told, strict=True):
            server.upload(position, participants)
        for position in corrupt:
            server.upload(position, everyone)
        server.stage = REVEAL
        yield server


def test_what_the_search_finds_is_what_the_attacker_can_open() -> None:
    """The best split of a search, really mounted, opens just the sum that was foretold and no other."""
    parts = all_segments(4)
    server = ready_to_reveal(4, (), ONE_ANSWER, *parts, participants={1, 2, 3, 4})
    answers = answers_to_every_list(server)

    for part in server.session.segments:
        split = best_split(server, part.index, {1, 2, 3, 4}, answers)
        opened = mount(server, split, answers).opened(part.index)

        assert opened == {split.opened: plain_sum(server.inputs, part.index, split.opened)}


def test_with_the_quorum_for_a_reveal_quorum_a_split_shows_the_victims_input(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Four holders of five members, quorum two: lists with two holders each leave one of them in clear."""
    everyone = {1, 2, 3, 4, 5}
    part = segment(0, names(4), quorum=2)
    strict = ready_to_reveal(5, (), ONE_ANSWER, part, participants=everyone)
    monkeypatch.setattr(Terms, "quorum", lambda _terms, part: part.quorum)
    loose = ready_to_reveal(5, (), ONE_ANSWER, part, participants=everyone)
    answers = answers_to_every_list(loose)

    split = best_split(loose, 0, everyone, answers)
    (victim,) = split.opened

    assert split.fewest == 1
    assert mount(loose, split, answers).opened(0) == {
        split.opened: plain_sum(loose.inputs, 0, [victim]),
    }
    # The very same lists, given to clients that keep the reveal quorum of three, open nothing.
    monkeypatch.undo()
    for position, survivors in split.lists.items():
        strict.take(position, strict.hand(position, strict.survivors(position, survivors).to_bytes()))
    assert strict.terms.quorum(part) == 3
    assert strict.opened(0) == {}


def test_with_a_colluder_too_the_quorum_alone_is_not_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five holders of six, one of them corrupt, quorum three: a split leaves the victim with the colluder alone."""
    everyone, corrupt = {1, 2, 3, 4, 5, 6}, (2,)
    part = segment(0, names(5), quorum=3)
    strict = ready_to_reveal(6, corrupt, ONE_ANSWER, part, participants=everyone)
    strict_answers = answers_to_every_list(strict)
    monkeypatch.setattr(Terms, "quorum", lambda _terms, part: part.quorum)
    loose = ready_to_reveal(6, corrupt, ONE_ANSWER, part, participants=everyone)
    answers = answers_to_every_list(loose)

    split = best_split(loose, 0, everyone, answers)
    (victim,) = split.opened

    assert split.fewest == 2
    assert mount(loose, split, answers).open_over([victim], 0) == plain_sum(loose.inputs, 0, [victim])
    monkeypatch.undo()
    assert strict.terms.quorum(part) == 4
    assert best_split(strict, 0, everyone, strict_answers).fewest in {None, 3, 4, 5}


@pytest.mark.parametrize("count", [3, 4, 5])
def test_below_the_threshold_of_the_profile_both_secrets_of_a_client_come_out(
    monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """With a threshold of half the members a split recovers mask key and self mask of one client: 2t > n + c is needed."""
    everyone = set(range(1, count + 1))
    low = count // 2
    monkeypatch.setattr(MaskingProfile, "threshold", lambda _profile, _members: low)
    session = make_session(count, segment(0, names(count), 1), threshold=count // 2 + 1)
    object.__setattr__(session, "threshold", low)
    monkeypatch.setattr(Terms, "quorum", lambda _terms, part: part.quorum)
    server = HostileServer(session, ONE_ANSWER).play_before(REVEAL)
    answers = answers_to_every_list(server)

    split = best_split(server, 0, everyone, answers)

    assert split.both_kinds


# Split lists under a signed list.


@pytest.mark.parametrize(
    ("count", "corrupt"), [(3, ()), (4, ()), (5, ()), (3, (3,)), (4, (4,)), (5, (5,))], ids=str
)
def test_two_different_lists_are_never_both_answered(count: int, corrupt: tuple[int, ...]) -> None:
    """Exhaustively: any two lists, honest clients split between them in every way, corrupt ones signing both."""
    everyone = frozenset(range(1, count + 1))
    server = ready_to_reveal(count, corrupt, CONSISTENCY, segment(0, names(count), 1), participants=everyone)
    threshold = server.session.threshold
    signed: dict[frozenset[int], dict[int, MaskingClient]] = {}
    signatures: dict[frozenset[int], dict[int, bytes]] = {}
    for survivors in subsets(sorted(everyone)):
        for position, client in server.clients.items():
            agreed = copy.copy(client)
            try:
                agreed.reply(server.survivors(position, survivors).to_bytes())
            except ProtocolError:
                continue
            signed.setdefault(survivors, {})[position] = agreed
    for survivors, clients in signed.items():
        server_view = {p: SignedSurvivors.from_bytes(c._replied[1]).signature for p, c in clients.items()}  # type: ignore[index]
        puppets = {p: server.puppet_signature(p, server.survivors(min(clients), survivors)) for p in corrupt}
        signatures[survivors] = server_view | {p: s for p, s in puppets.items() if p in survivors}
    one_revealed = 0

    for one, other in combinations(signed, 2):
        honest = sorted(server.clients)
        for side in product((one, other), repeat=len(honest)):
            asked = {p: chosen for p, chosen in zip(honest, side, strict=True) if p in signed[chosen]}
            revealed = set()
            for position, chosen in asked.items():
                given = {
                    p: s for p, s in signatures[chosen].items() if p in corrupt or asked.get(p) == chosen
                }
                try:
                    copy.copy(signed[chosen][position]).reply(server.shown(given).to_bytes())
                except BelowThresholdError:
                    assert len(given) < threshold
                else:
                    revealed.add(chosen)
            assert len(revealed) <= 1
            one_revealed += len(revealed)
    assert (one_revealed > 0) == (count > 3)  # of three, all must sign: there is one list


def test_without_the_signatures_a_split_shows_the_victims_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven clients, one corrupt, five holders, quorum three: lists that drop two holders each isolate the victim."""
    everyone, victim, corrupt = set(range(1, 8)), 1, (2,)
    part = segment(0, names(5), quorum=3)
    server = ready_to_reveal(7, corrupt, CONSISTENCY, part, participants=everyone)
    # Holders 3, 4 and 5 must each be dropped by four of the six honest clients.
    drops = {1: {3, 4}, 3: {4, 5}, 4: {3, 5}, 5: {3, 4}, 6: {3, 5}, 7: {4, 5}}
    strict = server.fork()

    monkeypatch.setattr(checks, "check_signatures", lambda *_args: None)
    for position, dropped in drops.items():
        server.hand(position, server.survivors(position, everyone - dropped).to_bytes())
        revealed = server.clients[position].reply(server.shown({}).to_bytes())
        server.seen.keep(RevealedShares.from_bytes(revealed))

    assert server.opened(0) == {frozenset({victim}): plain_sum(server.inputs, 0, [victim])}
    # With the check, all signatures that such lists can get do not satisfy anybody.
    monkeypatch.undo()
    lists = {p: strict.survivors(p, everyone - dropped) for p, dropped in drops.items()}
    given = {p: SignedSurvivors.from_bytes(strict.hand(p, lists[p].to_bytes())).signature for p in lists}
    for position, survivors in lists.items():
        shown_to_it = {**given, 2: strict.puppet_signature(2, survivors)}
        mine = {p: s for p, s in shown_to_it.items() if p in survivors.survivors}
        strict.stage = REVEAL
        assert_refused(strict, position, strict.shown(mine).to_bytes(), SignatureError, "survivor list")
        alike = {p: s for p, s in mine.items() if p == 2 or lists[p] == survivors}
        assert_refused(strict, position, strict.shown(alike).to_bytes(), BelowThresholdError, "signatures")
    assert strict.opened(0) == {}


# Another model for one client.


def chi_squares(vector: RingVector) -> list[float]:
    """How far each of the four bytes of the words is from uniform."""
    lanes = vector.astype("<u4").view(np.uint8).reshape(-1, 4).T
    expected = len(vector) / 256
    return [float(((np.bincount(lane, minlength=256) - expected) ** 2 / expected).sum()) for lane in lanes]


def with_another_model(server: HostileServer, *odd: int) -> None:
    """These clients compute from another model: their inputs are bound to its digest."""
    for position in odd:
        for index, given in server.inputs[position].items():
            server.inputs[position][index] = replace(given, binding=OTHER_MODEL)


def wide_scene(profile: MaskingProfile, **terms: Any) -> HostileServer:
    """Four honest clients with one long segment."""
    part = segment(0, names(4), 2, NOISE_WORDS)
    return HostileServer(make_session(4, part, **{"threshold": 3, **terms}), profile)


@pytest.mark.parametrize("profile", [SEMI_HONEST, *SIGNED], ids=profile_name)
def test_with_one_model_the_sum_is_far_from_noise(profile: MaskingProfile) -> None:
    """The control of the next tests: where the masks cancel the chi-square test sees it."""
    server = wide_scene(profile)

    assert server.finish() == server.plain()
    total = server.unmask([1, 2, 3, 4], 0)
    assert total is not None
    assert max(chi_squares(total)) > 100 * UNIFORM_BELOW


@pytest.mark.parametrize("odd", [(1,), (4,), (1, 2), (1, 2, 3)], ids=str)
@pytest.mark.parametrize("profile", [SEMI_HONEST, *SIGNED], ids=profile_name)
def test_with_another_model_for_some_the_sum_is_noise(profile: MaskingProfile, odd: tuple[int, ...]) -> None:
    """The server that knows both models takes every self mask off under the right one, and still reads noise."""
    server = wide_scene(profile)
    with_another_model(server, *odd)

    server.finish()

    for chosen in filter(None, subsets([1, 2, 3, 4])):
        total = server.unmask(chosen, 0, blind=True)
        assert total is not None
        if chosen == {1, 2, 3, 4}:
            assert server.open_over(chosen, 0) is not None  # no mask that it would have to remove is missing
        assert max(chi_squares(total)) < UNIFORM_BELOW


def test_a_victim_with_another_model_is_dropped_for_the_others_sum() -> None:
    """Its mask key is recovered under the others' model alone: they get their sum, and its own upload stays noise."""
    server = wide_scene(ONE_ANSWER).play_before(MASK)
    with_another_model(server, VICTIM)
    server.step()
    server.present -= {VICTIM}

    assert server.finish() == server.plain()

    upload = server.unmask([VICTIM], 0, blind=True)
    assert upload is not None
    assert server.open_over([VICTIM], 0) is None
    assert max(chi_squares(upload)) < UNIFORM_BELOW


def outcome(profile: MaskingProfile, inputs: dict[str, dict[int, SegmentInput]]) -> SumResult:
    """What the package's own server makes of these inputs."""
    session = make_session(4, segment(0, names(4), 2, NOISE_WORDS), threshold=3)
    trust = None if profile is SEMI_HONEST else authority().view

    class Signing(Masking):
        """Gives every client its own identity."""

        def client(self, session: Any, me: str, *, extra_secrets: Any = None) -> MaskingClient:
            identity = None if trust is None else authority().identity(me)
            return MaskingClient(self.terms(session), me, identity, stream(me))

    return run_session(Signing(profile, trust=trust), session, inputs, bindings={0: MODEL})


def by_name(server: HostileServer) -> dict[str, dict[int, SegmentInput]]:
    """The inputs by client id."""
    return {server.session.client_at(position): given for position, given in server.inputs.items()}


@pytest.mark.parametrize("profile", [SEMI_HONEST, *SIGNED], ids=profile_name)
def test_the_bound_digest_alone_turns_the_sum_into_noise(
    monkeypatch: pytest.MonkeyPatch, profile: MaskingProfile
) -> None:
    """With the check of the sum's range switched off, a sum over two models is published, and is nothing but noise."""
    monkeypatch.setattr(opening, "reason_to_reject", lambda *_args, **_more: "")
    server = wide_scene(profile)
    with_another_model(server, VICTIM)

    result = outcome(profile, by_name(server))

    assert not result.refused
    assert max(chi_squares(to_ring(result.sums[0]))) < UNIFORM_BELOW


@pytest.mark.parametrize("profile", [SEMI_HONEST, *SIGNED], ids=profile_name)
def test_the_range_of_the_sum_alone_closes_the_segment(
    monkeypatch: pytest.MonkeyPatch, profile: MaskingProfile
) -> None:
    """With one model, so that all masks cancel, a sum beyond what its survivors can add up to is still refused."""
    server = wide_scene(profile)
    monkeypatch.setattr(steps, "check_inputs", lambda *_args: None)  # a client that keeps to no bound
    inputs = by_name(server)
    beyond = inputs["client-01"][0].values.copy()
    beyond[7] = 2**30
    inputs["client-01"] = {0: SegmentInput(values=beyond, binding=MODEL)}

    result = outcome(profile, inputs)
    monkeypatch.setattr(opening, "reason_to_reject", lambda *_args, **_more: "")
    without = outcome(profile, inputs)

    assert not result.sums
    assert "another model or did not follow the protocol" in result.refused[0]
    assert without.sums[0].tolist() == [
        sum(column) for column in zip(*(given[0].values.tolist() for given in inputs.values()), strict=True)
    ]


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
