"""The averages against means taken over whole tensors, in which a missing row is NaN and never zero."""

import math
import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbla_secure.config.choices import AverageRule
from rbla_secure.errors import AdapterError
from rbla_secure.lora.adapter import Adapter, AdapterLayout
from rbla_secure.lora.average import (
    GroupAverage,
    apply_average,
    averaging_rule,
)
from rbla_secure.lora.bands import Band, rank_bands
from rbla_secure.lora.update import BandTotal
from tests.support.properties import PROPERTY
from tests.support.updates import Array, Tensors, draw_tensors, federations, make_layout, sum_totals

LAYOUT = make_layout((3, 2), (2, 4))
RBLA, ZERO_PAD = averaging_rule(AverageRule.RBLA), averaging_rule(AverageRule.ZERO_PAD)
FEDAVG = averaging_rule(AverageRule.FEDAVG)
GAMMAS = st.sampled_from([0.0, 0.5, 1.0, 2.0]) | st.floats(0, 4)


def nan_padded(tensors: Sequence[Array], *, axis: int, rank: int) -> Array:
    """One stack of all clients' tensors, NaN where a client has no row."""
    stack = []
    for tensor in tensors:
        widths = [(0, 0), (0, 0)]
        widths[axis] = (0, rank - tensor.shape[axis])
        stack.append(np.pad(tensor, widths, constant_values=np.nan))
    return np.stack(stack)


def nan_mean(stack: Array, weights: Sequence[float]) -> Array:
    """The weighted mean over those who have a value; NaN where the weights of all of them are zero."""
    shares = np.where(np.isnan(stack), 0.0, np.reshape(weights, (-1, 1, 1)))
    summed = (np.nan_to_num(stack) * shares).sum(axis=0)
    weight = shares.sum(axis=0)
    return np.divide(summed, weight, out=np.full_like(summed, np.nan), where=weight > 0)


def share_of_weight(clients: Sequence[Tensors], row: int) -> float:
    """q: the weight of a row's holders over the weight of all."""
    everything = math.fsum(client.weight for client in clients)
    holders = math.fsum(client.weight for client in clients if client.rank > row)
    return holders / everything if everything else math.nan


def oracle(layout: AdapterLayout, clients: Sequence[Tensors], *, gamma: float = 0.0) -> Array:
    """The family's rows from one mean per tensor: NaN where the row is absent."""
    rank = max(client.rank for client in clients)
    weights = [client.weight for client in clients]
    shares = np.array([share_of_weight(clients, row) for row in range(rank)])
    parts = []
    for layer in layout.layers:
        lora_A = nan_mean(nan_padded([c.A[layer.name] for c in clients], axis=0, rank=rank), weights)
        lora_B = nan_mean(nan_padded([c.B[layer.name] for c in clients], axis=1, rank=rank), weights)
        parts += [lora_A, (lora_B * shares**gamma).T]
    return np.concatenate(parts, axis=1)


def bands_of(clients: Sequence[Tensors]) -> tuple[Band, ...]:
    return rank_bands(client.rank for client in clients)


def check(found: GroupAverage, expected: Array) -> None:
    """The same rows are absent, and all others are equal."""
    absent = np.isnan(expected).all(axis=1)
    assert found.present.tolist() == (~absent).tolist()
    assert found.rows[~absent] == pytest.approx(expected[~absent], rel=1e-9, abs=1e-12)


def make_clients(*clients: tuple[int, float]) -> list[Tensors]:
    return [
        draw_tensors(LAYOUT, rank=rank, weight=weight, seed=seed)
        for seed, (rank, weight) in enumerate(clients)
    ]


@PROPERTY
@given(federation=federations())
def test_rbla_is_the_mean_over_holders(federation: tuple[AdapterLayout, list[Tensors]]) -> None:
    """Every row is the weighted mean over exactly the clients that hold it."""
    layout, clients = federation
    bands = bands_of(clients)

    found = RBLA.average(sum_totals(clients, bands), bands, layout, gamma=0.0)

    check(found, oracle(layout, clients))


@PROPERTY
@given(federation=federations(), gamma=GAMMAS)
def test_the_family_scales_lora_B_alone(
    federation: tuple[AdapterLayout, list[Tensors]], gamma: float
) -> None:
    """The family is q^gamma times that mean on every lora_B, and that mean on every lora_A."""
    layout, clients = federation
    bands = bands_of(clients)

    found = RBLA.average(sum_totals(clients, bands), bands, layout, gamma=gamma)

    check(found, oracle(layout, clients, gamma=gamma))


@PROPERTY
@given(federation=federations(weights=st.sampled_from([0.0, 0.25, 1.0])), gamma=st.sampled_from([0.0, 1.0]))
def test_rows_whose_holders_weigh_nothing_are_absent(
    federation: tuple[AdapterLayout, list[Tensors]], gamma: float
) -> None:
    """A weight of zero counts as not being there, and never divides by zero."""
    layout, clients = federation
    bands = bands_of(clients)

    found = RBLA.average(sum_totals(clients, bands), bands, layout, gamma=gamma)

    check(found, oracle(layout, clients, gamma=gamma))


@PROPERTY
@given(federation=federations(), gamma=GAMMAS, order=st.randoms(use_true_random=False))
def test_the_order_of_clients_does_not_matter(
    federation: tuple[AdapterLayout, list[Tensors]], gamma: float, order: random.Random
) -> None:
    """Clients summed in another order give the same average up to the last digits of a sum."""
    layout, clients = federation
    bands = bands_of(clients)
    shuffled = list(clients)
    order.shuffle(shuffled)

    first = RBLA.average(sum_totals(clients, bands), bands, layout, gamma=gamma)
    second = RBLA.average(sum_totals(shuffled, bands), bands, layout, gamma=gamma)

    assert first.rows == pytest.approx(second.rows, rel=1e-9, abs=1e-12)
    assert first.present.tolist() == second.present.tolist()


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 4.0])
@pytest.mark.parametrize("rank", [1, 3])
def test_one_client_is_the_identity(gamma: float, rank: int) -> None:
    """The average of one client of whatever weight is its own update."""
    (client,) = make_clients((rank, 0.4))
    bands = bands_of([client])

    found = RBLA.average(sum_totals([client], bands), bands, LAYOUT, gamma=gamma)

    assert found.present.all()
    assert found.rows == pytest.approx(client.rows(), rel=1e-12)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 4.0])
def test_equal_ranks_give_fedavg_for_every_gamma(gamma: float) -> None:
    """Where all hold all rows, the whole family and zero padding are the weighted mean of the matrices."""
    clients = make_clients((3, 1.0), (3, 0.25), (3, 0.5))
    bands = bands_of(clients)
    totals = sum_totals(clients, bands)
    expected = sum(client.weight * client.rows() for client in clients) / 1.75

    family = RBLA.average(totals, bands, LAYOUT, gamma=gamma)
    baseline, padded = (
        FEDAVG.average(totals, bands, LAYOUT, gamma=0.0),
        ZERO_PAD.average(totals, bands, LAYOUT, gamma=0.0),
    )

    assert family.rows == pytest.approx(expected, rel=1e-12)
    assert family.rows.tobytes() == baseline.rows.tobytes() == padded.rows.tobytes()


def test_fedavg_refuses_unequal_ranks() -> None:
    """Two bands mean that ranks differ."""
    clients = make_clients((1, 1.0), (2, 1.0))
    bands = bands_of(clients)

    with pytest.raises(AdapterError, match="2 rank bands must be 1"):
        FEDAVG.average(sum_totals(clients, bands), bands, LAYOUT, gamma=0.0)


@PROPERTY
@given(federation=federations())
def test_zero_padding_is_the_mean_of_zero_padded_matrices(
    federation: tuple[AdapterLayout, list[Tensors]],
) -> None:
    """Zero padding is the literal mean over all clients with zeros in missing rows, and q times RBLA throughout."""
    layout, clients = federation
    bands = bands_of(clients)
    totals = sum_totals(clients, bands)
    rank = bands[-1].stop
    padded = [np.pad(client.rows(), [(0, rank - client.rank), (0, 0)]) for client in clients]
    weights = [client.weight for client in clients]
    expected = np.average(padded, axis=0, weights=weights)

    found, plain = (
        ZERO_PAD.average(totals, bands, layout, gamma=0.0),
        RBLA.average(totals, bands, layout, gamma=0.0),
    )

    shares = np.array([share_of_weight(clients, row) for row in range(rank)])
    assert found.present.all()
    assert found.rows == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert found.rows == pytest.approx(shares[:, np.newaxis] * plain.rows, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0])
def test_every_client_moves_lora_B_in_every_band_it_holds(gamma: float) -> None:
    """Whatever single band of whatever single client changes, the B columns of that band follow, and no others."""
    ranks = (1, 3, 3, 6)
    bands = rank_bands(ranks)
    moved = []

    for me, rank in enumerate(ranks):
        for band in (band for band in bands if band.stop <= rank):
            clients = make_clients(*((each, 1.0) for each in ranks))
            for client in clients:
                for name in client.B:
                    client.A[name][:] = 0.0
                    client.B[name][:] = 0.0
            for lora_B in clients[me].B.values():
                lora_B[:, band.start : band.stop] = 1.0
            found = RBLA.average(sum_totals(clients, bands), bands, LAYOUT, gamma=gamma)
            touched = np.zeros_like(found.rows, dtype=bool)
            touched[band.start : band.stop, [3, 4, 7, 8, 9, 10]] = True
            assert ((found.rows > 0) == touched).all()
            moved.append((me, band.index))

    assert moved == [(0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2)]


def totals_without(*missing: int) -> tuple[dict[int, BandTotal], tuple[Band, ...]]:
    clients = make_clients((1, 1.0), (3, 1.0), (4, 1.0))
    bands = bands_of(clients)
    totals = sum_totals(clients, bands)
    return {index: total for index, total in totals.items() if index not in missing}, bands


@pytest.mark.parametrize(
    ("missing", "absent"), [((1,), [1, 2]), ((2,), [3]), ((0,), [0]), ((0, 1, 2), [0, 1, 2, 3])]
)
def test_a_band_that_stayed_closed_is_absent(missing: tuple[int, ...], absent: list[int]) -> None:
    """Rows of bands without a total are marked, and the others are what they would be anyway."""
    totals, bands = totals_without(*missing)
    everything, _ = totals_without()

    found, whole = (
        RBLA.average(totals, bands, LAYOUT, gamma=0.0),
        RBLA.average(everything, bands, LAYOUT, gamma=0.0),
    )

    assert np.flatnonzero(~found.present).tolist() == absent
    assert found.rows[found.present].tobytes() == whole.rows[found.present].tobytes()


@pytest.mark.parametrize("gamma", [0.5, 1.0])
def test_without_the_first_band_no_share_is_known(gamma: float) -> None:
    """With gamma above 0, or zero padding, a missing first band leaves every band absent rather than guessed."""
    totals, bands = totals_without(0)

    family, padded = (
        RBLA.average(totals, bands, LAYOUT, gamma=gamma),
        ZERO_PAD.average(totals, bands, LAYOUT, gamma=0.0),
    )

    assert not family.present.any()
    assert not padded.present.any()


def start(rank: int = 4) -> Adapter:
    rows = np.random.default_rng(9).standard_normal((rank, LAYOUT.row_length)).astype(np.float32)
    rows[:, 0] = -0.0
    rows[:, 1] = 1e-42  # below the smallest normal float32
    return Adapter(layout=LAYOUT, rows=rows)


@pytest.mark.parametrize("missing", [(0,), (1,), (2,), (0, 1, 2)])
def test_absent_rows_keep_their_bits(missing: tuple[int, ...]) -> None:
    """The server step moves what is covered and leaves the rest to the bit: absent is not zero."""
    totals, bands = totals_without(*missing)
    average = RBLA.average(totals, bands, LAYOUT, gamma=0.0)
    before = start()

    after = apply_average(before, average, learning_rate=0.7)

    for row in range(4):
        kept = after.rows[row].tobytes() == before.rows[row].tobytes()
        assert kept == (not average.present[row])


@pytest.mark.parametrize("learning_rate", [1.0, 0.5, 2.0])
def test_the_server_step_adds_the_average(learning_rate: float) -> None:
    """Every value moves by the learning rate times its average, rounded to float32 once."""
    totals, bands = totals_without()
    average = RBLA.average(totals, bands, LAYOUT, gamma=0.0)
    before = start()

    after = apply_average(before, average, learning_rate=learning_rate)

    for old, new, change in zip(
        before.rows.ravel().tolist(), after.rows.ravel().tolist(), average.rows.ravel().tolist(), strict=True
    ):
        assert new == float(np.float32(old + learning_rate * change))


def test_the_server_step_leaves_its_argument_alone() -> None:
    """The adapter of the round before stays what it was."""
    totals, bands = totals_without()
    before = start()
    digest = before.digest()

    after = apply_average(before, RBLA.average(totals, bands, LAYOUT, gamma=0.0), learning_rate=1.0)

    assert before.digest() == digest != after.digest()


def test_a_step_out_of_float32_is_refused() -> None:
    """A change too large for float32 raises instead of leaving infinities behind."""
    average = GroupAverage(
        rows=np.full((4, LAYOUT.row_length), 1e39), present=np.array([True, True, False, False])
    )

    with pytest.warns(RuntimeWarning, match="overflow"), pytest.raises(AdapterError, match="finite"):
        apply_average(start(), average, learning_rate=1.0)


@PROPERTY
@given(name=st.sampled_from(AverageRule), gamma=GAMMAS, holders=st.integers(1, 4))
def test_every_rule_says_what_it_keeps_of_noise(name: AverageRule, gamma: float, holders: int) -> None:
    """Unit by unit: the squared length of an average of a single 1 in a sum is the factor that noise there keeps."""
    rule = averaging_rule(name)
    ranks = [3] * 4 if rule.equal_ranks_only else [3] * holders + [2] * (4 - holders)
    bands = rank_bands(ranks)
    top = bands[-1]
    held = sum(rank >= top.stop for rank in ranks)
    kept = 0.0
    for column in range(LAYOUT.row_length):
        unit = np.zeros((top.height, LAYOUT.row_length))
        unit[0, column] = held
        sums = {band.index: np.zeros(band.height * LAYOUT.row_length) for band in bands}
        sums[top.index] = unit.ravel()
        totals = {
            band.index: BandTotal(
                weighted_sum=sums[band.index],
                weight=float(sum(rank >= band.stop for rank in ranks)),
                cut_off=None,
            )
            for band in bands
        }
        kept += float(np.square(rule.average(totals, bands, LAYOUT, gamma=gamma).rows).sum())

    of_b = int(LAYOUT.lora_B_columns.sum())
    told = rule.noise_kept(held / 4, of_a=LAYOUT.row_length - of_b, of_b=of_b, gamma=gamma)
    assert told == pytest.approx(kept, rel=1e-9)
