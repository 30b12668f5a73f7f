"""One attacked run, in memory: the federation's own rounds, with some of its clients controlled by attackers.

No part of the federation is replaced. Attackers are participants like the others, with another local training. Their
changes go through the honest code's clip, so the result shows what an attacker can do whose update is to be counted.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from statistics import fmean
from typing import final

from torch import nn

from protocols.interface import SecureSum
from protocols.session import RUN_ID_SIZE, ClientId, Session
from rbla_secure.config import Config
from rbla_secure.engines.in_process import Faults, InProcess
from rbla_secure.errors import PlanError
from rbla_secure.evaluation.attackers import Attackers, remembered
from rbla_secure.evaluation.mounted import ObservedSum, check_each_seen, mounted
from rbla_secure.evaluation.poisoning.placement import Placement, placement
from rbla_secure.evaluation.poisoning.registry import AttackName, TriggerName
from rbla_secure.evaluation.poisoning.triggers import triggered, whole_trigger
from rbla_secure.federation.build import Enrolment, Wiring, federation
from rbla_secure.federation.client.contribution import Contribute, contribution
from rbla_secure.federation.round import RoundOutcome
from rbla_secure.federation.server.sessions import clip_norm
from rbla_secure.federation.server.step_checks import PublicTests
from rbla_secure.lora.peft_io import find_linear
from rbla_secure.planning.noise import counts_before
from rbla_secure.planning.plan import Plan
from rbla_secure.seeding import derive_seed
from rbla_secure.stopwatch import Stopwatch
from rbla_secure.tasks.base_model import base_digest, train_base
from rbla_secure.tasks.configured_training import configured_trainer
from rbla_secure.tasks.public_examples import PublicExamples
from rbla_secure.tasks.scoring import Scorer
from rbla_secure.tasks.splits import Data, load_data

# The final accuracy of a run is the mean over this number of last rounds.
SETTLED = 5


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Result of an attacked run.

    Args:
        accuracy: Accuracy on held-out examples, mean of the last rounds, in [0, 1].
        success: Success rate of the trigger on held-out examples of other classes, likewise. Without an attack it is
            the rate of the patch by itself.
        attackers_rejected: Share of the attackers whose whole update the filter rejected, mean over rounds; None where
            no filter judges clients.
        honest_rejected: The same share of all other clients.
        rejected_by_rank: By rank, the share of its honest clients that were rejected; empty where no filter judges clients.
        bands_closed: Share of bands that stayed closed, mean over rounds.
        attacks_seen: Number of updates of attackers that reached the sum or the defence before it, over all rounds.
        strength: Share of the backdoor in what the adaptive attack sent, mean over rounds; None for other attacks.
        refused: Why the plan refuses to start such a federation; empty if it starts. The other fields mean nothing
            then.
        seconds: Processor time, in seconds.
    """

    accuracy: float
    success: float
    attackers_rejected: float | None = None
    honest_rejected: float | None = None
    rejected_by_rank: Mapping[str, float] = field(default_factory=dict)
    bands_closed: float = 0.0
    attacks_seen: int = 0
    strength: float | None = None
    refused: str = ""
    seconds: float = 0.0


@final
@dataclass(slots=True)
class Grounds:
    """Data and base model of one configuration's seed, shared by all attacks on it."""

    config: Config
    _data: Data | None = None
    _base: nn.Sequential | None = None

    def of(self, config: Config) -> tuple[Data, nn.Sequential]:
        """Return the same examples, split over the clients of another roster of the same size, and the base."""
        data = self._data = self._data or load_data(self.config)
        if self._base is None:
            self._base = train_base(data.public, seed=derive_seed(config.seed, "base"))
        return data, self._base


def attacked_run(
    config: Config,
    attack: AttackName,
    *,
    share: float,
    grounds: Grounds | None = None,
    contribute: Contribute = contribution,
    trigger: TriggerName = TriggerName.CORNER,
) -> Outcome:
    """Run a configuration with this share of its clients attacking.

    `contribute` turns an attacker's change into its upload; by default it is the honest code with its clip. `trigger`
    is used by backdoors only.

    Guarantees: every scored attack took place. An update of every attacker of a round reached the sum, or the defence
    that judges before it, unless an injected drop-out silenced it before its input. Failures are detected under noise
    too, where a failed participant counts as one without a change.

    Raises:
        EvaluationError: An attacker was refused, raised, had a change that is not finite, or fell silent for another
            reason.
        PlanError: The configuration itself is refused, or the share is out of range.
        DataError: The data set is missing.
    """
    started = time.process_time()
    placed = placement(attack, config, share=share, seed=derive_seed(config.seed, "attackers"))
    data, base = (grounds or Grounds(config)).of(placed.config)
    layout = find_linear(base, scaling=config.lora.scaling)
    try:
        plan = Plan.build(placed.config, layout=layout, base_digest=base_digest(base))
    except PlanError as error:
        if attack is AttackName.NONE:
            raise
        return Outcome(accuracy=0.0, success=0.0, refused=str(error))
    run = _Run(plan, base, data, placed=placed, attack=attack, contribute=contribute, trigger=trigger)
    return replace(run.to_the_end(), seconds=time.process_time() - started)


@final
class _Run:
    """A federation in memory, from its initial adapter to its last round."""

    def __init__(
        self,
        plan: Plan,
        base: nn.Sequential,
        data: Data,
        *,
        placed: Placement,
        attack: AttackName,
        contribute: Contribute,
        trigger: TriggerName,
    ) -> None:
        self._plan, self._placed = plan, placed
        self._public = PublicExamples(plan.config, base, plan.layout, data.public)
        self._reference = remembered(self._public.reference)
        self._attackers = Attackers(
            plan,
            configured_trainer(
                plan.config,
                base,
                plan.layout,
                noise=plan.sample_level,
                band_ends=[band.stop for band in plan.bands],
            ),
            dict(zip(plan.ranks, data.clients, strict=True)),
            placed=placed,
            attack=attack,
            contribute=contribute,
            trigger=trigger,
            reference=self._reference,
        )
        self._scorer = Scorer(base, plan.layout, data.held_out)
        self._trigger = Scorer(base, plan.layout, triggered(data.held_out, whole_trigger(trigger)))

    def to_the_end(self) -> Outcome:
        """Play all rounds and score the last ones."""
        plan, adapter = self._plan, self._plan.initial_adapter
        accuracies, successes, outcomes, seen = [], [], list[RoundOutcome](), list[ClientId]()
        attackers, refused = set(self._placed.attackers), set[ClientId]()
        with federation(self._wiring()) as built:
            for number in range(1, plan.config.rounds + 1):
                session = self._session(number, outcomes)
                outcome = built.play(session, adapter)
                seen += self._mounted(session, outcome)
                refused |= attackers & (outcome.refusals.keys() | self._attackers.failures.of.keys())
                adapter = outcome.adapter
                outcomes.append(outcome)
                if number > plan.config.rounds - SETTLED:
                    accuracies.append(self._scorer.score(adapter).accuracy)
                    successes.append(self._trigger.score(adapter).accuracy)
        if attackers:
            check_each_seen(refused, seen, rounds=plan.config.rounds)
        strengths = self._attackers.strengths
        return Outcome(
            accuracy=fmean(accuracies),
            success=fmean(successes),
            attackers_rejected=_rejected(outcomes, lambda client: client in attackers),
            honest_rejected=_rejected(outcomes, lambda client: client not in attackers),
            rejected_by_rank=self._by_rank(outcomes),
            bands_closed=fmean(len(each.refused_bands) / len(plan.bands) for each in outcomes),
            attacks_seen=len(seen),
            strength=fmean(strengths) if strengths else None,
        )

    def _wiring(self) -> Wiring:
        return Wiring(
            plan=self._plan,
            connect=self._connect,
            reference=self._reference,
            public_tests=PublicTests(accuracy=self._public.accuracy, triggers=self._public.triggers),
            observers=self._attackers.observers,
            watch=self._watch,
        )

    def _connect(self, enrolment: Enrolment) -> InProcess:
        engine = InProcess.of(enrolment, self._attackers.clients(), stopwatch=Stopwatch())
        self._faults = engine.faults
        return engine

    def _watch(self, secure_sum: SecureSum) -> SecureSum:
        self._secure_sum = ObservedSum(secure_sum)
        return self._secure_sum

    def _session(self, number: int, earlier: list[RoundOutcome]) -> Session:
        """Return the session of a round; every round has one attempt."""
        plan = self._plan
        counts = [each.unclipped for each in earlier[: counts_before(number)]]
        return plan.session(
            run=bytes(RUN_ID_SIZE), round_number=number, attempt=1, clip_norm=clip_norm(plan, counts)
        )

    def _mounted(self, session: Session, outcome: RoundOutcome) -> frozenset[ClientId]:
        """Return the attackers whose updates were seen in a round."""
        cohort = frozenset(session.members)
        attackers = cohort.intersection(self._placed.attackers)
        return mounted(
            outcome,
            session.round,
            attackers,
            cohort - attackers,
            partial(kept_from_input, self._faults),
            screened=self._secure_sum.screened_out,
            failures=self._attackers.failures.of,
        )

    def _by_rank(self, outcomes: list[RoundOutcome]) -> dict[str, float]:
        ranks, attackers = self._plan.ranks, set(self._placed.attackers)
        found = {}
        for rank in sorted(set(ranks.values())):
            members = {client for client in ranks if ranks[client] == rank} - attackers
            share = _rejected(outcomes, members.__contains__)
            if share is not None:
                found[str(rank)] = share
        return found


def kept_from_input(faults: Faults, client: ClientId, number: int) -> bool:
    """Return whether an injected drop-out silences a client in a round before its input is in the sum."""
    return faults.silent_from(client, number) <= faults.stages.index(faults.input_stage)


def _rejected(outcomes: list[RoundOutcome], counts: Callable[[ClientId], bool]) -> float | None:
    """Return the share of the judged clients among these that were not kept, mean over the rounds with verdicts."""
    shares = []
    for outcome in outcomes:
        if outcome.judged is None or outcome.judged.groups:
            continue
        verdicts = [verdict for name, verdict in outcome.judged.verdicts.items() if counts(name)]
        if verdicts:
            shares.append(fmean(not verdict.accepted for verdict in verdicts))
    return fmean(shares) if shares else None
