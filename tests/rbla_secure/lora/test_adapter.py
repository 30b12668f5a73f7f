"""Rank rows are the tensors of an adapter laid side by side, and their bytes are canonical."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbla_secure.errors import AdapterError
from rbla_secure.lora.adapter import Adapter, AdapterLayout, LinearShape
from tests.support.properties import PROPERTY
from tests.support.updates import draw_tensors, make_layout

LAYOUT = make_layout((3, 2), (2, 4))
SIZES = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=4)


def adapter(rank: int = 3, *, seed: int = 0, layout: AdapterLayout = LAYOUT) -> Adapter:
    tensors = draw_tensors(layout, rank=rank, seed=seed)
    return Adapter(layout=layout, rows=tensors.rows().astype(np.float32))


@PROPERTY
@given(sizes=SIZES, rank=st.integers(1, 4), seed=st.integers(0, 1000))
def test_rows_hold_every_tensor(sizes: list[tuple[int, int]], rank: int, seed: int) -> None:
    """A and B of every layer come back out of the rows as they went in."""
    layout = make_layout(*sizes)
    tensors = draw_tensors(layout, rank=rank, seed=seed)

    found = Adapter(layout=layout, rows=tensors.rows().astype(np.float32))

    assert found.rank == rank
    for layer in layout.layers:
        assert np.array_equal(found.lora_A(layer.name), tensors.A[layer.name].astype(np.float32))
        assert np.array_equal(found.lora_B(layer.name), tensors.B[layer.name].astype(np.float32))


@PROPERTY
@given(sizes=SIZES)
def test_columns_belong_to_one_tensor_each(sizes: list[tuple[int, int]]) -> None:
    """The columns of all layers are disjoint and cover the row, and the mask marks those of every lora_B."""
    layout = make_layout(*sizes)

    owners = ["" for _ in range(layout.row_length)]
    for lora_A, lora_B in layout.columns.values():
        for part, letter in ((lora_A, "A"), (lora_B, "B")):
            for column in range(part.start, part.stop):
                owners[column] += letter

    assert layout.row_length == sum(inputs + outputs for inputs, outputs in sizes)
    assert "".join(owners) == "".join("A" * inputs + "B" * outputs for inputs, outputs in sizes)
    assert layout.lora_B_columns.tolist() == [owner == "B" for owner in owners]


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_slice_is_the_sum_of_the_first_rank_one_terms(rank: int) -> None:
    """What a weaker client holds is B A cut off after its rank, with nothing rescaled."""
    whole = adapter(3)

    part = whole.sliced(rank)

    for layer in LAYOUT.layers:
        terms = [
            np.outer(whole.lora_B(layer.name)[:, s], whole.lora_A(layer.name)[s]).astype(np.float64)
            for s in range(rank)
        ]
        assert part.lora_B(layer.name) @ part.lora_A(layer.name) == pytest.approx(sum(terms), abs=1e-5)
    assert part.layout.scaling == whole.layout.scaling


@pytest.mark.parametrize("rank", [-1, 0, 4])
def test_a_slice_outside_the_rows_is_refused(rank: int) -> None:
    """A slice has at least one row and at most all."""
    whole = adapter(3)

    with pytest.raises(AdapterError, match=rf"rank={rank} must lie in 1\.\.3"):
        whole.sliced(rank)


def test_the_initial_adapter_follows_the_law_of_peft() -> None:
    """A fills +-1/sqrt(in_features) evenly and B is zero, so the adapted model starts as the base."""
    layout = make_layout((400, 7), (25, 3))

    start = Adapter.initial(layout, rank=8, seed=3)

    for layer in layout.layers:
        limit = layer.in_features**-0.5
        lora_A = start.lora_A(layer.name)
        assert not start.lora_B(layer.name).any()
        assert 0.95 * limit < np.abs(lora_A).max() <= limit
        # The variance of a uniform law on +-limit is limit^2 / 3.
        assert lora_A.var() == pytest.approx(limit**2 / 3, rel=0.25)


def test_the_initial_adapter_follows_its_seed() -> None:
    """One seed gives one adapter, another seed another one."""
    first = Adapter.initial(LAYOUT, rank=2, seed=1)

    again, other = Adapter.initial(LAYOUT, rank=2, seed=1), Adapter.initial(LAYOUT, rank=2, seed=2)

    assert again.rows.tobytes() == first.rows.tobytes()
    assert other.rows.tobytes() != first.rows.tobytes()


@pytest.mark.parametrize("rank", [1, 3])
def test_bytes_round_trip(rank: int) -> None:
    """The rows survive their bytes, which are little-endian float32 row by row."""
    rows = adapter(rank)

    data = rows.to_bytes()

    assert data == b"".join(
        value.astype("<f4").tobytes() for row in np.asarray(rows.rows, dtype=np.float64) for value in row
    )
    assert Adapter.from_bytes(LAYOUT, data).rows.tobytes() == rows.rows.tobytes()


def test_strided_rows_have_the_bytes_of_their_copy() -> None:
    """How the rows lie in memory shows neither in their bytes nor in their digest."""
    values = adapter(3).rows
    strided = Adapter(layout=LAYOUT, rows=np.asfortranarray(values))

    data, digest = strided.to_bytes(), strided.digest()

    assert data == adapter(3).to_bytes()
    assert digest == adapter(3).digest()


@pytest.mark.parametrize("length", [0, 1, 43, 45, 44 * 2 - 4])
def test_bytes_of_another_length_are_refused(length: int) -> None:
    """A row takes 44 bytes here, and only whole rows are read."""
    data = bytes(length)

    with pytest.raises(AdapterError, match=f"{length} adapter bytes must be a positive multiple of 44"):
        Adapter.from_bytes(LAYOUT, data)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    """One NaN or infinity anywhere makes rows and bytes unusable."""
    rows = adapter(2).rows.copy()
    rows[1, 10] = value

    with pytest.raises(AdapterError, match="finite"):
        Adapter(layout=LAYOUT, rows=rows)
    with pytest.raises(AdapterError, match="finite"):
        Adapter.from_bytes(LAYOUT, rows.tobytes())


@pytest.mark.parametrize("shape", [(0, 11), (2, 10), (2, 12), (11,), (2, 11, 1), ()])
def test_rows_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    """Rows are a matrix of at least one row as long as the layout says."""
    rows = np.zeros(shape, dtype=np.float32)

    with pytest.raises(AdapterError, match=r"must be \(rank >= 1, 11\)"):
        Adapter(layout=LAYOUT, rows=rows)


@pytest.mark.parametrize("kind", [np.float64, np.float16, np.int32])
def test_rows_of_another_type_are_refused(kind: type) -> None:
    """Only float32 is silently what an adapter file holds."""
    rows = np.zeros((2, 11), dtype=kind)

    with pytest.raises(AdapterError, match=r"must be float32"):
        Adapter(layout=LAYOUT, rows=rows)


def test_rows_cannot_be_written() -> None:
    """An adapter, once there, does not change under its digest."""
    rows = adapter(2)

    with pytest.raises(ValueError, match="read-only"):
        rows.rows[0, 0] = 1.0


def test_the_digest_tells_every_bit_and_the_shape_apart() -> None:
    """Zero and minus zero differ, and so do one long row and two short ones of the same bytes."""
    zeros = np.zeros((2, 11), dtype=np.float32)
    one_bit = zeros.copy()
    one_bit[1, 10] = -0.0
    long = Adapter(layout=make_layout((11, 11)), rows=zeros.reshape(1, 22).copy())

    digests = {
        Adapter(layout=LAYOUT, rows=zeros).digest(),
        Adapter(layout=LAYOUT, rows=one_bit).digest(),
        long.digest(),
    }

    assert len(digests) == 3
    assert {len(digest) for digest in digests} == {32}


def test_the_digest_is_a_known_answer() -> None:
    """SHA-256 over a label, the shape as two little-endian 64-bit integers, and the bytes."""
    rows = adapter(2)
    expected = hashlib.sha256(
        b"rbla-secure adapter\x00" + (2).to_bytes(8, "little") + (11).to_bytes(8, "little") + rows.to_bytes()
    ).digest()

    digest = rows.digest()

    assert digest == expected


def test_a_layout_needs_layers_of_distinct_names() -> None:
    """A layout without layers, or with one name twice, has no meaning."""
    layer = LinearShape(name="twice", in_features=1, out_features=1)

    with pytest.raises(AdapterError, match="at least one"):
        AdapterLayout(layers=(), scaling=1.0)
    with pytest.raises(AdapterError, match="distinct"):
        AdapterLayout(layers=(layer, layer), scaling=1.0)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_folded_adapter_keeps_every_row_and_trains_the_first(rank: int) -> None:
    """Rank, digest, bytes and factors are those of the own rows; the whole is the adapter that was folded, to the bit."""
    full = adapter(3)

    part = full.folded(rank)

    sliced = full.sliced(rank)
    assert (part.rank, part.digest(), part.to_bytes()) == (rank, sliced.digest(), sliced.to_bytes())
    assert np.array_equal(part.lora_A("layer0"), sliced.lora_A("layer0"))
    assert np.array_equal(part.lora_B("layer0"), sliced.lora_B("layer0"))
    assert (0 if part.rest is None else len(part.rest)) == 3 - rank
    assert part.whole().digest() == full.digest()
    assert part.sliced(rank).rest is None


def test_folding_again_keeps_the_order_of_the_rows() -> None:
    """A rest grows at its front; folding at the whole rank leaves it as it is."""
    full = adapter(3)

    twice, same = full.folded(2).folded(1), full.folded(2).folded(2)

    assert twice.whole().digest() == full.digest()
    assert twice.rank == 1
    assert same.whole().digest() == full.digest()
    assert full.whole() is full


@pytest.mark.parametrize("rank", [-1, 0, 4])
def test_folding_outside_the_rows_is_refused(rank: int) -> None:
    """A client trains at least one row and at most all."""
    with pytest.raises(AdapterError, match=rf"rank={rank} must lie in 1\.\.3"):
        adapter(3).folded(rank)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_rest_that_is_not_finite_is_refused(value: float) -> None:
    """The rest is part of the function as the rows are."""
    rest = adapter(2).rows.copy()
    rest[1, 10] = value

    with pytest.raises(AdapterError, match="rest must be finite"):
        Adapter(layout=LAYOUT, rows=adapter(2).rows, rest=rest)


@pytest.mark.parametrize("shape", [(0, 11), (2, 10), (11,), (2, 11, 1)])
def test_a_rest_of_another_shape_or_type_is_refused(shape: tuple[int, ...]) -> None:
    """No rest is None; one that is there has rows as long as the layout says, of float32."""
    with pytest.raises(AdapterError, match=r"rest of shape .* must be \(k >= 1, 11\)"):
        Adapter(layout=LAYOUT, rows=adapter(2).rows, rest=np.zeros(shape, dtype=np.float32))
    with pytest.raises(AdapterError, match="rest of type float64 must be float32"):
        Adapter(layout=LAYOUT, rows=adapter(2).rows, rest=np.zeros((1, 11)))  # type: ignore[arg-type]


def test_a_rest_cannot_be_written() -> None:
    """What a client computes from does not change under the digest of the whole."""
    part = Adapter(layout=LAYOUT, rows=adapter(1).rows, rest=adapter(2).rows.copy())

    with pytest.raises(ValueError, match="read-only"):
        part.rest[0, 0] = 1.0
