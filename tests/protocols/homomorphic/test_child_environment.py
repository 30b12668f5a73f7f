"""What a service's process inherits: what it needs to start, and no secret of the process that starts it."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocols.homomorphic.services import processes
from protocols.homomorphic.services.messages import HELLO
from protocols.homomorphic.services.processes import ProcessChannel

PASSPHRASE = "correct horse battery staple"  # noqa: S105 - of tests only
pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="only Linux shows it")


# All services are started by the same lines; a keyless one does not hide from its own user.
@pytest.fixture(params=["worker", "screener"])
def child(request: pytest.FixtureRequest) -> Iterator[ProcessChannel]:
    """A service in a process of its own, not yet started."""
    channel = ProcessChannel(request.param, request.param, call_seconds=60)
    yield channel
    channel.close()


def environment(channel: ProcessChannel) -> bytes:
    """What the running child was started with."""
    channel.exchange(HELLO)  # refused, but by then the child is what it will be
    return Path(f"/proc/{channel.pid}/environ").read_bytes()


def open_files(channel: ProcessChannel) -> list[str]:
    """What lies behind the running child's descriptors, once it has answered."""
    channel.exchange(HELLO)
    folder = Path(f"/proc/{channel.pid}/fd")
    return [str(entry.readlink()) for entry in folder.iterdir()]


@pytest.mark.parametrize(
    "name", ["RBLA_SECURE_PASSPHRASE", "SOME_TOKEN", "AWS_SECRET_ACCESS_KEY", "LD_PRELOADED"]
)
def test_no_secret_of_the_environment_reaches_a_child(
    child: ProcessChannel, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Whatever its name is: only variables on a short list go along."""
    monkeypatch.setenv(name, PASSPHRASE)

    assert PASSPHRASE.encode() not in environment(child)


def test_a_careless_parent_would_hand_it_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: a child that is started with all of the environment shows the passphrase."""
    monkeypatch.setenv("RBLA_SECURE_PASSPHRASE", PASSPHRASE)
    needed = processes._environment
    monkeypatch.setattr(processes, "_environment", lambda: {**os.environ, **needed()})
    careless = ProcessChannel("worker", "worker")

    shown = environment(careless)
    careless.close()

    assert PASSPHRASE.encode() in shown


def test_a_child_inherits_what_it_needs_and_nothing_else(child: ProcessChannel) -> None:
    """Paths, language and threads: every name is on the list."""
    names = {entry.partition(b"=")[0].decode() for entry in environment(child).split(b"\x00") if entry}

    assert names <= {*processes._INHERITED, *processes._environment()}
    assert {"PYTHONPATH", "OMP_NUM_THREADS"} <= names


def test_a_passphrase_in_an_open_file_does_not_reach_a_child(child: ProcessChannel, tmp_path: Path) -> None:
    """A descriptor that this process was given for inheritance, as shells do it with /dev/fd/3, ends here."""
    (tmp_path / "passphrase").write_text(PASSPHRASE)
    with (tmp_path / "passphrase").open() as file:
        os.set_inheritable(file.fileno(), True)

        seen = open_files(child)

    assert not [name for name in seen if "passphrase" in name]
    assert len([name for name in seen if name.startswith("socket:")]) == 1


def test_a_service_starts_without_any_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """With nothing set at all a child still finds the package and answers."""
    for name in list(os.environ):
        monkeypatch.delenv(name)
    channel = ProcessChannel("decryptor", "decryptor", call_seconds=60)

    key = channel.call(HELLO)
    channel.close()

    assert len(key) == 32
    assert sys.executable
