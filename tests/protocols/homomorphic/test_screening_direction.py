"""Who sets the direction that screened updates are held against, and what a cosine to it then tells of one coordinate.

The attack throughout: the sums of the first round are made to point along one coordinate, so that in the second round norm and
cosine, which are let out, multiply to that coordinate of every update.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pytest

from protocols.errors import CiphertextError, ContextError, ServiceError
from protocols.homomorphic import checks
from protocols.homomorphic.messages import (
    RESULT_PURPOSE,
    SUM_PURPOSE,
    DecryptedSums,
    EncryptedInput,
    EncryptedSum,
)
from protocols.homomorphic.parties import verifier
from protocols.homomorphic.parties.adder import Adder
from protocols.homomorphic.receipts import FixedInputs
from protocols.homomorphic.scheme import bfv, polynomials
from protocols.homomorphic.scheme.fields import to_slots
from protocols.homomorphic.screening.at_verifier import Reference, reference_of
from protocols.homomorphic.screening.screening import Screened, Screening, ScreeningRelease
from protocols.homomorphic.services.calls import Calls
from protocols.homomorphic.services.messages import DecryptRequest
from protocols.homomorphic.services.services import KeyedService, LocalChannel
from protocols.homomorphic.terms import EncryptionTerms
from protocols.interface import SegmentInput
from protocols.session import Session
from tests.contracts.sessions import MODEL, Inputs, make_session, names, same_bindings, segment
from tests.protocols.homomorphic.meeting import (
    VERIFIED,
    Meeting,
    charge_for,
    refitted,
    server_of,
    service_identity,
    terms_of,
)

VICTIM, *REST = MEMBERS = names(8)
CORRUPT = MEMBERS[-1]
COLLUDERS, MAJORITY = MEMBERS[-3:], MEMBERS[-5:]
HOLDERS = (VICTIM, *COLLUDERS)  # of the second band
LENGTH, PLACE, BOUND = 64, 17, 1000
CHARGE = charge_for(services=VERIFIED, screening=Screening(max_norm=10.0, release=ScreeningRelease.VALUES))
ONE_BAND = make_session(8, segment(0, LENGTH, MEMBERS, 3))
TWO_BANDS = make_session(8, segment(0, LENGTH, MEMBERS, 3), segment(1, LENGTH, HOLDERS, 3))
SPREAD = 80  # of honest values, in units of which BOUND are the input bound


def honest_inputs(session: Session, seed: int) -> Inputs:
    """Small values, as of updates: the input bound is that of a single coordinate."""
    generator = np.random.default_rng(seed)
    return {
        member: {
            part.index: SegmentInput(
                values=generator.integers(-SPREAD, SPREAD + 1, LENGTH, dtype=np.int64), binding=MODEL
            )
            for part in session.segments_of(member)
        }
        for member in session.members
    }


def along(value: int) -> npt.NDArray[np.int64]:
    """Nothing but one coordinate."""
    found = np.zeros(LENGTH, dtype=np.int64)
    found[PLACE] = value
    return found


def input_of(values: npt.NDArray[np.int64]) -> SegmentInput:
    """Values that are bound to the model."""
    return SegmentInput(values=values, binding=MODEL)


@dataclass
class Rounds:
    """Sessions of one run with the same services."""

    session: Session
    meeting: Meeting | None = None

    def next(self, seed: int) -> Meeting:
        """The next session, in which everybody is honest until the test has it otherwise."""
        before, number = self.meeting, 1 if self.meeting is None else self.meeting.session.round + 1
        session = replace(self.session, round=number)
        self.meeting = Meeting.of(session, CHARGE, honest_inputs(session, seed))
        if before is not None:
            self.meeting.roles = before.roles
            self.meeting.server = server_of(terms_of(session, CHARGE), before.roles)
        return self.meeting

    def reference(self) -> Reference:
        """What the verifier holds the next updates against."""
        assert self.meeting is not None
        channel = self.meeting.roles.verifier
        assert isinstance(channel, LocalChannel)
        assert isinstance(channel.service, KeyedService)
        assert isinstance(channel.service._role, verifier.Verifier)
        return channel.service._role._reference

    def read(self) -> dict[str, tuple[float, float]]:
        """By client: the coordinate as the server works it out after an honest next round, and as it is, in input bounds."""
        meeting = self.next(seed=2)
        meeting.take(*MEMBERS)
        return {
            member: (told_of(meeting.server.screened[place]), coordinate_of(meeting, member))
            for place, member in enumerate(MEMBERS, start=1)
        }


def told_of(screened: Screened) -> float:
    """The inner product with the direction: the norm times the cosine; 0 where there is no direction."""
    return (screened.norm or 0.0) * (screened.cosine or 0.0)


def coordinate_of(meeting: Meeting, member: str) -> float:
    """The last band's coordinate that the direction is to point along."""
    values = meeting.inputs[member][max(meeting.inputs[member])].values
    return float(values[PLACE]) / BOUND


def careless(
    terms: EncryptionTerms, present: frozenset[int], sum_digest: bytes, opened: DecryptedSums
) -> Reference:
    """A verifier that takes for a direction whatever was opened."""
    del sum_digest
    means = {
        index: opened.integers(index)[:LENGTH] / len(terms.present(terms.session.segments[index], present))
        for index in opened.sums
    }
    return Reference(digest=opened.digest, means=means)


def message_with(meeting: Meeting, member: str, *values: npt.NDArray[np.int64]) -> EncryptedInput:
    """An input whose values, band by band, no client's code would encrypt, beside an honest copy."""
    terms, honest = meeting.terms, meeting.made(member)
    public = bfv.public_key(terms.profile, meeting.key.key)
    pairs = [public.encrypt(to_slots(band, terms.profile, members=8)) for band in values]
    return refitted(
        terms,
        honest,
        {
            index: polynomials.encode(pair, terms.profile.ciphertext_moduli)
            for index, pair in enumerate(pairs)
        },
    )


def one_clients_round(rounds: Rounds, *values: npt.NDArray[np.int64]) -> Mapping[int, str]:
    """An honest server's first round, in which one client sends these, band by band; which bands it refused."""
    meeting = rounds.next(seed=1)
    forged = message_with(meeting, CORRUPT, *values)
    meeting.commit(*MEMBERS[:-1])
    meeting.server.receive(CORRUPT, forged.receipt.to_bytes())
    meeting.server.close_stage()
    meeting.server.requests()
    meeting.fixed = True
    meeting.take(*MEMBERS[:-1])
    meeting.server.receive(CORRUPT, forged.to_bytes())
    meeting.server.close_stage()
    return meeting.server.result(same_bindings(meeting.session)).refused


# --- one client, out of range ---


def test_where_a_discarded_sum_is_a_direction_one_client_has_a_coordinate_of_everybody_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The control: the server refuses the sum and moves nothing, and reads one coordinate of all clients in the next round."""
    monkeypatch.setattr(verifier, "reference_of", careless)
    rounds = Rounds(ONE_BAND)
    assert "its sum leaves" in one_clients_round(rounds, along(500_000))[0]

    for told, true in rounds.read().values():
        assert told == pytest.approx(true, abs=2e-3)


def test_a_discarded_sum_gives_no_direction() -> None:
    """The same attack on ours: the next updates are held against nothing, and pass by their norms."""
    rounds = Rounds(ONE_BAND)
    assert "its sum leaves" in one_clients_round(rounds, along(500_000))[0]

    meeting = rounds.next(seed=2)
    meeting.take(*MEMBERS)

    assert all(told.norm is not None for told in meeting.server.screened.values())
    assert all(told.cosine is None for told in meeting.server.screened.values())


def band_by_band(
    terms: EncryptionTerms, present: frozenset[int], sum_digest: bytes, opened: DecryptedSums
) -> Reference:
    """A verifier that leaves out of the direction what is discarded, and nothing else."""
    found = careless(terms, present, sum_digest, opened)
    for index, part in enumerate(terms.session.segments):
        if checks.reason_to_discard(terms, part, present, opened.integers(index)):
            found.means[index][:] = 0.0
    return found


@pytest.mark.parametrize("ours", [False, True], ids=["band by band", "ours"])
def test_one_client_that_spoils_a_band_leaves_no_other_one_alone_in_the_direction(
    monkeypatch: pytest.MonkeyPatch, *, ours: bool
) -> None:
    """It spoils the band of all and fills a coordinate of the other: read of its other holders, where that is a direction."""
    if not ours:
        monkeypatch.setattr(verifier, "reference_of", band_by_band)
    rounds = Rounds(TWO_BANDS)
    assert one_clients_round(rounds, along(500_000), along(3 * BOUND)).keys() == {0}

    missed = misses(rounds)

    others = [missed[MEMBERS.index(member)] for member in HOLDERS if member != CORRUPT]
    if ours:
        assert np.isinf(missed).all()
        assert rounds.meeting is not None
        assert all(told.cosine is None for told in rounds.meeting.server.screened.values())
    else:
        assert max(others) < 0.02


def test_a_sum_with_something_in_its_padding_gives_no_direction() -> None:
    """As the server discards it: values that are no part of the segment."""
    meeting = Meeting.of(ONE_BAND, CHARGE, honest_inputs(ONE_BAND, 1))
    terms, padded = meeting.terms, np.zeros(meeting.terms.profile.values_per_ciphertext, dtype=np.int64)
    padded[PLACE] = 5

    for extra, expected in ((0, 5 / 8), (1, 0.0)):
        padded[LENGTH] = extra
        found = reference_of(terms, frozenset(range(1, 9)), bytes(32), opened_as(terms, padded))
        assert found.means[0][PLACE] == expected


def opened_as(terms: EncryptionTerms, values: npt.NDArray[np.int64], index: int = 0) -> DecryptedSums:
    """Sums as the decryptor would sign them."""
    message = DecryptedSums.of(context=terms.context, sum_digest=bytes(32), sums={index: values})
    signature = service_identity("decryptor").sign(RESULT_PURPOSE, message.signed_part())
    return replace(message, signature=signature)


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("length", [0, LENGTH, 5000])
def test_opened_sums_of_another_length_are_refused_by_name(index: int, length: int) -> None:
    """A decryptor that signs what cannot be a sum ends no verifier."""
    terms = terms_of(ONE_BAND, CHARGE)

    with pytest.raises(ContextError, match=r"another length|does not exist"):
        reference_of(
            terms, frozenset(range(1, 9)), bytes(32), opened_as(terms, np.zeros(length, np.int64), index)
        )


# --- an aggregator and a quorum of colluders ---


def lying_round(
    rounds: Rounds,
    *,
    bands: tuple[int, ...],
    contributors: tuple[str, ...],
    colluders: tuple[str, ...] = COLLUDERS,
) -> None:
    """A first round whose aggregator has these bands opened over these clients, the colluders' values along one coordinate."""
    meeting = rounds.next(seed=1)
    for member in colluders:
        meeting.inputs[member] = {
            part.index: input_of(along(BOUND if part.index else 0))
            for part in meeting.session.segments_of(member)
        }
    meeting.fix()
    listed = FixedInputs.from_bytes(meeting.server.requests()[VICTIM])
    calls, adder = Calls(meeting.terms, meeting.roles), Adder(meeting.terms.profile, meeting.session)
    calls.evaluation_keys()
    for member in contributors:
        upload = EncryptedInput.from_bytes(meeting.upload(member))
        calls.open_numbers(calls.verified_numbers(meeting.session.position(member), upload.copy))
        calls.add_at_verifier(upload)
        adder.add(upload.ciphertexts)
    encrypted = EncryptedSum(
        context=meeting.terms.context,
        key_id=meeting.key.key_id,
        inputs_digest=listed.digest,
        contributors=tuple(sorted(map(meeting.session.position, contributors))),
        ciphertexts={index: data for index, data in adder.sums().items() if index in bands},
    )
    calls.show_opened(calls.decrypt(encrypted))


def test_where_an_aggregator_chooses_the_bands_colluders_set_the_direction(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The control: one band alone is opened, over three colluders, and a coordinate of the victim is read to a thousandth."""
    monkeypatch.setattr(checks, "check_whole", lambda *_: None)
    rounds = Rounds(TWO_BANDS)
    lying_round(rounds, bands=(1,), contributors=(*REST,))

    told, true = rounds.read()[VICTIM]

    assert told == pytest.approx(true, abs=2e-3)


def test_a_band_that_may_be_opened_is_not_left_out() -> None:
    """The same attack on ours: the verifier signs no such sum."""
    with pytest.raises(ServiceError, match="verifier: CiphertextError: segment 0: its sum is missing"):
        lying_round(Rounds(TWO_BANDS), bands=(1,), contributors=(*REST,))


def test_the_decryptor_opens_no_such_sum_either(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signed by a verifier that does not look."""
    rounds = Rounds(TWO_BANDS)
    asked: list[EncryptedSum] = []
    monkeypatch.setattr(Calls, "decrypt", lambda _, message: asked.append(message))
    monkeypatch.setattr(Calls, "show_opened", lambda *_: None)
    lying_round(rounds, bands=(1,), contributors=(*REST,))
    assert rounds.meeting is not None
    word = service_identity("verifier").sign(SUM_PURPOSE, asked[0].digest)
    request = DecryptRequest(encrypted=asked[0], verified=verifier.SumSignature(signature=word))

    with pytest.raises(CiphertextError, match="segment 0: its sum is missing"):
        rounds.meeting.roles.decryptor.call(request.to_bytes())


def test_a_band_below_its_quorum_may_be_missing() -> None:
    """Two of the second band's holders are there: the sums open without it, and it could not be opened with it."""
    rounds = Rounds(TWO_BANDS)
    lying_round(rounds, bands=(0,), contributors=(*REST[:4], *COLLUDERS[:2]))

    assert rounds.read()[VICTIM] != (0.0, 0.0)


def test_without_screening_bands_may_be_opened_one_by_one() -> None:
    """Nothing is held against what opens there."""
    terms = terms_of(TWO_BANDS, charge_for(services=VERIFIED))
    message = EncryptedSum(
        context=terms.context, key_id=bytes(32), inputs_digest=bytes(32), contributors=(), ciphertexts={}
    )
    checks.check_whole(terms, frozenset(range(1, 9)), message)


# --- what is left: whoever is in the sum has a say in the direction ---


def misses(rounds: Rounds) -> npt.NDArray[np.float64]:
    """By how much the server misses everybody's coordinate, in input bounds, though it knows the direction; inf without one."""
    shown = rounds.reference()
    found = []
    for member, (told, true) in rounds.read().items():
        assert rounds.meeting is not None
        direction = shown.direction(rounds.meeting.terms, rounds.meeting.session.position(member))
        if direction is None:
            found.append(np.inf)
            continue
        place = PLACE + LENGTH * (len(rounds.meeting.inputs[member]) - 1)
        found.append(abs(told / direction.reshape(-1)[place] - true))
    return np.array(found)


def test_one_client_within_its_bound_tells_the_server_no_coordinate() -> None:
    """One in eight that sends the input bound at one coordinate: the others' mean hides it as well as a guess does."""
    rounds = Rounds(ONE_BAND)
    assert not one_clients_round(rounds, along(BOUND))

    assert np.sqrt((misses(rounds)[:-1] ** 2).mean()) > 0.5 * SPREAD / BOUND / np.sqrt(3)


def test_one_client_that_fills_the_range_of_the_sum_has_a_coordinate_read_roughly() -> None:
    """The stated limit: a sum that honest clients could have is a direction; a coordinate of a spread of 0.046 is read to 0.01."""
    rounds = Rounds(ONE_BAND)
    assert not one_clients_round(rounds, along(7 * BOUND))

    root = np.sqrt((misses(rounds)[:-1] ** 2).mean())
    assert 2e-3 < root < 0.01


def test_colluders_beside_honest_holders_have_a_coordinate_read_roughly() -> None:
    """The stated limit: with all bands opened, what honest clients put into the lower one blurs it for whoever holds both."""
    rounds = Rounds(TWO_BANDS)
    lying_round(rounds, bands=(0, 1), contributors=(*REST,))

    assert 1e-3 < misses(rounds)[0] < 0.02


def test_colluders_who_are_most_of_the_cohort_have_a_coordinate_read_to_a_thousandth() -> None:
    """The stated limit: as many as the threshold, summed alone, give the next round any direction that they like."""
    rounds = Rounds(TWO_BANDS)
    lying_round(rounds, bands=(0, 1), contributors=MAJORITY, colluders=MAJORITY)

    assert misses(rounds)[0] < 2e-3
