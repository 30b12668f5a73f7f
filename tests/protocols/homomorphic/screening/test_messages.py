"""Fields that only the messages of screening have are held to one form."""

import struct

import numpy as np
import pytest

from protocols.errors import WireError
from protocols.homomorphic.screening.messages import EvaluationKeys, ScreeningCopy, ScreeningResult
from protocols.homomorphic.screening.screening import FORM_SIZE, SLOTS, Screening
from protocols.homomorphic.services.messages import Setup
from protocols.wire import MessageType, Writer

CONTEXT = bytes(range(32))


def copy_of(rows: bytes) -> bytes:
    """A copy that is held against some bytes."""
    return (
        Writer(MessageType.SCREENING_COPY).fixed(CONTEXT, 32).unsigned(3, 2).blob(b"copy").blob(rows).done()
    )


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_direction_is_whole_rows_of_float64(count: int) -> None:
    """Row after row, little-endian; no row is no direction."""
    rows = np.linspace(-1.0, 1.0, count * SLOTS).reshape(count, SLOTS)
    message = ScreeningCopy(context=CONTEXT, sender=3, copy=b"copy", direction=rows if count else None)

    data = message.to_bytes()

    assert data == copy_of(struct.pack(f"<{count * SLOTS}d", *rows.ravel()))
    found = ScreeningCopy.from_bytes(data).direction
    assert (found is None) == (count == 0)
    assert found is None or np.array_equal(found, rows)


@pytest.mark.parametrize("size", [1, 8, 8 * SLOTS - 8, 8 * SLOTS + 1])
def test_a_direction_of_part_of_a_row_is_refused(size: int) -> None:
    """A partial row would have its sum in some slots and not in all."""
    with pytest.raises(WireError, match=f"screening_copy: {size} bytes of a direction must be whole rows"):
        ScreeningCopy.from_bytes(copy_of(bytes(size)))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_a_direction_that_is_no_number_is_refused(number: float) -> None:
    """One value among all is enough."""
    rows = np.zeros(SLOTS)
    rows[-1] = number

    with pytest.raises(WireError, match="screening_copy: the direction must be finite"):
        ScreeningCopy.from_bytes(copy_of(rows.astype("<f8").tobytes()))


@pytest.mark.parametrize(
    ("value", "data"), [(None, b""), (-2, b"\xfe" + b"\xff" * 7), (7, b"\x07" + bytes(7))]
)
def test_a_value_is_eight_signed_bytes_or_none(value: int | None, data: bytes) -> None:
    """Thousandths, little-endian, in two's complement."""
    message = ScreeningResult(reason="", norm=value, cosine=None)

    assert message.to_bytes() == Writer(MessageType.SCREENING_RESULT).text("").blob(data).blob(b"").done()
    assert ScreeningResult.from_bytes(message.to_bytes()) == message


@pytest.mark.parametrize("size", [1, 7, 9, 16])
def test_a_value_of_another_size_is_refused(size: int) -> None:
    """A shorter or longer integer would be a second encoding of the same number."""
    for values in ((bytes(size), b""), (b"", bytes(size))):
        writer = Writer(MessageType.SCREENING_RESULT).text("")

        with pytest.raises(WireError, match="screening_result: a value has another size"):
            ScreeningResult.from_bytes(writer.blob(values[0]).blob(values[1]).done())


def test_the_signature_of_evaluation_keys_covers_their_digest() -> None:
    """Other keys have another signed part, of the same length."""
    parts = {EvaluationKeys(context=CONTEXT, keys=keys).signed_part() for keys in (b"", b"a", b"b" * 1000)}

    assert len(parts) == 3
    assert {len(part) for part in parts} == {4 + 32 + 32}


@pytest.mark.parametrize("size", [1, FORM_SIZE - 1, FORM_SIZE + 1])
def test_a_rule_of_another_size_is_refused(size: int) -> None:
    """In a setup a rule has its one size or is missing."""
    writer = Writer(MessageType.SERVICE_SETUP).text("bfv-2x20").text("decryptor").text("").unsigned(0, 2)
    for _ in range(4):
        writer.unsigned(1, 2)
    rule = Screening(max_norm=1.0).to_bytes()
    assert len(rule) == FORM_SIZE

    with pytest.raises(
        WireError, match=f"service_setup: a screening rule of {size} bytes must have {FORM_SIZE}"
    ):
        Setup.from_bytes(writer.blob((rule + rule)[:size]).done())
