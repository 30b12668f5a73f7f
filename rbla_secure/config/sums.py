"""The tables ``quantization``, ``masking`` and ``homomorphic``: integers on the wire, and how they are added unseen."""

from typing import Annotated

from pydantic import Field

from rbla_secure.config.choices import Encryption, Profile, Screen
from rbla_secure.config.fields import CountOrZero, Length, Table


class QuantizationConfig(Table):
    """Fixed point: each coordinate in [-bound, bound] becomes an integer of `bits` bits by stochastic rounding."""

    bits: Annotated[int, Field(ge=2, le=32)] = Field(
        16,
        description="Bits of one coordinate of one client. The sum over a cohort must fit into `quantization.ring-bits`; `check` says "
        "how many bits would. With noise that clients add, the grid follows from the room that the noise needs, not from this key.",
    )
    ring_bits: Annotated[int, Field(ge=16, le=32)] = Field(
        32,
        description="Bits of one coordinate of a sum: 16, 20, 24 or 32, no others. Fewer make uploads smaller where the sums of the "
        "cohort fit.",
    )
    bound: Length = Field(
        0.06,
        description="Largest magnitude of one coordinate of an update. Larger ones are cut off; their share is in `metrics.jsonl` as "
        "`cut_off`.",
    )


class MaskingConfig(Table):
    """Secure sums by masks; read with `secure-sum = "masking"`."""

    profile: Profile = Field(
        Profile.ONE_ANSWER,
        description="The server that it protects against. `one-answer`: a server that lies, for up to 100 clients a round "
        "of whom at most a tenth collude with it. `consistency`: a server that lies, with one exchange more a round. "
        "`semi-honest`: a server that follows the protocol; messages are not signed, at about two thirds of the cost. Above 100 "
        "clients a round every profile is claimed against a server that follows the protocol only. The thresholds and their "
        "sources are in `protocols/profiles.py`.",
    )
    threshold: CountOrZero = Field(
        0,
        description="Survivors needed to open any sum. 0 takes the threshold of the profile; less than that is refused.",
    )


class HomomorphicConfig(Table):
    """Secure sums by encryption; read with `secure-sum = "homomorphic"` (install `rbla-secure[he]`)."""

    profile: Encryption = Field(
        Encryption.BFV_2X20,
        description="Fields x bits of a plaintext slot. `bfv-2x20`: 16-bit inputs of up to 16 clients. `bfv-2x29`: 16-bit inputs of up "
        "to 1,151 clients, at 2.27 times the bytes of float32. `bfv-3x12`: 8-bit inputs, at 1.13 times.",
    )
    verifier: bool = Field(
        False,
        description="Whether a party without keys adds the same inputs and signs the sums before they are decrypted: an aggregator "
        "that lies, also together with clients, then gets nothing else decrypted.",
    )
    screening: Screen = Field(
        Screen.OFF,
        description="What is revealed of norm and cosine of every encrypted update, from a second copy of it under CKKS: `off` nothing, "
        "`verdicts` whether each is within its limit, `values` both to three decimals. The copy has about 13 times the bytes "
        "of float32.",
    )
    min_cosine: Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)] = Field(
        -1.0,
        description="With screening: the least cosine of an update to the previous step of the global adapter. -1 lets every "
        "direction pass.",
    )
