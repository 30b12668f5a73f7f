"""All parties of one session, played in one process: for tests and benchmarks.

The protocols themselves are written as pure steps; here bytes cross between them, clients fall silent where told to,
and a transcript counts what travelled.
"""

from collections.abc import Callable, Mapping

from protocols.interface import SecureSum, SegmentInput, SumResult
from protocols.session import ClientId, Session
from protocols.transcript import Transcript

Inputs = Mapping[ClientId, Mapping[int, SegmentInput]]


def run_session(
    secure_sum: SecureSum,
    session: Session,
    inputs: Inputs,
    *,
    bindings: Mapping[int, bytes],
    silent_from: Mapping[ClientId, str] | None = None,
    transcript: Transcript | None = None,
    tamper: Callable[[ClientId, str, bytes], bytes] = lambda _client, _stage, reply: reply,
) -> SumResult:
    """Run every stage and return the result of the server.

    Args:
        secure_sum: The protocol.
        session: The terms of the session.
        inputs: By member: its summands.
        bindings: By segment: the server's binding.
        silent_from: By client: the stage from which on it no longer answers.
        transcript: Filled with the counts of the messages, if given.
        tamper: Change that the network makes to a client's reply; by default none.

    Raises:
        ProtocolError: Whatever the parties raise.
    """
    silent = silent_from or {}
    if unknown := (set(silent) - set(session.members)) | (set(silent.values()) - set(secure_sum.stages)):
        raise ValueError(f"silent_from names {min(unknown)!r}, which is no member and no stage")
    clients = {member: secure_sum.client(session, member) for member in session.members}
    server = secure_sum.server(session)
    gone: set[ClientId] = set()

    for stage in secure_sum.stages:
        gone |= {client for client, last in silent.items() if last == stage}

        # The server asks, those who are still there answer, the server folds the answers in.
        for member, request in server.requests().items():
            if transcript is not None:
                transcript.to_client(member, stage, request)
            if member in gone:
                continue
            if stage == secure_sum.input_stage:
                reply = clients[member].contribute(request, inputs[member])
            else:
                reply = clients[member].reply(request)
            if transcript is not None:
                transcript.from_client(member, stage, reply)
            server.receive(member, tamper(member, stage, reply))

        # Who has not answered by now is out.
        server.close_stage()

    return server.result(bindings)
