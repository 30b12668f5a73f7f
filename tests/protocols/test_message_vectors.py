"""One message or two of every type, recorded byte by byte with what each of its fields is.

`PYTHONPATH=. python tests/protocols/test_message_vectors.py` records them anew. Do so only together with a new wire
version, or to add a message: what is recorded is the format.
"""

import hashlib
import json
import random
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from protocols.identity.trust import TrustStore
from protocols.wire import MessageType
from tests.support.fuzzer import FUZZER

FILE = Path(__file__).parents[1] / "vectors" / "messages.json"
HOW = (
    "Written by tests/protocols/test_message_vectors.py (`generate`) from the samples of benchmarks/fuzz_decoders.py. "
    "Bytes are hex; arrays of more than 64 elements are the SHA-256 of their bytes."
)
# Longer samples differ from shorter ones of their type only in how many there are of everything.
MOST_BYTES = 2500
# What is no message of ours: DER, arrays.
FOREIGN = {"read_certificate", "read_revocations", "read_authority", "polynomials.decode", "Adapter"}
DECODERS = {
    target.name: target.decode
    for target in FUZZER.make_targets(random.Random(0).randbytes)  # noqa: S311
}


def described(value: Any) -> Any:
    """What a decoded value is, in terms of JSON."""
    match value:
        case np.ndarray():
            found: Any = value.tolist() if value.size <= 64 else hashlib.sha256(value.tobytes()).hexdigest()
        case Mapping():
            found = [[described(key), described(each)] for key, each in sorted(value.items())]
        case bytes():
            found = bytes(value).hex()
        case Enum():
            found = value.name
        case frozenset():
            found = [described(each) for each in sorted(value)]
        case tuple():
            found = [described(each) for each in value]
        case TrustStore():
            found = described(value.roster)
        case _ if is_dataclass(value):
            found = {each.name: described(getattr(value, each.name)) for each in fields(value)}
        case _:
            assert value is None or isinstance(value, int | float | str), type(value)
            found = value
    return found


def generate() -> None:
    """Record the samples of the fuzzer."""
    records = [
        {
            "decoder": target.name,
            "bytes": sample.hex(),
            "fields": described(target.decode(sample)),
        }
        for target in FUZZER.make_targets(random.Random(0).randbytes)  # noqa: S311  # the same each time
        for sample in target.samples
        if target.name not in FOREIGN and len(sample) <= MOST_BYTES
    ]
    FILE.write_text(json.dumps({"how": HOW, "messages": records}, indent=1) + "\n", encoding="utf-8")


VECTORS = json.loads(FILE.read_text(encoding="utf-8"))["messages"] if FILE.exists() else []


@pytest.mark.parametrize("record", VECTORS, ids=lambda record: record["decoder"])
def test_recorded_bytes_mean_what_they_meant(record: Mapping[str, Any]) -> None:
    """Every field has its recorded value, and the message its recorded bytes."""
    data = bytes.fromhex(record["bytes"])

    message: Any = DECODERS[record["decoder"]](data)

    assert described(message) == record["fields"]
    assert bytes(message.to_bytes()).hex() == record["bytes"]


def test_every_message_type_is_recorded() -> None:
    """A new message cannot be forgotten."""
    recorded = {MessageType(bytes.fromhex(record["bytes"])[3]) for record in VECTORS}

    assert set(MessageType) - recorded == FUZZER.HEADER_ONLY


@pytest.mark.parametrize("record", VECTORS, ids=lambda record: record["decoder"])
def test_a_change_of_any_field_shows(record: Mapping[str, Any]) -> None:
    """The control: a message of which one byte is another has other fields or is refused, so the vectors pin each byte."""
    data = bytearray.fromhex(record["bytes"])
    place = random.Random(len(data)).randrange(len(data))  # noqa: S311

    data[place] ^= 1

    try:
        changed = described(DECODERS[record["decoder"]](bytes(data)))
    except FUZZER.NAMED:
        changed = None
    assert changed != record["fields"]


if __name__ == "__main__":
    generate()
