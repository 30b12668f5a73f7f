"""Who can change what a party believes: nobody but itself and the administrator, by whatever way to the file."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from rbla_secure.errors import KeyFolderError, TrustAnchorError
from rbla_secure.identities import authority
from rbla_secure.identities.folders import load_authority, load_certificate, load_identity
from rbla_secure.identities.trust_anchors import check_anchor

NOW = 1_800_000_000
pytestmark = pytest.mark.skipif(os.name != "posix", reason="other systems keep permissions elsewhere")


@pytest.fixture
def client(tmp_path: Path) -> Path:
    """A client's folder, home/keys/alice, as enrolment makes it under the widest umask."""
    before = os.umask(0)
    try:
        terms = {"passphrase": None, "now": NOW}
        authority.create_authority(tmp_path / "office", name="honest", days=30, **terms)  # type: ignore[arg-type]
        (tmp_path / "home" / "keys").mkdir(parents=True, mode=0o755)
        (tmp_path / "home").chmod(0o755)
        folder = tmp_path / "home" / "keys" / "alice"
        authority.enrol(
            tmp_path / "office",
            client="alice",
            rank=4,
            days=10,
            out=folder,
            client_passphrase=None,
            **terms,  # type: ignore[arg-type]
        )
    finally:
        os.umask(before)
    return folder


def readers(folder: Path) -> list[Callable[[], object]]:
    """Everything that begins with the anchor in a client's folder."""
    return [
        lambda: load_authority(folder),
        lambda: load_certificate(folder),
        lambda: load_identity(folder),
        lambda: authority.show_client(folder, now=NOW),
    ]


def assert_refused(folder: Path, *, where: Path) -> None:
    """Every reader names the place that lets others in."""
    for read in readers(folder):
        with pytest.raises(TrustAnchorError) as caught:
            read()
        assert str(where) in str(caught.value)


def test_a_folder_is_believed_as_enrolment_made_it(client: Path) -> None:
    """Whatever the umask was, what enrolment writes passes its own rule."""
    for read in readers(client):
        read()
    load_authority(client.parents[2] / "office")
    authority.renew_lists(client.parents[2] / "office", passphrase=None, now=NOW)


@pytest.mark.parametrize("bit", [stat.S_IWGRP, stat.S_IWOTH])
@pytest.mark.parametrize("place", ["authority.pem", ".", "..", "../.."])
def test_a_place_that_others_can_write_is_refused(client: Path, place: str, bit: int) -> None:
    """The file or any folder above it, writable by group or others, raises TrustAnchorError with mode and remedy."""
    spoilt = Path(os.path.normpath(client / place))
    spoilt.chmod(stat.S_IMODE(spoilt.stat().st_mode) | bit)

    assert_refused(client, where=spoilt)
    mode = stat.S_IMODE(spoilt.stat().st_mode)
    with pytest.raises(TrustAnchorError, match=f"mode {mode:04o} .* chmod go-w '{spoilt}'"):
        load_authority(client)

    spoilt.chmod(mode & ~0o022)  # what the message says to do
    load_identity(client)


def test_whoever_can_write_a_folder_can_enrol_whom_it_likes(client: Path, tmp_path: Path) -> None:
    """The attack is real: another authority's file under the same name is believed (control), unless the way to it is ours."""
    authority.create_authority(tmp_path / "attacker", name="attacker", days=30, passphrase=None, now=NOW)
    client.chmod(0o777)  # others may write here, so one of them does
    (client / "authority.pem").rename(client / "old.pem")
    (client / "authority.pem").write_bytes((tmp_path / "attacker" / "authority.pem").read_bytes())

    with pytest.raises(TrustAnchorError):
        load_authority(client)

    client.chmod(0o755)  # a careless client, which does not look
    assert load_authority(client).name == "attacker"


def test_a_shared_folder_with_the_sticky_bit_is_no_danger(client: Path) -> None:
    """Where nobody can rename what is ours, as on /tmp, the way is ours; only the administrator's folder counts."""
    client.parent.chmod(0o1777)
    if os.geteuid() == 0:
        load_identity(client)
        os.chown(client.parent, 12345, 12345)
    assert_refused(client, where=client.parent)


def test_a_sticky_bit_does_not_excuse_a_file(client: Path) -> None:
    """The excuse is for folders: a file that others write is refused, whatever other bits it has."""
    (client / "authority.pem").chmod(0o1666)

    assert_refused(client, where=client / "authority.pem")


@pytest.mark.skipif(getattr(os, "geteuid", int)() != 0, reason="only the administrator gives files away")
@pytest.mark.parametrize("place", ["authority.pem", ".", ".."])
def test_what_belongs_to_another_user_is_refused(client: Path, place: str) -> None:
    """An owner can always write: a file or folder of another user raises TrustAnchorError, which names the user."""
    foreign = Path(os.path.normpath(client / place))
    os.chown(foreign, 12345, -1)

    assert_refused(client, where=foreign)
    with pytest.raises(TrustAnchorError, match="belongs to user 12345"):
        load_authority(client)


def test_the_way_through_links_is_followed(client: Path, tmp_path: Path) -> None:
    """A link is as good as the folder that holds it and all that it leads to: in a folder of others it is refused."""
    (tmp_path / "ours").mkdir(mode=0o755)
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    for holder in ("ours", "open"):
        (tmp_path / holder / "link").symlink_to(client)
        (tmp_path / holder / "relative").symlink_to(os.path.relpath(client, tmp_path / holder))
    (tmp_path / "ours" / "twice").symlink_to(tmp_path / "open" / "link")
    (tmp_path / "ours" / "up").symlink_to(tmp_path / "open")

    for name in ("link", "relative", "../ours/link"):
        load_identity(tmp_path / "ours" / name)
    for way in ("open/link", "open/relative", "ours/twice", "ours/up/link", "open/../open/link"):
        with pytest.raises(TrustAnchorError, match="open: mode 0777"):
            load_identity(tmp_path / way)


def test_a_link_to_a_spoilt_place_is_refused(client: Path, tmp_path: Path) -> None:
    """That the link is ours helps nothing if what it leads to can be replaced."""
    (tmp_path / "link").symlink_to(client / "authority.pem")
    check_anchor(tmp_path / "link")

    client.parent.chmod(0o775)

    with pytest.raises(TrustAnchorError, match="keys: mode 0775"):
        check_anchor(tmp_path / "link")


def test_links_in_a_circle_end_in_a_refusal(tmp_path: Path) -> None:
    """A circle of links is refused by name, not followed for ever."""
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")

    with pytest.raises(TrustAnchorError, match="more than 40 links"):
        check_anchor(tmp_path / "a")


def test_a_relative_path_is_checked_from_where_the_process_is(
    client: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From inside the folder the same places decide, those above it included."""
    monkeypatch.chdir(client)
    load_authority(Path())

    client.parents[1].chmod(0o777)

    with pytest.raises(TrustAnchorError, match="home: mode 0777"):
        load_authority(Path())


def test_a_missing_anchor_is_named(client: Path) -> None:
    """No file, or a file where a folder should be, raises KeyFolderError with its path."""
    with pytest.raises(KeyFolderError, match=r"nowhere/authority\.pem is missing"):
        load_authority(client / "nowhere")
    with pytest.raises(KeyFolderError, match=r"client\.pem/authority\.pem is missing"):
        load_authority(client / "client.pem")
