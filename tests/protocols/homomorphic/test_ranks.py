"""Which rank a client takes part with under encryption is what its certificate says; a service takes part with none."""

from dataclasses import dataclass, replace

import pytest

from protocols.errors import EnrolmentError, QuorumError
from protocols.homomorphic.messages import EncryptedInput, EncryptedSum, RoundKey
from protocols.homomorphic.parties.adder import Adder
from protocols.homomorphic.parties.client import create_encrypted_input
from protocols.homomorphic.parties.decryptor import Decryptor
from protocols.homomorphic.receipts import CommittedInputs
from protocols.homomorphic.services.charge import Charge
from protocols.homomorphic.terms import EncryptionTerms
from protocols.identity.trust import Identity, ThrowawayAuthority
from protocols.session import Session
from tests.contracts.sessions import make_inputs, make_session, names, segment
from tests.protocols.homomorphic.meeting import NOW, SERVICE_KEYS, charge_for

CHARGE = charge_for()
RANKS = dict(zip(names(6), (2, 2, 2, 4, 4, 4), strict=True))
RANKED_AUTHORITY = ThrowawayAuthority.create(
    RANKS, now=NOW, services={name: key.public for name, key in SERVICE_KEYS.items()}
)


@dataclass
class RankedRound:
    """A decryptor's key for members of two ranks, and everybody's inputs."""

    decryptor: Decryptor
    session: Session
    terms: EncryptionTerms
    key: RoundKey
    inputs: dict[str, EncryptedInput]

    def summed(self, *members: str) -> EncryptedSum:
        """The sum over some members."""
        adder = Adder(self.terms.profile, self.session)
        for member in members:
            adder.add(self.inputs[member].ciphertexts)
        receipts = tuple(self.inputs[member].receipt for member in self.session.members)
        listed = CommittedInputs(context=self.key.context, key_id=self.key.key_id, receipts=receipts).listed()
        return EncryptedSum(
            context=self.key.context,
            key_id=self.key.key_id,
            inputs_digest=listed.digest,
            contributors=tuple(sorted(map(self.session.position, members))),
            ciphertexts=adder.sums(),
        )


def ranked_decryptor(charge: Charge = CHARGE) -> Decryptor:
    """A decryptor that knows the ranks."""
    view = RANKED_AUTHORITY.view
    identity = Identity(
        client="decryptor", key=SERVICE_KEYS["decryptor"], certificate=view.check("decryptor")
    )
    return Decryptor(charge, view, identity)


def ranked_round(session: Session) -> RankedRound:
    """Everybody's inputs, fixed."""
    decryptor = ranked_decryptor()
    key = decryptor.create_round_key(session)
    terms = CHARGE.terms(session, RANKED_AUTHORITY.view)
    plain = make_inputs(session)
    inputs = {
        member: create_encrypted_input(terms, member, key, plain[member], RANKED_AUTHORITY.identity(member))
        for member in session.members
    }
    playing = RankedRound(decryptor, session, terms, key, inputs)
    receipts = tuple(message.receipt for message in inputs.values())
    decryptor.fix_inputs(CommittedInputs(context=key.context, key_id=key.key_id, receipts=receipts))
    return playing


@pytest.mark.parametrize("ranks", [(2, 2, 2, 4, 4, 8), (4, 2, 2, 4, 4, 4), (4, 4, 4, 2, 2, 2)])
def test_a_rank_that_the_certificate_does_not_have_is_refused(ranks: tuple[int, ...]) -> None:
    """A session that gives a member another rank than it is enrolled with gets no key, and no client's input."""
    session = make_session(6, segment(0, 20, names(6), 3), ranks=ranks)

    with pytest.raises(EnrolmentError, match="is enrolled with rank"):
        ranked_decryptor().create_round_key(session)
    with pytest.raises(EnrolmentError, match="is enrolled with rank"):
        CHARGE.terms(session, RANKED_AUTHORITY.view)


def test_a_service_is_no_member() -> None:
    """A verifier's certificate, which is a service's, takes no part in a sum."""
    members = (*names(3), "verifier")
    session = make_session(4, segment(0, 20, members, 3), members=members)

    with pytest.raises(EnrolmentError, match="enrolled as a service"):
        ranked_decryptor().create_round_key(session)
    with pytest.raises(EnrolmentError, match="enrolled as a service"):
        CHARGE.terms(session, RANKED_AUTHORITY.view)


def test_a_class_quorum_below_its_own_is_refused() -> None:
    """A session without classes, or with smaller ones, gets no key from a decryptor that was set up with classes."""
    decryptor = ranked_decryptor(charge_for(class_quorum=3))
    session = make_session(6, segment(0, 20, names(6), 3), ranks=tuple(RANKS.values()), class_quorum=2)

    for odd in (session, replace(session, class_quorum=0)):
        with pytest.raises(QuorumError, match="class_quorum="):
            decryptor.create_round_key(odd)
    decryptor.create_round_key(replace(session, class_quorum=3))
