"""How messages reach participants: the one interface between the federation and its engines."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from protocols.session import ClientId


class Answer(NamedTuple):
    """One participant's bytes."""

    client: ClientId
    data: bytes


class Exchange(ABC):
    """Carries bytes; knows no cryptography. Who does not answer in time is simply not among the answers."""

    @abstractmethod
    def send(self, requests: Mapping[ClientId, bytes], *, round_number: int, stage: str) -> Iterator[Answer]:
        """Deliver one request per participant and yield the answers as they come."""
