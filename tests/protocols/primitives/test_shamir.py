"""Shamir sharing: any t shares give the secret, fewer fit every secret, and malformed shares are refused.

`PYTHONPATH=. python tests/protocols/primitives/test_shamir.py` writes the vectors anew.
"""

import hashlib
import itertools
import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols import errors
from protocols.primitives.secret import Secret
from protocols.primitives.shamir import FIELD, SECRET_SIZE, SHARE_SIZE, Recovery, split
from tests.contracts.sessions import PROPERTY

VECTORS = Path(__file__).parents[2] / "vectors"
PRIME = 2**257 - 93
SECRET = Secret(bytes(range(100, 132)))
SECRETS = st.binary(min_size=32, max_size=32)


def evaluate(secret: bytes, noise: bytes, x: int) -> int:
    """The polynomial by the sum of its powers: 49 bytes per coefficient, highest power first, the secret at 0."""
    coefficients = [int(noise[at : at + 49].hex(), 16) for at in range(0, len(noise), 49)]
    powers = range(len(coefficients), 0, -1)
    terms = [c * pow(x, power, PRIME) for c, power in zip(coefficients, powers, strict=True)]
    return (int.from_bytes(secret, "big") + sum(terms)) % PRIME


def interpolate(points: Mapping[int, int], at: int) -> int:
    """The value at one place of the polynomial of least degree through some points."""
    total = 0
    for x, y in points.items():
        for other in points:
            if other != x:
                y = y * (at - other) * pow(x - other, PRIME - 2, PRIME) % PRIME  # noqa: PLW2901 - a product
        total += y
    return total % PRIME


def is_prime(number: int) -> bool:
    """Miller-Rabin to the first forty prime bases."""
    bases = [b for b in range(2, 174) if all(b % d for d in range(2, b))]
    if number in bases or any(number % base == 0 for base in bases):
        return number in bases
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in bases:
        value = pow(base, odd, number)
        if value != 1 and number - 1 not in [pow(value, 2**power, number) for power in range(twos)]:
            return False
    return True


def test_the_field_is_the_largest_prime_below_2_to_the_257() -> None:
    """FIELD is 2^257 - 93, prime, with no prime between it and 2^257, and holds every 32-byte string."""
    larger = range(FIELD + 1, 2**257)

    assert FIELD == PRIME
    assert is_prime(FIELD)
    assert not any(map(is_prime, larger))
    assert FIELD > 2 ** (8 * SECRET_SIZE)
    assert (FIELD.bit_length() + 7) // 8 == SHARE_SIZE


@PROPERTY
@given(data=st.data(), secret=SECRETS, count=st.integers(1, 8))
def test_any_t_shares_give_the_secret(data: st.DataObject, secret: bytes, count: int) -> None:
    """Every choice of t out of n shares combines to the secret, in any order."""
    threshold = data.draw(st.integers(1, count))
    abscissas = data.draw(
        st.permutations(
            data.draw(st.lists(st.integers(1, 65535), unique=True, min_size=count, max_size=count))
        )
    )

    shares = split(Secret(secret), threshold=threshold, abscissas=abscissas)

    assert set(shares) == set(abscissas)
    for chosen in itertools.combinations(abscissas, threshold):
        assert Recovery.over(chosen).combine(shares) == secret


@PROPERTY
@given(secret=SECRETS, other=SECRETS, threshold=st.integers(2, 6), noise=st.randoms(use_true_random=False))
def test_fewer_than_t_shares_fit_every_secret(
    secret: bytes, other: bytes, threshold: int, noise: random.Random
) -> None:
    """To t - 1 shares and any other secret there is a further share with which they combine to that secret."""
    known = range(1, threshold)
    shares = split(Secret(secret), threshold=threshold, abscissas=range(1, 10), random_bytes=noise.randbytes)
    points = {0: int.from_bytes(other, "big"), **{x: int.from_bytes(shares[x], "big") for x in known}}

    forged = interpolate(points, at=9).to_bytes(SHARE_SIZE, "big")
    recovered = Recovery.over([*known, 9]).combine({**{x: shares[x] for x in known}, 9: forged})

    assert recovered == other


def test_a_single_share_is_spread_over_the_field() -> None:
    """Below the threshold the same secret gives shares without bias: their top bit is set about half the time."""
    tops = [bytes(split(SECRET, threshold=2, abscissas=[1, 2])[1])[0] for _ in range(2000)]

    assert set(tops) == {0, 1}
    assert 800 < sum(tops) < 1200  # nine standard deviations


@PROPERTY
@given(secret=SECRETS, threshold=st.integers(1, 6), noise=st.binary(min_size=5 * 49, max_size=5 * 49))
def test_shares_are_the_values_of_the_polynomial(secret: bytes, threshold: int, noise: bytes) -> None:
    """From fixed random bytes the shares are those of an independent evaluation."""
    abscissas = [1, 2, 3, 77, 1000, 65535]

    shares = split(
        Secret(secret), threshold=threshold, abscissas=abscissas, random_bytes=lambda size: noise[:size]
    )

    used = noise[: 49 * (threshold - 1)]
    assert {x: bytes(s) for x, s in shares.items()} == {
        x: evaluate(secret, used, x).to_bytes(33, "big") for x in abscissas
    }
    assert all(isinstance(s, Secret) for s in shares.values())


def test_the_random_source_is_asked_once() -> None:
    """Splitting draws (t - 1) * 49 bytes in one call."""
    asked = []

    def source(size: int) -> bytes:
        asked.append(size)
        return bytes(size)

    shares = split(SECRET, threshold=4, abscissas=range(1, 6), random_bytes=source)

    assert asked == [3 * 49]
    assert {int.from_bytes(share, "big") for share in shares.values()} == {int.from_bytes(SECRET, "big")}


@pytest.mark.parametrize("size", [0, 1, 16, 31, 33, 64])
def test_secrets_of_another_size_are_refused(size: int) -> None:
    """Only 32-byte secrets are shared."""
    with pytest.raises(errors.ShareError):
        split(Secret(bytes(size)), threshold=1, abscissas=[1])


@pytest.mark.parametrize(("threshold", "count"), [(0, 3), (-1, 3), (4, 3), (1, 0)])
def test_thresholds_outside_the_shares_are_refused(threshold: int, count: int) -> None:
    """A threshold below one or above the number of shares raises ShareError."""
    with pytest.raises(errors.ShareError):
        split(SECRET, threshold=threshold, abscissas=range(1, count + 1))


@pytest.mark.parametrize("abscissas", [[0, 1, 2], [1, 1, 2], [1, 2, PRIME], [1, 2, -1], [1, 2, PRIME + 1]])
def test_bad_abscissas_are_refused(abscissas: list[int]) -> None:
    """Zero would give the secret away, and equal or equivalent abscissas cannot be combined: both raise ShareError."""
    with pytest.raises(errors.ShareError):
        split(SECRET, threshold=2, abscissas=abscissas)
    with pytest.raises(errors.ShareError):
        Recovery.over(abscissas)


@pytest.mark.parametrize("holder", [1, 2, 3])
@pytest.mark.parametrize(
    "share",
    [
        None,
        b"",
        bytes(32),
        bytes(34),
        b"\xff" * 33,
        PRIME.to_bytes(33, "big"),
        (PRIME + 1).to_bytes(33, "big"),
    ],
)
def test_malformed_shares_are_refused(holder: int, share: bytes | None) -> None:
    """A share that is missing, of the wrong size or no element of the field raises ShareError."""
    shares: dict[int, bytes] = dict(split(SECRET, threshold=3, abscissas=[1, 2, 3]))
    del shares[holder]
    if share is not None:
        shares[holder] = share
    recovery = Recovery.over([1, 2, 3])

    with pytest.raises(errors.ShareError):
        recovery.combine(shares)


@pytest.mark.parametrize("value", [2**256, 2**256 + 1, PRIME - 1])
def test_values_beyond_32_bytes_are_no_secret(value: int) -> None:
    """Shares that combine to something longer than 32 bytes raise ShareError."""
    shares = {x: ((value + 5 * x) % PRIME).to_bytes(33, "big") for x in (1, 2)}
    recovery = Recovery.over([1, 2])

    with pytest.raises(errors.ShareError):
        recovery.combine(shares)


def test_a_share_error_shows_no_share() -> None:
    """What is raised for shares that do not combine contains none of them."""
    shares = {x: ((2**256 + x * 12345678901234567890) % PRIME).to_bytes(33, "big") for x in (1, 2)}
    recovery = Recovery.over([1, 2])

    with pytest.raises(errors.ShareError) as caught:
        recovery.combine(shares)

    for share in shares.values():
        assert bytes(share).hex() not in str(caught.value)
        assert str(int.from_bytes(share, "big")) not in str(caught.value)


def load(name: str) -> list[dict[str, Any]]:
    """The cases of one vector file."""
    return json.loads((VECTORS / name).read_text())["cases"]


@pytest.mark.parametrize(
    "case", load("shamir.json"), ids=lambda case: f"{case['threshold']}-of-{len(case['shares'])}"
)
def test_recorded_splits_come_out(case: dict[str, Any]) -> None:
    """Splitting from the recorded random bytes gives the recorded shares, and the last t of them the secret."""
    noise = bytes.fromhex(case["random"])
    abscissas = [int(x) for x in case["shares"]]

    shares = split(
        Secret(bytes.fromhex(case["secret"])),
        threshold=case["threshold"],
        abscissas=abscissas,
        random_bytes=lambda size: noise[:size],
    )
    recovered = Recovery.over(abscissas[-case["threshold"] :]).combine(shares)

    assert {str(x): bytes(share).hex() for x, share in shares.items()} == case["shares"]
    assert bytes(recovered).hex() == case["secret"]


@pytest.mark.parametrize("case", load("bad_shamir.json"), ids=lambda case: case["why"])
def test_recorded_bad_shares_are_refused(case: dict[str, Any]) -> None:
    """Each recorded set of bad shares raises the recorded error."""
    shares = {int(x): bytes.fromhex(share) for x, share in case["shares"].items()}

    with pytest.raises(getattr(errors, case["error"])):
        Recovery.over(case["holders"]).combine(shares)


def generate() -> None:
    """Write both vector files from the independent evaluation above."""
    cases = []
    for threshold, abscissas in [
        (1, [1, 2]),
        (2, [1, 2, 3]),
        (3, [1, 2, 4, 8]),
        (5, [1, 2, 3, 4, 5, 300, 65535]),
    ]:
        seed = f"shamir vector {threshold}".encode()
        secret = hashlib.sha256(seed).digest()
        noise = hashlib.shake_256(seed).digest(49 * (threshold - 1))
        shares = {str(x): f"{evaluate(secret, noise, x):066x}" for x in abscissas}
        cases.append(
            {"threshold": threshold, "secret": bytes(secret).hex(), "random": noise.hex(), "shares": shares}
        )

    # The twins: the second case, two of three, spoilt in one place each.
    good = cases[1]["shares"]
    sum_of_shares = int(good["1"], 16) * 2 - int(good["2"], 16)  # at 0: the secret
    off = f"{(int(good['2'], 16) + sum_of_shares - 2**256) % PRIME:066x}"  # moves the value at 0 to 2^256
    bad = [
        {"why": "a share is missing", "holders": [1, 2], "shares": {"1": good["1"]}},
        {"why": "a share is one byte short", "holders": [1, 2], "shares": {**good, "2": good["2"][:-2]}},
        {"why": "a share is one byte long", "holders": [1, 2], "shares": {**good, "2": good["2"] + "00"}},
        {"why": "a share is the field's size", "holders": [1, 2], "shares": {**good, "2": f"{PRIME:066x}"}},
        {"why": "a share has all bits set", "holders": [1, 2], "shares": {**good, "2": "ff" * 33}},
        {"why": "a holder stands twice", "holders": [1, 1], "shares": good},
        {"why": "a holder has abscissa zero", "holders": [0, 1], "shares": {**good, "0": "00" * 33}},
        {"why": "the value at zero needs 257 bits", "holders": [1, 2], "shares": {**good, "2": off}},
    ]
    how = "python tests/protocols/primitives/test_shamir.py, see `generate` there; share = sum of powers mod 2^257 - 93"
    for name, content in (
        ("shamir.json", cases),
        ("bad_shamir.json", [{**b, "error": "ShareError"} for b in bad]),
    ):
        (VECTORS / name).write_text(json.dumps({"made_by": how, "cases": content}, indent=2) + "\n")


if __name__ == "__main__":
    generate()
