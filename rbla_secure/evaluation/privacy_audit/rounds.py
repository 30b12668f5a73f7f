"""Cases of client level: neighbouring federations, whole rounds."""

import math
from collections.abc import Mapping
from functools import cached_property
from typing import final

from rbla_secure.errors import BudgetError, EvaluationError
from rbla_secure.evaluation.privacy_audit.case import Case
from rbla_secure.evaluation.privacy_audit.claims import ledger_claims, smaller
from rbla_secure.evaluation.privacy_audit.neighbours import Neighbours, Skipped, neighbours
from rbla_secure.evaluation.privacy_audit.small_federation import Played, SmallFederation
from rbla_secure.evaluation.privacy_audit.views import scores
from rbla_secure.privacy.ledger import Observer


@final
class RoundCase(Case):
    """Two neighbouring federations, and the federation whose rounds they play.

    Claims are what the ledgers of both write of a round played for the purpose, and of two the smaller one; every trial must be
    over the same clients.
    """

    def __init__(self, federation: SmallFederation, pair: Neighbours) -> None:
        self._federation = federation
        self._pair = pair

    @property
    def name(self) -> str:
        """Of the neighbours."""
        return self._pair.name

    @property
    def relation(self) -> str:
        """Of the neighbours."""
        return self._pair.relation

    @property
    def delta(self) -> float:
        """The configured one."""
        return self._federation.plan.config.privacy.delta

    @cached_property
    def _first(self) -> tuple[Played, Played]:
        return self._play(there=True), self._play(there=False)

    @property
    def not_played(self) -> str:
        """Why no sum is opened in either of the federations; empty if one is."""
        return (
            ""
            if any(each.told for each in self._first)
            else f"the round ends: {self._first[0].outcome.aborted}"
        )

    @cached_property
    def all_claims(self) -> Mapping[Observer, float]:
        """By observer; infinite where nothing is claimed. Raises BudgetError where the budget lets no such round open."""
        plan, session = self._federation.plan, self._federation.session
        there, absent = (ledger_claims(plan, session, each.told) for each in self._first)
        return smaller(there, absent)

    @property
    def claims(self) -> Mapping[str, float]:
        """Of the observers against whom something is claimed."""
        return {observer.value: found for observer, found in self.all_claims.items() if math.isfinite(found)}

    def trial(self, *, there: bool) -> Mapping[str, float]:
        """One round."""
        plan, session = self._federation.plan, self._federation.session
        played = self._play(there=there)
        expected = self._first[0 if there else 1]
        if played.told != expected.told or played.outcome.aborted != expected.outcome.aborted:
            raise EvaluationError(
                f"{self.name}: a trial ended otherwise than the round before it ({played.outcome.aborted or 'not aborted'}), "
                "so its claim would be another one: try again"
            )
        found = scores(plan, session, self._pair, played)
        return {observer.value: found[observer] for observer in found}

    def _play(self, *, there: bool) -> Played:
        return self._federation.play(self._pair.with_canary if there else self._pair.without)


def round_cases(federation: SmallFederation) -> tuple[list[RoundCase], list[Skipped]]:
    """The cases that apply to a federation with noise of client level, and why others do not."""
    pairs, skipped = neighbours(federation.plan)
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
