"""Packing and noise: how many integers fit in a ciphertext, how many clients may be added; sources of the numbers.

A plaintext slot holds an integer modulo t. Several *fields* share it, each `field_bits` wide: clients write
``value + offset`` into a field, so that every field of the sum of n clients lies in [0, 2 n offset] and carries nothing
into its neighbour. Honest sums take at most three quarters of a field: what is no encryption of such values decrypts to
slots uniform modulo t, of which L fields look right with probability (3/4)^L or less. A session that fits the ring
Z_{2^field_bits} fits here.

    profile    fields x bits   16-bit inputs   8-bit inputs   bytes over float32
    bfv-2x20   2 x 20          12 clients      1,151          1.69
    bfv-3x12   3 x 12          none            12             1.13
    bfv-2x29   2 x 29          1,151           1,151          2.25
"""

from dataclasses import dataclass
from math import sqrt
from typing import Final, final

from protocols.errors import CapacityError, SessionError
from protocols.session import Session

# A decryption fails when a coefficient's noise exceeds q / (2t). Ours stays below by so many standard deviations.
LEAST_SIGMAS: Final = 16
_MOST_COEFFICIENT_BITS: Final = 63  # a residue and its double fit a 64-bit word


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class EncryptionProfile:
    """Parameters of BFV (Fan and Vercauteren 2012) and of the packing.

    Args:
        name: Name in configurations and reports. Sessions are bound to it, so it names one parameter set for ever.
        source: Source of the numbers.
        degree: N, a power of two: coefficients of a polynomial, and slots of a plaintext.
        plain_modulus: t, a prime with t = 1 modulo 2N.
        moduli: The primes of the key's modulus; a ciphertext has all but the last, whose product is q.
        fields: Integers that share a slot.
        field_bits: Bits of a field.

    Raises:
        CapacityError: The fields do not fit the slot.
    """

    name: str
    source: str
    degree: int
    plain_modulus: int
    moduli: tuple[int, ...]
    fields: int
    field_bits: int

    def __post_init__(self) -> None:
        most = (2**self.field_bits - 2) * sum(2 ** (self.field_bits * place) for place in range(self.fields))
        if most >= self.plain_modulus:
            raise CapacityError(
                f"profile {self.name}: {self.fields} fields of {self.field_bits} bits must stay below "
                f"t={self.plain_modulus}"
            )
        if max(self.moduli).bit_length() > _MOST_COEFFICIENT_BITS:
            raise CapacityError(
                f"profile {self.name}: a prime must have at most {_MOST_COEFFICIENT_BITS} bits"
            )

    @property
    def ciphertext_moduli(self) -> tuple[int, ...]:
        """The primes of a ciphertext."""
        return self.moduli[:-1]

    @property
    def coefficient_bits(self) -> list[int]:
        """Bits of the primes, in the form that the library expects."""
        return [modulus.bit_length() for modulus in self.moduli]

    @property
    def values_per_ciphertext(self) -> int:
        """Integers in one ciphertext."""
        return self.degree * self.fields

    def ciphertexts(self, length: int) -> int:
        """Return the number of ciphertexts of a vector: every vector begins with a new ciphertext."""
        return -(-length // self.values_per_ciphertext)

    def offset(self, members: int) -> int:
        """Return the offset added to every value so that no field becomes negative: the largest value for `members`."""
        return int(3 * 2 ** (self.field_bits - 3) // members)

    def sigmas(self, members: int) -> float:
        """Return how many standard deviations of a coefficient's noise fit below the limit of decryption.

        Encryption under the key's larger modulus and switching down to q leaves rounding noise of variance
        (1 + 2N/3) / 12 for a ternary secret, whatever else there was being divided by the last prime; n fresh
        ciphertexts add n of these.
        """
        modulus = 1
        for prime in self.ciphertext_moduli:
            modulus *= prime
        fresh = sqrt((1 + 2 * self.degree / 3) / 12)
        return modulus / (2 * self.plain_modulus) / (fresh * sqrt(members))

    @property
    def most_members(self) -> int:
        """The most clients that may be added with LEAST_SIGMAS between the noise and a wrong decryption."""
        return int((self.sigmas(1) / LEAST_SIGMAS) ** 2)

    def check_session(self, session: Session) -> None:
        """Refuse a session whose sums would exceed the fields or the noise limit.

        Raises:
            CapacityError: A field could overflow into its neighbour.
            SessionError: More members than the noise leaves room for.
        """
        members = len(session.members)
        if members > self.most_members:
            raise SessionError(
                f"{members} members must be <= {self.most_members} under profile {self.name}: beyond it the noise of "
                f"the sum comes within {LEAST_SIGMAS} standard deviations of a wrong decryption"
            )
        if session.input_bound > self.offset(members):
            raise CapacityError(
                f"input_bound={session.input_bound} must be <= {self.offset(members)} under profile {self.name}: the "
                f"sum of {members} inputs would take more than three quarters of a field of {self.field_bits} bits"
            )


_STANDARD: Final = (
    "; log2 of the key's modulus is 109 at N = 4096: 128 bits by the Homomorphic Encryption Standard (2018), table 1, "
    "ternary secrets. Primes as SEAL's CoeffModulus::Create and PlainModulus::Batching give them"
)

BFV_2X20 = EncryptionProfile(
    name="bfv-2x20",
    source="coefficients [54, 55], t the largest 40-bit prime that allows batching" + _STANDARD,
    degree=4096,
    plain_modulus=1_099_511_480_321,
    moduli=(18_014_398_509_309_953, 36_028_797_018_652_673),
    fields=2,
    field_bits=20,
)

BFV_3X12 = EncryptionProfile(
    name="bfv-3x12",
    source="coefficients [54, 55], t the largest 36-bit prime that allows batching" + _STANDARD,
    degree=4096,
    plain_modulus=68_719_403_009,
    moduli=BFV_2X20.moduli,
    fields=3,
    field_bits=12,
)

BFV_2X29 = EncryptionProfile(
    name="bfv-2x29",
    source="coefficients [36, 36, 37], t the largest 58-bit prime that allows batching" + _STANDARD,
    degree=4096,
    plain_modulus=288_230_376_150_876_161,
    moduli=(68_719_230_977, 68_719_403_009, 137_438_822_401),
    fields=2,
    field_bits=29,
)

PROFILES = (BFV_2X20, BFV_3X12, BFV_2X29)


def by_name(name: str) -> EncryptionProfile:
    """Return the profile of that name.

    Raises:
        SessionError: There is none.
    """
    for profile in PROFILES:
        if profile.name == name:
            return profile
    raise SessionError(f"profile {name!r} must be one of {', '.join(profile.name for profile in PROFILES)}")
