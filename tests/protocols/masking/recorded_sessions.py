"""Whole sessions as they were recorded byte by byte, and how they are played again."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from protocols.identity.trust import Identity, TrustStore
from protocols.interface import SegmentInput, SumResult
from protocols.masking.secure_sum import Masking, MaskingClient
from protocols.primitives.secret import Secret
from protocols.primitives.signing import SigningKey
from protocols.profiles import by_name
from protocols.session import ExtraReveal, Segment, Session
from tests.protocols.masking.parties import stream

GOOD = Path(__file__).parents[2] / "vectors" / "masking_session.json"
BAD = GOOD.with_name("bad_masking_session.json")
HOW = (
    "Written by tests/protocols/masking/record_vectors.py. Each client draws from SHA-256('<client id> 0') "
    "|| SHA-256('<client id> 1') || ..., in this order: a mask key per segment, its sealing key, its nonce; a "
    "self-mask seed per segment; the polynomial coefficients of all mask keys, of all seeds, of all extra secrets; a "
    "nonce per sealed bundle. Clients fall silent from the stages given on. Bytes are hex; sums are over the survivors."
)
SIGNATURE_SIZE = 64


class Replay:
    """A recorded session played by clients with the recorded randomness and identities."""

    def __init__(self, record: Mapping[str, Any]) -> None:
        self.record = record
        self.session = session_of(record)
        trust = trust_of(record)
        self.masking = Masking(by_name(record["profile"]), trust=trust)
        self.terms = self.masking.terms(self.session)
        self.clients = {m: self._client(m, trust) for m in self.session.members}
        self.server = self.masking.server(self.session)
        self.stages = self.masking.stages
        self.bindings = {int(index): bytes.fromhex(text) for index, text in record["bindings"].items()}

    def _client(self, member: str, trust: TrustStore | None) -> MaskingClient:
        identity = None
        if trust is not None:
            key = SigningKey(Secret(bytes.fromhex(self.record["identities"]["signing_keys"][member])))
            identity = Identity(client=member, key=key, certificate=trust.check(member))
        extra = {
            int(index): [Secret(bytes.fromhex(text)) for text in secrets]
            for index, secrets in self.record["extra_secrets"].get(member, {}).items()
        }
        return MaskingClient(self.terms, member, identity, stream(member), extra_secrets=extra)

    def present(self, stage: str) -> list[str]:
        """Who answers at a stage."""
        silent, order = self.record["silent_from"], self.stages
        return [
            m for m in self.session.members if m not in silent or order.index(silent[m]) > order.index(stage)
        ]

    def ask(self, stage: str, member: str, request: bytes) -> bytes:
        """One client's answer."""
        if stage != Masking.input_stage:
            return self.clients[member].reply(request)
        inputs = {
            int(index): SegmentInput(
                values=np.array(values, dtype=np.int64), binding=self.bindings[int(index)]
            )
            for index, values in self.record["inputs"][member].items()
        }
        return self.clients[member].contribute(request, inputs)

    def hand_over(self, case: Mapping[str, str], message: bytes) -> None:
        """Give a message to the party that a case names, in place of the right one."""
        if case["to"] == "server":
            self.server.receive(case["party"], message)
        else:
            self.ask(case["stage"], case["party"], message)

    def play(self, stage: str) -> dict[str, dict[str, str]]:
        """A stage; what crossed, in hex."""
        requests = dict(self.server.requests())
        replies = {member: self.ask(stage, member, requests[member]) for member in self.present(stage)}
        for member, reply in replies.items():
            self.server.receive(member, reply)
        self.server.close_stage()
        return {"requests": in_hex(requests), "replies": in_hex(replies)}

    def play_before(self, stage: str) -> None:
        """The stages before this one."""
        for earlier in self.stages[: self.stages.index(stage)]:
            self.play(earlier)

    def play_from(self, stage: str) -> SumResult:
        """This stage and the rest, to the result."""
        for later in self.stages[self.stages.index(stage) :]:
            self.play(later)
        return self.server.result(self.bindings)


def in_hex(messages: Mapping[str, bytes]) -> dict[str, str]:
    """Messages as they stand in the file."""
    return {member: bytes(message).hex() for member, message in messages.items()}


def session_of(record: Mapping[str, Any]) -> Session:
    """The recorded terms."""
    terms = record["session"]
    segments = tuple(
        Segment(
            index=index,
            length=part["length"],
            members=tuple(part["members"]),
            holders=tuple(part["holders"]),
            quorum=part["quorum"],
            extra_secrets=part["extra_secrets"],
            extra_reveal=ExtraReveal(part["extra_reveal"]),
        )
        for index, part in enumerate(terms["segments"])
    )
    return Session(
        run=bytes.fromhex(terms["run"]),
        round=terms["round"],
        attempt=terms["attempt"],
        members=tuple(terms["members"]),
        threshold=terms["threshold"],
        input_bound=terms["input_bound"],
        segments=segments,
        config_digest=bytes.fromhex(terms["config_digest"]),
        ring_bits=terms["ring_bits"],
    )


def trust_of(record: Mapping[str, Any]) -> TrustStore | None:
    """Whom the parties of a signed session believe."""
    if "identities" not in record:
        return None
    given = record["identities"]
    return TrustStore.read(
        authority=bytes.fromhex(given["authority"]),
        roster=bytes.fromhex(given["roster"]),
        revocations=bytes.fromhex(given["revocations"]),
        certificates=[bytes.fromhex(text) for text in given["certificates"]],
        now=given["now"],
    )


def as_recorded(result: SumResult) -> dict[str, Any]:
    """A result as it stands in the file."""
    return {
        "survivors": list(result.survivors),
        "sums": {str(index): values.tolist() for index, values in result.sums.items()},
        "refused": sorted(result.refused),
        "extra_secrets": {
            " ".join(map(str, key)): bytes(value).hex() for key, value in result.extra_secrets.items()
        },
    }


SESSIONS: dict[str, dict[str, Any]] = json.loads(GOOD.read_text())["sessions"] if GOOD.exists() else {}
BAD_CASES: list[dict[str, str]] = json.loads(BAD.read_text())["cases"] if BAD.exists() else []
EACH = pytest.mark.parametrize("name", ["unsigned", "consistency"])
