"""Updates as the tensors of their layers, and the sums that a server would be shown of them.

Rows are laid out, and sums are taken, in these few lines of their own: an average is checked against tensors, never
against the code that cut them into rows.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from rbla_secure.lora.adapter import AdapterLayout, LinearShape
from rbla_secure.lora.bands import Band, pack
from rbla_secure.lora.update import BandTotal, BoundedUpdate

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensors:
    """One client's change: A (rank x in) and B (out x rank) of every layer, and the client's weight."""

    A: Mapping[str, Array]
    B: Mapping[str, Array]
    weight: float

    @property
    def rank(self) -> int:
        return len(next(iter(self.A.values())))

    def rows(self) -> Array:
        """Row s: A[s, :] and B[:, s] of the first layer, then of the second, and so on."""
        parts = [part for name in self.A for part in (self.A[name], self.B[name].T)]
        return np.concatenate(parts, axis=1)


def make_layout(*sizes: tuple[int, int]) -> AdapterLayout:
    """Layers of these input and output sizes."""
    layers = tuple(
        LinearShape(name=f"layer{number}", in_features=inputs, out_features=outputs)
        for number, (inputs, outputs) in enumerate(sizes)
    )
    return AdapterLayout(layers=layers, scaling=2.0)


def draw_tensors(layout: AdapterLayout, *, rank: int, weight: float = 1.0, seed: int = 0) -> Tensors:
    """Normal A and B of every layer."""
    generator = np.random.default_rng(seed)
    return Tensors(
        A={layer.name: generator.standard_normal((rank, layer.in_features)) for layer in layout.layers},
        B={layer.name: generator.standard_normal((layer.out_features, rank)) for layer in layout.layers},
        weight=weight,
    )


def bounded(rows: Array, *, weight: float = 1.0) -> BoundedUpdate:
    """Rows as they are, under a bound they do not reach."""
    return BoundedUpdate(rows=rows, weight=weight, clip_norm=1.0 + float(np.linalg.norm(rows)))


def sum_totals(clients: Iterable[Tensors], bands: Sequence[Band]) -> dict[int, BandTotal]:
    """What the server is shown: per band that somebody holds, the sums over its holders."""
    sums: dict[int, Array] = {}
    weights: dict[int, float] = {}
    for client in clients:
        packed = pack(bounded(client.rows(), weight=client.weight), bands)
        for index, values in packed.bands.items():
            sums[index] = sums.get(index, 0.0) + values
            weights[index] = weights.get(index, 0.0) + client.weight
    return {
        index: BandTotal(weighted_sum=values, weight=weights[index], cut_off=0.0)
        for index, values in sums.items()
    }


@st.composite
def federations(
    draw: st.DrawFn, *, weights: st.SearchStrategy[float] | None = None
) -> tuple[AdapterLayout, list[Tensors]]:
    """A layout and clients of arbitrary ranks, weights and order."""
    sizes = draw(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=3))
    layout = make_layout(*sizes)
    weight = st.floats(0.01, 1.0) if weights is None else weights
    drawn = draw(st.lists(st.tuples(st.integers(1, 6), weight), min_size=1, max_size=6))
    seed = draw(st.integers(0, 2**32 - 1))
    clients = [
        draw_tensors(layout, rank=rank, weight=share, seed=seed + number)
        for number, (rank, share) in enumerate(drawn)
    ]
    return layout, clients
