"""Knowledge of the attackers of a run: of the federation, of each other, and of one round.

A coalition shares everything its members have and nothing else: their examples, the adapters they are sent, and the
changes that honest training on their own data would give. Attacks that the literature mounts with every honest update of
the round may get those too (`others`), for an evaluation that favours the attackers.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import final

import numpy as np

from protocols.session import ClientId
from rbla_secure.config.choices import Rest
from rbla_secure.evaluation.poisoning.lora_rows import train_rows_from
from rbla_secure.evaluation.poisoning.registry import OMNISCIENT, AttackName, TriggerName
from rbla_secure.evaluation.poisoning.triggers import flipped_labels, poisoned, quarter_trigger, whole_trigger
from rbla_secure.lora.adapter import Adapter, Rows
from rbla_secure.lora.update import UpdateRows
from rbla_secure.seeding import derive_seed
from rbla_secure.tasks.datasets import LabelledImages

Changes = Mapping[ClientId, UpdateRows]
# (adapter at the client's rank, the others folded or dropped; its examples; seed) -> rows after training
Training = Callable[[Adapter, LabelledImages, int], Rows]
# (the round's adapter as the coalition knows it, a seed of the round) -> honest changes of all others
Others = Callable[[Adapter, int], Changes]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Member:
    """One attacker: its enrolment, and its own examples before they are tampered with."""

    rank: int
    examples: LabelledImages


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Strength:
    """Strength of an attack, where its paper leaves that open.

    Args:
        inner_product: epsilon of IPM. At 1 a minority of attackers only shrinks the sum; the paper tries 0.1 to 100.
        gaussian: Standard deviation of a coordinate. After the clip only the noise's direction is left.
        free_rider: Noise on the last global step, relative to the step's root mean square.
        poisoned: Share of an attacker's examples that get the trigger.
    """

    inner_product: float = 1.0
    gaussian: float = 1.0
    free_rider: float = 0.1
    poisoned: float = 0.5


USUAL_STRENGTH = Strength()


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class FederationFacts:
    """Facts of the run that everybody knows, the coalition included.

    Args:
        clients: n, the number of enrolled clients. ALIE and model replacement use n and f.
        clip_norm: L2 bound of an update.
        captured_from: First row that only members hold: the largest rank of an honest client.
        seed: Seed of the coalition's own choices.
        rest: How the rows beyond a client's rank are treated: folded or dropped.
        trigger: Trigger of backdoors; other attacks do not use it.
    """

    clients: int
    clip_norm: float
    captured_from: int = 0
    seed: int = 0
    rest: Rest = Rest.DROPPED
    trigger: TriggerName = TriggerName.CORNER

    def sent(self, adapter: Adapter, rank: int) -> Adapter:
        """Return the adapter that a client of a rank trains from: its rows, the others folded or dropped."""
        own = min(rank, adapter.rank)
        return adapter.folded(own) if self.rest is Rest.FOLDED else adapter.sliced(own)


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Means:
    """The constant parts of an attack over a run: its name, its members and their means.

    Args:
        attack: The attack that they mount.
        members: The attackers by client id, in increasing order.
        federation: Facts of the run that they know.
        train: Honest local training of a client on examples.
        strength: Parameters that the attack leaves open.
        others: Honest changes of all other clients; None where the coalition does not get them.
    """

    attack: AttackName
    members: Mapping[ClientId, Member]
    federation: FederationFacts
    train: Training
    strength: Strength
    others: Others | None

    def tampered(self, client: ClientId) -> LabelledImages:
        """Return a member's examples as tampered with for the attack; the same in every round."""
        examples = self.members[client].examples
        if self.attack is AttackName.LABEL_FLIP:
            return flipped_labels(examples)
        distributed = self.attack is AttackName.DBA
        where = self.federation.trigger
        trigger = (
            quarter_trigger(where, list(self.members).index(client)) if distributed else whole_trigger(where)
        )
        seed = derive_seed(self.federation.seed, "poisoned", client)
        return poisoned(examples, trigger, seed=seed, share=self.strength.poisoned)


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Knowledge:
    """Knowledge of a coalition in one round, computed as its attack asks for it. Every call trains.

    Args:
        means: The constant parts of the coalition's attack.
        broadcast: The round's adapter with all rows that are known, none of them folded.
        step: The last global step, the broadcast's shape; None in the first round.
        seed: Seed of the round.
    """

    means: Means
    broadcast: Adapter
    step: UpdateRows | None
    seed: int

    def adapter_of(self, client: ClientId) -> Adapter:
        """Return the adapter that a member is sent."""
        return self.means.federation.sent(self.broadcast, self.means.members[client].rank)

    def honest(self, turn: int = 0) -> dict[ClientId, UpdateRows]:
        """Return every member's change after training on its own examples; each turn has another order of them."""
        return {
            client: self._change(client, member.examples, turn)
            for client, member in self.means.members.items()
        }

    def backdoor(self) -> dict[ClientId, UpdateRows]:
        """Return every member's change after training on its examples with the trigger."""
        return {client: self._change(client, self.means.tampered(client), 0) for client in self.means.members}

    def captured(self) -> dict[ClientId, UpdateRows]:
        """Return the same, where only the rows that only members hold may change."""
        return {client: self._captured(client) for client in self.means.members}

    def granted(self) -> Changes:
        """Return the other clients' changes for attacks that may see them; empty for all others."""
        if self.means.others is None or self.means.attack not in OMNISCIENT | {AttackName.ADAPTIVE}:
            return {}
        changes = self.means.others(self.broadcast, self.seed)
        return {name: change for name, change in changes.items() if name not in self.means.members}

    def stand_ins(self) -> Changes:
        """Return stand-ins for all honest changes: granted ones, or members' own in as many orders as needed."""
        if granted := self.granted():
            return granted
        wanted = self.means.federation.clients - len(self.means.members)
        turns = range(1, 1 - (-wanted // len(self.means.members)))
        found = {
            f"honest-{turn:04d}-{name}": change
            for turn in turns
            for name, change in self.honest(turn).items()
        }
        return dict(list(found.items())[:wanted])

    def _change(self, client: ClientId, examples: LabelledImages, turn: int) -> UpdateRows:
        adapter = self.adapter_of(client)
        rows = self.means.train(adapter, examples, derive_seed(self.seed, "coalition", client, turn))
        return rows.astype(np.float64) - adapter.rows

    def _captured(self, client: ClientId) -> UpdateRows:
        examples = self.means.tampered(client)
        return train_rows_from(
            lambda adapter, seed: self.means.train(adapter, examples, seed),
            self.adapter_of(client),
            start=self.means.federation.captured_from,
            seed=derive_seed(self.seed, "coalition", client, 0),
        )
