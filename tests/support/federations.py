"""Small federations in memory: plans, participants that train on nothing, and a network that can be tampered with."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np

from protocols.session import ClientId, Session
from rbla_secure.config import Config
from rbla_secure.federation.client.participant import LocalTraining, Participant
from rbla_secure.federation.exchange import Answer, Exchange, Parcel
from rbla_secure.federation.messages import StageRequest
from rbla_secure.federation.observer import SilentObserver
from rbla_secure.federation.round import RoundOutcome, prepare_round, run_round
from rbla_secure.federation.server.session_server import SessionServer
from rbla_secure.lora.adapter import Adapter, Rows
from rbla_secure.planning.cohort import sample_cohort
from rbla_secure.planning.plan import Plan
from rbla_secure.run_folder.records import RoundRecord, RoundSeconds
from tests.support.identities import client_sum, server_sum
from tests.support.updates import make_layout

LAYOUT = make_layout((3, 2), (2, 4))
RUN = bytes(range(16))
BASE = bytes(range(32))

# Three clients that hold one row and three that hold three: bands of the rows 1 and 2-3.
TIERS = {"large": {"rank": 3, "clients": 3}, "small": {"rank": 1, "clients": 3}}
LARGE = ("large-01", "large-02", "large-03")
SMALL = ("small-01", "small-02", "small-03")
MEMBERS = LARGE + SMALL


def make_config(**changes: Any) -> Config:
    """The small federation, with keys changed; nothing in it drops out by itself."""
    return Config.model_validate(
        {
            "tiers": TIERS,
            "dropout_rate": 0.0,
            "rounds": 9,
            "secure_sum": "plain",
            "clip_norm": 1.0,
            "quantization": {"bits": 16, "bound": 0.1},
            **changes,
        }
    )


def make_plan(**changes: Any) -> Plan:
    """Its plan on a base model of two layers."""
    plan = Plan.build(make_config(**changes), layout=LAYOUT, base_digest=BASE)
    return beginning_with(plan, make_adapter(plan))


def beginning_with(plan: Plan, adapter: Adapter) -> Plan:
    """A plan whose run begins with this adapter, so that participants believe it, instead of the one of its seed."""
    plan.__dict__["initial_adapter"] = adapter
    return plan


def make_session(plan: Plan, *, round_number: int = 1, attempt: int = 1, run: bytes = RUN) -> Session:
    """The session that the plan gives for the cohort of a round."""
    cohort = sample_cohort(plan.config.tiers, seed=plan.config.seed, round_number=round_number)
    return plan.session(run=run, round_number=round_number, attempt=attempt, cohort=cohort)


def make_adapter(plan: Plan, *, seed: int | None = None) -> Adapter:
    """A global adapter in which no value is zero; by default the one that :func:`make_plan` lets runs begin with."""
    rows = np.random.default_rng(plan.config.seed if seed is None else seed).standard_normal(
        (plan.max_rank, plan.layout.row_length)
    )
    return Adapter(layout=plan.layout, rows=rows.astype(np.float32))


def drift(adapter: Adapter, seed: int) -> Rows:
    """Local training that learns noise: every value moves, and the same seed moves it the same way."""
    change = np.random.default_rng(seed).uniform(-0.05, 0.05, adapter.rows.shape)
    return (adapter.rows + change).astype(np.float32)


def diverge(adapter: Adapter, seed: int) -> Rows:  # noqa: ARG001
    """Local training that ends in NaN."""
    return np.full_like(adapter.rows, np.nan)


def make_participants(
    plan: Plan, *, train: Mapping[ClientId, LocalTraining] | None = None, examples: int = 10
) -> dict[ClientId, Participant]:
    """Everyone enrolled; those named train as told, all others drift."""
    special = train or {}
    return {
        name: Participant(
            name,
            plan=plan,
            secure_sum=client_sum(plan, name),
            train=special.get(name, drift),
            examples=examples,
        )
        for name in plan.ranks
    }


def open_round(plan: Plan, *, round_number: int = 1, attempt: int = 1) -> SessionServer:
    """The server's side of a round of which nobody has heard yet."""
    session = make_session(plan, round_number=round_number, attempt=attempt)
    return SessionServer(plan, session, server_sum(plan))


def play_round(
    plan: Plan, adapter: Adapter, exchange: Exchange, *, round_number: int = 1, attempt: int = 1
) -> RoundOutcome:
    """A round on its own, from its keys to its result."""
    session_server = open_round(plan, round_number=round_number, attempt=attempt)
    prepare_round(session_server, exchange)
    return run_round(plan, session_server, adapter, exchange)


def keep_request(client: ClientId, parcel: Parcel) -> bytes:  # noqa: ARG001
    """A network that delivers what the server sends."""
    return parcel.data


def keep_answer(client: ClientId, parcel: Parcel) -> list[Answer]:
    """A network that delivers what the client sends."""
    return [Answer(client=client, parcel=parcel)]


def answer_with(client: ClientId, parcel: Parcel, data: bytes) -> Answer:
    """An answer to the same parcel with other bytes."""
    return Answer(client=client, parcel=replace(parcel, data=data))


@final
@dataclass(frozen=True)
class WhenSaved(SilentObserver):
    """Calls a function with every round that is saved."""

    call: Callable[[RoundRecord, RoundSeconds], object]

    def round_saved(self, record: RoundRecord, seconds: RoundSeconds) -> None:
        self.call(record, seconds)


@final
class InMemory(Exchange):
    """Calls each participant in turn, with a network in between.

    Args:
        participants: Everyone enrolled.
        silent_from: By client, the stage from which on it no longer answers in a round, in every round.
        silent_in: By round and client, the stage from which on it no longer answers in that round.
        requests: What the network makes of a request.
        answers: What the network makes of an answer.
    """

    def __init__(
        self,
        participants: Mapping[ClientId, Participant],
        *,
        silent_from: Mapping[ClientId, str] | None = None,
        silent_in: Mapping[tuple[int, ClientId], str] | None = None,
        requests: Callable[[ClientId, Parcel], bytes] = keep_request,
        answers: Callable[[ClientId, Parcel], list[Answer]] = keep_answer,
    ) -> None:
        self._participants = participants
        self._silent_from = dict(silent_from or {})
        self._silent_in = dict(silent_in or {})
        self._requests = requests
        self._answers = answers
        self._gone: set[tuple[int, ClientId]] = set()
        self.sent: list[dict[ClientId, tuple[Parcel, ...]]] = []

    @property
    def seen(self) -> list[tuple[str, ClientId, bytes]]:
        """Every request: its stage, whom it is for, its bytes."""
        return [
            (parcel.stage, client, parcel.data)
            for messages in self.sent
            for client, parcels in messages.items()
            for parcel in parcels
        ]

    def send(self, messages: Mapping[ClientId, Sequence[Parcel]]) -> Iterator[Answer]:
        """Deliver messages one after the other."""
        self.sent.append({client: tuple(parcels) for client, parcels in messages.items()})
        for client, parcels in messages.items():
            for parcel in parcels:
                if not self._hears(client, parcel):
                    continue
                delivered = self._requests(client, parcel)
                data = self._participants[client].handle(delivered)
                yield from self._answers(client, replace(parcel, data=data))

    def _hears(self, client: ClientId, parcel: Parcel) -> bool:
        here = (parcel.round, client)
        if parcel.stage in (self._silent_from.get(client), self._silent_in.get(here)):
            self._gone.add(here)
        return here not in self._gone


@final
class Deaf(Exchange):
    """Nobody answers."""

    def send(self, messages: Mapping[ClientId, Sequence[Parcel]]) -> Iterator[Answer]:
        """Deliver nothing."""
        assert all(messages.values())
        yield from ()


def change_adapter(request: bytes, *, row: int = 0) -> bytes:
    """The same request with one value of one adapter row changed; as it is if it carries no adapter."""
    message = StageRequest.from_bytes(request)
    if not message.adapter:
        return request
    rows = np.frombuffer(message.adapter, dtype="<f4").reshape(-1, LAYOUT.row_length).copy()
    rows[row, 0] += 1.0
    return StageRequest(session=message.session, payload=message.payload, adapter=rows.tobytes()).to_bytes()
