"""What an audit has shown: a row per case and observer, beside what its trials could have shown at best."""

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """What is written: frozen, without unknown or converted values."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Row(Record):
    """What one observer's view of one case has shown.

    Args:
        case: Its name.
        relation: Of the neighbours.
        observer: Whose view.
        claimed: Epsilon as the product writes it.
        delta: Of it.
        clopper_pearson: Epsilon that the scores show at least, whatever the mechanism.
        gaussian: The same of a Gaussian one; null where the claim is not that of one.
        most_clopper_pearson: The most that its bound could have been with so many trials, all told apart.
        most_gaussian: The same of the other bound; null where that is not used.
        trials: With the canary or without, of whichever there are fewer.
        trials_needed: With so many of each kind, all told apart, a bound would exceed the claim; with fewer none can. Null
            beyond 10^15.
        too_few: Whether no bound could have exceeded the claim with so many trials, whatever they showed.
        seconds: That the case's trials took, for all of its observers.
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
        """The larger bound."""
        return max(self.clopper_pearson, self.gaussian or 0.0)

    @property
    def exceeds(self) -> bool:
        """Whether more is shown than is claimed."""
        return self.shown > self.claimed


class NotTried(Record):
    """A case that does not apply, and why."""

    case: str
    reason: str


class Report(Record):
    """A finished audit.

    Args:
        confidence: Of all bounds together.
        rows: By case and observer.
        not_tried: The cases that do not apply.
        remarks: What is other than in a run.
    """

    confidence: float
    rows: tuple[Row, ...]
    not_tried: tuple[NotTried, ...]
    remarks: tuple[str, ...]

    @property
    def too_few(self) -> tuple[Row, ...]:
        """The claims that so many trials could not refute."""
        return tuple(row for row in self.rows if row.too_few)

    @property
    def refuted(self) -> tuple[Row, ...]:
        """The claims that are too small."""
        return tuple(row for row in self.rows if row.exceeds)
