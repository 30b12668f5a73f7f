"""Membership of an example: training on it has pulled the change against its own gradient.

    score(x) = - < gradient of the loss of x at the broadcast adapter, observed change >

Whoever knows the adapter and an example can compute it, from a single change or from a sum that contains the change
(alignment tests: Nasr, Shokri, Houmansadr 2019, arXiv 1812.00910; Li et al. 2022, arXiv 2206.08297).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt

from rbla_secure.evaluation.statistics import Estimate, auc_by_client
from rbla_secure.lora.update import UpdateRows

Scores = npt.NDArray[np.float64]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scored:
    """One attacked client: scores of examples that it trained on, and of others that it owns."""

    members: Scores
    others: Scores


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """Membership inference over many clients.

    Args:
        auc: AUC over the scores of all clients together, with the interval of resampled clients.
        examples: How many examples were scored.
    """

    auc: Estimate
    examples: int


def alignment(gradients: npt.NDArray[np.float32], view: UpdateRows) -> Scores:
    """Return, by example, how far the view points against its gradient.

    Args:
        gradients: Shape (n, rank of the attacked client, row_length).
        view: Shape (at least that rank, row_length); rows beyond the client's are left out.
    """
    rank = gradients.shape[1]
    # In float32, as the gradients are: a copy of them for every view would cost more than the attack.
    products = gradients.reshape(len(gradients), -1) @ view[:rank].ravel().astype(np.float32)
    scores: Scores = -products.astype(np.float64)
    return scores


def score(view: UpdateRows, *, members: npt.NDArray[np.float32], others: npt.NDArray[np.float32]) -> Scored:
    """Score one client's examples in one view, given their gradients."""
    return Scored(members=alignment(members, view), others=alignment(others, view))


def summarize(scored: Sequence[Scored], *, seed: int) -> Membership:
    """Return the figures of many attacked clients."""
    return Membership(
        auc=auc_by_client([one.members for one in scored], [one.others for one in scored], seed=seed),
        examples=sum(len(one.members) + len(one.others) for one in scored),
    )
