"""Known answers of every primitive, through our own wrappers, with their bad twins; each file says where it comes from."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from protocols import errors
from protocols.primitives import agreement, kdf, prg, sealed, signing
from protocols.primitives.secret import Secret

VECTORS = Path(__file__).parents[2] / "vectors"


def cases(name: str) -> list[dict[str, Any]]:
    """The cases of one file."""
    return list(json.loads((VECTORS / f"{name}.json").read_text(encoding="utf-8"))["cases"])


def error(name: str) -> type[Exception]:
    """The error that every case of a bad file must end in."""
    return getattr(errors, json.loads((VECTORS / f"{name}.json").read_text(encoding="utf-8"))["error"])


def secret(text: str) -> Secret:
    """A secret from its hexadecimal form."""
    return Secret(bytes.fromhex(text))


@pytest.mark.parametrize("case", cases("x25519"))
def test_x25519_agrees_as_published(case: dict[str, Any]) -> None:
    """A private and a public key give the published shared secret."""
    shared = agreement.PrivateKey(secret(case["private"])).agree(bytes.fromhex(case["public"]))

    assert bytes(shared).hex() == case["shared"]


@pytest.mark.parametrize("case", cases("bad_x25519"))
def test_x25519_refuses_keys_with_which_nobody_could_agree(case: dict[str, Any]) -> None:
    """Points of small order, wrong sizes and second encodings end in the named error."""
    with pytest.raises(error("bad_x25519")):
        agreement.PrivateKey(Secret(bytes(range(32)))).agree(bytes.fromhex(case["public"]))


@pytest.mark.parametrize("case", cases("ed25519"))
def test_ed25519_signs_as_published(case: dict[str, Any]) -> None:
    """Key, message and signature belong together, in both directions."""
    key = signing.SigningKey(secret(case["private"]))
    message = bytes.fromhex(case["message"])

    assert key.public.hex() == case["public"]
    assert key.sign(message).hex() == case["signature"]
    signing.verify(key.public, bytes.fromhex(case["signature"]), message)


@pytest.mark.parametrize("case", cases("bad_ed25519"))
def test_ed25519_refuses_what_does_not_belong_together(case: dict[str, Any]) -> None:
    """Another message, signature or key, a small-order key and wrong sizes end in the named error."""
    with pytest.raises(error("bad_ed25519")):
        signing.verify(*(bytes.fromhex(case[part]) for part in ("public", "signature", "message")))


@pytest.mark.parametrize("case", cases("hkdf"))
def test_hkdf_derives_as_published(case: dict[str, Any]) -> None:
    """Key material and info give the published key."""
    key = kdf.hkdf(secret(case["secret"]), info=bytes.fromhex(case["info"]), size=case["size"])

    assert bytes(key).hex() == case["key"]


@pytest.mark.parametrize("case", cases("aes_ctr"))
def test_aes_ctr_streams_as_published(case: dict[str, Any]) -> None:
    """Added to zeros, a key's stream is the block cipher of the counters from zero."""
    target = np.zeros(len(case["stream"]) // 8, dtype=np.uint32)

    prg.apply_streams(target, add=[secret(case["key"])])

    assert target.astype("<u4").tobytes().hex() == case["stream"]


@pytest.mark.parametrize("case", cases("aes_gcm"))
def test_aes_gcm_seals_as_published(case: dict[str, Any]) -> None:
    """Key, nonce, context and plaintext give the published ciphertext and tag, and open again."""
    nonce, context = bytes.fromhex(case["nonce"]), bytes.fromhex(case["context"])

    found = sealed.seal(
        secret(case["key"]), secret(case["plaintext"]), context=context, random_bytes=lambda _size: nonce
    )

    assert found.hex() == case["nonce"] + case["sealed"]
    assert sealed.open_sealed(secret(case["key"]), found, context=context) == bytes.fromhex(case["plaintext"])


@pytest.mark.parametrize("case", cases("bad_aes_gcm"))
def test_aes_gcm_refuses_what_was_spoilt(case: dict[str, Any]) -> None:
    """Another tag, nonce, context, key or length ends in the named error."""
    with pytest.raises(error("bad_aes_gcm")):
        sealed.open_sealed(
            secret(case["key"]), bytes.fromhex(case["sealed"]), context=bytes.fromhex(case["context"])
        )
