"""Check that the attack of a round took place. One that was refused or failed was not withstood: it was not tried."""

from collections.abc import Callable, Collection, Mapping
from typing import final

import numpy as np

from protocols.interface import ExtraSecrets, SecureSum, SumClient, SumServer
from protocols.session import ClientId, Session
from rbla_secure.errors import EvaluationError
from rbla_secure.federation.client.contribution import Contribute
from rbla_secure.federation.client.participant import LocalTraining
from rbla_secure.federation.noise_components import Seeds
from rbla_secure.federation.noise_shares import Integers
from rbla_secure.federation.observer import SilentObserver
from rbla_secure.federation.round import RoundOutcome
from rbla_secure.lora.adapter import Adapter, Rows
from rbla_secure.lora.update import UpdateRows
from rbla_secure.planning.plan import Plan


@final
class Failures(SilentObserver):
    """Failures of the clients' own code in one round, whether or not their answers show them.

    Under noise they do not show it: a participant whose training raises, or whose change is not finite, sends noise as one that
    has changed nothing, and its input is in the sum.

    Attributes:
        of: By client, its first exception or what was wrong with its change; without the clients that did not fail.
    """

    def __init__(self) -> None:
        self.of: dict[ClientId, str] = {}
        self._trained: dict[ClientId, UpdateRows] = {}

    def before_round(self, session: Session, adapter: Adapter) -> None:  # noqa: ARG002  # whichever round it is
        """Forget the failures of the round before."""
        self.of.clear()
        self._trained.clear()

    def training(self, client: ClientId, train: LocalTraining) -> LocalTraining:
        """Return the same training, with its exceptions recorded and its result checked."""

        def watched(adapter: Adapter, seed: int) -> Rows:
            try:
                rows = train(adapter, seed)
                change = rows.astype(np.float64) - adapter.rows
            except Exception as error:
                self._note(client, error)
                raise
            if not np.isfinite(change).all():
                self.of.setdefault(client, "its change is not finite")
            self._trained[client] = change
            return rows

        return watched

    def contributing(self, me: ClientId, contribute: Contribute) -> Contribute:
        """Return the same contribution, with a check that its change is the one that training returned.

        It differs where the training was interrupted after it had returned, for instance by a time limit.
        """

        def watched(
            plan: Plan,
            session: Session,
            client: ClientId,
            change: UpdateRows,
            *,
            weight: float,
            noise_key: bytes,
            seeds: Seeds | None = None,
        ) -> Integers:
            trained = self._trained.pop(me, None)
            if trained is None or not np.array_equal(change[: len(trained)], trained, equal_nan=True):
                self.of.setdefault(me, "its change is not the one that its training returned")
            try:
                return contribute(
                    plan, session, client, change, weight=weight, noise_key=noise_key, seeds=seeds
                )
            except Exception as error:
                self._note(me, error)
                raise

        return watched

    def _note(self, client: ClientId, error: Exception) -> None:
        self.of.setdefault(client, f"{type(error).__name__}: {error}")


@final
class ObservedSum(SecureSum):
    """The server's side of a secure sum, and the verdicts of its screening in the session that it opened last."""

    name = "observed"

    def __init__(self, secure_sum: SecureSum) -> None:
        self._secure_sum = secure_sum
        self.input_stage = secure_sum.input_stage  # type: ignore[misc]  # that of whichever sum it observes
        self._server: SumServer | None = None

    @property
    def stages(self) -> tuple[str, ...]:
        """Stages of the observed sum."""
        return self._secure_sum.stages

    def client(
        self, session: Session, me: ClientId, *, extra_secrets: ExtraSecrets | None = None
    ) -> SumClient:
        """Return the client of the observed sum."""
        return self._secure_sum.client(session, me, extra_secrets=extra_secrets)

    def server(self, session: Session) -> SumServer:
        """Return the server of the observed sum and keep it for `screened_out`."""
        self._server = self._secure_sum.server(session)
        return self._server

    @property
    def screened_out(self) -> frozenset[ClientId]:
        """The clients with a verdict of the server against their update; empty where nothing is screened."""
        return frozenset(self._server.screened_out if self._server is not None else ())


def mounted(
    outcome: RoundOutcome,
    number: int,
    attackers: Collection[ClientId],
    honest: Collection[ClientId],
    silenced: Callable[[ClientId, int], bool],
    *,
    screened: Collection[ClientId] = (),
    failures: Mapping[ClientId, str] | None = None,
) -> frozenset[ClientId]:
    """Return the attackers whose updates reached a round's sum, or the defence that judges before it.

    In the outcome, an attacker that raises, or that client or server refuses, looks like one that dropped out. Under
    noise one that raises looks like any other. A round without attackers looks like one that a defence has won. So
    every attacker of the round must have been summed without a failure of its own code, except those that an injected
    drop-out silenced before their input and those that a screening of encrypted updates judged and turned away. A
    failure or refusal with the same text as that of an honest client of the round is not the attacker's own either
    (where attackers have driven the adapter to infinity, nobody's training is finite any more). It is not counted, and
    :func:`check_each_seen` checks at the end that the attacker was seen in some other round.

    Args:
        outcome: Outcome of the round.
        number: Number of the round, from 1.
        attackers: The attackers in its cohort.
        honest: The other clients of the cohort.
        silenced: Whether a drop-out that the run injects silences a client in a round, at its input at the latest.
        screened: Clients with a verdict of the server's own screening against them; the text of a refusal proves none.
        failures: By client of the cohort, what went wrong in its own code.

    Raises:
        EvaluationError: An attacker's update did not reach it: nothing that follows may be scored.
    """
    expected, failed = set(attackers), failures or {}
    # The failure itself where it is known: a refusal says less about it.
    reasons = {**outcome.refusals, **failed}
    reached = expected.intersection({*outcome.survivors, *screened}) - failed.keys()
    common = {reasons[name] for name in honest if name in reasons}
    shared = {name for name in expected if reasons.get(name) in common}
    if refused := sorted((expected & reasons.keys()) - reached - shared):
        name = refused[0]
        what = "failed by itself" if name in failed else "was refused"
        raise EvaluationError(
            f"round {number}: attacker {name} {what} ({reasons[name]}): its attack did not happen"
        )
    if outcome.aborted:
        return frozenset()
    if lost := sorted(name for name in expected - reached - shared if not silenced(name, number)):
        raise EvaluationError(
            f"round {number}: nothing of attacker {lost[0]} was summed, and no injected drop-out silenced it: "
            "its attack did not happen"
        )
    return frozenset(reached)


def check_each_seen(refused: Collection[ClientId], seen: Collection[ClientId], *, rounds: int) -> None:
    """Refuse to score a run in which an attacker was refused or failed and never seen, or in which none was seen.

    Args:
        refused: The attackers that were refused or failed in some round, in whatever words.
        seen: Those whose updates reached the sum, or the defence before it, in some round.
        rounds: Number of rounds of the run.

    Raises:
        EvaluationError: An attacker was refused or failed and never seen, or none was seen.
    """
    if not seen:
        raise EvaluationError(
            f"no update of an attacker reached a sum in {rounds} rounds: nothing was tested"
        )
    if never := sorted(set(refused) - set(seen)):
        raise EvaluationError(
            f"attacker {never[0]} was refused or failed, and no update of it reached a sum in {rounds} rounds: its attack was not tested"
        )
