"""The choices that a configuration offers by name. Those that carry a guarantee say which where they are used."""

from enum import StrEnum


class SecureSumMode(StrEnum):
    """How the server obtains sums of the clients' integers."""

    PLAIN = "plain"
    MASKING = "masking"
    HOMOMORPHIC = "homomorphic"


class AverageRule(StrEnum):
    """How totals per rank band become one average."""

    RBLA = "rbla"
    ZERO_PAD = "zero-pad"
    FEDAVG = "fedavg"


class Weighting(StrEnum):
    """A client's weight in the average."""

    UNIFORM = "uniform"
    EXAMPLES = "examples"


class DataSet(StrEnum):
    """The labelled images of the task."""

    MNIST_5K = "mnist-5k"
    MNIST = "mnist"
    FASHION_MNIST = "fashion-mnist"


class Upload(StrEnum):
    """Which bands a client uploads."""

    BANDED = "banded"
    PADDED = "padded"


class Profile(StrEnum):
    """Against which server the masking protocol protects, and how clients check the survivor list."""

    SEMI_HONEST = "semi-honest"
    ONE_ANSWER = "one-answer"
    CONSISTENCY = "consistency"


class Encryption(StrEnum):
    """How many integers of how many bits share a plaintext slot (protocols/homomorphic/scheme/parameters.py)."""

    BFV_2X20 = "bfv-2x20"
    BFV_3X12 = "bfv-3x12"
    BFV_2X29 = "bfv-2x29"


class Screen(StrEnum):
    """The information learnt of each encrypted update before the sum (protocols/homomorphic/screening/screening.py)."""

    OFF = "off"
    VERDICTS = "verdicts"
    VALUES = "values"


class Partition(StrEnum):
    """How the private examples are dealt to the clients."""

    IID = "iid"
    DIRICHLET = "dirichlet"


class Factors(StrEnum):
    """Which factors of the adapter are trained and sent."""

    BOTH = "both"
    LORA_B = "lora-b"


class Rest(StrEnum):
    """The treatment of the rows of the global adapter beyond a client's rank, in that client's round.

    FOLDED: they are sent to it and folded into its frozen weights, so that all clients compute from one function.
    DROPPED: it computes from its own rows alone, as RBLA is published; clients of one rank form a class of view.
    """

    FOLDED = "folded"
    DROPPED = "dropped"


class RowOrder(StrEnum):
    """The order in which a client trains the rows that it holds.

    TOGETHER: all in every step. Clients of unequal rank start from one function, and part from it with the first step.
    IN_TURNS: one rank band after another, each for the whole of the configured epochs or batches, the other rows folded. What a
        band learns is then the same function of model, examples and seed for all who hold it, to the bit; and since each is
        clipped and rounded alone, so is what is sent of it.
    """

    TOGETHER = "together"
    IN_TURNS = "in-turns"


class Mechanism(StrEnum):
    """Who adds the noise of client-level differential privacy, and how.

    DISTRIBUTED: every client a share.
    CENTRAL: the server, independently in every round.
    BANDED_MATRIX: the server, so that the noise of a round takes back some of that of the rounds before; clients take part in
        turns, rounds apart (rbla_secure/privacy/noise/banded_matrix.py).
    """

    DISTRIBUTED = "distributed"
    CENTRAL = "central"
    BANDED_MATRIX = "banded-matrix"


class Adjacency(StrEnum):
    """The definition of a neighbouring federation: one client sends zeros, or one client is not there at all."""

    ZERO_OUT = "zero-out"
    ADD_OR_REMOVE = "add-or-remove"


class Clipping(StrEnum):
    """How a client's update is bounded."""

    FLAT = "flat"
    PER_LAYER = "per-layer"
    ADAPTIVE = "adaptive"


class BandWeights(StrEnum):
    """The factors by which rows of a rank band are multiplied before the clip, and divided after the average.

    EQUAL: by nothing.
    HOLDERS: by what leaves the least noise in the average, given the holders of each band (privacy/band_weights.py).
    """

    EQUAL = "equal"
    HOLDERS = "holders"


class Optimizer(StrEnum):
    """The local optimizer; its state never outlives a round."""

    SGD = "sgd"
    ADAM = "adam"


class FilterName(StrEnum):
    """The filter between single updates and their average (rbla_secure/robustness/registry.py)."""

    NONE = "none"
    COORDINATE_MEDIAN = "coordinate-median"
    TRIMMED_MEAN = "trimmed-mean"
    KRUM = "krum"
    MULTI_KRUM = "multi-krum"
    GEOMETRIC_MEDIAN = "geometric-median"
    CENTERED_CLIPPING = "centered-clipping"
    NORM_BOUND = "norm-bound"
    DIVIDE_AND_CONQUER = "divide-and-conquer"
    FL_TRUST = "fl-trust"
    COSINE_TO_PREVIOUS = "cosine-to-previous"
    TIER_DNC_COSINE = "tier-dnc-cosine"


class PreStepName(StrEnum):
    """The step that changes single updates before the filter."""

    NONE = "none"
    NEIGHBOR_MIXING = "neighbor-mixing"
    BUCKETING = "bucketing"


class AcrossRule(StrEnum):
    """How group averages become one."""

    COORDINATE_MEDIAN = "coordinate-median"
    TRIMMED_MEAN = "trimmed-mean"
