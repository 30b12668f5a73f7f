"""Private keys are for their owner alone: file modes, passphrases, the environment."""

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from protocols.errors import (
    KeyFileError,
)
from protocols.primitives.secret import Secret
from rbla_secure.atomic_files import write_atomic
from rbla_secure.errors import KeyFolderError
from rbla_secure.identities import authority
from rbla_secure.identities.folders import (
    load_authority,
    load_identity,
    read_key,
    read_passphrase,
)
from rbla_secure.identities.passphrases import PASSPHRASE_VARIABLE
from tests.rbla_secure.identities.offices import PASSPHRASE, Command, posix


def mode(path: Path) -> int:
    """A file's permissions."""
    return stat.S_IMODE(path.stat().st_mode)


def write_passphrase(folder: Path, text: str = PASSPHRASE + "\n") -> Path:
    """A file with a passphrase."""
    path = folder / "passphrase"
    path.write_text(text)
    return path


# --- private keys ---


@posix
def test_private_keys_are_for_their_owner_alone(office: Path, tmp_path: Path, run: Command) -> None:
    """Under the widest umask both kinds of key still have mode 0600."""
    before = os.umask(0)
    try:
        run("create-authority", "--dir", tmp_path / "open")
        run("enrol", "--dir", tmp_path / "open", "--client", "a", "--rank", 1)
    finally:
        os.umask(before)

    for folder in (office, tmp_path / "open"):
        secrets = list(folder.rglob("*.key"))
        assert len(secrets) == (3 if folder == office else 2)
        assert {mode(path) for path in secrets} == {0o600}
        others_write = [path for path in [folder, *folder.rglob("*")] if mode(path) & 0o022]
        assert not others_write


@posix
def test_a_file_is_never_open_to_others_while_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A private file has its mode from its first moment, whatever mode a crash left behind."""
    path, seen = tmp_path / "file.key", []
    (tmp_path / ".file.key.tmp").touch(mode=0o666)
    path.touch(mode=0o666)
    flush = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda file: (seen.append(stat.S_IMODE(os.fstat(file).st_mode)), flush(file))
    )

    write_atomic(path, b"secret", mode=0o600)

    assert seen[0] == mode(path) == 0o600


@posix
@pytest.mark.parametrize("wide", [0o640, 0o604, 0o620, 0o602, 0o644, 0o777, 0o610])
def test_a_key_that_others_can_reach_is_refused(office: Path, refusal: Callable[..., str], wide: int) -> None:
    """A private key whose mode lets others in raises KeyFileError, for clients and authority alike."""
    client = office / "clients" / "alice"
    (client / "client.key").chmod(wide)
    (office / "authority.key").chmod(wide)

    with pytest.raises(KeyFileError, match=f"mode {wide:04o}"):
        load_identity(client)
    assert f"KeyFileError: {client / 'client.key'}: mode {wide:04o}" in refusal("show", client)
    assert "KeyFileError" in refusal("revoke", "--dir", office, "--client", "alice")
    assert "KeyFileError" in refusal("enrol", "--dir", office, "--client", "carol", "--rank", 1)


def test_a_passphrase_protects_the_authority(
    tmp_path: Path, run: Command, refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a passphrase the key opens by file or variable; without it, or with another, it is refused."""
    folder, file = tmp_path / "a", write_passphrase(tmp_path)
    run("create-authority", "--dir", folder, "--passphrase-file", file)
    enrol = ["enrol", "--dir", folder, "--rank", 1, "--client"]

    run(*enrol, "by-file", "--passphrase-file", file)
    monkeypatch.setenv(PASSPHRASE_VARIABLE, PASSPHRASE)
    run(*enrol, "by-variable")
    monkeypatch.setenv(PASSPHRASE_VARIABLE, "wrong")
    message = refusal(*enrol, "x")
    assert "KeyFileError" in message
    assert "the passphrase is wrong" in message
    monkeypatch.setenv(PASSPHRASE_VARIABLE, "wrong")
    run(*enrol, "file-first", "--passphrase-file", file)
    assert "a passphrase is needed" in refusal(*enrol, "x")

    assert b"ENCRYPTED" in (folder / "authority.key").read_bytes()
    names = [client["client"] for client in run("list", "--dir", folder)["clients"]]
    assert names == ["by-file", "by-variable", "file-first"]


def test_a_client_has_a_passphrase_of_its_own(office: Path, tmp_path: Path, run: Command) -> None:
    """--client-passphrase-file encrypts the client's key, and load_identity wants it."""
    file = write_passphrase(tmp_path)

    run("enrol", "--dir", office, "--client", "carol", "--rank", 2, "--client-passphrase-file", file)

    folder = office / "clients" / "carol"
    assert load_identity(folder, passphrase=read_passphrase(file)).client == "carol"
    with pytest.raises(KeyFileError, match="a passphrase is needed"):
        load_identity(folder)
    assert run("show", folder)["client"] == "carol"


def test_a_passphrase_that_is_not_needed_is_refused(
    office: Path, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    """Whoever gives a passphrase for a key that has none is told so."""
    file = write_passphrase(tmp_path)

    message = refusal("revoke", "--dir", office, "--client", "alice", "--passphrase-file", file)

    assert "KeyFileError" in message
    assert "is not encrypted" in message


@pytest.mark.parametrize("content", ["", "\n", "\r\n"])
def test_an_empty_passphrase_is_refused(tmp_path: Path, refusal: Callable[..., str], content: str) -> None:
    """A passphrase file that holds nothing is refused before anything is made."""
    file = write_passphrase(tmp_path, content)

    message = refusal("create-authority", "--dir", tmp_path / "a", "--passphrase-file", file)

    assert "KeyFileError" in message
    assert "the passphrase is empty" in message
    assert not (tmp_path / "a").exists()


def test_a_passphrase_is_read_from_file_first(tmp_path: Path) -> None:
    """A file goes before the variable, its line end does not count, and it does not print."""
    file = write_passphrase(tmp_path, " with spaces \r\n")

    passphrase = read_passphrase(file, Secret(b"variable"))

    assert passphrase is not None
    assert bytes(passphrase) == b" with spaces "
    assert "spaces" not in f"{passphrase}{passphrase!r}"
    assert read_passphrase(None, Secret(b"variable")) == b"variable"
    assert read_passphrase(None) is None


def test_a_passphrase_leaves_the_environment(
    monkeypatch: pytest.MonkeyPatch, run: Command, tmp_path: Path
) -> None:
    """Whatever the command is, a process started during or after it does not find the passphrase in its environment."""
    monkeypatch.setenv(PASSPHRASE_VARIABLE, PASSPHRASE)
    show = [sys.executable, "-c", f"import os; print(os.environ.get({PASSPHRASE_VARIABLE!r}))"]
    heard = []
    monkeypatch.setattr(
        authority,
        "create_authority",
        lambda _folder, **given: heard.append((given["passphrase"], subprocess.check_output(show))) or Told(),
    )
    assert subprocess.check_output(show).decode().strip() == PASSPHRASE  # control: before, it is inherited

    run("create-authority", "--dir", tmp_path / "a")

    assert heard == [(PASSPHRASE.encode(), b"None\n")]
    assert subprocess.check_output(show) == b"None\n"


@dataclass
class Told:
    """What a command says of an authority."""

    name: str = ""
    fingerprint: str = ""


def test_a_key_is_read_from_its_file(office: Path) -> None:
    """The authority's key file holds the key of its certificate; a missing one raises KeyFolderError."""
    assert read_key(office / "authority.key").public == load_authority(office).public_key

    with pytest.raises(KeyFolderError, match="nowhere is missing"):
        read_key(office / "nowhere")
