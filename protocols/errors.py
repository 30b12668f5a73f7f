"""All errors that `protocols` raises on purpose.

    ProtocolError
    ├── SessionError            the terms of a session contradict each other
    │   ├── CapacityError       the sum could wrap, or leaves no room in the ring for wrong sums to show
    │   ├── ThresholdError      the threshold does not fit the members
    │   └── QuorumError         a segment's quorum does not fit its members
    ├── WireError               bytes are not the one canonical form of the expected message
    ├── ContextError            a message belongs to another session
    ├── StageError              a call or a message comes out of order
    ├── RosterError             a party is unknown, missing, listed twice, or not who it says
    ├── InputError              a summand has the wrong length, type or size, or its model binding is missing
    ├── KeyAgreementError       a public key cannot be used
    ├── SealError               a sealed share does not authenticate
    ├── ShareError              Shamir shares do not combine
    ├── CiphertextError         a ciphertext or an encryption key is not in the one form of its profile
    ├── CommitmentError         an encrypted input, or a list of them, is not the one that was fixed before
    ├── KeyUseError             an encryption key is unknown, of another round, or was used before
    ├── ScreeningError          an encrypted update was screened out, or cannot be screened
    ├── ServiceError            a decryptor, verifier or worker does not answer, or refuses
    ├── BelowThresholdError     too few parties are left: the session ends and nothing is revealed
    └── IdentityError           a party cannot show that it is who it must be
        ├── SignatureError      a signature does not verify, or a key can give none that would mean anything
        ├── CertificateError    a certificate or revocation list is malformed, foreign, expired or not yet valid
        ├── RevokedError        a certificate was revoked
        ├── EnrolmentError      a client is unknown, listed twice or bound to another key; a roster is outdated
        └── KeyFileError        a private key file is malformed, locked, or open to others

A message names the party, the value and the rule, and never contains secret bytes. It is cut to MAX_MESSAGE characters where
it is made: values in it may come from a peer, and are as long as the peer likes.
"""

from typing import Final

MAX_MESSAGE: Final = 1000


def capped(message: str) -> str:
    """Return a message unchanged, or cut and marked if it is too long."""
    return message if len(message) <= MAX_MESSAGE else message[: MAX_MESSAGE - 4] + " ..."


class ProtocolError(Exception):
    """Base of every error that `protocols` raises on purpose."""

    def __init__(self, message: str = "") -> None:
        super().__init__(capped(message))


class SessionError(ProtocolError):
    """The terms of a session contradict each other."""


class CapacityError(SessionError):
    """The sum could wrap, or leaves no room in the ring for wrong sums to show."""


class ThresholdError(SessionError):
    """The threshold does not fit the members."""


class QuorumError(SessionError):
    """A segment's quorum does not fit its members."""


class WireError(ProtocolError):
    """Bytes are not the one canonical form of the expected message."""


class ContextError(ProtocolError):
    """A message belongs to another session."""


class StageError(ProtocolError):
    """A call or a message comes out of order."""


class RosterError(ProtocolError):
    """A party is unknown, missing, listed twice, or not who it says."""


class InputError(ProtocolError):
    """A summand has the wrong length, type or size, or its model binding is missing."""


class KeyAgreementError(ProtocolError):
    """A public key cannot be used."""


class SealError(ProtocolError):
    """A sealed share does not authenticate."""


class ShareError(ProtocolError):
    """Shamir shares do not combine."""


class CiphertextError(ProtocolError):
    """A ciphertext or an encryption key is not in the one form of its profile."""


class CommitmentError(ProtocolError):
    """An encrypted input, or a list of them, is not the one that was fixed before."""


class KeyUseError(ProtocolError):
    """An encryption key is unknown, of another round, or was used before."""


class ScreeningError(ProtocolError):
    """An encrypted update was screened out, or cannot be screened."""


class ServiceError(ProtocolError):
    """A decryptor, verifier or worker does not answer, or refuses."""


class BelowThresholdError(ProtocolError):
    """Too few parties are left: the session ends and nothing is revealed."""


class IdentityError(ProtocolError):
    """A party cannot show that it is who it must be."""


class SignatureError(IdentityError):
    """A signature does not verify, or a key can give none that would mean anything."""


class CertificateError(IdentityError):
    """A certificate or revocation list is malformed, foreign, expired or not yet valid."""


class RevokedError(IdentityError):
    """A certificate was revoked."""


class EnrolmentError(IdentityError):
    """A client is unknown, listed twice or bound to another key; or a roster is outdated or rolled back."""


class KeyFileError(IdentityError):
    """A private key file is malformed, locked by another passphrase, or open to others."""
