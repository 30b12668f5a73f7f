"""A server that chooses the model, under encryption: one model for all of a session, and no class of view too small to be opened.

The attacks are those of the masking mode (`test_model_attacks.py`), against participants that believe any model: what holds here
is held by bindings and classes alone. Services run in this process.
"""

from collections.abc import Mapping

import numpy as np
import pytest

from protocols.homomorphic.parties.server import COMMIT, UPLOAD, HomomorphicServer
from protocols.homomorphic.services.calls import Roles
from protocols.homomorphic.services.charge import Charge
from protocols.homomorphic.services.messages import DecryptRequest, Setup, type_of
from protocols.homomorphic.services.services import Channel, KeyedService, LocalChannel, Worker
from protocols.identity.trust import ThrowawayAuthority
from protocols.interface import SecureSum, SumResult
from protocols.primitives.signing import SigningKey
from protocols.session import ClientId
from protocols.wire import MessageType
from rbla_secure.planning.modes import build_secure_sum
from rbla_secure.planning.modes.homomorphic import charge_of
from rbla_secure.planning.plan import Plan
from tests.protocols.homomorphic.meeting import Recorder
from tests.support import model_world
from tests.support.model_world import (
    LARGE,
    SMALL,
    World,
    believe_anything,
    bind_bands_alone,
    count_all_ranks_together,
)

NOW = 1_800_000_000
BOTH = pytest.mark.parametrize("verifier", [False, True], ids=["alone", "verified"])
UPLOADS = pytest.mark.parametrize("upload", ["banded", "padded"])
EVERYBODY = (*LARGE, *SMALL)


class EncryptedWorld:
    """Fresh services and identities for every plan that asks, in this process; what crosses to the decryptor is kept."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, verifier: bool) -> None:
        self._verifier = verifier
        self._authorities: dict[int, tuple[ThrowawayAuthority, Roles]] = {}
        self.recorder: Recorder | None = None
        monkeypatch.setattr(model_world, "client_sum", self.client_sum)
        monkeypatch.setattr(model_world, "server_sum", self.server_sum)

    def world(self, **changes: object) -> World:
        """A federation under encryption."""
        return World(
            secure_sum="homomorphic",
            homomorphic={"verifier": self._verifier, "profile": "bfv-2x20"},
            quantization={"bits": 12, "bound": 0.1},
            **changes,
        )

    def client_sum(self, plan: Plan, name: ClientId) -> SecureSum:
        """A client's side."""
        authority, _ = self._parties(plan)
        return build_secure_sum(plan, authority.view, authority.identity(name))

    def server_sum(self, plan: Plan) -> SecureSum:
        """The server's side."""
        authority, roles = self._parties(plan)
        return build_secure_sum(plan, authority.view, roles=roles)

    def decrypted(self) -> list[frozenset[int]]:
        """Over whose inputs the decryptor was asked to open sums: positions."""
        assert self.recorder is not None
        asked = [data for data in self.recorder.crossed if type_of(data) == MessageType.SERVICE_DECRYPT]
        return [frozenset(DecryptRequest.from_bytes(data).encrypted.contributors) for data in asked]

    def _parties(self, plan: Plan) -> tuple[ThrowawayAuthority, Roles]:
        if id(plan) not in self._authorities:
            self._authorities[id(plan)] = self._enrolled(plan)
        return self._authorities[id(plan)]

    def _enrolled(self, plan: Plan) -> tuple[ThrowawayAuthority, Roles]:
        charge: Charge = charge_of(plan)
        keys = {name: SigningKey.generate() for name in charge.services.names}
        authority = ThrowawayAuthority.create(
            plan.ranks, now=NOW, services={name: key.public for name, key in keys.items()}
        )
        channels: dict[str, Channel] = {}
        for name, key in keys.items():
            service = KeyedService(name, key)
            service.set_up(Setup(charge=charge, trust=authority.view))
            channels[name] = LocalChannel(service)
        self.recorder = Recorder(channels[charge.services.decryptor])
        roles = Roles(
            decryptor=self.recorder,
            worker=LocalChannel(Worker()),
            verifier=channels.get(charge.services.verifier),
        )
        return authority, roles


def nested(world: World) -> SumResult | None:
    """The same low rows for everybody, which kill the layer; one client alone gets high rows that revive it."""
    dead = world.model(dead_in=0, alive_in=None)
    return world.play(dead, aimed={"large-01": world.model(dead_in=0, alive_in=2)})


@BOTH
@UPLOADS
@pytest.mark.parametrize("rest", ["folded", "dropped"])
def test_a_client_that_was_sent_other_rows_is_left_out_and_the_bands_of_the_others_open(
    monkeypatch: pytest.MonkeyPatch,
    verifier: bool,  # noqa: FBT001
    rest: str,
    upload: str,
) -> None:
    """It is refused when it commits, before any ciphertext is sent; whoever else is there is summed."""
    believe_anything(monkeypatch)
    world = EncryptedWorld(monkeypatch, verifier=verifier).world(lora={"rest": rest}, upload=upload)

    result = nested(world)

    assert result is not None
    assert set(EVERYBODY) - set(result.survivors) == {"large-01"}
    assert world.talk.refusals["large-01"].startswith("InputError: large-01: was bound to another model")
    assert 0 in result.sums
    assert world.isolated(result, "large-01") == []


@BOTH
@UPLOADS
def test_where_bands_are_bound_alone_its_low_bands_open(
    monkeypatch: pytest.MonkeyPatch,
    verifier: bool,  # noqa: FBT001
    upload: str,
) -> None:
    """The control: parties that bind nothing to the model sum it with the dead updates of all others."""
    believe_anything(monkeypatch)
    bind_bands_alone(monkeypatch)
    monkeypatch.setattr(HomomorphicServer, "expect", lambda *_arguments: None)

    def one(session: object, _digests: tuple[bytes, ...]) -> Mapping[int, bytes]:
        return {segment.index: bytes(32) for segment in session.segments}  # type: ignore[attr-defined]

    for module in (model_world.participants, model_world.session_servers):
        monkeypatch.setattr(module, "model_bindings", one)
    monkeypatch.setattr("protocols.homomorphic.checks.NO_BINDING", b"")
    world = EncryptedWorld(monkeypatch, verifier=verifier).world(lora={"rest": "folded"}, upload=upload)

    result = nested(world)

    assert 0 in world.isolated(result, "large-01")


def attacked(world: World, stage: str) -> SumResult | None:
    """One model for everybody, dead for low ranks and alive above, and all other clients of high rank said to be silent."""
    return world.play(world.model(dead_in=0, alive_in=2), drop=LARGE[1:], drop_at=stage)


TIERS = {"small": {"rank": 2, "clients": 9}, "large": {"rank": 4, "clients": 4}}
STAGE = pytest.mark.parametrize("stage", [COMMIT, UPLOAD])


@BOTH
@STAGE
@UPLOADS
def test_classes_of_view_keep_such_a_sum_closed(
    monkeypatch: pytest.MonkeyPatch,
    verifier: bool,  # noqa: FBT001
    stage: str,
    upload: str,
) -> None:
    """The only client of its class is left out, before the list is fixed or after; nothing over it is ever decrypted."""
    believe_anything(monkeypatch)
    encrypted = EncryptedWorld(monkeypatch, verifier=verifier)
    world = encrypted.world(lora={"rest": "dropped"}, tiers=TIERS, upload=upload)

    result = attacked(world, stage)

    assert result is not None
    assert not set(LARGE) & set(result.survivors)
    small = {position for position, rank in enumerate(world.session.ranks, start=1) if rank == 2}
    assert encrypted.decrypted() == [small]
    assert world.isolated(result, "large-01") == []


@BOTH
@STAGE
@UPLOADS
def test_without_classes_such_a_sum_shows_one_client(
    monkeypatch: pytest.MonkeyPatch,
    verifier: bool,  # noqa: FBT001
    stage: str,
    upload: str,
) -> None:
    """The control: counted together with the dead updates of the low ranks, its update is what opens."""
    believe_anything(monkeypatch)
    count_all_ranks_together(monkeypatch)
    encrypted = EncryptedWorld(monkeypatch, verifier=verifier)
    world = encrypted.world(lora={"rest": "dropped"}, tiers=TIERS, upload=upload)

    result = attacked(world, stage)

    assert 0 in world.isolated(result, "large-01")


@BOTH
@STAGE
@UPLOADS
@pytest.mark.parametrize("rest", ["dropped", "folded"])
def test_folded_clients_compute_from_one_function(
    monkeypatch: pytest.MonkeyPatch,
    verifier: bool,  # noqa: FBT001
    stage: str,
    upload: str,
    rest: str,
) -> None:
    """All are alive on such a model, and the sum is nobody's alone; the control are clients that drop the rest: most are dead."""
    believe_anything(monkeypatch)
    count_all_ranks_together(monkeypatch)  # so that folding alone is what differs
    encrypted = EncryptedWorld(monkeypatch, verifier=verifier)
    world = encrypted.world(lora={"rest": rest}, tiers=TIERS, upload=upload)

    result = attacked(world, stage)

    assert result is not None
    moved = {name for name, change in world.changes.items() if np.abs(change[:2]).max() > 0}
    assert moved == (set(world.plan.ranks) if rest == "folded" else set(LARGE))
    assert world.isolated(result, "large-01") == ([] if rest == "folded" else [0])


@BOTH
def test_the_plan_tells_its_services_the_class_quorum(
    monkeypatch: pytest.MonkeyPatch,
    verifier: bool,  # noqa: FBT001
) -> None:
    """What a session must ask for is in the charge that operators set up, not only in what the aggregator sends."""
    encrypted = EncryptedWorld(monkeypatch, verifier=verifier)

    dropped = charge_of(encrypted.world(lora={"rest": "dropped"}, tiers=TIERS).plan)
    folded = charge_of(encrypted.world(lora={"rest": "folded"}, tiers=TIERS).plan)

    assert (dropped.class_quorum, folded.class_quorum) == (3, 0)
