"""A participant: one organisation's side of the federation. Holds the only copy of what its data taught it.

Every request is checked against the participant's own plan before anything is computed: the session must be the one
the plan gives for its cohort, round and attempt must move forward, the adapter must have the participant's own rank.

A round takes a participant's input once. Training and rounding follow from the round, so that of two sums of one round
over different survivors the difference would be somebody's update, to the bit. Whether an input that was sent is in a sum
only the server knows: so it is the sending that counts, not the reveal, which a server can do without asking everyone.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import final

import numpy as np

from protocols.errors import ProtocolError
from protocols.interface import SecureSum, SegmentInput, SumClient
from protocols.masking.secure_sum import Masking
from protocols.session import ClientId, Session
from rbla_secure.errors import RblaSecureError, RefusalError
from rbla_secure.federation.components import Seeds, component_seeds
from rbla_secure.federation.contribution import Contribute, contribution, noise_key, weight_of
from rbla_secure.federation.messages import StageRefusal, StageReply, StageRequest
from rbla_secure.federation.plan import Plan
from rbla_secure.lora.adapter import Adapter, Rows
from rbla_secure.seeding import derive_seed

# (adapter at the participant's rank, seed) -> rows after local training
LocalTraining = Callable[[Adapter, int], Rows]


@final
@dataclass(slots=True, kw_only=True)
class _Open:
    """A session that this participant is in, and the last request it answered there.

    The seeds are those of the removable components of its noise: shared with its keys, added with its input, and None
    from then on.
    """

    session: Session
    client: SumClient
    seeds: Seeds | None = field(repr=False)
    last: tuple[bytes, bytes] | None = field(default=None, repr=False)


@final
class Participant:
    """Answers the stages of the sessions it is in: those of one round, and of the next one whose keys ride along.

    Args:
        name: The participant's id in the plan's roster.
        plan: The participant's own copy of the plan.
        secure_sum: Its own side of the secure sum, with its identity.
        train: Local training on its private data.
        examples: How many private examples it has.
        contribute: What turns its change into summands; only an evaluation gives another one than the honest.
    """

    def __init__(
        self,
        name: ClientId,
        *,
        plan: Plan,
        secure_sum: SecureSum,
        train: LocalTraining,
        examples: int,
        contribute: Contribute = contribution,
    ) -> None:
        self._contribute = contribute
        self._name = name
        self._plan = plan
        self._secure_sum = secure_sum
        self._train = train
        self._weight = weight_of(plan, examples)
        self._open: dict[bytes, _Open] = {}
        self._newest: Session | None = None
        self._given: Session | None = None  # the last one that has this participant's input

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
        message = StageRequest.from_bytes(request)
        current = self._enter(message.session)
        if current.last is None or current.last[0] != request:
            current.last = (request, self._answer(current, message))
        return current.last[1]

    def end(self) -> None:
        """Drop the secrets of all sessions: the run is over."""
        for current in self._open.values():
            current.client.end()
        self._open.clear()

    def _answer(self, current: _Open, message: StageRequest) -> bytes:
        if not message.adapter:
            return current.client.reply(message.payload)
        broadcast = self._check_adapter(message.adapter)
        if current.seeds is None:
            # The input was given: the secure sum repeats its answer or refuses, and nothing is trained or noised again.
            return current.client.contribute(message.payload, {})
        inputs = self._inputs(current.session, broadcast, current.seeds)
        reply = current.client.contribute(message.payload, inputs)
        self._given, current.seeds = current.session, None
        return reply

    def _enter(self, data: bytes) -> _Open:
        """The session a request belongs to. A new one ends all but the round before it, with their secrets."""
        if data in self._open:
            return self._open[data]
        session = Session.from_bytes(data)
        self._check_session(session)
        seeds = component_seeds(self._plan, session, self._name)
        client = self._client(session, seeds)
        for key, other in list(self._open.items()):
            if other.session.round != session.round - 1:
                self._open.pop(key).client.end()
        self._newest = session
        self._open[data] = _Open(session=session, client=client, seeds=seeds)
        return self._open[data]

    def _client(self, session: Session, seeds: Seeds) -> SumClient:
        if not seeds:
            return self._secure_sum.client(session, self._name)
        if not isinstance(self._secure_sum, Masking):
            raise RefusalError(
                f"secure sum {self._secure_sum.name} must be masking: the seeds of noise are shared there alone"
            )
        return self._secure_sum.client(session, self._name, extra_secrets=seeds)

    def _check_session(self, session: Session) -> None:
        plan, last = self._plan, self._newest
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
        self._check_not_given(session)
        expected = plan.session(
            run=session.run,
            round_number=session.round,
            attempt=session.attempt,
            cohort=session.members,
            clip_norm=plan.clip_norm_of(session),
        )
        if session != expected:
            raise RefusalError(
                "the session's terms (threshold, quorums, segments, bound or plan) are not the plan's"
            )

    def _check_not_given(self, session: Session) -> None:
        given = self._given
        if given is not None and session.round == given.round:
            raise RefusalError(
                f"round {session.round} has had this participant's input in attempt {given.attempt}: "
                f"attempt {session.attempt} could show the difference to another sum of the round"
            )

    def _check_adapter(self, data: bytes) -> Adapter:
        adapter = Adapter.from_bytes(self._plan.layout, data)
        expected = self._plan.broadcast_rank(self._name)
        if adapter.rank != expected:
            raise RefusalError(f"the adapter's rank {adapter.rank} must be {expected}")
        return adapter

    def _inputs(
        self, session: Session, broadcast: Adapter, seeds: Seeds | None = None
    ) -> dict[int, SegmentInput]:
        """Train, then bound, pack, quantize and add noise: the client's way from private data to integers."""
        plan, config = self._plan, self._plan.config
        adapter = broadcast.sliced(plan.ranks[self._name])
        trained = self._train(adapter, derive_seed(config.seed, "training", session.round, self._name))
        change = trained.astype(np.float64) - adapter.rows
        key = noise_key(plan, session, self._name)
        integers = self._contribute(
            plan, session, self._name, change, weight=self._weight, noise_key=key, seeds=seeds
        )
        bindings = model_bindings(plan, session, broadcast)
        return {i: SegmentInput(values=values, binding=bindings[i]) for i, values in integers.items()}


def model_bindings(plan: Plan, session: Session, adapter: Adapter) -> Mapping[int, bytes]:
    """By segment: the digest of all rows up to its end, which every holder of it was sent.

    Clients that were sent different rows do not share masks, so a model aimed at one client opens nothing.
    """
    ends = {segment.index: plan.segment_rank(session, segment.index) for segment in session.segments}
    known = {end: adapter.sliced(end).digest() for end in set(ends.values()) if end <= adapter.rank}
    return {index: known[end] for index, end in ends.items() if end in known}
