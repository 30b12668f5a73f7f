"""What the attackers of a run know: of the federation, of each other, and of one round.

A coalition shares everything its members have and nothing else: their examples, the adapters they are sent, and the
changes that honest training on their own data would give. Attacks that the literature mounts with every honest update of
the round may be granted those too (`others`), for an evaluation that errs on the attackers' side.
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
    """One attacker: what it is enrolled as, and its own examples before they are tampered with."""

    rank: int
    examples: LabelledImages


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Strength:
    """How hard an attack hits, where its paper leaves that open.

    Args:
        inner_product: epsilon of IPM. At 1 the sum shrinks but for a majority; the paper tries 0.1 to 100.
        gaussian: Standard deviation of a coordinate. After the clip only the direction is left of it.
        free_rider: Noise on the last global step, over the step's root mean square.
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
    """What everybody knows of the run, the coalition included.

    Args:
        clients: All that are enrolled, n. ALIE and model replacement reckon with n and f.
        clip_norm: Of an update.
        captured_from: Rows from here on are held by members alone: the rank of the largest honest client.
        seed: Of the coalition's own choices.
        rest: What becomes of the rows beyond a client's rank.
        trigger: Of backdoors.
    """

    clients: int
    clip_norm: float
    captured_from: int = 0
    seed: int = 0
    rest: Rest = Rest.DROPPED
    trigger: TriggerName = TriggerName.CORNER

    def sent(self, adapter: Adapter, rank: int) -> Adapter:
        """What a client of a rank trains from: its rows of an adapter, the others folded or dropped."""
        own = min(rank, adapter.rank)
        return adapter.folded(own) if self.rest is Rest.FOLDED else adapter.sliced(own)


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Means:
    """What does not change from round to round: the attack, who mounts it, and with what.

    Args:
        attack: What they do.
        members: By client id, increasing.
        federation: What is known of it.
        train: Honest local training of a client on examples.
        strength: Where the attack leaves a choice.
        others: Honest changes of everybody else, where they are granted.
    """

    attack: AttackName
    members: Mapping[ClientId, Member]
    federation: FederationFacts
    train: Training
    strength: Strength
    others: Others | None

    def tampered(self, client: ClientId) -> LabelledImages:
        """A member's examples as the attack wants them; the same in every round."""
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
    """What a coalition knows in one round, as far as its attack asks for it. Every call trains.

    Args:
        means: Of the coalition.
        broadcast: The round's adapter with all rows that are known, none of them folded.
        step: The last global step, the broadcast's shape; None in the first round.
        seed: Of the round.
    """

    means: Means
    broadcast: Adapter
    step: UpdateRows | None
    seed: int

    def adapter_of(self, client: ClientId) -> Adapter:
        """What a member is sent."""
        return self.means.federation.sent(self.broadcast, self.means.members[client].rank)

    def honest(self, turn: int = 0) -> dict[ClientId, UpdateRows]:
        """Every member's change after training on its own examples; another turn, another order of them."""
        return {
            client: self._change(client, member.examples, turn)
            for client, member in self.means.members.items()
        }

    def backdoor(self) -> dict[ClientId, UpdateRows]:
        """Every member's change after training on its examples with the trigger."""
        return {client: self._change(client, self.means.tampered(client), 0) for client in self.means.members}

    def captured(self) -> dict[ClientId, UpdateRows]:
        """The same, where only rows that members alone hold may move."""
        return {client: self._captured(client) for client in self.means.members}

    def granted(self) -> Changes:
        """What the evaluation lets the coalition see of others, for attacks that are meant to."""
        if self.means.others is None or self.means.attack not in OMNISCIENT | {AttackName.ADAPTIVE}:
            return {}
        changes = self.means.others(self.broadcast, self.seed)
        return {name: change for name, change in changes.items() if name not in self.means.members}

    def stand_ins(self) -> Changes:
        """Changes in place of those of all honest clients: granted, or members' own in as many orders as it takes."""
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
