"""The enrolment authority's work on its folder, as ``rbla-secure keys`` runs it.

Caveat: enrolment makes the client's private key here. Until the client's folder is handed over and deleted, the
authority could sign as the client.

Roster and revocation list expire: for so long, a server that withholds both newer ones can keep a revoked client alive. It
cannot withhold one of them: every roster names the least revocation list that it is used with, and after every
revocation there is a new roster. :func:`renew_lists` extends them. Time is an argument everywhere: `now`, in unix seconds.
"""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import final

from protocols.errors import EnrolmentError, KeyFileError, RevokedError
from protocols.identity.certificates import (
    AuthorityCertificate,
    Certificate,
    check_client_id,
    issue_authority,
    issue_certificate,
)
from protocols.identity.keyfile import encode_certificate, encode_key
from protocols.identity.revocations import issue_revocations
from protocols.identity.roster import Roster, RosterEntry
from protocols.primitives.secret import Secret
from protocols.primitives.signing import SigningKey
from protocols.session import ClientId
from rbla_secure.atomic_files import OURS_TO_WRITE, PRIVATE, PUBLIC, replace_folder, write_atomic
from rbla_secure.errors import KeyFolderError
from rbla_secure.identities.folders import (
    AUTHORITY_FILE,
    AUTHORITY_KEY,
    CERTIFICATES_FOLDER,
    CLIENT_FILE,
    CLIENT_KEY,
    CLIENTS_FOLDER,
    REVOCATIONS_FILE,
    ROSTER_FILE,
    PublicLists,
    certificate_path,
    load_authority,
    load_certificate,
    load_public_lists,
    naming,
    read_key,
    read_private_file,
)

if sys.platform != "win32":
    import fcntl

DAY_SECONDS = 86_400
LIST_DAYS = 90  # after so many days without a change or a renewal, roster and revocation list expire
# Everything is issued with a beginning a little in the past: a party whose clock lags need not wait.
CLOCK_SKEW_SECONDS = 300


class KeyState(StrEnum):
    """The validity of a certificate now."""

    VALID = "valid"
    NOT_YET_VALID = "not-yet-valid"
    EXPIRED = "expired"
    REVOKED = "revoked"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ClientRecord:
    """One client's certificate, for people and JSON; times in unix seconds, the rest in hexadecimal."""

    client: ClientId
    rank: int
    state: KeyState
    not_before: int
    not_after: int
    serial: str
    fingerprint: str

    @classmethod
    def of(cls, certificate: Certificate, *, revoked: bool, now: int) -> "ClientRecord":
        """Return the record of a certificate."""
        return cls(
            client=certificate.client,
            rank=certificate.rank,
            state=_state(certificate, revoked=revoked, now=now),
            not_before=certificate.not_before,
            not_after=certificate.not_after,
            serial=f"{certificate.serial:x}",
            fingerprint=certificate.fingerprint.hex(),
        )


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorityRecord:
    """An authority and its lists, for people and JSON."""

    name: str
    fingerprint: str
    not_after: int
    roster: int
    roster_expires_at: int
    revocations: int
    next_update: int
    clients: tuple[ClientRecord, ...]


def create_authority(
    folder: Path, *, name: str, days: int, passphrase: Secret | None, now: int
) -> AuthorityRecord:
    """Create an authority with an empty roster.

    Args:
        folder: Does not exist or is empty.
        name: What people call it.
        days: Validity of its certificate, which nothing that it issues outlives.
        passphrase: To encrypt its private key with.
        now: Unix seconds.

    Raises:
        KeyFolderError: Something is in the folder already.
        CertificateError: The name or the validity breaks the rules.
        KeyFileError: The passphrase cannot be used.
    """
    _check_vacant(folder)
    key = SigningKey.generate()
    first = now - CLOCK_SKEW_SECONDS
    authority = issue_authority(key, name=name, now=first, valid_for=now + days * DAY_SECONDS - first)
    secret = encode_key(key, passphrase)

    def fill(new: Path) -> None:
        write_atomic(new / AUTHORITY_KEY, secret, mode=PRIVATE)
        write_atomic(new / AUTHORITY_FILE, encode_certificate(authority.der), mode=PUBLIC)
        (new / CERTIFICATES_FOLDER).mkdir(mode=OURS_TO_WRITE)
        (new / CLIENTS_FOLDER).mkdir(mode=OURS_TO_WRITE)
        office = _Office(folder=new, authority=authority, key=key, now=now)
        office.write_revocations(number=1, serials=())
        office.write_roster(number=1, least_revocations=1, entries=())

    replace_folder(folder.resolve(), fill, mode=OURS_TO_WRITE)
    return list_clients(folder, now=now)


def enrol(
    folder: Path,
    *,
    client: ClientId,
    rank: int,
    days: int,
    out: Path | None,
    passphrase: Secret | None,
    client_passphrase: Secret | None,
    now: int,
) -> ClientRecord:
    """Enrol a client: make its key and certificate in a folder to hand to it, and put it on the roster.

    The roster is written last: a crash leaves a client that is not enrolled, never a roster that promises too much.

    Args:
        folder: The authority's.
        client: A new client id, or one whose certificate was revoked or expired.
        rank: Its rank tier.
        days: Validity of its certificate.
        out: The client's folder, which does not exist or is empty; None takes clients/<client> in the authority's.
        passphrase: Passphrase of the authority's private key.
        client_passphrase: To encrypt the client's private key with.
        now: Unix seconds.

    Raises:
        EnrolmentError: The client is enrolled already; or the folder's lists and certificates do not fit each other.
        CertificateError: Id, rank or validity break the rules, or the authority expired.
        KeyFileError: The authority's key cannot be read, or a passphrase cannot be used.
        KeyFolderError: A folder is not what it must be.
    """
    check_client_id(client)
    with _open_office(folder, passphrase, now) as office:
        lists = office.lists(but=client)
        known = lists.certificates.get(client)
        # A certificate that is not the one on the roster counts nowhere: what a crash of an earlier enrolment left, say.
        listed = known is not None and known.client == client and lists.roster.lists(known)
        if known and listed and office.state(known, lists) in _IN_FORCE:
            raise EnrolmentError(f"client {client!r} is already enrolled; revoke it first")
        own = SigningKey.generate()
        certificate = office.certify(client, rank, own.public, days)
        _write_client(
            out or client_folder(folder, client),
            key=encode_key(own, client_passphrase),
            certificate=certificate,
            authority=office.authority,
        )
        write_atomic(certificate_path(folder, client), encode_certificate(certificate.der), mode=PUBLIC)
        others = [entry for entry in lists.roster.entries if entry.client != client]
        office.write_roster(
            number=lists.roster.number + 1,
            least_revocations=lists.revocations.number,
            entries=[*others, RosterEntry.of(certificate)],
        )
    return ClientRecord.of(certificate, revoked=False, now=now)


def revoke(folder: Path, *, client: ClientId, passphrase: Secret | None, now: int) -> ClientRecord:
    """Take a client's certificate back. It stays on the roster, so that everybody can say why it is refused.

    The roster is signed again, as one that is used with the new revocation list only. It is written last: a crash leaves
    the old roster, with which the new list may be used, until the command is repeated.

    Raises:
        EnrolmentError: The client is unknown; or the folder's lists and certificates do not fit each other.
        RevokedError: It was revoked before.
        CertificateError: The authority expired.
        KeyFileError: The authority's key cannot be read.
        KeyFolderError: The folder is not what it must be.
    """
    with _open_office(folder, passphrase, now) as office:
        lists = office.lists()
        lists.roster.entry(client)
        certificate = lists.certificates[client]
        if certificate.serial not in lists.revocations.serials:
            office.write_both(lists, serials=lists.revocations.serials | {certificate.serial})
        elif lists.roster.least_revocations < lists.revocations.number:
            # A crash kept the roster back that asks for this list: without it, an older list could be shown beside this roster.
            office.write_roster(
                number=lists.roster.number + 1,
                least_revocations=lists.revocations.number,
                entries=lists.roster.entries,
            )
        else:
            raise RevokedError(f"the certificate of {client!r} was revoked before")
    return ClientRecord.of(certificate, revoked=True, now=now)


def renew_lists(folder: Path, *, passphrase: Secret | None, now: int) -> AuthorityRecord:
    """Sign roster and revocation list again, with new numbers, for LIST_DAYS from now.

    Raises:
        EnrolmentError: The folder's lists and certificates do not fit each other.
        CertificateError: The authority expired.
        KeyFileError: The authority's key cannot be read.
        KeyFolderError: The folder is not what it must be.
    """
    with _open_office(folder, passphrase, now) as office:
        lists = office.lists()
        office.write_both(lists, serials=lists.revocations.serials)
    return list_clients(folder, now=now)


def list_clients(folder: Path, *, now: int) -> AuthorityRecord:
    """List who is enrolled, from the public files of an authority's folder.

    Raises:
        IdentityError: A file is foreign or damaged.
        KeyFolderError: A file is missing.
    """
    authority = load_authority(folder)
    lists = _agreeing_lists(folder, authority)
    revoked = lists.revocations.serials
    return AuthorityRecord(
        name=authority.name,
        fingerprint=authority.fingerprint.hex(),
        not_after=authority.not_after,
        roster=lists.roster.number,
        roster_expires_at=lists.roster.expires_at,
        revocations=lists.revocations.number,
        next_update=lists.revocations.next_update,
        clients=tuple(
            ClientRecord.of(certificate, revoked=certificate.serial in revoked, now=now)
            for certificate in lists.certificates.values()
        ),
    )


def show_client(folder: Path, *, now: int) -> ClientRecord:
    """Return a client's record, from its own folder. Needs no passphrase, and does not see revocations.

    Raises:
        KeyFileError: Others can read or change the private key.
        CertificateError: The certificate is malformed, or not from the authority in the folder.
        KeyFolderError: A file is missing.
    """
    certificate = load_certificate(folder)
    read_private_file(folder / CLIENT_KEY)
    return ClientRecord.of(certificate, revoked=False, now=now)


def client_folder(folder: Path, client: ClientId) -> Path:
    """Return the place in an authority's folder of what it will hand to a client."""
    return folder / CLIENTS_FOLDER / client


_IN_FORCE = (KeyState.VALID, KeyState.NOT_YET_VALID)


def _state(certificate: Certificate, *, revoked: bool, now: int) -> KeyState:
    if revoked:
        return KeyState.REVOKED
    if now < certificate.not_before:
        return KeyState.NOT_YET_VALID
    return KeyState.VALID if now <= certificate.not_after else KeyState.EXPIRED


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class _Office:
    """The authority at work: its folder, held by one process, and its key."""

    folder: Path
    authority: AuthorityCertificate
    key: SigningKey
    now: int

    @property
    def _first(self) -> int:
        return max(self.authority.not_before, self.now - CLOCK_SKEW_SECONDS)

    @property
    def _lists_until(self) -> int:
        return min(self.authority.not_after, self.now + LIST_DAYS * DAY_SECONDS)

    def lists(self, *, but: ClientId = "") -> PublicLists:
        """Return the lists signed so far, if the files agree; `but` is a client whose certificate is being replaced."""
        return _agreeing_lists(self.folder, self.authority, but=but)

    def state(self, certificate: Certificate, lists: PublicLists) -> KeyState:
        return _state(certificate, revoked=certificate.serial in lists.revocations.serials, now=self.now)

    def certify(self, client: ClientId, rank: int, public_key: bytes, days: int) -> Certificate:
        return issue_certificate(
            self.key,
            self.authority,
            client=client,
            rank=rank,
            public_key=public_key,
            now=self._first,
            valid_for=self.now + days * DAY_SECONDS - self._first,
        )

    def write_both(self, lists: PublicLists, *, serials: Iterable[int]) -> None:
        newer = lists.revocations.number + 1
        self.write_revocations(number=newer, serials=serials)
        self.write_roster(
            number=lists.roster.number + 1, least_revocations=newer, entries=lists.roster.entries
        )

    def write_roster(self, *, number: int, least_revocations: int, entries: Iterable[RosterEntry]) -> None:
        roster = Roster.issue(
            self.key,
            number=number,
            least_revocations=least_revocations,
            issued_at=self._first,
            expires_at=self._lists_until,
            entries=entries,
        )
        write_atomic(self.folder / ROSTER_FILE, roster.to_bytes(), mode=PUBLIC)

    def write_revocations(self, *, number: int, serials: Iterable[int]) -> None:
        revocations = issue_revocations(
            self.key,
            self.authority,
            serials=serials,
            number=number,
            now=self._first,
            valid_for=self._lists_until - self._first,
        )
        write_atomic(self.folder / REVOCATIONS_FILE, revocations.der, mode=PUBLIC)


@contextmanager
def _open_office(folder: Path, passphrase: Secret | None, now: int) -> Iterator[_Office]:
    """Open the folder for one process at a time: two would give one number to two different rosters."""
    authority = load_authority(folder)
    with _held(folder):
        key = read_key(folder / AUTHORITY_KEY, passphrase)
        if key.public != authority.public_key:
            raise KeyFileError(f"{folder / AUTHORITY_KEY} is not the key of authority {authority.name!r}")
        authority.check_valid_at(now)
        yield _Office(folder=folder, authority=authority, key=key, now=now)


def _agreeing_lists(folder: Path, authority: AuthorityCertificate, *, but: ClientId = "") -> PublicLists:
    lists = load_public_lists(folder, authority)
    with naming(folder):
        lists.check_agreement(but=but)
    return lists


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    if sys.platform == "win32":
        yield  # no such lock there: two processes on one folder go unnoticed
        return
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
    try:
        _lock(descriptor, folder)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path) -> None:
    if sys.platform != "win32":
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise KeyFolderError(f"{folder} is in use by another process") from None


def _write_client(
    folder: Path, *, key: bytes, certificate: Certificate, authority: AuthorityCertificate
) -> None:
    _check_vacant(folder)

    def fill(new: Path) -> None:
        write_atomic(new / CLIENT_KEY, key, mode=PRIVATE)
        write_atomic(new / CLIENT_FILE, encode_certificate(certificate.der), mode=PUBLIC)
        write_atomic(new / AUTHORITY_FILE, encode_certificate(authority.der), mode=PUBLIC)

    replace_folder(folder.resolve(), fill, mode=OURS_TO_WRITE)


def _check_vacant(folder: Path) -> None:
    """Refuse a folder with anything in it: it might hold a key."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise KeyFolderError(f"{folder} must not exist or be empty; keys are never overwritten")
