"""One client, two requests at the same moment: the second is answered as if it had come after the first.

A server may send a client what it likes, when it likes. Each attack makes two calls meet inside the step that may be taken once,
and is mounted twice: against a client whose calls take no turns, where it works, and against ours.
"""

import threading
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest

from protocols.errors import StageError
from protocols.homomorphic import checks
from protocols.homomorphic.parties import client as encrypting
from protocols.homomorphic.receipts import FIXED_PURPOSE, FixedInputs, InputReceipt
from protocols.interface import SumClient
from protocols.masking import client as steps
from protocols.masking.messages import RevealedShares, SurvivorList
from protocols.masking.secure_sum import Masking, MaskingClient
from protocols.profiles import SEMI_HONEST
from protocols.session import ClientId, Session
from tests.contracts.sessions import make_inputs, make_session
from tests.protocols.homomorphic.meeting import Meeting, service_identity
from tests.support.racing import MEETING_SECONDS, at_once, meeting
from tests.support.reachable import secrets_of

BOTH = pytest.mark.parametrize("careless", [True, False], ids=["without turns", "ours"])


def with_turns(client: SumClient, *, careless: bool) -> None:
    """The control is a client without."""
    if careless:
        client._turn = nullcontext()  # type: ignore[assignment]


def until_reveal(session: Session) -> tuple[dict[ClientId, MaskingClient], SurvivorList]:
    """All clients with their inputs given, and the list of all survivors."""
    masking = Masking(SEMI_HONEST)
    clients = {name: masking.client(session, name) for name in session.members}
    server, inputs = masking.server(session), make_inputs(session)
    for stage in masking.stages[:3]:
        for name, request in server.requests().items():
            if stage == masking.input_stage:
                server.receive(name, clients[name].contribute(request, inputs[name]))
            else:
                server.receive(name, clients[name].reply(request))
        server.close_stage()
    return clients, SurvivorList.from_bytes(next(iter(server.requests().values())))


@BOTH
def test_two_survivor_lists_at_once_get_one_answer(
    monkeypatch: pytest.MonkeyPatch, *, careless: bool
) -> None:
    """Of the client that one list names and the other one drops nobody gives both kinds of share."""
    session = make_session(4)
    clients, everyone = until_reveal(session)
    fewer = replace(everyone, survivors=everyone.survivors[:-1], dropped=everyone.survivors[-1:])
    me = clients[session.members[0]]
    with_turns(me, careless=careless)
    monkeypatch.setattr(steps, "create_revealed_shares", meeting(steps.create_revealed_shares))

    answers = at_once(*(lambda given=given: me.reply(given.to_bytes()) for given in (everyone, fewer)))

    revealed = [RevealedShares.from_bytes(answer) for answer in answers if isinstance(answer, bytes)]
    kinds = [{key for each in revealed for key in shares(each)} for shares in (_self_masks, _mask_keys)]
    if careless:
        assert len(revealed) == 2
        assert kinds[0] & kinds[1]
    else:
        assert len(revealed) == 1
        assert not kinds[0] & kinds[1]
        assert sum(isinstance(answer, StageError) for answer in answers) == 1


def _self_masks(revealed: RevealedShares) -> Any:
    return revealed.self_mask_shares


def _mask_keys(revealed: RevealedShares) -> Any:
    return revealed.mask_key_shares


@BOTH
def test_a_session_that_ends_during_a_step_leaves_no_secret(
    monkeypatch: pytest.MonkeyPatch, *, careless: bool
) -> None:
    """The step that is at work is over before the end, and not written over it."""
    session = make_session(4)
    me = Masking(SEMI_HONEST).client(session, session.members[0])
    with_turns(me, careless=careless)
    step, ending = steps.create_key_advertisement, threading.Thread(target=me.end)

    def interrupted(*arguments: Any, **more: Any) -> Any:
        found = step(*arguments, **more)
        ending.start()
        ending.join(MEETING_SECONDS)  # over by then, unless it waits for its turn
        return found

    monkeypatch.setattr(steps, "create_key_advertisement", interrupted)

    me.reply(b"")
    ending.join()

    assert bool(secrets_of(me)) == careless


@BOTH
def test_two_requests_at_once_get_one_ciphertext(monkeypatch: pytest.MonkeyPatch, *, careless: bool) -> None:
    """An input is encrypted and committed to once, so that there is one upload to send."""
    meeting_of_all = Meeting.of(make_session(4))
    member = meeting_of_all.session.members[0]
    me, request = meeting_of_all.client(member), meeting_of_all.key.to_bytes()
    with_turns(me, careless=careless)
    monkeypatch.setattr(encrypting, "create_encrypted_input", meeting(encrypting.create_encrypted_input))

    receipts = at_once(*[lambda: me.contribute(request, meeting_of_all.inputs[member])] * 2)

    assert len({InputReceipt.from_bytes(receipt).to_bytes() for receipt in receipts}) == (
        2 if careless else 1
    )


@BOTH
def test_two_lists_at_once_get_one_upload(monkeypatch: pytest.MonkeyPatch, *, careless: bool) -> None:
    """Both signed by a decryptor that lies: ciphertexts are sent for the one that came first."""
    meeting_of_all = Meeting.of(make_session(4))
    meeting_of_all.fix()
    member = meeting_of_all.session.members[0]
    me, everyone = meeting_of_all.client(member), meeting_of_all.server.requests()[member]
    listed = FixedInputs.from_bytes(everyone)
    fewer = replace(listed, receipts=dict(sorted(listed.receipts.items())[:-1]))
    word = service_identity("decryptor").sign(FIXED_PURPOSE, fewer.signed_part())
    others = replace(fewer, decryptor=word).to_bytes()
    with_turns(me, careless=careless)
    # The second list comes while the first one is checked, and is answered then unless it waits for its turn.
    found: list[Any] = []
    second = threading.Thread(target=lambda: found.extend(at_once(lambda: me.reply(others))))
    check = checks.check_fixed

    def interrupted(*arguments: Any, **more: Any) -> None:
        if second.ident is None:
            second.start()
            second.join(MEETING_SECONDS)
        check(*arguments, **more)

    monkeypatch.setattr(checks, "check_fixed", interrupted)

    found += at_once(lambda: me.reply(everyone))
    second.join()

    assert sum(isinstance(answer, bytes) for answer in found) == (2 if careless else 1)
    assert any(isinstance(answer, StageError) for answer in found) != careless
