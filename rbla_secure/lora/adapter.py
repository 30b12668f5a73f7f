"""A LoRA adapter as one matrix of rank rows.

Rank row s of a layer is the pair (A[s, :], B[:, s]): the s-th rank-one term of B A. Laying the rows of all adapted
layers side by side turns an adapter into one matrix of shape (rank, row_length), on which everything RBLA does is
a row operation: a client of rank r holds the first r rows, a rank band is a range of rows.

    row s  =  [ A_1[s, :] | B_1[:, s] | A_2[s, :] | B_2[:, s] | ... ]

The scaling alpha / r is one constant of the whole federation, so a slice of the rows is a valid adapter as it stands.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt

from rbla_secure.errors import AdapterError

Rows = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearShape:
    """One adapted linear layer: its module path in the base model and its two sizes."""

    name: str
    in_features: int
    out_features: int


@dataclass(frozen=True, kw_only=True)
class AdapterLayout:
    """What every column of a row matrix means, and the scaling that the whole federation shares.

    Args:
        layers: The adapted layers in the order of the base model.
        scaling: alpha / r, the factor of B A in the layer's output. One constant for every rank.
    """

    layers: tuple[LinearShape, ...]
    scaling: float

    def __post_init__(self) -> None:
        if not self.layers:
            raise AdapterError("layers=() must name at least one linear layer")
        if len({layer.name for layer in self.layers}) != len(self.layers):
            raise AdapterError("layers must have distinct names")

    @cached_property
    def row_length(self) -> int:
        """Values in one rank row: the sum over the layers of in_features + out_features."""
        return sum(layer.in_features + layer.out_features for layer in self.layers)

    @cached_property
    def columns(self) -> dict[str, tuple[slice, slice]]:
        """For each layer, where its row of A and its column of B stand in a rank row."""
        found: dict[str, tuple[slice, slice]] = {}
        at = 0
        for layer in self.layers:
            middle, end = at + layer.in_features, at + layer.in_features + layer.out_features
            found[layer.name] = (slice(at, middle), slice(middle, end))
            at = end
        return found

    @cached_property
    def lora_B_columns(self) -> npt.NDArray[np.bool_]:
        """Shape (row_length,): true where a column belongs to a lora_B."""
        mask = np.zeros(self.row_length, dtype=np.bool_)
        for _, lora_B in self.columns.values():
            mask[lora_B] = True
        return mask


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Adapter:
    """The rank rows of one adapter.

    Args:
        layout: The meaning of the columns.
        rows: Shape (rank, row_length), float32, finite. Taken as read-only.
    """

    layout: AdapterLayout
    rows: Rows

    def __post_init__(self) -> None:
        if self.rows.shape[1:] != (self.layout.row_length,) or not len(self.rows):
            raise AdapterError(
                f"rows of shape {self.rows.shape} must be (rank >= 1, {self.layout.row_length})"
            )
        if self.rows.dtype != np.float32:
            raise AdapterError(f"rows of type {self.rows.dtype} must be float32")
        if not np.isfinite(self.rows).all():
            raise AdapterError("rows must be finite")
        self.rows.flags.writeable = False

    @classmethod
    def initial(cls, layout: AdapterLayout, *, rank: int, seed: int) -> Self:
        """The adapter every run starts from: A uniform in +-1/sqrt(in_features) (PEFT's default law), B zero.

        One seeded A for all: clients must differ from each other by their updates alone.
        """
        rows = np.zeros((rank, layout.row_length), dtype=np.float32)
        generator = np.random.default_rng(seed)
        for layer in layout.layers:
            lora_A, _ = layout.columns[layer.name]
            limit = layer.in_features**-0.5
            rows[:, lora_A] = generator.uniform(-limit, limit, size=(rank, layer.in_features))
        return cls(layout=layout, rows=rows)

    @property
    def rank(self) -> int:
        """How many rank rows the adapter has."""
        return len(self.rows)

    def sliced(self, rank: int) -> "Adapter":
        """The first `rank` rows: what a client of that rank holds."""
        if not 1 <= rank <= self.rank:
            raise AdapterError(f"rank={rank} must lie in 1..{self.rank}")
        return Adapter(layout=self.layout, rows=self.rows[:rank])

    def lora_A(self, name: str) -> Rows:
        """A of one layer, shape (rank, in_features)."""
        return self.rows[:, self.layout.columns[name][0]]

    def lora_B(self, name: str) -> Rows:
        """B of one layer, shape (out_features, rank)."""
        return self.rows[:, self.layout.columns[name][1]].T

    def digest(self) -> bytes:
        """SHA-256 of the rows (little-endian float32) and their shape."""
        shape = np.asarray(self.rows.shape, dtype="<u8").tobytes()
        return hashlib.sha256(b"rbla-secure adapter\x00" + shape + self.to_bytes()).digest()

    def to_bytes(self) -> bytes:
        """The rows as little-endian float32, row by row."""
        return np.ascontiguousarray(self.rows, dtype="<f4").tobytes()

    @classmethod
    def from_bytes(cls, layout: AdapterLayout, data: bytes) -> Self:
        """Inverse of :meth:`to_bytes`; the rank follows from the length.

        Raises:
            AdapterError: The length is no positive multiple of a row, or a value is not finite.
        """
        width = 4 * layout.row_length
        if not data or len(data) % width:
            raise AdapterError(f"{len(data)} adapter bytes must be a positive multiple of {width}")
        rows = np.frombuffer(data, dtype="<f4").reshape(-1, layout.row_length)
        return cls(layout=layout, rows=rows.astype(np.float32))
