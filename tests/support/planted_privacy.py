"""Faults of privacy claims, planted in the product's own code for as long as a test lasts."""

from collections.abc import Callable, Collection
from dataclasses import replace
from itertools import count
from math import sqrt
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from protocols.interface import SumResult
from protocols.primitives.prg import KEY_SIZE, UniformStream
from protocols.primitives.secret import SYSTEM_RANDOM
from protocols.session import ClientId, Session
from rbla_secure.federation import round as rounds
from rbla_secure.federation.client import contribution
from rbla_secure.federation.noise_shares import Integers
from rbla_secure.federation.secret_cohorts import Draws
from rbla_secure.federation.server import opened_totals as releases
from rbla_secure.federation.server import spending
from rbla_secure.federation.server.opened_totals import Released
from rbla_secure.federation.server.spending import Spending
from rbla_secure.lora.average import GroupAverage, Totals
from rbla_secure.lora.update import BoundedUpdate, ClientUpdate
from rbla_secure.planning import noise as planned_noise
from rbla_secure.planning import plan as plans
from rbla_secure.planning.noise import Views
from rbla_secure.planning.plan import Plan
from rbla_secure.privacy import sample_level
from rbla_secure.privacy.discrete_gaussian import discrete_gaussian
from rbla_secure.privacy.ledger import Observer, Shown
from rbla_secure.privacy.noise import CorrelatedNoise, GaussianMechanism
from rbla_secure.privacy.noise.banded_matrix import BandedMatrixGaussian, MatrixNoise
from rbla_secure.privacy.noise.distributed import DistributedDiscreteGaussian
from rbla_secure.privacy.noise.server_noise import ServerGaussian
from rbla_secure.privacy.sampled_gaussian import SampledGaussian
from rbla_secure.tasks import configured_training
from tests.support.single_examples import Loss, in_one_batch

Plant = Callable[[pytest.MonkeyPatch], None]


def bands_close_by_count(patch: pytest.MonkeyPatch) -> None:
    """Add-or-remove as it was: a band below min-holders shows nothing but noise, and neither does a round below a threshold."""
    honest = rounds.release

    def closing(
        plan: Plan,
        session: Session,
        mechanism: GaussianMechanism,
        sums: SumResult,
        correlated: CorrelatedNoise | None,
    ) -> Released:
        there = set(sums.survivors)
        opened = {
            index: values
            if len(there) >= plan.promises.threshold
            and len(there.intersection(session.segments[index].holders)) >= plan.promises.row_quorum
            else np.zeros_like(values)
            for index, values in sums.sums.items()
        }
        return honest(plan, session, mechanism, replace(sums, sums=opened), correlated)

    patch.setattr(rounds, "release", closing)


def everybody_is_counted(patch: pytest.MonkeyPatch) -> None:
    """Plain mode as it was: the ledger counts the noise of all members, whoever dropped out."""
    honest = spending.seen_by

    def all_members(
        plan: Plan, session: Session, mechanism: GaussianMechanism, _there: Collection[ClientId]
    ) -> Views:
        return honest(plan, session, mechanism, session.members)

    patch.setattr(spending, "seen_by", all_members)


def lowest_band_has_no_noise(patch: pytest.MonkeyPatch) -> None:
    """A server that forgets one band, in which every client has a part."""
    honest = ServerGaussian.open

    def careless(self: ServerGaussian, sums: Any, *arguments: Any, **others: Any) -> Any:
        return {**honest(self, sums, *arguments, **others), 0: sums[0]}

    patch.setattr(ServerGaussian, "open", careless)


def examples_in_one_batch(patch: pytest.MonkeyPatch) -> None:
    """Sample level as it was: gradients of single examples, but all computed side by side."""

    def careless(
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        loss: Loss,
        *,
        mechanism: SampledGaussian,
        batch_size: float,
        examples: int,
        stream: UniformStream,
        **_others: object,
    ) -> None:
        values = [value for value in model.parameters() if value.requires_grad]
        dimension = sum(value.numel() for value in values)
        batch = sample_level.poisson_batch(examples, mechanism.sample_rate, stream).tolist()
        summed = sample_level.clipped_sum(in_one_batch(model, loss, batch), mechanism)
        noisy = summed + discrete_gaussian(mechanism.noise_std(dimension), dimension, stream)
        sample_level._set_gradients(values, noisy.astype(np.float64) * (mechanism.unit / batch_size))
        optimizer.step()

    patch.setattr(configured_training, "train_privately", careless)


def own_number_of_examples(patch: pytest.MonkeyPatch) -> None:
    """Sample level as it was: a step is divided by the client's own expected batch."""
    honest = configured_training.train_privately

    def careless(*arguments: object, mechanism: SampledGaussian, examples: int, **others: object) -> None:
        others["batch_size"] = mechanism.sample_rate * examples
        honest(*arguments, mechanism=mechanism, examples=examples, **others)  # type: ignore[arg-type]

    patch.setattr(configured_training, "train_privately", careless)


def own_noise_is_counted(patch: pytest.MonkeyPatch) -> None:
    """A participant as it was: it is claimed to know nobody's noise, its own included."""
    honest = planned_noise.known_noise

    def nobodys(observer: Observer, colluding: int) -> int:
        return 0 if observer is Observer.PARTICIPANT else honest(observer, colluding)

    patch.setattr(planned_noise, "known_noise", nobodys)


def noise_is_missing(patch: pytest.MonkeyPatch) -> None:
    """Nine in ten clients add no noise."""
    honest, number = DistributedDiscreteGaussian.encode, count()

    def some(self: DistributedDiscreteGaussian, integers: Integers, stream: UniformStream) -> Integers:
        return integers if next(number) % 10 else honest(self, integers, stream)

    patch.setattr(DistributedDiscreteGaussian, "encode", some)


def clip_is_too_long(patch: pytest.MonkeyPatch) -> None:
    """Changes are clipped to four times the norm."""
    honest = contribution.clip

    def long(update: ClientUpdate, *, clip_norm: float) -> BoundedUpdate:
        return honest(update, clip_norm=4 * clip_norm)

    patch.setattr(contribution, "clip", long)


def only_holders_add_noise(patch: pytest.MonkeyPatch) -> None:
    """Shares are scaled for everyone, but only the holders of a row add them."""

    def scaled_for_all(self: DistributedDiscreteGaussian, _band: int) -> tuple[float, ...]:
        return (sqrt(self.variance() / self.members),)

    patch.setattr(DistributedDiscreteGaussian, "component_stds", scaled_for_all)


def rows_are_divided_first(patch: pytest.MonkeyPatch) -> None:
    """Clients add nothing; the server adds noise for everyone after it has divided."""
    honest = rounds.average

    def noised(plan: Plan, totals: Totals) -> GroupAverage:
        found, mechanism = honest(plan, totals), plan.mechanism
        assert mechanism is not None
        std = sqrt(mechanism.variance()) / plan.quantizer.scale / mechanism.members
        return replace(found, rows=found.rows + np.random.default_rng().normal(0, std, found.rows.shape))

    patch.setattr(rounds, "average", noised)
    patch.setattr(DistributedDiscreteGaussian, "encode", lambda _self, integers, _stream: integers)


def rounds_are_not_apart(patch: pytest.MonkeyPatch) -> None:
    """Noise and ledger are those of clients that stay away for some rounds, and those of the first round take part in every one."""
    one_turn_is_counted(patch)
    honest = plans.planned_cohort
    patch.setattr(plans, "planned_cohort", lambda config, _number: honest(config, 1))
    patch.setattr(MatrixNoise, "_check_apart", lambda *_: None)


def norm_of_the_column_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    """Noise is scaled for the sum of a round, and added to what the matrix has combined of several."""

    def of_one_round(self: BandedMatrixGaussian, _band: int) -> tuple[float, ...]:
        return (sqrt(self.variance()),)

    patch.setattr(BandedMatrixGaussian, "component_stds", of_one_round)


def one_turn_is_counted(patch: pytest.MonkeyPatch) -> None:
    """The ledger counts the first round of a client, and none that follows."""
    honest = Spending.before_reveal

    def once(self: Spending, session: Session, part: Shown, contributors: Collection[ClientId]) -> None:
        counted = {client for entry in self.ledger.entries for client in entry.clients}
        if new := [client for client in contributors if client not in counted]:
            honest(self, session, part, new)

    patch.setattr(Spending, "before_reveal", once)


def noise_is_used_again(patch: pytest.MonkeyPatch) -> None:
    """All rounds of a run have the noise of its first one: what a client adds shows in their differences."""
    keys = [SYSTEM_RANDOM(KEY_SIZE)]

    def first(_plan: Plan, session: Session, _party: str) -> bytes:
        if session.round == 1:
            keys[0] = SYSTEM_RANDOM(KEY_SIZE)
        return keys[0]

    patch.setattr(releases, "noise_key", first)


def everybody_is_drawn(patch: pytest.MonkeyPatch) -> None:
    """Draws are made, and everybody takes part in every round all the same."""
    patch.setattr(Draws, "takes_part", lambda _self, _number: True)
