"""A coalition mounts its attacks through the federation as it is: participants whose training is its own."""

import numpy as np
import pytest

from rbla_secure.evaluation.poisoning.coalition import Coalition
from rbla_secure.evaluation.poisoning.knowledge import FederationFacts, Member
from rbla_secure.evaluation.poisoning.registry import AttackName
from rbla_secure.lora.adapter import Adapter
from rbla_secure.planning.plan import Plan
from rbla_secure.seeding import derive_seed
from rbla_secure.tasks.datasets import LabelledImages
from tests.support.federations import InMemory, drift, make_adapter, make_participants, make_plan, play_round

# Of three clients of rank 3 and three of rank 1.
ATTACKERS = ("large-03", "small-03")
EXAMPLES = LabelledImages(images=np.zeros((4, 784), dtype=np.float32), labels=np.ones(4, dtype=np.int64))


def attacked_round(plan: Plan, attack: AttackName) -> np.ndarray:
    """What one round changes, with two attackers whose honest training moves every value by 0.01."""
    coalition = Coalition(
        attack,
        members={name: Member(rank=plan.ranks[name], examples=EXAMPLES) for name in ATTACKERS},
        federation=FederationFacts(clients=6, clip_norm=plan.config.clip_norm),
        train=lambda adapter, _, __: adapter.rows + np.float32(0.01),
    )
    adapter = make_adapter(plan)
    participants = make_participants(plan, train={name: coalition.train_of(name) for name in ATTACKERS})
    outcome = play_round(plan, adapter, InMemory(participants))
    return outcome.adapter.rows.astype(np.float64) - adapter.rows


def honest_change(plan: Plan, adapter: Adapter, name: str) -> np.ndarray:
    own = adapter.sliced(plan.ranks[name])
    return drift(own, derive_seed(plan.config.seed, "training", 1, name)).astype(np.float64) - own.rows


@pytest.mark.parametrize("secure_sum", ["plain", "masking"])
def test_what_attackers_send_is_averaged_like_anything_else(secure_sum: str) -> None:
    """Sign flip: minus 0.01 from two of six in the first row, from one of three in the others."""
    plan = make_plan(secure_sum=secure_sum)
    adapter = make_adapter(plan)
    honest = [honest_change(plan, adapter, name) for name in plan.ranks if name not in ATTACKERS]

    moved = attacked_round(plan, AttackName.SIGN_FLIP)

    first = (sum(change[0] for change in honest) - 2 * 0.01) / 6
    rest = (sum(change[1:] for change in honest if len(change) > 1) - 0.01) / 3
    np.testing.assert_allclose(moved, np.vstack([first[None], rest]), atol=1e-5)


def test_model_replacement_does_not_outlive_the_clip() -> None:
    """Tripled (n / f) and sent through the client's own clip, it moves the average by no more than C / n."""
    plan = make_plan(clip_norm=0.05)
    coalition_moved = attacked_round(plan, AttackName.SCALING)
    adapter = make_adapter(plan)
    shortest = [honest_change(plan, adapter, name) for name in plan.ranks if name not in ATTACKERS]

    honest = sum(change[0] * min(1.0, 0.05 / np.linalg.norm(change)) for change in shortest)

    assert np.linalg.norm(coalition_moved[0] - honest / 6) <= 2 * 0.05 / 6 + 1e-4
