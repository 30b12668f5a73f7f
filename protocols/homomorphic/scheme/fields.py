"""Integers in plaintext slots: several to a slot, each with an offset that keeps its field from becoming negative."""

import numpy as np
import numpy.typing as npt

from protocols.homomorphic.scheme.parameters import EncryptionProfile
from protocols.ring import IntegerVector

# Shape (ciphertexts, degree): integers in [0, plain_modulus).
Slots = npt.NDArray[np.int64]


def to_slots(values: IntegerVector, profile: EncryptionProfile, *, members: int) -> Slots:
    """Return one client's values, ready to be encrypted. The rest of the last ciphertext is filled with zeros.

    Fields of the sum are right where no magnitude is above ``profile.offset(members)``. Larger values are carried over into the
    next field of the slot and reduced modulo t, so that whatever comes of the sum is a function of the sum of the values alone.
    """
    count = profile.ciphertexts(len(values))
    cells = np.full(count * profile.values_per_ciphertext, profile.offset(members), dtype=np.int64)
    cells[: len(values)] += values
    fields = cells.reshape(count, profile.fields, profile.degree)
    if cells.min() < 0 or cells.max() >> profile.field_bits:
        return _carried(fields, profile)
    slots = fields[:, -1].copy()
    for place in reversed(range(profile.fields - 1)):
        slots <<= profile.field_bits
        slots |= fields[:, place]
    return slots


def _carried(fields: IntegerVector, profile: EncryptionProfile) -> Slots:
    """Return the slots of fields that do not fit, computed in Python's integers: they would exceed int64."""
    weights = [1 << (profile.field_bits * place) for place in range(profile.fields)]
    slots = sum(fields[:, place].astype(object) * weight for place, weight in enumerate(weights))
    return np.asarray(slots % profile.plain_modulus).astype(np.int64)


def from_slots(slots: Slots, profile: EncryptionProfile, *, members: int, contributors: int) -> IntegerVector:
    """Return the sum of the contributors' values, with padding: shape (ciphertexts * values_per_ciphertext,)."""
    fields = np.empty((len(slots), profile.fields, profile.degree), dtype=np.int64)
    mask = (1 << profile.field_bits) - 1
    for place in range(profile.fields):
        fields[:, place] = (slots >> (place * profile.field_bits)) & mask
    return fields.reshape(-1) - contributors * profile.offset(members)
