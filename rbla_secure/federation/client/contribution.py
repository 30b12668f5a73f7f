"""Conversion of a client's change into its integers: bound, pack, quantize, add noise. Run by the client.

    change -> weights of bands -ClientUpdate-> clip -> pack -> quantize [-> count -> noise] -> integers per band

With noise on, nothing else depends on the data: weights are public, cut-off coordinates are not counted, a change that is
not finite counts as zero, and every integer, padding included, carries this client's share of the noise.

Where rows are trained in turns, each rank band goes this way alone, with its part of the clip norm and a stream of its own for
the rounding, and a band whose training diverged counts as zero, as do those after it, which were not trained. So what is sent
of a band, before noise, is one function of model, examples, seed and client's name, whatever the client's rank.
"""

import logging
from collections.abc import Callable
from functools import partial
from typing import Protocol

import numpy as np

from protocols.primitives.prg import UniformStream
from protocols.session import ClientId, Session
from rbla_secure.config.choices import Clipping, Weighting
from rbla_secure.errors import UpdateError
from rbla_secure.federation.noise_components import Seeds, add_components
from rbla_secure.federation.noise_shares import Integers
from rbla_secure.lora.bands import Band, held_bands, pack
from rbla_secure.lora.update import BoundedUpdate, ClientUpdate, PackedUpdate, UpdateRows
from rbla_secure.planning.plan import Plan
from rbla_secure.privacy.clipping import clip, clip_per_layer, is_unclipped, part_norm
from rbla_secure.privacy.noise import GaussianMechanism
from rbla_secure.privacy.quantize import Quantizer, quantize, quantize_values
from rbla_secure.seeding import derive_key

_LOG = logging.getLogger(__name__)

_Quantize = Callable[[PackedUpdate, Quantizer, UniformStream], Integers]


class Contribute(Protocol):
    """A function that turns a client's change into summands: :func:`contribution`, or a cheat's in an evaluation."""

    def __call__(
        self,
        plan: Plan,
        session: Session,
        client: ClientId,
        change: UpdateRows,
        *,
        weight: float,
        noise_key: bytes,
        seeds: Seeds | None = None,
    ) -> Integers:
        """Return a client's summand of every segment, with the arguments of :func:`contribution`."""


def contribution(
    plan: Plan,
    session: Session,
    client: ClientId,
    change: UpdateRows,
    *,
    weight: float,
    noise_key: bytes,
    seeds: Seeds | None = None,
) -> Integers:
    """Return a client's summand of every segment it uploads.

    Args:
        plan: The client's own plan.
        session: The session of the round; it names the clip norm.
        client: The client's name.
        change: Trained rows minus broadcast rows, shape (rank, row_length), before the plan's weights of bands.
        weight: The client's weight, in [least weight, 1]; 1 where weights are uniform, as under noise.
        noise_key: 16 secret bytes, fresh for every session; not used without noise.
        seeds: The seeds of the removable noise components, where the plan has any.

    Raises:
        UpdateError: Without noise: the change is not finite; in turns, already in the lowest band.
        ValueError: The seeds are not those that the plan needs.
    """
    mechanism = plan.mechanism_of(session)
    # Before the clip: the norm that is bounded is that of what is sent.
    change = plan.row_weights[: len(change)] * change
    if plan.promises.bands_alone:
        change = _until_diverged(plan, session, client, change)
    if mechanism is None:
        update = ClientUpdate(rows=change, weight=weight)
        integers = _rounded(plan, session, client, update, partial(quantize, weighted=plan.weighted))
        return cut(plan, session, client, integers)
    update = _presentable(change, weight)
    integers = _rounded(plan, session, client, update, quantize_values)
    if mechanism.count_unit:
        integers[0] = np.append(integers[0], _vote(update, mechanism))
    integers = plan.segmentation.uploaded(session, client, integers)
    noisy = mechanism.encode(integers, UniformStream(noise_key))
    integers = add_components(noisy, mechanism, seeds or {})
    return plan.segmentation.by_segment(session, client, integers)


def cut(plan: Plan, session: Session, client: ClientId, integers: Integers) -> Integers:
    """Cut a client's integers by band into those of its segments, where they get no noise of their own."""
    segmentation = plan.segmentation
    return segmentation.by_segment(session, client, segmentation.uploaded(session, client, integers))


def weight_of(plan: Plan, examples: int) -> float:
    """Return the weight of a client with this many examples, as its upload states it: 1 where weights are uniform."""
    uniform = plan.config.weights is Weighting.UNIFORM
    claimed = 1.0 if uniform else max(plan.least_weight, examples / plan.config.examples_cap)
    return plan.quantizer.round_weight(min(1.0, claimed))


def _presentable(change: UpdateRows, weight: float) -> ClientUpdate:
    """Replace a change that is not finite by zero: a refusal would show the server that the data made it so."""
    try:
        return ClientUpdate(rows=change, weight=weight)
    except UpdateError:
        return ClientUpdate(rows=np.zeros_like(change), weight=weight)


def _until_diverged(plan: Plan, session: Session, client: ClientId, change: UpdateRows) -> UpdateRows:
    """Zero, in turns, the first band that is not finite and those after it; lower bands were trained without it.

    A client that diverged in its lowest band is refused, whatever its rank, as in training together: nothing of it is left.
    """
    for band in held_bands(plan.bands, len(change)):
        if np.isfinite(change[band.start : band.stop]).all():
            continue
        if not band.start:
            return change
        _LOG.warning(
            "%s: training diverged in round %d: %s and above count as unchanged", client, session.round, band
        )
        kept = change.copy()
        kept[band.start :] = 0.0
        return kept
    return change


def _rounded(
    plan: Plan, session: Session, client: ClientId, update: ClientUpdate, quantized: _Quantize
) -> Integers:
    """Clip, pack and round: all bands together, or each alone."""
    seed, clip_norm = plan.config.seed, plan.clip_norm_of(session)
    if not plan.promises.bands_alone:
        bands = pack(_bounded(plan, update, clip_norm), plan.bands, plan.columns)
        stream = UniformStream(derive_key(seed, "rounding", session.round, client))
        return quantized(bands, plan.quantizer, stream)
    integers: Integers = {}
    for band in held_bands(plan.bands, len(update.rows)):
        part = ClientUpdate(rows=update.rows[band.start : band.stop], weight=update.weight)
        bounded = _bounded(plan, part, part_norm(clip_norm, len(plan.bands)))
        alone = Band(index=band.index, start=0, stop=band.height)
        stream = UniformStream(derive_key(seed, "rounding", session.round, client, band.index))
        integers |= quantized(pack(bounded, [alone], plan.columns), plan.quantizer, stream)
    return integers


def _bounded(plan: Plan, update: ClientUpdate, clip_norm: float) -> BoundedUpdate:
    if plan.config.privacy.clipping is Clipping.PER_LAYER:
        return clip_per_layer(update, plan.layout.columns, clip_norm=clip_norm)
    return clip(update, clip_norm=clip_norm)


def _vote(update: ClientUpdate, mechanism: GaussianMechanism) -> int:
    unclipped = is_unclipped(update, clip_norm=mechanism.clip_norm)
    return mechanism.count_unit if unclipped else -mechanism.count_unit
