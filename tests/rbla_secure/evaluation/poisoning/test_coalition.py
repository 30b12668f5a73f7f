"""Members of a coalition share what they have, of unequal ranks too, and nothing that they have not."""

from collections.abc import Mapping

import numpy as np
import pytest

from rbla_secure.config.choices import Rest
from rbla_secure.errors import UpdateError
from rbla_secure.evaluation.poisoning.coalition import Coalition
from rbla_secure.evaluation.poisoning.knowledge import FederationFacts, Member, Strength
from rbla_secure.evaluation.poisoning.registry import BACKDOORS, AttackName
from rbla_secure.lora.adapter import Adapter, AdapterLayout, LinearShape
from rbla_secure.lora.update import ClientUpdate
from rbla_secure.privacy.clipping import clip
from rbla_secure.tasks.datasets import LabelledImages
from tests.support.federations import make_plan, make_session

LAYOUT = AdapterLayout(layers=(LinearShape(name="layer", in_features=784, out_features=10),), scaling=2.0)
START = Adapter.initial(LAYOUT, rank=4, seed=0)
RANKS = {"a": 2, "b": 4, "c": 4}
CLIP = 0.5
SESSION = make_session(make_plan())


def examples(seed: int) -> LabelledImages:
    generator = np.random.default_rng(seed)
    return LabelledImages(
        images=generator.random((6, 784), dtype=np.float32) / 2,
        labels=generator.integers(1, 10, size=6),
    )


MEMBERS = {
    name: Member(rank=rank, examples=examples(seed)) for seed, (name, rank) in enumerate(RANKS.items())
}


class Trainer:
    """Moves every row by the mean image, and by a tenth of the mean label where the image has no values."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, adapter: Adapter, data: LabelledImages, seed: int) -> np.ndarray:
        self.calls += 1
        mean = np.append(data.images.mean(axis=0), np.full(10, data.labels.mean() / 10))
        jitter = np.random.default_rng(seed).standard_normal(mean.shape) / 1000
        return (adapter.rows + 0.01 * (mean + jitter)).astype(np.float32)


def accept_all(changes: Mapping[str, np.ndarray]) -> dict[str, bool]:
    return dict.fromkeys(changes, True)


def coalition(attack: AttackName, trainer: Trainer | None = None, **changes: object) -> Coalition:
    settings = {
        "members": MEMBERS,
        "federation": FederationFacts(clients=12, clip_norm=CLIP, captured_from=1),
        "train": trainer or Trainer(),
        "accepts": accept_all,
        **changes,
    }
    return Coalition(attack, **settings)  # type: ignore[arg-type]


def sent(who: Coalition, adapter: Adapter = START, *, seed: int = 7) -> dict[str, np.ndarray]:
    """What all members send in one round, asked from the smallest rank up."""
    who.before_round(SESSION, adapter)
    found = {}
    for name, rank in RANKS.items():
        own = adapter.sliced(rank)
        found[name] = who.train_of(name)(own, seed + len(name)).astype(np.float64) - own.rows
    return found


@pytest.mark.parametrize("attack", list(AttackName))
def test_every_attack_is_a_local_training(attack: AttackName) -> None:
    """Rows of the member's own shape, finite, float32, the same for the same request, and passable by a client's clip."""
    who = coalition(attack)
    who.before_round(SESSION, START)

    for name, rank in RANKS.items():
        rows = who.train_of(name)(START.sliced(rank), 7)

        assert rows.shape == (rank, LAYOUT.row_length)
        assert rows.dtype == np.float32
        assert rows.tobytes() == who.train_of(name)(START.sliced(rank), 7).tobytes()
        change = rows.astype(np.float64) - START.rows[:rank]
        clip(ClientUpdate(rows=change, weight=1.0), clip_norm=CLIP)


def test_no_attack_is_honest_training() -> None:
    """With the client's own seed, to the bit."""
    rows = coalition(AttackName.NONE).train_of("b")(START, 7)

    assert rows.tobytes() == Trainer()(START, MEMBERS["b"].examples, 7).tobytes()


def test_statistics_go_over_the_members_that_hold_a_row() -> None:
    """IPM at epsilon 1: rows 1-2 against the mean of all three, rows 3-4 against that of the two that have them."""
    crafted = sent(coalition(AttackName.IPM))
    flipped = sent(coalition(AttackName.SIGN_FLIP))

    three = np.mean([flipped[name][:2] for name in "abc"], axis=0)
    two = np.mean([flipped[name][2:] for name in "bc"], axis=0)
    np.testing.assert_allclose(crafted["a"], three, atol=1e-7)
    np.testing.assert_allclose(crafted["b"], np.concatenate([three, two]), atol=1e-7)
    np.testing.assert_array_equal(crafted["b"], crafted["c"])


def test_a_round_is_crafted_once() -> None:
    """Three members are trained when the first is asked; another adapter or another seed is another round."""
    trainer = Trainer()
    who = coalition(AttackName.IPM, trainer)

    sent(who)
    sent(who)
    assert trainer.calls == 3

    sent(who, seed=8)
    assert trainer.calls == 6, "the same adapter with another seed: the round before was aborted"
    sent(who, Adapter(layout=LAYOUT, rows=START.rows + np.float32(1)), seed=8)
    assert trainer.calls == 9


@pytest.mark.parametrize("attack", list(AttackName))
def test_where_rows_are_folded_members_train_from_the_whole_function(attack: AttackName) -> None:
    """Whoever is asked first, all rows are known; a member trains at its own rank with the others as the rest."""
    trainer = Trainer()

    def train(adapter: Adapter, data: LabelledImages, seed: int) -> np.ndarray:
        np.testing.assert_array_equal(adapter.whole().rows[adapter.rank :], START.rows[adapter.rank :])
        assert (adapter.rest is None) == (adapter.rank == START.rank)
        assert adapter.rank in RANKS.values()
        return trainer(adapter, data, seed)

    federation = FederationFacts(clients=12, clip_norm=CLIP, captured_from=1, rest=Rest.FOLDED)
    who = coalition(attack, train=train, federation=federation)

    asked = {name: who.train_of(name)(START.folded(rank), 7) for name, rank in RANKS.items()}

    assert {name: rows.shape[0] for name, rows in asked.items()} == RANKS
    observed = coalition(attack, federation=federation)
    observed.before_round(SESSION, START)
    for name, rank in RANKS.items():
        assert observed.train_of(name)(START.folded(rank), 7).tobytes() == asked[name].tobytes()


def test_where_rows_are_folded_the_first_that_is_asked_knows_them_all() -> None:
    """Three members are trained once, at their own ranks: nobody makes more rows known later."""
    trainer = Trainer()
    federation = FederationFacts(clients=12, clip_norm=CLIP, captured_from=1, rest=Rest.FOLDED)
    who = coalition(AttackName.SIGN_FLIP, trainer, federation=federation)

    for name, rank in RANKS.items():
        assert who.train_of(name)(START.folded(rank), 1).shape == (rank, LAYOUT.row_length)

    assert trainer.calls == 3


def test_without_the_global_adapter_a_larger_member_makes_the_rest_known() -> None:
    """The first knows two rows, the second four: it has the coalition craft again."""
    trainer = Trainer()
    who = coalition(AttackName.SIGN_FLIP, trainer)

    assert who.train_of("a")(START.sliced(2), 1).shape == (2, LAYOUT.row_length)
    assert who.train_of("b")(START, 1).shape == (4, LAYOUT.row_length)
    assert who.train_of("c")(START, 1).shape == (4, LAYOUT.row_length)
    assert trainer.calls == 6


def test_colluders_see_others_only_if_they_are_granted_them() -> None:
    """And only attacks whose papers assume it are."""
    asked = []

    def others(adapter: Adapter, seed: int) -> dict[str, np.ndarray]:
        asked.append((adapter.rank, seed))
        # A member's own change is not taken from here.
        return {"a": np.full((2, LAYOUT.row_length), 1e6), "z": np.full((4, LAYOUT.row_length), 9.0)}

    own = sent(coalition(AttackName.IPM))
    granted = sent(coalition(AttackName.IPM, others=others))
    sent(coalition(AttackName.SIGN_FLIP, others=others))

    assert asked == [(4, 8)]
    np.testing.assert_allclose(granted["b"][2:], (2 * own["b"][2:] - 9.0) / 3, rtol=1e-5)
    np.testing.assert_allclose(granted["a"], (3 * own["a"] - 9.0) / 4, rtol=1e-5)


def test_a_free_rider_sends_the_last_step() -> None:
    """Nothing in the first round; then what the global adapter moved by."""
    who = coalition(AttackName.FREE_RIDER, strength=Strength(free_rider=0.0))
    moved = Adapter(layout=LAYOUT, rows=START.rows + np.float32(0.25))

    assert not sent(who)["b"].any()
    np.testing.assert_allclose(sent(who, moved)["a"], 0.25, atol=1e-6)


def test_model_replacement_is_n_over_f_and_dies_at_the_clip() -> None:
    """Four times the backdoor change of twelve clients and three attackers; after the clip, the clip norm."""
    long = sent(coalition(AttackName.SCALING))["b"]
    short = sent(coalition(AttackName.SCALING, federation=FederationFacts(clients=6000, clip_norm=CLIP)))["b"]

    np.testing.assert_allclose(long / 4, short / 2000, atol=1e-4)
    clipped = clip(ClientUpdate(rows=short, weight=1.0), clip_norm=CLIP)
    assert np.linalg.norm(clipped.rows) == pytest.approx(CLIP)


@pytest.mark.parametrize(
    "attack", [AttackName.RANK_INFLATION, AttackName.SOLE_OWNER, AttackName.ROW_STUFFING]
)
def test_attacks_on_rank_rows_use_the_whole_clip_norm(attack: AttackName) -> None:
    """No more and no less; a sole owner only in the rows that it owns."""
    for change in sent(coalition(attack)).values():
        assert np.linalg.norm(change) == pytest.approx(CLIP, rel=1e-5)
        if attack is AttackName.SOLE_OWNER:
            assert not change[0].any()


def test_backdoors_train_on_triggers_and_the_distributed_one_on_quarters() -> None:
    """Half of six examples, in the corner; each attacker of a DBA has another quarter."""
    seen: dict[AttackName, list[LabelledImages]] = {}
    for attack in BACKDOORS:

        def train(adapter: Adapter, data: LabelledImages, _: int, attack: AttackName = attack) -> np.ndarray:
            seen.setdefault(attack, []).append(data)
            return adapter.rows + np.float32(0.01)

        sent(coalition(attack, train=train))

    def white(data: LabelledImages) -> list[int]:
        """How many pixels of each poisoned image are white."""
        return [int((image == 1).sum()) for image in data.images[data.labels == 0]]

    for attack in BACKDOORS - {AttackName.DBA}:
        poisoned = [white(data) for data in seen[attack] if (data.labels == 0).any()]
        assert poisoned
        assert all(pixels == [16] * 3 for pixels in poisoned)
    quarters = [set(np.flatnonzero((data.images == 1).any(axis=0))) for data in seen[AttackName.DBA]]
    assert [len(quarter) for quarter in quarters] == [4] * 3
    assert len(set.union(*quarters)) == 12


def test_labels_are_flipped_for_training_only() -> None:
    """Class y is called 9 - y."""
    labels = []

    def train(adapter: Adapter, data: LabelledImages, _: int) -> np.ndarray:
        labels.append(data.labels)
        return adapter.rows

    coalition(AttackName.LABEL_FLIP, train=train).train_of("a")(START.sliced(2), 1)

    np.testing.assert_array_equal(labels[0], 9 - MEMBERS["a"].examples.labels)


def test_the_adaptive_coalition_asks_the_rule_about_a_whole_round() -> None:
    """Three crafted changes beside nine stand-ins; it keeps within what the rule lets pass."""
    sizes = set()

    def accepts(changes: Mapping[str, np.ndarray]) -> dict[str, bool]:
        sizes.add(len(changes))
        # The trigger's pixels move more under the backdoor: the rule looks at the last of them.
        return {name: bool(change[0, 783] < 0.0045) for name, change in changes.items()}

    disguised = sent(coalition(AttackName.ADAPTIVE, accepts=accepts))
    free = sent(coalition(AttackName.ADAPTIVE))

    assert sizes == {12}
    assert all(change[0, 783] < 0.0045 for change in disguised.values())
    assert max(change[0, 783] for change in free.values()) > 0.0055
    assert max(change[0, 783] for change in disguised.values()) > 0.0044


def test_what_a_coalition_refuses() -> None:
    """No members, no rule to adapt to, no rows of its own, a stranger."""
    with pytest.raises(UpdateError, match="at least one member"):
        coalition(AttackName.IPM, members={})
    with pytest.raises(UpdateError, match="needs the rule"):
        coalition(AttackName.ADAPTIVE, accepts=None)
    with pytest.raises(UpdateError, match="captured_from=2"):
        coalition(
            AttackName.SOLE_OWNER, federation=FederationFacts(clients=12, clip_norm=CLIP, captured_from=2)
        )
    with pytest.raises(KeyError):
        coalition(AttackName.IPM).train_of("stranger")
