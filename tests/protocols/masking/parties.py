"""Masking played by hand: the clients' steps with a reproducible source, and the server's part done by the test.

What takes a session also takes the terms of one; a bare session is played unsigned against a semi-honest server. Under
terms with a trust store everyone signs as the one authority of these tests has enrolled it.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import ClassVar, final

from protocols.identity.trust import Identity, ThrowawayAuthority, TrustStore
from protocols.interface import ExtraSecrets, SecureSum, SumClient, SumServer
from protocols.masking.client import (
    Advertised,
    Agreed,
    Masked,
    Revealed,
    Shared,
    create_key_advertisement,
    create_masked_input,
    create_revealed_shares,
    create_sealed_shares,
    create_signed_survivors,
)
from protocols.masking.messages import (
    KeyAdvertisement,
    KeyDirectory,
    MaskedInput,
    RevealedShares,
    SealedShares,
    ShareDelivery,
    SignedSurvivors,
    SurvivorList,
)
from protocols.masking.secure_sum import Masking, MaskingClient
from protocols.masking.terms import MaskingTerms
from protocols.primitives.secret import RandomBytes
from protocols.profiles import SEMI_HONEST, MaskingProfile, SurvivorCheck
from protocols.session import ClientId, Session
from tests.contracts.sessions import Inputs, names

NOW = 1_800_000_000


def stream(name: str) -> RandomBytes:
    """A reproducible source: SHA-256 of a name and a counter, consumed from the front."""
    counter = 0
    store = b""

    def take(size: int) -> bytes:
        nonlocal counter, store
        while len(store) < size:
            store += hashlib.sha256(f"{name} {counter}".encode()).digest()
            counter += 1
        taken, store = store[:size], store[size:]
        return taken

    return take


AUTHORITY = ThrowawayAuthority.create(
    dict.fromkeys(names(12), 4), now=NOW, random_bytes=stream("the authority of the tests")
)
TRUST = AUTHORITY.trust(NOW + 1)


def identity_of(terms: MaskingTerms, client: ClientId) -> Identity | None:
    """A client's identity, where the terms ask for one."""
    return AUTHORITY.identities.get(client) if terms.trust is not None else None


def signed_terms(session: Session, profile: MaskingProfile) -> MaskingTerms:
    """A session in which everyone signs."""
    return MaskingTerms(session=session, profile=profile, trust=TRUST)


def as_terms(session: Session | MaskingTerms) -> MaskingTerms:
    """The terms themselves, or those of an unsigned session against a semi-honest server."""
    if isinstance(session, MaskingTerms):
        return session
    return MaskingTerms(session=session, profile=SEMI_HONEST, trust=None)


class EveryonesMasking(SecureSum):
    """Masking under one profile in which each client has its own Masking with its own identity.

    Profiles that need no identities are played without, unless a trust store is given.
    """

    name: ClassVar[str] = Masking.name
    input_stage: ClassVar[str] = Masking.input_stage
    shares_secrets: ClassVar[bool] = Masking.shares_secrets

    def __init__(self, profile: MaskingProfile = SEMI_HONEST, *, trust: TrustStore | None = None) -> None:
        signed = profile.survivor_check is not SurvivorCheck.TRUST_SERVER
        self.profile = profile
        self.trust = trust or (TRUST if signed else None)

    @property
    def stages(self) -> tuple[str, ...]:
        """Those of the profile."""
        return self.of(None).stages

    def of(self, client: ClientId | None) -> Masking:
        """The Masking of one party; of the server, which signs nothing, for None."""
        identity = AUTHORITY.identities.get(client) if self.trust is not None and client else None
        return Masking(self.profile, trust=self.trust, identity=identity)

    def client(
        self, session: Session, me: ClientId, *, extra_secrets: ExtraSecrets | None = None
    ) -> SumClient:
        """A client with its own identity."""
        return self.of(me).client(session, me, extra_secrets=extra_secrets)

    def server(self, session: Session) -> SumServer:
        """The server."""
        return self.of(None).server(session)


@final
class ReproducibleMasking(EveryonesMasking):
    """The same with clients that draw from streams named after them and a seed."""

    def __init__(
        self, seed: str = "", profile: MaskingProfile = SEMI_HONEST, *, trust: TrustStore | None = None
    ) -> None:
        super().__init__(profile, trust=trust)
        self._seed = seed

    def client(
        self, session: Session, me: ClientId, *, extra_secrets: ExtraSecrets | None = None
    ) -> MaskingClient:
        """A client with its own identity and its own stream."""
        terms = self.of(me).terms(session)
        random_bytes = stream(f"{self._seed} {me}")
        return MaskingClient(terms, me, identity_of(terms, me), random_bytes, extra_secrets=extra_secrets)


def advertise(
    session: Session | MaskingTerms, seed: str = "", *, extra: Mapping[int, ExtraSecrets] | None = None
) -> tuple[dict[int, Advertised], KeyDirectory]:
    """Everyone's first state, and the directory of all their keys; extra secrets by position."""
    terms = as_terms(session)
    taken = [
        create_key_advertisement(
            terms,
            member,
            identity_of(terms, member),
            stream(f"{seed} keys {member}"),
            extra_secrets=(extra or {}).get(terms.session.position(member)),
        )
        for member in terms.session.members
    ]
    states = {step.state.me: step.state for step in taken}
    return states, directory_of(terms, [step.message for step in taken])


def directory_of(session: Session | MaskingTerms, advertisements: Iterable[KeyAdvertisement]) -> KeyDirectory:
    """The directory with these entries and their nonces."""
    entries = tuple(advertisements)
    nonces = {entry.sender: entry.nonce for entry in entries}
    return KeyDirectory(context=as_terms(session).context, nonces=nonces, advertisements=entries)


def share(
    session: Session | MaskingTerms,
    states: Mapping[int, Advertised],
    directory: KeyDirectory,
    seed: str = "",
) -> tuple[dict[int, Shared], dict[int, ShareDelivery]]:
    """Everyone's second state, and what is delivered to each."""
    taken = {
        me: create_sealed_shares(state, directory, stream(f"{seed} {me}")) for me, state in states.items()
    }
    messages = {me: step.message for me, step in taken.items()}
    return {me: step.state for me, step in taken.items()}, deliveries_of(session, messages)


def deliveries_of(
    session: Session | MaskingTerms, messages: Mapping[int, SealedShares]
) -> dict[int, ShareDelivery]:
    """For each sender what all others have sealed to it."""
    digest = as_terms(session).commitments.digest
    return {
        me: ShareDelivery(
            context=as_terms(session).context,
            recipient=me,
            participants=tuple(sorted(messages)),
            sealed={sender: message.sealed[me] for sender, message in messages.items() if sender != me},
            digests={
                sender: digest(message.commitments[me], owner=sender, holder=me)
                for sender, message in messages.items()
                if sender != me
            },
        )
        for me in messages
    }


def mask(
    session: Session | MaskingTerms,
    states: Mapping[int, Shared],
    deliveries: Mapping[int, ShareDelivery],
    inputs: Inputs,
) -> tuple[dict[int, Masked], dict[int, MaskedInput]]:
    """Everyone's third state and upload."""
    terms = as_terms(session)
    taken = {}
    for me, state in states.items():
        name = terms.session.client_at(me)
        taken[me] = create_masked_input(state, deliveries[me], inputs[name], identity_of(terms, name))
    return {me: step.state for me, step in taken.items()}, {me: step.message for me, step in taken.items()}


def survivor_list(
    session: Session | MaskingTerms,
    survivors: Iterable[int],
    dropped: Iterable[int] = (),
    *,
    uploads: Mapping[int, MaskedInput] | None = None,
) -> SurvivorList:
    """A survivor list with these positions, as given, and the view signatures of the survivors' uploads."""
    listed = tuple(survivors)
    return SurvivorList(
        context=as_terms(session).context,
        survivors=listed,
        dropped=tuple(dropped),
        view_signatures={me: uploads[me].view_signature for me in listed} if uploads is not None else {},
    )


def reveal(
    session: Session | MaskingTerms,
    states: Mapping[int, Masked],
    *,
    survivors: tuple[int, ...],
    uploads: Mapping[int, MaskedInput] | None = None,
) -> tuple[dict[int, Revealed], dict[int, RevealedShares]]:
    """The survivors' last state and shares, where the profile has them reveal at once."""
    request = survivor_list(session, survivors, sorted(set(states) - set(survivors)), uploads=uploads)
    taken = {me: create_revealed_shares(states[me], request) for me in survivors}
    return {me: step.state for me, step in taken.items()}, {me: step.message for me, step in taken.items()}


def agree(
    terms: MaskingTerms, states: Mapping[int, Masked], request: SurvivorList
) -> tuple[dict[int, Agreed], dict[int, SignedSurvivors]]:
    """The state of everyone on a survivor list after signing it, and the signatures."""
    taken = {}
    for me in request.survivors:
        identity = AUTHORITY.identity(terms.session.client_at(me))
        taken[me] = create_signed_survivors(states[me], request, identity)
    return {me: step.state for me, step in taken.items()}, {me: step.message for me, step in taken.items()}


def without(delivery: ShareDelivery, *senders: int) -> ShareDelivery:
    """A delivery as if some senders had not shared: neither listed nor there."""
    return replace(
        delivery,
        participants=tuple(p for p in delivery.participants if p not in senders),
        sealed={s: blob for s, blob in delivery.sealed.items() if s not in senders},
        digests={s: digest for s, digest in delivery.digests.items() if s not in senders},
    )


def with_sealed(delivery: ShareDelivery, sealed: Mapping[int, bytes]) -> ShareDelivery:
    """A delivery in which some senders' bundles are others; the list of participants stays."""
    digests = {**dict.fromkeys(sealed, bytes(32)), **delivery.digests}
    return replace(delivery, sealed={**delivery.sealed, **sealed}, digests=digests)
