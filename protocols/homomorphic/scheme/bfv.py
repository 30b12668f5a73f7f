"""BFV by TenSEAL: the only file that imports it.

    RoundSecret.generate -> public key (residues) -> PublicKey.encrypt -> ciphertexts (residues)
    sums of ciphertexts (residues, added elsewhere) -> RoundSecret.decrypt -> slots

Public-key encryption only, one slot vector to a ciphertext, one thread (the library keeps the interpreter lock, so more
do not help). Keys and noise come from SEAL's generator, which is seeded by the operating system for every context.
"""

from functools import cache, lru_cache
from typing import Any, Final, Self, final

import numpy as np

from protocols.errors import CiphertextError, ServiceError
from protocols.homomorphic.scheme import polynomials, seal_form
from protocols.homomorphic.scheme.fields import Slots
from protocols.homomorphic.scheme.parameters import EncryptionProfile
from protocols.homomorphic.scheme.polynomials import Polynomials
from protocols.homomorphic.scheme.seal_form import Level

_ALONE: Final = {
    "save_public_key": False,
    "save_secret_key": False,
    "save_galois_keys": False,
    "save_relin_keys": False,
}


@cache
def library() -> Any:
    """Return TenSEAL, imported on first use, since other secure sums work without it.

    Raises:
        ServiceError: It is not installed.
    """
    try:
        import tenseal  # noqa: PLC0415
        import tenseal.sealapi  # noqa: PLC0415  # registers the types that a context's parameters are made of
    except ImportError:
        raise ServiceError("secure-sum=homomorphic needs TenSEAL: pip install 'rbla-secure[he]'") from None
    return tenseal


@final
class RoundSecret:
    """The secret half of one round's key. Only the decryptor holds it, and only in memory."""

    def __init__(self, profile: EncryptionProfile, context: Any) -> None:
        self._profile = profile
        self._context = context

    def __repr__(self) -> str:
        return "<RoundSecret>"

    @classmethod
    def generate(cls, profile: EncryptionProfile) -> Self:
        """A fresh key."""
        return cls(profile, _new_context(profile))

    def public_key(self) -> Polynomials:
        """Return the public half: shape (1, 2, primes, degree)."""
        profile, level = self._profile, _shape(self._profile).key
        context = self._context.serialize(**{**_ALONE, "save_public_key": True})
        stream = seal_form.public_key_of(context)
        pair = seal_form.read_pair(stream, level, primes=len(profile.moduli), degree=profile.degree)
        return pair[None]

    def decrypt(self, ciphertexts: Polynomials) -> Slots:
        """Return the slots of a sum of ciphertexts whose residues were checked: shape (ciphertexts, degree)."""
        profile, level = self._profile, _shape(self._profile).ciphertext
        slots = np.empty((len(ciphertexts), profile.degree), dtype=np.int64)
        for place, pair in enumerate(ciphertexts):
            data = seal_form.vector([seal_form.pair_stream(pair, level)], length=profile.degree)
            slots[place] = library().bfv_vector_from(self._context, data).decrypt()
        return slots % profile.plain_modulus  # the library's representatives are centred


@final
class PublicKey:
    """A round's public key, ready to encrypt. Held by clients.

    Args:
        profile: The session's encryption profile.
        residues: As :func:`protocols.homomorphic.scheme.polynomials.decode` checked them, shape (1, 2, primes, degree).

    Raises:
        CiphertextError: The library refuses the key.
    """

    def __init__(self, profile: EncryptionProfile, residues: Polynomials) -> None:
        shape = _shape(profile)
        self._profile = profile
        key = seal_form.pair_stream(residues[0], shape.key)
        try:
            self._context = library().context_from(seal_form.with_public_key(shape.context, key), n_threads=1)
        except (ValueError, RuntimeError) as error:
            raise CiphertextError(f"the encryption library refuses the public key: {error}") from None

    def encrypt(self, slots: Slots) -> Polynomials:
        """Return fresh ciphertexts, one per row of slots: shape (rows, 2, primes, degree)."""
        profile, level = self._profile, _shape(self._profile).ciphertext
        primes = len(profile.ciphertext_moduli)
        residues = np.empty((len(slots), polynomials.PAIR, primes, profile.degree), dtype=np.uint64)
        for place, row in enumerate(slots):
            (stream,) = seal_form.streams_of(self._encrypted(row).serialize())
            residues[place] = seal_form.read_pair(stream, level, primes=primes, degree=profile.degree)
        return residues

    def _encrypted(self, row: Slots) -> Any:
        """Return one ciphertext, as the library's own object.

        What `bfv_vector` does but for its detour by a tensor object, which takes as long as a seventh of the encryption.
        """
        return library()._ts_cpp.BFVVector(self._context.data, row.tolist())  # noqa: SLF001


@lru_cache(maxsize=2)
def public_key(profile: EncryptionProfile, data: bytes) -> PublicKey:
    """Return a round's public key from the bytes sent to everybody; clients of one process share it.

    Raises:
        CiphertextError: The bytes are no public key of the profile.
    """
    residues = polynomials.decode(data, count=1, moduli=profile.moduli, degree=profile.degree)
    return PublicKey(profile, residues)


@final
class _Shape:
    """Values that the library derives from a profile; none of them is secret."""

    def __init__(self, profile: EncryptionProfile) -> None:
        context = _new_context(profile)
        self.context = context.serialize(**_ALONE)
        chain = context.seal_context().data
        self.key = Level(parameters=tuple(chain.key_parms_id()), ntt=True)
        self.ciphertext = Level(parameters=tuple(chain.first_parms_id()), ntt=False)
        found = tuple(modulus.value() for modulus in chain.key_context_data().parms().coeff_modulus())
        if found != profile.moduli:
            raise CiphertextError(
                f"the encryption library has the primes {found} where profile {profile.name} names {profile.moduli}"
            )


@lru_cache(maxsize=8)
def _shape(profile: EncryptionProfile) -> _Shape:
    return _Shape(profile)


def _new_context(profile: EncryptionProfile) -> Any:
    return library().context(
        library().SCHEME_TYPE.BFV,
        poly_modulus_degree=profile.degree,
        plain_modulus=profile.plain_modulus,
        coeff_mod_bit_sizes=profile.coefficient_bits,
        n_threads=1,
    )
