"""The global adapter as sent to clients, and the one root to which everything that they send back is bound.

    root = SHA-256(the plan of the round, digest of band 0, digest of band 1, ...)

Why one root for all segments. What a client sends in one band depends on all rows that it computed from, not on the rows
of that band: bound to these alone, the low bands of everybody could be the same and kill all gradients while other high
rows revive them for one victim, whose update the low bands would then open to (model inconsistency: Pasquini, Francati and
Ateniese, CCS 2022). So the masks and receipts of every segment are bound to the root over all bands; the plan's digest
covers everything else that a client computes from (frozen base, layout, scaling, data statistics of the configuration, clip
norm of the round). A client hashes the rows that it is given itself and is told the digests of the others: clients with
different roots share no masks, whichever bands they have in common.

What the root cannot do. It makes all clients agree on the bytes of the model, not on the function: a client that drops the
rows beyond its rank does not see what they do. See :class:`rbla_secure.config.choices.Rest`.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np

from protocols.session import ClientId, Session
from protocols.wire import DIGEST_SIZE
from rbla_secure.errors import RefusalError
from rbla_secure.lora.adapter import Adapter
from rbla_secure.planning.plan import Plan


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Broadcast:
    """The part of the global adapter that one client is sent.

    Args:
        adapter: The rows that are sent, from the first on: a whole number of bands.
        digests: The digest of every band of the global adapter, in order.
    """

    adapter: Adapter
    digests: tuple[bytes, ...]


def band_digests(plan: Plan, adapter: Adapter) -> tuple[bytes, ...]:
    """Return the digest of every band that the adapter holds completely, in order."""
    return tuple(
        _digest_of(adapter, index, band.start, band.stop)
        for index, band in enumerate(plan.bands)
        if band.stop <= adapter.rank
    )


def encode_rest(plan: Plan, client: ClientId, digests: tuple[bytes, ...]) -> bytes:
    """Return the digests of the bands that a client is not sent; empty if it is sent all. Run by the server."""
    rank = plan.broadcast_rank(client)
    return b"".join(digest for digest, band in zip(digests, plan.bands, strict=True) if band.stop > rank)


def read_broadcast(plan: Plan, client: ClientId, rows: bytes, rest: bytes) -> Broadcast:
    """Decode what a client was sent; the client computes the digests of its own rows itself. Run by the client.

    Raises:
        AdapterError: The rows are malformed or not finite.
        RefusalError: They are not the rows that the plan gives it, or the digests not those of the others.
    """
    adapter, expected = Adapter.from_bytes(plan.layout, rows), plan.broadcast_rank(client)
    if adapter.rank != expected:
        raise RefusalError(f"the adapter's rank {adapter.rank} must be {expected}")
    own = band_digests(plan, adapter)
    missing = len(plan.bands) - len(own)
    if len(rest) != missing * DIGEST_SIZE:
        raise RefusalError(
            f"{len(rest)} bytes of digests must be {missing * DIGEST_SIZE}: one for each band that is not sent"
        )
    others = tuple(rest[at : at + DIGEST_SIZE] for at in range(0, len(rest), DIGEST_SIZE))
    return Broadcast(adapter=adapter, digests=own + others)


def model_bindings(session: Session, digests: tuple[bytes, ...]) -> Mapping[int, bytes]:
    """Return, by segment, the one root of the model. Run by clients and server."""
    digest = hashlib.sha256(b"rbla-secure model root\x00" + session.config_digest)
    digest.update(len(digests).to_bytes(2, "big") + b"".join(digests))
    return dict.fromkeys((segment.index for segment in session.segments), digest.digest())


def _digest_of(adapter: Adapter, index: int, start: int, stop: int) -> bytes:
    place = b"".join(number.to_bytes(4, "big") for number in (index, start, stop, adapter.layout.row_length))
    rows = np.ascontiguousarray(adapter.rows[start:stop], dtype="<f4")
    return hashlib.sha256(b"rbla-secure band\x00" + place + rows.tobytes()).digest()
