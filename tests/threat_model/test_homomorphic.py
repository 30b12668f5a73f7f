"""A test for every numbered claim of threat_model.md about the homomorphic mode, under the claim's number."""

import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from protocols.errors import (
    CiphertextError,
    CommitmentError,
    EnrolmentError,
    KeyUseError,
    QuorumError,
    RevokedError,
    ScreeningError,
    ServiceError,
    SignatureError,
    StageError,
)
from protocols.homomorphic.messages import EncryptedInput
from protocols.homomorphic.receipts import FixedInputs
from protocols.homomorphic.scheme import bfv
from protocols.homomorphic.scheme.parameters import BFV_2X20
from protocols.homomorphic.screening.screening import Screening, ScreeningRelease
from protocols.homomorphic.services.processes import ProcessChannel
from protocols.homomorphic.terms import Services
from protocols.interface import SecureSum, SegmentInput
from protocols.masking.secure_sum import Masking
from protocols.plain import Plain
from protocols.run import run_session
from tests.contracts.sessions import (
    MODEL,
    make_inputs,
    make_session,
    names,
    plain_sum,
    same_bindings,
    segment,
)
from tests.protocols.homomorphic.meeting import (
    ALONE,
    VERIFIED,
    EveryonesHomomorphic,
    Meeting,
    charge_for,
    client_of,
    make_verifier,
    server_of,
    terms_of,
)
from tests.protocols.homomorphic.parties.test_decryptor import SESSION as TWO_BANDS
from tests.protocols.homomorphic.parties.test_decryptor import begin
from tests.protocols.homomorphic.services.test_services import recorded, secret_parts
from tests.protocols.homomorphic.test_classes import RANKED
from tests.protocols.homomorphic.test_dying_workers import Assassin, asks_for_sums
from tests.protocols.homomorphic.test_ended_sessions import handed_in, of
from tests.protocols.homomorphic.test_ended_sessions import view as taking_back
from tests.protocols.homomorphic.test_malformed import CORPUS, KEYS, send
from tests.protocols.homomorphic.test_malformed import SESSION as THREE_BANDS
from tests.protocols.homomorphic.test_malleability import ORDERS, WHOLE, cancelling, committing
from tests.protocols.homomorphic.test_ranks import ranked_round
from tests.protocols.homomorphic.test_revocation import (
    NEW,
    OLD,
    contribution_of,
    decryptor_service,
    server_with,
)
from tests.protocols.homomorphic.test_screening_attacks import Attack
from tests.protocols.homomorphic.test_screening_direction import (
    ONE_BAND,
    Rounds,
    along,
    lying_round,
    one_clients_round,
)
from tests.protocols.homomorphic.test_screening_direction import TWO_BANDS as DIRECTED
from tests.protocols.homomorphic.test_service_time import SHORT, timed, with_short_certificate

FIRST, SECOND, THIRD, LAST = MEMBERS = names(4)


@pytest.mark.parametrize("kind", list(KEYS)[::3])
def test_claim_23_a_client_encrypts_under_no_other_key_than_its_decryptors(kind: str) -> None:
    """Unsigned, foreign, replayed and malformed keys get no ciphertext out of a client."""
    change, error = KEYS[kind]
    meeting = Meeting.of(THREE_BANDS)
    key = meeting.key

    with pytest.raises(error):
        client_of(meeting.terms, FIRST).contribute(change(key).to_bytes(), make_inputs(THREE_BANDS)[FIRST])


def test_claim_23_no_client_can_play_a_decryptor() -> None:
    """Whoever is enrolled with a rank serves nobody, whatever the aggregator says of it."""
    charge = replace(charge_for(), services=Services(decryptor=names(5)[-1]))

    with pytest.raises(EnrolmentError, match="not as a service"):
        terms_of(THREE_BANDS, charge)


def test_claim_23_nobody_meets_a_member_that_it_knows_to_be_revoked() -> None:
    """Decryptor and clients check every member by their own lists; the aggregator's older one completes nothing."""
    with pytest.raises(ServiceError, match="RevokedError"):
        server_with(OLD, decryptor_service(NEW)).requests()
    requests = server_with(OLD, decryptor_service(OLD)).requests()
    with pytest.raises(RevokedError):
        contribution_of(FIRST, NEW, requests[FIRST])


@pytest.mark.parametrize("services", [ALONE, VERIFIED], ids=["alone", "verified"])
def test_claim_24_no_byte_that_crosses_holds_a_secret_key(services: Services) -> None:
    """The round's secret key, in the library's form or as residues, is in no message of a whole session."""
    meeting, recorders, decryptor = recorded(services)
    crossed = list(meeting.server.requests().values())
    secrets = secret_parts(decryptor)
    meeting.fix()
    crossed += meeting.server.requests().values()
    for member in MEMBERS:
        crossed.append(meeting.upload(member))
        meeting.server.receive(member, crossed[-1])

    meeting.sums(same_bindings(meeting.session))

    crossed += [data for recorder in recorders.values() for data in recorder.crossed]
    assert all(len(secret) == 64 for secret in secrets)
    assert not any(secret in data for secret in secrets for data in crossed)


def test_claim_25_the_decryptor_opens_each_band_once_and_no_round_twice() -> None:
    """A second sum under a key, of the same or another band or over others, and a second key for the round are refused."""
    playing = begin()
    playing.decryptor.decrypt(playing.summed(*MEMBERS, segments=(0,)))

    for again in (playing.summed(*MEMBERS), playing.summed(*MEMBERS[:3])):
        with pytest.raises(KeyUseError):
            playing.decryptor.decrypt(again)
    with pytest.raises(StageError):
        playing.decryptor.create_round_key(replace(TWO_BANDS, attempt=2))


def test_claim_25_the_decryptor_counts_the_holders_itself() -> None:
    """A sum with the receipts of too few holders stays encrypted, whatever its aggregator wants."""
    session = make_session(4, segment(0, 7, MEMBERS, 3, holders=(FIRST, SECOND, THIRD)))
    playing = begin(session)

    with pytest.raises(QuorumError):
        playing.decryptor.decrypt(playing.summed(FIRST, SECOND, LAST, segments=(0,)))


def test_claim_25_the_decryptor_counts_the_classes_itself() -> None:
    """A sum with one client of a rank in it stays encrypted; with none or two of each it opens."""
    playing = ranked_round(RANKED)
    members = RANKED.members

    with pytest.raises(QuorumError, match="class_quorum=2"):
        playing.decryptor.decrypt(playing.summed(*members[:4]))
    playing.decryptor.decrypt(playing.summed(*members[1:5]))


@pytest.mark.parametrize("revoked", [LAST, "decryptor"])
def test_claim_25_other_lists_end_the_open_session(revoked: str) -> None:
    """Also where they take back the decryptor itself: it forgets the key before it refuses anything."""
    meeting = Meeting.of(THREE_BANDS, charge_for(services=VERIFIED))
    meeting.take(*MEMBERS)

    handed_in(of(meeting, "decryptor"), taking_back(revoked))

    with pytest.raises(ServiceError, match="there is no key"):
        meeting.sums(same_bindings(THREE_BANDS))


def test_claim_25_who_has_expired_meanwhile_is_in_no_sum() -> None:
    """The decryptor's time runs on while its session is open."""
    meeting, clocks, _ = timed(with_short_certificate(LAST))
    meeting.take(*MEMBERS)
    clocks["decryptor"].passed += SHORT

    with pytest.raises(ServiceError, match=f"the decryptor: CertificateError: .*{LAST}"):
        meeting.sums(same_bindings(meeting.session))


def test_claim_26_with_a_verifier_a_lie_is_not_decrypted() -> None:
    """One client's ciphertexts in the place of the sum get no signature from the verifier, and without it nothing is opened."""
    charge = charge_for(services=VERIFIED)
    playing = begin(charge=charge)
    verifier = make_verifier(charge)
    verifier.follow(TWO_BANDS, playing.key)
    verifier.fix_inputs(playing.committed)
    for member in MEMBERS:
        verifier.handle_input(playing.inputs[member])
    honest = playing.summed(*MEMBERS)
    lie = replace(honest, ciphertexts={0: playing.inputs[SECOND].ciphertexts[0]})

    with pytest.raises(CiphertextError):
        verifier.sign_sum(lie)
    with pytest.raises(SignatureError):
        playing.decryptor.decrypt(lie, verifier.sign_sum(honest).signature)


@pytest.mark.parametrize("kind", list(CORPUS)[::6])
def test_claim_27_malformed_uploads_are_refused_by_name(kind: str) -> None:
    """A sample of the corpus, whose every kind has a test of its own, raises its named errors at the aggregator."""
    change, error = CORPUS[kind]
    meeting = Meeting.of(THREE_BANDS)
    honest = meeting.made(LAST)

    with pytest.raises(error):
        send(meeting, honest, change(meeting, honest))


def test_claim_27_the_library_reads_no_bytes_of_a_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of everything that crosses in a session, no stretch is ever handed to the encryption library as it came."""
    seen: list[bytes] = []
    library = bfv.library()

    def spied(name: str) -> Callable[..., Any]:
        original = getattr(library, name)

        def call(*arguments: Any, **more: Any) -> Any:
            seen.extend(each for each in arguments if isinstance(each, bytes))
            return original(*arguments, **more)

        return call

    for name in ("context_from", "bfv_vector_from", "ckks_vector_from"):
        monkeypatch.setattr(library, name, spied(name))
    bfv.public_key.cache_clear()
    meeting = Meeting.of(THREE_BANDS)
    crossed = [*meeting.server.requests().values()]
    meeting.fix()
    crossed += meeting.server.requests().values()
    for member in MEMBERS:
        crossed.append(meeting.upload(member))
        meeting.server.receive(member, crossed[-1])
    meeting.sums(same_bindings(THREE_BANDS))

    assert len(seen) >= 4
    samples = [data[at : at + 24] for data in crossed for at in range(400, len(data) - 24, 9973)]
    assert len(samples) > 50
    assert not any(sample in data for sample in samples for data in seen)


def test_claim_28_a_worker_that_dies_costs_one_client_its_place() -> None:
    """Killed while it has one client's ciphertexts, and the next one too, it costs that client the round; the others' sum is exact."""
    worker = ProcessChannel("worker", "worker", restarts=True)
    meeting = Meeting.of(THREE_BANDS)
    meeting.server = server_of(meeting.terms, replace(meeting.roles, worker=worker))
    meeting.take(FIRST, SECOND)
    exchange = worker.exchange

    def struck(request: bytes) -> bytes:
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
        return exchange(request)

    worker.exchange = struck  # type: ignore[method-assign]
    with pytest.raises(ServiceError, match="SIGKILL"):
        meeting.take(THIRD)
    worker.exchange = exchange  # type: ignore[method-assign]
    meeting.take(LAST)

    assert meeting.sums(same_bindings(THREE_BANDS)) == {
        part.index: plain_sum(meeting.inputs, part, (FIRST, SECOND, LAST)) for part in THREE_BANDS.segments
    }
    worker.close()


def test_claim_28_a_worker_that_dies_over_the_sums_is_replaced() -> None:
    """Killed when the sums are fetched, it costs nobody anything; killed again, it costs the round by name."""
    worker = Assassin(ProcessChannel("worker", "worker", restarts=True))
    for times in (1, 2):
        meeting = Meeting.of(THREE_BANDS)
        meeting.use(replace(meeting.roles, worker=worker))
        meeting.take(*MEMBERS)
        worker.strike(asks_for_sums, times)
        if times > 1:
            with pytest.raises(ServiceError, match="the round is lost"):
                meeting.sums(same_bindings(THREE_BANDS))
            continue
        assert meeting.sums(same_bindings(THREE_BANDS)) == {
            part.index: plain_sum(meeting.inputs, part, MEMBERS) for part in THREE_BANDS.segments
        }
    worker.close()


@pytest.mark.parametrize("silent", [(), (SECOND,)])
def test_claim_29_all_secure_sums_give_the_same_integers(silent: tuple[str, ...]) -> None:
    """The same inputs and drop-outs, band by band: plain, masked, encrypted, and encrypted with a verifier."""
    session = replace(THREE_BANDS, input_bound=90_000)
    inputs = make_inputs(session)
    modes: Mapping[str, SecureSum] = {
        "plain": Plain(),
        "masking": Masking(),
        "homomorphic": EveryonesHomomorphic(),
        "verified": EveryonesHomomorphic(services=VERIFIED),
    }

    results = {
        name: run_session(
            mode,
            session,
            inputs,
            bindings=same_bindings(session),
            silent_from=dict.fromkeys(silent, mode.upload_stage),
        )
        for name, mode in modes.items()
    }

    plain = results.pop("plain")
    assert len(plain.sums) == 3
    for result in results.values():
        assert result.survivors == plain.survivors
        assert {i: values.tolist() for i, values in result.sums.items()} == {
            i: values.tolist() for i, values in plain.sums.items()
        }


def test_claim_30_a_client_is_screened_once_and_counts_only_if_it_passes() -> None:
    """A second set of numbers is not opened, and a sum that a rejected client is in stays encrypted."""
    rule = Screening(max_norm=0.5, release=ScreeningRelease.VERDICTS)
    meeting = Meeting.of(make_session(4, segment(0, 20, MEMBERS)), charge_for(screening=rule))
    small = {0: SegmentInput(values=np.ones(20, dtype=np.int64), binding=MODEL)}
    large = {0: SegmentInput(values=np.full(20, 1000), binding=MODEL)}
    for member in MEMBERS:
        meeting.inputs[member] = large if member == LAST else small
    meeting.take(*MEMBERS[:3])
    upload = meeting.upload(LAST)

    with pytest.raises(ScreeningError, match=f"{LAST}: its norm exceeds"):
        meeting.server.receive(LAST, upload)
    with pytest.raises(ScreeningError, match="screened once"):
        meeting.server.receive(LAST, upload)

    # An aggregator that adds it all the same.
    message = EncryptedInput.from_bytes(upload)
    meeting.server._adder.add(4, message.ciphertexts)
    meeting.server._added |= {4}
    with pytest.raises(ServiceError, match="without having passed"):
        meeting.sums(same_bindings(meeting.session))


def test_claim_30_what_is_let_out_is_a_verdict_or_rounded() -> None:
    """Under verdicts the aggregator learns no number; under values, multiples of a thousandth."""
    for release in ScreeningRelease:
        rule = Screening(max_norm=100.0, release=release)
        meeting = Meeting.of(make_session(4, segment(0, 20, MEMBERS)), charge_for(screening=rule))
        meeting.take(FIRST)

        screened = meeting.server.screened[1]

        if release is ScreeningRelease.VERDICTS:
            assert (screened.norm, screened.cosine) == (None, None)
        else:
            assert screened.norm is not None
            assert screened.norm == round(screened.norm, 3) > 0


def test_claim_30_with_a_verifier_nobody_chooses_what_is_opened() -> None:
    """Products with directions of the aggregator's choosing, shown as the numbers of every client: no coordinate comes out."""
    assert Attack.begin(VERIFIED).leaked() == 0


def test_claim_30_a_sum_that_the_server_discards_gives_no_direction() -> None:
    """A value of one client that closes its band points no cosine of the next round anywhere."""
    rounds = Rounds(ONE_BAND)
    assert list(one_clients_round(rounds, along(500_000))) == [0]

    assert all(told == 0.0 for told, _ in rounds.read().values())


def test_claim_30_no_band_that_could_be_opened_is_left_out_of_the_direction() -> None:
    """An aggregator that asks for the colluders' band alone gets nothing opened."""
    with pytest.raises(ServiceError, match="its sum is missing"):
        lying_round(Rounds(DIRECTED), bands=(1,), contributors=DIRECTED.members[1:])


@pytest.mark.parametrize("services", [ALONE, VERIFIED], ids=["alone", "verified"])
def test_claim_44_no_input_is_made_from_anothers_ciphertexts(services: Services) -> None:
    """Who is shown the others' ciphertexts has committed to its own: another upload or receipt of it is refused."""
    meeting = Meeting.of(WHOLE, charge_for(services=services))
    uploads = {member: meeting.upload(member) for member in MEMBERS}
    shown = {member: EncryptedInput.from_bytes(uploads[member]) for member in (SECOND, THIRD)}
    forged = cancelling(meeting, shown)

    with pytest.raises(CommitmentError):
        meeting.server.receive(LAST, forged.to_bytes())
    with pytest.raises(StageError):
        meeting.server.receive(LAST, forged.receipt.to_bytes())
    for member in MEMBERS[:3]:
        meeting.server.receive(member, uploads[member])

    part = WHOLE.segments[0]
    assert meeting.sums(same_bindings(WHOLE)) == {0: plain_sum(meeting.inputs, part, MEMBERS[:3])}


@pytest.mark.parametrize("committed", ORDERS)
def test_claim_44_whoever_repeats_a_receipt_loses_its_own_place(committed: str) -> None:
    """First or second, it has nothing to upload; the one that it was copied from is in the sum."""
    meeting = Meeting.of(WHOLE, charge_for(services=VERIFIED))
    made = committing(meeting, ORDERS[committed])
    with pytest.raises(CiphertextError):
        meeting.server.receive(LAST, made[LAST].to_bytes())
    for member in MEMBERS[:3]:
        meeting.server.receive(member, made[member].to_bytes())

    assert meeting.sums(same_bindings(WHOLE)) == {
        0: plain_sum(meeting.inputs, WHOLE.segments[0], MEMBERS[:3])
    }


def test_claim_44_no_ciphertext_leaves_before_the_list_is_fixed() -> None:
    """A list that decryptor and verifier have not both signed gets nothing out of a client; a second one neither."""
    meeting = Meeting.of(WHOLE, charge_for(services=VERIFIED))
    meeting.fix()
    listed = FixedInputs.from_bytes(meeting.server.requests()[FIRST])

    for odd in (replace(listed, verifier=bytes(64)), replace(listed, decryptor=listed.verifier)):
        with pytest.raises(SignatureError):
            meeting.client(FIRST).reply(odd.to_bytes())


def test_the_limits_that_are_stated_are_real() -> None:
    """Without a verifier, a lying aggregator has one client's values decrypted: the document says so."""
    playing = begin()
    lie = replace(playing.summed(*MEMBERS), ciphertexts={0: playing.inputs[SECOND].ciphertexts[0]})

    found = playing.decryptor.decrypt(lie).integers(0)[:20]

    update = make_inputs(TWO_BANDS)[SECOND][0].values
    assert (found + 3 * BFV_2X20.offset(4)).tolist() == update.tolist()
