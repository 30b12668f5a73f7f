"""Bytes per client, stage and direction, for cost tables. Contents are never kept."""

from collections import Counter
from dataclasses import dataclass, field

from protocols.session import ClientId


@dataclass(slots=True)
class Transcript:
    """A counter of the bytes between server and clients; it never keeps contents."""

    sent: Counter[tuple[ClientId, str]] = field(default_factory=Counter)
    received: Counter[tuple[ClientId, str]] = field(default_factory=Counter)

    def to_client(self, client: ClientId, stage: str, message: bytes) -> None:
        """Count one message from the server."""
        self.sent[client, stage] += len(message)

    def from_client(self, client: ClientId, stage: str, message: bytes) -> None:
        """Count one message to the server."""
        self.received[client, stage] += len(message)

    def bytes_up(self) -> dict[ClientId, int]:
        """Return the bytes that each client sent."""
        return _by_client(self.received)

    def bytes_down(self) -> dict[ClientId, int]:
        """Return the bytes that each client was sent."""
        return _by_client(self.sent)


def _by_client(counts: Counter[tuple[ClientId, str]]) -> dict[ClientId, int]:
    totals: Counter[ClientId] = Counter()
    for (client, _), size in counts.items():
        totals[client] += size
    return dict(totals)
