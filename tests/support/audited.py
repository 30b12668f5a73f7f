"""The real pipeline from a client's change to the averaged rows, run thousands of times at once, with planted faults.

A run is one column block of a very wide adapter: noise, modular sum, decoding and division are the functions of the
package, applied to all runs together. Clipping and rounding bound a whole update, so they are called once per run.
"""

from collections.abc import Mapping
from dataclasses import replace
from enum import Enum
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from protocols.interface import SumResult
from protocols.primitives.prg import UniformStream
from protocols.ring import centred, to_ring
from protocols.session import ClientId, Session
from rbla_secure.config import Config
from rbla_secure.federation.round import average
from rbla_secure.federation.server.opened_totals import release
from rbla_secure.lora.adapter import AdapterLayout, LinearShape
from rbla_secure.lora.bands import pack, spread
from rbla_secure.lora.update import ClientUpdate, PackedUpdate
from rbla_secure.planning.plan import Plan
from rbla_secure.privacy.clipping import clip
from rbla_secure.privacy.discrete_gaussian import discrete_gaussian
from rbla_secure.privacy.noise import GaussianMechanism
from rbla_secure.privacy.quantize import quantize_values

# 16 clients, 4 rank rows of 8 values: 32 coordinates a run; rows 3-4 have six holders.
TIERS = {"large": {"rank": 4, "clients": 6}, "small": {"rank": 2, "clients": 10}}
WIDTH, RANK, THIN = 8, 4, 6
WEIGHTS = {"band_weights": "holders", "rank_decay": 2.0}
CANARY: ClientId = "large-01"


class Fault(Enum):
    """What is wrong with a pipeline."""

    NONE = "nothing"
    HOLDERS_ONLY = "shares are scaled for everyone, but only the holders of a row add them"
    HALF_MISSING = "every other client adds no noise"
    DOUBLE_CLIP = "updates are clipped to twice the claimed norm"
    DIVISION_FIRST = "rows are divided first, and noise for the whole cohort is added after"
    HEAVY_WEIGHT = "the canary weighs one and a half"
    CLIPPED_FIRST = "an update is clipped before its rank bands are weighted"


@lru_cache
def plan_of(runs: int, upload: str = "banded", *, weighted: bool = False) -> Plan:
    """The plan whose adapter has one block of columns per run; weighted, its thin rows count double before the clip."""
    config = Config.model_validate(
        {
            "tiers": TIERS,
            "secure_sum": "masking",
            "upload": upload,
            "noise_multiplier": 1.2,
            "clip_norm": 1.0,
            "quantization": {
                "bound": 0.5
            },  # no clipped value is longer, and rounding adds little to the sensitivity
            "privacy": {"colluders": 0, **(WEIGHTS if weighted else {})},
        }
    )
    # lora_A has all columns but one, which PEFT's format needs for lora_B; it stays empty.
    layer = LinearShape(name="runs", in_features=runs * WIDTH - 1, out_features=1)
    layout = AdapterLayout(layers=(layer,), scaling=1.0)
    return Plan.build(config, layout=layout, base_digest=bytes(32))


def session_of(plan: Plan) -> Session:
    """A round over everyone."""
    return plan.session(run=bytes(16), round_number=1, attempt=1, cohort=tuple(plan.ranks))


def scores(
    plan: Plan, runs: int, *, canary: bool, fault: Fault = Fault.NONE, seed: int = 0
) -> npt.NDArray[np.float64]:
    """What an attacker reads off each run's averaged thin rows, who knows the canary's direction."""
    session = session_of(plan)
    mechanism = plan.mechanism_of(session)
    assert mechanism is not None
    uploads = {
        client: _upload(plan, session, mechanism, client, runs, canary=canary, fault=fault, seed=seed)
        for client in session.members
    }
    sums = _modular_sums(session, uploads)
    totals = release(plan, session, mechanism, sums).totals
    rows = average(plan, spread(totals, plan.bands, plan.columns)).rows
    if fault is Fault.DIVISION_FIRST:
        std = np.sqrt(mechanism.variance()) / plan.quantizer.scale / len(session.members)
        rows = rows + np.random.default_rng(seed).normal(0, std, rows.shape)
    # The canary lies in the thin rows, evenly.
    return rows[2:].reshape(2, runs, WIDTH).sum(axis=(0, 2))


def _upload(
    plan: Plan,
    session: Session,
    mechanism: GaussianMechanism,
    client: ClientId,
    runs: int,
    *,
    canary: bool,
    fault: Fault,
    seed: int,
) -> Mapping[int, npt.NDArray[np.int64]]:
    blank = {
        segment.index: np.zeros(segment.length, dtype=np.int64) for segment in session.segments_of(client)
    }
    if canary and client == CANARY:
        blank |= _canary(plan, runs, fault, seed)
    number = session.position(client)
    stream = UniformStream(seed.to_bytes(8, "big") + bytes([canary, number]) + bytes(6))
    if fault is Fault.DIVISION_FIRST or (fault is Fault.HALF_MISSING and number % 2):
        return blank
    if fault is Fault.HOLDERS_ONLY:
        share = np.sqrt(mechanism.variance() / len(session.members))
        return {i: values + discrete_gaussian(share, len(values), stream) for i, values in blank.items()}
    return mechanism.add_noise(blank, stream)


def _canary(plan: Plan, runs: int, fault: Fault, seed: int) -> dict[int, npt.NDArray[np.int64]]:
    """Three times too long in the thin rows; clipped, weighted and rounded anew in every run."""
    rows = np.zeros((RANK, WIDTH))
    rows[2:] = 3 / np.sqrt(2 * WIDTH)
    clip_norm = 2.0 if fault is Fault.DOUBLE_CLIP else plan.config.clip_norm
    rounding = UniformStream(seed.to_bytes(16, "big"))
    blocks = []
    first = np.ones_like(plan.row_weights) if fault is Fault.CLIPPED_FIRST else plan.row_weights
    for _ in range(runs):
        packed = pack(clip(ClientUpdate(rows=first * rows, weight=1.0), clip_norm=clip_norm), plan.bands)
        if fault is Fault.CLIPPED_FIRST:
            packed = PackedUpdate(
                bands={index: plan.band_weights[index] * values for index, values in packed.bands.items()},
                weight=1.0,
                norm_bound=max(plan.band_weights) * packed.norm_bound,
            )
        if fault is Fault.HEAVY_WEIGHT:
            packed = PackedUpdate(
                bands={index: 1.5 * values for index, values in packed.bands.items()},
                weight=1.0,  # as it says: one of 1.5 cannot be packed
                norm_bound=1.5 * packed.norm_bound,
            )
        blocks.append(quantize_values(packed, replace(plan.quantizer), rounding))
    return {
        index: np.concatenate([block[index].reshape(-1, WIDTH) for block in blocks], axis=1).ravel()
        for index in blocks[0]
    }


def _modular_sums(
    session: Session, uploads: Mapping[ClientId, Mapping[int, npt.NDArray[np.int64]]]
) -> SumResult:
    sums = {}
    for segment in session.segments:
        total = np.zeros(segment.length, dtype=np.uint32)
        for client in segment.members:
            total += to_ring(uploads[client][segment.index])
        sums[segment.index] = centred(total, bits=session.ring_bits)
    return SumResult(survivors=session.members, sums=sums, refused={})
