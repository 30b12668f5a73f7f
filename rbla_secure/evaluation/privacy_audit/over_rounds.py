"""Cases of rounds that belong together: noise that cancels over them, and clients that take part by secret draws.

What is claimed of such rounds is what the ledgers have after all of them, and a trial plays all of them, as a coordinator does. Under
noise that cancels the canary takes part in every round that its schedule gives it; under secret draws in those that it is drawn for, anew
in each trial. How an observer makes one number of what all rounds published: `views_over_rounds.py`.
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

# A client takes part so often, or less where that would take more rounds than a trial has time for.
_TURNS: Final = 3
_MOST_ROUNDS: Final = 48
# Rounds of secret draws: what is claimed of them grows with their number, and what trials can show does not.
_DRAWN_ROUNDS: Final = 5
# Coordinates from which a correlation of noise is measured, for each round that it has.
_SAMPLES_A_ROUND: Final = 50
_LEAST_PILOTS: Final = 2


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Course:
    """Neighbours, and the rounds in which they are tried.

    Args:
        name: Of the case.
        pair: The neighbours: a canary does the same in every round that it takes part in.
        rounds: How many, from the first one on.
        ended: Those that end without a result.
        measured: Whether the observer goes by the correlation that noise has in some rounds played for the purpose, instead of by
            the one that the mechanism claims.
    """

    name: str
    pair: Neighbours
    rounds: int
    ended: frozenset[int] = frozenset()
    measured: bool = False

    def side(self, there: Collection[ClientId]) -> Side:
        """The federation with these of the canaries."""
        return replace(self.pair.side(there), ended=self.ended)


@final
class CourseCase(Case):
    """Two neighbouring federations over several rounds.

    Claims are what the ledgers of both write of such rounds played for the purpose, and of two the smaller one.
    """

    def __init__(self, federation: SmallFederation, course: Course) -> None:
        self._federation = federation
        self._course = course

    @property
    def gaussian(self) -> bool:
        """Sampled rounds are no Gaussian mechanism."""
        return self._federation.plan.config.privacy.sample_rate == 1

    @property
    def name(self) -> str:
        """Of the course."""
        return self._course.name

    @property
    def relation(self) -> str:
        """Of the neighbours."""
        return self._course.pair.relation

    @property
    def delta(self) -> float:
        """The configured one."""
        return self._federation.plan.config.privacy.delta

    @cached_property
    def _first(self) -> tuple[list[Played], list[Played]]:
        """The rounds with all canaries, and without any."""
        return self._played(self._course.pair.canaries), self._played(())

    @cached_property
    def claims(self) -> Mapping[str, float]:
        """Of the observers against whom something is claimed.

        Raises:
            BudgetError: The budget lets one of the rounds not open.
        """
        return smaller_claims(self._federation.plan, *self._first)

    def play(self) -> Sequence[Trial]:
        """All rounds, in which each of several canaries is there or not; or with a single one, and without."""
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
        # Whoever reads the adapters faces all of the server's noise, whether it takes part itself or not.
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
        """Measured anew by whoever goes on with an audit: any fixed statistic bounds, and these differ by next to nothing."""
        plan, rounds = self._federation.plan, self._course.rounds
        thin = plan.bands_that_open[-1]
        pilots = max(_LEAST_PILOTS, -(-_SAMPLES_A_ROUND * rounds // plan.band_length(thin)))
        return measured_precisions(plan, [self._played(()) for _ in range(pilots)])


def more_than_a_round(config: Config) -> bool:
    """Whether what is claimed of clients is about rounds that belong together."""
    return noise_kind(config.privacy.mechanism).takes_turns or config.privacy.sample_rate < 1


def course_cases(federation: SmallFederation) -> tuple[list[CourseCase], list[Skipped]]:
    """The cases that apply to a federation whose claims are about several rounds, and why others do not."""
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
    """Every turn of a client, by the correlation that is claimed and by the one that is there, and with a round that ends in between.

    After such a round the matrix begins anew.
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
    """So many rounds that a client of the first one has some turns, and all of the matrix's column after the last of them."""
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
    """The canaries that take part in the same rounds as the one of them that does so most often: all trials have one law."""
    turns = {canary: _turns(plan, canary, rounds) for canary in pair.canaries}
    most = max(turns.values(), key=len)
    return replace(pair, canaries={each: pair.canaries[each] for each in turns if turns[each] == most})
