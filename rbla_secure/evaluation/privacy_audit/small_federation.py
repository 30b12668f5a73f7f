"""The configured federation on a small adapter: rounds of the real code in which training is replaced by given changes.

Plan, participants, secure sum, conversation, noise, release and average are those of a run, and so are tiers, thresholds,
quorums, clipping and noise. Other than in a run are the adapter, which is just large enough that no coordinate of a clipped change
is cut off by the grid, and the messages' way, which is a function call. Homomorphic sums are added in the clear: they open the same
integers, a thousand times slower.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import final

import numpy as np

from protocols.clock import SYSTEM_CLOCK
from protocols.identity import ThrowawayAuthority
from protocols.interface import SecureSum, SumClient, SumResult, SumServer
from protocols.plain import Plain
from protocols.session import RUN_ID_SIZE, ClientId, Session
from rbla_secure.choices import Factors, SecureSumMode
from rbla_secure.config import Config
from rbla_secure.errors import PrivacyError
from rbla_secure.federation.components import Seeds
from rbla_secure.federation.contribution import Integers, contribution
from rbla_secure.federation.conversation import Conversation
from rbla_secure.federation.derived import bands_and_holders
from rbla_secure.federation.exchange import Answer, Exchange, Parcel
from rbla_secure.federation.filtering import Filtering
from rbla_secure.federation.last_step import LastStep
from rbla_secure.federation.participant import Participant
from rbla_secure.federation.plan import Plan
from rbla_secure.federation.round import RoundOutcome, prepare_round, run_round
from rbla_secure.lora.adapter import Adapter, AdapterLayout, LinearShape, Rows
from rbla_secure.lora.bands import rank_bands
from rbla_secure.lora.update import UpdateRows
from rbla_secure.privacy.ledger import Shown

# How much larger a value than the largest of a clipped change still fits the grid: a clip to more than the norm shows.
_ROOM = 1.5
_LEAST_WIDTH = 8
_MOST_WIDTH = 2048
_LAYERS = 2
_ROUND = 1


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of two neighbouring federations.

    Args:
        changes: By client, shape (rank, row_length): what its training changes. Everyone else changes nothing.
        silent: Who is not there.
        before_keys: Whether the silent are not there from the first message on, or fall silent when their input is due.
    """

    changes: Mapping[ClientId, UpdateRows]
    silent: frozenset[ClientId] = frozenset()
    before_keys: bool = False


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Played:
    """All that anybody could have seen of a round.

    Args:
        outcome: As the round returned it; its adapter is published.
        sums: What the secure sum opened to the server; None if nothing.
        uploads: By client, its integers with their noise, as they left it.
        told: Each time that the round said what was about to show inputs: what, and whose.
    """

    outcome: RoundOutcome
    sums: SumResult | None
    uploads: Mapping[ClientId, Integers]
    told: Sequence[tuple[Shown, tuple[ClientId, ...]]]


def block_width(config: Config) -> int:
    """So many columns that a change of the clip norm in the lowest rank band fits the grid in every coordinate."""
    lowest = min(band.height for band in rank_bands(tier.rank for tier in config.tiers.values()))
    needed = (_ROOM * config.clip_norm / config.quantization.bound) ** 2 / lowest
    return max(_LEAST_WIDTH, 2 * _LAYERS * math.ceil(needed / (2 * _LAYERS)))


def block_count(config: Config) -> int:
    """How many canaries a round has room for: all holders of the rarest rows, but in no wider an adapter than is cheap."""
    rarest = min(count for _, count in bands_and_holders(config))
    return max(1, min(rarest, _MOST_WIDTH // block_width(config)))


def small_layout(config: Config) -> AdapterLayout:
    """Two layers whose columns that travel have room for so many blocks."""
    only_B = config.lora.factors is Factors.LORA_B
    width = math.ceil(block_count(config) * block_width(config) / (_LAYERS if only_B else 2 * _LAYERS))
    layers = tuple(
        LinearShape(name=f"layer{number}", in_features=_LEAST_WIDTH if only_B else width, out_features=width)
        for number in range(_LAYERS)
    )
    return AdapterLayout(layers=layers, scaling=config.lora.scaling)


@final
class SmallFederation:
    """Plays the first round of a configuration as often as it is asked to, each time with fresh keys and noise.

    Raises:
        PrivacyError: The noise is not secret, so that there is nothing to audit.
        PlanError: The configuration is refused.
    """

    def __init__(self, config: Config) -> None:
        if config.privacy.simulation:
            raise PrivacyError(
                "privacy.simulation=true must be false: noise that follows from the seed is the same in every trial, and its "
                "epsilon is worthless anyway"
            )
        self.plan = Plan.build(config, layout=small_layout(config), base_digest=bytes(32))
        self.session = self.plan.session(run=bytes(RUN_ID_SIZE), round_number=_ROUND, attempt=1)
        self._in_the_clear = config.secure_sum is SecureSumMode.HOMOMORPHIC
        signed = self.plan.needs_identities and not self._in_the_clear
        self._authority = (
            ThrowawayAuthority.create(self.plan.ranks, now=int(time.time()), clock=SYSTEM_CLOCK)
            if signed
            else None
        )
        self._filtering = Filtering.of(self.plan, LastStep(self.plan))

    @property
    def remarks(self) -> list[str]:
        """What is other than in a run."""
        width = self.plan.layout.row_length
        found = [
            f"clients: whole rounds of an adapter of {width} values a row, with given changes instead of training"
        ]
        if self._in_the_clear:
            found.append("encrypted sums are added in the clear: they open the same integers")
        return found

    def play(self, side: Side) -> Played:
        """One round."""
        uploads: dict[ClientId, Integers] = {}
        told: list[tuple[Shown, tuple[ClientId, ...]]] = []
        server = _Watched(self._sum_of(None))
        exchange = _Calls(
            {
                name: self._participant(name, side, uploads)
                for name in self.session.members
                if name not in side.silent
            },
            # Whoever is silent from its input on still has its keys asked for.
            late={}
            if side.before_keys
            else {name: self._participant(name, side, uploads) for name in side.silent},
            input_stage=server.input_stage,
        )
        conversation = Conversation(self.plan, self.session, server)
        prepare_round(conversation, exchange)
        outcome = run_round(
            self.plan,
            conversation,
            self.plan.initial_adapter,
            exchange,
            filtering=self._filtering,
            before_reveal=lambda part, clients: told.append((part, tuple(clients))),
        )
        exchange.end()
        return Played(outcome=outcome, sums=server.opened, uploads=uploads, told=told)

    def _participant(self, name: ClientId, side: Side, uploads: dict[ClientId, Integers]) -> Participant:
        return Participant(
            name,
            plan=self.plan,
            secure_sum=self._sum_of(name),
            train=partial(_train, side.changes.get(name)),
            examples=1,
            contribute=_recording(uploads),
        )

    def _sum_of(self, name: ClientId | None) -> SecureSum:
        if self._in_the_clear:
            return Plain()
        if self._authority is None:
            return self.plan.secure_sum()
        identity = self._authority.identity(name) if name is not None else None
        return self.plan.secure_sum(self._authority.view, identity)


def _train(change: UpdateRows | None, adapter: Adapter, seed: int) -> Rows:  # noqa: ARG001  # nothing is drawn
    if change is None:
        return adapter.rows
    rows: Rows = (adapter.rows + change[: adapter.rank]).astype(np.float32)
    return rows


def _recording(uploads: dict[ClientId, Integers]) -> Callable[..., Integers]:
    """The honest contribution, written down."""

    def contribute(
        plan: Plan,
        session: Session,
        client: ClientId,
        change: UpdateRows,
        *,
        weight: float,
        noise_key: bytes,
        seeds: Seeds | None = None,
    ) -> Integers:
        found = contribution(plan, session, client, change, weight=weight, noise_key=noise_key, seeds=seeds)
        uploads[client] = {index: values.copy() for index, values in found.items()}
        return found

    return contribute


@final
class _Calls(Exchange):
    """Calls each participant in turn; those that are not there answer nothing, the late ones nothing from their input on."""

    def __init__(
        self,
        participants: Mapping[ClientId, Participant],
        *,
        late: Mapping[ClientId, Participant],
        input_stage: str,
    ) -> None:
        self._participants = {**participants, **late}
        self._late = frozenset(late)
        self._input_stage = input_stage
        self._began = False

    def send(self, messages: Mapping[ClientId, Sequence[Parcel]]) -> Iterator[Answer]:
        """Deliver messages one after the other."""
        for client, parcels in messages.items():
            for parcel in parcels:
                self._began = self._began or parcel.stage == self._input_stage
                if client in self._participants and not (self._began and client in self._late):
                    data = self._participants[client].handle(parcel.data)
                    yield Answer(client=client, parcel=replace(parcel, data=data))

    def end(self) -> None:
        """Every participant drops its secrets."""
        for participant in self._participants.values():
            participant.end()


@final
class _Watched(SecureSum):
    """The server's side of a secure sum, and what it opened."""

    name = "watched"

    def __init__(self, secure_sum: SecureSum) -> None:
        self._secure_sum = secure_sum
        self.input_stage = secure_sum.input_stage  # type: ignore[misc]  # that of whichever sum it watches
        self._server: _WatchedServer | None = None

    @property
    def stages(self) -> tuple[str, ...]:
        """Those of the sum."""
        return self._secure_sum.stages

    @property
    def opened(self) -> SumResult | None:
        """What the server learnt in the session that it opened last; None if nothing."""
        return self._server.opened if self._server is not None else None

    def client(self, session: Session, me: ClientId) -> SumClient:
        """That of the sum."""
        return self._secure_sum.client(session, me)

    def server(self, session: Session) -> SumServer:
        """That of the sum, watched."""
        self._server = _WatchedServer(inner=self._secure_sum.server(session))
        return self._server


@final
@dataclass(slots=True, kw_only=True)
class _WatchedServer(SumServer):
    inner: SumServer
    opened: SumResult | None = field(default=None, repr=False)

    def requests(self) -> Mapping[ClientId, bytes]:
        return self.inner.requests()

    def receive(self, client: ClientId, reply: bytes) -> None:
        self.inner.receive(client, reply)

    def close_stage(self) -> None:
        self.inner.close_stage()

    def expect(self, bindings: Mapping[int, bytes]) -> None:
        self.inner.expect(bindings)

    @property
    def faults(self) -> Mapping[ClientId, str]:
        return self.inner.faults

    @property
    def disputes(self) -> Mapping[ClientId, tuple[ClientId, ...]]:
        return self.inner.disputes

    @property
    def contributors(self) -> tuple[ClientId, ...] | None:
        return self.inner.contributors

    def result(self, bindings: Mapping[int, bytes]) -> SumResult:
        self.opened = self.inner.result(bindings)
        return self.opened
