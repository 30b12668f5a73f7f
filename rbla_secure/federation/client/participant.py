"""A participant: one organisation's side of the federation. It holds the only copy of what it trained.

Every request is checked against the participant's own plan before anything is computed: the session must be the one
that the plan gives for its round, cohort included; round and attempt must move forward; the adapter must be one to which
honest rounds can have led (`plausibility.py`). Whatever the plan determines, a participant does not take from the
server; under adaptive clipping the server names a clip norm that earlier counts can have led to (`clip_check.py`).

A participant gives input to a round once, and never again to that round or an earlier one. Training and rounding follow
from the round, so the difference of two sums of one round over different survivors would be somebody's update, to the
bit. Only the server knows whether an input that was sent is in a sum: so sending counts, not the reveal, which a server
can do without asking everyone. The check stands where a session opens and again where an input is asked for: sessions
of several rounds and attempts may be open at once.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import final

import numpy as np

from protocols.errors import ProtocolError
from protocols.interface import SecureSum, SegmentInput, SumClient
from protocols.session import ClientId, Session
from rbla_secure.config.choices import Rest
from rbla_secure.errors import RblaSecureError, RefusalError
from rbla_secure.federation.broadcast import Broadcast, model_bindings, read_broadcast
from rbla_secure.federation.client.contribution import Contribute, contribution, weight_of
from rbla_secure.federation.client.memory import Memory
from rbla_secure.federation.messages import StageRefusal, StageReply, StageRequest
from rbla_secure.federation.noise_components import Seeds, component_seeds
from rbla_secure.federation.noise_shares import noise_key
from rbla_secure.federation.secret_cohorts import Draws, check_draws
from rbla_secure.lora.adapter import Adapter, Rows
from rbla_secure.lora.update import UpdateRows
from rbla_secure.planning.plan import Plan
from rbla_secure.privacy.noise import NoisePlace
from rbla_secure.seeding import derive_seed

_LOG = logging.getLogger(__name__)

# (adapter at the participant's rank, with the rows beyond it to fold in; seed) -> rows after local training
LocalTraining = Callable[[Adapter, int], Rows]
# Told of a session before anything is trained for it
BeforeTraining = Callable[[Session], None]


@final
@dataclass(slots=True, kw_only=True)
class _Open:
    """An open session of this participant, and the last request that it answered there.

    The seeds are those of its removable noise components: shared with its keys, added with its input, and None from
    then on.
    """

    session: Session
    client: SumClient
    seeds: Seeds | None = field(repr=False)
    last: tuple[bytes, bytes] | None = field(default=None, repr=False)


@final
class Participant:
    """Answers the stages of its sessions: those of one round, and of the next one, whose keys travel with them.

    Requests from several threads are answered one after the other, so that a round gets its input at most once.

    Args:
        name: The participant's id in the plan's roster.
        plan: The participant's own copy of the plan.
        secure_sum: The participant's side of the secure sum, with its identity.
        train: Local training on its private data.
        examples: How many private examples it has.
        contribute: Turns its change into summands; only an evaluation passes another function than the honest one.
        memory: The memory of rounds that have its input; by default it lasts as long as the participant. It is closed
            with the participant.
        draws: Its own secret draws, where the plan has such: it takes part only in the rounds that they give.
        before_training: Called with a session before anything is trained for it; an exception from it is the answer,
            and nothing is trained. A client with a lifetime budget records there what the session spends
            (`lifetime.py`).

    Raises:
        RefusalError: The memory is in the state folder of another client.
        PlanError: There are no draws although the plan has draws, or some although it has none.
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
        memory: Memory | None = None,
        draws: Draws | None = None,
        before_training: BeforeTraining = lambda _session: None,
    ) -> None:
        check_draws(plan, draws)
        self._draws = draws
        self._contribute = contribute
        self._before_training = before_training
        self._name = name
        self._plan = plan
        self._secure_sum = secure_sum
        self._train = train
        self._weight = weight_of(plan, examples)
        self._turn = threading.RLock()
        self._open: dict[bytes, _Open] = {}
        self._newest: Session | None = None
        self._memory = memory if memory is not None else Memory(plan)
        self._memory.check_own(name)

    def handle(self, request: bytes) -> bytes:
        """Answer a request, or refuse it with the name of the reason. Never raises on purpose."""
        try:
            return StageReply(payload=self.answer(request)).to_bytes()
        except (ProtocolError, RblaSecureError) as error:
            return StageRefusal(error=type(error).__name__, reason=str(error)).to_bytes()

    def answer(self, request: bytes) -> bytes:
        """Return the secure sum's reply to one stage; a repeated request gets the same reply.

        Raises:
            RefusalError: The session or the adapter is not what the plan says.
            UpdateError: The update is not finite.
            ProtocolError: Whatever the secure sum refuses.
        """
        message = StageRequest.from_bytes(request)
        with self._turn:
            current = self._enter(message.session)
            if current.last is None or current.last[0] != request:
                current.last = (request, self._answer(current, message))
            return current.last[1]

    def end(self) -> None:
        """Drop the secrets of all sessions and release the state folder: the run is over."""
        with self._turn:
            for current in self._open.values():
                current.client.end()
            self._open.clear()
            self._memory.close()

    def _answer(self, current: _Open, message: StageRequest) -> bytes:
        if not message.adapter:
            return current.client.reply(message.payload)
        broadcast = read_broadcast(self._plan, self._name, message.adapter, message.digests)
        if current.seeds is None:
            # The input was given: the secure sum repeats its answer or refuses, and nothing is trained or noised again.
            return current.client.contribute(message.payload, {})
        session = current.session
        self._memory.check_not_given(session.round)
        self._memory.accept(broadcast, session.round, self._plan.clip_norm_of(session))
        self._before_training(session)
        inputs = self._inputs(session, broadcast, current.seeds)
        reply = current.client.contribute(message.payload, inputs)
        try:
            self._memory.give(session.round)
        except BaseException:
            # What was not written down must not leave by a later stage of this session either.
            self._open.pop(session.to_bytes()).client.end()
            raise
        current.seeds = None
        return reply

    def _enter(self, data: bytes) -> _Open:
        """Return the session of a request. A new one ends all but that of the round before it, with their secrets."""
        if data in self._open:
            return self._open[data]
        session = Session.from_bytes(
            data,
            most_members=self._plan.promises.members,
            most_segments=self._plan.segmentation.most_segments,
        )
        # The plan's own, which is the same: what was worked out of it is not worked out again.
        session = self._planned(session)
        seeds = component_seeds(self._plan, session, self._name)
        client = self._secure_sum.client(session, self._name, extra_secrets=seeds)
        for key, other in list(self._open.items()):
            if other.session.round != session.round - 1:
                self._open.pop(key).client.end()
        self._newest = session
        self._open[data] = _Open(session=session, client=client, seeds=seeds)
        return self._open[data]

    def _planned(self, session: Session) -> Session:
        """Return the session as the plan has it.

        Raises:
            RefusalError: It differs from the plan's, or does not come after the last one.
        """
        plan, last = self._plan, self._newest
        if last is not None and session.run != last.run:
            raise RefusalError("the session belongs to another run")
        if last is not None and (session.round, session.attempt) <= (last.round, last.attempt):
            raise RefusalError(
                f"round {session.round} attempt {session.attempt} must come after "
                f"round {last.round} attempt {last.attempt}"
            )
        self._memory.check_not_given(session.round)
        clip_norm = plan.clip_norm_of(session)
        expected = plan.session(
            run=session.run,
            round_number=session.round,
            attempt=session.attempt,
            cohort=session.members,
            clip_norm=clip_norm,
        )
        if self._name not in session.members:
            raise RefusalError(f"{self._name} is not in the cohort of round {session.round}")
        if self._draws is not None and not self._draws.takes_part(session.round):
            raise RefusalError(f"{self._name} is not drawn for round {session.round}")
        if session != expected:
            raise RefusalError(
                "the session's terms (threshold, quorums, segments, ranks, bound or plan) are not the plan's"
            )
        self._memory.check_clip_norm(session.round, clip_norm)
        return expected

    def _inputs(
        self, session: Session, broadcast: Broadcast, seeds: Seeds | None = None
    ) -> dict[int, SegmentInput]:
        """Train, bound, pack, quantize and add noise: all steps from private data to integers."""
        plan = self._plan
        change = self._change(session, broadcast)
        key = noise_key(plan, session, self._name)
        integers = self._contribute(
            plan, session, self._name, change, weight=self._weight, noise_key=key, seeds=seeds
        )
        bindings = model_bindings(session, broadcast.digests)
        # Far out in its tails noise leaves the bound: a refusal then would depend on what it hides.
        mechanism = plan.mechanism_of(session)
        wraps = mechanism is not None and mechanism.place is NoisePlace.CLIENTS
        return {
            i: SegmentInput(values=values, binding=bindings[i], wraps=wraps) for i, values in integers.items()
        }

    def _change(self, session: Session, broadcast: Broadcast) -> UpdateRows:
        """Return the change by training in the rows that this participant holds; zero in rows that can never open.

        Raises:
            RefusalError: Training failed. Under noise it counts as no change instead: a refusal would show the server that
                the data made it so. With noise inside the client alone, this package's own errors are reported: they
                are about the model, and no example is read before (`privacy/sample_level.py`).
        """
        plan, held = self._plan, self._plan.ranks[self._name]
        trained = plan.trained_rank(self._name)
        folds = plan.config.lora.rest is Rest.FOLDED
        model = broadcast.adapter.folded(trained) if folds else broadcast.adapter.sliced(trained)
        change = np.zeros((held, plan.layout.row_length))
        try:
            rows = self._train(model, derive_seed(plan.config.seed, "training", session.round, self._name))
            change[:trained] = rows.astype(np.float64) - model.rows
        except Exception as error:  # noqa: BLE001  # whatever it raises costs this client the round, never the run
            _LOG.exception("%s: local training failed in round %d", self._name, session.round)
            about_the_model = plan.sample_level is None or isinstance(error, RblaSecureError)
            if plan.mechanism is None and about_the_model:
                raise RefusalError(f"local training failed: {type(error).__name__}") from None
            change[:] = 0.0
        return change
