"""The server's defence as attackers simulate it: the federation's own code, on the integers that changes become.

No part of the defence is implemented twice. A change goes through the client's own code (clip, quantization with the
stream of the round, weight) and the server's own (validity, clip, cap on weights, pre-step, filter, its options, the
previous step, the draw by the digest of all inputs). Attackers that know every honest change of the round predict every
verdict exactly, bit by bit.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final

import numpy as np

from protocols.session import ClientId, Session
from rbla_secure.errors import EvaluationError
from rbla_secure.federation.client.contribution import contribution
from rbla_secure.federation.noise_shares import Integers
from rbla_secure.federation.observer import SilentObserver
from rbla_secure.federation.server.defence import Defence
from rbla_secure.lora.adapter import Adapter
from rbla_secure.lora.update import UpdateRows
from rbla_secure.planning.plan import Plan


@final
@dataclass(slots=True, kw_only=True)
class KnownRule(SilentObserver):
    """The rule of a plan in the round that its attackers are in.

    Args:
        plan: Plan of the run.
        defence: The server's defence, or an equal one; None where all updates are averaged.
        weights: Weight of each client, as its upload claims it.
    """

    plan: Plan
    defence: Defence | None
    weights: Mapping[ClientId, float]
    _round: tuple[Session, Adapter] | None = None
    _known: dict[ClientId, tuple[UpdateRows, Integers]] = field(default_factory=dict)

    def before_round(self, session: Session, adapter: Adapter) -> None:
        """Enter a round, given its session and the adapter that all its changes start from."""
        self._round = (session, adapter)
        self._known.clear()

    def accepts(self, changes: Mapping[ClientId, UpdateRows]) -> Mapping[ClientId, bool]:
        """Return whose change counts in a simulated round; everybody's where no rule judges single clients.

        Args:
            changes: Change of each client, at its own rank. Clients outside of the round are not judged.

        Raises:
            EvaluationError: No round was entered, or a client is not of the federation.
        """
        if self.defence is None or not self.defence.judges_clients:
            return dict.fromkeys(changes, True)
        if self._round is None:
            raise EvaluationError("the rule of a round is asked for before the round was entered")
        session, adapter = self._round
        if unknown := sorted(set(changes) - set(self.weights)):
            raise EvaluationError(
                f"{unknown[0]} is no client of the federation: the rule judges enrolled clients alone"
            )
        members = {name: changes[name] for name in changes if name in session.members}
        inputs = {name: self._integers(session, adapter, name, change) for name, change in members.items()}
        verdicts = self.defence.judge_inputs(session, inputs, adapter).verdicts
        return {name: name not in verdicts or verdicts[name].accepted for name in changes}

    def _integers(self, session: Session, adapter: Adapter, client: ClientId, change: UpdateRows) -> Integers:
        """Return the integers that a client uploads for this change; those of a repeated change come from a cache."""
        known = self._known.get(client)
        if known is None or known[0] is not change:
            before = adapter.rows[: len(change)]
            # Training returns rows of 32 bits, and the sent change is the difference of these.
            after = (before + change).astype(np.float32)
            moved = after.astype(np.float64) - before
            weight = self.weights[client]
            integers = contribution(self.plan, session, client, moved, weight=weight, noise_key=b"")
            known = self._known[client] = (change, integers)
        return known[1]
