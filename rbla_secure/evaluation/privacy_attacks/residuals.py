"""Whether an example was trained on, from what of its hidden embeddings lies outside of the observed change.

After the idea in the abstract of Deng et al. 2026 (ProjRes, arXiv 2604.21197): hidden embedding vectors stand for examples,
and their projection residuals on the gradient subspace tell members. Only the abstract was at hand; what follows is this
project's reading of it, for LoRA, and may differ from the paper's.

A step of gradient descent changes lora_A of a layer by  -rate * scaling * sum_x (B^T g_x) h_x^T,  so the rows of the change lie
in the span of the h_x: the inputs that the layer gets from the examples of the step, its hidden embeddings. Of such an
example nothing is left outside of the span if the inputs are no more than the rows; of another one something is.

    score(x) = - mean over layers of  |h - P h|^2 / |h|^2        P: onto the row space of the observed change of lora_A

The same for a sum of changes, whose row space is spanned by the inputs of all its clients. No shadow models, labels or
earlier rounds are needed, and no gradient of the example.

Where it loses: noise on the rows makes the row space nearly random (measured at 0.2 and 1 times the bound of a change, and of an
example); more inputs than rows are not spanned; with lora_B = 0, in the first step of a run, nothing is there to be projected on.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from rbla_secure.errors import DataError
from rbla_secure.evaluation.privacy_attacks.inversion import energy, recovered_span
from rbla_secure.evaluation.privacy_attacks.membership import Scored, Scores
from rbla_secure.lora.adapter import AdapterLayout
from rbla_secure.lora.update import UpdateRows

# By layer, shape (examples, in_features).
LayerInputs = Mapping[str, npt.NDArray[np.float64]]
# By layer, orthonormal rows, shape (k, in_features).
RowSpaces = Mapping[str, npt.NDArray[np.float64]]


def row_spaces(view: UpdateRows, layout: AdapterLayout) -> RowSpaces:
    """By layer, a basis of what the rows of the change of its lora_A span.

    Args:
        view: A change or a sum of changes as it is seen, shape (rank, row_length).
        layout: What its columns mean.
    """
    changes = {name: view[:, lora_A] for name, (lora_A, _) in layout.columns.items()}
    return {name: recovered_span(change, count=len(change)) for name, change in changes.items()}


def residuals(spaces: RowSpaces, inputs: LayerInputs) -> Scores:
    """By example, the mean over the layers of the share of its input's square norm outside of the layer's row space.

    Returns:
        Shape (examples,), in [0, 1] up to rounding; 1 where nothing is spanned. An input of zeros counts as outside.

    Raises:
        DataError: Row spaces and inputs are not of the same layers.
    """
    if spaces.keys() != inputs.keys():
        raise DataError(f"inputs are of layers {sorted(inputs)}, must be of {sorted(spaces)}")
    outside: Scores = np.mean([1 - energy(spaces[name], inputs[name]) for name in spaces], axis=0)
    return outside


def score(spaces: RowSpaces, *, members: LayerInputs, others: LayerInputs) -> Scored:
    """Attack one client in one view, given what every layer gets from its examples at the broadcast adapter."""
    return Scored(members=-residuals(spaces, members), others=-residuals(spaces, others))
