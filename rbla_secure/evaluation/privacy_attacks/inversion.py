"""The inputs of a layer from one step's change of its lora_A.

One SGD step on a batch changes A by  -rate * scaling * sum_x (B^T g_x) x^T : every row is a combination of the batch's
inputs. With no more inputs than rank rows, and B != 0, the row space of the change *is* the span of the inputs. At the
first round B = 0 and A does not change: then nothing is recovered. (For language models: Unveiling gradients of LoRA,
arXiv 2601.17533; of images by a malicious server: PEFTLeak, arXiv 2506.04453.)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt

from rbla_secure.evaluation.statistics import Estimate, auc_by_client, mean

Matrix = npt.NDArray[np.float64]
Values = npt.NDArray[np.float64]

# Directions this much weaker than the strongest are rounding errors of float32.
_NEGLIGIBLE = 1e-5


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Recovery:
    """One attacked client.

    Args:
        members: By true input, its energy inside the recovered span, in [0, 1].
        others: The same for examples that the client owns and did not train on.
        single_row: The largest |cosine| of a row of the change with a true input.
    """

    members: Values
    others: Values
    single_row: float


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Inversion:
    """Span inversion over many clients.

    Args:
        energy: Mean energy of a true input inside the recovered span.
        others: Mean energy of examples that were not trained on: the level that similarity alone gives.
        membership: AUC of distinguishing the two by their energy.
        single_row: Mean over clients of the best |cosine| of a row with a true input: an image that a row shows
            directly.
    """

    energy: Estimate
    others: Estimate
    membership: Estimate
    single_row: Estimate


def recovered_span(lora_A_change: Matrix, *, count: int) -> Matrix:
    """Return an orthonormal basis of the strongest directions of a change of lora_A.

    Args:
        lora_A_change: Shape (rank, in_features).
        count: How many inputs are looked for.

    Returns:
        Shape (k, in_features), k at most `count`, `rank` and the numerical rank; k = 0 for a change of zeros.
    """
    _, sizes, directions = np.linalg.svd(lora_A_change, full_matrices=False)
    kept = sizes > _NEGLIGIBLE * sizes.max(initial=0.0)
    found: Matrix = directions[kept][:count]
    return found


def energy(span: Matrix, inputs: Matrix) -> Values:
    """Return, by input, the share of its squared norm that lies inside the span; 0 for an input of zeros."""
    inside = np.square(inputs @ span.T).sum(axis=1)
    whole = np.square(inputs).sum(axis=1)
    shares: Values = np.divide(inside, whole, out=np.zeros_like(whole), where=whole > 0)
    return shares


def best_row(lora_A_change: Matrix, inputs: Matrix) -> float:
    """The largest |cosine| between a row of the change and an input; 0 where all are zeros."""
    rows, images = _unit(lora_A_change), _unit(inputs)
    return float(np.abs(rows @ images.T).max(initial=0.0))


def recover(lora_A_change: Matrix, *, members: Matrix, others: Matrix, count: int) -> Recovery:
    """Attack one view.

    Args:
        lora_A_change: Change of lora_A of the layer that gets the inputs, shape (rank, in_features).
        members: Inputs that were trained on, shape (b, in_features).
        others: Inputs that were not trained on, shape (n, in_features).
        count: How many inputs all clients of the view trained on.
    """
    span = recovered_span(lora_A_change, count=count)
    return Recovery(
        members=energy(span, members),
        others=energy(span, others),
        single_row=best_row(lora_A_change, members),
    )


def summarize(recoveries: Sequence[Recovery], *, seed: int) -> Inversion:
    """Return the figures of many attacked clients, with intervals over clients."""
    return Inversion(
        energy=mean(np.array([recovery.members.mean() for recovery in recoveries]), seed=seed),
        others=mean(np.array([recovery.others.mean() for recovery in recoveries]), seed=seed),
        membership=auc_by_client(
            [recovery.members for recovery in recoveries],
            [recovery.others for recovery in recoveries],
            seed=seed,
        ),
        single_row=mean(np.array([recovery.single_row for recovery in recoveries]), seed=seed),
    )


def _unit(rows: Matrix) -> Matrix:
    norms = np.sqrt(np.square(rows).sum(axis=1, keepdims=True))
    unit: Matrix = np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)
    return unit
