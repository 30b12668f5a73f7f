"""The clients of an attacked run: attackers with what they know and send, and honest clients."""

from collections.abc import Mapping
from typing import final

import numpy as np

from protocols.session import ClientId, Session
from rbla_secure.config.choices import Rest
from rbla_secure.evaluation.known_defence import KnownRule
from rbla_secure.evaluation.mounted import Failures
from rbla_secure.evaluation.poisoning.coalition import Coalition
from rbla_secure.evaluation.poisoning.knowledge import FederationFacts, Member
from rbla_secure.evaluation.poisoning.placement import Placement, claimed_examples
from rbla_secure.evaluation.poisoning.registry import AttackName, TriggerName
from rbla_secure.federation.build import LocalClient
from rbla_secure.federation.client.contribution import Contribute, weight_of
from rbla_secure.federation.observer import RoundObserver, SilentObserver
from rbla_secure.federation.server.defence import Defence, Reference
from rbla_secure.federation.server.previous_step import PreviousStep
from rbla_secure.lora.adapter import Adapter, Rows
from rbla_secure.lora.update import UpdateRows
from rbla_secure.planning.plan import Plan
from rbla_secure.seeding import derive_seed
from rbla_secure.tasks.datasets import LabelledImages
from rbla_secure.tasks.training import LocalTrainer


@final
class Attackers(SilentObserver):
    """The clients of an attacked run: honest ones, and a coalition that knows the server's rule and every honest change.

    It observes the rounds as attackers can: the adapters that they are sent, and the last step of the public adapter.

    Args:
        plan: Plan of the run.
        trainer: Honest local training.
        examples: Examples of each client.
        placed: Choice of the attackers.
        attack: The attack that they mount.
        contribute: Turns an attacker's change into its upload.
        trigger: Trigger of backdoors; other attacks do not use it.
        reference: The server's reference update, for filters that compare with one.

    Attributes:
        failures: Failures of the clients' own code in the round.
    """

    def __init__(
        self,
        plan: Plan,
        trainer: LocalTrainer,
        examples: Mapping[ClientId, LabelledImages],
        *,
        placed: Placement,
        attack: AttackName,
        contribute: Contribute,
        trigger: TriggerName,
        reference: Reference,
    ) -> None:
        self._plan, self._trainer, self._examples = plan, trainer, examples
        self._placed, self._attack, self._contribute = placed, attack, contribute
        self.failures = Failures()
        self._previous_step = PreviousStep(plan)
        self._rule = self._known_rule(reference)
        self._round: tuple[Session, Adapter] | None = None
        self._coalition = self._gathered(trigger) if placed.attackers else None

    @property
    def observers(self) -> list[RoundObserver]:
        """The observers that must be notified of rounds."""
        coalition = [] if self._coalition is None else [self._coalition]
        return [self, self._previous_step, self._rule, self.failures, *coalition]

    @property
    def strengths(self) -> list[float]:
        """Share of the backdoor in what the adaptive attack sent, by round; empty for other attacks."""
        return self._coalition.strengths if self._coalition is not None else []

    def before_round(self, session: Session, adapter: Adapter) -> None:
        """Begin a round, given its session and the adapter that all its changes start from."""
        self._round = (session, adapter)

    def clients(self) -> dict[ClientId, LocalClient]:
        """Return all clients. Honest ones are watched too: a failure that they share is not the attackers' own."""
        return {name: self._client(name) for name in self._plan.ranks}

    def _client(self, name: ClientId) -> LocalClient:
        honest = self._honest(name)
        if self._coalition is not None and name in self._placed.attackers:
            honest = LocalClient(
                train=self._coalition.train_of(name),
                examples=self._claimed(name),
                contribute=self._contribute,
            )
        return LocalClient(
            train=self.failures.training(name, honest.train),
            examples=honest.examples,
            contribute=self.failures.contributing(name, honest.contribute),
        )

    def _honest(self, name: ClientId) -> LocalClient:
        examples = self._examples[name]

        def train(adapter: Adapter, seed: int) -> Rows:
            return self._trainer.train(adapter, examples, seed=seed)

        return LocalClient(train=train, examples=len(examples))

    def _claimed(self, name: ClientId) -> int:
        """Return how many examples a client claims to have."""
        count = len(self._examples[name])
        attacks = name in self._placed.attackers
        return claimed_examples(self._attack, self._plan.config, count) if attacks else count

    def _gathered(self, trigger: TriggerName) -> Coalition:
        plan = self._plan
        return Coalition(
            self._attack,
            members={
                name: Member(rank=plan.ranks[name], examples=self._examples[name])
                for name in self._placed.attackers
            },
            federation=FederationFacts(
                clients=len(plan.ranks),
                clip_norm=plan.config.clip_norm,
                captured_from=self._placed.captured_from,
                seed=plan.config.seed,
                rest=plan.config.lora.rest,
                trigger=trigger,
            ),
            train=lambda adapter, own, seed: self._trainer.train(adapter, own, seed=seed),
            # Only for the adaptive attack, which must be able to predict the rule's verdict.
            others=self._honest_changes if self._attack is AttackName.ADAPTIVE else None,
            accepts=self._rule.accepts,
        )

    def _known_rule(self, reference: Reference) -> KnownRule:
        """Return the server's defence, built from the same plan, reference and public steps."""
        defence = Defence.of(self._plan, self._previous_step, reference)
        weights = {name: weight_of(self._plan, self._claimed(name)) for name in self._plan.ranks}
        return KnownRule(plan=self._plan, defence=defence, weights=weights)

    def _honest_changes(self, _: Adapter, __: int) -> dict[ClientId, UpdateRows]:
        """Return every honest change of the round, bit by bit: more than attackers could know."""
        # Not from the adapter that the coalition was sent: it ends at the largest rank of a member.
        assert self._round is not None  # noqa: S101 - set before a round is played
        session, adapter = self._round
        plan, found = self._plan, {}
        for name in sorted(set(session.members) - set(self._placed.attackers)):
            rank = plan.trained_rank(name)
            own = adapter.folded(rank) if plan.config.lora.rest is Rest.FOLDED else adapter.sliced(rank)
            seed = derive_seed(plan.config.seed, "training", session.round, name)
            found[name] = self._trained(name, own, seed).astype(np.float64) - own.rows
        return found

    def _trained(self, name: ClientId, adapter: Adapter, seed: int) -> Rows:
        return self._trainer.train(adapter, self._examples[name], seed=seed)


def remembered(reference: Reference) -> Reference:
    """Return the reference with a cache, so that the server and attackers that ask often train it once per round."""
    known: dict[tuple[bytes, int], Rows] = {}

    def asked(adapter: Adapter, number: int) -> Rows:
        key = (adapter.digest(), number)
        if key not in known:
            known.clear()
            known[key] = reference(adapter, number)
        return known[key]

    return asked
