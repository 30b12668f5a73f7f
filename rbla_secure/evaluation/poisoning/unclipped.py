"""A client that skips its clip and fills the grid. In a masked sum only the norm of its group's sum shows it.

Its coordinates still lie in the range of an upload, which the ring and the sum's bound enforce; its norm is what the grid
allows, bound x sqrt(d), many times the clip norm.
"""

import numpy as np

from protocols.primitives.prg import UniformStream
from protocols.session import ClientId, Session
from rbla_secure.federation.client.contribution import cut
from rbla_secure.federation.noise_components import Seeds
from rbla_secure.federation.noise_shares import Integers
from rbla_secure.lora.bands import pack
from rbla_secure.lora.update import BoundedUpdate, UpdateRows, l2_norm
from rbla_secure.planning.plan import Plan
from rbla_secure.privacy.quantize import quantize
from rbla_secure.seeding import derive_key


def unclipped_contribution(
    plan: Plan,
    session: Session,
    client: ClientId,
    change: UpdateRows,
    *,
    weight: float,
    noise_key: bytes,  # noqa: ARG001  # a run without noise
    seeds: Seeds | None = None,  # noqa: ARG001
) -> Integers:
    """Return, instead of the honest contribution, the signs of a change times the largest value of the grid."""
    rows = np.sign(change) * plan.quantizer.bound
    update = BoundedUpdate(rows=rows, weight=weight, clip_norm=l2_norm(rows))
    stream = UniformStream(derive_key(plan.config.seed, "rounding", session.round, client))
    integers = quantize(
        pack(update, plan.bands, plan.columns), plan.quantizer, stream, weighted=plan.weighted
    )
    return cut(plan, session, client, integers)
