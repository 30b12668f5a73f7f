"""CKKS by TenSEAL, for screening only: computes two encrypted numbers from the copy of an update.

    ScreeningSecret (decryptor) -> ScreeningKey (clients)     encrypt the copy
                                -> Evaluator (aggregator)     squared norm, inner product; one ciphertext each
                                -> ScreeningSecret.open       one number of one ciphertext

A key of its own, which has nothing to do with that of the sums; parameters in :mod:`protocols.homomorphic.screening.screening`.
"""

import secrets
from functools import lru_cache
from typing import Any, Final, Self, final

import numpy as np

from protocols.errors import CiphertextError, ScreeningError
from protocols.homomorphic.scheme import polynomials, seal_form
from protocols.homomorphic.scheme.bfv import library
from protocols.homomorphic.scheme.polynomials import Polynomials
from protocols.homomorphic.scheme.seal_form import Level
from protocols.homomorphic.screening.screening import (
    CIPHERTEXT_MODULI,
    DEGREE,
    MODULI,
    SCALAR_MODULI,
    SLOTS,
    RealVector,
)

SCALE: Final = 2.0**40
# Of a direction of length 1. A row of about 2^-30 is encoded as nothing but zeros; one beyond this limit never is.
LEAST_ROW: Final = 2.0**-20
_BLINDING: Final = (
    2**10
)  # as large as the numbers themselves get; the slots beside the number hold nothing else anyway
_NOTHING: Final = {
    "save_public_key": False,
    "save_secret_key": False,
    "save_galois_keys": False,
    "save_relin_keys": False,
}


@final
class ScreeningSecret:
    """The secret half of one session's screening key. Only the decryptor holds it, and only in memory."""

    def __init__(self, context: Any) -> None:
        self._context = context

    def __repr__(self) -> str:
        return "<ScreeningSecret>"

    @classmethod
    def generate(cls) -> Self:
        """Make a fresh key with its evaluation keys: about 0.2 s."""
        context = _new_context()
        context.generate_galois_keys()
        return cls(context)

    def public_key(self) -> Polynomials:
        """Return the public half: shape (1, 2, 3, DEGREE)."""
        stream = seal_form.public_key_of(self._context.serialize(**{**_NOTHING, "save_public_key": True}))
        return seal_form.read_pair(stream, _shape().key, primes=len(MODULI), degree=DEGREE)[None]

    def evaluation_keys(self) -> bytes:
        """Return the library's own bytes, about 18 MB; they can neither encrypt nor decrypt."""
        data: bytes = self._context.serialize(
            **{**_NOTHING, "save_galois_keys": True, "save_relin_keys": True}
        )
        return data

    def open(self, number: Polynomials) -> float:
        """Return the number in the first slot of one ciphertext of the lowest level, shape (1, 2, 1, DEGREE)."""
        stream = seal_form.pair_stream(number[0], _shape().scalar)
        data = seal_form.vector([stream], length=1, scale=SCALE)
        value = float(library().ckks_vector_from(self._context, data).decrypt()[0])
        if not np.isfinite(value):
            raise ScreeningError("a screened number is not finite")
        return value


@final
class ScreeningKey:
    """A session's public screening key. Held by clients.

    Args:
        residues: As :func:`protocols.homomorphic.scheme.polynomials.decode` checked them, shape (1, 2, 3, DEGREE).

    Raises:
        CiphertextError: The library refuses the key.
    """

    def __init__(self, residues: Polynomials) -> None:
        key = seal_form.pair_stream(residues[0], _shape().key)
        self._context = _load(seal_form.with_public_key(_shape().context, key))

    def encrypt(self, rows: RealVector) -> Polynomials:
        """Return fresh ciphertexts, one per row of SLOTS numbers: shape (rows, 2, 2, DEGREE)."""
        primes = len(CIPHERTEXT_MODULI)
        residues = np.empty((len(rows), polynomials.PAIR, primes, DEGREE), dtype=np.uint64)
        for place, row in enumerate(rows):
            encrypted = library().ckks_vector(self._context, row.tolist()).serialize()
            (stream,) = seal_form.streams_of(encrypted)
            residues[place] = seal_form.read_pair(stream, _shape().ciphertext, primes=primes, degree=DEGREE)
        return residues


@final
class Evaluator:
    """An evaluator of copies that has no key to open them. Run by the aggregator, in a worker.

    Args:
        evaluation_keys: The signed keys from the decryptor.

    Raises:
        CiphertextError: The library refuses them, or they are more than evaluation keys.
    """

    def __init__(self, evaluation_keys: bytes) -> None:
        self._context = _load(evaluation_keys)
        if self._context.is_private() or not self._context.has_galois_keys():
            raise CiphertextError("these are no evaluation keys")

    def squared_norm(self, copy: Polynomials) -> Polynomials:
        """Return the encrypted sum of the squares of all slots: shape (1, 2, 1, DEGREE)."""
        return self._summed([vector.square() for vector in self._vectors(copy)])

    def projection(self, copy: Polynomials, direction: RealVector) -> Polynomials:
        """Return the encrypted inner product with public rows of equal shape, of length 1 in all: (1, 2, 1, DEGREE).

        Rows of length `LEAST_ROW` or less are left out: the product lacks at most that part of an update's norm for each.
        """
        vectors = zip(self._vectors(copy), direction, strict=True)
        # A row that is encoded as zeros would give a ciphertext without a key in it, which the library refuses.
        return self._summed(
            [vector.mul(row.tolist()) for vector, row in vectors if np.linalg.norm(row) > LEAST_ROW]
        )

    def _vectors(self, copy: Polynomials) -> list[Any]:
        level = _shape().ciphertext
        return [
            library().ckks_vector_from(
                self._context,
                seal_form.vector([seal_form.pair_stream(pair, level)], length=SLOTS, scale=SCALE),
            )
            for pair in copy
        ]

    def _summed(self, vectors: list[Any]) -> Polynomials:
        """Sum row by row, then over all slots, so that every slot holds the sum; all but the first are blinded."""
        total = vectors[0]
        for vector in vectors[1:]:
            total.add_(vector)
        total.sum_()
        level = _shape().scalar
        (stream,) = seal_form.streams_of(total.serialize())
        whole = library().ckks_vector_from(
            self._context, seal_form.vector([stream], length=SLOTS, scale=SCALE)
        )
        whole.add_(_blinding())
        (stream,) = seal_form.streams_of(whole.serialize())
        return seal_form.read_pair(stream, level, primes=len(SCALAR_MODULI), degree=DEGREE)[None]


def _blinding() -> list[float]:
    """Return random numbers for every slot but the first."""
    words = np.frombuffer(secrets.token_bytes(4 * SLOTS), dtype="<i4").astype(np.float64)
    words *= _BLINDING / 2**31
    words[0] = 0.0
    values: list[float] = words.tolist()
    return values


@final
class _Shape:
    """Values that the library derives from the parameters; none of them is secret."""

    def __init__(self) -> None:
        context = _new_context()
        self.context = context.serialize(**_NOTHING)
        chain = context.seal_context().data
        self.key = Level(parameters=tuple(chain.key_parms_id()), ntt=True)
        self.ciphertext = Level(parameters=tuple(chain.first_parms_id()), ntt=True, scale=SCALE)
        self.scalar = Level(parameters=tuple(chain.last_parms_id()), ntt=True, scale=SCALE)
        found = tuple(modulus.value() for modulus in chain.key_context_data().parms().coeff_modulus())
        if found != MODULI:
            raise CiphertextError(f"the encryption library has the primes {found}, not {MODULI}")


@lru_cache(maxsize=1)
def _shape() -> _Shape:
    return _Shape()


@lru_cache(maxsize=2)
def screening_key(data: bytes) -> ScreeningKey:
    """Return a session's public screening key from the bytes sent to everybody.

    Raises:
        CiphertextError: The bytes are none.
    """
    return ScreeningKey(polynomials.decode(data, count=1, moduli=MODULI, degree=DEGREE))


def _load(data: bytes) -> Any:
    try:
        return library().context_from(data, n_threads=1)
    except (ValueError, RuntimeError) as error:
        raise CiphertextError(f"the encryption library refuses the key: {error}") from None


def _new_context() -> Any:
    context = library().context(
        library().SCHEME_TYPE.CKKS,
        poly_modulus_degree=DEGREE,
        coeff_mod_bit_sizes=[modulus.bit_length() for modulus in MODULI],
        n_threads=1,
    )
    context.global_scale = SCALE
    return context
