"""The adaptive attack finds the edge of what a rule accepts and stays within it."""

from collections.abc import Mapping

import numpy as np
import pytest

from rbla_secure.evaluation.poisoning.adaptive import Disguise, disguise, toward

HONEST = {"a": np.array([[1.0, 0.0]]), "b": np.array([[1.0, 0.0]])}
BACKDOOR = {"a": np.array([[0.0, 1.0]]), "b": np.array([[0.0, 1.0]])}
STAND_INS = {"honest-1": np.array([[5.0, 0.0]])}

Changes = Mapping[str, np.ndarray]


def found(limit: float, *, step: np.ndarray | None = None) -> Disguise:
    """Against a rule that accepts a second coordinate of at most `limit`."""

    def accepts(changes: Changes) -> dict[str, bool]:
        assert np.linalg.norm(changes["honest-1"]) == pytest.approx(1.0), "stand-ins are clipped"
        return {name: bool(change[0, 1] <= limit) for name, change in changes.items()}

    return disguise(HONEST, BACKDOOR, stand_ins=STAND_INS, step=step, accepts=accepts, clip_norm=1.0)


def test_the_largest_accepted_mixture_is_sent() -> None:
    """(1 - lambda, lambda) with lambda just below the rule's 0.3."""
    disguised = found(0.3)

    assert 0.3 - 2**-10 <= disguised.strength <= 0.3
    np.testing.assert_allclose(disguised.changes["a"], [[1 - disguised.strength, disguised.strength]])


def test_a_rule_that_accepts_anything_gets_the_whole_backdoor() -> None:
    """One that accepts nothing gets it too: there is nothing to hide, and an attack that is not mounted tests nothing."""
    for limit, accepted in ((2.0, 2), (-1.0, 0)):
        disguised = found(limit)
        assert (disguised.strength, disguised.accepted) == (1.0, accepted)
        np.testing.assert_allclose(disguised.changes["a"], BACKDOOR["a"])


def test_where_not_all_can_be_accepted_one_will_do() -> None:
    """A rule that keeps one client alone, as Krum does, is met with the strongest mixture that is kept of one."""

    def accepts(changes: Changes) -> dict[str, bool]:
        return {name: name == "b" and bool(change[0, 1] <= 0.3) for name, change in changes.items()}

    disguised = disguise(HONEST, BACKDOOR, stand_ins={}, step=None, accepts=accepts, clip_norm=1.0)

    assert disguised.strength == pytest.approx(0.3, abs=2**-10)
    assert disguised.accepted == 1


def test_one_member_refused_is_all_members_refused() -> None:
    """The weakest member decides."""

    def accepts(changes: Changes) -> dict[str, bool]:
        return {name: name != "b" or bool(change[0, 1] <= 0.1) for name, change in changes.items()}

    disguised = disguise(HONEST, BACKDOOR, stand_ins={}, step=None, accepts=accepts, clip_norm=1.0)

    assert disguised.strength == pytest.approx(0.1, abs=2**-10)


def test_spare_norm_goes_along_the_previous_step() -> None:
    """The cosine to the step rises, the norm stays within the clip, and the backdoor's part stays."""
    step = np.array([[2.0, 0.0]])

    plain, tilted = found(0.3).changes["a"], found(0.3, step=step).changes["a"]

    assert np.linalg.norm(tilted) == pytest.approx(1.0)
    assert tilted[0, 1] == pytest.approx(plain[0, 1])
    assert tilted[0, 0] / np.linalg.norm(tilted) > plain[0, 0] / np.linalg.norm(plain)


def test_toward_by_hand() -> None:
    """(0.6, 0) toward (0, 1) at norm 1 is (0.6, 0.8); a change that is long enough stays."""
    step = np.array([[0.0, 3.0]])

    np.testing.assert_allclose(toward(np.array([[0.6, 0.0]]), step, norm=1.0), [[0.6, 0.8]])
    np.testing.assert_array_equal(toward(np.array([[2.0, 0.0]]), step, norm=1.0), [[2.0, 0.0]])
    np.testing.assert_array_equal(toward(np.array([[0.6, 0.0]]), 0 * step, norm=1.0), [[0.6, 0.0]])
