"""privacy-samples.json: what the privacy of single examples has cost, written down before clients train.

A client's noise protects its examples from everyone outside of it, the server included, so there is one view. Over
clients the epsilons compose in parallel: the figure is that of the client that trained most. The history is what an
accountant composes, (noise multiplier, sampling rate, steps) per round, over all rounds and every resumption.
"""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Literal, Self, final

from pydantic import ValidationError

from rbla_secure.atomic_files import write_atomic
from rbla_secure.errors import BudgetError, PrivacyError
from rbla_secure.privacy.figures import exact, rounded_up
from rbla_secure.privacy.ledger_fields import (
    FORMAT,
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
    accounted,
    unreadable,
)
from rbla_secure.privacy.ledger_state import LedgerState, OpenSession, check_state
from rbla_secure.privacy.sampled_gaussian import SampledGaussian

FILE = "privacy-samples.json"
# What of an attempt an entry counts.
TRAINING = "training"


class SampleTerms(Record):
    """What the epsilons of a ledger mean: one example of one client is there, or not, or counts as zero.

    Args:
        run: Identity of the run.
        delta: Of all epsilons.
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
        round: Of the run.
        attempt: At this round.
        clients: Who was asked to, in order of name.
        noise_multiplier: Of a step.
        sample_rate: Of a step.
        steps: Of the round.
        slack: Of all steps together, as of a release (noise/).
        total_variation: Of all steps together, as of a release.
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
        """What of its attempt it counts: all of it."""
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


class _File(Record):
    format: Literal[2]
    terms: SampleTerms
    entries: tuple[Trained, ...]


@final
class SampleLedger:
    """The ledger of one run, in its folder."""

    def __init__(self, path: Path, terms: SampleTerms, entries: Iterable[Trained] = ()) -> None:
        self._path = path
        self.terms = terms
        self._entries = list(entries)

    @classmethod
    def open(
        cls,
        folder: Path,
        terms: SampleTerms,
        *,
        trained_rounds: Sequence[int] = (),
        known: LedgerState | None = None,
        about: OpenSession | None = None,
    ) -> Self:
        """The ledger of a run folder; a new one only for a run in which nobody has trained.

        Args:
            folder: Of the run.
            terms: That the ledger must have been opened with.
            trained_rounds: Rounds whose results are in the folder, each of which must be in the ledger.
            known: What the audit log holds of the ledger; None if nothing.
            about: The session that the one entry which the log does not hold may be of; None if there is none.

        Raises:
            PrivacyError: The ledger is missing, damaged, of other terms, lacks a round, or is not the one that is known.
        """
        path = folder / FILE
        found = cls.read(folder) if path.exists() else None
        check_state(path, found, known=known, about=about)
        ledger = found or cls(path, terms)
        if ledger.terms != terms:
            raise PrivacyError(
                f"{path} was opened under other terms: restore config.toml, run.json or the ledger"
            )
        if missing := set(trained_rounds) - {entry.round for entry in ledger.entries}:
            raise PrivacyError(
                f"{path} lacks round {min(missing)}, whose result is here: spent privacy would be forgotten"
            )
        return ledger

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The ledger of a run folder, to look at: every byte of it is as :meth:`record` writes it.

        Raises:
            PrivacyError: It is missing, damaged, or in another spelling.
        """
        path = folder / FILE
        try:
            data = path.read_bytes()
            file = _File.model_validate_json(data)
        except OSError as error:
            raise PrivacyError(f"{path} cannot be read: {error.strerror}") from None
        except ValidationError:
            raise unreadable(path, data) from None
        ledger = cls(path, file.terms, file.entries)
        if data != ledger._text(ledger.entries).encode():
            raise PrivacyError(
                f"{path} is not spelt as a run writes it, so something in it may be read otherwise: restore it from a copy"
            )
        return ledger

    @property
    def entries(self) -> Sequence[Trained]:
        """Every attempt so far."""
        return tuple(self._entries)

    def state_after(self, count: int) -> LedgerState:
        """What is to be known of its first entries."""
        return LedgerState.of(self._text(self._entries[:count]), count)

    def _text(self, entries: Sequence[Trained]) -> str:
        return _File(format=FORMAT, terms=self.terms, entries=tuple(entries)).model_dump_json(indent=1) + "\n"

    def record(self, entry: Trained) -> LedgerState:
        """Write an attempt down; when this returns, it is on the disk.

        Returns:
            The state of the ledger, for the audit log.

        Raises:
            BudgetError: It would exceed the budget; the ledger is unchanged, and nobody may train.
        """
        limit = self.terms.max_epsilon
        # Not `after > limit`, which no figure is that is not a number.
        if limit and not (after := self._epsilon([*self._entries, entry])) <= limit:
            raise BudgetError(
                f"round {entry.round} attempt {entry.attempt} would take epsilon of single examples to {rounded_up(after)}, above "
                f"sample-level.max-epsilon={exact(limit)} at delta={exact(self.terms.delta)}: nobody has trained for it"
            )
        entries = (*self._entries, entry)
        text = self._text(entries)
        write_atomic(self._path, text.encode())
        self._entries.append(entry)
        return LedgerState.of(text, len(entries))

    def epsilon(self) -> float:
        """Epsilon so far of the client that trained most; infinite if one of its steps had no noise.

        Raises:
            PrivacyError: The accountant cannot compute it.
        """
        return self._epsilon(self._entries)

    def _epsilon(self, entries: Sequence[Trained]) -> float:
        # The library takes a second to import: only where there is something to account for.
        from rbla_secure.privacy.accounting import SampledSteps, epsilon_of_steps  # noqa: PLC0415

        clients = {client for entry in entries for client in entry.clients}
        histories = {
            tuple(
                SampledSteps(
                    noise_multiplier=entry.noise_multiplier,
                    sample_rate=entry.sample_rate,
                    steps=entry.steps,
                    slack=entry.slack,
                    total_variation=entry.total_variation,
                )
                for entry in entries
                if client in entry.clients
            )
            for client in clients
        }
        with accounted(self._path):
            return max((epsilon_of_steps(history, self.terms.delta) for history in histories), default=0.0)
