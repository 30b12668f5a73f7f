"""Clients with a state folder, and the models they are sent."""

from collections.abc import Callable

from protocols.session import ClientId
from rbla_secure.federation.client.memory import Memory
from rbla_secure.federation.client.participant import LocalTraining, Participant
from rbla_secure.federation.messages import StageRefusal, StageReply, StageRequest, decode_answer
from rbla_secure.lora.adapter import Adapter
from rbla_secure.planning.plan import Plan
from tests.support.federations import RUN, drift, make_adapter, make_session
from tests.support.identities import client_sum

ME = "small-01"

Opener = Callable[..., Memory]


def client(plan: Plan, memory: Memory, *, train: LocalTraining = drift, name: ClientId = ME) -> Participant:
    return Participant(
        name, plan=plan, secure_sum=client_sum(plan, name), train=train, examples=10, memory=memory
    )


def answer(
    plan: Plan,
    me: Participant,
    number: int = 1,
    *,
    adapter: Adapter | None = None,
    run: bytes = RUN,
    attempt: int = 1,
    payload: bytes = b"",
) -> StageReply | StageRefusal:
    """What a client answers when its input of a round is asked for."""
    session = make_session(plan, round_number=number, run=run, attempt=attempt)
    rows = (adapter or make_adapter(plan)).to_bytes()
    request = StageRequest(session=session.to_bytes(), payload=payload, adapter=rows)
    return decode_answer(me.handle(request.to_bytes()))


def refusal(found: StageReply | StageRefusal) -> str:
    assert isinstance(found, StageRefusal)
    assert found.error == "RefusalError"
    return found.reason
