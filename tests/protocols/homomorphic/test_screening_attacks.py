"""Screening as a way to read an update: numbers that nobody computed from it as the rule says open nothing.

The attack throughout: the aggregator has the inner products of one client's copy with directions of its own choosing opened, two
coordinates at a time, the second one some two thousand times as large as the first; one for every position it can name.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pytest

from protocols.errors import CommitmentError, ProtocolError, ScreeningError, SignatureError
from protocols.homomorphic.messages import EncryptedInput
from protocols.homomorphic.scheme import polynomials
from protocols.homomorphic.scheme.ckks import Evaluator, screening_key
from protocols.homomorphic.screening.messages import (
    NUMBERS_PURPOSE,
    EvaluationKeys,
    ScreeningCopy,
    ScreeningNumbers,
    ScreeningResult,
)
from protocols.homomorphic.screening.number_opening import NumberOpening
from protocols.homomorphic.screening.screening import (
    CIPHERTEXT_MODULI,
    DEGREE,
    SCALAR_MODULI,
    SLOTS,
    Screened,
    Screening,
    ScreeningRelease,
)
from protocols.homomorphic.services.messages import SCREENING
from protocols.homomorphic.services.services import Channel
from protocols.homomorphic.terms import Services
from tests.contracts.sessions import MODEL, make_session, names, segment
from tests.protocols.homomorphic.meeting import (
    ALONE,
    VERIFIED,
    Meeting,
    charge_for,
    service_identity,
)

FIRST, SECOND, THIRD, LAST = MEMBERS = names(4)
SESSION = make_session(4, segment(0, 50, MEMBERS, 3))
RULE = Screening(max_norm=1000.0, release=ScreeningRelease.VALUES)
RATIO = 2001  # one more than the values of a coordinate
BOTH = pytest.mark.parametrize("services", [ALONE, VERIFIED], ids=["alone", "verified"])


@dataclass
class Attack:
    """A session whose list is fixed, and what an aggregator has of its first client."""

    meeting: Meeting
    copy: bytes
    keys: EvaluationKeys
    evaluator: Evaluator

    @classmethod
    def begin(cls, services: Services, rule: Screening = RULE) -> "Attack":
        """Everybody has committed, and the first client has uploaded to the aggregator."""
        meeting = Meeting.of(SESSION, charge_for(services=services, screening=rule))
        copy = EncryptedInput.from_bytes(meeting.upload(FIRST)).copy
        keys = EvaluationKeys.from_bytes(meeting.roles.decryptor.call(SCREENING))
        return cls(meeting, copy, keys, Evaluator(keys.keys))

    @property
    def verifier(self) -> Channel:
        """The verifier, ready to compute."""
        assert self.meeting.roles.verifier is not None
        self.meeting.roles.verifier.call(self.keys.to_bytes())
        return self.meeting.roles.verifier

    def number(self, copy: bytes, direction: npt.NDArray[np.float64]) -> bytes:
        """The encrypted inner product of a copy with any direction."""
        pairs = polynomials.decode(copy, count=1, moduli=CIPHERTEXT_MODULI, degree=DEGREE)
        return polynomials.encode(self.evaluator.projection(pairs, direction), SCALAR_MODULI)

    def constant(self, value: float) -> bytes:
        """An encrypted number of the aggregator's choosing."""
        row = np.zeros((1, SLOTS))
        row[0, 0] = 1.0
        own = screening_key(self.meeting.key.screening_key).encrypt(row)
        return self.number(polynomials.encode(own, CIPHERTEXT_MODULI), value * row)

    def numbers(self, position: int, weights: dict[int, float], norm: float = 1.0) -> ScreeningNumbers:
        """What it sends in the name of a client: a norm of its choosing, and chosen coordinates of the first client's copy."""
        direction = np.zeros((1, SLOTS))
        for at, weight in weights.items():
            direction[0, at] = weight
        receipt = self.meeting.server._receipts[position]
        return ScreeningNumbers(
            context=self.keys.context,
            sender=position,
            copy_digest=receipt.copy_digest,
            squared_norm=self.constant(norm),
            projection=self.number(self.copy, direction),
        )

    def leaked(self) -> int:
        """How many of the first client's first eight coordinates come out, over all positions."""
        values = self.meeting.inputs[FIRST][0].values
        found = 0
        for slot in range(4):
            chosen = self.numbers(slot + 1, {2 * slot: 1.0, 2 * slot + 1: float(RATIO)})
            try:
                told = ScreeningResult.from_bytes(self.meeting.roles.decryptor.call(chosen.to_bytes())).cosine
            except ProtocolError:
                continue
            if told is None:
                continue
            high = round(told / RATIO)
            found += int(abs(told - RATIO * high - values[2 * slot]) <= 1)
            found += int(abs(high - values[2 * slot + 1]) <= 1)
        return found


def release_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule that lets out whatever number was opened."""

    def judge(_rule: Screening, *, squared_norm: float, projection: float | None) -> Screened:
        return Screened(reason="", norm=float(np.sqrt(abs(squared_norm))), cosine=projection)

    monkeypatch.setattr(Screening, "judge", judge)


def verify_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A decryptor that asks for no verifier's signature of numbers."""
    monkeypatch.setattr(NumberOpening, "_check_verified", lambda *_arguments: None)


@BOTH
def test_numbers_of_a_direction_of_the_aggregators_choosing_show_no_coordinate(services: Services) -> None:
    """Of eight coordinates none comes out, with a verifier and without."""
    assert Attack.begin(services).leaked() == 0


@BOTH
def test_without_the_checks_every_coordinate_comes_out(
    monkeypatch: pytest.MonkeyPatch, services: Services
) -> None:
    """The control: a decryptor that opens any numbers and lets any value out shows eight of eight."""
    release_anything(monkeypatch)
    verify_nothing(monkeypatch)

    assert Attack.begin(services).leaked() == 8


def test_the_range_alone_keeps_such_products_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """A decryptor that forgets to ask for the verifier's signature still lets no such value out."""
    verify_nothing(monkeypatch)

    assert Attack.begin(VERIFIED).leaked() == 0


def test_the_signature_alone_keeps_them_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """A decryptor that would let any value out is shown none that the verifier has not computed."""
    release_anything(monkeypatch)

    assert Attack.begin(VERIFIED).leaked() == 0


@BOTH
@pytest.mark.parametrize(("weight", "norm"), [(1.0, 2e6), (1.0, -3.0), (50.0, 1.0), (1e6, 1.0), (-1e6, 1.0)])
def test_no_value_beyond_norm_and_cosine_is_let_out(services: Services, weight: float, norm: float) -> None:
    """A cosine outside [-1, 1] or a norm beyond the largest leaves as a refusal or a bare verdict, never as a number."""
    attack = Attack.begin(services)
    place = int(np.abs(attack.meeting.inputs[FIRST][0].values).argmax())
    chosen = attack.numbers(2, {place: weight}, norm)

    try:
        told = ScreeningResult.from_bytes(attack.meeting.roles.decryptor.call(chosen.to_bytes())).screened
    except SignatureError:
        assert services == VERIFIED
        return

    assert services == ALONE
    assert (told.norm, told.cosine) == (None, None)
    assert told.reason


def test_without_a_verifier_a_number_within_the_range_can_be_chosen() -> None:
    """The stated limit: one number a client, in the range and to three decimals, can be another one's coordinate."""
    attack = Attack.begin(ALONE)
    values = attack.meeting.inputs[FIRST][0].values

    request = attack.numbers(2, {5: 1.0}).to_bytes()
    told = ScreeningResult.from_bytes(attack.meeting.roles.decryptor.call(request)).cosine

    assert told is not None
    assert abs(told - values[5]) <= 1
    with pytest.raises(ScreeningError, match="screened once"):
        attack.meeting.roles.decryptor.call(request)


Change = Callable[["Attack", ScreeningNumbers], ScreeningNumbers]
CHANGES: dict[str, tuple[Change, type[ProtocolError]]] = {
    "unsigned": (lambda _, found: replace(found, signature=b""), SignatureError),
    "signed by the decryptor": (
        lambda _, found: replace(
            found, signature=service_identity("decryptor").sign(NUMBERS_PURPOSE, found.signed_part())
        ),
        SignatureError,
    ),
    "another norm": (lambda attack, found: replace(found, squared_norm=attack.constant(4.0)), SignatureError),
    "a product where there was none": (
        lambda attack, found: replace(found, projection=attack.constant(0.5)),
        SignatureError,
    ),
    "in another client's name": (
        lambda attack, found: replace(
            found, sender=2, copy_digest=attack.meeting.server._receipts[2].copy_digest
        ),
        SignatureError,
    ),
    "in another client's name with the first one's copy": (
        lambda _, found: replace(found, sender=2),
        CommitmentError,
    ),
    "of another copy": (lambda _, found: replace(found, copy_digest=MODEL), CommitmentError),
    "another reference": (lambda _, found: replace(found, reference=bytes([1]) * 32), SignatureError),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_the_verifiers_numbers_are_opened_as_they_are(kind: str) -> None:
    """Whatever is changed of them, they are refused by name, and the honest ones still open."""
    attack = Attack.begin(VERIFIED)
    copy = ScreeningCopy(context=attack.keys.context, sender=1, copy=attack.copy, direction=None)
    found = ScreeningNumbers.from_bytes(attack.verifier.call(copy.to_bytes()))
    change, error = CHANGES[kind]

    with pytest.raises(error):
        attack.meeting.roles.decryptor.call(change(attack, found).to_bytes())

    attack.meeting.roles.decryptor.call(found.to_bytes())
    with pytest.raises(ScreeningError, match="screened once"):
        attack.meeting.roles.decryptor.call(found.to_bytes())
