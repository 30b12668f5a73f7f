"""Bytes that nobody meant, through every decoder that reads what another party sent.

    python benchmarks/fuzz_decoders.py [--inputs 1000000] [--seed 0]

An input is noise, a mutated valid message, or a valid message of another type. A decoder must return a message that
encodes to the very same bytes, or raise an error that the package names. Everything else is a failure, and so is an
input that takes a second of processor time or memory out of proportion. Exit code 1 if there is any.
"""

import argparse
import faulthandler
import random
import struct
import sys
import time
import tracemalloc
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from protocols.errors import ProtocolError
from protocols.homomorphic.messages import (
    DecryptedSums,
    EncryptedInput,
    EncryptedSum,
    RoundKey,
    SumSignature,
)
from protocols.homomorphic.parties.decryptor import Charge
from protocols.homomorphic.receipts import CommittedInputs, FixedInputs, InputReceipt
from protocols.homomorphic.scheme import polynomials
from protocols.homomorphic.scheme.parameters import BFV_2X20
from protocols.homomorphic.screening.at_verifier import NOTHING_YET, Reference
from protocols.homomorphic.screening.messages import (
    EvaluationKeys,
    ScreeningCopy,
    ScreeningNumbers,
    ScreeningResult,
)
from protocols.homomorphic.screening.screening import MODULI, SLOTS, Screening
from protocols.homomorphic.services.messages import (
    Answer,
    DecryptRequest,
    Refusal,
    SessionRequest,
    Setup,
    StoredSums,
)
from protocols.homomorphic.terms import Services
from protocols.identity.certificates import read_authority, read_certificate
from protocols.identity.revocations import read_revocations
from protocols.identity.roster import Roster
from protocols.identity.trust import ThrowawayAuthority
from protocols.masking.messages import (
    KeyAdvertisement,
    KeyDirectory,
    MaskedInput,
    RevealedShares,
    SealedShares,
    SegmentShares,
    ShareBundle,
    ShareDelivery,
    SignedSurvivors,
    SurvivorList,
    SurvivorSignatures,
)
from protocols.plain import PlainInput
from protocols.primitives.secret import Secret
from protocols.primitives.signing import SigningKey
from protocols.ring import RING_BITS, RingVector
from protocols.session import Segment, Session
from protocols.wire import MAGIC, VERSION, MessageType
from rbla_secure.errors import RblaSecureError
from rbla_secure.federation.messages import StageRefusal, StageReply, StageRequest, decode_answer
from rbla_secure.lora.adapter import Adapter, AdapterLayout, LinearShape

MOST_SECONDS = 1.0
MOST_MEMORY = 64 * 2**20
HANGS_AFTER = 60  # seconds of wall time for a thousand inputs
LONGEST = 2**16
NAMED = (ProtocolError, RblaSecureError)
NOW = 1_800_000_000
# Compared as whole bytes: there is nothing to decode.
HEADER_ONLY = {MessageType.SERVICE_HELLO, MessageType.SERVICE_SCREENING}
EXTREMES = (0, 1, 2, 3, 16, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1)


@dataclass(frozen=True, kw_only=True)
class Target:
    """One decoder, and valid messages for it."""

    name: str
    decode: Callable[[bytes], object]
    samples: tuple[bytes, ...]
    encode: Callable[[object], bytes]


@dataclass(kw_only=True)
class Report:
    """What a run of the fuzzer saw."""

    inputs: int = 0
    decoded: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    slowest: tuple[float, str] = (0.0, "")
    peak_bytes: int = 0

    @property
    def clean(self) -> bool:
        """Whether nothing went wrong."""
        return not self.failures and self.slowest[0] <= MOST_SECONDS and self.peak_bytes <= MOST_MEMORY


def fuzz(inputs: int, *, seed: int = 0) -> Report:
    """Feed so many inputs to the decoders, in turns."""
    source = random.Random(seed)  # noqa: S311  # the same inputs for the same seed
    targets, report = make_targets(source.randbytes), Report()
    everything = [sample for target in targets for sample in target.samples]
    for target in targets:
        for sample in target.samples:
            assert target.encode(target.decode(sample)) == sample, f"{target.name}: a sample is not valid"
    tracemalloc.start()
    floor, _ = tracemalloc.get_traced_memory()
    with warnings.catch_warnings():
        # The library warns of odd fields in certificates, which we then refuse.
        warnings.simplefilter("ignore", UserWarning)
        for number in range(inputs):
            if number % 1000 == 0:
                faulthandler.dump_traceback_later(HANGS_AFTER, exit=True)
            target = targets[number % len(targets)]
            _try(report, target, make_input(source, target, everything))
    faulthandler.cancel_dump_traceback_later()
    report.peak_bytes = tracemalloc.get_traced_memory()[1] - floor
    tracemalloc.stop()
    return report


def _try(report: Report, target: Target, data: bytes) -> None:
    report.inputs += 1
    began = time.thread_time()
    try:
        message = target.decode(data)
    except NAMED as error:
        report.errors[type(error).__name__] += 1
    except Exception as error:  # noqa: BLE001  # whatever else it is, it is what we look for
        report.failures.append(f"{target.name}: {type(error).__name__}: {error}: {data[:200].hex()}")
    else:
        report.decoded += 1
        if target.encode(message) != data:
            report.failures.append(f"{target.name}: decodes and encodes to other bytes: {data[:200].hex()}")
    report.slowest = max(report.slowest, (time.thread_time() - began, f"{target.name}, {len(data)} bytes"))


def make_input(source: random.Random, target: Target, everything: list[bytes]) -> bytes:
    """One input for a decoder."""
    kind = source.random()
    if kind < 0.1:
        return source.randbytes(source.randrange(200))
    if kind < 0.2:  # a valid beginning, then noise
        return source.choice(target.samples)[: source.choice((4, 36, 38))] + source.randbytes(
            source.randrange(200)
        )
    if kind < 0.25:
        return source.choice(everything)
    data = bytearray(source.choice(target.samples))
    for _ in range(source.choice((1, 1, 1, 2, 3, 8))):
        source.choice(MUTATIONS)(source, data)
    if kind > 0.95:
        other = source.choice(everything)
        data[source.randrange(len(data) + 1) :] = other[source.randrange(len(other) + 1) :]
    return bytes(data[:LONGEST])


def _flip(source: random.Random, data: bytearray) -> None:
    if data:
        data[source.randrange(len(data))] ^= 1 << source.randrange(8)


def _number(source: random.Random, data: bytearray) -> None:
    """An extreme number, or one off by little, where a length may stand."""
    size, form = source.choice(((1, "<B"), (2, "<H"), (4, "<I"), (8, "<Q")))
    if len(data) < size:
        return
    # Half of the time near the beginning, where counts stand.
    at = source.randrange(min(len(data), source.choice((64, len(data)))) - size + 1) if len(data) > 64 else 0
    (old,) = struct.unpack_from(form, data, at)
    new = source.choice((source.choice(EXTREMES), old + 1, old - 1, old * 2)) % 256**size
    struct.pack_into(form, data, at, new)


def _cut(source: random.Random, data: bytearray) -> None:
    del data[source.randrange(len(data) + 1) :]


def _grow(source: random.Random, data: bytearray) -> None:
    data += source.randbytes(source.choice((1, 2, 32, 64, 100)))


def _drop(source: random.Random, data: bytearray) -> None:
    at = source.randrange(len(data) + 1)
    del data[at : at + source.choice((1, 2, 4, 16, 32, 33, 64))]


def _repeat(source: random.Random, data: bytearray) -> None:
    at, to = source.randrange(len(data) + 1), source.randrange(len(data) + 1)
    data[to:to] = data[at : at + source.choice((1, 2, 4, 16, 32, 33, 64, 500))]


def _overwrite(source: random.Random, data: bytearray) -> None:
    at = source.randrange(len(data) + 1)
    size = len(data[at : at + source.choice((1, 2, 4, 32))])
    data[at : at + size] = source.choice((bytes(size), b"\xff" * size, source.randbytes(size)))


MUTATIONS = (_flip, _number, _number, _cut, _grow, _drop, _repeat, _overwrite)


# --- valid messages ---


def make_targets(draw: Callable[[int], bytes]) -> tuple[Target, ...]:
    """Every decoder of bytes that another party sent."""
    return (
        *(_target(kind.__name__, kind.from_bytes, *messages) for kind, messages in _messages(draw).items()),
        _target("ShareBundle", lambda data: ShareBundle.from_bytes(Secret(data)), *_bundles(draw)),
        _target("decode_answer", decode_answer, *_answers(draw)),
        *_certified(draw),
        *_encrypted(draw),
        _adapter(draw),
    )


def _target(name: str, decode: Callable[[bytes], object], *messages: object) -> Target:
    samples = tuple(_encode(message) for message in messages)
    return Target(name=name, decode=decode, samples=samples, encode=_encode)


def _encode(message: object) -> bytes:
    return bytes(message.to_bytes())  # type: ignore[attr-defined]  # all messages have it


def _messages(draw: Callable[[int], bytes]) -> dict[type, list[object]]:
    context, signature = draw(32), draw(64)
    short, long = _session(3, draw), _session(150, draw)
    advertisements = [_advertisement(sender, context, draw) for sender in (1, 2, 9, 300)]
    shares = {(peer, index): Secret(draw(33)) for peer in (1, 2, 7) for index in (0, 3)}
    blobs = {peer: draw(97) for peer in (1, 5, 6)}
    signatures = {peer: draw(64) for peer in (1, 2, 3)}
    return {
        Session: [short, long],
        StageRequest: [
            StageRequest(session=short.to_bytes(), payload=draw(50), adapter=draw(16)),
            StageRequest(session=long.to_bytes(), payload=b""),
        ],
        KeyAdvertisement: [advertisements[0], replace(advertisements[1], signature=b"")],
        KeyDirectory: [
            KeyDirectory(
                context=context,
                nonces={a.sender: a.nonce for a in advertisements},
                advertisements=tuple(advertisements),
            ),
            KeyDirectory(context=context, nonces={}, advertisements=()),
        ],
        SealedShares: [
            SealedShares(context=context, sender=4, sealed=blobs, commitments=dict.fromkeys(blobs, draw(32)))
        ],
        ShareDelivery: [
            ShareDelivery(
                context=context,
                recipient=2,
                participants=(1, 2, 5, 6),
                sealed=blobs,
                digests={place: draw(32) for place in blobs},
            ),
        ],
        MaskedInput: [
            MaskedInput(
                context=context,
                sender=3,
                segments={0: _vector(5, bits, draw), 2: _vector(40, bits, draw)},
                ring_bits=bits,
                disputed=(1, 5) if bits > 16 else (),
                view_signature=signature if bits > 20 else b"",
            )
            for bits in RING_BITS
        ],
        PlainInput: [
            PlainInput(
                context=context,
                sender=3,
                segments={0: _vector(5, bits, draw), 2: _vector(40, bits, draw)},
                bindings={0: draw(32), 2: draw(32)},
                ring_bits=bits,
            )
            for bits in RING_BITS
        ],
        SurvivorList: [
            SurvivorList(context=context, survivors=(1, 2, 3), dropped=(4, 9), view_signatures=signatures),
            SurvivorList(context=context, survivors=(1, 2), dropped=()),
        ],
        SignedSurvivors: [SignedSurvivors(context=context, sender=1, signature=signature)],
        SurvivorSignatures: [SurvivorSignatures(context=context, signatures=signatures)],
        RevealedShares: [
            RevealedShares(context=context, sender=1, mask_key_shares=shares, self_mask_shares=shares),
            RevealedShares(
                context=context,
                sender=1,
                mask_key_shares={},
                self_mask_shares=shares,
                extra_shares={(*key, number): share for key, share in shares.items() for number in range(2)},
            ),
        ],
    }


def _session(count: int, draw: Callable[[int], bytes]) -> Session:
    members = tuple(f"client-{number:03d}" for number in range(count))
    segments = (
        Segment(index=0, length=1000, members=members, quorum=2),
        Segment(index=1, length=10, members=members[1:], quorum=1, holders=members[2:], extra_secrets=2),
    )
    return Session(
        run=draw(16),
        round=1,
        attempt=2,
        members=members,
        threshold=count // 2 + 1,
        input_bound=100,
        segments=segments,
        config_digest=draw(32),
        ring_bits=24,
    )


def _advertisement(sender: int, context: bytes, draw: Callable[[int], bytes]) -> KeyAdvertisement:
    return KeyAdvertisement(
        context=context,
        sender=sender,
        mask_keys={0: draw(32), 3: draw(32)},
        sealing_key=draw(32),
        nonce=draw(16),
        commitments={0: (draw(16),), 3: (draw(16), draw(16))},
        signature=draw(64),
    )


def _vector(length: int, bits: int, draw: Callable[[int], bytes]) -> RingVector:
    return np.frombuffer(draw(4 * length), dtype="<u4") >> np.uint32(32 - bits)


def _bundles(draw: Callable[[int], bytes]) -> Iterator[ShareBundle]:
    for extra in (0, 3):
        shares = SegmentShares(
            mask_key=Secret(draw(33)),
            self_mask=Secret(draw(33)),
            extra=tuple(Secret(draw(33)) for _ in range(extra)),
        )
        yield ShareBundle(segments=dict.fromkeys((0, 5), shares))


def _answers(draw: Callable[[int], bytes]) -> Iterator[StageReply | StageRefusal]:
    yield StageReply(payload=draw(80))
    yield StageRefusal(error="RosterError", reason="who is that, a müller?")


def _encrypted(draw: Callable[[int], bytes]) -> Iterator[Target]:
    """The messages of the homomorphic mode; what is inside its ciphertexts is decoded last."""
    context, key_id, signature = draw(32), draw(32), draw(64)
    receipts = [
        InputReceipt(
            context=context,
            sender=sender,
            key_id=key_id,
            binding=draw(32),
            digests={i: draw(32) for i in (0, 2)},
            copy_digest=draw(32),
            signature=draw(64),
        )
        for sender in (1, 4)
    ]
    committed = CommittedInputs(context=context, key_id=key_id, receipts=tuple(receipts))
    fixed = replace(committed.listed(), decryptor=signature)
    key = RoundKey(context=context, key=draw(200), screening_key=draw(90), signature=signature)
    encrypted = EncryptedSum(
        context=context,
        key_id=key_id,
        inputs_digest=draw(32),
        contributors=(1, 4),
        ciphertexts={0: draw(100), 3: draw(9)},
    )
    services = {name: SigningKey(Secret(draw(32))).public for name in ("decryptor", "verifier")}
    trust = ThrowawayAuthority.create({"anna": 8}, now=NOW, services=services, random_bytes=draw).view
    charges = [
        Charge(
            profile=BFV_2X20,
            services=Services(verifier=verifier),
            config_digests=frozenset({context, key_id}),
            least_quorum=3,
            screening=screening,
        )
        for verifier, screening in (("", None), ("verifier", Screening(max_norm=2.0, ignored_tail=2)))
    ]
    yield _target("RoundKey", RoundKey.from_bytes, key)
    yield _target("InputReceipt", InputReceipt.from_bytes, *receipts)
    yield _target("CommittedInputs", CommittedInputs.from_bytes, committed)
    yield _target("FixedInputs", FixedInputs.from_bytes, fixed, replace(fixed, verifier=draw(64)))
    yield _target(
        "EncryptedInput",
        EncryptedInput.from_bytes,
        EncryptedInput(receipt=receipts[0], ciphertexts={0: draw(50), 2: draw(7)}, copy=draw(30)),
        EncryptedInput(receipt=receipts[1], ciphertexts={}),
    )
    yield _target("EncryptedSum", EncryptedSum.from_bytes, encrypted)
    yield _target(
        "SumSignature",
        SumSignature.from_bytes,
        SumSignature(signature=signature),
        SumSignature(signature=b""),
    )
    sums = {0: _vector(9, 32, draw), 1: _vector(3, 32, draw)}
    yield _target(
        "DecryptedSums",
        DecryptedSums.from_bytes,
        DecryptedSums(context=context, sum_digest=key_id, sums=sums, signature=signature),
    )
    yield _target(
        "EvaluationKeys",
        EvaluationKeys.from_bytes,
        EvaluationKeys(context=context, keys=draw(99), signature=signature),
    )
    direction = np.frombuffer(draw(SLOTS), dtype="i1").astype(np.float64).reshape(1, SLOTS)
    yield _target(
        "ScreeningCopy",
        ScreeningCopy.from_bytes,
        ScreeningCopy(context=context, copy=draw(40), direction=None),
        ScreeningCopy(context=context, copy=draw(40), direction=direction),
    )
    yield _target(
        "ScreeningNumbers",
        ScreeningNumbers.from_bytes,
        ScreeningNumbers(
            context=context,
            sender=3,
            copy_digest=key_id,
            reference=draw(32),
            squared_norm=draw(20),
            projection=draw(20),
        ),
        ScreeningNumbers(context=context, squared_norm=draw(20), projection=b"", signature=signature),
    )
    yield _target(
        "ScreeningResult",
        ScreeningResult.from_bytes,
        ScreeningResult(reason="too long", norm=7, cosine=-12),
        ScreeningResult(reason=""),
    )
    yield _target("Answer", Answer.from_bytes, Answer(payload=draw(30)), Answer(payload=b""))
    yield _target("Refusal", Refusal.from_bytes, Refusal(error="KeyUseError", reason="müller"))
    directions = [
        NOTHING_YET,
        Reference(digest=bytes(range(32)), means={0: np.linspace(-1.0, 1.0, 5), 2: np.zeros(3)}),
    ]
    yield _target("Reference", Reference.from_bytes, *directions)
    yield _target("Setup", Setup.from_bytes, *(Setup(charge=charge, trust=trust) for charge in charges))
    yield _target(
        "SessionRequest",
        SessionRequest.from_bytes,
        SessionRequest(session=_session(3, draw), key=key),
        SessionRequest(session=_session(3, draw), profile="bfv-2x20"),
    )
    yield _target(
        "DecryptRequest",
        DecryptRequest.from_bytes,
        DecryptRequest(encrypted=encrypted, verified=SumSignature(signature=signature)),
    )
    yield _target(
        "StoredSums",
        StoredSums.from_bytes,
        StoredSums(context=context, ciphertexts={0: draw(70), 9: draw(5)}),
        StoredSums(context=context, ciphertexts={}, last=True),
    )
    yield Target(
        name="polynomials.decode",
        decode=lambda data: polynomials.decode(data, count=2, moduli=MODULI[:2], degree=8),
        samples=(draw(2 * 2 * 8 * 100 // 8 - 4 * 8 // 8) + bytes(4 * 8 // 8),),
        encode=lambda found: polynomials.encode(found, MODULI[:2]),  # type: ignore[arg-type]
    )


def _certified(draw: Callable[[int], bytes]) -> Iterator[Target]:
    """What the authority signs; the readers of certificates keep the bytes that they have read."""
    authority = ThrowawayAuthority.create({"anna": 8, "bert": 16}, now=NOW, random_bytes=draw)
    public = authority.key.public
    yield _target("Roster", Roster.from_bytes, authority.view.roster)
    own = [identity.certificate.der for identity in authority.identities.values()]
    for name, decode, samples in (
        ("read_certificate", lambda der: read_certificate(der, public), own),
        ("read_revocations", lambda der: read_revocations(der, public), [authority.view.revocations.der]),
        ("read_authority", read_authority, [authority.certificate.der]),
    ):
        yield Target(name=name, decode=decode, samples=tuple(samples), encode=lambda found: found.der)


def _adapter(draw: Callable[[int], bytes]) -> Target:
    layout = AdapterLayout(layers=(LinearShape(name="layer", in_features=4, out_features=3),), scaling=2.0)
    rows = np.frombuffer(draw(2 * 4 * layout.row_length), dtype="<u1").reshape(2, -1)[:, : layout.row_length]
    adapter = Adapter(layout=layout, rows=rows.astype(np.float32))
    return _target("Adapter", lambda data: Adapter.from_bytes(layout, data), adapter)


def missing_types(targets: tuple[Target, ...]) -> set[MessageType]:
    """The registered message types of which there is no valid sample."""
    header = len(MAGIC) + 1
    begins = MAGIC + bytes((VERSION,))
    seen = {sample[header] for target in targets for sample in target.samples if sample.startswith(begins)}
    return set(MessageType) - seen - HEADER_ONLY


def main() -> None:
    """Fuzz, print, judge."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    began = time.perf_counter()
    report = fuzz(options.inputs, seed=options.seed)
    print(
        f"{report.inputs:,} inputs in {time.perf_counter() - began:.0f} s, {report.decoded:,} of them valid"
    )
    for name, count in report.errors.most_common():
        print(f"  {name}: {count:,}")
    print(f"slowest input: {report.slowest[0] * 1e3:.1f} ms of processor time ({report.slowest[1]})")
    print(f"peak memory: {report.peak_bytes / 1e6:.1f} MB over that of the samples")
    for failure in report.failures[:20]:
        print(f"FAILED {failure}")
    sys.exit(0 if report.clean else f"{len(report.failures)} failures, or too slow, or too much memory")


if __name__ == "__main__":
    main()
