"""Rounds with a defence: plans of more clients, whole rounds through it, and clients that send what they like."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from protocols.interface import ExtraSecrets, SecureSum, SegmentInput
from protocols.plain import PlainInput
from protocols.ring import centred, to_ring
from protocols.session import ClientId, Session
from rbla_secure.federation.client.contribution import contribution
from rbla_secure.federation.client.participant import Participant
from rbla_secure.federation.exchange import Answer, Exchange, Parcel
from rbla_secure.federation.messages import StageReply, decode_answer
from rbla_secure.federation.round import RoundOutcome, prepare_round, run_round
from rbla_secure.federation.server.defence import Defence, Reference
from rbla_secure.federation.server.previous_step import PreviousStep
from rbla_secure.federation.server.step_checks import StepChecks
from rbla_secure.lora.adapter import Adapter
from rbla_secure.planning.plan import Plan
from rbla_secure.seeding import derive_seed
from tests.support import federations
from tests.support.federations import answer_with, drift, make_session, open_round

# Bands of the rows 1 and 2-3 with ten and five holders.
TIERS = {"large": {"rank": 3, "clients": 5}, "small": {"rank": 1, "clients": 5}}
Integers = Mapping[int, Any]


def make_plan(*, robustness: Mapping[str, Any] | None = None, **changes: Any) -> Plan:
    """Five clients of rank 3 and five of rank 1 against one attacker, with keys changed."""
    return federations.make_plan(**{"tiers": TIERS, "robustness": {"f": 1, **(robustness or {})}, **changes})


def defended_round(
    plan: Plan,
    adapter: Adapter,
    exchange: Exchange,
    *,
    previous_step: PreviousStep | None = None,
    reference: Reference | None = None,
    step_checks: StepChecks | None = None,
    round_number: int = 1,
    attempt: int = 1,
) -> RoundOutcome:
    """A round from its keys to its result, behind the plan's defence."""
    session_server = open_round(plan, round_number=round_number, attempt=attempt)
    prepare_round(session_server, exchange)
    defence = Defence.of(plan, previous_step or PreviousStep(plan), reference)
    return run_round(plan, session_server, adapter, exchange, defence=defence, step_checks=step_checks)


def drifted(plan: Plan, adapter: Adapter, client: ClientId, *, weight: float = 1.0) -> dict[int, Any]:
    """The integers that an honest client sends in round 1, by band."""
    own = adapter.sliced(plan.ranks[client])
    change = drift(own, derive_seed(plan.config.seed, "training", 1, client)).astype(np.float64) - own.rows
    session = make_session(plan)
    return contribution(plan, session, client, change, weight=weight, noise_key=bytes(16))


def sending(
    of: Mapping[ClientId, Callable[[Integers], Integers]],
) -> Callable[[ClientId, Parcel], list[Answer]]:
    """In the clear: these clients' integers are what they make of those of the honest code."""

    def answers(client: ClientId, parcel: Parcel) -> list[Answer]:
        if client not in of or parcel.stage != "upload":
            return [Answer(client=client, parcel=parcel)]
        reply = decode_answer(parcel.data)
        assert isinstance(reply, StageReply)
        given = PlainInput.from_bytes(reply.payload)
        honest = {i: centred(vector, bits=given.ring_bits) for i, vector in given.segments.items()}
        changed = PlainInput(
            context=given.context,
            sender=given.sender,
            segments={i: to_ring(np.asarray(values)) for i, values in of[client](honest).items()},
            bindings=given.bindings,
            ring_bits=given.ring_bits,
        )
        return [answer_with(client, parcel, StageReply(payload=changed.to_bytes()).to_bytes())]

    return answers


class Hostile:
    """A client of a secure sum that contributes what it likes in the place of its update."""

    def __init__(self, inner: Any, change: Callable[[Any], Any]) -> None:
        self._inner = inner
        self._change = change

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def contribute(self, request: bytes, inputs: Mapping[int, SegmentInput]) -> bytes:
        """What it made of its summands."""
        changed = {
            index: SegmentInput(values=self._change(given.values), binding=given.binding)
            for index, given in inputs.items()
        }
        return bytes(self._inner.contribute(request, changed))


class HostileSum:
    """A participant's side of a secure sum whose clients change what they mask."""

    def __init__(self, honest: SecureSum, change: Callable[[Any], Any]) -> None:
        self._honest, self._change = honest, change

    def client(self, session: Session, me: ClientId, *, extra_secrets: ExtraSecrets | None = None) -> Hostile:
        """The honest client, behind the change."""
        return Hostile(self._honest.client(session, me, extra_secrets=extra_secrets), self._change)


def make_hostile(
    participants: Mapping[ClientId, Participant], client: ClientId, change: Callable[[Any], Any]
) -> None:
    """Let one of them change what it masks, within what the secure sum accepts."""
    one = participants[client]
    one._secure_sum = HostileSum(one._secure_sum, change)  # type: ignore[assignment]
