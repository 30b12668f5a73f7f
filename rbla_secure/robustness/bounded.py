"""Filters that bound how far each whole update pulls: shortened, drawn to a center, or weighed by a reference.

Lengths, distances and cosines are taken over all open bands that a client holds, so that a client gains nothing by
spreading what it does over bands.
"""

import numpy as np
import numpy.typing as npt

from rbla_secure.robustness.updates import Updates
from rbla_secure.robustness.verdicts import Verdict

Numbers = npt.NDArray[np.float64]


def bounded_verdicts(updates: Updates, norms: Numbers, limit: str) -> dict[str, Verdict]:
    """Accept every client, and report the length of its update beside the limit.

    Args:
        updates: All updates of the round.
        norms: Shape (n,), in units of an update.
        limit: Name of the limit, for people.
    """
    return {
        client: Verdict(accepted=True, score=float(norm), reason=f"{limit}: length {norm:.4g}")
        for client, norm in zip(updates.clients, norms, strict=True)
    }
