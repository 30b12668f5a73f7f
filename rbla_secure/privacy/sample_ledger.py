"""privacy-samples.json: what the privacy of single examples has cost, written down before clients train.

A client's noise protects its examples from everyone outside of it, the server included, so there is one view. Over
clients the epsilons compose in parallel: the figure is that of the client that trained most. The history is what an
accountant composes, (noise multiplier, sampling rate, steps) per round, over all rounds and every resumption.
"""

from collections.abc import Collection, Sequence
from typing import Literal, Self, final

from rbla_secure.errors import BudgetError
from rbla_secure.privacy.figures import exact, rounded_up
from rbla_secure.privacy.ledger_fields import (
    Clients,
    Delta,
    Figure,
    Number,
    Record,
    SampleMultiplier,
    SampleRate,
    Slack,
    Steps,
    TotalVariation,
)
from rbla_secure.privacy.ledger_file import Contents, RunLedger
from rbla_secure.privacy.sampled_gaussian import SampledGaussian

FILE = "privacy-samples.json"
# The part of an attempt that an entry counts.
TRAINING = "training"


class SampleTerms(Record):
    """The meaning of the epsilons in a ledger: one example of one client is there, or not, or counts as zero.

    Args:
        run: Identity of the run.
        delta: The delta of all epsilons, in (0, 1).
        max_epsilon: Budget; 0 for none.
        simulation: Batches and noise follow from a seed: worthless as protection.
    """

    run: str
    delta: Delta
    max_epsilon: Figure
    simulation: bool


class Trained(Record):
    """One attempt at a round for which clients were about to train.

    Args:
        round: Number of the round in the run, from 1.
        attempt: Number of the attempt at this round, from 1.
        clients: Clients that were asked to train, in order of name.
        noise_multiplier: z, the noise of a step over its sensitivity.
        sample_rate: q, the probability of an example to be in a step's batch.
        steps: Steps of the round, 1 or more.
        slack: Slack of all steps together, defined as for a release (noise/).
        total_variation: Total variation distance of all steps together, defined as for a release.
    """

    round: Number
    attempt: Number
    clients: Clients
    noise_multiplier: SampleMultiplier
    sample_rate: SampleRate
    steps: Steps
    slack: Slack = 0.0
    total_variation: TotalVariation = 0.0

    @property
    def kind(self) -> str:
        """The part of its attempt that it counts: all of it."""
        return TRAINING

    @classmethod
    def of(
        cls, mechanism: SampledGaussian, *, round_number: int, attempt: int, clients: Collection[str]
    ) -> Self:
        """The entry of one attempt."""
        return cls(
            round=round_number,
            attempt=attempt,
            clients=tuple(sorted(clients)),
            noise_multiplier=mechanism.noise_multiplier,
            sample_rate=mechanism.sample_rate,
            steps=mechanism.steps,
            slack=mechanism.slack,
            total_variation=mechanism.total_variation,
        )


class _Contents(Contents[SampleTerms, Trained]):
    format: Literal[2]


@final
class SampleLedger(RunLedger[SampleTerms, Trained]):
    """The ledger of one run at the level of single examples."""

    _contents = _Contents
    _file = FILE

    def check(self, entry: Trained, *others: Trained) -> None:
        """Refuse an attempt that would exceed the budget with its entry, or all of them.

        Raises:
            BudgetError: It would.
        """
        limit = self.terms.max_epsilon
        # Not `after > limit`, which no figure is that is not a number.
        if limit and not (after := self._epsilon([*self._entries, entry, *others])) <= limit:
            raise BudgetError(
                f"round {entry.round} attempt {entry.attempt} would take epsilon of single examples to {rounded_up(after)}, above "
                f"sample-level.max-epsilon={exact(limit)} at delta={exact(self.terms.delta)}: nobody has trained for it"
            )

    def epsilon(self) -> float:
        """Epsilon so far of the client that trained most; infinite if one of its steps had no noise.

        Raises:
            PrivacyError: The accountant cannot compute it.
        """
        return self._epsilon(self._entries)

    @classmethod
    def _named(cls, round_number: int, kind: str) -> str:  # noqa: ARG003  # a round has one entry
        return f"round {round_number}"

    def _epsilon(self, entries: Sequence[Trained]) -> float:
        # The library takes a second to import: only where there is something to account for.
        from rbla_secure.privacy.accounting import SampledSteps, epsilon_of_steps  # noqa: PLC0415

        def steps(entry: Trained) -> SampledSteps:
            return SampledSteps(
                noise_multiplier=entry.noise_multiplier,
                sample_rate=entry.sample_rate,
                steps=entry.steps,
                slack=entry.slack,
                total_variation=entry.total_variation,
            )

        return self._most_of_a_client(entries, steps, epsilon_of_steps)
