"""Masking played by hand: the clients' steps with a reproducible source, and the server's part done by the test."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import ClassVar, final

from protocols.interface import SecureSum
from protocols.masking.client import (
    Advertised,
    Masked,
    Revealed,
    Shared,
    create_key_advertisement,
    create_masked_input,
    create_revealed_shares,
    create_sealed_shares,
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
from protocols.masking.secure_sum import Masking, MaskingClient, MaskingServer
from protocols.primitives.secret import RandomBytes
from protocols.session import ClientId, Session
from tests.contracts.sessions import Inputs


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


@final
class ReproducibleMasking(SecureSum):
    """Masking whose clients draw from streams named after them and a seed; for tests alone."""

    name: ClassVar[str] = "masking"
    stages: ClassVar[tuple[str, ...]] = Masking.stages
    input_stage: ClassVar[str] = Masking.input_stage

    def __init__(self, seed: str = "") -> None:
        self._seed = seed

    def client(self, session: Session, me: ClientId) -> MaskingClient:
        """A client with its own stream."""
        return MaskingClient(session, me, stream(f"{self._seed} {me}"))

    def server(self, session: Session) -> MaskingServer:
        """The server, which draws nothing."""
        return MaskingServer(session)


def advertise(session: Session, seed: str = "") -> tuple[dict[int, Advertised], KeyDirectory]:
    """Everyone's first state, and the directory of all their keys."""
    taken = [
        create_key_advertisement(session, member, stream(f"{seed} keys {member}"))
        for member in session.members
    ]
    states = {step.state.me: step.state for step in taken}
    return states, directory_of(session, [step.message for step in taken])


def directory_of(session: Session, advertisements: Iterable[KeyAdvertisement]) -> KeyDirectory:
    """The directory with these entries."""
    return KeyDirectory(context=session.context, advertisements=tuple(advertisements))


def share(
    session: Session, states: Mapping[int, Advertised], directory: KeyDirectory, seed: str = ""
) -> tuple[dict[int, Shared], dict[int, ShareDelivery]]:
    """Everyone's second state, and what is delivered to each."""
    taken = {
        me: create_sealed_shares(state, directory, stream(f"{seed} {me}")) for me, state in states.items()
    }
    messages = {me: step.message for me, step in taken.items()}
    return {me: step.state for me, step in taken.items()}, deliveries_of(session, messages)


def deliveries_of(session: Session, messages: Mapping[int, SealedShares]) -> dict[int, ShareDelivery]:
    """For each sender what all others have sealed to it."""
    return {
        me: ShareDelivery(
            context=session.context,
            recipient=me,
            sealed={sender: message.sealed[me] for sender, message in messages.items() if sender != me},
        )
        for me in messages
    }


def mask(
    session: Session,
    states: Mapping[int, Shared],
    deliveries: Mapping[int, ShareDelivery],
    inputs: Inputs,
) -> tuple[dict[int, Masked], dict[int, MaskedInput]]:
    """Everyone's third state and upload."""
    taken = {
        me: create_masked_input(state, deliveries[me], inputs[session.client_at(me)])
        for me, state in states.items()
    }
    return {me: step.state for me, step in taken.items()}, {me: step.message for me, step in taken.items()}


def survivor_list(session: Session, survivors: Iterable[int], dropped: Iterable[int] = ()) -> SurvivorList:
    """A survivor list with these positions, as given."""
    return SurvivorList(context=session.context, survivors=tuple(survivors), dropped=tuple(dropped))


def reveal(
    session: Session, states: Mapping[int, Masked], *, survivors: tuple[int, ...]
) -> tuple[dict[int, Revealed], dict[int, RevealedShares]]:
    """The survivors' last state and shares."""
    request = survivor_list(session, survivors, sorted(set(states) - set(survivors)))
    taken = {me: create_revealed_shares(states[me], request) for me in survivors}
    return {me: step.state for me, step in taken.items()}, {me: step.message for me, step in taken.items()}


def without(delivery: ShareDelivery, *senders: int) -> ShareDelivery:
    """A delivery that lacks some senders."""
    return replace(delivery, sealed={s: blob for s, blob in delivery.sealed.items() if s not in senders})


def with_sealed(delivery: ShareDelivery, sealed: Mapping[int, bytes]) -> ShareDelivery:
    """A delivery in which some senders' bundles are others."""
    return replace(delivery, sealed={**delivery.sealed, **sealed})
