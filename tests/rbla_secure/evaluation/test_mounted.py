"""An attacker that is refused, or falls silent, is no attack that was withstood."""

from typing import Any

import pytest

from rbla_secure.errors import EvaluationError
from rbla_secure.evaluation.mounted import check_each_seen, mounted
from rbla_secure.federation.round import RoundOutcome
from tests.support.federations import make_adapter, make_plan

ADAPTER = make_adapter(make_plan())


def outcome(survivors: tuple[str, ...] = ("a", "b", "honest"), **changes: Any) -> RoundOutcome:
    return RoundOutcome(adapter=ADAPTER, survivors=survivors, **changes)


def seen(found: RoundOutcome, *, gone: tuple[str, ...] = (), **known: Any) -> int:
    def silenced(client: str, number: int) -> bool:
        return number == 3 and client in gone

    return len(mounted(found, 3, ("a", "b"), ("honest", "other"), silenced, **known))


def test_attackers_that_were_summed_are_counted() -> None:
    """Whatever they refuse afterwards."""
    assert seen(outcome()) == 2
    assert seen(outcome(refusals={"b": "RefusalError: late"})) == 2


def test_an_injected_drop_out_is_no_failure_of_the_evaluation() -> None:
    assert seen(outcome(("a", "honest")), gone=("b",)) == 1


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (
            outcome(("a", "honest"), refusals={"b": "RobustnessError: this filter needs `bound`"}),
            r"round 3: attacker b was refused \(RobustnessError: this filter needs `bound`\)",
        ),
        (outcome(("a", "honest"), dropped={"b": "upload"}), "nothing of attacker b was summed"),
        (outcome((), aborted="too few", refusals={"a": "InputError: range"}), "attacker a was refused"),
    ],
)
def test_any_other_end_of_an_attacker_is_an_error(found: RoundOutcome, message: str) -> None:
    """A refusal, a silence that nobody injected, a refusal in a round that was aborted for want of clients."""
    with pytest.raises(EvaluationError, match=message):
        seen(found)


def test_a_round_that_was_aborted_for_all_counts_nothing() -> None:
    assert seen(outcome((), aborted="too few")) == 0


def test_what_befell_an_honest_client_too_is_not_the_attackers_own() -> None:
    """In the same words: it is counted as nothing seen. In other words, or of attackers alone, it is an error."""
    dead, other = "UpdateError: the update is not finite", "RefusalError: another"
    shared = outcome(("b", "other"), refusals={"a": dead, "honest": dead})
    differing = outcome(("b", "other"), refusals={"a": other, "honest": dead})

    assert seen(shared) == 1
    assert seen(outcome((), aborted="too few", refusals=dict.fromkeys(("a", "b", "honest"), dead))) == 0
    with pytest.raises(EvaluationError, match=r"attacker a was refused \(RefusalError"):
        seen(differing)


def test_what_a_screening_turned_away_was_judged() -> None:
    """It is the defence itself that refuses there, and its verdict that counts: the name of a refusal is anybody's."""
    turned_away = outcome(("a", "honest"), refusals={"b": "ScreeningError: norm 3 exceeds 1"})

    assert seen(turned_away, screened=("b",)) == 2
    with pytest.raises(EvaluationError, match=r"attacker b was refused \(ScreeningError"):
        seen(turned_away)


def test_a_failure_that_no_answer_shows_is_one() -> None:
    """Under noise what fails is summed as no change: without the failure it is counted, with it the evaluation ends."""
    failed = {"b": "ArithmeticError: overflow"}

    assert seen(outcome()) == 2
    assert seen(outcome(), failures={"honest": "ArithmeticError: overflow"}) == 2
    assert seen(outcome(), failures={**failed, "honest": failed["b"]}) == 1
    with pytest.raises(
        EvaluationError, match=r"round 3: attacker b failed by itself \(ArithmeticError: overflow\)"
    ):
        seen(outcome(), failures=failed)
    with pytest.raises(EvaluationError, match="attacker b failed by itself"):
        seen(outcome(), failures={**failed, "honest": "ArithmeticError: another"})
    with pytest.raises(EvaluationError, match="attacker b failed by itself"):
        seen(outcome(), failures=failed, screened=("b",))


def test_an_attacker_that_was_always_refused_was_not_tested() -> None:
    """In whatever words, and whatever became of the others; one that was seen in some round was."""
    check_each_seen(refused=("b",), seen=("a", "b"), rounds=4)
    check_each_seen(refused=(), seen=("a",), rounds=4)
    with pytest.raises(
        EvaluationError,
        match="attacker b was refused or failed, and no update of it reached a sum in 4 rounds",
    ):
        check_each_seen(refused=("b",), seen=("a", "a"), rounds=4)
    with pytest.raises(EvaluationError, match="in 4 rounds: nothing was tested"):
        check_each_seen(refused=("b",), seen=(), rounds=4)
