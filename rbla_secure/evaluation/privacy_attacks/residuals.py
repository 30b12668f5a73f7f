"""Membership of an example, from the part of its hidden embeddings outside of the span of the observed change.

After the idea in the abstract of Deng et al. 2026 (ProjRes, arXiv 2604.21197): hidden embedding vectors stand for
examples, and their projection residuals on the gradient subspace identify members. Only the abstract was available;
what follows is this project's reading of it, for LoRA, and may differ from the paper's.

A step of gradient descent changes lora_A of a layer by  -rate * scaling * sum_x (B^T g_x) h_x^T,  so the rows of the change lie
in the span of the h_x: the inputs that the layer gets from the examples of the step, its hidden embeddings. Such an
example has no part outside of the span if there are no more inputs than rows; any other example has one.

    score(x) = - mean over layers of  |h - P h|^2 / |h|^2        P: onto the row space of the observed change of lora_A

The same holds for a sum of changes, whose row space is spanned by the inputs of all its clients. No shadow models,
labels or earlier rounds are needed, and no gradient of the example.

Where it fails: noise on the rows makes the row space nearly random (measured at 0.2 and 1 times the bound of a change,
and of an example); more inputs than rows are not spanned; with lora_B = 0, in the first step of a run, there is nothing
to project on.
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
    """Return, by layer, a basis of the row space of the change of its lora_A.

    Args:
        view: The observed change or sum of changes, shape (rank, row_length).
        layout: The adapted layers, by which its columns are ordered.
    """
    changes = {name: view[:, lora_A] for name, (lora_A, _) in layout.columns.items()}
    return {name: recovered_span(change, count=len(change)) for name, change in changes.items()}


def residuals(spaces: RowSpaces, inputs: LayerInputs) -> Scores:
    """Return, by example, the mean over layers of the share of its input's squared norm outside of the row space.

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
    """Score one client's examples in one view, given their inputs to every layer at the broadcast adapter."""
    return Scored(members=-residuals(spaces, members), others=-residuals(spaces, others))
