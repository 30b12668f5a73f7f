"""Key folders: the enrolment authority's and each client's, and how a party reads them.

    authority's folder                         client's folder
    ├── authority.key    private key, 0600     ├── client.key      private key, 0600
    ├── authority.pem    its certificate       ├── client.pem      its certificate
    ├── roster.bin       who is enrolled       └── authority.pem   whom it trusts
    ├── revocations.crl  who no longer is
    ├── certificates/    one .pem per client
    └── clients/         client folders to hand out

The authority's folder belongs on a machine that is not the aggregator's. authority.pem, roster.bin, revocations.crl and
certificates/ are public and go to every party after each change; whoever has seen newer lists refuses older ones. They are
signed, so that it does not matter who keeps a party's copy. Those in the authority's own folder must fit each other before
`keys` signs anything (:meth:`PublicLists.check_agreement`): a list put back from a copy, or a certificate that lies under
another name, would have the wrong one revoked or a revocation forgotten. A roster that is put back alone, or with all the rest, fits
and goes unnoticed: nobody else may write there. authority.pem is what everything is checked against: it is refused where
others could change it (:mod:`rbla_secure.identities.trust_anchors`).
"""

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import final

from protocols.clock import SYSTEM_CLOCK
from protocols.errors import EnrolmentError, KeyFileError, ProtocolError
from protocols.identity.certificates import (
    AuthorityCertificate,
    Certificate,
    read_authority,
    read_certificate,
)
from protocols.identity.keyfile import decode_certificate, decode_key
from protocols.identity.revocations import RevocationList, read_revocations
from protocols.identity.roster import Roster
from protocols.identity.trust import Identity, TrustStore
from protocols.primitives.secret import Secret
from protocols.primitives.signing import SigningKey
from protocols.session import ClientId
from rbla_secure.errors import KeyFolderError
from rbla_secure.identities.trust_anchors import check_anchor

AUTHORITY_KEY = "authority.key"
AUTHORITY_FILE = "authority.pem"
ROSTER_FILE = "roster.bin"
REVOCATIONS_FILE = "revocations.crl"
CERTIFICATES_FOLDER = "certificates"
CLIENTS_FOLDER = "clients"
CLIENT_KEY = "client.key"
CLIENT_FILE = "client.pem"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PublicLists:
    """The public statements of an authority. Signatures are verified; whether the lists are in force is not."""

    roster: Roster
    revocations: RevocationList
    certificates: Mapping[ClientId, Certificate]

    def check_agreement(self, *, but: ClientId = "") -> None:
        """Refuse lists of different times, and certificates that are not the ones on the roster.

        Args:
            but: A client whose certificate is about to be replaced, so that it does not matter which one is there.

        Raises:
            EnrolmentError: Names the file that does not fit.
        """
        least, number = self.roster.least_revocations, self.revocations.number
        if number < least:
            raise EnrolmentError(
                f"{REVOCATIONS_FILE} is revocation list {number}, and {self.roster.name} was signed beside list {least}: "
                "revocations would be forgotten; restore the newest list from a copy"
            )
        for client, certificate in self.certificates.items():
            if client != but and not (certificate.client == client and self.roster.lists(certificate)):
                raise EnrolmentError(
                    f"{CERTIFICATES_FOLDER}/{client}.pem, of client {certificate.client!r} with serial "
                    f"{certificate.serial:x}, is not the certificate of {client!r} on {self.roster.name}: restore it from "
                    "a copy, or enrol the client anew"
                )


def load_identity(folder: Path, *, passphrase: Secret | None = None) -> Identity:
    """A client's identity, from its own folder.

    Raises:
        KeyFileError: The private key is open to others, locked by another passphrase, or malformed.
        CertificateError: The certificate is malformed, or not from the authority in the folder.
        EnrolmentError: The certificate binds another key.
        KeyFolderError: A file is missing.
    """
    certificate = load_certificate(folder)
    key = read_key(folder / CLIENT_KEY, passphrase)
    with naming(folder):
        return Identity(client=certificate.client, key=key, certificate=certificate)


def load_certificate(folder: Path) -> Certificate:
    """A client's certificate, from its own folder.

    Raises:
        CertificateError: It is malformed, or not from the authority in the folder.
        KeyFolderError: A file is missing.
    """
    return _read_certificate(folder / CLIENT_FILE, load_authority(folder))


def load_authority(folder: Path) -> AuthorityCertificate:
    """The certificate of the authority that a client's folder trusts, or that an authority's folder belongs to.

    Raises:
        CertificateError: It is malformed.
        TrustAnchorError: Others could change or replace it.
        KeyFolderError: It is missing.
    """
    path = folder / AUTHORITY_FILE
    data = read_anchor(path)
    with naming(path):
        return read_authority(decode_certificate(data))


def load_trust_store(folder: Path, *, authority: AuthorityCertificate, now: int | None = None) -> TrustStore:
    """Load a view of whom to believe, from the public files of an authority's folder or a copy of them.

    Caveat: a party that has a view already must not load another but bring its own up to date
    (:meth:`protocols.identity.trust.TrustStore.updated`), or it can be given lists from before a revocation.

    Args:
        folder: Holds roster.bin, revocations.crl and certificates/.
        authority: Whom to believe; a client takes it from its own folder, not from here.
        now: A moment at which the view stays, in unix seconds; None reads the system's clock at every check.

    Raises:
        IdentityError: As the constructor of TrustStore.
        WireError: The roster is malformed.
        KeyFolderError: A file is missing.
    """
    lists = load_public_lists(folder, authority)
    moment = SYSTEM_CLOCK() if now is None else now
    with naming(folder):
        authority.check_valid_at(moment)
        return TrustStore(
            authority=authority.public_key,
            roster=lists.roster,
            revocations=lists.revocations,
            certificates=lists.certificates,
            now=moment,
            clock=SYSTEM_CLOCK if now is None else None,
        )


def load_public_lists(folder: Path, authority: AuthorityCertificate) -> PublicLists:
    """Roster, revocations, and the certificate of everyone on the roster.

    Raises:
        IdentityError: A file is foreign or damaged.
        WireError: The roster is malformed.
        KeyFolderError: A file is missing.
    """
    data = read_file(folder / ROSTER_FILE)
    with naming(folder / ROSTER_FILE):
        roster = Roster.from_bytes(data)
        roster.verify(authority.public_key)
    data = read_file(folder / REVOCATIONS_FILE)
    with naming(folder / REVOCATIONS_FILE):
        revocations = read_revocations(data, authority.public_key)
    certificates = {
        entry.client: _read_certificate(certificate_path(folder, entry.client), authority)
        for entry in roster.entries
    }
    return PublicLists(roster=roster, revocations=revocations, certificates=certificates)


def read_key(path: Path, passphrase: Secret | None = None) -> SigningKey:
    """Read a private key from its file.

    Raises:
        KeyFileError: Others can read or change the file; it is malformed; the passphrase is missing or wrong.
        KeyFolderError: It is missing.
    """
    data = read_private_file(path)
    with naming(path):
        return decode_key(data, passphrase)


def read_passphrase(path: Path | None, variable: Secret | None = None) -> Secret | None:
    """A passphrase from a file, less its line end, or else the one from the environment; None if there is neither.

    Raises:
        KeyFileError: The file is empty.
        KeyFolderError: The file is missing.
    """
    if path is None:
        return variable
    passphrase = Secret(read_file(path).rstrip(b"\r\n"))
    if not passphrase:
        raise KeyFileError(f"{path}: the passphrase is empty")
    return passphrase


def read_private_file(path: Path) -> bytes:
    """Read a file that only its owner can read or change; the open file is checked, not its name.

    Raises:
        KeyFileError: Others can.
        KeyFolderError: It is missing.
    """
    try:
        file = path.open("rb")
    except (FileNotFoundError, NotADirectoryError):
        raise KeyFolderError(f"{path} is missing") from None
    with file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        if os.name == "posix" and mode & 0o077:  # other systems keep permissions elsewhere
            raise KeyFileError(f"{path}: mode {mode:04o} opens the private key to others; it must be 0600")
        return file.read()


def read_anchor(path: Path) -> bytes:
    """Read a file that says whom to believe, if nobody else can change it.

    Raises:
        TrustAnchorError: Others can.
        KeyFolderError: It is missing.
    """
    try:
        check_anchor(path)
    except (FileNotFoundError, NotADirectoryError):
        raise KeyFolderError(f"{path} is missing") from None
    return read_file(path)


def read_file(path: Path) -> bytes:
    """Return a file's content.

    Raises:
        KeyFolderError: It is missing.
    """
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise KeyFolderError(f"{path} is missing") from None


def certificate_path(folder: Path, client: ClientId) -> Path:
    """Return the path of a client's certificate in an authority's folder; the rule of client ids keeps it inside."""
    return folder / CERTIFICATES_FOLDER / f"{client}.pem"


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name the file or folder at fault in errors raised inside the block."""
    try:
        yield
    except ProtocolError as error:
        raise type(error)(f"{path}: {error}") from None


def _read_certificate(path: Path, authority: AuthorityCertificate) -> Certificate:
    data = read_file(path)
    with naming(path):
        return read_certificate(decode_certificate(data), authority.public_key)
