"""Participants, and requests to them."""

from typing import Any

from protocols.plain import PlainInput
from protocols.ring import centred
from protocols.session import Session
from rbla_secure.federation.client.participant import LocalTraining, Participant
from rbla_secure.federation.messages import StageRefusal, StageReply, StageRequest, decode_answer
from rbla_secure.planning.plan import Plan
from tests.support.federations import (
    drift,
    make_adapter,
    make_plan,
    make_session,
)
from tests.support.identities import client_sum

PLAN = make_plan(rounds=9)
SESSION = make_session(PLAN)
ADAPTER = make_adapter(PLAN)
LEVELS = 32767  # of 16 bits


def participant(
    name: str = "small-01", *, plan: Plan = PLAN, train: LocalTraining = drift, examples: int = 10
) -> Participant:
    return Participant(name, plan=plan, secure_sum=client_sum(plan, name), train=train, examples=examples)


def request(
    session: Session = SESSION, *, payload: bytes = b"", rank: int = 3, adapter: bytes | None = None
) -> bytes:
    rows = ADAPTER.sliced(rank).to_bytes() if adapter is None else adapter
    return StageRequest(session=session.to_bytes(), payload=payload, adapter=rows).to_bytes()


def refusal(data: bytes) -> StageRefusal:
    answer = decode_answer(data)
    assert isinstance(answer, StageRefusal)
    return answer


def reply(data: bytes) -> bytes:
    answer = decode_answer(data)
    assert isinstance(answer, StageReply)
    return answer.payload


def sent(data: bytes) -> dict[int, Any]:
    """The signed integers of a plain reply, by segment."""
    return {index: centred(vector) for index, vector in PlainInput.from_bytes(reply(data)).segments.items()}
