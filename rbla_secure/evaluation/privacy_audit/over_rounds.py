"""Cases of dependent rounds: noise that cancels over rounds, and clients that take part by secret draws.

The claim for such rounds is the epsilon of the ledgers after all of them, and a trial plays all of them, as a
coordinator does. Under noise that cancels, the canary takes part in every round of its schedule; under secret draws, in
the rounds for which it is drawn, anew in each trial. `views_over_rounds.py` has an observer's score of what all rounds
published.
"""

import secrets
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Final, final

from protocols.session import ClientId
from rbla_secure.config import Config
from rbla_secure.errors import BudgetError, EvaluationError
from rbla_secure.evaluation.privacy_audit.case import Case, Trial
from rbla_secure.evaluation.privacy_audit.neighbours import Neighbours, Skipped, neighbours_over_rounds
from rbla_secure.evaluation.privacy_audit.rounds import smaller_claims
from rbla_secure.evaluation.privacy_audit.small_federation import Played, Side, SmallFederation
from rbla_secure.evaluation.privacy_audit.views import Values
from rbla_secure.evaluation.privacy_audit.views_over_rounds import (
    drawn_score,
    measured_precisions,
    measured_score,
    published,
    released_score,
    server_noise,
)
from rbla_secure.planning.plan import Plan
from rbla_secure.privacy.noise import noise_kind

# Turns of a client, fewer where these would take more rounds than a trial has time for.
_TURNS: Final = 3
_MOST_ROUNDS: Final = 48
# Rounds of secret draws: the claim grows with their number, and the bounds from trials do not.
_DRAWN_ROUNDS: Final = 5
# Coordinates from which a correlation of noise is measured, for each round that it has.
_SAMPLES_A_ROUND: Final = 50
_LEAST_PILOTS: Final = 2


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Course:
    """Neighbours, and the rounds in which they are tried.

    Args:
        name: Name of the case.
        pair: The neighbours: a canary does the same in every round that it takes part in.
        rounds: Number of rounds, from the first one on.
        ended: Numbers of the rounds that end without a result.
        measured: Whether the observer uses the correlation of the noise measured in pilot rounds, instead of the one
            that the mechanism claims.
    """

    name: str
    pair: Neighbours
    rounds: int
    ended: frozenset[int] = frozenset()
    measured: bool = False

    def side(self, there: Collection[ClientId]) -> Side:
        """Return the federation with these canaries included."""
        return replace(self.pair.side(there), ended=self.ended)


@final
class CourseCase(Case):
    """Two neighbouring federations over several rounds.

    A claim is the smaller epsilon of the two federations' ledgers after such rounds that are played for it.
    """

    def __init__(self, federation: SmallFederation, course: Course) -> None:
        self._federation = federation
        self._course = course

    @property
    def gaussian(self) -> bool:
        """Whether clients take part without sampling: sampled rounds are no Gaussian mechanism."""
        return self._federation.plan.config.privacy.sample_rate == 1

    @property
    def name(self) -> str:
        """Name of the course."""
        return self._course.name

    @property
    def relation(self) -> str:
        """How the neighbours differ."""
        return self._course.pair.relation

    @property
    def delta(self) -> float:
        """The configured delta."""
        return self._federation.plan.config.privacy.delta

    @cached_property
    def _first(self) -> tuple[list[Played], list[Played]]:
        """The rounds with all canaries, and those without any."""
        return self._played(self._course.pair.canaries), self._played(())

    @cached_property
    def claims(self) -> Mapping[str, float]:
        """Epsilon by observer for whom there is a claim.

        Raises:
            BudgetError: The budget does not let one of the rounds open.
        """
        return smaller_claims(self._federation.plan, *self._first)

    def play(self) -> Sequence[Trial]:
        """Play all rounds once, each of several canaries present or not; or twice, with a single one and without."""
        canaries = list(self._course.pair.canaries)
        if len(canaries) == 1:
            return [*self._trials(canaries), *self._trials([])]
        return self._trials([canary for canary in canaries if secrets.randbits(1)])

    def _played(self, there: Collection[ClientId]) -> list[Played]:
        return self._federation.play_rounds(self._course.side(there), self._course.rounds)

    def _trials(self, there: Collection[ClientId]) -> list[Trial]:
        played = self._played(there)
        if [each.reveals for each in played] != [each.reveals for each in self._first[0 if there else 1]]:
            raise EvaluationError(
                f"{self.name}: the rounds of a trial ended otherwise than those before it, so its claim would be another one: "
                "try again"
            )
        score, sums = self._score, published(self._federation.plan, played)
        # Every reader of the adapters sees all of the server's noise in them, whether it takes part or not.
        return [
            Trial(
                there=canary in there,
                scores=dict.fromkeys(self.claims, score(played, sums, canary=canary)),
            )
            for canary in self._course.pair.canaries
        ]

    @cached_property
    def _score(self) -> Callable[..., float]:
        plan, pair = self._federation.plan, self._course.pair
        if self._course.measured:
            return partial(measured_score, plan, pair, precisions=self._precisions())
        return partial(released_score if self.gaussian else drawn_score, plan, pair)

    def _precisions(self) -> dict[int, Values]:
        """Measure the precisions, anew in a resumed audit: any fixed statistic is valid, and these hardly differ."""
        plan, rounds = self._federation.plan, self._course.rounds
        thin = plan.bands_that_open[-1]
        pilots = max(_LEAST_PILOTS, -(-_SAMPLES_A_ROUND * rounds // plan.band_length(thin)))
        return measured_precisions(plan, [self._played(()) for _ in range(pilots)])


def more_than_a_round(config: Config) -> bool:
    """Return whether the claims of client level are about dependent rounds."""
    return noise_kind(config.privacy.mechanism).takes_turns or config.privacy.sample_rate < 1


def course_cases(federation: SmallFederation) -> tuple[list[CourseCase], list[Skipped]]:
    """Return the cases that apply to a federation whose claims are about several rounds, and why others do not."""
    plan = federation.plan
    pairs, skipped = neighbours_over_rounds(plan, federation.session)
    wanted = _in_turns(plan, pairs) if plan.config.privacy.sample_rate == 1 else _drawn(plan, pairs)
    cases = []
    for course in wanted:
        case = CourseCase(federation, course)
        try:
            _ = case.claims
        except BudgetError as error:
            reason = f"the budget ends the run before such rounds open: {error}"
            skipped.append(Skipped(name=case.name, reason=reason))
        else:
            cases.append(case)
    return cases, skipped


def _in_turns(plan: Plan, pairs: Iterable[Neighbours]) -> list[Course]:
    """Return courses over a client's turns: by the claimed correlation, by the measured one, and with a failed round.

    After a round that ends without a result the matrix begins anew.
    """
    rounds = turns_and_more(plan)
    found = []
    for pair in pairs:
        chosen = _most_turns(plan, pair, rounds)
        turns = len(_turns(plan, next(iter(chosen.canaries)), rounds))
        found.append(Course(name=f"{pair.name}, {turns} of {rounds} rounds", pair=chosen, rounds=rounds))
    first, ended = found[0], 2
    found.append(replace(first, name=f"{first.name}, by the correlation measured", measured=True))
    if rounds > ended:
        name = f"{first.name}, of which round {ended} ends"
        found.append(replace(first, name=name, ended=frozenset([ended])))
    return found


def _drawn(plan: Plan, pairs: Iterable[Neighbours]) -> list[Course]:
    rounds, rate = min(plan.config.rounds, _DRAWN_ROUNDS), plan.config.privacy.sample_rate
    drawn = f"drawn with probability {rate:g}"
    found = [
        Course(
            name=f"{pair.name}, {drawn}, {rounds} round{'s' if rounds > 1 else ''}", pair=pair, rounds=rounds
        )
        for pair in pairs
    ]
    if rounds > 1:
        first = found[0].pair
        found.insert(0, Course(name=f"{first.name}, {drawn}, 1 round", pair=first, rounds=1))
    return found


def turns_and_more(plan: Plan) -> int:
    """Return a number of rounds that gives a client of the first one some turns and the whole column after the last."""
    config = plan.config
    thin = plan.bands_that_open[-1]
    apart = max(
        -(-tier.clients // (tier.cohort or tier.clients))
        for tier in config.tiers.values()
        if tier.rank >= thin.stop
    )
    width = len(server_noise(plan).column)
    more = [turns for turns in range(1, _TURNS + 1) if (turns - 1) * apart + width <= _MOST_ROUNDS]
    return min(config.rounds, (max(more, default=1) - 1) * apart + width)


def _turns(plan: Plan, client: ClientId, rounds: int) -> tuple[int, ...]:
    return tuple(number for number in range(1, rounds + 1) if client in plan.cohort(number))


def _most_turns(plan: Plan, pair: Neighbours, rounds: int) -> Neighbours:
    """Keep the canaries in the same rounds as the one with most turns, so that all trials have one distribution."""
    turns = {canary: _turns(plan, canary, rounds) for canary in pair.canaries}
    most = max(turns.values(), key=len)
    return replace(pair, canaries={each: pair.canaries[each] for each in turns if turns[each] == most})
