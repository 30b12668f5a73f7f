"""A LoRA adapter as one matrix of rank rows.

Rank row s of a layer is the pair (A[s, :], B[:, s]): the s-th rank-one term of B A. Laying the rows of all adapted
layers side by side turns an adapter into one matrix of shape (rank, row_length), on which everything RBLA does is
a row operation: a client of rank r holds the first r rows, a rank band is a range of rows.

    row s  =  [ A_1[s, :] | B_1[:, s] | A_2[s, :] | B_2[:, s] | ... ]

The scaling alpha / r is one constant of the whole federation, so a slice of the rows is a valid adapter as it stands.

A client of rank r trains the first r rows. What becomes of the others in its round is the federation's choice: dropped
(:meth:`Adapter.sliced`: the client computes another function than one of larger rank), or folded
(:meth:`Adapter.folded`: they stay part of the function and are not trained).
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
    """The meaning of every column of a row matrix, and the scaling that the whole federation shares.

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
        rows: Shape (rank, row_length), float32, finite. Taken as read-only. What is trained, averaged and stored:
            rank, digest, bytes and factors are those of these rows alone.
        rest: Shape (k >= 1, row_length), as `rows`, or None. Rows of the model beyond `rows` that are part of the
            function and are not trained (:mod:`rbla_secure.lora.fold`). Whoever must vouch for the function, not for
            the rows, takes the digest of :meth:`whole`.

    Raises:
        AdapterError: Shape, type or values of `rows` or `rest` are not as said.
    """

    layout: AdapterLayout
    rows: Rows
    rest: Rows | None = None

    def __post_init__(self) -> None:
        _check(self.rows, self.layout, "rows", "rank")
        if self.rest is not None:
            _check(self.rest, self.layout, "rest", "k")

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
        """The number of rank rows."""
        return len(self.rows)

    def sliced(self, rank: int) -> "Adapter":
        """The first `rank` rows and nothing else: what a client of that rank holds where other rows are dropped."""
        return Adapter(layout=self.layout, rows=self.rows[: self._checked(rank)])

    def folded(self, rank: int) -> "Adapter":
        """The same function with the first `rank` rows to train and all others as the rest (None: there are none)."""
        own, beyond = self.rows[: self._checked(rank)], self.rows[rank:]
        rest = beyond if self.rest is None else np.concatenate([beyond, self.rest])
        return Adapter(layout=self.layout, rows=own, rest=rest if len(rest) else None)

    def whole(self) -> "Adapter":
        """The same function with every row as a row: the inverse of :meth:`folded`."""
        if self.rest is None:
            return self
        return Adapter(layout=self.layout, rows=np.concatenate([self.rows, self.rest]))

    def lora_A(self, name: str) -> Rows:
        """A of one layer, shape (rank, in_features)."""
        return self.rows[:, self.layout.columns[name][0]]

    def lora_B(self, name: str) -> Rows:
        """B of one layer, shape (out_features, rank)."""
        return self.rows[:, self.layout.columns[name][1]].T

    def digest(self) -> bytes:
        """SHA-256 of the rows (little-endian float32) and their shape; a rest is not in it."""
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

    def _checked(self, rank: int) -> int:
        if not 1 <= rank <= self.rank:
            raise AdapterError(f"rank={rank} must lie in 1..{self.rank}")
        return rank


def _check(rows: Rows, layout: AdapterLayout, name: str, length: str) -> None:
    """Refuse rows of another shape or type, or that are not finite; make them read-only."""
    if rows.shape[1:] != (layout.row_length,) or not len(rows):
        raise AdapterError(f"{name} of shape {rows.shape} must be ({length} >= 1, {layout.row_length})")
    if rows.dtype != np.float32:
        raise AdapterError(f"{name} of type {rows.dtype} must be float32")
    if not np.isfinite(rows).all():
        raise AdapterError(f"{name} must be finite")
    rows.flags.writeable = False
