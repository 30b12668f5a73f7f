"""A server that chooses the model: everybody's update but one is zero, and the sum is what is left.

The model is real here, a perceptron, and so is its training: a rank row kills the second hidden layer (no gradient reaches any
row of any layer), and another row of another band revives it. Each attack is first shown to work against participants
that lack the check in question, and then to fail against ours.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from protocols.interface import SumResult
from protocols.session import ClientId
from rbla_secure.federation import conversation as conversations
from rbla_secure.federation import participant as participants
from rbla_secure.federation import plan as plans
from rbla_secure.federation.broadcast import band_digests, encode_rest
from rbla_secure.federation.contribution import contribution
from rbla_secure.federation.conversation import Conversation, Turn, hold
from rbla_secure.federation.exchange import Parcel
from rbla_secure.federation.memory import Memory
from rbla_secure.federation.messages import StageRequest
from rbla_secure.federation.participant import Participant
from rbla_secure.federation.plan import Plan
from rbla_secure.federation.round import prepare_round
from rbla_secure.lora.adapter import Adapter, Rows
from rbla_secure.lora.peft_io import find_linear
from rbla_secure.seeding import derive_seed
from rbla_secure.tasks.base_model import base_digest, build_mlp
from rbla_secure.tasks.datasets import PIXELS, LabelledImages
from rbla_secure.tasks.training import LocalTrainer
from tests.support.federations import RUN, InMemory, make_config
from tests.support.identities import client_sum, server_sum

torch.set_num_threads(1)

SMALL = ("small-01", "small-02", "small-03")
LARGE = ("large-01", "large-02", "large-03", "large-04")
TIERS = {"small": {"rank": 2, "clients": 3}, "large": {"rank": 4, "clients": 4}}
PROFILES = pytest.mark.parametrize("profile", ["semi-honest", "one-answer", "consistency"])
MALICIOUS = pytest.mark.parametrize("profile", ["one-answer", "consistency"])
UPLOADS = pytest.mark.parametrize("upload", ["banded", "padded"])

BASE = build_mlp(seed=3).requires_grad_(False).eval()
STRONG = 8.0


class World:
    """A federation whose server lies.

    Args:
        changes: Of the configuration.
    """

    def __init__(self, **changes: Any) -> None:
        config = make_config(
            **{
                "tiers": TIERS,
                "secure_sum": "masking",
                "training": {"batch_size": 8, "learning_rate": 0.05},
                **changes,
            }
        )
        layout = find_linear(BASE, scaling=config.lora.scaling)
        self.plan = Plan.build(config, layout=layout, base_digest=base_digest(BASE))
        self.trainer = LocalTrainer(BASE, layout, config.training)
        self.changes: dict[ClientId, npt.NDArray[np.float64]] = {}
        self.people = {name: self._participant(name) for name in self.plan.ranks}
        self.silent: dict[ClientId, str] = {}

    def _participant(self, name: ClientId) -> Participant:
        generator = np.random.default_rng(derive_seed(0, name))
        images = generator.uniform(0, 1, (24, PIXELS)).astype(np.float32)
        examples = LabelledImages(images=images, labels=generator.integers(0, 10, 24))

        def train(adapter: Adapter, seed: int) -> Rows:
            rows = self.trainer.train(adapter, examples, seed=seed)
            self.changes[name] = rows.astype(np.float64) - adapter.rows
            return rows

        return Participant(
            name, plan=self.plan, secure_sum=client_sum(self.plan, name), train=train, examples=24
        )

    def model(self, *, dead_in: int | None, alive_in: int | None) -> Adapter:
        """The seeded adapter, with a row that kills the second hidden layer and another one that revives it."""
        rows = self.plan.initial_adapter.rows.copy()
        lora_A, lora_B = self.plan.layout.columns["hidden2"]
        for row, sign in ((dead_in, -1.0), (alive_in, 1.0)):
            if row is not None:
                rows[row, lora_A], rows[row, lora_B] = STRONG, sign
        return Adapter(layout=self.plan.layout, rows=rows)

    def play(
        self,
        model: Adapter,
        *,
        aimed: Mapping[ClientId, Adapter] | None = None,
        drop: tuple[ClientId, ...] = (),
    ) -> SumResult | None:
        """A round on a model, with others for some; `drop` are said to have fallen silent after they uploaded."""
        plan = self.plan
        network = InMemory(
            self.people, requests=lambda client, parcel: self._aim(aimed or {}, client, parcel)
        )
        session = plan.session(run=RUN, round_number=1, attempt=1)
        self.session, self.talk = session, Conversation(plan, session, server_sum(plan))
        prepare_round(self.talk, network)
        deliver = network.send

        def losing(messages: Any) -> Any:
            for answer in deliver(messages):
                if answer.client not in drop or answer.parcel.stage != self.talk.input_stage:
                    yield answer

        network.send = losing  # type: ignore[method-assign]
        stages = self.talk.stages
        for stage in stages[stages.index(self.talk.input_stage) :]:
            broadcast = model if stage == self.talk.input_stage else None
            hold(network, [Turn(conversation=self.talk, stage=stage, adapter=broadcast)])
        return self.talk.result(model)

    def _aim(self, aimed: Mapping[ClientId, Adapter], client: ClientId, parcel: Parcel) -> bytes:
        message = StageRequest.from_bytes(parcel.data)
        if not message.adapter or client not in aimed:
            return parcel.data
        model = aimed[client]
        return StageRequest(
            session=message.session,
            payload=message.payload,
            adapter=model.sliced(self.plan.broadcast_rank(client)).to_bytes(),
            digests=encode_rest(self.plan, client, band_digests(self.plan, model)),
        ).to_bytes()

    def isolated(self, result: SumResult | None, victim: ClientId) -> list[int]:
        """The segments that have been opened to the integers of one client alone, of which some are not zero."""
        if result is None:
            return []
        held = self.plan.ranks[victim]
        change = np.zeros((held, self.plan.layout.row_length))
        own = self.changes.get(victim, change[:0])
        change[: len(own)] = own
        alone = contribution(self.plan, self.session, victim, change, weight=1.0, noise_key=bytes(16))
        width = self.plan.layout.row_length
        return [
            index
            for index, total in result.sums.items()
            if index in alone
            and alone[index][:width].any()
            and np.array_equal(total[: 2 * width], alone[index][: 2 * width])
        ]


def believe_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Participants that train on whatever model they are sent."""
    monkeypatch.setattr(Memory, "accept", lambda *_arguments: None)


def bind_bands_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parties that bind each band to the rows up to its own end, as if higher rows did not matter to it."""

    def bindings(session: Any, digests: tuple[bytes, ...]) -> dict[int, bytes]:
        return {segment.index: digests[segment.index] for segment in session.segments}

    for module in (participants, conversations):
        monkeypatch.setattr(module, "model_bindings", bindings)


def count_all_ranks_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans without classes of view."""
    monkeypatch.setattr(plans, "class_quorum", lambda _config: 0)


def nested(world: World) -> SumResult | None:
    """The same low rows for everybody, which kill the layer; the victim alone gets high rows that revive it."""
    dead = world.model(dead_in=0, alive_in=None)
    return world.play(dead, aimed={"large-01": world.model(dead_in=0, alive_in=2)})


@PROFILES
@UPLOADS
def test_rows_aimed_at_one_client_open_its_low_bands_where_bands_are_bound_alone(
    monkeypatch: pytest.MonkeyPatch, profile: str, upload: str
) -> None:
    """The attack is real: with bands bound to their own rows, the low band opens to the victim's integers."""
    believe_anything(monkeypatch)
    bind_bands_alone(monkeypatch)
    count_all_ranks_together(monkeypatch)
    world = World(masking={"profile": profile}, upload=upload, lora={"rest": "dropped"})

    result = nested(world)

    assert world.isolated(result, "large-01") == [0]


@PROFILES
@UPLOADS
@pytest.mark.parametrize("rest", ["folded", "dropped"])
def test_one_root_for_all_bands_keeps_them_closed(
    monkeypatch: pytest.MonkeyPatch, profile: str, upload: str, rest: str
) -> None:
    """Even clients that believe any model share no masks with one that has other rows, in any band."""
    believe_anything(monkeypatch)
    count_all_ranks_together(monkeypatch)
    world = World(masking={"profile": profile}, upload=upload, lora={"rest": rest})

    result = nested(world)

    assert result is not None
    assert sorted(result.refused) == [0, 1]
    assert world.isolated(result, "large-01") == []


@PROFILES
def test_with_groups_a_model_of_ones_own_closes_ones_group(
    monkeypatch: pytest.MonkeyPatch, profile: str
) -> None:
    """The victim's group, bound to the root over all rows like every other, stays closed."""
    believe_anything(monkeypatch)
    tiers = {"small": {"rank": 2, "clients": 9}, "large": {"rank": 4, "clients": 9}}
    world = World(masking={"profile": profile}, tiers=tiers, robustness={"f": 1, "group_size": 3})

    dead, cured = world.model(dead_in=0, alive_in=None), world.model(dead_in=0, alive_in=2)
    result = world.play(dead, aimed={"large-01": cured})

    assert result is not None
    hers = [part.index for part in world.session.segments if "large-01" in part.members]
    assert sorted(result.refused) == hers
    assert world.isolated(result, "large-01") == []


# One and the same model for everybody, and the other clients of the victim's rank declared dropped.

Case = tuple[ClientId, tuple[ClientId, ...], Callable[[World], Adapter]]
CASES: dict[str, Case] = {
    "alive above": ("large-01", LARGE[1:], lambda world: world.model(dead_in=0, alive_in=2)),
    "dead above": ("small-01", SMALL[1:], lambda world: world.model(dead_in=2, alive_in=None)),
}
EVERY_CASE = pytest.mark.parametrize("case", list(CASES))


@PROFILES
@UPLOADS
@EVERY_CASE
def test_one_model_isolates_a_client_where_others_see_another_function(
    monkeypatch: pytest.MonkeyPatch, profile: str, upload: str, case: str
) -> None:
    """The attack is real: low ranks drop what revives or kills the layer above, and no binding can notice."""
    believe_anything(monkeypatch)
    count_all_ranks_together(monkeypatch)
    victim, others, build = CASES[case]
    tiers = {"small": {"rank": 2, "clients": 7}, "large": {"rank": 4, "clients": 4}}
    if case == "dead above":
        tiers = {"small": {"rank": 2, "clients": 3}, "large": {"rank": 4, "clients": 8}}
    world = World(masking={"profile": profile}, upload=upload, lora={"rest": "dropped"}, tiers=tiers)

    result = world.play(build(world), drop=others)

    assert world.isolated(result, victim) == [0]


@MALICIOUS
@UPLOADS
@EVERY_CASE
def test_classes_of_view_keep_such_a_sum_closed(
    monkeypatch: pytest.MonkeyPatch, profile: str, upload: str, case: str
) -> None:
    """Clients that believe the model are left out with the rest of their class, whose members are too few."""
    believe_anything(monkeypatch)
    victim, others, build = CASES[case]
    tiers = {"small": {"rank": 2, "clients": 9}, "large": {"rank": 4, "clients": 4}}
    if case == "dead above":
        tiers = {"small": {"rank": 2, "clients": 3}, "large": {"rank": 4, "clients": 12}}
    world = World(masking={"profile": profile}, upload=upload, lora={"rest": "dropped"}, tiers=tiers)

    result = world.play(build(world), drop=others)

    assert result is not None
    assert victim not in result.survivors
    assert world.isolated(result, victim) == []


@PROFILES
@UPLOADS
@EVERY_CASE
def test_folded_clients_compute_from_one_function(
    monkeypatch: pytest.MonkeyPatch, profile: str, upload: str, case: str
) -> None:
    """Clients that fold in what is beyond their rank are all alive or all dead: the sum is nobody's alone."""
    believe_anything(monkeypatch)
    victim, others, build = CASES[case]
    tiers = {"small": {"rank": 2, "clients": 7}, "large": {"rank": 4, "clients": 4}}
    if case == "dead above":
        tiers = {"small": {"rank": 2, "clients": 3}, "large": {"rank": 4, "clients": 8}}
    world = World(masking={"profile": profile}, upload=upload, tiers=tiers)

    result = world.play(build(world), drop=others)

    assert result is not None
    alive = {name: bool(np.abs(change[:2]).max() > 0) for name, change in world.changes.items()}
    assert set(alive.values()) == {case == "alive above"}
    assert world.isolated(result, victim) == []


@PROFILES
@EVERY_CASE
@pytest.mark.parametrize("rest", ["folded", "dropped"])
def test_no_such_model_is_ever_trained_on(profile: str, case: str, rest: str) -> None:
    """The adapter of round 1 follows from the seed: participants refuse any other, and nothing opens."""
    victim, others, build = CASES[case]
    world = World(masking={"profile": profile}, lora={"rest": rest})

    result = world.play(build(world), drop=others)

    assert world.isolated(result, victim) == []
    assert world.changes == {}
    assert set(world.talk.refusals) == set(world.plan.ranks) - set(others)


def test_a_forged_digest_of_rows_that_low_ranks_cannot_check_opens_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Low ranks can be told any digest of higher bands; then their root is another one than those clients'."""
    believe_anything(monkeypatch)
    count_all_ranks_together(monkeypatch)
    world = World(masking={"profile": "one-answer"}, lora={"rest": "dropped"})
    honest, other = world.model(dead_in=None, alive_in=None), world.model(dead_in=2, alive_in=None)

    result = world.play(honest, aimed=dict.fromkeys(SMALL, other))

    assert result is not None
    assert sorted(result.refused) == [0]
