"""Records sessions under masking and their bad twins anew: `PYTHONPATH=. python tests/protocols/masking/record_vectors.py`."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from protocols.identity.trust import ThrowawayAuthority
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
from protocols.primitives.secret import Secret
from tests.protocols.masking.parties import stream
from tests.protocols.masking.recorded_sessions import (
    BAD,
    GOOD,
    HOW,
    SIGNATURE_SIZE,
    Replay,
    as_recorded,
    session_of,
)

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
