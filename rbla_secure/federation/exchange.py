"""How messages reach participants: the one interface between the federation and its engines.

A message to a participant holds one parcel per session it takes part in at the moment: the stages of neighbouring
rounds travel together, so that a steady round costs two exchanges.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import final

from protocols.session import ClientId


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """One stage of one round's session, to or from one participant."""

    round: int
    stage: str
    data: bytes


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One participant's answer to one parcel."""

    client: ClientId
    parcel: Parcel


class Exchange(ABC):
    """Carries bytes; knows no cryptography. Parcels not answered in time are missing from the answers."""

    @abstractmethod
    def send(self, messages: Mapping[ClientId, Sequence[Parcel]]) -> Iterator[Answer]:
        """Deliver one message per participant and yield the answers to its parcels as they come."""

    def end(self) -> None:  # noqa: B027  # most exchanges hold nothing
        """Release everything that is held, secrets above all: the run is over, whether it finished or not."""
