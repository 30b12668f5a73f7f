"""A participant that is asked for one thing twice at the same moment: it trains once and gives one input."""

from contextlib import nullcontext

import pytest

from rbla_secure.federation.client.participant import Participant
from rbla_secure.federation.messages import StageRequest
from rbla_secure.lora.adapter import Adapter, Rows
from tests.support.federations import drift, make_participants, make_plan, make_session
from tests.support.racing import at_once, meeting


@pytest.mark.parametrize("careless", [True, False], ids=["without turns", "ours"])
def test_one_input_is_given_to_two_requests_at_once(
    monkeypatch: pytest.MonkeyPatch, *, careless: bool
) -> None:
    """The check that a round has no input yet, the training and the note that it has one now are one step."""
    plan, trained = make_plan(secure_sum="plain"), []

    def train(adapter: Adapter, seed: int) -> Rows:
        trained.append(seed)
        return drift(adapter, seed)

    name = next(iter(plan.ranks))
    me: Participant = make_participants(plan, train={name: meeting(train)})[name]
    if careless:
        monkeypatch.setattr(me, "_turn", nullcontext())
    request = StageRequest(
        session=make_session(plan).to_bytes(), payload=b"", adapter=plan.initial_adapter.to_bytes()
    ).to_bytes()

    answers = at_once(*[lambda: me.handle(request)] * 2)

    assert len(trained) == (2 if careless else 1)
    assert careless or answers[0] == answers[1]
