"""Cases of client level: whole rounds of neighbouring federations."""

import math
import secrets
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import final

from protocols.session import ClientId
from rbla_secure.errors import BudgetError, EvaluationError
from rbla_secure.evaluation.privacy_audit.case import Case, Trial
from rbla_secure.evaluation.privacy_audit.claims import ledger_claims
from rbla_secure.evaluation.privacy_audit.neighbours import Neighbours, Skipped, neighbours
from rbla_secure.evaluation.privacy_audit.small_federation import Played, SmallFederation
from rbla_secure.evaluation.privacy_audit.views import scores
from rbla_secure.planning.plan import Plan


@final
class RoundCase(Case):
    """Two neighbouring federations, and the federation whose rounds they play.

    A claim is the smaller epsilon of the two federations' ledgers after a round that is played for it. Every trial must
    be over the same clients.
    """

    def __init__(self, federation: SmallFederation, pair: Neighbours) -> None:
        self._federation = federation
        self._pair = pair

    @property
    def gaussian(self) -> bool:
        """Always true: a sum of many shares is Gaussian up to the slack in the ledger's epsilon."""
        return True

    @property
    def name(self) -> str:
        """Name of the neighbours' case."""
        return self._pair.name

    @property
    def relation(self) -> str:
        """How the neighbours differ."""
        return self._pair.relation

    @property
    def delta(self) -> float:
        """The configured delta."""
        return self._federation.plan.config.privacy.delta

    @cached_property
    def _first(self) -> tuple[Played, Played]:
        """A round with all canaries, and one without any."""
        return self._federation.play(self._pair.side(self._pair.canaries)), self._federation.play(
            self._pair.side(())
        )

    @property
    def not_played(self) -> str:
        """Why neither of the federations opens a sum; empty if one does."""
        return (
            ""
            if any(each.reveals for each in self._first)
            else f"the round ends: {self._first[0].outcome.aborted}"
        )

    @cached_property
    def claims(self) -> Mapping[str, float]:
        """Epsilon by observer for whom there is a claim.

        Raises:
            BudgetError: The budget lets no such round open.
        """
        return smaller_claims(self._federation.plan, *([each] for each in self._first))

    def play(self) -> Sequence[Trial]:
        """Play one round in which each of several canaries is present or not, or two, with and without a single one."""
        canaries = list(self._pair.canaries)
        if len(canaries) == 1:
            return [*self._round(canaries), *self._round([])]
        return self._round([canary for canary in canaries if secrets.randbits(1)])

    def _round(self, there: Collection[ClientId]) -> list[Trial]:
        plan, session = self._federation.plan, self._federation.session
        played = self._federation.play(self._pair.side(there))
        expected = self._first[0 if there or not self._pair.absent else 1]
        if played.reveals != expected.reveals or played.outcome.aborted != expected.outcome.aborted:
            raise EvaluationError(
                f"{self.name}: a trial ended otherwise than the round before it ({played.outcome.aborted or 'not aborted'}), "
                "so its claim would be another one: try again"
            )
        found = []
        for canary in self._pair.canaries:
            seen = scores(plan, session, self._pair, played, canary=canary)
            found.append(Trial(there=canary in there, scores={each.value: seen[each] for each in seen}))
        return found


def smaller_claims(plan: Plan, there: Sequence[Played], absent: Sequence[Played]) -> dict[str, float]:
    """Return the smaller epsilon of two neighbours' rounds, by observer for whom there is a claim.

    Raises:
        BudgetError: The budget lets no such round open.
    """
    ours, theirs = ledger_claims(plan, there), ledger_claims(plan, absent)
    # The printed claim must hold whichever of the two neighbours is the true one.
    found = {observer: min(ours[observer], theirs[observer]) for observer in ours}
    return {observer.value: claim for observer, claim in found.items() if math.isfinite(claim)}


def round_cases(federation: SmallFederation) -> tuple[list[RoundCase], list[Skipped]]:
    """Return the cases that apply to a federation with client-level noise, and why others do not."""
    pairs, skipped = neighbours(federation.plan, federation.session)
    cases = []
    for pair in pairs:
        case = RoundCase(federation, pair)
        reason = _not_applicable(case)
        if reason:
            skipped.append(Skipped(name=pair.name, reason=reason))
        else:
            cases.append(case)
    return cases, skipped


def _not_applicable(case: RoundCase) -> str:
    if case.not_played:
        return case.not_played
    try:
        return (
            "" if case.claims else "no noise is left that is counted, and nothing is claimed of such a round"
        )
    except BudgetError as error:
        return f"the budget ends the run before such a round opens: {error}"
