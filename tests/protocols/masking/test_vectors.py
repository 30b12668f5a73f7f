"""Whole sessions, recorded byte by byte, come out again; and their bad twins are refused by name.

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
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

from protocols import errors
from protocols.identity.trust import Identity, ThrowawayAuthority, TrustStore
from protocols.interface import SegmentInput, SumResult
from protocols.masking.messages import (
    KeyAdvertisement,
    KeyDirectory,
    MaskedInput,
    RevealedShares,
    SealedShares,
    ShareDelivery,
    SurvivorList,
    SurvivorSignatures,
)
from protocols.masking.secure_sum import Masking, MaskingClient
from protocols.primitives.secret import Secret
from protocols.primitives.signing import SigningKey
from protocols.profiles import by_name
from protocols.session import ExtraReveal, Segment, Session
from tests.protocols.masking.parties import stream

GOOD = Path(__file__).parents[2] / "vectors" / "masking_session.json"
BAD = GOOD.with_name("bad_masking_session.json")
HOW = (
    "Written by tests/protocols/masking/test_vectors.py (`generate`). Each client draws from SHA-256('<client id> 0') "
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


def test_the_files_are_there() -> None:
    """Both files are part of the tests, and each session covers all its stages, with bad twins of each."""
    assert list(SESSIONS) == ["unsigned", "consistency"]
    for name, record in SESSIONS.items():
        stages = set(Replay(record).stages)
        assert set(record["stages"]) == stages
        assert {case["stage"] for case in BAD_CASES if case["session"] == name} == stages
        assert sum(case["session"] == name for case in BAD_CASES) >= 60


@EACH
def test_the_recorded_context_is_that_of_the_terms(name: str) -> None:
    """The session's bytes and both contexts are the recorded ones, and the contexts are hashes worked out by hand."""
    record = SESSIONS[name]
    session, replay = session_of(record), Replay(record)

    data, context, bound = session.to_bytes(), session.context, replay.terms.context

    assert data.hex() == record["session"]["bytes"]
    assert context.hex() == record["session"]["context"]
    assert bound.hex() == record["context"]
    assert hashlib.sha256(b"rbla-secure session\x00" + data).digest() == context
    believed = trust_by_hand(record["identities"]) if "identities" in record else bytes(32)
    text = b"rbla-secure masking\x00" + context + believed + record["profile"].encode()
    assert hashlib.sha256(text).digest() == bound


def trust_by_hand(identities: dict[str, Any]) -> bytes:
    """The digest of a roster, less the signature in which it ends, and of revocation list number 1."""
    roster = hashlib.sha256(b"rbla-secure roster\x00" + bytes.fromhex(identities["roster"])[:-64]).digest()
    revocations = hashlib.sha256(bytes.fromhex(identities["revocations"])).digest()
    return hashlib.sha256(b"rbla-secure trust\x00" + roster + (1).to_bytes(8, "big") + revocations).digest()


@EACH
def test_the_recorded_session_comes_out_again(name: str) -> None:
    """With the recorded randomness every request, every reply and the result are the recorded bytes."""
    replay = Replay(SESSIONS[name])

    crossed = {stage: replay.play(stage) for stage in replay.stages}
    result = replay.server.result(replay.bindings)

    assert crossed == SESSIONS[name]["stages"]
    assert as_recorded(result) == SESSIONS[name]["result"]


@EACH
def test_the_recorded_replies_alone_give_the_result(name: str) -> None:
    """A server that is fed the recorded replies opens the recorded sums."""
    replay = Replay(SESSIONS[name])

    for stage in replay.stages:
        for member, reply in SESSIONS[name]["stages"][stage]["replies"].items():
            replay.server.receive(member, bytes.fromhex(reply))
        replay.server.close_stage()
    result = replay.server.result(replay.bindings)

    assert as_recorded(result) == SESSIONS[name]["result"]


@pytest.mark.parametrize(
    ("name", "alive", "refused"),
    [("unsigned", (1, 2, 4), [1]), ("consistency", (1, 2, 4, 5), [1, 3])],
)
def test_the_recorded_result_is_the_plain_sum(name: str, alive: tuple[int, ...], refused: list[int]) -> None:
    """The recorded sums are those of the recorded inputs over the recorded survivors."""
    record = SESSIONS[name]
    survivors = record["result"]["survivors"]

    sums = {
        index: [
            sum(
                record["inputs"][member][index][at]
                for member in survivors
                if index in record["inputs"][member]
            )
            for at in range(len(values))
        ]
        for index, values in record["result"]["sums"].items()
    }

    assert sums == record["result"]["sums"]
    assert survivors == [f"client-{number:02d}" for number in alive]
    assert record["result"]["refused"] == refused


@pytest.mark.parametrize(("name", "given_out"), [("unsigned", []), ("consistency", [1])])
def test_the_recorded_extra_secrets_are_the_survivors_own(name: str, given_out: list[int]) -> None:
    """One of five members is missing: of the two secrets of each survivor the first stays hidden, the second is given out."""
    record = SESSIONS[name]

    expected = {
        f"{member} 0 {number}": record["extra_secrets"][member]["0"][number]
        for member in record["result"]["survivors"]
        for number in given_out
    }

    assert record["result"]["extra_secrets"] == expected


# The same uploads, masked by an implementation that shares no code with ours.


def expanded_by_hand(key: bytes, label: bytes, *context: bytes) -> bytes:
    """HKDF-Expand with SHA-256, label and context as the format has them: 16 bytes (RFC 5869, section 2.3)."""
    info = b"".join(len(part).to_bytes(2, "big") + part for part in (b"rbla-secure v1 " + label, *context))
    return hmac.digest(key, info + b"\x01", "sha256")[:16]


def extracted_by_hand(secret: bytes) -> bytes:
    """HKDF-Extract with SHA-256 and no salt (RFC 5869, section 2.2)."""
    return hmac.digest(bytes(32), secret, "sha256")


def words_by_hand(key: bytes, count: int) -> list[int]:
    """AES-128 in counter mode from zero, as little-endian words."""
    counters = b"".join(number.to_bytes(16, "big") for number in range(-(-count // 4)))
    data = Cipher(AES(key), ECB()).encryptor().update(counters)  # noqa: S305 - counter mode from single blocks
    return [int.from_bytes(data[4 * at : 4 * at + 4], "little") for at in range(count)]


def draws_by_hand(record: Mapping[str, Any], member: str) -> dict[str, dict[str, bytes]]:
    """A client's mask keys and self-mask seeds by segment, and its nonce, from the front of its stream."""
    indexes = list(record["inputs"][member])
    source = b"".join(hashlib.sha256(f"{member} {number}".encode()).digest() for number in range(20))
    seeds = 32 * len(indexes) + 32 + 16  # behind the mask keys, the sealing key and the nonce
    return {
        "mask keys": {index: source[32 * at : 32 * at + 32] for at, index in enumerate(indexes)},
        "nonce": {"": source[seeds - 16 : seeds]},
        "seeds": {index: source[seeds + 32 * at : seeds + 32 * at + 32] for at, index in enumerate(indexes)},
    }


def upload_by_hand(record: Mapping[str, Any], member: str) -> dict[int, list[int]]:
    """What a client must upload, from the equation of Bonawitz et al. 2017 alone."""
    roster, context = record["session"]["members"], bytes.fromhex(record["context"])
    sharers = list(record["stages"]["share_keys"]["replies"])
    mine, me = draws_by_hand(record, member), roster.index(member) + 1
    upload = {}
    for text, values in record["inputs"][member].items():
        index, binding = int(text).to_bytes(2, "big"), bytes.fromhex(record["bindings"][text])
        seed, place = mine["seeds"][text], me.to_bytes(2, "big")
        own = expanded_by_hand(seed, b"self mask", context, binding, index, place)
        total = [value + word for value, word in zip(values, words_by_hand(own, len(values)), strict=True)]
        private = X25519PrivateKey.from_private_bytes(mine["mask keys"][text])
        for other in record["session"]["segments"][int(text)]["members"]:
            if other == member or other not in sharers:
                continue
            peer = roster.index(other) + 1
            theirs = X25519PrivateKey.from_private_bytes(draws_by_hand(record, other)["mask keys"][text])
            public = theirs.public_key().public_bytes_raw()
            secret = private.exchange(X25519PublicKey.from_public_bytes(public))
            pair = (min(me, peer).to_bytes(2, "big"), max(me, peer).to_bytes(2, "big"))
            common = extracted_by_hand(secret)
            key = expanded_by_hand(common, b"pairwise mask", context, binding, index, *pair)
            words = words_by_hand(key, len(values))
            total = [t + (word if me < peer else -word) for t, word in zip(total, words, strict=True)]
        upload[int(text)] = [t % 2 ** record["session"]["ring_bits"] for t in total]
    return upload


def signature_by_hand(record: Mapping[str, Any], member: str, purpose: bytes, message: bytes) -> bytes:
    """A client's Ed25519 signature over the prefix, the purpose and a message."""
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(record["identities"]["signing_keys"][member]))
    return key.sign(b"rbla-secure v1 " + purpose + b"\x00" + message)


def view_by_hand(record: Mapping[str, Any]) -> bytes:
    """What an upload's signature covers: the context, two counts, everyone's nonce, and who has shared."""
    roster, stages = record["session"]["members"], record["stages"]
    advertised, shared = (stages[stage]["replies"] for stage in ("advertise_keys", "share_keys"))
    data = b"rbla-secure view\x00" + bytes.fromhex(record["context"])
    data += bytes([0, len(advertised), 0, len(shared)])
    for member in advertised:
        position = (roster.index(member) + 1).to_bytes(2, "big")
        data += position + draws_by_hand(record, member)["nonce"][""]
    for member in shared:
        data += (roster.index(member) + 1).to_bytes(2, "big")
    return hashlib.sha256(data).digest()


@pytest.mark.parametrize(
    ("name", "number"), [("unsigned", n) for n in (1, 2, 4)] + [("consistency", n) for n in (1, 2, 4, 5)]
)
def test_uploads_are_those_of_an_independent_implementation(name: str, number: int) -> None:
    """Masks computed by hand from the recorded randomness give the recorded uploads, packed and signed."""
    record, member = SESSIONS[name], f"client-{number:02d}"
    recorded = bytes.fromhex(record["stages"]["mask_input"]["replies"][member])

    upload = upload_by_hand(record, member)

    bits = record["session"]["ring_bits"]
    layout = bytes([bits]) + len(upload).to_bytes(2, "little")
    layout += b"".join(index.to_bytes(2, "little") for index in upload)
    for values in upload.values():
        packed = sum(value << bits * place for place, value in enumerate(values))
        layout += len(values).to_bytes(4, "little") + packed.to_bytes(-(-bits * len(values) // 8), "little")
    layout += bytes(2)  # no bundle is disputed
    if "identities" in record:
        layout += signature_by_hand(record, member, b"participants", view_by_hand(record))
    assert recorded[38:] == layout  # behind header, context and sender


def commitment_by_hand(
    record: Mapping[str, Any], label: bytes, numbers: tuple[int, ...], value: bytes
) -> bytes:
    """Sixteen bytes of SHA-256 over the label, the context, whose it is and which, and the value."""
    parts = (b"rbla-secure v1 commitment to a " + label, bytes.fromhex(record["context"]))
    text = b"".join(len(part).to_bytes(2, "big") + part for part in parts)
    text += b"".join(number.to_bytes(2, "big") for number in numbers)
    return hashlib.sha256(text + value).digest()[:16]


@EACH
def test_commitments_to_secrets_are_those_of_an_independent_implementation(name: str) -> None:
    """Every advertisement commits to the client's seed of each segment, and then to its extra secrets."""
    record = SESSIONS[name]
    for position, member in enumerate(record["session"]["members"], start=1):
        seeds, extra = draws_by_hand(record, member)["seeds"], record["extra_secrets"].get(member, {})
        data = bytes.fromhex(record["stages"]["advertise_keys"]["replies"][member])
        by_hand = len(seeds).to_bytes(2, "little") + b"".join(int(i).to_bytes(2, "little") for i in seeds)
        for index, seed in seeds.items():
            secrets = [seed, *map(bytes.fromhex, extra.get(index, []))]
            by_hand += len(secrets).to_bytes(2, "little")
            for number, value in enumerate(
                secrets, start=1
            ):  # 0 is the mask key, which its public key commits to
                by_hand += commitment_by_hand(record, b"secret", (position, int(index), number), value)

        assert data[: -SIGNATURE_SIZE if "identities" in record else None].endswith(by_hand)


@EACH
def test_commitments_to_shares_are_those_of_an_independent_implementation(name: str) -> None:
    """Every share that is revealed has its commitment, in its place, among those its dealer gave."""
    record = SESSIONS[name]
    members, parts = record["session"]["members"], record["session"]["segments"]
    seen = 0
    for holder, reply in record["stages"]["reveal_shares"]["replies"].items():
        reveal, keeper = RevealedShares.from_bytes(bytes.fromhex(reply)), members.index(holder) + 1
        shares = {(*key, 0): share for key, share in reveal.mask_key_shares.items()}
        shares |= {(*key, 1): share for key, share in reveal.self_mask_shares.items()}
        shares |= {(p, index, 2 + extra): share for (p, index, extra), share in reveal.extra_shares.items()}
        for (owner, index, number), share in shares.items():
            dealer = members[owner - 1]
            dealt = SealedShares.from_bytes(bytes.fromhex(record["stages"]["share_keys"]["replies"][dealer]))
            before = sum(2 + p["extra_secrets"] for p in parts[:index] if dealer in p["members"])
            at = 16 * (before + number)
            made = commitment_by_hand(record, b"share", (owner, keeper, index, number), share)
            seen += 1

            assert dealt.commitments[keeper][at : at + 16] == made
    assert seen > 20


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_the_other_signatures_are_those_of_an_independent_implementation(number: int) -> None:
    """Keys and survivor lists are signed whole, each for its own purpose."""
    record, member = SESSIONS["consistency"], f"client-{number:02d}"
    keys = bytes.fromhex(record["stages"]["advertise_keys"]["replies"][member])
    asked = record["stages"]["agree_survivors"]["requests"].get(member)

    assert keys[-64:] == signature_by_hand(record, member, b"key advertisement", keys[:-64])
    assert (asked is None) == (member == "client-03")
    if asked is not None:
        agreed = bytes.fromhex(record["stages"]["agree_survivors"]["replies"][member])
        assert agreed[-64:] == signature_by_hand(record, member, b"survivor list", bytes.fromhex(asked))


@pytest.mark.parametrize(
    "case", BAD_CASES, ids=lambda case: " ".join(case[k] for k in ("session", "stage", "to", "why"))
)
def test_bad_twins_are_refused(case: dict[str, str]) -> None:
    """A bad message in the place of a recorded one raises exactly the recorded error, and the session goes on as recorded."""
    replay = Replay(SESSIONS[case["session"]])
    replay.play_before(case["stage"])
    message = bytes.fromhex(case["message"])

    with pytest.raises(errors.ProtocolError) as caught:
        replay.hand_over(case, message)
    result = replay.play_from(case["stage"])

    assert caught.type.__name__ == case["error"]
    assert as_recorded(result) == SESSIONS[case["session"]]["result"]


# Recording.


MEMBERS = [f"client-{number:02d}" for number in range(1, 6)]


def new_record(
    parts: list[dict[str, Any]], *, bits: int, silent: dict[str, str], **terms: Any
) -> dict[str, Any]:
    """Terms and inputs of a recorded session."""
    bound = (2 ** (bits - 2) - 1) // 5
    inputs = {
        member: {
            str(index): [
                (-1) ** at * (bound if at == 0 else 1000 * number + 100 * index + at)
                for at in range(part["length"])
            ]
            for index, part in enumerate(parts)
            if member in part["members"]
        }
        for number, member in enumerate(MEMBERS, start=1)
    }
    extra = {
        member: {
            str(index): [
                hashlib.sha256(f"{member} {index} {number}".encode()).hexdigest()
                for number in range(part["extra_secrets"])
            ]
            for index, part in enumerate(parts)
            if member in part["members"] and part["extra_secrets"]
        }
        for member in MEMBERS
    }
    return {
        "session": {
            "run": bytes(range(16)).hex(),
            "round": 7,
            "attempt": 2,
            "members": MEMBERS,
            "input_bound": bound,
            "ring_bits": bits,
            "config_digest": hashlib.sha256(b"the plan of the vector").hexdigest(),
            "segments": parts,
            **terms,
        },
        "bindings": {
            str(index): hashlib.sha256(b"model %d" % index).hexdigest() for index in range(len(parts))
        },
        "inputs": inputs,
        "extra_secrets": extra,
        "silent_from": silent,
    }


def part(length: int, members: list[str], quorum: int, **more: Any) -> dict[str, Any]:
    """A segment as it stands in the file."""
    return {
        "length": length,
        "members": members,
        "quorum": quorum,
        "holders": members,
        "extra_secrets": 0,
        "extra_reveal": 0,
        **more,
    }


def unsigned_record() -> dict[str, Any]:
    """Full words; one client never shares, another never uploads, and the second segment stays closed."""
    parts = [part(5, MEMBERS, 3), part(3, MEMBERS[:3], 3), part(4, MEMBERS[1:4], 2)]
    silent = {"client-05": "share_keys", "client-03": "mask_input"}
    return {"profile": "semi-honest", **new_record(parts, bits=32, silent=silent, threshold=3)}


def consistency_record() -> dict[str, Any]:
    """Half bytes, extra secrets of which one is given out, and two segments that are padded: in the last one the only holder drops out."""
    parts = [
        part(5, MEMBERS, 3, extra_secrets=2, extra_reveal=1),
        part(3, MEMBERS[:3], 3),
        part(4, MEMBERS[1:4], 1, holders=MEMBERS[1:3]),
        part(2, MEMBERS[1:4], 1, holders=MEMBERS[2:3]),
    ]
    now = 1_800_000_000
    authority = ThrowawayAuthority.create(
        dict.fromkeys(MEMBERS, 4), now=now, random_bytes=stream("the authority of the vector")
    )
    identities = {
        "now": now + 1,
        "authority": authority.key.public.hex(),
        "roster": authority.view.roster.to_bytes().hex(),
        "revocations": authority.view.revocations.der.hex(),
        "certificates": [authority.identity(member).certificate.der.hex() for member in MEMBERS],
        "signing_keys": {member: bytes(authority.identity(member).key.secret).hex() for member in MEMBERS},
    }
    record = new_record(parts, bits=20, silent={"client-03": "mask_input"}, threshold=4)
    return {"profile": "consistency", "identities": identities, **record}


def spoilt_forms(message: bytes, *, ends_in_signature: bool) -> dict[str, tuple[bytes, str]]:
    """What is wrong with any message: its form or its context."""
    forms = {
        "empty": (b"", "WireError"),
        "one byte short": (message[:-1], "WireError"),
        "one byte long": (message + b"\x00", "WireError"),
        "other magic": (b"rs" + message[2:], "WireError"),
        "version 1": (message[:2] + b"\x01" + message[3:], "WireError"),
        "another type": (message[:3] + bytes([message[3] ^ 1]) + message[4:], "WireError"),
        "another context": (message[:4] + bytes([message[4] ^ 1]) + message[5:], "ContextError"),
    }
    if ends_in_signature:
        forms["a wrong signature"] = (message[:-1] + bytes([message[-1] ^ 1]), "SignatureError")
        forms["no signature"] = (message[:-SIGNATURE_SIZE], "SignatureError")
        forms["half a signature"] = (message[:-32], "WireError")
    return forms


Cases = dict[str, tuple[bytes, str]]


def spoilt_directories(message: bytes, *, signed: bool) -> Cases:
    """What is wrong with the content of the directory of client-01."""
    keys = KeyDirectory.from_bytes(message)
    listed, nonces = keys.advertisements, dict(keys.nonces)
    mine, peer, other = listed[0], listed[1], listed[3]

    def entries(*changed: Any, **fields: Any) -> bytes:
        return replace(keys, advertisements=changed, **fields).to_bytes()

    def masked(entry: Any, index: int, key: bytes) -> Any:
        return replace(entry, mask_keys={**entry.mask_keys, index: key})

    cases = {
        "without the recipient": (
            entries(*listed[1:], nonces={p: n for p, n in nonces.items() if p != 1}),
            "RosterError",
        ),
        "without the recipient's entry": (entries(*listed[1:]), "RosterError"),
        "other keys for the recipient": (entries(masked(mine, 0, bytes(32)), *listed[1:]), "RosterError"),
        "another nonce for the recipient": (
            entries(replace(mine, nonce=bytes(16)), *listed[1:]),
            "RosterError",
        ),
        "a key twice": (
            entries(*listed[:3], masked(other, 0, listed[2].mask_keys[0]), *listed[4:]),
            "RosterError",
        ),
        "a nonce twice": (entries(*listed, nonces={**nonces, 2: nonces[3]}), "RosterError"),
        "another nonce than advertised": (entries(*listed, nonces={**nonces, 2: bytes(16)}), "RosterError"),
        "a nonce without its keys": (entries(mine, *listed[2:]), "RosterError"),
        "keys without their nonce": (
            entries(*listed, nonces={p: n for p, n in nonces.items() if p != 2}),
            "RosterError",
        ),
        "a stranger": (
            entries(*listed, replace(listed[4], sender=6), nonces={**nonces, 6: bytes(16)}),
            "RosterError",
        ),
        "a sender twice": (entries(mine, *listed), "WireError"),
        "a segment missing": (
            entries(mine, replace(peer, mask_keys={0: peer.mask_keys[0]}), *listed[2:]),
            "RosterError",
        ),
        "below the threshold": (
            entries(*listed[:2], nonces={p: nonces[p] for p in (1, 2)}),
            "BelowThresholdError",
        ),
        "a sealing key of small order": (
            entries(mine, replace(peer, sealing_key=bytes(32)), *listed[2:]),
            "SignatureError" if signed else "KeyAgreementError",
        ),
        "an entry of another session": (
            entries(mine, replace(peer, context=bytes(32)), *listed[2:]),
            "ContextError",
        ),
        "other commitments for the recipient": (
            entries(replace(mine, commitments=peer.commitments), *listed[1:]),
            "RosterError",
        ),
    }
    for why, made in spoilt_commitments(peer.commitments).items():
        cases[why] = (entries(mine, replace(peer, commitments=made), *listed[2:]), "RosterError")
    if signed:
        other_seed = {**peer.commitments, 0: (bytes(16), *peer.commitments[0][1:])}
        cases["another commitment than signed"] = (
            entries(mine, replace(peer, commitments=other_seed), *listed[2:]),
            "SignatureError",
        )
        for why, signature in (
            ("unsigned", b""),
            ("signed by another", other.signature),
            ("signed with zeros", bytes(SIGNATURE_SIZE)),
        ):
            spoilt = replace(peer, signature=signature)
            cases[f"keys {why}"] = (entries(mine, spoilt, *listed[2:]), "SignatureError")
    return cases


def spoilt_commitments(good: Mapping[int, tuple[bytes, ...]]) -> dict[str, dict[int, tuple[bytes, ...]]]:
    """Other commitments than one for each seed and extra secret."""
    return {
        "no commitments": {},
        "no commitments for a segment": {i: made for i, made in good.items() if i != 1},
        "a commitment missing": {**good, 0: good[0][:-1]},
        "a commitment too many": {**good, 0: (*good[0], bytes(16))},
        "commitments for a segment too many": {**good, 9: good[1]},
    }


def spoilt_deliveries(message: bytes, other: bytes) -> Cases:
    """What is wrong with the content of the delivery to client-01; `other` is that to client-02."""
    delivery, reflected = ShareDelivery.from_bytes(message), ShareDelivery.from_bytes(other).sealed[1]
    sealed, digests, listed = dict(delivery.sealed), dict(delivery.digests), delivery.participants

    def bundles(changed: Mapping[int, bytes], participants: tuple[int, ...] = listed) -> bytes:
        both, shown = {**sealed, **changed}, {**dict.fromkeys(changed, bytes(32)), **digests}
        return replace(delivery, sealed=both, digests=shown, participants=participants).to_bytes()

    # One bundle that is of no use is put aside; two leave too few to recover anything.
    flipped = {p: sealed[p][:-1] + bytes([sealed[p][-1] ^ 1]) for p in (2, 3)}
    few = replace(delivery, sealed={2: sealed[2]}, digests={2: digests[2]}, participants=(1, 2)).to_bytes()
    return {
        "for another": (other, "RosterError"),
        "from the recipient": (bundles({1: sealed[2]}), "RosterError"),
        "from a stranger": (bundles({9: sealed[2]}), "RosterError"),
        "a stranger takes part": (bundles({9: sealed[2]}, (*listed, 9)), "RosterError"),
        "the recipient takes no part": (bundles({}, listed[1:]), "RosterError"),
        "a participant without a bundle": (
            replace(delivery, sealed={p: blob for p, blob in sealed.items() if p != 2}).to_bytes(),
            "RosterError",
        ),
        "a bundle without a digest": (
            replace(delivery, digests={p: digest for p, digest in digests.items() if p != 2}).to_bytes(),
            "RosterError",
        ),
        "a digest without a bundle": (
            replace(delivery, digests={**digests, 1: bytes(32)}).to_bytes(),
            "RosterError",
        ),
        "digests exchanged": (
            replace(delivery, digests={**digests, 2: digests[3], 3: digests[2]}).to_bytes(),
            "SealError",
        ),
        "a bundle of no participant": (bundles({}, (1, *listed[2:])), "RosterError"),
        "below the threshold": (few, "BelowThresholdError"),
        "tampered bundles": (bundles(flipped), "SealError"),
        "reflected bundles": (bundles({2: reflected, 3: reflected}), "SealError"),
        "bundles exchanged": (bundles({2: sealed[3], 3: sealed[2]}), "SealError"),
    }


def spoilt_lists(message: bytes) -> Cases:
    """What is wrong with the content of a survivor list; client-03 has dropped out, client-01 is asked."""
    survivors = SurvivorList.from_bytes(message)
    alive, views = survivors.survivors, dict(survivors.view_signatures)

    def listed(chosen: tuple[int, ...], gone: tuple[int, ...], order: tuple[int, ...] = ()) -> bytes:
        shown = {p: views.get(p, bytes(SIGNATURE_SIZE)) for p in chosen} if views else {}
        changed = replace(survivors, survivors=order or chosen, dropped=gone, view_signatures=shown)
        return changed.to_bytes()

    cases = {
        "overlapping": (listed(alive, (3, 4)), "RosterError"),
        "without the recipient": (listed(alive[1:], (1, 3)), "RosterError"),
        "a sharer on neither list": (listed(alive, ()), "RosterError"),
        "one who did not share": (listed(alive, (3, 9)), "RosterError"),
        "below the threshold": (listed(alive[:2], (3, *alive[2:])), "BelowThresholdError"),
        "unsorted": (listed(alive, (3,), (2, 1, *alive[2:])), "WireError"),
    }
    if not views:
        shown = dict.fromkeys(alive, bytes(SIGNATURE_SIZE))
        cases["views where nobody signs"] = (
            replace(survivors, view_signatures=shown).to_bytes(),
            "RosterError",
        )
        return cases
    for why, changed, error in (
        ("no views", {}, "RosterError"),
        ("a view missing", {p: views[p] for p in alive[:-1]}, "RosterError"),
        ("a view of the dropped", {**views, 3: views[1]}, "RosterError"),
        ("a view that is not signed", {**views, 2: bytes(SIGNATURE_SIZE)}, "SignatureError"),
        ("views exchanged", {**views, 1: views[2], 2: views[1]}, "SignatureError"),
    ):
        cases[why] = (replace(survivors, view_signatures=changed).to_bytes(), error)
    return cases


def spoilt_signatures(message: bytes) -> Cases:
    """What is wrong with the content of the signatures that are shown."""
    shown = SurvivorSignatures.from_bytes(message)
    good = dict(shown.signatures)
    return {
        why: (replace(shown, signatures=changed).to_bytes(), error)
        for why, changed, error in (
            ("none", {}, "BelowThresholdError"),
            ("below the threshold", {p: good[p] for p in (1, 2, 4)}, "BelowThresholdError"),
            ("of the dropped", {**good, 3: good[1]}, "RosterError"),
            ("of a stranger", {**good, 9: good[1]}, "RosterError"),
            ("exchanged", {**good, 1: good[2], 2: good[1]}, "SignatureError"),
            ("one wrong", {**good, 2: bytes(SIGNATURE_SIZE)}, "SignatureError"),
        )
    }


def spoilt_requests(stage: str, message: bytes, other: bytes, *, signed: bool) -> Cases:
    """What is wrong with the content of a request to client-01; `other` is the request to client-02."""
    if stage == "share_keys":
        return spoilt_directories(message, signed=signed)
    if stage == "mask_input":
        return spoilt_deliveries(message, other)
    if stage == "reveal_shares" and signed:
        return spoilt_signatures(message)
    return spoilt_lists(message)


def spoilt_reveals(message: bytes) -> Cases:
    """What is wrong with the content of the shares of client-01."""
    reveal = RevealedShares.from_bytes(message)
    gone, alive, any_share = dict(reveal.mask_key_shares), dict(reveal.self_mask_shares), Secret(bytes(33))
    extra = dict(reveal.extra_shares)
    spoilt_extra = {
        "an extra share of the dropped": {**extra, (3, 0, 1): any_share},
        "an extra share that is not given out": {**extra, (2, 0, 0): any_share},
        "an extra share that does not exist": {**extra, (2, 0, 2): any_share},
    }
    if extra:
        spoilt_extra["no extra shares"] = {}
        spoilt_extra["an extra share missing"] = {k: v for k, v in extra.items() if k[0] != 2}
    cases = {
        why: (replace(reveal, extra_shares=changed).to_bytes(), "ShareError")
        for why, changed in spoilt_extra.items()
    }
    return cases | {
        why: (replace(reveal, mask_key_shares=dead, self_mask_shares=living).to_bytes(), "ShareError")
        for why, dead, living in (
            ("no share of the dropped", {}, alive),
            ("no share of the dropped in one segment", {(3, 0): gone[3, 0]}, alive),
            ("both kinds of share of one", {**gone, (2, 0): any_share}, alive),
            ("a survivor missing", gone, {k: v for k, v in alive.items() if k != (2, 0)}),
            ("a segment in part", gone, {k: v for k, v in alive.items() if k[1] != 0}),
            ("a self-mask share of the dropped", gone, {**alive, (3, 0): any_share}),
            ("a segment that does not exist", gone, {**alive, (1, 4): any_share}),
        )
    }


def spoilt_replies(stage: str, message: bytes, other: bytes) -> Cases:
    """What is wrong with the content of a reply of client-01; `other` is the reply of client-02."""
    cases = {"from another": (other, "RosterError")}
    if stage == "advertise_keys":
        keys = KeyAdvertisement.from_bytes(message)
        for why, made in spoilt_commitments(keys.commitments).items():
            cases[why] = (replace(keys, commitments=made).to_bytes(), "RosterError")
    if stage == "share_keys":
        shares = SealedShares.from_bytes(message)
        sealed = dict(shares.sealed)
        cases["a recipient missing"] = (replace(shares, sealed={2: sealed[2]}).to_bytes(), "RosterError")
        cases["for itself"] = (replace(shares, sealed={**sealed, 1: sealed[2]}).to_bytes(), "RosterError")
        cases["for a stranger"] = (replace(shares, sealed={**sealed, 9: sealed[2]}).to_bytes(), "RosterError")
        cases["a short bundle"] = (
            replace(shares, sealed={**sealed, 2: sealed[2][:-1]}).to_bytes(),
            "SealError",
        )
        made = dict(shares.commitments)
        for why, changed, error in (
            ("commitments for nobody", {}, "RosterError"),
            ("no commitments for a keeper", {p: c for p, c in made.items() if p != 2}, "RosterError"),
            ("no commitments for itself", {p: c for p, c in made.items() if p != 1}, "RosterError"),
            ("commitments for a stranger", {**made, 9: made[2]}, "RosterError"),
            ("a short commitment", {p: c[:-1] for p, c in made.items()}, "SealError"),
            ("a commitment too many", {p: c + bytes(16) for p, c in made.items()}, "SealError"),
        ):
            cases[why] = (replace(shares, commitments=changed).to_bytes(), error)
    if stage == "mask_input":
        upload = MaskedInput.from_bytes(message)
        parts, bits = dict(upload.segments), upload.ring_bits
        for why, changed in (
            ("a segment missing", {0: parts[0]}),
            ("a foreign segment", {**parts, 2: parts[0]}),
            ("a short segment", {**parts, 1: parts[1][:-1]}),
        ):
            cases[why] = (replace(upload, segments=changed).to_bytes(), "InputError")
        for why, disputed in (("with itself", (1,)), ("with a stranger", (9,))):
            cases[f"a dispute {why}"] = (replace(upload, disputed=disputed).to_bytes(), "RosterError")
        cases["another ring"] = (replace(upload, ring_bits=24).to_bytes(), "InputError")
        place = 4 + 32 + 2  # header, context, sender
        cases["no such ring"] = (message[:place] + bytes([bits - 1]) + message[place + 1 :], "WireError")
        place += 1 + 2  # ring, number of segments
        cases["a segment twice"] = (message[: place + 2] + bytes(2) + message[place + 4 :], "WireError")
        if bits == 20:
            # Five elements of twenty bits leave half a byte.
            end = place + 2 * len(parts) + 4 + 13
            spoilt = bytes([message[end - 1] | 0x10])
            cases["padding"] = (message[: end - 1] + spoilt + message[end:], "WireError")
    if stage == "reveal_shares":
        cases |= spoilt_reveals(message)
    return cases


def bad_twins(name: str, record: Mapping[str, Any]) -> list[dict[str, str]]:
    """Every recorded message of client-01, spoilt in each way that must be refused."""
    cases, signed = [], "identities" in record
    for stage, crossed in record["stages"].items():
        one, two = (
            {way: bytes.fromhex(crossed[way][member]) for way in ("requests", "replies")}
            for member in ("client-01", "client-02")
        )
        optional = signed and stage in {"advertise_keys", "mask_input"}
        forms = spoilt_forms(one["replies"], ends_in_signature=optional)
        if stage == "agree_survivors":
            forms["a wrong signature"] = (one["replies"][:-1] + b"\x00", "SignatureError")
            forms["the signature of another"] = (one["replies"][:38] + two["replies"][38:], "SignatureError")
        spoilt = {"server": forms | spoilt_replies(stage, one["replies"], two["replies"])}
        if one["requests"]:
            spoilt["client"] = spoilt_forms(one["requests"], ends_in_signature=False) | spoilt_requests(
                stage, one["requests"], two["requests"], signed=signed
            )
            del spoilt["client"]["empty"]  # the first request is empty, and a repeated request is answered
        cases += [
            {
                "session": name,
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
    """Record the sessions and their bad twins."""
    sessions = {"unsigned": unsigned_record(), "consistency": consistency_record()}
    for record in sessions.values():
        session, replay = session_of(record), Replay(record)
        record["session"] |= {"bytes": session.to_bytes().hex(), "context": session.context.hex()}
        record["context"] = replay.terms.context.hex()
        record["stages"] = {stage: replay.play(stage) for stage in replay.stages}
        record["result"] = as_recorded(replay.server.result(replay.bindings))
    twins = {
        "made_by": HOW,
        "what": "each message stands in the place of one of masking_session.json and must raise its error",
        "cases": [case for name, record in sessions.items() for case in bad_twins(name, record)],
    }
    for path, content in ((GOOD, {"made_by": HOW, "sessions": sessions}), (BAD, twins)):
        path.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    generate()
