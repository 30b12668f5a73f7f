"""A server that chooses the model: everybody's update but one is zero, and the sum is what is left.

The model is real here, a perceptron, and so is its training: a rank row kills the second hidden layer (no gradient reaches any
row of any layer), and another row of another band revives it. Each attack is first shown to work against participants
that lack the check in question, and then to fail against ours.
"""

from collections.abc import Callable

import numpy as np
import pytest

from protocols.interface import SumResult
from protocols.session import ClientId
from rbla_secure.lora.adapter import Adapter
from tests.support.model_world import (
    LARGE,
    SMALL,
    World,
    believe_anything,
    bind_bands_alone,
    count_all_ranks_together,
)

PROFILES = pytest.mark.parametrize("profile", ["semi-honest", "one-answer", "consistency"])
MALICIOUS = pytest.mark.parametrize("profile", ["one-answer", "consistency"])
UPLOADS = pytest.mark.parametrize("upload", ["banded", "padded"])


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
