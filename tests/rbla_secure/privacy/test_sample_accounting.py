"""Sample level in figures: epsilon of sampled steps, and the ledger that no round can forget."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import dp_accounting
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opacus.accountants import PRVAccountant

from protocols.primitives.prg import UniformStream
from rbla_secure.errors import BudgetError, PrivacyError
from rbla_secure.planning.budget import planned_steps
from rbla_secure.privacy.accounting import SampledSteps, epsilon_of_steps, noise_multiplier_of_steps
from rbla_secure.privacy.discrete_gaussian import TOTAL_VARIATION, discrete_gaussian
from rbla_secure.privacy.noise import SMOOTHING_SLACK
from rbla_secure.privacy.sample_ledger import FILE, TRAINING, SampleLedger, SampleTerms, Trained
from rbla_secure.privacy.sampled_gaussian import MOST_VALUES, SampledGaussian
from tests.support import privacy_loss
from tests.support.federations import make_config
from tests.support.properties import PROPERTY

DELTA = 1e-5
MECHANISM = SampledGaussian(noise_multiplier=1.0, clip_norm=1.0, sample_rate=0.1, steps=10)


def steps(multiplier: float, rate: float, count: int) -> SampledSteps:
    """With slack and sampler's error, as a client's steps have it."""
    return SampledSteps(
        noise_multiplier=multiplier,
        sample_rate=rate,
        steps=count,
        slack=count * MECHANISM.slack / MECHANISM.steps,
        total_variation=count * MECHANISM.total_variation / MECHANISM.steps,
    )


@pytest.mark.filterwarnings("ignore")  # the other accountant warns of its own numerics
@pytest.mark.parametrize(
    ("multiplier", "rate", "count"), [(1.0, 0.1, 100), (1.0, 0.01, 1000), (0.8, 0.05, 400), (2.0, 0.5, 60)]
)
def test_epsilon_is_that_of_an_independent_accountant(multiplier: float, rate: float, count: int) -> None:
    """Within one per cent of Opacus' numerical accountant (Gopi et al. 2021), which shares no code with ours."""
    other = PRVAccountant()
    other.history = [(multiplier, rate, count)]

    assert epsilon_of_steps([steps(multiplier, rate, count)], DELTA) == pytest.approx(
        other.get_epsilon(DELTA), rel=0.01
    )


@pytest.mark.parametrize(
    ("multiplier", "rate", "count", "delta"),
    [
        (1.0, 0.1, 100, 1e-5),
        (1.0, 0.01, 1000, 1e-5),
        (0.8, 0.05, 400, 1e-5),
        (2.0, 0.5, 60, 1e-5),
        (0.6, 0.02, 500, 1e-6),
        (4.0, 0.9, 200, 1e-6),
        (1.5, 0.2, 1, 1e-5),
        (0.5, 0.05, 10, 1e-3),
        (10.0, 0.3, 1000, 1e-8),
        (3.0, 1.0, 30, 1e-5),
    ],
)
def test_epsilon_is_that_of_our_own_convolutions(
    multiplier: float, rate: float, count: int, delta: float
) -> None:
    """To a ten-thousandth, found without the library; and half a per cent less noise is told apart: the control."""
    width = 3e-4
    upper = privacy_loss.epsilon(multiplier, rate, count, delta, width=width)
    lower = privacy_loss.epsilon(multiplier, rate, count, delta, width=width, upper=False)

    ours, louder = (
        epsilon_of_steps([steps(z, rate, count)], delta) for z in (multiplier, multiplier * 0.995)
    )

    assert lower < ours < upper
    assert ours == pytest.approx((upper + lower) / 2, rel=1e-4)
    assert louder > ours * 1.001


def test_epsilon_where_all_examples_are_in_every_batch_is_the_exact_one() -> None:
    """And sampling at a rate just below one costs no less than what it tends to."""
    exact = dp_accounting.get_epsilon_gaussian(10 / 100**0.5, DELTA)
    assert epsilon_of_steps([steps(10, 1.0, 100)], DELTA) == pytest.approx(exact, abs=1e-9)
    assert epsilon_of_steps([steps(10, 0.999, 100)], DELTA) == pytest.approx(exact, rel=0.01)


def test_histories_merge_and_their_order_does_not_matter() -> None:
    """Rounds and resumptions cut the same steps into other pieces."""
    parts = [steps(1.0, 0.1, 30), steps(2.0, 0.1, 20), steps(1.0, 0.1, 10)]
    whole = epsilon_of_steps([steps(1.0, 0.1, 40), steps(2.0, 0.1, 20)], DELTA)
    for order in itertools.permutations(parts):
        assert epsilon_of_steps(order, DELTA) == pytest.approx(whole, rel=1e-12)
    assert epsilon_of_steps([], DELTA) == 0.0


def test_calibration_errs_on_the_private_side() -> None:
    """The target is not exceeded, and a little less noise would exceed it."""
    found = noise_multiplier_of_steps(3.0, delta=DELTA, sample_rate=0.05, steps=200)
    assert epsilon_of_steps([steps(found, 0.05, 200)], DELTA) <= 3.0
    assert epsilon_of_steps([steps(found * 0.995, 0.05, 200)], DELTA) > 3.0
    assert found == pytest.approx(1.29, rel=0.01)  # 1.2915 by Opacus' numerical accountant


@PROPERTY
@given(multiplier=st.floats(1e-6, 227.5), dimension=st.integers(1, MOST_VALUES))
def test_no_noise_of_a_step_is_refused_once_training_has_begun(multiplier: float, dimension: int) -> None:
    """Whatever multiplier is accepted, at every number of values that anybody has."""
    found = replace(MECHANISM, noise_multiplier=multiplier)

    assert len(discrete_gaussian(found.noise_std(dimension), 1, UniformStream(bytes(16)))) == 1


def test_noise_of_a_step_that_cannot_be_drawn_is_refused_by_name() -> None:
    """At some number of values; so is a number of values for which nothing is counted."""
    with pytest.raises(
        PrivacyError, match=r"noise_multiplier=227\.6 must be < 227\.556: noise beyond that is not drawn"
    ):
        replace(MECHANISM, noise_multiplier=227.6)
    with pytest.raises(
        PrivacyError, match=f"dimension={MOST_VALUES + 1} trained values must be <= {MOST_VALUES}"
    ):
        MECHANISM.noise_std(MOST_VALUES + 1)


def test_steps_count_slack_and_the_samplers_error_at_any_number_of_values() -> None:
    """As for the most values that there are, so that the figure follows from the configuration; and it is next to nothing."""
    config = make_config(
        rounds=7, sample_level={"noise_multiplier": 1.0, "sample_rate": 0.1}, training={"steps": 10}
    )

    (planned,) = planned_steps(config)

    entries = Trained.of(MECHANISM, round_number=1, attempt=1, clients=["a"])
    assert entries.total_variation == MECHANISM.steps * MOST_VALUES * TOTAL_VARIATION
    assert 0 < entries.slack == MECHANISM.steps * MOST_VALUES * SMOOTHING_SLACK < 1e-19
    assert planned == SampledSteps(
        noise_multiplier=1.0,
        sample_rate=0.1,
        steps=70,
        slack=7 * entries.slack,
        total_variation=7 * entries.total_variation,
    )


def test_the_ledger_takes_the_samplers_error_off_delta(tmp_path: Path) -> None:
    """Where it leaves nothing, nothing is claimed; the slack is paid twice. The control has neither."""
    found = {}
    for changes in ({}, {"total_variation": 1e-250}, {"slack": 0.5}):
        folder = tmp_path / str(len(found))
        folder.mkdir()
        ledger = SampleLedger.open(folder, terms())
        wide = replace(MECHANISM, noise_multiplier=0.1, sample_rate=1.0, steps=9)
        made = Trained.of(wide, round_number=1, attempt=1, clients=["a"])
        ledger.record(made.model_copy(update={"slack": 0.0, "total_variation": 0.0, **changes}))
        found[str(changes)] = ledger.epsilon()

    bare, error, slack = found.values()
    assert 500 < bare < slack - 1
    assert error == float("inf")


def terms(**changes: object) -> SampleTerms:
    fields = {"run": "ab", "delta": DELTA, "max_epsilon": 0.0, "simulation": False} | changes
    return SampleTerms(**fields)  # type: ignore[arg-type]


def entry(number: int, *clients: str, attempt: int = 1) -> Trained:
    return Trained.of(MECHANISM, round_number=number, attempt=attempt, clients=clients)


def test_the_client_that_trained_most_decides(tmp_path: Path) -> None:
    """Other clients' examples are other examples: nothing adds up over clients."""
    ledger = SampleLedger.open(tmp_path, terms())
    ledger.record(entry(1, "b", "a"))
    ledger.record(entry(2, "c", "a"))

    assert ledger.epsilon() == epsilon_of_steps([steps(1.0, 0.1, 20)], DELTA)
    assert SampleLedger.read(tmp_path).entries == ledger.entries
    assert ledger.entries[0].clients == ("a", "b")


def test_a_budget_stops_training_and_changes_nothing(tmp_path: Path) -> None:
    limit = epsilon_of_steps([steps(1.0, 0.1, 20)], DELTA)
    ledger = SampleLedger.open(tmp_path, terms(max_epsilon=limit))
    ledger.record(entry(1, "a"))
    ledger.record(entry(2, "a"))
    before = (tmp_path / FILE).read_bytes()

    with pytest.raises(BudgetError, match="round 3 attempt 1 would take epsilon of single examples to"):
        ledger.record(entry(3, "a"))

    ledger.record(entry(3, "b"))  # whose examples have not spent it
    assert SampleLedger.read(tmp_path).entries == ledger.entries
    assert json.loads(before)["entries"] == json.loads((tmp_path / FILE).read_bytes())["entries"][:2]


def test_a_ledger_that_forgets_is_refused(tmp_path: Path) -> None:
    """Lost, damaged, of another run, or without a round whose result is there."""
    with pytest.raises(PrivacyError, match="lacks round 1, whose result is here"):
        SampleLedger.open(tmp_path, terms(), spent=[(1, TRAINING)])
    known = SampleLedger.open(tmp_path, terms()).record(entry(1, "a"))
    with pytest.raises(PrivacyError, match="lacks round 2"):
        SampleLedger.open(tmp_path, terms(), spent=[(1, TRAINING), (2, TRAINING)], known=known)
    with pytest.raises(PrivacyError, match="opened under other terms"):
        SampleLedger.open(tmp_path, terms(delta=1e-6), known=known)
    (tmp_path / FILE).write_bytes((tmp_path / FILE).read_bytes()[:-3])
    with pytest.raises(PrivacyError, match="is damaged"):
        SampleLedger.open(tmp_path, terms())
    (tmp_path / FILE).unlink()
    with pytest.raises(PrivacyError, match="cannot be read"):
        SampleLedger.read(tmp_path)


@pytest.mark.parametrize(
    ("rate", "multiplier", "count", "delta", "truth"),
    [
        (0.01, 2.0, 100_000, 1e-12, 12.950),
        (0.01, 2.0, 100_000, 1e-10, 11.782),
        (0.05, 5.0, 50_000, 1e-13, 18.750),
        (1 - 1e-12, 100.0, 50_000, 1e-12, 17.7785),
    ],
)
def test_no_figure_is_below_the_truth_where_delta_is_tiny(
    rate: float, multiplier: float, count: int, delta: float, truth: float
) -> None:
    """The truth is that of sums which keep their relative accuracy in the tail; the library's transforms alone print less."""
    printed = epsilon_of_steps([steps(multiplier, rate, count)], delta)

    assert truth - 1e-3 <= printed < 1.05 * truth
