"""A participant: one organisation's side of the federation. Holds the only copy of what its data taught it.

Every request is checked against the participant's own plan before anything is computed: the session must be the one
the plan gives for its cohort, round and attempt must move forward, the adapter must have the participant's own rank.
"""

from collections.abc import Callable, Mapping
from typing import final

import numpy as np

from protocols.errors import ProtocolError
from protocols.interface import SegmentInput, SumClient
from protocols.primitives.prg import UniformStream
from protocols.session import ClientId, Session
from rbla_secure.config import Weighting
from rbla_secure.errors import RblaSecureError, RefusalError
from rbla_secure.federation.messages import StageRefusal, StageReply, StageRequest
from rbla_secure.federation.plan import Plan
from rbla_secure.lora.adapter import Adapter, Rows
from rbla_secure.lora.bands import pack
from rbla_secure.lora.update import ClientUpdate
from rbla_secure.privacy.clipping import clip
from rbla_secure.privacy.quantize import quantize
from rbla_secure.seeding import derive_key, derive_seed

# (adapter at the participant's rank, seed) -> rows after local training
LocalTraining = Callable[[Adapter, int], Rows]


@final
class Participant:
    """Answers the stages of one session after the other.

    Args:
        name: The participant's id in the plan's roster.
        plan: The participant's own copy of the plan.
        train: Local training on its private data.
        examples: How many private examples it has.
    """

    def __init__(self, name: ClientId, *, plan: Plan, train: LocalTraining, examples: int) -> None:
        self._name = name
        self._plan = plan
        self._train = train
        self._weight = self._plan.quantizer.round_weight(_weight(plan, examples))
        self._session: Session | None = None
        self._client: SumClient | None = None
        self._last: tuple[bytes, bytes] | None = None

    def handle(self, request: bytes) -> bytes:
        """Answer a request, or refuse it with the name of the reason. Never raises on purpose."""
        try:
            return StageReply(payload=self.answer(request)).to_bytes()
        except (ProtocolError, RblaSecureError) as error:
            return StageRefusal(error=type(error).__name__, reason=str(error)).to_bytes()

    def answer(self, request: bytes) -> bytes:
        """The secure sum's reply to one stage; to the same request once more, the same reply.

        Raises:
            RefusalError: The session or the adapter is not what the plan says.
            UpdateError: The update is not finite.
            ProtocolError: Whatever the secure sum refuses.
        """
        if self._last is None or self._last[0] != request:
            self._last = (request, self._answer(StageRequest.from_bytes(request)))
        return self._last[1]

    def _answer(self, message: StageRequest) -> bytes:
        session, client = self._enter(message.session)
        if not message.adapter:
            return client.reply(message.payload)
        adapter = self._check_adapter(message.adapter)
        return client.contribute(message.payload, self._inputs(session, adapter))

    def _enter(self, data: bytes) -> tuple[Session, SumClient]:
        """The session a request belongs to; a new one replaces the old one and its secrets."""
        if self._session is not None and self._client is not None and self._session.to_bytes() == data:
            return self._session, self._client
        session = Session.from_bytes(data)
        self._check_session(session)
        self._session, self._client = session, self._plan.secure_sum.client(session, self._name)
        return self._session, self._client

    def _check_session(self, session: Session) -> None:
        plan, last = self._plan, self._session
        if unknown := [client for client in session.members if client not in plan.ranks]:
            raise RefusalError(f"{unknown[0]} is not enrolled")
        if self._name not in session.members:
            raise RefusalError(f"the cohort lacks {self._name}")
        if last is not None and session.run != last.run:
            raise RefusalError("the session belongs to another run")
        if last is not None and (session.round, session.attempt) <= (last.round, last.attempt):
            raise RefusalError(
                f"round {session.round} attempt {session.attempt} must come after "
                f"round {last.round} attempt {last.attempt}"
            )
        expected = plan.session(
            run=session.run, round_number=session.round, attempt=session.attempt, cohort=session.members
        )
        if session != expected:
            raise RefusalError(
                "the session's terms (threshold, quorums, segments, bound or plan) are not the plan's"
            )

    def _check_adapter(self, data: bytes) -> Adapter:
        adapter = Adapter.from_bytes(self._plan.layout, data)
        if adapter.rank != self._plan.ranks[self._name]:
            raise RefusalError(f"the adapter's rank {adapter.rank} must be {self._plan.ranks[self._name]}")
        return adapter

    def _inputs(self, session: Session, adapter: Adapter) -> dict[int, SegmentInput]:
        """Train, bound, pack, quantize: the client's way from private data to integers."""
        plan, config = self._plan, self._plan.config
        trained = self._train(adapter, derive_seed(config.seed, "training", session.round, self._name))
        change = trained.astype(np.float64) - adapter.rows
        bounded = clip(ClientUpdate(rows=change, weight=self._weight), clip_norm=config.clip_norm)
        packed = pack(bounded, plan.bands)
        stream = UniformStream(derive_key(config.seed, "rounding", session.round, self._name))
        integers = quantize(packed, plan.quantizer, stream)
        bindings = model_bindings(plan, adapter)
        return {i: SegmentInput(values=values, binding=bindings[i]) for i, values in integers.items()}


def model_bindings(plan: Plan, adapter: Adapter) -> Mapping[int, bytes]:
    """By band held: the digest of all rows up to its end, which every holder of the band was sent.

    Clients that were sent different rows do not share masks, so a model aimed at one client opens nothing.
    """
    return {
        band.index: adapter.sliced(band.stop).digest() for band in plan.bands if band.stop <= adapter.rank
    }


def _weight(plan: Plan, examples: int) -> float:
    if plan.config.weights is Weighting.UNIFORM:
        return 1.0
    return min(1.0, examples / plan.config.examples_cap)
