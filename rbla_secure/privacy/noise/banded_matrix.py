"""Noise that cancels over rounds: the banded matrix mechanism, for a trusted server and clients that take part rarely.

With a client's rounds at least b apart the server releases in round t, instead of the sum x_t with noise of its own,

    y_t = a_0 x_t + a_1 x_{t-1} + ... + a_{h-1} x_{t-h+1} + g_t,      g_t ~ N_Z(0, V),   h <= b,

and publishes the x' that solves y = a * x': the same sums with noise that takes back some of that of the rounds before. a is a
column of the square root of the matrix of prefix sums, c_0 = 1, c_i = c_{i-1} (2i - 1) / (2i) (Fichtenberger, Henzinger, Upadhyay
2022), cut off after h entries (Kalinin and Lampert 2024, arXiv 2405.13763; banded factors: Choquette-Choo et al. 2023, arXiv 2306.08153),
and rounded to sixteenths. In integers, so that y_t is an integer and its noise a discrete Gaussian; any whole numbers
would keep the claim, and these come within 3 % of the exact root's accuracy (tests). x_t are the integers that clients send.

**Proposition.** V = (z |a| D)^2. One client's integers are at most D long in each round that it takes part in, and these rounds are at
least h apart. Then k of them spend what k Gaussian mechanisms of multiplier z do, under zero-out adjacency, whatever clients
learn from earlier rounds.

*Proof.* Given what was released before, the mean of y_s differs between two neighbouring federations by sum_i a_i d_{s-i}, d_t being
what the client sent in round t, or 0. Of h rounds in a row it takes part in one at most, so the sum has one term at most. Row s
is therefore a Gaussian mechanism of squared sensitivity over variance a_{s-t}^2 |d_t|^2 / V, with t that one round, and over all rows these
add up to at most sum_t |a|^2 D^2 / V = k / z^2: entry by entry of k columns, no two of which meet. Gaussian mechanisms compose by adding these
ratios, chosen in advance or not (Denisov et al. 2022, arXiv 2202.08312, Theorem 2.1; Smith and Thakurta 2022). Solving for x', in
float64, and dividing by public weights look at nothing but y and a. ∎

The ledger counts a client's whole column in the round that it takes part in, as one release of multiplier z; the columns of the last
rounds are cut off and spend less. Each of the h rows is an integer vector with the slack of its own (privacy/noise/__init__.py): a release has h of them.

**When the matrix begins anew.** A band that stays closed, an aborted round and a process that ends leave no row; the next sum of the
band is the first row of a new matrix. Rows before and after have noise of their own and hold disjoint parts of a client's
columns, so the sum above, and with it the proof, is the same. What is lost is accuracy: noise that would have been taken back stays.
Earlier sums are in the memory of the trusted server alone, and never on a disk.

**What it does not do.** Noise cancels in the sum of x' over rounds, so in the adapter only where rows are divided by the same weight
every round: cohorts of a tier are equally large, and drop-outs spoil that little by little. The first rounds are noisier than with independent
noise of the same z, by the factor |a| / a_0.
"""

import math
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np

from protocols.primitives.prg import UniformStream
from protocols.ring import IntegerVector
from rbla_secure.config import Config
from rbla_secure.config.choices import Adjacency, Clipping
from rbla_secure.errors import PlanError, PrivacyError
from rbla_secure.lora.update import RealVector
from rbla_secure.privacy.discrete_gaussian import discrete_gaussian
from rbla_secure.privacy.noise.kind import NoiseKind, configured_grid
from rbla_secure.privacy.noise.mechanism import INDEPENDENT, CorrelatedNoise, Integers, NoisePlace, Values
from rbla_secure.privacy.noise.server_noise import ServerGaussian

# a_0: coefficients are whole sixteenths.
UNIT = 16
# Of clients that take part in every round no noise can cancel.
_LEAST_SEPARATION = 2


def banded_root(width: int) -> tuple[int, ...]:
    """Return the column a with `width` entries, falling from `UNIT` and never below 1.

    Raises:
        PrivacyError: `width` is below 1.
    """
    if width < 1:
        raise PrivacyError(f"width={width} of a banded matrix must be at least 1")
    exact = [1.0]
    while len(exact) < width:
        exact.append(exact[-1] * (2 * len(exact) - 1) / (2 * len(exact)))
    return tuple(max(1, round(UNIT * each)) for each in exact) if width > 1 else INDEPENDENT


def column_norm(column: tuple[int, ...]) -> float:
    """|a|, the L2 norm."""
    return math.sqrt(sum(entry**2 for entry in column))


def inverse(column: tuple[int, ...], rounds: int) -> RealVector:
    """Shape (rounds,): the noise of round t is the sum of entry i times g_{t-i}."""
    found = np.zeros(rounds)
    for at in range(rounds):
        reach = min(at, len(column) - 1)
        earlier = sum(column[i] * found[at - i] for i in range(1, reach + 1))
        found[at] = ((at == 0) - earlier) / column[0]
    return found


def step_growth(column: tuple[int, ...], rounds: int) -> float:
    """Standard deviation of the noise of a round at its largest, over that of g / a_0."""
    return column[0] * math.sqrt(float(np.square(inverse(column, rounds)).sum()))


def noise_left(column: tuple[int, ...], rounds: int) -> float:
    """Root mean square, over all rounds, of the noise in the sum of the rounds so far, over that of independent noise of the same z."""
    summed = np.cumsum(inverse(column, rounds))
    variances = np.cumsum(np.square(summed)) * column_norm(column) ** 2
    return math.sqrt(float(variances.mean()) / ((rounds + 1) / 2))


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """The part of a round that later rows of a band need: its sum, what was published of it, whose inputs it has."""

    summed: IntegerVector
    published: RealVector
    clients: frozenset[str]


@final
class MatrixNoise(CorrelatedNoise):
    """The server's state between the rounds of one process.

    Args:
        column: a, the column of the matrix for a whole run.
    """

    def __init__(self, column: tuple[int, ...]) -> None:
        self._column = column
        self._round = 0
        self._rows: dict[int, deque[_Row]] = {}

    def add(
        self,
        sums: Mapping[int, IntegerVector],
        stds: Mapping[int, float],
        stream: UniformStream,
        *,
        round_number: int,
        clients: Collection[str],
    ) -> dict[int, RealVector]:
        """The noisy sums of a round, in integer units: x' above.

        Args:
            sums: By index of a band that opened: x_t. Of all other bands the matrix begins anew.
            stds: By the same indices: sqrt(V), in the units of y.
            stream: Randomness of g.
            round_number: Larger than in the last call; if not the next one, the matrix begins anew.
            clients: Clients whose inputs may be in the sums.

        Raises:
            PrivacyError: A client takes part again within the width of the band, or rounds go back. Nothing was released.
        """
        if round_number <= self._round:
            raise PrivacyError(f"round {round_number} must come after round {self._round}")
        follows = round_number == self._round + 1
        kept = {index: self._rows[index] for index in sums if follows and index in self._rows}
        self._check_apart(kept, frozenset(clients), round_number)
        self._round, self._rows = round_number, kept
        return {
            index: self._one(index, summed, stds[index], stream, frozenset(clients))
            for index, summed in sorted(sums.items())
        }

    def _check_apart(
        self, kept: Mapping[int, deque[_Row]], clients: frozenset[str], round_number: int
    ) -> None:
        for rows in kept.values():
            if again := [client for row in rows for client in clients & row.clients]:
                raise PrivacyError(
                    f"{min(again)} takes part in round {round_number} and in one of the {len(self._column) - 1} before it: noise "
                    f"that is scaled for rounds {len(self._column)} apart would not cover both"
                )

    def _one(
        self,
        index: int,
        summed: IntegerVector,
        std: float,
        stream: UniformStream,
        clients: frozenset[str],
    ) -> RealVector:
        column = self._column
        rows = self._rows.setdefault(index, deque(maxlen=len(column) - 1))
        combined = column[0] * summed
        for entry, row in zip(column[1:], rows, strict=False):
            combined = combined + entry * row.summed
        # Released: an integer vector with its noise. From here on nothing looks at a sum.
        released = combined + discrete_gaussian(std, len(combined), stream)
        solved = released.astype(np.float64)
        for entry, row in zip(column[1:], rows, strict=False):
            solved = solved - entry * row.published
        published = solved / column[0]
        rows.appendleft(_Row(summed=summed.copy(), published=published, clients=clients))
        return published


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class BandedMatrixGaussian(ServerGaussian):
    """Noise of the server that takes back some of that of the rounds before.

    Args:
        column: a, the column of the matrix that combines the sums of rounds before noise is added.
    """

    column: tuple[int, ...] = INDEPENDENT

    def component_stds(self, band: int) -> tuple[float, ...]:  # noqa: ARG002
        """Return one component, the whole noise, the same in every band, in units of the combined sums: sqrt(V)."""
        return (column_norm(self.column) * math.sqrt(self.variance()),)

    def released_std(self, band: int, rounds: int) -> float:
        """Implement :meth:`GaussianMechanism.released_std` for x'."""
        return self.component_stds(band)[0] * step_growth(self.column, rounds) / self.column[0]

    def open(
        self,
        sums: Integers,
        stream: UniformStream,
        *,
        round_number: int,
        clients: Collection[str],
        correlated: CorrelatedNoise | None,
    ) -> dict[int, Values]:
        """Implement :meth:`GaussianMechanism.open`: return x', which depends on the rounds before."""
        if correlated is None:
            raise AssertionError(
                "a round of a banded matrix must come with what is kept of the rounds before"
            )
        stds = {index: self.component_stds(index)[0] for index in sums}
        return dict(correlated.add(sums, stds, stream, round_number=round_number, clients=clients))

    def correlated(self) -> CorrelatedNoise:
        """Implement :meth:`GaussianMechanism.correlated`: the state is the last rows of every band."""
        return MatrixNoise(self.column)


@final
class BandedMatrixKind(NoiseKind):
    """The server adds all of the noise, and clients take part in turns, rounds apart."""

    place: ClassVar[NoisePlace] = BandedMatrixGaussian.place
    takes_turns: ClassVar[bool] = True

    def check(self, config: Config) -> None:
        """Implement :meth:`NoiseKind.check`: noise is scaled for clients whose rounds are apart."""
        privacy = config.privacy
        if not config.noise_multiplier:
            raise PlanError("privacy.mechanism=banded-matrix must have noise-multiplier above 0")
        if privacy.adjacency is not Adjacency.ZERO_OUT or privacy.clipping is Clipping.ADAPTIVE:
            raise PlanError(
                "privacy.mechanism=banded-matrix must have privacy.adjacency=zero-out and a fixed clip: the schedule of who takes part "
                "is public, and the noise of all rounds is scaled for one norm"
            )
        if not _LEAST_SEPARATION <= privacy.separation <= config.rounds:
            raise PlanError(
                f"privacy.separation={privacy.separation} must lie in {_LEAST_SEPARATION}..{config.rounds} (rounds) with privacy.mechanism=banded-matrix: of "
                "clients that take part in every round no noise can cancel"
            )
        for name, tier in sorted(config.tiers.items()):
            if tier.clients < privacy.separation:
                raise PlanError(
                    f"tiers.{name}.clients={tier.clients} must be >= privacy.separation={privacy.separation}: one of them takes part in "
                    "every round"
                )
            if tier.rounds_apart < privacy.separation:
                raise PlanError(
                    f"tiers.{name}.cohort={tier.cohort} must be 1..{tier.clients // privacy.separation}: of {tier.clients} clients no more "
                    f"can take part in a round and stay away from {privacy.separation - 1} rounds"
                )

    def assumptions(self, config: Config) -> list[str]:
        """Implement :meth:`NoiseKind.assumptions`: the turns of the clients, and how much of the noise is left."""
        left = noise_left(_column(config), config.rounds)
        text = (
            f"a client takes part once in {config.privacy.separation} rounds at most: its turns are public, and it refuses every "
            f"other round; noise that cancels over rounds leaves {left:.3f} of what independent noise of the same epsilon would "
            "leave in the adapter (root mean square over rounds, nobody dropping out)"
        )
        return [text]

    def build(self, config: Config, common: Mapping[str, Any], *, ring_bits: int) -> BandedMatrixGaussian:  # noqa: ARG002
        """Implement :meth:`NoiseKind.build` on the configured grid."""
        return BandedMatrixGaussian(quantizer=configured_grid(config), column=_column(config), **common)


def _column(config: Config) -> tuple[int, ...]:
    """Return the column, no wider than a client's rounds are apart."""
    return banded_root(min(config.privacy.separation, config.rounds))


KIND = BandedMatrixKind()
