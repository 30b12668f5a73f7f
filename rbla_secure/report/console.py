"""Lines, tables and a progress bar for people. On a terminal with a bar, elsewhere as plain lines."""

from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self, final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from rbla_secure.config import Config
from rbla_secure.federation.observer import SilentObserver
from rbla_secure.planning.cohort import cohort_size
from rbla_secure.planning.disclosure import Learned
from rbla_secure.planning.opening import band_quorum, opening_rule
from rbla_secure.planning.promises import Promises
from rbla_secure.planning.warnings import warnings
from rbla_secure.report.defences import defence_lines, group_margins
from rbla_secure.report.summary import Seconds, Summary
from rbla_secure.run_folder.records import RoundRecord, RoundSeconds

if TYPE_CHECKING:  # it brings torch, which takes seconds to import
    from rbla_secure.evaluation.suite import Cell


def kilobytes(size: float) -> str:
    """A size for people."""
    return f"{size / 1000:.1f} kB"


def milliseconds(seconds: float) -> str:
    """A short time for people."""
    return f"{1000 * seconds:.1f} ms"


def round_line(record: RoundRecord, seconds: RoundSeconds, *, rounds: int) -> str:
    """Return the line of one finished round."""
    clients = len(record.cohort)
    head = f"round {record.round:>{len(str(rounds))}}/{rounds}"
    cost = f"eval {milliseconds(seconds.evaluation)}"
    if seconds.training is not None and seconds.protocol is not None and seconds.clients is not None:
        cost = (
            f"train {seconds.training:.2f} s ({milliseconds(seconds.training / clients)}/client)  "
            f"protocol {milliseconds(seconds.protocol)} ({milliseconds(seconds.clients / clients)}/client)  {cost}"
        )
    dropped = "".join(f"  {client} out at {stage}" for client, stage in record.dropped.items())
    if record.aborted:
        return f"{head}  ABORTED, adapter unchanged: {record.aborted}  {cost}{dropped}"
    refused = ", ".join(record.refused_bands) or "none"
    return (
        f"{head}  accuracy {record.accuracy:.3f}  loss {record.loss:.3f}  "
        f"survivors {len(record.survivors)}/{clients}  refused bands {refused}  "
        f"up {kilobytes(record.bytes_up_per_client)}/client  {cost}{dropped}"
    )


@final
class ConsoleReport(SilentObserver):
    """Prints a run's progress and result.

    Args:
        console: Where it is printed; a terminal gets a progress bar.
        config: Configuration of the run.
    """

    def __init__(self, console: Console, config: Config) -> None:
        self._console = console
        self._config = config
        self._bar = Progress(
            TextColumn("rounds"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("accuracy {task.fields[accuracy]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("rounds", total=config.rounds, accuracy="-")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def line(self, text: str) -> None:
        """Print one line unwrapped, however wide."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def begin(self, run: str) -> None:
        """Print what the run will do. It comes before the plan, which takes seconds to build."""
        config, promises = self._config, Promises.build(self._config)
        tiers = ", ".join(
            f"{cohort_size(tier)} x rank {tier.rank} ({name})"
            for name, tier in sorted(config.tiers.items(), key=lambda item: item[1].rank)
        )
        self.line(f"run {run}")
        self.line(
            f"{config.secure_sum} sum, {config.average} average with gamma {config.gamma:g}; per round {tiers}; "
            f"{opening_rule(promises)}"
        )
        self.line(f"all parties run in this process{promises.mode.claim(config)} (threat_model.md)")
        for text in (*defence_lines(promises), *(f"warning: {warning}" for warning in warnings(promises))):
            self.line(text)

    def base(self, accuracy: float, loss: float, *, examples: int) -> None:
        """Print accuracy and loss of the frozen base."""
        self.line(f"base  accuracy {accuracy:.3f}  loss {loss:.3f}  on {examples} held-out examples")

    def resumed(self, rounds: int) -> None:
        """Print the last finished round of a resumed run."""
        self.line(f"resumed after round {rounds}")
        self._bar.update(self._task, completed=rounds)

    def round_saved(self, record: RoundRecord, seconds: RoundSeconds) -> None:
        """Print a finished round."""
        self.line(round_line(record, seconds, rounds=self._config.rounds))
        for client, reason in record.refusals.items():
            self.line(f"  {client} refused or was turned away: {reason}")
        for name, reason in record.rejected.items():
            self.line(f"  {name} was not kept: {reason}")
        for reason in record.checks:
            self.line(f"  {reason}")
        for band, reason in record.refused_bands.items():
            self.line(f"  {band} stayed closed, unchanged: {reason}")
        self._bar.update(self._task, completed=record.round, accuracy=f"{record.accuracy:.3f}")

    def end(self, summary: Summary, learned: Sequence[Learned]) -> None:
        """Print the result, its cost, and what each party learnt."""
        self._bar.stop()
        accuracy, seconds = summary.accuracy, summary.seconds
        self.line(
            f"accuracy {accuracy.final:.3f} (base {accuracy.base:.3f}, mean of the last rounds {accuracy.last5:.3f}); "
            f"{summary.dropouts} drop-outs, {summary.refused_bands} refused bands, "
            f"{summary.aborted_rounds} aborted rounds"
        )
        self.line(
            f"{_seconds_line(seconds, rounds=summary.rounds)}; up {kilobytes(summary.bytes_up_per_client)} per client and round"
        )
        for cost in summary.services:
            self.line(
                f"{cost.service}, a process of its own: {milliseconds(cost.seconds / cost.rounds)} a round, "
                f"{kilobytes(cost.bytes_to / cost.rounds)} to it, {kilobytes(cost.bytes_from / cost.rounds)} from it"
            )
        if summary.suspicion:
            named = ", ".join(
                f"{each.client} {each.suspicion:.2f} of {each.rounds:.1f} rounds"
                for each in summary.suspicion
            )
            self.line(f"most often in suspicious groups, the past fading (not a proof): {named}")
        for spent in (summary.privacy, summary.sample_privacy):
            for text in spent.lines() if spent else ():
                self.line(text)
        self._table("what each party learned", ("party", "saw", "did not see"), learned)
        self.line(f"adapter sha256 {summary.adapter_sha256}")
        self.line(f"run folder {summary.run}")

    def checked(self, plan_bands: Iterable[Sequence[str]]) -> None:
        """Print the bands of a plan that passed its checks."""
        self._table(
            "rank bands", ("band", "holders per round", "quorum", "drop-outs it survives"), plan_bands
        )

    def tiers(self, rows: Iterable[Sequence[str]]) -> None:
        """Print per tier whether a server that sends a bad model can open single updates of it."""
        self._table("tiers, and a server that sends a model that is dead for others", ("tier", ""), rows)

    def account(self, lines: Iterable[str], ratios: Iterable[Sequence[str]] = ()) -> None:
        """Print the privacy that was or would be spent, with signal-to-noise ratios per band."""
        for text in lines:
            self.line(text)
        if rows := list(ratios):
            columns = ("band", "holders per round", "signal to noise, one round")
            self._table("what noise leaves of the signal, a rule of thumb", columns, rows)

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Print a table of figures."""
        self._table(title, columns, rows)

    def _table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        table = Table(title=title, title_justify="left", title_style="bold")
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*row)
        self._console.print(table)


def _seconds_line(seconds: Seconds, *, rounds: int) -> str:
    """Return the seconds of a run; under noise only those that depend on no example and no draw of noise."""
    if seconds.training is None or seconds.protocol is None or seconds.total is None:
        return f"seconds: evaluation {seconds.evaluation:.2f}; under noise no others are told"
    return (
        f"seconds: training {seconds.training:.1f}, protocol {seconds.protocol:.2f} "
        f"({milliseconds(seconds.protocol / rounds)} a round), evaluation {seconds.evaluation:.2f}, total {seconds.total:.1f}"
    )


@final
class CellReport:
    """Prints the progress of an evaluation: a bar on a terminal, a line per cell elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("cells", total=None)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def cell(self, cell: "Cell", total: int) -> None:
        """Print a finished cell."""
        self._bar.update(self._task, advance=1, total=total, description=f"{cell.defence}, {cell.attack}")
        told = f"accuracy {cell.accuracy:.3f}, trigger {cell.success:.3f}"
        text = f"{cell.defence}, {cell.attack}, seed {cell.seed}: {f'not tested: {cell.not_tested}' if cell.not_tested else told}"
        if not self._console.is_terminal:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def band_rows(promises: Promises) -> list[tuple[str, str, str, str]]:
    """Return per band its rows, holders per round, quorum, and how many holders may drop out before it stays closed."""
    rows = []
    spare = promises.members - promises.asked_threshold
    for each in promises.bands:
        if each.groups:
            quorum, margin = group_margins(promises, each.groups)
        else:
            # No list of survivors opens a band that has too few holders even in a whole cohort.
            asked = each.opens or promises.whoever_is_there
            quorum = band_quorum(promises, each.holders) if asked else promises.row_quorum
            margin = each.holders - quorum
        rows.append((str(each.band), str(each.holders), str(quorum), str(min(margin, spare))))
    return rows
