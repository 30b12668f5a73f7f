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
rounds are cut off and spend less. Each of the h rows is an integer vector with the slack of its own (noise.py): a release has h of them.

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
from typing import final

import numpy as np

from protocols.primitives.prg import UniformStream
from protocols.ring import IntegerVector
from rbla_secure.errors import PrivacyError
from rbla_secure.lora.update import RealVector
from rbla_secure.privacy.discrete_gaussian import discrete_gaussian

# a_0: coefficients are whole sixteenths.
UNIT = 16
INDEPENDENT = (1,)


def banded_root(width: int) -> tuple[int, ...]:
    """The column a of so many entries, falling from `UNIT` and never below 1.

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
    """What later rows of a band need of a round: its sum, what was published of it, and whose inputs it has."""

    summed: IntegerVector
    published: RealVector
    clients: frozenset[str]


@final
class MatrixNoise:
    """The server's state between the rounds of one process.

    Args:
        column: a, of a whole run.
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
            stream: Of g.
            round_number: Above that of the last call; if not the next one, the matrix begins anew.
            clients: Whose inputs may be in the sums.

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
