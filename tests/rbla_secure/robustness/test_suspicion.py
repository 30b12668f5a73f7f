"""Group testing over rounds: attackers come to the top of the ranking, and the past fades."""

import numpy as np
import pytest

from rbla_secure.errors import RobustnessError
from rbla_secure.robustness.grouping import Group, draw_groups
from rbla_secure.robustness.suspicion import Suspicion
from tests.support.filtered import names

PAIR = (Group(name="a", rank=2, members=("x", "y")), Group(name="b", rank=2, members=("z",)))


def after_rounds(count: int, *, detection: float, false_alarm: float) -> Suspicion:
    """Forty clients, the first eight attackers, fresh groups of three; group verdicts are right with these rates."""
    clients = names(40)
    attackers = set(clients[:8])
    generator = np.random.default_rng(1)
    state = Suspicion()
    for number in range(count):
        groups = draw_groups(dict.fromkeys(clients, 2), group_size=3, seed=number.to_bytes(32, "big"))
        flags = {
            group.name: float(
                generator.random() < (detection if attackers & set(group.members) else false_alarm)
            )
            for group in groups
        }
        state = state.observe(groups, flags)
    return state


def test_attackers_come_to_the_top() -> None:
    """With the detection rate measured for groups of three (0.74 at 5 % false alarms)."""
    top = [line.client for line in after_rounds(25, detection=0.74, false_alarm=0.05).ranking()[:8]]

    assert len(set(top) & set(names(8))) >= 6


def test_verdicts_that_know_nothing_rank_nobody() -> None:
    top = [line.client for line in after_rounds(25, detection=0.3, false_alarm=0.3).ranking()[:8]]

    assert len(set(top) & set(names(8))) <= 4


def test_one_round_by_hand() -> None:
    """Flagged once in one round, overall 2 of 3: (1 + 2 * 2/3) / (1 + 2) and (0 + 2 * 2/3) / (1 + 2)."""
    ranking = Suspicion().observe(PAIR, {"a": 1.0, "b": 0.0}).ranking()

    assert [line.client for line in ranking] == ["x", "y", "z"]
    assert [line.suspicion for line in ranking] == pytest.approx([7 / 9, 7 / 9, 4 / 9])
    assert [line.rounds for line in ranking] == [1.0, 1.0, 1.0]


def test_the_past_fades_and_absent_clients_stay_as_they_are() -> None:
    state = Suspicion(decay=0.5).observe(PAIR, {"a": 1.0, "b": 1.0})

    later = state.observe(PAIR, {"a": 0.0})

    assert (later.records["x"].flagged, later.records["x"].rounds) == (0.5, 1.5)
    assert later.records["z"] == state.records["z"]
    assert state.records["x"].rounds == 1.0, "a state is never changed"


def test_nobody_seen_is_nobody_ranked() -> None:
    assert Suspicion().ranking() == ()


@pytest.mark.parametrize("decay", [0.0, 1.1, float("nan")])
def test_a_decay_without_meaning_is_refused(decay: float) -> None:
    with pytest.raises(RobustnessError, match="decay"):
        Suspicion(decay=decay)


@pytest.mark.parametrize("flags", [{"c": 1.0}, {"a": 1.5}, {"a": float("nan")}])
def test_flags_without_meaning_are_refused(flags: dict[str, float]) -> None:
    with pytest.raises(RobustnessError):
        Suspicion().observe(PAIR, flags)
