"""Fixtures that the tests of this folder share."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from protocols.session import ClientId
from rbla_secure.federation.client.memory import Memory
from rbla_secure.planning.plan import Plan
from tests.rbla_secure.federation.client.remembering import ME, Opener


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opener]:
    """Opens memories in the test's folder as started processes would: each lets go of the folder before the next has it."""
    stack = ExitStack()

    def open_one(plan: Plan, *, folder: Path = tmp_path, client: ClientId = ME) -> Memory:
        stack.close()
        memory = Memory.in_folder(plan, folder, client=client)
        stack.callback(memory.close)
        return memory

    with stack:
        yield open_one
