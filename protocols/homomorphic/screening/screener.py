"""The worker that computes on copies: it loads what peers sent, so it may die and be restarted.

Screener          in the worker's process: one evaluator per session
GuardedScreener   at the aggregator: gives a new worker the session's keys before it asks
"""

from collections.abc import Mapping
from typing import final

from protocols.errors import StageError
from protocols.homomorphic.parties.guarded_adder import with_one_more_worker
from protocols.homomorphic.scheme.ckks import Evaluator
from protocols.homomorphic.screening.messages import EvaluationKeys, ScreeningCopy, ScreeningNumbers
from protocols.homomorphic.screening.numbers import compute_numbers
from protocols.homomorphic.screening.screening import RealVector, unit_direction
from protocols.homomorphic.services.messages import type_of
from protocols.homomorphic.services.services import Channel, Service
from protocols.homomorphic.terms import EncryptionTerms
from protocols.session import ClientId
from protocols.wire import MessageType


@final
class Screener(Service):
    """A worker with the evaluation keys of one session at a time; it has no other keys and no identity."""

    def __init__(self) -> None:
        self._evaluator: Evaluator | None = None
        self._context = b""

    def answer(self, request: bytes) -> bytes:
        """Take a session's keys, or compute the numbers of one copy."""
        if type_of(request) == MessageType.EVALUATION_KEYS:
            keys = EvaluationKeys.from_bytes(request)
            self._evaluator, self._context = Evaluator(keys.keys), keys.context
            return b""
        message = ScreeningCopy.from_bytes(request)
        if self._evaluator is None or message.context != self._context:
            raise StageError("the screener has no keys of this session")
        return compute_numbers(self._evaluator, message, message.direction).to_bytes()


@final
class GuardedScreener:
    """Screening of one session at the aggregator.

    Args:
        terms: The terms of the session.
        worker: The worker that computes.
        keys: The session's evaluation keys.
        reference: By segment index: the public direction, if there is one.
    """

    def __init__(
        self,
        terms: EncryptionTerms,
        worker: Channel,
        keys: EvaluationKeys,
        reference: Mapping[int, RealVector] | None,
    ) -> None:
        self._terms = terms
        self._worker = worker
        self._keys = keys
        self._reference = reference
        self._incarnation = 0

    def numbers(self, name: ClientId, copy: bytes) -> ScreeningNumbers:
        """Return the two encrypted numbers of a client's copy.

        Raises:
            ServiceError: Two workers in a row died or took too long over it, or over the keys.
            ProtocolError: The copy is refused.
        """
        request = ScreeningCopy(
            context=self._terms.context,
            sender=self._terms.session.position(name),
            copy=copy,
            direction=self._direction(name),
        )
        # Nobody can tell whether a worker died over this copy or a moment before: the next one is asked as well.
        return with_one_more_worker(lambda: self._asked(request.to_bytes()))

    def _asked(self, request: bytes) -> ScreeningNumbers:
        with_one_more_worker(self._give_keys)
        try:
            return ScreeningNumbers.from_bytes(self._worker.call(request))
        except StageError:
            # Another session has used the worker since.
            self._incarnation = 0
            with_one_more_worker(self._give_keys)
            return ScreeningNumbers.from_bytes(self._worker.call(request))

    def _give_keys(self) -> None:
        """Make sure that a live worker has the session's keys."""
        incarnation = self._worker.ready()
        if incarnation != self._incarnation:
            self._worker.call(self._keys.to_bytes())
            self._incarnation = incarnation

    def _direction(self, name: ClientId) -> RealVector | None:
        rule = self._terms.screening
        if self._reference is None or rule is None:
            return None
        return unit_direction(dict(self._reference), self._terms.session.segments_of(name), rule)
