"""One whole session, recorded byte by byte, comes out again; and its bad twins are refused by name.

`PYTHONPATH=. python tests/protocols/masking/test_vectors.py` records both files anew. Do so only together with a new
wire version: what is recorded is the format.
"""

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

from protocols import errors
from protocols.interface import SegmentInput, SumResult
from protocols.masking.messages import (
    KeyDirectory,
    MaskedInput,
    RevealedShares,
    SealedShares,
    ShareDelivery,
    SurvivorList,
)
from protocols.masking.secure_sum import Masking, MaskingClient, MaskingServer
from protocols.primitives.secret import Secret
from protocols.session import Segment, Session
from tests.protocols.masking.parties import stream

GOOD = Path(__file__).parents[2] / "vectors" / "masking_session.json"
BAD = GOOD.with_name("bad_masking_session.json")
HOW = (
    "Written by tests/protocols/masking/test_vectors.py (`generate`). Each client draws its keys, seeds, polynomial "
    "coefficients and nonces, in this order, from SHA-256('<client id> 0') || SHA-256('<client id> 1') || ... "
    "Two clients fall silent. Bytes are hex; sums are over the survivors."
)


class Replay:
    """The recorded session played by clients with the recorded randomness."""

    def __init__(self, record: Mapping[str, Any]) -> None:
        self.record = record
        self.session = session_of(record)
        self.clients = {m: MaskingClient(self.session, m, stream(m)) for m in self.session.members}
        self.server = MaskingServer(self.session)
        self.bindings = {int(index): bytes.fromhex(text) for index, text in record["bindings"].items()}

    def present(self, stage: str) -> list[str]:
        """Who answers at a stage."""
        silent, order = self.record["silent_from"], Masking.stages
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
        for earlier in Masking.stages[: Masking.stages.index(stage)]:
            self.play(earlier)

    def play_from(self, stage: str) -> SumResult:
        """This stage and the rest, to the result."""
        for later in Masking.stages[Masking.stages.index(stage) :]:
            self.play(later)
        return self.server.result(self.bindings)


def in_hex(messages: Mapping[str, bytes]) -> dict[str, str]:
    """Messages as they stand in the file."""
    return {member: bytes(message).hex() for member, message in messages.items()}


def session_of(record: Mapping[str, Any]) -> Session:
    """The recorded terms."""
    terms = record["session"]
    segments = tuple(
        Segment(index=index, length=part["length"], members=tuple(part["members"]), quorum=part["quorum"])
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
    )


def as_recorded(result: SumResult) -> dict[str, Any]:
    """A result as it stands in the file."""
    return {
        "survivors": list(result.survivors),
        "sums": {str(index): values.tolist() for index, values in result.sums.items()},
        "refused": sorted(result.refused),
    }


RECORD: dict[str, Any] = json.loads(GOOD.read_text()) if GOOD.exists() else {}
BAD_CASES: list[dict[str, str]] = json.loads(BAD.read_text())["cases"] if BAD.exists() else []


def test_the_files_are_there() -> None:
    """Both files are part of the tests, and the good one covers all stages."""
    assert list(RECORD["stages"]) == list(Masking.stages)
    assert len(BAD_CASES) >= 40
    assert {case["stage"] for case in BAD_CASES} == set(Masking.stages)


def test_the_recorded_context_is_that_of_the_terms() -> None:
    """The session's bytes and context are the recorded ones, and the context is their hash."""
    session = session_of(RECORD)

    data, context = session.to_bytes(), session.context

    assert data.hex() == RECORD["session"]["bytes"]
    assert context.hex() == RECORD["session"]["context"]
    assert hashlib.sha256(b"rbla-secure session\x00" + data).digest() == context


def test_the_recorded_session_comes_out_again() -> None:
    """With the recorded randomness every request, every reply and the result are the recorded bytes."""
    replay = Replay(RECORD)

    crossed = {stage: replay.play(stage) for stage in Masking.stages}
    result = replay.server.result(replay.bindings)

    assert crossed == RECORD["stages"]
    assert as_recorded(result) == RECORD["result"]


def test_the_recorded_replies_alone_give_the_result() -> None:
    """A server that is fed the recorded replies opens the recorded sums."""
    replay = Replay(RECORD)

    for stage in Masking.stages:
        for member, reply in RECORD["stages"][stage]["replies"].items():
            replay.server.receive(member, bytes.fromhex(reply))
        replay.server.close_stage()
    result = replay.server.result(replay.bindings)

    assert as_recorded(result) == RECORD["result"]


def test_the_recorded_result_is_the_plain_sum() -> None:
    """The recorded sums are those of the recorded inputs over the recorded survivors."""
    survivors = RECORD["result"]["survivors"]

    sums = {
        index: [
            sum(
                RECORD["inputs"][member][index][at]
                for member in survivors
                if index in RECORD["inputs"][member]
            )
            for at in range(len(values))
        ]
        for index, values in RECORD["result"]["sums"].items()
    }

    assert sums == RECORD["result"]["sums"]
    assert survivors == ["client-01", "client-02", "client-04"]
    assert RECORD["result"]["refused"] == [1]


# The same uploads, masked by an implementation that shares no code with ours.


def key_by_hand(secret: bytes, label: bytes, *context: bytes) -> bytes:
    """HKDF-SHA256 with the label and context of the format, 16 bytes."""
    info = b"".join(len(part).to_bytes(2, "big") + part for part in (b"rbla-secure v1 " + label, *context))
    return hmac.digest(hmac.digest(bytes(32), secret, "sha256"), info + b"\x01", "sha256")[:16]


def words_by_hand(key: bytes, count: int) -> list[int]:
    """AES-128 in counter mode from zero, as little-endian words."""
    counters = b"".join(number.to_bytes(16, "big") for number in range(-(-count // 4)))
    data = Cipher(AES(key), ECB()).encryptor().update(counters)  # noqa: S305 - counter mode from single blocks
    return [int.from_bytes(data[4 * at : 4 * at + 4], "little") for at in range(count)]


def draws_by_hand(member: str, segments: int) -> tuple[bytes, list[bytes]]:
    """A client's mask key, and its self-mask seeds: the first 32 bytes and those after the sealing key."""
    source = b"".join(hashlib.sha256(f"{member} {number}".encode()).digest() for number in range(10))
    return source[:32], [source[64 + 32 * at : 96 + 32 * at] for at in range(segments)]


def upload_by_hand(member: str) -> dict[int, list[int]]:
    """What a client must upload, from the equation of Bonawitz et al. 2017 alone."""
    roster, context = RECORD["session"]["members"], bytes.fromhex(RECORD["session"]["context"])
    sharers = list(RECORD["stages"]["share_keys"]["replies"])
    inputs, me = RECORD["inputs"][member], roster.index(member) + 1
    private, seeds = draws_by_hand(member, len(inputs))
    upload = {}
    for seed, (text, values) in zip(seeds, inputs.items(), strict=True):
        index, binding = int(text).to_bytes(2, "big"), bytes.fromhex(RECORD["bindings"][text])
        own = key_by_hand(seed, b"self mask", context, binding, index, me.to_bytes(2, "big"))
        total = [value + word for value, word in zip(values, words_by_hand(own, len(values)), strict=True)]
        for other in RECORD["session"]["segments"][int(text)]["members"]:
            if other == member or other not in sharers:
                continue
            peer = roster.index(other) + 1
            public = X25519PrivateKey.from_private_bytes(draws_by_hand(other, 0)[0]).public_key()
            secret = X25519PrivateKey.from_private_bytes(private).exchange(
                X25519PublicKey.from_public_bytes(public.public_bytes_raw())
            )
            pair = (min(me, peer).to_bytes(2, "big"), max(me, peer).to_bytes(2, "big"))
            words = words_by_hand(
                key_by_hand(secret, b"pairwise mask", context, binding, index, *pair), len(values)
            )
            total = [t + (word if me < peer else -word) for t, word in zip(total, words, strict=True)]
        upload[int(text)] = [t % 2**32 for t in total]
    return upload


@pytest.mark.parametrize("member", ["client-01", "client-02", "client-04"])
def test_uploads_are_those_of_an_independent_implementation(member: str) -> None:
    """Masks computed by hand from the recorded randomness give the recorded uploads."""
    recorded = bytes.fromhex(RECORD["stages"]["mask_input"]["replies"][member])

    upload = upload_by_hand(member)

    layout = len(upload).to_bytes(2, "little") + b"".join(index.to_bytes(2, "little") for index in upload)
    for values in upload.values():
        layout += len(values).to_bytes(4, "little") + b"".join(
            value.to_bytes(4, "little") for value in values
        )
    assert recorded[38:] == layout  # behind header, context and sender


@pytest.mark.parametrize("case", BAD_CASES, ids=lambda case: f"{case['stage']}-{case['to']}-{case['why']}")
def test_bad_twins_are_refused(case: dict[str, str]) -> None:
    """A bad message in the place of a recorded one raises exactly the recorded error, and the session goes on as recorded."""
    replay = Replay(RECORD)
    replay.play_before(case["stage"])
    message = bytes.fromhex(case["message"])

    with pytest.raises(errors.ProtocolError) as caught:
        replay.hand_over(case, message)
    result = replay.play_from(case["stage"])

    assert caught.type.__name__ == case["error"]
    assert as_recorded(result) == RECORD["result"]


# Recording.


def new_record() -> dict[str, Any]:
    """Terms and inputs of the recorded session."""
    members = [f"client-{number:02d}" for number in range(1, 6)]
    parts = [
        {"length": 5, "members": members, "quorum": 3},
        {"length": 3, "members": members[:3], "quorum": 3},
        {"length": 4, "members": members[1:4], "quorum": 2},
    ]
    bound = (2**31 - 1) // 5
    inputs = {
        member: {
            str(index): [
                (-1) ** at * (bound if at == 0 else 1000 * number + 100 * index + at)
                for at in range(part["length"])
            ]
            for index, part in enumerate(parts)
            if member in part["members"]
        }
        for number, member in enumerate(members, start=1)
    }
    record: dict[str, Any] = {
        "made_by": HOW,
        "session": {
            "run": bytes(range(16)).hex(),
            "round": 7,
            "attempt": 2,
            "members": members,
            "threshold": 3,
            "input_bound": bound,
            "config_digest": hashlib.sha256(b"the plan of the vector").hexdigest(),
            "segments": parts,
        },
        "bindings": {str(index): hashlib.sha256(b"model %d" % index).hexdigest() for index in range(3)},
        "inputs": inputs,
        "silent_from": {"client-05": "share_keys", "client-03": "mask_input"},
    }
    session = session_of(record)
    record["session"] |= {"bytes": session.to_bytes().hex(), "context": session.context.hex()}
    return record


def spoilt_forms(message: bytes) -> dict[str, tuple[bytes, str]]:
    """What is wrong with any message: its form or its context."""
    return {
        "empty": (b"", "WireError"),
        "one byte short": (message[:-1], "WireError"),
        "one byte long": (message + b"\x00", "WireError"),
        "other magic": (b"rs" + message[2:], "WireError"),
        "version 2": (message[:2] + b"\x02" + message[3:], "WireError"),
        "another type": (message[:3] + bytes([message[3] ^ 1]) + message[4:], "WireError"),
        "another context": (message[:4] + bytes([message[4] ^ 1]) + message[5:], "ContextError"),
    }


def spoilt_requests(stage: str, message: bytes, other: bytes) -> dict[str, tuple[bytes, str]]:
    """What is wrong with the content of a request to client-01; `other` is the request to client-02."""
    if stage == "share_keys":
        keys = KeyDirectory.from_bytes(message)
        listed = keys.advertisements
        twice = (*listed[:3], replace(listed[3], mask_key=listed[2].mask_key))
        return {
            "without the recipient": (replace(keys, advertisements=listed[1:]).to_bytes(), "RosterError"),
            "other keys for the recipient": (
                replace(
                    keys, advertisements=(replace(listed[0], mask_key=bytes(32)), *listed[1:])
                ).to_bytes(),
                "RosterError",
            ),
            "a key twice": (replace(keys, advertisements=twice).to_bytes(), "RosterError"),
            "a stranger": (
                replace(keys, advertisements=(*listed[:4], replace(listed[4], sender=6))).to_bytes(),
                "RosterError",
            ),
            "a sender twice": (replace(keys, advertisements=(listed[0], *listed)).to_bytes(), "WireError"),
            "below the threshold": (
                replace(keys, advertisements=listed[:2]).to_bytes(),
                "BelowThresholdError",
            ),
            "a sealing key of small order": (
                replace(
                    keys, advertisements=(listed[0], replace(listed[1], sealing_key=bytes(32)), *listed[2:])
                ).to_bytes(),
                "KeyAgreementError",
            ),
        }
    if stage == "mask_input":
        delivery, reflected = ShareDelivery.from_bytes(message), ShareDelivery.from_bytes(other).sealed[1]
        sealed = dict(delivery.sealed)
        flipped = sealed[2][:-1] + bytes([sealed[2][-1] ^ 1])
        return {
            "for another": (other, "RosterError"),
            "from the recipient": (
                replace(delivery, sealed={**sealed, 1: sealed[2]}).to_bytes(),
                "RosterError",
            ),
            "from a stranger": (replace(delivery, sealed={**sealed, 9: sealed[2]}).to_bytes(), "RosterError"),
            "below the threshold": (
                replace(delivery, sealed={2: sealed[2]}).to_bytes(),
                "BelowThresholdError",
            ),
            "a tampered bundle": (replace(delivery, sealed={**sealed, 2: flipped}).to_bytes(), "SealError"),
            "a reflected bundle": (
                replace(delivery, sealed={**sealed, 2: reflected}).to_bytes(),
                "SealError",
            ),
            "bundles exchanged": (
                replace(delivery, sealed={**sealed, 2: sealed[3], 3: sealed[2]}).to_bytes(),
                "SealError",
            ),
        }
    survivors = SurvivorList.from_bytes(message)
    return {
        "overlapping": (replace(survivors, dropped=(3, 4)).to_bytes(), "RosterError"),
        "without the recipient": (
            replace(survivors, survivors=(2, 4), dropped=(1, 3)).to_bytes(),
            "RosterError",
        ),
        "a sharer on neither list": (replace(survivors, dropped=()).to_bytes(), "RosterError"),
        "one who did not share": (replace(survivors, dropped=(3, 5)).to_bytes(), "RosterError"),
        "below the threshold": (
            replace(survivors, survivors=(1, 2), dropped=(3, 4)).to_bytes(),
            "BelowThresholdError",
        ),
        "unsorted": (replace(survivors, survivors=(2, 1, 4)).to_bytes(), "WireError"),
    }


def spoilt_replies(stage: str, message: bytes, other: bytes) -> dict[str, tuple[bytes, str]]:
    """What is wrong with the content of a reply of client-01; `other` is the reply of client-02."""
    cases = {"from another": (other, "RosterError")}
    if stage == "share_keys":
        shares = SealedShares.from_bytes(message)
        sealed = dict(shares.sealed)
        cases["a recipient missing"] = (replace(shares, sealed={2: sealed[2]}).to_bytes(), "RosterError")
        cases["for itself"] = (replace(shares, sealed={**sealed, 1: sealed[2]}).to_bytes(), "RosterError")
        cases["for a stranger"] = (replace(shares, sealed={**sealed, 9: sealed[2]}).to_bytes(), "RosterError")
    if stage == "mask_input":
        upload = MaskedInput.from_bytes(message)
        parts = dict(upload.segments)
        cases["a segment missing"] = (replace(upload, segments={0: parts[0]}).to_bytes(), "InputError")
        cases["a foreign segment"] = (
            replace(upload, segments={**parts, 2: parts[0]}).to_bytes(),
            "InputError",
        )
        cases["a short segment"] = (
            replace(upload, segments={**parts, 1: parts[1][:-1]}).to_bytes(),
            "InputError",
        )
        place = 4 + 32 + 2 + 2  # header, context, sender, number of segments
        cases["a segment twice"] = (message[: place + 2] + bytes(2) + message[place + 4 :], "WireError")
    if stage == "reveal_shares":
        reveal = RevealedShares.from_bytes(message)
        gone, alive, any_share = (
            dict(reveal.mask_key_shares),
            dict(reveal.self_mask_shares),
            Secret(bytes(33)),
        )
        fewer = {key: value for key, value in alive.items() if key != (2, 0)}
        for why, dead, living in (
            ("no share of the dropped", {}, alive),
            ("both kinds of share of one", {**gone, 2: any_share}, alive),
            ("a survivor missing", gone, fewer),
            ("a self-mask share of the dropped", gone, {**alive, (3, 0): any_share}),
            ("a segment that does not exist", gone, {**alive, (1, 3): any_share}),
        ):
            spoilt = replace(reveal, mask_key_shares=dead, self_mask_shares=living)
            cases[why] = (spoilt.to_bytes(), "ShareError")
    return cases


def bad_twins(record: Mapping[str, Any]) -> list[dict[str, str]]:
    """Every recorded message of client-01, spoilt in each way that must be refused."""
    cases = []
    for stage, crossed in record["stages"].items():
        one, two = (
            {way: bytes.fromhex(crossed[way][member]) for way in ("requests", "replies")}
            for member in ("client-01", "client-02")
        )
        spoilt = {
            "server": spoilt_forms(one["replies"]) | spoilt_replies(stage, one["replies"], two["replies"])
        }
        if one["requests"]:
            spoilt["client"] = spoilt_forms(one["requests"]) | spoilt_requests(
                stage, one["requests"], two["requests"]
            )
            del spoilt["client"]["empty"]  # the first request is empty, and a repeated request is answered
        cases += [
            {
                "stage": stage,
                "to": to,
                "party": "client-01",
                "why": why,
                "error": error,
                "message": data.hex(),
            }
            for to, faults in spoilt.items()
            for why, (data, error) in faults.items()
        ]
    return cases


def generate() -> None:
    """Record the session and its bad twins."""
    record = new_record()
    replay = Replay(record)
    record["stages"] = {stage: replay.play(stage) for stage in Masking.stages}
    record["result"] = as_recorded(replay.server.result(replay.bindings))
    twins = {
        "made_by": HOW,
        "what": "each message stands in the place of one of masking_session.json and must raise its error",
        "cases": bad_twins(record),
    }
    for path, content in ((GOOD, record), (BAD, twins)):
        path.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    generate()
