"""A federation whose server lies about the model: a real perceptron, real training, and participants without a check.

A rank row kills the second hidden layer (no gradient reaches any row of any layer); another row of another band revives it.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from protocols.interface import SumResult
from protocols.session import ClientId
from rbla_secure.config.choices import RowOrder
from rbla_secure.federation.broadcast import band_digests, encode_rest
from rbla_secure.federation.client import memory
from rbla_secure.federation.client import participant as participants
from rbla_secure.federation.client.contribution import contribution
from rbla_secure.federation.client.participant import Participant
from rbla_secure.federation.exchange import Parcel
from rbla_secure.federation.messages import StageRequest
from rbla_secure.federation.round import prepare_round
from rbla_secure.federation.server import session_server as session_servers
from rbla_secure.federation.server.session_server import SessionServer, StageOfSession, exchange_stages
from rbla_secure.lora.adapter import Adapter, Rows
from rbla_secure.lora.peft_io import find_linear
from rbla_secure.planning.plan import Plan
from rbla_secure.seeding import derive_seed
from rbla_secure.tasks.base_model import base_digest, build_mlp
from rbla_secure.tasks.datasets import PIXELS, LabelledImages
from rbla_secure.tasks.training import LocalTrainer
from tests.support.federations import RUN, InMemory, make_config
from tests.support.identities import client_sum, server_sum
from tests.support.planted_promises import promise_instead

torch.set_num_threads(1)

SMALL = ("small-01", "small-02", "small-03")
LARGE = ("large-01", "large-02", "large-03", "large-04")
TIERS = {"small": {"rank": 2, "clients": 3}, "large": {"rank": 4, "clients": 4}}

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
        in_turns = config.training.rows is RowOrder.IN_TURNS
        turns = [band.stop for band in self.plan.bands] if in_turns else ()
        self.trainer = LocalTrainer(BASE, layout, config.training, turns=turns)
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
        drop_at: str = "",
    ) -> SumResult | None:
        """A round on a model, with others for some; `drop` are said to have been silent at a stage, by default that of inputs."""
        plan = self.plan
        network = InMemory(
            self.people, requests=lambda client, parcel: self._aim(aimed or {}, client, parcel)
        )
        session = plan.session(run=RUN, round_number=1, attempt=1)
        self.session, self.talk = session, SessionServer(plan, session, server_sum(plan))
        prepare_round(self.talk, network)
        deliver = network.send

        def losing(messages: Any) -> Any:
            for answer in deliver(messages):
                if answer.client not in drop or answer.parcel.stage != (drop_at or self.talk.input_stage):
                    yield answer

        network.send = losing  # type: ignore[method-assign]
        stages = self.talk.stages
        for stage in stages[stages.index(self.talk.input_stage) :]:
            broadcast = model if stage == self.talk.input_stage else None
            exchange_stages(
                network, [StageOfSession(session_server=self.talk, stage=stage, adapter=broadcast)]
            )
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
    monkeypatch.setattr(memory, "check_plausible", lambda *_arguments, **_more: None)


def clip_all_bands_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parties that shorten, round and refuse an update as a whole, also where its bands were trained in turns."""
    promise_instead(monkeypatch, bands_alone=False)


def bind_bands_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parties that bind each band to the rows up to its own end, as if higher rows did not matter to it."""

    def bindings(session: Any, digests: tuple[bytes, ...]) -> dict[int, bytes]:
        return {segment.index: digests[segment.index] for segment in session.segments}

    for module in (participants, session_servers):
        monkeypatch.setattr(module, "model_bindings", bindings)


def count_all_ranks_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans without classes of view."""
    promise_instead(monkeypatch, class_quorum=0)
