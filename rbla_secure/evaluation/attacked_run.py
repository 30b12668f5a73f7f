"""One attacked run, in memory: the federation's own rounds, with some of its clients in the attackers' hands.

Nothing of the federation is replaced. Attackers are participants like the others, with another local training; what they
send goes through the honest code's clip, so that what is measured is what is left to somebody who wants to be counted.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from statistics import fmean
from typing import final

import numpy as np
from torch import nn

from protocols.clock import SYSTEM_CLOCK
from protocols.homomorphic.parties.server import HomomorphicServer
from protocols.identity.trust import ThrowawayAuthority
from protocols.interface import SecureSum, SumClient, SumServer
from protocols.session import RUN_ID_SIZE, ClientId, Session
from rbla_secure.assembly import initial_adapter, reference_of, step_checks_of, trainer_of
from rbla_secure.config import Config
from rbla_secure.config.choices import Rest
from rbla_secure.engines.in_process import Faults, InProcess
from rbla_secure.errors import PlanError
from rbla_secure.evaluation.known_defence import KnownRule
from rbla_secure.evaluation.mounted import Failures, check_each_seen, mounted
from rbla_secure.evaluation.poisoning.coalition import Coalition
from rbla_secure.evaluation.poisoning.knowledge import Federation, Member, Others
from rbla_secure.evaluation.poisoning.placement import Placement, claimed_examples, placement
from rbla_secure.evaluation.poisoning.registry import AttackName, TriggerName
from rbla_secure.evaluation.poisoning.triggers import triggered, whole_trigger
from rbla_secure.federation.client.contribution import Contribute, contribution, weight_of
from rbla_secure.federation.client.participant import Participant
from rbla_secure.federation.round import RoundOutcome, prepare_round, run_round
from rbla_secure.federation.secret_cohorts import SecretCohorts
from rbla_secure.federation.server.defence import Defence, Reference
from rbla_secure.federation.server.opened_totals import matrix_noise
from rbla_secure.federation.server.previous_step import PreviousStep
from rbla_secure.federation.server.services import HomomorphicServices
from rbla_secure.federation.server.session_server import SessionServer
from rbla_secure.federation.server.sessions import clip_norm
from rbla_secure.lora.adapter import Adapter, Rows
from rbla_secure.lora.peft_io import find_linear
from rbla_secure.lora.update import UpdateRows
from rbla_secure.planning.noise import counts_before
from rbla_secure.planning.plan import Plan
from rbla_secure.seeding import derive_seed
from rbla_secure.stopwatch import Stopwatch
from rbla_secure.tasks.base_model import base_digest, train_base
from rbla_secure.tasks.scoring import Scorer
from rbla_secure.tasks.splits import Data, load_data

# What a run has settled on: the mean over so many last rounds.
SETTLED = 5


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What an attacked run came to.

    Args:
        accuracy: On held-out examples, mean of the last rounds.
        success: Of the trigger on held-out examples of other classes, likewise. Without an attack it is what the patch does
            by itself.
        attackers_rejected: Share of the attackers whose update the filter kept nothing of, mean over rounds; None where no
            filter judges clients.
        honest_rejected: The same of everybody else.
        rejected_by_rank: By rank, the share of its honest clients that were rejected; empty where no filter judges clients.
        bands_closed: Share of bands that stayed closed, mean over rounds.
        attacks_seen: How many updates of attackers reached the sum or the defence before it, over all rounds.
        strength: Of the adaptive attack: the share of the backdoor in what was sent, mean over rounds; None of the others.
        refused: Why the plan does not start such a federation at all; empty if it does. Nothing else counts then.
        seconds: Of processor time.
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
    """Data and base of one configuration's seed, used again by every attack on it."""

    config: Config
    _data: Data | None = None
    _base: nn.Sequential | None = None

    def of(self, config: Config) -> tuple[Data, nn.Sequential]:
        """The same examples dealt to the clients of another roster of the same size, and the base."""
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
    """Run a configuration with so large a share of its clients attacking.

    `contribute` is what attackers do with the change they send; by default they go through the honest clip. The trigger is that
    of backdoors.

    Guarantees: what is scored happened. Of every attacker of a round an update reached the sum, or the defence that judges
    before it, unless an injected drop-out silenced it before its input. Under noise, where a participant's failure counts as no
    change, the failure is seen all the same.

    Raises:
        EvaluationError: An attacker was refused, raised, had a change that is not finite, or fell silent otherwise.
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
    with ExitStack() as ending:
        run = _Run(
            plan,
            base,
            data,
            placed=placed,
            attack=attack,
            contribute=contribute,
            trigger=trigger,
            ending=ending,
        )
        outcome = run.to_the_end()
    return replace(outcome, seconds=time.process_time() - started)


@final
class _Observed(SecureSum):
    """The server's side of a secure sum, and what its screening has told in the session that it opened last."""

    name = "observed"

    def __init__(self, secure_sum: SecureSum) -> None:
        self._secure_sum = secure_sum
        self.input_stage = secure_sum.input_stage  # type: ignore[misc]  # that of whichever sum it observes
        self._server: SumServer | None = None

    @property
    def stages(self) -> tuple[str, ...]:
        """Those of the sum."""
        return self._secure_sum.stages

    def client(self, session: Session, me: ClientId) -> SumClient:
        """That of the sum."""
        return self._secure_sum.client(session, me)

    def server(self, session: Session) -> SumServer:
        """That of the sum, remembered."""
        self._server = self._secure_sum.server(session)
        return self._server

    def screened_out(self, session: Session) -> frozenset[ClientId]:
        """Whose update the server has a verdict against; nobody's where nothing is screened."""
        if not isinstance(self._server, HomomorphicServer):
            return frozenset()
        return frozenset(
            session.client_at(position) for position, told in self._server.screened.items() if told.reason
        )


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
        ending: ExitStack,
    ) -> None:
        self._contribute, self._where = contribute, trigger
        self._plan, self._placed = plan, placed
        self._previous_step = PreviousStep(plan)
        self._defence = Defence.of(plan, self._previous_step, _remembered(reference_of(plan, base, data)))
        self._rule = self._known_rule(plan, data, attack)
        self._session: Session | None = None
        self._adapter: Adapter | None = None
        self._failures = Failures()
        self._coalition = self._gathered(plan, base, data, attack) if placed.attackers else None
        services = HomomorphicServices(plan) if plan.mode.needs_services else None
        if services is not None:
            ending.callback(services.close)
        authority = _authority(plan, services)
        trust = authority.trust(int(time.time())) if authority is not None else None
        roles = (
            services.set_up(trust, self._previous_step)
            if services is not None and trust is not None
            else None
        )
        self._secure_sum = _Observed(plan.secure_sum(trust, roles=roles))
        self._cohorts = SecretCohorts.of(plan)
        self._exchange = self._connected(plan, base, data, authority, attack)
        ending.callback(self._exchange.end)
        self._step_checks = step_checks_of(plan, base, data)
        self._matrix = matrix_noise(plan)
        self._scorer = Scorer(base, plan.layout, data.held_out)
        self._trigger = Scorer(base, plan.layout, triggered(data.held_out, whole_trigger(trigger)))

    def to_the_end(self) -> Outcome:
        plan, adapter = self._plan, initial_adapter(self._plan)
        accuracies, successes, outcomes, seen = [], [], list[RoundOutcome](), list[ClientId]()
        attackers, refused = set(self._placed.attackers), set[ClientId]()
        for number in range(1, plan.config.rounds + 1):
            outcome = self._round(number, adapter, outcomes)
            seen += self._mounted(number, outcome)
            refused |= attackers & (outcome.refusals.keys() | self._failures.of.keys())
            self._previous_step.round_ended(adapter, outcome.adapter)
            adapter = outcome.adapter
            if self._step_checks is not None:
                self._step_checks.remember(adapter)
            outcomes.append(outcome)
            if number > plan.config.rounds - SETTLED:
                accuracies.append(self._scorer.score(adapter).accuracy)
                successes.append(self._trigger.score(adapter).accuracy)
        if attackers:
            check_each_seen(refused, seen, rounds=plan.config.rounds)
        strengths = self._coalition.strengths if self._coalition is not None else ()
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

    def _mounted(self, number: int, outcome: RoundOutcome) -> frozenset[ClientId]:
        """The attackers whose updates were seen in a round."""
        assert self._session is not None  # noqa: S101 - set before a round is played
        cohort = frozenset(self._session.members)
        attackers = cohort.intersection(self._placed.attackers)
        return mounted(
            outcome,
            number,
            attackers,
            cohort - attackers,
            partial(kept_from_input, self._faults),
            screened=self._secure_sum.screened_out(self._session),
            failures=self._failures.of,
        )

    def _round(self, number: int, adapter: Adapter, earlier: list[RoundOutcome]) -> RoundOutcome:
        plan = self._plan
        session = plan.session(
            run=bytes(RUN_ID_SIZE),
            round_number=number,
            attempt=1,
            clip_norm=clip_norm(plan, [each.unclipped for each in earlier[: counts_before(number)]]),
        )
        self._session, self._adapter = session, adapter
        for each in (self._rule, self._failures, self._coalition):
            if each is not None:
                each.before_round(session, adapter)
        asked = self._cohorts.asked(session.members, number) if self._cohorts is not None else None
        session_server = SessionServer(plan, session, self._secure_sum, asked=asked)
        prepare_round(session_server, self._exchange)
        return run_round(
            plan,
            session_server,
            adapter,
            self._exchange,
            defence=self._defence,
            step_checks=self._step_checks,
            matrix=self._matrix,
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

    def _gathered(self, plan: Plan, base: nn.Sequential, data: Data, attack: AttackName) -> Coalition:
        trainer = trainer_of(plan, base)
        examples = dict(zip(plan.ranks, data.clients, strict=True))
        return Coalition(
            attack,
            members={
                name: Member(rank=plan.ranks[name], examples=examples[name])
                for name in self._placed.attackers
            },
            federation=Federation(
                clients=len(plan.ranks),
                clip_norm=plan.config.clip_norm,
                captured_from=self._placed.captured_from,
                seed=plan.config.seed,
                rest=plan.config.lora.rest,
                trigger=self._where,
            ),
            train=lambda adapter, own, seed: trainer.train(adapter, own, seed=seed),
            # Only the adaptive attack: what the rule does to it, it must be able to foresee.
            others=self._honest_changes(plan, base, data) if attack is AttackName.ADAPTIVE else None,
            accepts=self._rule.accepts,
        )

    def _known_rule(self, plan: Plan, data: Data, attack: AttackName) -> KnownRule:
        """The server's own defence: whatever it is given, the attackers run."""
        counts = {name: len(examples) for name, examples in zip(plan.ranks, data.clients, strict=True)}
        claimed = {
            name: claimed_examples(attack, plan.config, count) if name in self._placed.attackers else count
            for name, count in counts.items()
        }
        weights = {name: weight_of(plan, count) for name, count in claimed.items()}
        return KnownRule(plan=plan, defence=self._defence, weights=weights)

    def _honest_changes(self, plan: Plan, base: nn.Sequential, data: Data) -> Others:
        """Every honest change of the round, to the bit: more than attackers could know."""
        trainer = trainer_of(plan, base)
        examples = dict(zip(plan.ranks, data.clients, strict=True))

        def changes(_: Adapter, __: int) -> dict[ClientId, UpdateRows]:
            # Not from the adapter that the coalition was sent: it ends at the largest rank of a member.
            assert self._session is not None  # noqa: S101 - both are set before a round is played
            assert self._adapter is not None  # noqa: S101
            found = {}
            for name in set(self._session.members) - set(self._placed.attackers):
                folded = plan.config.lora.rest is Rest.FOLDED
                rank = plan.trained_rank(name)
                own = self._adapter.folded(rank) if folded else self._adapter.sliced(rank)
                seed = derive_seed(plan.config.seed, "training", self._session.round, name)
                found[name] = trainer.train(own, examples[name], seed=seed).astype(np.float64) - own.rows
            return dict(sorted(found.items()))

        return changes

    def _connected(
        self,
        plan: Plan,
        base: nn.Sequential,
        data: Data,
        authority: ThrowawayAuthority | None,
        attack: AttackName,
    ) -> InProcess:
        trainer, participants = trainer_of(plan, base), {}
        for name, examples in zip(plan.ranks, data.clients, strict=True):
            count, contribute = len(examples), contribution
            if self._coalition is not None and name in self._placed.attackers:
                train = self._coalition.train_of(name)
                count = claimed_examples(attack, plan.config, count)
                contribute = self._contribute
            else:

                def train(adapter: Adapter, seed: int, own: object = examples) -> np.ndarray:
                    return trainer.train(adapter, own, seed=seed)  # type: ignore[arg-type]

            # Of honest clients too: what befalls them as well is not the attackers' own.
            participants[name] = Participant(
                name,
                plan=plan,
                secure_sum=_side_of(plan, authority, name),
                train=self._failures.training(name, train),
                examples=count,
                contribute=self._failures.contributing(name, contribute),
                draws=self._cohorts.draws_of(name) if self._cohorts is not None else None,
            )
        secure_sum = plan.secure_sum(authority.view if authority is not None else None)
        self._faults = Faults(
            rate=plan.config.dropout_rate,
            seed=plan.config.seed,
            stages=secure_sum.stages,
            input_stage=secure_sum.upload_stage,
        )
        seconds = plan.config.stage_seconds
        return InProcess(participants, faults=self._faults, stopwatch=Stopwatch(), stage_seconds=seconds)


def kept_from_input(faults: Faults, client: ClientId, number: int) -> bool:
    """Whether an injected drop-out silences a client in a round before its input is in the sum; a later one takes nothing away."""
    return faults.silent_from(client, number) <= faults.stages.index(faults.input_stage)


def _remembered(reference: Reference) -> Reference:
    """The same reference for the server and for attackers that ask many times: it is trained once a round."""
    known: dict[tuple[bytes, int], Rows] = {}

    def asked(adapter: Adapter, number: int) -> Rows:
        key = (adapter.digest(), number)
        if key not in known:
            known.clear()
            known[key] = reference(adapter, number)
        return known[key]

    return asked


def _authority(plan: Plan, services: HomomorphicServices | None) -> ThrowawayAuthority | None:
    if not plan.needs_identities:
        return None
    keys = services.public_keys() if services is not None else {}
    return ThrowawayAuthority.create(plan.ranks, now=int(time.time()), clock=SYSTEM_CLOCK, services=keys)


def _side_of(plan: Plan, authority: ThrowawayAuthority | None, name: ClientId) -> SecureSum:
    if authority is None:
        return plan.secure_sum(None, None)
    return plan.secure_sum(authority.view, authority.identity(name))


def _rejected(outcomes: list[RoundOutcome], counts: Callable[[ClientId], bool]) -> float | None:
    """The share of so many clients that were judged and not kept, over the rounds in which clients were judged."""
    shares = []
    for outcome in outcomes:
        if outcome.judged is None or outcome.judged.groups:
            continue
        verdicts = [verdict for name, verdict in outcome.judged.verdicts.items() if counts(name)]
        if verdicts:
            shares.append(fmean(not verdict.accepted for verdict in verdicts))
    return fmean(shares) if shares else None
