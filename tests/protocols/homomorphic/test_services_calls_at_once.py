"""Two calls to one keyed service at the same moment: the second is answered as if it had come after the first.

Whoever runs a service in the aggregator's own process may call it from several threads. Each attack makes two calls meet inside what
is done once, and is mounted twice: against a service whose calls take no turns, where it works, and against ours.
"""

import threading
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest

from protocols.errors import CommitmentError, KeyUseError, ProtocolError
from protocols.homomorphic import commitments
from protocols.homomorphic.messages import EncryptedInput, EncryptedSum, SumSignature
from protocols.homomorphic.parties.decryptor import Decryptor
from protocols.homomorphic.receipts import CommittedInputs
from protocols.homomorphic.services.messages import DecryptRequest, Setup
from protocols.homomorphic.services.services import KeyedService, LocalChannel, payload_of
from protocols.identity.revocations import issue_revocations
from protocols.identity.trust import TrustStore
from tests.contracts.sessions import make_session, names, segment
from tests.protocols.homomorphic.meeting import AUTHORITY, NOW, TRUST, Meeting
from tests.support.racing import MEETING_SECONDS, at_once, meeting

MEMBERS = names(4)
SESSION = make_session(4, segment(0, 20, MEMBERS, 3))
BOTH = pytest.mark.parametrize("careless", [True, False], ids=["without turns", "ours"])


def decryptor_of(meeting_of_all: Meeting, *, careless: bool) -> KeyedService:
    """The decryptor of a session; the control takes no turns."""
    channel = meeting_of_all.roles.decryptor
    assert isinstance(channel, LocalChannel)
    assert isinstance(channel.service, KeyedService)
    if careless:
        channel.service._turn = nullcontext()  # type: ignore[assignment]
    return channel.service


def request_to_decrypt(meeting_of_all: Meeting, member: str) -> bytes:
    """One client's ciphertext in the place of the sum, as an aggregator without a verifier could have it opened."""
    upload = EncryptedInput.from_bytes(meeting_of_all.upload(member))
    encrypted = EncryptedSum(
        context=meeting_of_all.terms.context,
        key_id=meeting_of_all.key.key_id,
        inputs_digest=meeting_of_all.server._fixed_inputs().digest,
        contributors=(1, 2, 3, 4),
        ciphertexts=upload.ciphertexts,
    )
    return DecryptRequest(encrypted=encrypted, verified=SumSignature(signature=b"")).to_bytes()


class Interruption:
    """A call in a thread of its own, made in the middle of a step when that is first taken; its answer, and whether it came then."""

    def __init__(self, call: Callable[[], Any], step: Callable[..., Any]) -> None:
        self.answers: list[Any] = []
        self.in_time = False
        self._thread = threading.Thread(target=lambda: self.answers.extend(at_once(call)))
        self._step = step

    def __call__(self, *arguments: Any, **more: Any) -> Any:
        """The step, once the call is over or waits for its turn."""
        if self._thread.ident is None:
            self._thread.start()
            self._thread.join(MEETING_SECONDS)
            self.in_time = not self._thread.is_alive()
        return self._step(*arguments, **more)

    def answer(self) -> Any:
        """What the call returned, or the error of the protocol that it raised."""
        self._thread.join()
        return self.answers[0]


@BOTH
def test_two_sums_at_once_are_opened_once(monkeypatch: pytest.MonkeyPatch, *, careless: bool) -> None:
    """Per key one decryption."""
    all_of_them = Meeting.of(SESSION)
    service = decryptor_of(all_of_them, careless=careless)
    first, second = (request_to_decrypt(all_of_them, member) for member in MEMBERS[:2])
    monkeypatch.setattr(Decryptor, "_check_enough", meeting(Decryptor._check_enough))

    answers = at_once(lambda: payload_of(service.handle(first)), lambda: payload_of(service.handle(second)))

    assert sum(isinstance(answer, bytes) for answer in answers) == (2 if careless else 1)
    assert any(isinstance(answer, KeyUseError) for answer in answers) != careless


@BOTH
def test_two_lists_at_once_get_one_signature(monkeypatch: pytest.MonkeyPatch, *, careless: bool) -> None:
    """Per key one list of inputs."""
    all_of_them = Meeting.of(SESSION)
    service = decryptor_of(all_of_them, careless=careless)
    receipts = [all_of_them.made(member).receipt for member in MEMBERS]
    requests = [
        CommittedInputs(
            context=all_of_them.terms.context, key_id=all_of_them.key.key_id, receipts=tuple(some)
        ).to_bytes()
        for some in (receipts[:3], receipts[1:])
    ]
    first, second = (lambda each=each: payload_of(service.handle(each)) for each in requests)
    other = Interruption(second, commitments.check_committed)
    monkeypatch.setattr(commitments, "check_committed", other)

    (answer,) = at_once(first)

    assert isinstance(answer, bytes)
    assert isinstance(other.answer(), bytes if careless else CommitmentError)


def newer() -> TrustStore:
    """A view with a list that takes nobody back, but is another one."""
    listed = issue_revocations(
        AUTHORITY.key, AUTHORITY.certificate, serials=[], number=2, now=NOW, valid_for=1000
    )
    return TRUST.updated(now=NOW + 1, revocations=listed)


@BOTH
@pytest.mark.parametrize("line", ["operate", "operate, unreadable", "set_up"])
def test_a_setup_is_not_answered_in_the_middle_of_a_decryption(
    monkeypatch: pytest.MonkeyPatch, line: str, *, careless: bool
) -> None:
    """Once its operator has the answer to newer lists, nothing more is opened under the older ones."""
    all_of_them = Meeting.of(SESSION)
    service = decryptor_of(all_of_them, careless=careless)
    request = request_to_decrypt(all_of_them, MEMBERS[0])
    setup = Setup(charge=all_of_them.charge, trust=newer())
    calls: dict[str, Callable[[], Any]] = {
        "operate": lambda: payload_of(service.operate(setup.to_bytes())),
        "operate, unreadable": lambda: service.operate(setup.to_bytes()[:-1]),
        "set_up": lambda: service.set_up(setup),
    }
    told = Interruption(calls[line], Decryptor._check_enough)
    # A function, so that it is bound as the method is.
    monkeypatch.setattr(Decryptor, "_check_enough", lambda *arguments: told(*arguments))  # noqa: PLW0108

    payload_of(service.handle(request))

    assert not isinstance(told.answer(), ProtocolError)
    assert told.in_time == careless
