"""Whole sessions, recorded byte by byte, come out again; and their bad twins are refused by name.

`PYTHONPATH=. python tests/protocols/masking/record_vectors.py` records both files anew. Do so only together with a new
wire version: what is recorded is the format.
"""

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

from protocols import errors
from protocols.masking.messages import (
    RevealedShares,
    SealedShares,
)
from tests.protocols.masking.recorded_sessions import (
    BAD_CASES,
    EACH,
    SESSIONS,
    SIGNATURE_SIZE,
    Replay,
    as_recorded,
    session_of,
)


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
