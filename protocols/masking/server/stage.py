"""The base class of all stages of the server."""

from abc import ABC, abstractmethod
from typing import ClassVar, Protocol

from protocols.errors import BelowThresholdError, ContextError, RosterError
from protocols.masking.server.tracing import Dealings
from protocols.masking.terms import MaskingTerms
from protocols.session import ClientId


class _FromClient(Protocol):
    @property
    def context(self) -> bytes: ...
    @property
    def sender(self) -> int: ...


class Stage(ABC):
    """The work of the server in one stage."""

    name: ClassVar[str]

    def __init__(self, terms: MaskingTerms) -> None:
        self.terms = terms
        self.session = terms.session
        self.answered: set[int] = set()

    @property
    def dealings(self) -> Dealings | None:
        """The records of who dealt what; None before anything was dealt."""
        return None

    @property
    @abstractmethod
    def expected(self) -> frozenset[int]:
        """The positions whose reply is awaited."""

    @abstractmethod
    def request(self, position: int) -> bytes:
        """Return the stage's request to one of the expected positions."""

    @abstractmethod
    def receive(self, position: int, reply: bytes) -> None:
        """Check one reply and take it."""

    @abstractmethod
    def close(self) -> "Stage | None":
        """Return the next stage; None after the last."""

    def _check_sender(self, position: int, message: _FromClient) -> ClientId:
        name = self.session.client_at(position)
        if message.context != self.terms.context:
            raise ContextError(f"{name}: the message belongs to another session")
        if message.sender != position:
            raise RosterError(f"{name}: the message is from position {message.sender}, not {position}")
        return name

    def _check_enough(self) -> None:
        if len(self.answered) < self.session.threshold:
            raise BelowThresholdError(
                f"{self.name}: {len(self.answered)} of {len(self.expected)} clients answered, "
                f"threshold={self.session.threshold} are needed"
            )
