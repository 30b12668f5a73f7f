"""The lifetime ledger: privacy spent on one client's data over all runs, kept by the client, one per set of data.

A run's own ledgers (`ledger.py`, `sample_ledger.py`) end with the run. This one is the client's: it names its data by a label,
fixes delta and the limits before the first run on them, and writes an entry for every attempt at a round before it trains for it.
There are two figures, of neighbours at two levels: the client's whole contribution counts as zero, or one of its examples is
there, or not, or counts as zero.

**What is counted at client level.** `counted` is what a round spends against the strongest observer against whom anything is
claimed, over the fewest clients that its sums may open over (`lifetime_cost.py` in rbla_secure/federation): from its input on,
who drops out is not in the client's hand. `expected` is what it spends if no more drop out than the plan provides for; it is told
beside the other and limits nothing.

**Composition over runs.** Who chooses the noise of a later run may have seen what earlier ones have shown. Gaussian releases
compose to the same figure even so, as long as a limit that was fixed beforehand stops them: the ledger is the privacy filter of
Smith and Thakurta 2022 (arXiv 2210.17520). Sampled steps are held against their limit by a Renyi filter (`renyi_filter.py`); the
figure of settings that were fixed beforehand is told beside it. Without a limit a figure is an odometer: what was spent so far,
with no theorem that covers an adaptive end.

A round without noise of a level, or with noise that follows from a seed, spends everything of it: its multiplier is 0.
"""

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Annotated, Final, Literal, Self, final

from pydantic import Field, StringConstraints, model_validator

from rbla_secure.privacy.figures import exact, rounded_up
from rbla_secure.privacy.ledger import Spent
from rbla_secure.privacy.ledger_fields import (
    Delta,
    Figure,
    Number,
    Record,
    SampleMultiplier,
    SampleRate,
    Slack,
    Steps,
    TotalVariation,
    accounted,
)
from rbla_secure.privacy.ledger_file import Contents, LedgerFile
from rbla_secure.privacy.noise import Release

LABEL_PATTERN: Final = r"[a-z0-9][a-z0-9._-]{0,63}"
Label = Annotated[str, StringConstraints(pattern=rf"^{LABEL_PATTERN}$")]
RunId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]


class Level(StrEnum):
    """The difference between neighbouring sets of data: all that a client contributes, or one of its examples."""

    CLIENT = "client level"
    SAMPLES = "the level of single examples"


class LifetimeTerms(Record):
    """The meaning of the figures in a lifetime ledger; fixed with its first entry.

    Args:
        client: The client that owns the data.
        label: The client's name for the data.
        delta: The delta of both figures over all runs, in (0, 1).
        max_epsilon: Limit at client level; 0 for none.
        max_sample_epsilon: Limit at the level of single examples; 0 for none.
        sample_order: Order of the Renyi filter that keeps `max_sample_epsilon`; 0 where there is no such limit.
    """

    client: Annotated[str, Field(min_length=1)]
    label: Label
    delta: Delta
    max_epsilon: Figure
    max_sample_epsilon: Figure
    sample_order: Annotated[int, Field(ge=0, le=256)]


class Stepped(Record):
    """Steps of sample level; a noise multiplier of 0 spends everything."""

    noise_multiplier: SampleMultiplier
    sample_rate: SampleRate
    steps: Steps
    slack: Slack = 0.0
    total_variation: TotalVariation = 0.0


class Participation(Record):
    """One attempt at a round for which the client was about to train.

    Args:
        run: Identity of the run, hex.
        round: Number of the round in the run, from 1.
        attempt: Number of the attempt at this round, from 1.
        counted: Spent at client level over the fewest clients; null if nothing of the client can be opened.
        expected: The same if no more drop out than the plan provides for.
        samples: Spent at the level of single examples.
    """

    run: RunId
    round: Number
    attempt: Number
    counted: Spent | None
    expected: Spent | None
    samples: Stepped


class _Contents(Contents[LifetimeTerms, Participation]):
    format: Literal[1]
    entries: Annotated[tuple[Participation, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if bool(self.terms.sample_order) != bool(self.terms.max_sample_epsilon):
            raise ValueError("sample_order must be above 0 where there is a limit, and 0 without")
        return self


@final
class LifetimeLedger(LedgerFile[LifetimeTerms, Participation]):
    """One ledger in memory; `budget_folder.py` in rbla_secure/federation keeps it on the disk."""

    _contents = _Contents
    _format = 1
    _writer = "a client"

    def rounds_of(self, run: str) -> set[int]:
        """The rounds of a run, named by its identity in hex, that have an entry."""
        return {entry.round for entry in self._entries if entry.run == run}

    def append(self, entry: Participation) -> None:
        """Take an entry that is on the disk."""
        self._entries.append(entry)

    def exceeded(self, more: Sequence[Participation]) -> dict[Level, str]:
        """The limits that further entries would exceed: by level, what was spent, what it would come to, and the limit.

        Raises:
            PrivacyError: The accountant cannot compute it.
        """
        terms, found = self.terms, {}
        levels = (
            (Level.CLIENT, terms.max_epsilon, self.epsilon),
            (Level.SAMPLES, terms.max_sample_epsilon, self.sample_epsilon),
        )
        for level, limit, figure in levels:
            # Not `after > limit`, which no figure is that is not a number.
            if limit and not (after := figure(more)) <= limit:
                found[level] = (
                    f"the epsilon of all runs at {level} from {rounded_up(figure())} to {rounded_up(after)}, above the lifetime limit of "
                    f"{exact(limit)} at delta={exact(terms.delta)}"
                )
        return found

    def epsilon(self, more: Sequence[Participation] = ()) -> float:
        """Return the counted epsilon at client level, of all runs and of `more`; infinite if a round had no noise.

        Raises:
            PrivacyError: The accountant cannot compute it.
        """
        return self._composed([entry.counted for entry in (*self._entries, *more)])

    def expected_epsilon(self) -> float:
        """Return the epsilon at client level if in no round more dropped out than the plan provided for.

        Raises:
            PrivacyError: The accountant cannot compute it.
        """
        return self._composed([entry.expected for entry in self._entries])

    def sample_epsilon(self, more: Sequence[Participation] = ()) -> float:
        """Return the counted epsilon of single examples: by the filter if limited, else :meth:`fixed_sample_epsilon`.

        Raises:
            PrivacyError: The accountant cannot compute it.
        """
        if not self.terms.sample_order:
            return self._of_steps([*self._entries, *more])
        # The library takes a second to import: only where there is something to account for.
        from rbla_secure.privacy.accounting import SampledSteps  # noqa: PLC0415
        from rbla_secure.privacy.renyi_filter import filtered_epsilon  # noqa: PLC0415

        history = [SampledSteps(**entry.samples.model_dump()) for entry in (*self._entries, *more)]
        with accounted(self.path):
            return filtered_epsilon(history, self.terms.delta, order=self.terms.sample_order)

    def fixed_sample_epsilon(self) -> float:
        """Return the epsilon of single examples if no run's settings depended on what an earlier one had shown.

        Raises:
            PrivacyError: The accountant cannot compute it.
        """
        return self._of_steps(self._entries)

    def _composed(self, spent: Iterable[Spent | None]) -> float:
        from rbla_secure.privacy.accounting import epsilon  # noqa: PLC0415

        releases: list[Release] = [each.release() for each in spent if each is not None]
        with accounted(self.path):
            return epsilon(releases, self.terms.delta)

    def _of_steps(self, entries: Sequence[Participation]) -> float:
        from rbla_secure.privacy.accounting import SampledSteps, epsilon_of_steps  # noqa: PLC0415

        if any(not entry.samples.noise_multiplier for entry in entries):
            return float("inf")
        history = [SampledSteps(**entry.samples.model_dump()) for entry in entries]
        with accounted(self.path):
            return epsilon_of_steps(history, self.terms.delta)
