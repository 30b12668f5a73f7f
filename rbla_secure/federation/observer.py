"""What the server tells of a round while it goes on, to whom, and in which order.

Of one round every observer is told, in this order:

    before_round       its session is fixed and its keys are exchanged; nobody has been sent the adapter
    before_reveal      of single uploads, where the server reads such: nobody has been asked for one
    before_training    nobody has been sent the adapter, so nobody trains yet
    before_reveal      of sums: it is fixed whose inputs are in them, and nobody has been asked for what opens them
    round_ended        the adapter after the round is known; nothing of the round is on the disk but the ledgers and the log
    direction_to_keep  what else must be saved with the round
    round_saved        checkpoint, metrics and log hold the round: whoever goes on after a crash goes on after it

A run's ledgers come first among its observers and are on the disk when they return. So whatever another observer does, what it
is told of is spent already, and nothing is revealed that is not. What an observer raises stops the run where it is: those after
it are not told, and what was saved stays.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, final

from protocols.session import ClientId, Session
from rbla_secure.lora.adapter import Adapter
from rbla_secure.privacy.ledger import Shown
from rbla_secure.run_folder.records import RoundRecord, RoundSeconds


class RoundObserver(Protocol):
    """Whoever is told of rounds; `SilentObserver` has a method that does nothing for each."""

    def before_round(self, session: Session, adapter: Adapter) -> None:
        """Be told of a round whose keys are exchanged.

        Args:
            session: Terms of the round.
            adapter: Global adapter that it begins with.
        """

    def before_training(self, session: Session, clients: Collection[ClientId]) -> None:
        """Be told who is about to be sent the adapter to train. Not called where the session has ended by then."""

    def before_reveal(self, session: Session, part: Shown, clients: Collection[ClientId]) -> None:
        """Be told what is about to show inputs.

        Args:
            session: Terms of the round.
            part: Uploads of everybody who will be asked for one, or sums.
            clients: Whose inputs; of sums, those whose inputs are in them.
        """

    def round_ended(self, before: Adapter, after: Adapter) -> None:
        """Be told the global adapter before and after a round; the same one where the round moved nothing."""

    def direction_to_keep(self) -> bytes:
        """Give what services need to go on screening in another process; empty where nothing does."""

    def round_saved(self, record: RoundRecord, seconds: RoundSeconds) -> None:
        """Be told of a round that is saved."""


class SilentObserver:
    """An observer that does nothing: a base for those that are interested in some moments only."""

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
    """Several observers as one: each is told in turn.

    Args:
        each: In the order in which they are told; at most one of them has a direction to keep.
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
        """Ask each; give what one of them has."""
        return b"".join([observer.direction_to_keep() for observer in self.each])

    def round_saved(self, record: RoundRecord, seconds: RoundSeconds) -> None:
        """Tell each."""
        for observer in self.each:
            observer.round_saved(record, seconds)
