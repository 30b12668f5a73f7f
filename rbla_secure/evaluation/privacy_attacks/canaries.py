"""Many canaries in one run of the pipeline, and each party's scores of which were included: for the one-run audit.

Whose epsilon is audited decides what a canary is (privacy/one_run.py has the bound, and the paper):

    client level   clients whose update is a direction of their own, as long as the clip norm, or zero, by coin. Each
                   round runs clip, pack, quantize and noise of every client, modular sum, the server's noise, division,
                   and the step of the adapter; masks and encryption, which cancel, are left out. An included canary is
                   so in every round, which makes it as visible as a client can be.
    sample level   examples among one client's own, or absent, by coin. It runs the training that the caller gives.

The directions of client canaries are random and orthogonal, so that no canary disturbs another's score. Gradients of canary
examples are not orthogonal; the linear estimator of least mean square error separates them (Kay 1993, section 12.3).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt

from protocols.interface import SumResult
from protocols.ring import IntegerVector, centred, to_ring
from protocols.session import RUN_ID_SIZE, ClientId, Session
from rbla_secure.errors import PrivacyError
from rbla_secure.evaluation.privacy_attacks.views import random_groups
from rbla_secure.federation.client.contribution import contribution
from rbla_secure.federation.noise_shares import noise_key
from rbla_secure.federation.round import average
from rbla_secure.federation.server.opened_totals import release
from rbla_secure.lora.adapter import Adapter
from rbla_secure.lora.average import apply_average
from rbla_secure.lora.bands import held_bands, spread
from rbla_secure.lora.update import UpdateRows
from rbla_secure.planning.cohort import cohort_size
from rbla_secure.planning.plan import Plan
from rbla_secure.privacy.figures import exact
from rbla_secure.privacy.noise import noise_kind
from rbla_secure.privacy.one_run import CONFIDENCE, Coins, OneRunAudit, Scores, one_run
from rbla_secure.privacy.quantize import dequantize
from rbla_secure.seeding import derive_seed

# The global adapter -> the changes of the clients that are no canaries.
Train = Callable[[Adapter], Mapping[ClientId, UpdateRows]]
Uploads = Mapping[ClientId, Mapping[int, IntegerVector]]
# Which canary examples are included -> the change of the rows by the client's training.
TrainOn = Callable[[Coins], UpdateRows]

# The size of a group that stands for everybody: what all readers of the adapters see.
ADAPTERS = 0


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trial:
    """One run with canaries.

    Args:
        included: Which canaries were included, shape (m,).
        scores: By size of the groups whose sums are seen, or :data:`ADAPTERS` for the adapters: shape (m,).
    """

    included: Coins
    scores: Mapping[int, Scores]

    def audit(
        self,
        group: int = ADAPTERS,
        *,
        delta: float,
        guesses: int | None = None,
        confidence: float = CONFIDENCE,
    ) -> OneRunAudit:
        """The lower bounds in one view; arguments as :func:`rbla_secure.privacy.one_run.one_run`."""
        return one_run(self.scores[group], self.included, delta=delta, guesses=guesses, confidence=confidence)


def client_level(
    plan: Plan,
    *,
    canaries: Sequence[ClientId],
    rounds: int = 1,
    train: Train | None = None,
    groups: Iterable[int] = (),
    seed: int,
) -> Trial:
    """Run rounds of the plan in which some clients are canaries.

    Args:
        plan: One sum per band over all, without recovered drop-out; everybody takes part in every round, with noise of its own.
        canaries: Clients of one rank, no more than they have values.
        rounds: Number of rounds to run, from round 1.
        train: Training of the other clients; without it their changes are zero.
        groups: Sizes of groups of canaries, drawn anew in every round, whose sums of uploads are scored too; 1 is every upload
            alone. They lack noise of the server, which is added after the sum.
        seed: Seed of coins, directions and groups. The noise is the plan's own.

    Raises:
        PrivacyError: The canaries are not of one rank, or more than they have values; or the plan's claim rests on who takes part
            in a round, or its noise on other rounds.
    """
    _check_everybody_takes_part(plan)
    generator = np.random.default_rng(derive_seed(seed, "client canaries"))
    ranks = {plan.ranks[client] for client in canaries}
    if len(ranks) != 1:
        raise PrivacyError(f"canaries have ranks {sorted(ranks)}, must be of one")
    directions = _directions(plan, rank=ranks.pop(), count=len(canaries), generator=generator)
    included = _coins(len(canaries), generator)
    sizes = (ADAPTERS, *groups)
    scores = {size: np.zeros(len(canaries)) for size in sizes}
    adapter = plan.initial_adapter
    for number in range(1, rounds + 1):
        session = plan.session(run=bytes(RUN_ID_SIZE), round_number=number, attempt=1)
        changes = dict(train(adapter)) if train else {}
        for client, direction, coin in zip(canaries, directions, included, strict=True):
            changes[client] = direction * (plan.clip_norm_of(session) * bool(coin))
        uploads = {client: _upload(plan, session, client, changes) for client in session.members}
        for size in sizes[1:]:
            for chosen in random_groups(len(canaries), size, generator):
                summed = _summed(session, uploads, [canaries[k] for k in chosen])
                scores[size][chosen] += _scores_of_sum(plan, summed, directions[chosen])
        moved = _moved(plan, session, uploads, adapter)
        scores[ADAPTERS] += _scores_of_step(plan, session, adapter, moved, directions)
        adapter = moved
    return Trial(included=included, scores=scores)


def example_level(
    train: TrainOn,
    gradients: npt.NDArray[np.float32],
    *,
    unit: float,
    clip_norm: float,
    noise: float,
    seed: int,
    expected: UpdateRows | None = None,
) -> Trial:
    """Train one client once, with canaries among its examples.

    Args:
        train: The client's training, which adds the canaries that are included to its examples.
        gradients: Gradients of the canaries' losses where training starts, shape (m, rank, row_length).
        unit: How far an example whose gradient is as long as the clip norm moves the rows, if it is in every batch:
            rate * steps * clip norm / divisor for plain steps.
        clip_norm: L2 bound of one example's gradient.
        noise: Standard deviation of all noise in a coordinate of the change, in units of `unit`. Only the attacker's
            estimator uses it: a wrong value makes it weaker.
        seed: Seed of the coins.
        expected: How far the client's other examples move the rows, as far as the attacker knows.
    """
    included = _coins(len(gradients), np.random.default_rng(derive_seed(seed, "example canaries")))
    change = train(included) - (0.0 if expected is None else expected)
    flat = gradients.reshape(len(gradients), -1).astype(np.float64)
    norms = np.sqrt(np.square(flat).sum(axis=1, keepdims=True))
    directions = flat / np.maximum(norms, clip_norm)
    # Change = -(coins @ directions + noise), as far as gradients stay as they are at the start.
    seen = directions @ (-change.ravel() / unit)
    products = directions @ directions.T
    mean = products.sum(axis=1) / 2
    # A coin less one half has variance 1/4.
    scores: Scores = np.linalg.solve(products + 4 * noise**2 * np.eye(len(flat)), seen - mean)
    return Trial(included=included, scores={ADAPTERS: scores})


def _check_everybody_takes_part(plan: Plan) -> None:
    """Refuse a plan in which some client misses rounds: included canaries take part in every one."""
    privacy = plan.config.privacy
    if privacy.sample_rate < 1:
        raise PrivacyError(
            f"privacy.sample-rate={exact(privacy.sample_rate)} must be 1: canaries take part in every round, and a claim that "
            "rests on secret draws would be refuted although it is true"
        )
    if noise_kind(privacy.mechanism).takes_turns:
        raise PrivacyError(
            f"privacy.mechanism={privacy.mechanism} must be distributed or central: canaries take part in every round, and "
            "noise that cancels over rounds is for clients that do not"
        )
    for name, tier in plan.config.tiers.items():
        if cohort_size(tier) != tier.clients:
            raise PrivacyError(
                f"tiers.{name}.cohort={tier.cohort} must be 0: canaries take part in every round"
            )


def _coins(count: int, generator: np.random.Generator) -> Coins:
    return generator.integers(0, 2, size=count).astype(np.bool_)


def _directions(
    plan: Plan, *, rank: int, count: int, generator: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Return random orthonormal updates in the uploaded columns, shape (count, rank, row_length)."""
    values = rank * int(plan.columns.sum())
    if count > values:
        raise PrivacyError(f"{count} canaries must be at most {values}, the values that each of them sends")
    basis, _ = np.linalg.qr(generator.standard_normal((values, count)))
    directions = np.zeros((count, rank, len(plan.columns)))
    directions[:, :, plan.columns] = basis.T.reshape(count, rank, -1)
    return directions


def _upload(
    plan: Plan, session: Session, client: ClientId, changes: Mapping[ClientId, UpdateRows]
) -> Mapping[int, IntegerVector]:
    blank = np.zeros((plan.ranks[client], len(plan.columns)))
    key = noise_key(plan, session, client)
    return contribution(plan, session, client, changes.get(client, blank), weight=1.0, noise_key=key)


def _summed(session: Session, uploads: Uploads, clients: Iterable[ClientId]) -> dict[int, IntegerVector]:
    """Return, by segment, the sum that the secure sum over some clients opens."""
    totals: dict[int, npt.NDArray[np.uint32]] = {}
    for client in clients:
        for index, values in uploads[client].items():
            blank = np.zeros(session.segments[index].length, dtype=np.uint32)
            totals[index] = totals.get(index, blank) + to_ring(values)
    return {index: centred(total, bits=session.ring_bits) for index, total in totals.items()}


def _moved(plan: Plan, session: Session, uploads: Uploads, adapter: Adapter) -> Adapter:
    """Return the adapter after the round."""
    sums = _summed(session, uploads, session.members)
    mechanism = plan.mechanism_of(session)
    if mechanism is None:
        holders = {index: len(session.segments[index].holders) for index in sums}
        totals = dequantize(sums, plan.quantizer, holders=holders)
    else:
        opened = SumResult(survivors=session.members, sums=sums, refused={})
        totals = dict(release(plan, session, mechanism, opened).totals)
    averaged = average(plan, spread(totals, plan.bands, plan.columns))
    return apply_average(adapter, averaged, learning_rate=plan.config.server_learning_rate)


def _scores_of_step(
    plan: Plan, session: Session, before: Adapter, after: Adapter, directions: npt.NDArray[np.float64]
) -> Scores:
    """Score a step: times the public denominators it is the sum again, whose noise is the same in every row."""
    step = (after.rows.astype(np.float64) - before.rows) / plan.config.server_learning_rate
    for band in held_bands(plan.bands, directions.shape[1]):
        step[band.start : band.stop] *= len(session.segments[band.index].holders)
    flat: Scores = directions.reshape(len(directions), -1) @ step[: directions.shape[1]].ravel()
    return flat


def _scores_of_sum(
    plan: Plan, sums: Mapping[int, IntegerVector], directions: npt.NDArray[np.float64]
) -> Scores:
    """Score a sum of uploads as it was opened."""
    rows = np.zeros(directions.shape[1:])
    for band in held_bands(plan.bands, len(rows)):
        # Without noise a client's statistics stand behind its values.
        values = sums[band.index][: band.height * int(plan.columns.sum())] / plan.quantizer.scale
        rows[band.start : band.stop, plan.columns] = values.reshape(band.height, -1)
    flat: Scores = directions.reshape(len(directions), -1) @ rows.ravel()
    return flat
