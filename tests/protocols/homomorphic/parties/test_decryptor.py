"""The decryptor opens one sum per band and key, over enough contributors that it has checked itself, and nothing else."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from protocols.errors import (
    BelowThresholdError,
    CiphertextError,
    CommitmentError,
    ContextError,
    KeyUseError,
    ProtocolError,
    QuorumError,
    RosterError,
    SignatureError,
    StageError,
)
from protocols.homomorphic.messages import EncryptedInput, EncryptedSum, RoundKey
from protocols.homomorphic.parties.adder import Adder
from protocols.homomorphic.parties.client import create_encrypted_input
from protocols.homomorphic.parties.decryptor import Decryptor
from protocols.homomorphic.receipts import CommittedInputs
from protocols.homomorphic.services.charge import Charge
from protocols.session import Session
from tests.contracts.sessions import (
    make_inputs,
    make_session,
    names,
    plain_sum,
    segment,
)
from tests.protocols.homomorphic.meeting import (
    AUTHORITY,
    VERIFIED,
    charge_for,
    make_decryptor,
    make_verifier,
    terms_of,
)

FIRST, SECOND, THIRD, LAST = MEMBERS = names(4)
SESSION = make_session(4, segment(0, 20, MEMBERS, 3), segment(1, 7, (FIRST, SECOND, THIRD), 2))


@dataclass
class Round:
    """A decryptor's key, everyone's inputs under it, fixed, and their sum as an honest aggregator makes it."""

    decryptor: Decryptor
    session: Session
    key: RoundKey
    inputs: dict[str, EncryptedInput]

    @property
    def committed(self) -> CommittedInputs:
        """Everybody's receipts."""
        return self.receipts(*self.inputs)

    def receipts(self, *members: str) -> CommittedInputs:
        """The receipts of some members."""
        return CommittedInputs(
            context=self.key.context,
            key_id=self.key.key_id,
            receipts=tuple(self.inputs[member].receipt for member in members),
        )

    def summed(self, *members: str, segments: tuple[int, ...] = (0, 1)) -> EncryptedSum:
        """The sum over some members."""
        adder = Adder(terms_of(self.session).profile, self.session)
        for member in members:
            adder.add(self.inputs[member].ciphertexts)
        sums = adder.sums()
        return EncryptedSum(
            context=self.key.context,
            key_id=self.key.key_id,
            inputs_digest=self.committed.listed().digest,
            contributors=tuple(sorted({self.session.position(member) for member in members})),
            ciphertexts={index: sums[index] for index in segments if index in sums},
        )


def begin(
    session: Session = SESSION,
    *,
    decryptor: Decryptor | None = None,
    charge: Charge | None = None,
    fix: bool = True,
) -> Round:
    """Everyone's honest inputs."""
    charge = charge or charge_for()
    decryptor = decryptor or make_decryptor(charge)
    key = decryptor.create_round_key(session)
    plain = make_inputs(session)
    terms = terms_of(session, charge)
    inputs = {
        member: create_encrypted_input(terms, member, key, plain[member], AUTHORITY.identity(member))
        for member in session.members
    }
    playing = Round(decryptor, session, key, inputs)
    if fix:
        decryptor.fix_inputs(playing.committed)
    return playing


def honest(session: Session, *members: str) -> dict[int, list[int]]:
    """The plain sums."""
    return {part.index: plain_sum(make_inputs(session), part, members) for part in session.segments}


def opened(playing: Round, message: EncryptedSum) -> dict[int, list[int]]:
    """What the decryptor finds, without what fills the ciphertexts up."""
    found = playing.decryptor.decrypt(message)
    return {
        index: found.integers(index)[: playing.session.segments[index].length].tolist()
        for index in found.sums
    }


def test_it_opens_the_sums_of_those_who_contributed() -> None:
    """Over three of four members the sums are theirs, signed, and exact."""
    playing = begin()

    found = opened(playing, playing.summed(FIRST, SECOND, LAST))

    assert found == honest(SESSION, FIRST, SECOND, LAST)


def test_a_key_is_used_once() -> None:
    """The same sums again, other bands of them, or the sums of others: KeyUseError."""
    playing = begin()
    first = playing.summed(*MEMBERS, segments=(0,))
    playing.decryptor.decrypt(first)

    for again in (first, playing.summed(*MEMBERS, segments=(1,)), playing.summed(FIRST, SECOND, THIRD)):
        with pytest.raises(KeyUseError):
            playing.decryptor.decrypt(again)


def test_without_a_key_nothing_is_opened() -> None:
    """A decryptor that was asked for no key has none."""
    message = begin().summed(*MEMBERS)

    with pytest.raises(KeyUseError):
        make_decryptor().decrypt(message)


def test_a_new_key_ends_the_old_one() -> None:
    """Sums under the key of the round before are refused once there is another one: unused keys do not pile up."""
    playing = begin()
    playing.decryptor.create_round_key(replace(SESSION, round=2))

    with pytest.raises(ContextError):
        playing.decryptor.decrypt(playing.summed(*MEMBERS))


def test_two_sums_of_one_round_are_never_opened() -> None:
    """A second attempt at an opened round, which would show the difference of two sums, gets no key."""
    playing = begin()
    playing.decryptor.decrypt(playing.summed(*MEMBERS))

    with pytest.raises(StageError, match="the inputs of round 1 were fixed already"):
        playing.decryptor.create_round_key(replace(SESSION, attempt=2))
    playing.decryptor.create_round_key(replace(SESSION, round=2))


def test_an_attempt_whose_inputs_were_not_fixed_can_be_repeated() -> None:
    """As long as nobody was asked for ciphertexts, the next attempt gets a key of its own."""
    playing = begin(fix=False)

    again = begin(replace(SESSION, attempt=2), decryptor=playing.decryptor)

    assert again.key.key_id != playing.key.key_id
    assert opened(again, again.summed(*MEMBERS)) == honest(SESSION, *MEMBERS)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"round": 1, "attempt": 5}, StageError),
        ({"round": 2, "attempt": 1}, StageError),
        ({"run": bytes(16), "round": 3}, ContextError),
        ({"config_digest": bytes(32), "round": 3}, ContextError),
    ],
    ids=["an earlier round", "the same attempt", "another run", "another plan"],
)
def test_keys_are_made_for_the_next_session_of_the_run(
    changes: dict[str, object], error: type[ProtocolError]
) -> None:
    """Round and attempt move forward, run and plan stay."""
    decryptor = make_decryptor()
    decryptor.create_round_key(replace(SESSION, round=2))

    with pytest.raises(error):
        decryptor.create_round_key(replace(SESSION, **changes))  # type: ignore[arg-type]


def test_a_quorum_below_its_own_is_refused() -> None:
    """A session that would open a band over two holders gets no key from a decryptor that wants three."""
    decryptor = make_decryptor(charge_for(least_quorum=3))

    with pytest.raises(QuorumError, match="segment 1: quorum=2 must be >= 3"):
        decryptor.create_round_key(SESSION)


@pytest.mark.parametrize(
    ("members", "segments", "error", "message"),
    [
        ((FIRST, SECOND), (0,), BelowThresholdError, "2 contributors must be >= threshold=3"),
        ((FIRST, THIRD, LAST), (1,), None, ""),
        ((SECOND, THIRD, LAST), (0, 1), None, ""),
    ],
)
def test_it_counts_contributors_itself(
    members: tuple[str, ...], segments: tuple[int, ...], error: type[ProtocolError] | None, message: str
) -> None:
    """Below the threshold nothing is opened, whatever the aggregator has added."""
    playing = begin()
    wanted = playing.summed(*members, segments=segments)

    if error is None:
        assert opened(playing, wanted) == {i: honest(SESSION, *members)[i] for i in segments}
    else:
        with pytest.raises(error, match=message):
            playing.decryptor.decrypt(wanted)


def test_a_band_below_its_quorum_is_not_opened() -> None:
    """Two of three holders where three are needed: QuorumError, and the key is still there for the other band."""
    session = make_session(4, segment(0, 20, MEMBERS, 3), segment(1, 7, (FIRST, SECOND, THIRD), 3))
    playing = begin(session)

    with pytest.raises(QuorumError, match="segment 1: 2 surviving holders, quorum 3"):
        playing.decryptor.decrypt(playing.summed(FIRST, SECOND, LAST))

    found = opened(playing, playing.summed(FIRST, SECOND, LAST, segments=(0,)))
    assert found[0] == honest(session, FIRST, SECOND, LAST)[0]


def test_padding_does_not_count_towards_a_quorum() -> None:
    """A member that only pads a band is no holder of it."""
    session = make_session(4, segment(0, 20, MEMBERS, 2, holders=(FIRST, SECOND)))
    playing = begin(session)

    with pytest.raises(QuorumError, match="1 surviving holders, quorum 2"):
        playing.decryptor.decrypt(playing.summed(FIRST, THIRD, LAST, segments=(0,)))


Lie = Callable[[Round], EncryptedSum]

LIES: dict[str, tuple[Lie, type[ProtocolError]]] = {
    "somebody who is not on the list": (
        lambda playing: replace(playing.summed(*MEMBERS), contributors=(1, 2, 3, 5)),
        RosterError,
    ),
    "nobody's position": (
        lambda playing: replace(playing.summed(*MEMBERS), contributors=(0, 1, 2, 3)),
        RosterError,
    ),
    "another list": (
        lambda playing: replace(playing.summed(*MEMBERS), inputs_digest=bytes(32)),
        CommitmentError,
    ),
    "the list without one of them": (
        lambda playing: replace(
            playing.summed(FIRST, SECOND, THIRD),
            inputs_digest=playing.receipts(FIRST, SECOND, THIRD).listed().digest,
        ),
        CommitmentError,
    ),
    "another context": (lambda playing: replace(playing.summed(*MEMBERS), context=bytes(32)), ContextError),
    "another key id": (lambda playing: replace(playing.summed(*MEMBERS), key_id=bytes(32)), KeyUseError),
    "a segment that does not exist": (
        lambda playing: replace(playing.summed(*MEMBERS), ciphertexts={2: b""}),
        CiphertextError,
    ),
    "a sum of another size": (
        lambda playing: replace(playing.summed(*MEMBERS), ciphertexts={0: b"\x01"}),
        CiphertextError,
    ),
    "a sum that is none": (
        lambda playing: replace(
            playing.summed(*MEMBERS), ciphertexts={0: b"\xff" * len(playing.summed(*MEMBERS).ciphertexts[0])}
        ),
        CiphertextError,
    ),
    "no contributors": (
        lambda playing: replace(playing.summed(*MEMBERS), contributors=()),
        BelowThresholdError,
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_sum_that_is_not_what_it_says_is_refused_and_the_key_is_kept(lie: str) -> None:
    """Named errors, and afterwards the honest sums still open."""
    make, error = LIES[lie]
    playing = begin()

    with pytest.raises(error):
        playing.decryptor.decrypt(make(playing))

    assert opened(playing, playing.summed(*MEMBERS)) == honest(SESSION, *MEMBERS)


def test_no_contributor_is_counted_twice() -> None:
    """The canonical form of a sum has every position once, in order."""
    message = begin().summed(FIRST, SECOND, THIRD)

    for odd in ((1, 1, 2), (2, 1, 3)):
        with pytest.raises(ProtocolError):
            EncryptedSum.from_bytes(replace(message, contributors=odd).to_bytes())


def test_without_a_verifier_a_lying_aggregator_reads_an_update() -> None:
    """The documented limit: one client's ciphertexts, shown with everybody's receipts, are decrypted as if they were a sum."""
    playing = begin()
    lie = replace(playing.summed(*MEMBERS), ciphertexts={0: playing.inputs[SECOND].ciphertexts[0]})

    found = playing.decryptor.decrypt(lie).integers(0)[:20]

    # Three offsets are missing from what the decryptor takes for a sum of four.
    offset = terms_of(SESSION).profile.offset(4)
    update = make_inputs(SESSION)[SECOND][0].values
    assert (found + 3 * offset).tolist() == update.tolist()


def test_with_a_verifier_such_a_lie_is_not_decrypted() -> None:
    """The verifier does not sign it, and nothing else than its signature of these very sums will do."""
    charge = charge_for(services=VERIFIED)
    playing = begin(charge=charge)
    verifier = make_verifier(charge)
    verifier.follow(SESSION, playing.key)
    verifier.fix_inputs(playing.committed)
    for member in MEMBERS:
        verifier.handle_input(playing.inputs[member])
    honest_sum = playing.summed(*MEMBERS)
    lie = replace(honest_sum, ciphertexts={0: playing.inputs[SECOND].ciphertexts[0]})

    with pytest.raises(CiphertextError, match="segment 0: this is not the sum of the inputs"):
        verifier.sign_sum(lie)
    signature = verifier.sign_sum(honest_sum).signature
    for verified in (b"", bytes(64), signature):
        with pytest.raises(SignatureError):
            playing.decryptor.decrypt(lie, verified)

    assert (
        playing.decryptor.decrypt(honest_sum, signature).integers(0)[:20].tolist()
        == honest(SESSION, *MEMBERS)[0]
    )


def test_a_verifier_where_there_is_none_is_refused() -> None:
    """A decryptor that was set up without a verifier takes nobody's word for one."""
    playing = begin()

    with pytest.raises(SignatureError, match="where there is no verifier"):
        playing.decryptor.decrypt(playing.summed(*MEMBERS), bytes(64))
