"""The coordinated attackers of one run. A member mounts its attack in place of a client's training.

:meth:`Coalition.train_of` is the `train` of a `Participant`. In each round the first call for any member makes the
coalition train and craft for all; later calls return stored changes. `knowledge.py` has what a coalition knows.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import final

import numpy as np

from protocols.session import ClientId, Session
from rbla_secure.errors import UpdateError
from rbla_secure.evaluation.poisoning.adaptive import Accepts
from rbla_secure.evaluation.poisoning.craft import craft
from rbla_secure.evaluation.poisoning.knowledge import (
    USUAL_STRENGTH,
    Changes,
    FederationFacts,
    Knowledge,
    Means,
    Member,
    Others,
    Strength,
    Training,
)
from rbla_secure.evaluation.poisoning.registry import BY_DATA, AttackName
from rbla_secure.federation.observer import SilentObserver
from rbla_secure.lora.adapter import Adapter, Rows
from rbla_secure.lora.update import UpdateRows

LocalTraining = Callable[[Adapter, int], Rows]


@final
@dataclass(slots=True, kw_only=True)
class _Round:
    """The members' changes in one round, and the seeds with which they were requested."""

    broadcast: Adapter
    sent: Changes
    asked: dict[ClientId, int] = field(default_factory=dict)


@final
class Coalition(SilentObserver):
    """Coordinated attackers.

    Args:
        attack: The attack that they mount.
        members: The attackers by client id, at least one.
        federation: Facts of the run that they know.
        train: Honest local training of a client on examples.
        strength: Parameters that the attack leaves open.
        others: Honest changes of all other clients; only the attacks of `OMNISCIENT` and the adaptive attack get them.
        accepts: The server's rule as the coalition believes it to be; for the adaptive attack.

    Raises:
        UpdateError: The adaptive attack lacks a rule, or the sole-owner attack lacks rows that only members hold.
    """

    def __init__(
        self,
        attack: AttackName,
        *,
        members: Mapping[ClientId, Member],
        federation: FederationFacts,
        train: Training,
        strength: Strength = USUAL_STRENGTH,
        others: Others | None = None,
        accepts: Accepts | None = None,
    ) -> None:
        _check(attack, members, federation, accepts)
        self._means = Means(
            attack=attack,
            members=dict(sorted(members.items())),
            federation=federation,
            train=train,
            strength=strength,
            others=others,
        )
        self._accepts = accepts
        self.strengths: list[float] = []  # of the adaptive attack, round by round
        self._current: _Round | None = None
        self._known: Adapter | None = None
        self._before: Adapter | None = None

    def train_of(self, client: ClientId) -> LocalTraining:
        """Return what a member runs instead of honest training.

        Raises:
            KeyError: The client is no member.
        """
        means, member = self._means, self._means.members[client]
        if means.attack is AttackName.NONE:
            return lambda adapter, seed: means.train(adapter, member.examples, seed)
        if means.attack in BY_DATA:
            examples = means.tampered(client)
            return lambda adapter, seed: means.train(adapter, examples, seed)
        return lambda adapter, seed: self._answer(client, adapter, seed)

    def before_round(self, session: Session, adapter: Adapter) -> None:  # noqa: ARG002  # the adapter is what is new
        """Take the adapter of the next round, as the member of the largest rank will receive it.

        Without it a member that is called before one of larger rank crafts from the rows that it knows itself. If a run
        passes the global adapter on after every step, the order of calls does not matter.
        """
        largest = max(member.rank for member in self._means.members.values())
        self._learn(self._means.federation.sent(adapter, largest).whole())

    def _answer(self, client: ClientId, adapter: Adapter, seed: int) -> Rows:
        broadcast = self._learn(adapter.whole())
        current = self._current
        # Another adapter is another round, and so is another seed for the same client: the round before was aborted.
        if current is None or current.broadcast is not broadcast or current.asked.get(client, seed) != seed:
            knowledge = Knowledge(
                means=self._means, broadcast=broadcast, step=self._step(broadcast), seed=seed
            )
            sent = craft(self._means.attack, knowledge, self._accepts, self.strengths.append)
            current = self._current = _Round(broadcast=broadcast, sent=sent)
        current.asked[client] = seed
        # Nobody can move rows of bands that never open.
        rows: Rows = (adapter.rows + current.sent[client][: adapter.rank]).astype(np.float32)
        return rows

    def _learn(self, adapter: Adapter) -> Adapter:
        """Return the round's adapter with all known rows. One with more rows replaces the known one."""
        known = self._known
        if known is not None and _begins(known, adapter):
            return known
        if known is not None and not _begins(adapter, known):
            self._before = known
        self._known = adapter
        return adapter

    def _step(self, broadcast: Adapter) -> UpdateRows | None:
        """Return the last global step in the rows known of both adapters, zero beyond."""
        if self._before is None:
            return None
        step = np.zeros(broadcast.rows.shape)
        shared = min(broadcast.rank, self._before.rank)
        step[:shared] = broadcast.rows[:shared].astype(np.float64) - self._before.rows[:shared]
        return step


def _check(
    attack: AttackName,
    members: Mapping[ClientId, Member],
    federation: FederationFacts,
    accepts: Accepts | None,
) -> None:
    if not members:
        raise UpdateError("a coalition needs at least one member")
    if attack is AttackName.ADAPTIVE and accepts is None:
        raise UpdateError("the adaptive attack needs the rule it adapts to")
    lowest = min(member.rank for member in members.values())
    if attack is AttackName.SOLE_OWNER and not 0 < federation.captured_from < lowest:
        raise UpdateError(
            f"captured_from={federation.captured_from} must leave every member rows of its own, up to {lowest}"
        )


def _begins(longer: Adapter, shorter: Adapter) -> bool:
    """Return whether an adapter's first rows equal another's rows bit by bit."""
    return longer.rank >= shorter.rank and np.array_equal(longer.rows[: shorter.rank], shorter.rows)
