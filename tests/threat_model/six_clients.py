"""Six clients of rank 2 and 4 on one tiny layer, and sessions between them, for the tests of claims."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from protocols.profiles import CONSISTENCY, ONE_ANSWER, SEMI_HONEST
from protocols.session import Session
from rbla_secure.config import load_config
from rbla_secure.federation.client.participant import Participant
from rbla_secure.federation.round import RoundOutcome, prepare_round, run_round
from rbla_secure.federation.server.session_server import SessionServer
from rbla_secure.lora.adapter import Adapter, AdapterLayout, LinearShape, Rows
from rbla_secure.planning.plan import Plan
from tests.support.federations import InMemory
from tests.support.identities import client_sum, server_sum

ROOT = Path(__file__).parents[2]
LAYOUT = AdapterLayout(layers=(LinearShape(name="only", in_features=5, out_features=3),), scaling=2.0)


TIERS = "tiers={a={rank=2,clients=3},b={rank=4,clients=3}}"


def make_plan(*overrides: str) -> Plan:
    """Six clients of rank 2 and 4 on one tiny layer; no model and no data behind it."""
    config = load_config(None, [TIERS, "dropout-rate=0", "rounds=4", *overrides])
    return Plan.build(config, layout=LAYOUT, base_digest=bytes(32))


def steady(step: float) -> Callable[[Adapter, int], Rows]:
    """Training that moves every value by the same step."""
    return lambda adapter, _seed: adapter.rows + np.float32(step)


def participants(plan: Plan, *, step: float = 0.01) -> dict[str, Participant]:
    """Everyone enrolled, with made-up training."""
    return {
        name: Participant(name, plan=plan, secure_sum=client_sum(plan, name), train=steady(step), examples=10)
        for name in plan.ranks
    }


def first_session(plan: Plan, *, round_number: int = 1, attempt: int = 1) -> Session:
    """The session of a round over everyone."""
    return plan.session(run=bytes(16), round_number=round_number, attempt=attempt, cohort=tuple(plan.ranks))


def initial(plan: Plan) -> Adapter:
    """The adapter before round 1."""
    return plan.initial_adapter


def play(plan: Plan, before: Adapter, network: InMemory) -> RoundOutcome:
    """The first round over everyone."""
    session_server = SessionServer(plan, first_session(plan), server_sum(plan))
    prepare_round(session_server, network)
    return run_round(plan, session_server, before, network)


EVERY_PROFILE = pytest.mark.parametrize(
    "profile", [SEMI_HONEST, ONE_ANSWER, CONSISTENCY], ids=lambda profile: profile.name
)
