"""Screening sees two numbers of an encrypted update, as exact as promised, and nobody sees more of it than the rule lets out."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from protocols.errors import (
    CiphertextError,
    InputError,
    ProtocolError,
    ScreeningError,
    SessionError,
    WireError,
)
from protocols.homomorphic import checks
from protocols.homomorphic.messages import EncryptedInput
from protocols.homomorphic.parties.client import signed
from protocols.homomorphic.receipts import NO_COPY, commitment_to_copy
from protocols.homomorphic.scheme import ckks, polynomials, seal_form
from protocols.homomorphic.scheme.bfv import library
from protocols.homomorphic.screening.messages import ScreeningCopy
from protocols.homomorphic.screening.screening import (
    CIPHERTEXT_MODULI,
    DEGREE,
    SLOTS,
    ScreeningRelease,
    rows,
    unit_direction,
)
from tests.contracts.sessions import make_session, segment
from tests.protocols.homomorphic.screening.screened import MEMBERS, RULE, Parties, make_values

DIMENSION = 100_000


def encrypted(keys: ckks.ScreeningSecret, values: npt.NDArray[np.float64]) -> polynomials.Polynomials:
    return ckks.ScreeningKey(keys.public_key()).encrypt(values)


# --- the numbers ---


def test_norms_and_cosines_are_exact_to_three_decimals(keys: ckks.ScreeningSecret) -> None:
    """For 100,000 values, computed on ciphertexts, both differ from numpy's by less than a thousandth."""
    part = (segment(0, DIMENSION, ("a",)),)
    generator = np.random.default_rng(0)
    update, other = (generator.normal(0, 0.1, DIMENSION) for _ in range(2))
    direction = update + 3 * other
    evaluator = ckks.Evaluator(keys.evaluation_keys())
    copy = encrypted(keys, rows({0: update}, part, RULE))
    unit = unit_direction({0: direction}, part, RULE)
    assert unit is not None

    squared = keys.open(evaluator.squared_norm(copy))
    product = keys.open(evaluator.projection(copy, unit))

    found = replace(RULE, max_norm=1e6).judge(squared_norm=squared, projection=product)
    norm = float(np.linalg.norm(update))
    cosine = float(update @ direction / norm / np.linalg.norm(direction))
    assert found.norm == pytest.approx(norm, abs=1e-3)
    assert found.cosine == pytest.approx(cosine, abs=1e-3)
    assert 0.2 < cosine < 0.4


def test_no_other_slot_holds_anything_of_an_update(keys: ckks.ScreeningSecret) -> None:
    """Whoever opens a number in all its slots finds the number once, and noise that is new each time everywhere else."""
    update = np.zeros((2, SLOTS))
    update[0, :100], update[1, 7] = 1.0, 2.0
    evaluator = ckks.Evaluator(keys.evaluation_keys())
    copy = encrypted(keys, update)

    opened = [all_slots(keys, evaluator.squared_norm(copy)) for _ in range(2)]

    first, again = opened
    assert first[0] == pytest.approx(104.0, abs=1e-3)
    assert again[0] == pytest.approx(104.0, abs=1e-3)
    for slots in opened:
        # Uniform in 104 +- 1024: a standard deviation of 591, of which 4,095 draws miss 5 % hardly ever.
        assert np.std(slots[1:]) == pytest.approx(1024 / np.sqrt(3), rel=0.05)
    assert abs(np.corrcoef(first[1:], again[1:])[0, 1]) < 0.1


def all_slots(keys: ckks.ScreeningSecret, number: polynomials.Polynomials) -> npt.NDArray[np.float64]:
    """What a decryptor that is too curious could read."""
    stream = seal_form.pair_stream(number[0], ckks._shape().scalar)
    data = seal_form.vector([stream], length=SLOTS, scale=ckks.SCALE)
    return np.array(library().ckks_vector_from(keys._context, data).decrypt())


def times_i(pairs: polynomials.Polynomials) -> polynomials.Polynomials:
    """Ciphertexts of slots multiplied by the imaginary unit: their polynomials times X^(N/2), in the transformed domain.

    There X^(N/2) is r at the first half of the points and -r at the second (SEAL's bit-reversed order), where
    r = psi^(N/2) and psi is the smallest primitive 2N-th root of unity.
    """
    turned = pairs.copy()
    for place, prime in enumerate(CIPHERTEXT_MODULI):
        root = next(
            candidate
            for base in range(2, 100)
            if pow(candidate := pow(base, (prime - 1) // (2 * DEGREE), prime), DEGREE, prime) == prime - 1
        )
        smallest = min(pow(root, power, prime) for power in range(1, 2 * DEGREE, 2))
        unit = pow(smallest, DEGREE // 2, prime)
        factors = np.array([unit] * (DEGREE // 2) + [prime - unit] * (DEGREE // 2), dtype=object)
        turned[:, :, place] = (pairs[:, :, place].astype(object) * factors % prime).astype(np.uint64)
    return turned


def test_a_forged_copy_can_lie_about_its_norm() -> None:
    """The documented limit: slots are complex, so a row and its like times i have squares that cancel; the sum takes it all."""
    length = 2 * SLOTS
    parties = Parties.meet(replace(RULE, max_norm=1.0), make_session(4, segment(0, length, MEMBERS)))
    huge = np.full(length, 1000)
    message = parties.made(MEMBERS[0], huge)
    pairs = polynomials.decode(message.copy, count=2, moduli=CIPHERTEXT_MODULI, degree=DEGREE)
    pairs[1] = times_i(pairs[:1])[0]
    forged = with_copy(parties, message, polynomials.encode(pairs, CIPHERTEXT_MODULI))
    parties.server.receive(MEMBERS[0], forged.receipt.to_bytes())
    for member in MEMBERS[1:]:
        parties.commit(member, np.zeros(length, dtype=np.int64))
    parties.server.close_stage()
    parties.server.requests()

    parties.server.receive(MEMBERS[0], forged.to_bytes())
    for member in MEMBERS[1:]:
        parties.server.receive(member, parties.upload(member))

    assert parties.server.screened[1].norm == pytest.approx(0.0, abs=0.1)
    assert parties.sums()[0].tolist() == huge.tolist()


def with_copy(parties: Parties, message: EncryptedInput, copy: bytes) -> EncryptedInput:
    """The input with another copy, and a receipt that names it."""
    receipt = signed(
        replace(
            message.receipt,
            copy_digest=commitment_to_copy(message.receipt.context, message.receipt.sender, copy),
        ),
        parties.authority.identity(parties.session.client_at(message.receipt.sender)),
    )
    return replace(message, copy=copy, receipt=receipt)


# --- the rule ---


LOW = "its cosine to the previous step is below 0.5"
NONE = "its norm exceeds 10 input bounds, or its numbers are not those of an update"


@pytest.mark.parametrize(
    ("changes", "squared", "projection", "expected"),
    [
        ({}, 99.9, None, ""),
        ({}, 100.1, None, NONE),
        ({}, float("nan"), None, NONE),
        ({}, float("inf"), None, NONE),
        ({}, -0.0009, None, ""),
        ({}, -0.5, None, NONE),
        ({}, 4.0, 2.0009, ""),
        ({}, 4.0, -2.0009, ""),
        ({}, 4.0, 2.002, NONE),
        ({}, 4.0, -2.002, NONE),
        ({}, 4.0, 1e300, NONE),
        ({}, 0.0, 0.0009, ""),
        ({}, 0.0, 0.9, NONE),
        ({"min_cosine": 0.5}, 4.0, 1.01, ""),
        ({"min_cosine": 0.5}, 4.0, 0.99, LOW),
        ({"min_cosine": 0.5}, 4.0, float("nan"), NONE),
        ({"min_cosine": 0.5}, 4.0, None, ""),
        ({"min_cosine": 0.5}, 0.0, 0.0, LOW),
    ],
)
def test_the_verdict_follows_the_rule(
    changes: dict[str, float], squared: float, projection: float | None, expected: str
) -> None:
    """Norm first, then direction where there is one; what no update can have is told as that alone, and never a value of it."""
    screened = replace(RULE, release=ScreeningRelease.VERDICTS, **changes).judge(  # type: ignore[arg-type]
        squared_norm=squared, projection=projection
    )
    told = replace(RULE, **changes).judge(squared_norm=squared, projection=projection)  # type: ignore[arg-type]

    assert screened.reason == told.reason == expected
    assert (screened.norm, screened.cosine) == (None, None)
    if expected == NONE:
        assert (told.norm, told.cosine) == (None, None)
    else:
        assert told.norm is not None
        assert 0 <= told.norm <= 10
        assert told.cosine is None or -1 <= told.cosine <= 1


def test_values_leave_rounded() -> None:
    """What is let out is a multiple of a thousandth."""
    screened = RULE.judge(squared_norm=2.0, projection=1.0)

    assert screened.norm == 1.414
    assert screened.cosine == 0.707


@pytest.mark.parametrize("changes", [{"max_norm": 0.0}, {"max_norm": float("nan")}, {"min_cosine": -1.5}])
def test_a_rule_without_sense_is_refused(changes: dict[str, float]) -> None:
    """A norm that is not positive, or a cosine outside [-1, 1], raises SessionError."""
    with pytest.raises(SessionError):
        replace(RULE, **changes)


def test_statistics_do_not_count() -> None:
    """The tail of every segment is left out of the rows, and the next segment begins right behind."""
    parts = (segment(0, 5, ("a",)), segment(1, 4, ("a",)))
    values = {0: np.array([1.0, 2, 3, 90, 90]), 1: np.array([4.0, 5, 90, 90])}

    filled = rows(values, parts, replace(RULE, ignored_tail=2))

    assert filled.shape == (1, SLOTS)
    assert filled[0, :5].tolist() == [1, 2, 3, 4, 5]
    assert not filled[0, 5:].any()
    with pytest.raises(InputError):
        rows({0: values[0]}, parts, RULE)


def test_a_direction_of_zeros_is_none() -> None:
    """Where the last step left a client's rows as they were, there is nothing to hold its update against."""
    part = (segment(0, 5, ("a",)),)

    unit = unit_direction({0: np.array([3.0, 4, 0, 0, 0])}, part, RULE)

    assert unit_direction({0: np.zeros(5)}, part, RULE) is None
    assert unit is not None
    assert unit[0, :2].tolist() == [0.6, 0.8]


# --- whole sessions ---


def test_an_update_scaled_ninety_times_is_screened_out_and_the_round_goes_on() -> None:
    """Three clients within the rule are summed exactly; the fourth, ninety times longer, is told by name."""
    session = make_session(4, segment(0, 50, MEMBERS), input_bound=90_000)
    parties = Parties.meet(replace(RULE, max_norm=0.1), session)
    values = [make_values(0), make_values(1), make_values(2), 90 * make_values(3)]
    uploads = parties.uploads(values)
    for member in MEMBERS[:3]:
        parties.server.receive(member, uploads[member])

    with pytest.raises(ScreeningError, match=rf"{MEMBERS[3]}: its norm exceeds 0\.1 input bounds"):
        parties.server.receive(MEMBERS[3], uploads[MEMBERS[3]])

    assert parties.sums()[0].tolist() == sum(values[:3]).tolist()  # type: ignore[union-attr]


def test_the_aggregator_learns_norms_and_cosines() -> None:
    """With values released, it has every client's numbers to three decimals; with verdicts, none."""
    session = make_session(4, segment(0, 50, MEMBERS), segment(1, 20, MEMBERS[:2]))
    direction = {0: np.ones(50), 1: np.ones(20)}
    told = Parties.meet(RULE, session, direction)
    silent = Parties.meet(replace(RULE, release=ScreeningRelease.VERDICTS), session, direction)

    for parties in (told, silent):
        parties.take(map(make_values, range(4)))

    for place, member in enumerate(MEMBERS, start=1):
        values = make_values(place - 1) / 1000
        whole = np.concatenate([values, values[:20]]) if member in MEMBERS[:2] else values
        screened = told.server.screened[place]
        assert screened.norm == pytest.approx(np.linalg.norm(whole), abs=1e-3)
        assert screened.cosine == pytest.approx(
            whole.sum() / np.linalg.norm(whole) / np.sqrt(len(whole)), abs=1e-3
        )
        assert (silent.server.screened[place].norm, silent.server.screened[place].cosine) == (None, None)


def test_an_update_against_the_last_step_is_screened_out() -> None:
    """A sign-flipped update falls to the cosine, which its norm alone would not have shown."""
    session = make_session(4, segment(0, 50, MEMBERS))
    step = {0: make_values(7).astype(np.float64)}
    parties = Parties.meet(replace(RULE, min_cosine=0.2), session, step)
    uploads = parties.uploads([*3 * [make_values(7)], -make_values(7)])
    for member in MEMBERS[:3]:
        parties.server.receive(member, uploads[member])

    with pytest.raises(ScreeningError, match=r"cosine to the previous step is below 0\.2"):
        parties.server.receive(MEMBERS[3], uploads[MEMBERS[3]])

    assert list(parties.server.screened_out) == [MEMBERS[3]]
    assert "cosine to the previous step" in parties.server.screened_out[MEMBERS[3]]
    assert parties.sums()[0].tolist() == (3 * make_values(7)).tolist()


def above_prime(copy: bytes) -> bytes:
    """The first residue is as large as its bits allow."""
    return b"\xff" * 8 + copy[8:]


def no_second(copy: bytes) -> bytes:
    """A copy whose second polynomials are zero."""
    size = polynomials.size_of(1, moduli=CIPHERTEXT_MODULI, degree=DEGREE)
    pairs = polynomials.decode(copy, count=len(copy) // size, moduli=CIPHERTEXT_MODULI, degree=DEGREE)
    pairs[:, 1] = 0
    return polynomials.encode(pairs, CIPHERTEXT_MODULI)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda _: b"", CiphertextError),
        (lambda copy: copy[:-1], CiphertextError),
        (lambda copy: copy + copy, CiphertextError),
        (above_prime, CiphertextError),
        (no_second, CiphertextError),
        (lambda copy: bytes(len(copy)), CiphertextError),
    ],
    ids=["missing", "short", "doubled", "a residue beyond its prime", "no second polynomial", "zeros"],
)
def test_a_malformed_copy_costs_its_sender_the_round(change: object, error: type[ProtocolError]) -> None:
    """Committed to by its sender or not, it is refused by name, and the others are summed."""
    for committed in (False, True):
        parties = Parties.meet(RULE, make_session(4, segment(0, 50, MEMBERS)))
        honest = parties.made(MEMBERS[3], make_values(3))
        copy = change(honest.copy)  # type: ignore[operator]
        forged = with_copy(parties, honest, copy) if committed else replace(honest, copy=copy)
        with pytest.raises((error, InputError)):
            receive_whole(parties, forged)
        if len(parties.clients) == 0:  # no receipt can name a copy of nothing
            commit_the_others(parties)
        for member in MEMBERS[:3]:
            parties.server.receive(member, parties.upload(member))

        assert parties.sums()[0].tolist() == sum(make_values(seed) for seed in range(3)).tolist()  # type: ignore[union-attr]


def receive_whole(parties: Parties, message: EncryptedInput) -> None:
    """Commit to a message and upload it, with everybody else's commitments in between."""
    parties.server.receive(MEMBERS[3], message.receipt.to_bytes())
    commit_the_others(parties)
    parties.server.receive(MEMBERS[3], message.to_bytes())


def commit_the_others(parties: Parties) -> None:
    for seed, member in enumerate(MEMBERS[:3]):
        parties.commit(member, make_values(seed))
    parties.server.close_stage()
    parties.server.requests()


def test_where_nothing_is_screened_a_copy_is_refused() -> None:
    """A copy, or the receipt of one, has no place in a session without screening; where there is one, none may lack."""
    screened = Parties.meet(RULE, make_session(4, segment(0, 50, MEMBERS)))
    receipt = screened.made(MEMBERS[0], make_values(0)).receipt
    identity = screened.authority.identity(MEMBERS[0])
    plain = replace(screened.server._terms, screening=None)
    odd = signed(replace(receipt, context=plain.context), identity)
    lacking = signed(replace(receipt, copy_digest=NO_COPY), identity)

    with pytest.raises(InputError, match="screens nothing"):
        checks.check_receipt(plain, odd, key_id=receipt.key_id)
    with pytest.raises(InputError, match="must be there exactly if"):
        checks.check_receipt(screened.server._terms, lacking, key_id=receipt.key_id)


def test_a_direction_that_is_no_direction_is_refused() -> None:
    """Half a row, or a value that is no number, raises WireError at the screener."""
    row = np.zeros((1, SLOTS))
    row[0, 3] = np.inf
    infinite = ScreeningCopy(context=bytes(32), copy=b"", direction=row)
    half = ScreeningCopy(context=bytes(32), copy=b"", direction=np.ones(SLOTS // 2))

    for message in (infinite, half):
        with pytest.raises(WireError):
            ScreeningCopy.from_bytes(message.to_bytes())
