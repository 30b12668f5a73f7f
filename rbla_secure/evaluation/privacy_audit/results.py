"""Results of an audit: a row per case and observer, with the largest bound that its trials could have given."""

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """A record that is written to a file: frozen, without unknown fields or converted values."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Row(Record):
    """Result for one observer's view of one case.

    Args:
        case: Name of the case.
        relation: How the neighbours differ.
        observer: The observer whose view is scored.
        claimed: Epsilon as the product writes it.
        delta: Delta of the claim.
        clopper_pearson: Lower bound on epsilon from the scores, for any mechanism.
        gaussian: The same for a Gaussian mechanism; null where the claim is not that of one.
        most_clopper_pearson: The largest value of that bound with this number of trials, all told apart.
        most_gaussian: The same for the Gaussian bound; null where that is not used.
        trials: Number of trials with the canary or without, whichever is smaller.
        trials_needed: Fewest trials of each kind with which a bound could exceed the claim, all told apart. Null
            beyond 10^15.
        too_few: Whether no bound could have exceeded the claim with this number of trials, whatever they showed.
        seconds: Duration of the case's trials for all of its observers, in seconds.
    """

    case: str
    relation: str
    observer: str
    claimed: float
    delta: float
    clopper_pearson: float
    gaussian: float | None
    most_clopper_pearson: float
    most_gaussian: float | None
    trials: int
    trials_needed: int | None
    too_few: bool
    seconds: float

    @property
    def shown(self) -> float:
        """The larger lower bound."""
        return max(self.clopper_pearson, self.gaussian or 0.0)

    @property
    def exceeds(self) -> bool:
        """Whether the larger bound exceeds the claim."""
        return self.shown > self.claimed


class NotTried(Record):
    """A case that does not apply, and why."""

    case: str
    reason: str


class Report(Record):
    """A finished audit.

    Args:
        confidence: Joint confidence of all bounds, in (1/2, 1 - 1e-9].
        rows: Results by case and observer.
        not_tried: The cases that do not apply.
        remarks: The differences from a run, in words.
    """

    confidence: float
    rows: tuple[Row, ...]
    not_tried: tuple[NotTried, ...]
    remarks: tuple[str, ...]

    @property
    def too_few(self) -> tuple[Row, ...]:
        """The claims that this number of trials could not refute."""
        return tuple(row for row in self.rows if row.too_few)

    @property
    def refuted(self) -> tuple[Row, ...]:
        """The claims that are too small."""
        return tuple(row for row in self.rows if row.exceeds)
