"""The configured federation on a small adapter: rounds of the real code, with given changes instead of training.

Plan, participants, secure sum, session server, noise, release and average are those of a run, and so are tiers,
thresholds, quorums, clipping and noise. Two things differ from a run: the adapter is just large enough that the grid
cuts off no coordinate of a clipped change, and messages are function calls. Homomorphic sums are added in the clear:
they open the same integers, a thousand times slower.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import final

import numpy as np

from protocols.identity.trust import ThrowawayAuthority
from protocols.interface import SecureSum, SumResult
from protocols.session import RUN_ID_SIZE, ClientId, Session
from rbla_secure.config import Config
from rbla_secure.config.choices import Factors
from rbla_secure.errors import PrivacyError
from rbla_secure.evaluation.privacy_audit.calls import Calls, Watched
from rbla_secure.federation.build import Enrolment, LocalClient, Wiring, federation, throwaway
from rbla_secure.federation.client.contribution import contribution
from rbla_secure.federation.noise_components import Seeds
from rbla_secure.federation.noise_shares import Integers
from rbla_secure.federation.observer import SilentObserver
from rbla_secure.federation.round import RoundOutcome
from rbla_secure.lora.adapter import Adapter, AdapterLayout, LinearShape, Rows
from rbla_secure.lora.bands import rank_bands
from rbla_secure.lora.update import UpdateRows
from rbla_secure.planning.plan import Plan
from rbla_secure.planning.promises import Promises
from rbla_secure.privacy.ledger import Shown

# Limit of the grid, over the largest value of a clipped change: a clip to more than the norm shows.
_ROOM = 1.5
_LEAST_WIDTH = 8
_MOST_WIDTH = 2048
_LAYERS = 2


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of two neighbouring federations.

    Args:
        changes: By client, the change of its training each time, shape (rank, row_length). All others change nothing.
        silent: Clients that are absent.
        before_keys: Whether they are absent from the first message on, or fall silent when their input is due.
        ended: Numbers of the rounds in which nobody's input arrives.
    """

    changes: Mapping[ClientId, UpdateRows]
    silent: frozenset[ClientId] = frozenset()
    before_keys: bool = False
    ended: frozenset[int] = frozenset()


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Played:
    """Everything that anybody could have seen of a round.

    Args:
        session: Session of the round.
        before: The adapter at its start.
        outcome: Outcome that the round returned; its adapter is published.
        sums: The sums opened to the server; None if none.
        uploads: By client, its integers with noise, as uploaded.
        reveals: Each announcement of the round that inputs are about to be shown: in which part, and of which clients.
    """

    session: Session
    before: Adapter
    outcome: RoundOutcome
    sums: SumResult | None = None
    uploads: Mapping[ClientId, Integers] = field(default_factory=dict)
    reveals: Sequence[tuple[Shown, tuple[ClientId, ...]]]


def block_width(config: Config) -> int:
    """Return the number of columns with which a change of the clip norm in the lowest rank band fits the grid."""
    lowest = min(band.height for band in rank_bands(tier.rank for tier in config.tiers.values()))
    needed = (_ROOM * config.clip_norm / config.quantization.bound) ** 2 / lowest
    return max(_LEAST_WIDTH, 2 * _LAYERS * math.ceil(needed / (2 * _LAYERS)))


def block_count(config: Config) -> int:
    """Return the number of canaries of a round: all holders of the rarest rows, as far as the width limit allows."""
    rarest = min(each.holders for each in Promises.build(config).bands)
    return max(1, min(rarest, _MOST_WIDTH // block_width(config)))


def small_layout(config: Config) -> AdapterLayout:
    """Return two layers whose uploaded columns have room for all blocks."""
    only_B = config.lora.factors is Factors.LORA_B
    width = math.ceil(block_count(config) * block_width(config) / (_LAYERS if only_B else 2 * _LAYERS))
    layers = tuple(
        LinearShape(name=f"layer{number}", in_features=_LEAST_WIDTH if only_B else width, out_features=width)
        for number in range(_LAYERS)
    )
    return AdapterLayout(layers=layers, scaling=config.lora.scaling)


@final
@dataclass(frozen=True, slots=True)
class _Reveals(SilentObserver):
    """Records which part is about to show inputs, and of which clients."""

    of: list[tuple[Shown, tuple[ClientId, ...]]] = field(default_factory=list)

    def before_reveal(self, session: Session, part: Shown, clients: Collection[ClientId]) -> None:  # noqa: ARG002
        self.of.append((part, tuple(clients)))


@final
class SmallFederation:
    """Plays the first rounds of a configuration repeatedly, each time with fresh keys, draws and noise.

    Raises:
        PrivacyError: The noise is not secret, so that there is nothing to audit.
        PlanError: The configuration is refused.
    """

    def __init__(self, config: Config) -> None:
        if config.privacy.simulation:
            raise PrivacyError(
                "privacy.simulation=true must be false: noise that follows from the seed is the same in every trial, and its "
                "epsilon is worthless anyway"
            )
        self.plan = Plan.build(config, layout=small_layout(config), base_digest=bytes(32))
        self.session = self.session_of(1)
        self._in_the_clear = self.plan.mode.needs_services
        # Made once for all plays: the scores of an audit do not depend on who signs.
        signed = self.plan.needs_identities and not self._in_the_clear
        self._authority = throwaway(self.plan, {}) if signed else None

    @property
    def remarks(self) -> list[str]:
        """The differences from a run, in words."""
        width = self.plan.layout.row_length
        found = [
            f"clients: whole rounds of an adapter of {width} values a row, with given changes instead of training"
        ]
        if self._in_the_clear:
            found.append("encrypted sums are added in the clear: they open the same integers")
        return found

    def session_of(self, number: int) -> Session:
        """Return the session of a round, from 1; it is the same in all plays."""
        return self.plan.session(run=bytes(RUN_ID_SIZE), round_number=number, attempt=1)

    def play(self, side: Side) -> Played:
        """Play the first round."""
        return self.play_rounds(side, 1)[0]

    def play_rounds(self, side: Side, rounds: int) -> list[Played]:
        """Play the first `rounds` rounds as a coordinator does: adapter, clients, noise and draws carry over."""
        reveals, uploads, watched = _Reveals(), dict[ClientId, Integers](), list[Watched]()
        found, adapter = list[Played](), self.plan.initial_adapter
        with federation(self._wiring(side, rounds, reveals, uploads, watched)) as built:
            for number in range(1, rounds + 1):
                session = self.session_of(number)
                outcome = built.play(session, adapter)
                found.append(
                    Played(
                        session=session,
                        before=adapter,
                        outcome=outcome,
                        sums=watched[0].opened,
                        uploads=dict(uploads),
                        reveals=tuple(reveals.of),
                    )
                )
                adapter = outcome.adapter
                uploads.clear()
                reveals.of.clear()
        return found

    def _wiring(
        self,
        side: Side,
        rounds: int,
        reveals: _Reveals,
        uploads: dict[ClientId, Integers],
        watched: list[Watched],
    ) -> Wiring:
        """Return the wiring of a federation of all clients that take part in `rounds` rounds and are present."""
        members = {name for number in range(1, rounds + 1) for name in self.session_of(number).members}
        clients = {
            name: LocalClient(
                train=partial(_train, side.changes.get(name)), examples=1, contribute=_recording(uploads)
            )
            for name in sorted(members)
            if not (side.before_keys and name in side.silent)
        }

        def connect(enrolment: Enrolment) -> Calls:
            return Calls(
                enrolment.participants(clients),
                late=side.silent,
                ended=side.ended,
                input_stage=enrolment.secure_sum.input_stage,
            )

        return Wiring(
            plan=self.plan,
            connect=connect,
            # The adapter belongs to no model, so nothing could be trained or tested on public examples.
            reference=None,
            public_tests=None,
            observers=[reveals],
            enrol=self._enrolled,
            watch=partial(_watch, watched),
            in_the_clear=self._in_the_clear,
        )

    def _enrolled(self, _plan: Plan, _services: Mapping[ClientId, bytes]) -> ThrowawayAuthority:
        if self._authority is None:
            raise AssertionError("a federation that signs has an authority")
        return self._authority


def _train(change: UpdateRows | None, adapter: Adapter, seed: int) -> Rows:  # noqa: ARG001  # nothing is drawn
    if change is None:
        return adapter.rows
    rows: Rows = (adapter.rows + change[: adapter.rank]).astype(np.float32)
    return rows


def _recording(uploads: dict[ClientId, Integers]) -> Callable[..., Integers]:
    """Return the honest contribution, with its uploads recorded."""

    def contribute(
        plan: Plan,
        session: Session,
        client: ClientId,
        change: UpdateRows,
        *,
        weight: float,
        noise_key: bytes,
        seeds: Seeds | None = None,
    ) -> Integers:
        found = contribution(plan, session, client, change, weight=weight, noise_key=noise_key, seeds=seeds)
        uploads[client] = {index: values.copy() for index, values in found.items()}
        return found

    return contribute


def _watch(watched: list[Watched], secure_sum: SecureSum) -> SecureSum:
    """Wrap a secure sum to record what the server opens; add the wrapper to `watched`."""
    watched.append(Watched(secure_sum))
    return watched[-1]
