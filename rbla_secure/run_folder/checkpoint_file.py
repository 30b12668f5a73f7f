"""The file of one checkpoint: the rows of the global adapter, and the run, plan and round to which they belong.

A safetensors file that any reader of the format takes, of one tensor `rows`, shape (rank, row_length), float32 little-endian:
eight bytes with the length of the header, the header in compact JSON padded with spaces to a multiple of eight, the
values. It is built here, as the library writes metadata in a random order: a checkpoint has one valid encoding, so that
its bytes can be compared and not only what one reader makes of them.
"""

import json
from collections.abc import Iterable, Mapping
from itertools import permutations
from pathlib import Path
from typing import Final

import numpy as np
from safetensors import SafetensorError, safe_open

from rbla_secure.errors import AdapterError, RunFolderError
from rbla_secure.lora.adapter import Adapter, AdapterLayout
from rbla_secure.run_folder.audit_log import FILE_NAME
from rbla_secure.run_folder.verify import RESTORE

_LENGTH: Final = 8  # bytes of the header's length, and what the header is padded to a multiple of


def checkpoint_bytes(adapter: Adapter, metadata: Mapping[str, str]) -> bytes:
    """Return the bytes of an adapter's checkpoint file.

    Args:
        adapter: The whole global adapter.
        metadata: Run, plan and round; written in order of name.
    """
    return _encode(adapter, sorted(metadata.items()))


def read_checkpoint(path: Path, layout: AdapterLayout, metadata: Mapping[str, str]) -> Adapter:
    """Read the adapter from a file that holds these metadata and nothing else.

    Earlier versions wrote metadata in any order: any order is accepted.

    Raises:
        RunFolderError: The file is damaged, of another run, plan or round, or has a byte that no run writes.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            found = file.metadata() or {}
            adapter = Adapter(layout=layout, rows=np.array(file.get_tensor("rows")))
        data = path.read_bytes()
    # TypeError and AttributeError: what the library raises for a type of numbers that numpy has not.
    except (SafetensorError, AdapterError, OSError, TypeError, AttributeError) as error:
        raise RunFolderError(f"{path} is damaged ({error}): {RESTORE}") from None
    if any(found.get(key) != metadata[key] for key in ("run", "plan")):
        raise RunFolderError(f"{path} was written in another run or under another plan: {RESTORE}")
    if found.get("round") != metadata["round"]:
        raise RunFolderError(
            f"{path} is not the adapter that {FILE_NAME} names for round {metadata['round']}: {RESTORE}"
        )
    if all(data != _encode(adapter, order) for order in permutations(metadata.items())):
        raise RunFolderError(f"{path} holds more than the rows of a round, or in another spelling: {RESTORE}")
    return adapter


def _encode(adapter: Adapter, metadata: Iterable[tuple[str, str]]) -> bytes:
    values = np.ascontiguousarray(adapter.rows, dtype="<f4").tobytes()
    header = json.dumps(
        {
            "__metadata__": dict(metadata),
            "rows": {"dtype": "F32", "shape": list(adapter.rows.shape), "data_offsets": [0, len(values)]},
        },
        separators=(",", ":"),
    ).encode()
    header += b" " * (-len(header) % _LENGTH)
    return len(header).to_bytes(_LENGTH, "little") + header + values
