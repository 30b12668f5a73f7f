"""The notifications that the server sends to observers during a round, and their order.

Every observer is notified of one round in this order:

    before_round       its session is fixed and its keys are exchanged; nobody has been sent the adapter
    before_reveal      of single uploads, where the server reads such: nobody has been asked for one
    before_training    nobody has been sent the adapter, so nobody trains yet
    before_reveal      of sums: it is fixed whose inputs are in them, and nobody has been asked for what opens them
    round_ended        the adapter after the round is known; nothing of the round is on the disk but the ledgers and the log
    direction_to_keep  what else must be saved with the round
    round_saved        checkpoint, metrics and log hold the round: a run resumed after a crash continues after it

A run's ledgers come first among its observers and are on the disk when they return. So whatever another observer does, what it
is notified of is already counted as spent, and nothing is revealed that is not. An exception from an observer stops the
run there: observers after it are not notified, and what was saved stays.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, final

from protocols.session import ClientId, Session
from rbla_secure.lora.adapter import Adapter
from rbla_secure.privacy.ledger import Shown
from rbla_secure.run_folder.records import RoundRecord, RoundSeconds


class RoundObserver(Protocol):
    """Interface of an object that is notified of rounds; `SilentObserver` implements each method as doing nothing."""

    def before_round(self, session: Session, adapter: Adapter) -> None:
        """Handle the start of a round, once its keys are exchanged.

        Args:
            session: Terms of the round.
            adapter: Global adapter at the start of the round.
        """

    def before_training(self, session: Session, clients: Collection[ClientId]) -> None:
        """Handle the moment before clients are sent the adapter to train. Not called if the session has ended."""

    def before_reveal(self, session: Session, part: Shown, clients: Collection[ClientId]) -> None:
        """Handle the moment before inputs are revealed.

        Args:
            session: Terms of the round.
            part: What is revealed: the uploads of everybody who will be asked for one, or sums.
            clients: The clients whose inputs are revealed; for sums, those whose inputs are in them.
        """

    def round_ended(self, before: Adapter, after: Adapter) -> None:
        """Handle the end of a round, given the global adapter before and after; the same one if nothing moved."""

    def direction_to_keep(self) -> bytes:
        """Return the state that services need to continue screening in another process; empty if none is needed."""

    def round_saved(self, record: RoundRecord, seconds: RoundSeconds) -> None:
        """Handle a round that is saved."""


class SilentObserver:
    """An observer that does nothing: a base class for observers of only some moments."""

    __slots__ = ()

    def before_round(self, session: Session, adapter: Adapter) -> None:
        """Do nothing."""

    def before_training(self, session: Session, clients: Collection[ClientId]) -> None:
        """Do nothing."""

    def before_reveal(self, session: Session, part: Shown, clients: Collection[ClientId]) -> None:
        """Do nothing."""

    def round_ended(self, before: Adapter, after: Adapter) -> None:
        """Do nothing."""

    def direction_to_keep(self) -> bytes:
        """Keep nothing."""
        return b""

    def round_saved(self, record: RoundRecord, seconds: RoundSeconds) -> None:
        """Do nothing."""


NOBODY: Final = SilentObserver()


@final
@dataclass(frozen=True, slots=True)
class Observers(SilentObserver):
    """Several observers as one: each is notified in turn.

    Args:
        each: The observers, in the order in which they are notified; at most one of them has a direction to keep.
    """

    each: Sequence[RoundObserver]

    def before_round(self, session: Session, adapter: Adapter) -> None:
        """Tell each."""
        for observer in self.each:
            observer.before_round(session, adapter)

    def before_training(self, session: Session, clients: Collection[ClientId]) -> None:
        """Tell each."""
        for observer in self.each:
            observer.before_training(session, clients)

    def before_reveal(self, session: Session, part: Shown, clients: Collection[ClientId]) -> None:
        """Tell each."""
        for observer in self.each:
            observer.before_reveal(session, part, clients)

    def round_ended(self, before: Adapter, after: Adapter) -> None:
        """Tell each."""
        for observer in self.each:
            observer.round_ended(before, after)

    def direction_to_keep(self) -> bytes:
        """Ask each observer; return the direction that one of them has."""
        return b"".join([observer.direction_to_keep() for observer in self.each])

    def round_saved(self, record: RoundRecord, seconds: RoundSeconds) -> None:
        """Tell each."""
        for observer in self.each:
            observer.round_saved(record, seconds)
