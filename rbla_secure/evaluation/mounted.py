"""Whether the attack of a round took place. What was refused was not withstood: it was not tried."""

from collections.abc import Callable, Collection

from protocols.errors import ScreeningError
from protocols.session import ClientId
from rbla_secure.errors import EvaluationError
from rbla_secure.federation.round import RoundOutcome


def mounted(
    outcome: RoundOutcome,
    number: int,
    attackers: Collection[ClientId],
    honest: Collection[ClientId],
    silenced: Callable[[ClientId, int], bool],
) -> frozenset[ClientId]:
    """The attackers whose updates reached a round's sum, or the defence that judges before it.

    An attacker that raises, or that client or server refuses, looks in the outcome like one that dropped out, and a round
    without attackers looks like one that a defence has won. So every attacker of the round must have been summed, but for
    those that an injected drop-out silenced and those that a screening of encrypted updates judged and turned away. What an
    attacker was refused for in the same words as an honest client of the round is none of its own either (where attackers have
    driven the adapter to infinity, nobody's training is finite any more): it is not counted, and :func:`check_each_seen` asks at
    the end whether that is all that became of it.

    Args:
        outcome: Of the round.
        number: Of the round.
        attackers: Of its cohort.
        honest: The others of it.
        silenced: Whether a drop-out that the run injects silences a client in a round.

    Raises:
        EvaluationError: One of them was not: nothing that follows may be scored.
    """
    expected = set(attackers)
    screened = {
        name for name in expected if outcome.refusals.get(name, "").startswith(ScreeningError.__name__)
    }
    reached = expected.intersection(outcome.survivors) | screened
    common = {outcome.refusals[name] for name in honest if name in outcome.refusals}
    shared = {name for name in expected if outcome.refusals.get(name) in common}
    if refused := sorted((expected & outcome.refusals.keys()) - reached - shared):
        raise EvaluationError(
            f"round {number}: attacker {refused[0]} was refused ({outcome.refusals[refused[0]]}): its attack did not happen"
        )
    if outcome.aborted:
        return frozenset()
    if lost := sorted(name for name in expected - reached - shared if not silenced(name, number)):
        raise EvaluationError(
            f"round {number}: nothing of attacker {lost[0]} was summed, and no injected drop-out silenced it: "
            "its attack did not happen"
        )
    return frozenset(reached)


def check_each_seen(refused: Collection[ClientId], seen: Collection[ClientId], *, rounds: int) -> None:
    """Refuse to score a run in which an attacker was refused and never seen, or in which none was seen.

    Args:
        refused: The attackers that were refused in some round, in whatever words.
        seen: Those whose updates reached the sum, or the defence before it, in some round.
        rounds: Of the run.

    Raises:
        EvaluationError: It is such a run.
    """
    if not seen:
        raise EvaluationError(
            f"no update of an attacker reached a sum in {rounds} rounds: nothing was tested"
        )
    if never := sorted(set(refused) - set(seen)):
        raise EvaluationError(
            f"attacker {never[0]} was refused and no update of it reached a sum in {rounds} rounds: its attack was not tested"
        )
