"""Scenes of sessions under a hostile server, and what each must end in."""

import copy
from dataclasses import replace
from typing import Any, Final

import pytest

from protocols.errors import (
    ProtocolError,
    StageError,
)
from protocols.identity.certificates import Certificate
from protocols.identity.trust import Identity, Roster, RosterEntry, TrustStore
from protocols.masking.messages import (
    KeyDirectory,
    ShareDelivery,
)
from protocols.masking.secure_sum import MaskingClient
from protocols.profiles import CONSISTENCY, ONE_ANSWER, MaskingProfile
from tests.protocols.masking.hostile import (
    ADVERTISE,
    NOW,
    HostileServer,
    authority,
    bytes_in,
    make_session,
    names,
    secrets_in,
    tampered,
)

VICTIM: Final = 1
PEER: Final = 2
PUPPET: Final = 5
SIGNED = [ONE_ANSWER, CONSISTENCY]


def profile_name(profile: MaskingProfile) -> str:
    """How a parameter is shown."""
    return profile.name


def scene(profile: MaskingProfile = ONE_ANSWER, stage: str = ADVERTISE, **terms: Any) -> HostileServer:
    """Five clients, the last one corrupt, played honestly up to a stage."""
    session = make_session(5, **{"threshold": profile.threshold(5), **terms})
    return HostileServer(session, profile, corrupt=(PUPPET,)).play_before(stage)


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


def swap(
    server: HostileServer, position: int = PEER, *, signer: Identity | None = None, **changes: Any
) -> bytes:
    """The directory in which one advertisement says something else."""
    return server.directory(tampered(server.advertisements[position], signer, **changes)).to_bytes()


def genuine(position: int) -> Identity:
    """The identity that the authority gave the client at a position."""
    return authority().identity(names(7)[position - 1])


def delivered(server: HostileServer, **blobs: bytes) -> bytes:
    """The victim's delivery with other bundles, named p2, p3 and so on."""
    whole = server.delivery(VICTIM)
    others = {int(name[1:]): blob for name, blob in blobs.items()}
    return replace(whole, sealed={**whole.sealed, **others}).to_bytes()


def told(server: HostileServer, *participants: int) -> ShareDelivery:
    """The victim's delivery when it is told of these participants."""
    return server.delivery(VICTIM, participants)


def listed(server: HostileServer, **changes: Any) -> bytes:
    """The victim's honest survivor list with something else in it."""
    return replace(server.survivors(VICTIM), **changes).to_bytes()


def with_view_signature(server: HostileServer, signature: bytes, position: int = PEER) -> bytes:
    """The victim's survivor list with another signature of somebody's view."""
    given = server.survivors(VICTIM).view_signatures
    return listed(server, view_signatures={**given, position: signature})


def shown(server: HostileServer, **others: bytes) -> bytes:
    """The signatures of the honest list, some of them replaced; named p2, p3 and so on."""
    changed = {int(name[1:]): signature for name, signature in others.items()}
    return server.shown({**server.signatures, **changed}).to_bytes()


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


def relabelled(directory: KeyDirectory, context: bytes) -> KeyDirectory:
    """A directory whose entries all claim another session."""
    entries = tuple(replace(entry, context=context) for entry in directory.advertisements)
    return replace(directory, context=context, advertisements=entries)
