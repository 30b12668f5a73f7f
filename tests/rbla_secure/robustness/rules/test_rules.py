"""What every robust rule keeps: symmetry, refusals, and a bound on what a minority can do."""

from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbla_secure.errors import RobustnessError
from rbla_secure.robustness.rules.clipping import centered_clipping, norm_bound
from rbla_secure.robustness.rules.coordinatewise import coordinate_median, trimmed_mean
from rbla_secure.robustness.rules.directional import cosines, fltrust
from rbla_secure.robustness.rules.distances import squared_distances
from rbla_secure.robustness.rules.geometric import geometric_median
from rbla_secure.robustness.rules.krum import krum, krum_scores, multi_krum
from rbla_secure.robustness.rules.matrix import mean
from rbla_secure.robustness.rules.mixing import bucketing, nearest_neighbor_mixing
from rbla_secure.robustness.rules.spectral import divide_and_conquer, spectral_scores
from tests.support import kappa
from tests.support.properties import PROPERTY

Array = Any
Rule = Callable[[Array, int], Array]


def ones(x: Array) -> Array:
    return np.ones(x.shape[1])


def dnc(x: Array, f: int) -> Array:
    return divide_and_conquer(x, f=f, generator=np.random.default_rng(1))


def mixed_trimmed_mean(x: Array, f: int) -> Array:
    return trimmed_mean(nearest_neighbor_mixing(x, f=f), f=f)


RULES: dict[str, Rule] = {
    "median": lambda x, _: coordinate_median(x),
    "trimmed-mean": lambda x, f: trimmed_mean(x, f=f),
    "krum": lambda x, f: krum(x, f=f),
    "multi-krum": lambda x, f: multi_krum(x, f=f),
    "geometric-median": lambda x, _: geometric_median(x, iterations=50),
    "centered-clipping": lambda x, _: centered_clipping(x, center=np.zeros(x.shape[1]), radius=2.0),
    "norm-bound": lambda x, _: norm_bound(x, bound=2.0),
    "dnc": dnc,
    "fltrust": lambda x, _: fltrust(x, reference=ones(x)),
    "mixed-trimmed-mean": mixed_trimmed_mean,
}
EQUIVARIANT = [
    "median",
    "trimmed-mean",
    "krum",
    "multi-krum",
    "geometric-median",
    "dnc",
    "mixed-trimmed-mean",
]
SEEDS = st.integers(0, 2**32 - 1)


def draw(seed: int, n: int = 11, d: int = 4) -> Array:
    """Generic values: no distances tie."""
    return np.random.default_rng(seed).normal(size=(n, d))


@pytest.mark.parametrize("rule", RULES)
@PROPERTY
@given(seed=SEEDS)
def test_the_order_of_the_clients_does_not_matter(rule: str, seed: int) -> None:
    x = draw(seed)
    order = np.random.default_rng(seed + 1).permutation(len(x))

    assert RULES[rule](x[order], 3) == pytest.approx(RULES[rule](x, 3), abs=1e-9)


@pytest.mark.parametrize("rule", EQUIVARIANT)
@PROPERTY
@given(seed=SEEDS)
def test_a_shift_of_all_vectors_shifts_the_result(rule: str, seed: int) -> None:
    x, shift = draw(seed), 10.0 * draw(seed + 1)[0]

    assert RULES[rule](x + shift, 3) == pytest.approx(RULES[rule](x, 3) + shift, abs=1e-6)


@pytest.mark.parametrize("rule", EQUIVARIANT)
@PROPERTY
@given(seed=SEEDS, scale=st.sampled_from([1e-3, 7.0, 1e6]))
def test_a_change_of_units_is_no_change(rule: str, seed: int, scale: float) -> None:
    x = draw(seed)
    # The smoothing of the geometric median is a length in units of its input, so it is told in those units.
    scaled = (
        geometric_median(x * scale, nu=1e-6 * scale, iterations=50)
        if rule == "geometric-median"
        else RULES[rule](x * scale, 3)
    )

    assert scaled / scale == pytest.approx(RULES[rule](x, 3), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("rule", ["trimmed-mean", "multi-krum", "dnc", "mixed-trimmed-mean"])
@PROPERTY
@given(seed=SEEDS)
def test_against_nobody_a_rule_is_the_mean(rule: str, seed: int) -> None:
    x = draw(seed)

    assert RULES[rule](x, 0) == pytest.approx(x.mean(axis=0), abs=1e-12)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("huge", [1e30, -1e30, 1e200, 1.7e308])
def test_one_client_at_a_huge_value_moves_nothing_far(rule: str, huge: float) -> None:
    """With its overflowing squares it is as far away as can be: no NaN, and the honest range stays the limit."""
    x = draw(7)
    x[4] = huge

    found = RULES[rule](x, 3)

    honest = np.abs(np.delete(x, 4, axis=0)).max()
    # FLTrust answers in units of its reference, of length 2.
    assert np.abs(found).max() <= max(honest, 2.0)


@pytest.mark.parametrize("rule", RULES)
def test_a_float32_matrix_gives_a_float64_result_and_stays_as_it_is(rule: str) -> None:
    x = draw(3).astype(np.float32)
    before = x.copy()

    found = RULES[rule](x, 3)

    assert found.dtype == np.float64
    assert found == pytest.approx(RULES[rule](x.astype(np.float64), 3), abs=1e-12)
    assert (x == before).all()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_by_name(rule: str, bad: float) -> None:
    x = draw(5)
    x[6, 2] = bad

    with pytest.raises(RobustnessError, match="row 6 is not finite"):
        RULES[rule](x, 3)


@pytest.mark.parametrize(
    ("rule", "fewest"),
    [("trimmed-mean", 7), ("krum", 9), ("multi-krum", 9), ("dnc", 7), ("mixed-trimmed-mean", 7)],
)
def test_too_few_clients_are_refused_with_the_number_that_would_do(rule: str, fewest: int) -> None:
    assert np.isfinite(RULES[rule](draw(1, n=fewest), 3)).all()
    with pytest.raises(RobustnessError, match=f"n >= {fewest} is needed"):
        RULES[rule](draw(1, n=fewest - 1), 3)
    with pytest.raises(RobustnessError, match="negative"):
        RULES[rule](draw(1), -1)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (3,), (2, 2, 2)])
def test_what_is_no_matrix_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(RobustnessError, match="shape"):
        mean(np.zeros(shape))


def test_integers_are_refused() -> None:
    with pytest.raises(RobustnessError, match="floating point"):
        mean(np.zeros((2, 2), dtype=np.int64))  # type: ignore[arg-type]


BOUNDS: dict[str, Callable[[int, int], float]] = {
    "median": kappa.median_kappa,
    "trimmed-mean": kappa.trimmed_mean_kappa,
    "krum": kappa.krum_kappa,
    "geometric-median": kappa.median_kappa,
    "mixed-trimmed-mean": lambda n, f: kappa.mixed_kappa(n, f, kappa.trimmed_mean_kappa(n, f)),
}


@pytest.mark.parametrize("rule", BOUNDS)
@PROPERTY
@given(seed=SEEDS, f=st.integers(1, 2), placement=st.sampled_from([0.0, 0.5, 2.0, 10.0, 1e6]))
def test_no_placement_exceeds_the_proven_coefficient(rule: str, seed: int, f: int, placement: float) -> None:
    """The mean of ANY n - f vectors is near, in units of their variance: so also that of the honest ones."""
    n = 7
    x = draw(seed, n=n, d=3)
    x[:f] = placement * x[:f] + placement
    found = RULES[rule](x, f)

    for chosen in combinations(range(n), n - f):
        honest = x[list(chosen)]
        deviation = np.square(found - honest.mean(axis=0)).sum()
        variance = np.square(honest - honest.mean(axis=0)).sum() / len(honest)
        assert deviation <= BOUNDS[rule](n, f) * variance * (1 + 1e-9)


def test_the_mean_exceeds_every_coefficient() -> None:
    """The check above can fail."""
    x = draw(1, n=7, d=3)
    x[0] = 1e6

    deviation = np.square(mean(x) - x[1:].mean(axis=0)).sum()

    assert deviation > max(bound(7, 1) for bound in BOUNDS.values()) * x[1:].var(axis=0).sum()


@PROPERTY
@given(seed=SEEDS)
def test_distances_are_those_of_the_differences(seed: int) -> None:
    x = draw(seed, n=6, d=5) + 1e6
    x[1] = x[0]
    x[3] = x[2] + 1e-6

    expected = np.square(x[:, None] - x[None]).sum(axis=2)

    assert squared_distances(x) == pytest.approx(expected, rel=1e-6, abs=0)


def test_distances_of_twins_far_away_do_not_cancel() -> None:
    """Colluders at 1e30 that differ by 1e20: their Gram entries agree in all digits that a double has."""
    x = draw(1, n=7, d=4)
    x[0], x[1] = 1e30, 1e30
    x[1, 2] += 1e20

    assert squared_distances(x)[0, 1] == pytest.approx(1e40, rel=1e-3)


def test_rows_whose_squares_overflow_are_infinitely_far_from_all_others() -> None:
    x = draw(1, n=7)
    # Row 0 lies on the same side as the largest: their inner product overflows too, to infinity minus infinity.
    x[0], x[1], x[3] = 5.0, 1e200, 1.7e308

    found = squared_distances(x)

    far = np.zeros((7, 7), dtype=np.bool_)
    far[[1, 3]] = far[:, [1, 3]] = True
    np.fill_diagonal(far, val=False)
    assert (np.isinf(found) == far).all()
    assert (found.diagonal() == 0).all()


def test_a_start_infinitely_far_from_everything_stays() -> None:
    x = np.full((3, 2), 1e200)

    assert geometric_median(x, start=np.zeros(2)).tolist() == [0.0, 0.0]


def test_chunks_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    x = draw(9, d=23)
    whole = {name: rule(x, 3) for name, rule in RULES.items()}

    monkeypatch.setattr("rbla_secure.robustness.rules.matrix.CHUNK_VALUES", 40)

    for name, rule in RULES.items():
        assert rule(x, 3) == pytest.approx(whole[name], abs=1e-12), name


def test_ties_go_to_the_lower_index() -> None:
    x = np.array([[0.0], [1.0], [2.0], [3.0], [4.0]])

    # The scores with two neighbors (n = 5, f = 1): 1 + 4, 1 + 1, 1 + 1, 1 + 1, 1 + 4.
    assert krum_scores(x, f=1).tolist() == [5.0, 2.0, 2.0, 2.0, 5.0]
    assert krum(x, f=1).tolist() == [1.0]
    assert multi_krum(x, f=1, m=2).tolist() == [1.5]


def test_krum_parameters_are_checked() -> None:
    with pytest.raises(RobustnessError, match="neighbors=11"):
        krum(draw(1), f=1, neighbors=11)
    with pytest.raises(RobustnessError, match="m=12"):
        multi_krum(draw(1), f=1, m=12)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: norm_bound(x, bound=0.0),
        lambda x: norm_bound(x, bound=np.inf),
        lambda x: centered_clipping(x, center=np.zeros(4), radius=np.nan),
        lambda x: centered_clipping(x, center=np.zeros(3), radius=1.0),
        lambda x: centered_clipping(x, center=np.full(4, np.nan), radius=1.0),
        lambda x: centered_clipping(x, center=np.zeros(4), radius=1.0, iterations=0),
        lambda x: geometric_median(x, nu=0.0),
        lambda x: geometric_median(x, start=np.zeros(5)),
        lambda x: geometric_median(x, weights=np.zeros(11)),
        lambda x: geometric_median(x, weights=np.full(11, -1.0)),
        lambda x: fltrust(x, reference=np.zeros(4)),
        lambda x: cosines(x, reference=np.ones(3)),
        lambda x: bucketing(x, s=0, order=np.arange(11)),
        lambda x: bucketing(x, s=2, order=np.zeros(11, dtype=np.intp)),
        lambda x: divide_and_conquer(x, f=2, generator=np.random.default_rng(1), iterations=6),
    ],
)
def test_parameters_without_meaning_are_refused(call: Callable[[Array], Array]) -> None:
    with pytest.raises(RobustnessError):
        call(draw(1))


def test_the_geometric_median_weighs() -> None:
    """More than half of the weight decides: the point of the heavy client."""
    x = draw(2, n=5)
    weights = np.array([1.0, 1.0, 1.0, 1.0, 5.0])

    assert geometric_median(x, weights=weights, iterations=500) == pytest.approx(x[4], abs=1e-5)


def test_clipping_shortens_what_is_longer_and_nothing_else() -> None:
    x = np.array([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]])

    assert norm_bound(x, bound=1.0) == pytest.approx([0.9 / 3, 1.2 / 3])
    # About (0, 1): differences (3, 3), (.3, -.6), (0, -1); only the first is longer than 2.
    clipped = np.array([3.0, 3.0]) * 2 / np.sqrt(18)
    expected = np.array([0.0, 1.0]) + (clipped + np.array([0.3, -0.6]) + np.array([0.0, -1.0])) / 3
    assert centered_clipping(x, center=np.array([0.0, 1.0]), radius=2.0) == pytest.approx(expected)


def test_fltrust_by_hand() -> None:
    """Cosines 1, 0, -1, 0.6 with the reference (2, 0); all are given length 2, and only two are trusted."""
    x = np.array([[5.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.3, 0.4]])
    reference = np.array([2.0, 0.0])

    assert cosines(x, reference=reference) == pytest.approx([1.0, 0.0, -1.0, 0.6])
    assert fltrust(x, reference=reference) == pytest.approx([(2.0 + 0.6 * 1.2) / 1.6, 0.6 * 1.6 / 1.6])
    assert fltrust(-x[[0, 3]], reference=reference).tolist() == [0.0, 0.0]
    assert cosines(np.zeros((2, 2)), reference=reference).tolist() == [0.0, 0.0]


def test_spectral_scores_by_hand() -> None:
    """Centered, the rows are -1, -1, -1, 3 times (3, 4): the top direction is (3, 4) / 5."""
    x = np.array([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [12.0, 16.0]])
    generator = np.random.default_rng(1)

    assert spectral_scores(x, generator=generator) == pytest.approx([5.0, 5.0, 5.0, 15.0])
    assert divide_and_conquer(x, f=1, generator=generator).tolist() == [0.0, 0.0]
    assert spectral_scores(np.zeros((3, 2)), generator=generator).tolist() == [0.0, 0.0, 0.0]


@PROPERTY
@given(seed=SEEDS, iterations=st.integers(1, 2))
def test_divide_and_conquer_against_a_singular_value_decomposition(seed: int, iterations: int) -> None:
    """The paper's algorithm as it is written: drawn coordinates, centered, SVD, squared projections, intersection."""
    x = draw(seed, n=13, d=30)
    x[:2] += 3.0
    generator = np.random.default_rng(seed)
    kept = set(range(13))
    for _ in range(iterations):
        drawn = x[:, np.sort(generator.choice(30, size=20, replace=False))]
        centered = drawn - drawn.mean(axis=0)
        direction = np.linalg.svd(centered)[2][0]
        kept &= set(np.argsort((centered @ direction) ** 2)[: 13 - 3].tolist())

    found = divide_and_conquer(
        x, f=2, c=1.5, generator=np.random.default_rng(seed), coordinates=20, iterations=iterations
    )

    assert found == pytest.approx(x[sorted(kept)].mean(axis=0), abs=1e-9)


def test_buckets_are_means_in_the_given_order() -> None:
    x = np.arange(10.0).reshape(5, 2)

    found = bucketing(x, s=2, order=np.array([4, 0, 1, 3, 2]))

    assert found.tolist() == [[4.0, 5.0], [4.0, 5.0], [4.0, 5.0]]


def test_mixing_takes_the_nearest() -> None:
    x = np.array([[0.0], [1.0], [2.5], [100.0], [101.0]])

    found = nearest_neighbor_mixing(x, f=2)

    assert found.ravel() == pytest.approx([3.5 / 3, 3.5 / 3, 3.5 / 3, 203.5 / 3, 203.5 / 3])
