"""An evaluation: one run per attack, defence and seed, each saved when it ends.

The file evaluation.json holds the terms of the evaluation and one outcome per cell. It is written after every cell, so an
interrupted evaluation continues where it stopped. A folder with other terms is refused; results are never mixed.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import final

from pydantic import BaseModel, ConfigDict, ValidationError

from rbla_secure.atomic_files import write_atomic
from rbla_secure.config import Config
from rbla_secure.errors import RunFolderError
from rbla_secure.evaluation.attacked_run import Grounds, attacked_run
from rbla_secure.evaluation.defences import EvaluatedDefence, defences
from rbla_secure.evaluation.poisoning.registry import BACKDOORS, AttackName, TriggerName
from rbla_secure.tasks.training import use_one_thread

FILE = "evaluation.json"
# 1 had cells whose attackers had been refused; they cannot be distinguished from the others.
FORMAT = 2
QUICK_ATTACKS = (
    AttackName.NONE,
    AttackName.SIGN_FLIP,
    AttackName.ALIE,
    AttackName.BACKDOOR,
    AttackName.RANK_INFLATION,
    AttackName.ADAPTIVE,
)
# Withstood: at most this loss of accuracy in the mean over seeds, and at most this success of the trigger on each seed.
MAX_LOSS, MAX_SUCCESS = 0.05, 0.10


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationTerms:
    """Terms of an evaluation.

    Args:
        config: The configuration as its user would run it.
        attacks: The attacks, one column each; includes `none`.
        share: Share of all clients that attack, in (0, 1/2).
        seeds: Seeds of each cell, one run per seed.
        quick: Whether to evaluate only a few rows.
        trigger: Trigger of backdoors; other attacks do not use it.
    """

    config: Config
    attacks: tuple[AttackName, ...]
    share: float
    seeds: tuple[int, ...]
    quick: bool
    trigger: TriggerName = TriggerName.CORNER

    @classmethod
    def of(
        cls,
        config: Config,
        *,
        share: float,
        seeds: int,
        quick: bool,
        trigger: TriggerName = TriggerName.CORNER,
    ) -> "EvaluationTerms":
        """Return terms with all attacks, or with the few most informative ones if `quick`."""
        return cls(
            config=config,
            attacks=QUICK_ATTACKS if quick else tuple(AttackName),
            share=share,
            seeds=tuple(config.seed + number for number in range(seeds)),
            quick=quick,
            trigger=trigger,
        )

    def rows(self) -> list[EvaluatedDefence]:
        """The defences, one row each."""
        return defences(self.config, share=self.share, quick=self.quick)

    def cells(self) -> Iterator[tuple[EvaluatedDefence, AttackName, int]]:
        """Yield every run in order: by seed, so that an early stop leaves whole tables."""
        for seed in self.seeds:
            for defence in self.rows():
                if not defence.refused:
                    for attack in self.attacks:
                        yield defence, attack, seed


class Cell(BaseModel):
    """Result of one run."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    defence: str
    attack: str
    seed: int
    accuracy: float
    success: float
    attackers_rejected: float | None
    honest_rejected: float | None
    rejected_by_rank: dict[str, float]
    bands_closed: float
    attacks_seen: int
    strength: float | None
    refused: str
    seconds: float

    @property
    def not_tested(self) -> str:
        """Why this run says nothing about its attack; empty if it does."""
        if self.refused:
            return self.refused
        if self.attack != AttackName.NONE and not self.attacks_seen:
            return "no update of an attacker reached a sum"
        return ""

    @property
    def key(self) -> tuple[str, str, int]:
        """Defence, attack and seed."""
        return self.defence, self.attack, self.seed


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: int
    config: str
    share: float
    trigger: TriggerName
    cells: list[Cell]


class _Format(BaseModel):
    format: int


# Called with every finished cell and the number of all cells.
Observe = Callable[[Cell, int], None]


def evaluate(folder: Path, terms: EvaluationTerms, observe: Observe) -> list[Cell]:
    """Run the cells of an evaluation that the folder lacks.

    Raises:
        RunFolderError: The folder holds an evaluation of other terms, or a damaged one.
        EvaluationError: An attack did not take place: its cell is not written, and the cells before it are kept.
        RblaSecureError: The configuration itself is refused.
    """
    use_one_thread()
    folder.mkdir(parents=True, exist_ok=True)
    done = {cell.key: cell for cell in read(folder, terms)}
    every = list(terms.cells())
    grounds: dict[int, Grounds] = {}
    found = []
    for defence, attack, seed in every:
        key = (defence.name, attack.value, seed)
        if key not in done:
            config = defence.config.model_copy(update={"seed": seed})
            ground = grounds.setdefault(seed, Grounds(config))
            outcome = attacked_run(config, attack, share=terms.share, grounds=ground, trigger=terms.trigger)
            done[key] = Cell(defence=defence.name, attack=attack.value, seed=seed, **asdict(outcome))
            _write(folder, terms, list(done.values()))
        found.append(done[key])
        observe(done[key], len(every))
    return found


def read(folder: Path, terms: EvaluationTerms) -> list[Cell]:
    """Return the cells that a folder has already; none if it has no evaluation.

    Raises:
        RunFolderError: They belong to another evaluation, or are damaged.
    """
    path = folder / FILE
    if not path.exists():
        return []
    data = path.read_bytes()
    if _format(data) not in (FORMAT, None):
        raise RunFolderError(
            f"{path} is of format {_format(data)} and must be of {FORMAT}, where an attack that did not happen is no outcome: "
            "choose another --out folder"
        )
    try:
        file = _File.model_validate_json(data)
    except ValidationError:
        raise RunFolderError(f"{path} is damaged: delete it to begin anew") from None
    if (file.config, file.share, file.trigger) != (terms.config.digest().hex(), terms.share, terms.trigger):
        raise RunFolderError(
            f"{path} is of another configuration, share of attackers or trigger: choose another --out folder"
        )
    return file.cells


def _format(data: bytes) -> int | None:
    """Return the format number in a file; None if it cannot be read."""
    try:
        return _Format.model_validate_json(data).format
    except ValidationError:
        return None


def _write(folder: Path, terms: EvaluationTerms, cells: list[Cell]) -> None:
    file = _File(
        format=FORMAT,
        config=terms.config.digest().hex(),
        share=terms.share,
        trigger=terms.trigger,
        cells=cells,
    )
    write_atomic(folder / FILE, file.model_dump_json(indent=1).encode() + b"\n")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Summed:
    """Figures of one cell over its seeds.

    Args:
        accuracy: Accuracy, mean over seeds, in [0, 1].
        success: Success rate of the trigger, mean over seeds, in [0, 1].
        highest: Highest success rate over seeds: a mean hides the seeds on which an attack works.
        loss: Accuracy without an attack under the same defence, minus `accuracy`.
        not_tested: Why one of its seeds was not attacked, so that the figures mean nothing; empty if all were.
    """

    accuracy: float
    success: float
    highest: float
    loss: float
    not_tested: str

    def withstood(self, attack: AttackName) -> bool:
        """Return whether the attack was tried, little accuracy was lost, and the trigger of a backdoor seldom works."""
        if self.not_tested:
            return False
        return self.loss <= MAX_LOSS and (attack not in BACKDOORS or self.highest <= MAX_SUCCESS)

    def failed(self, attack: AttackName) -> bool:
        """Return whether the attack was tried and not withstood. One not tried neither failed nor was withstood."""
        return not self.not_tested and not self.withstood(attack)


def summed(cells: Sequence[Cell]) -> dict[tuple[str, AttackName], Summed]:
    """Return the figures by defence and attack."""
    found: dict[tuple[str, AttackName], Summed] = {}
    for name in dict.fromkeys(cell.defence for cell in cells):
        row = [cell for cell in cells if cell.defence == name]
        for attack in AttackName:
            seeds = [cell for cell in row if cell.attack == attack]
            if not seeds:
                continue
            accuracy = fmean(cell.accuracy for cell in seeds)
            found[name, attack] = Summed(
                accuracy=accuracy,
                success=fmean(cell.success for cell in seeds),
                highest=max(cell.success for cell in seeds),
                loss=0.0,
                not_tested=next((cell.not_tested for cell in seeds if cell.not_tested), ""),
            )
        calm = found.get((name, AttackName.NONE))
        for (row_name, attack), each in list(found.items()):
            if row_name == name and calm is not None:
                found[name, attack] = replace(each, loss=calm.accuracy - each.accuracy)
    return found


def worst(row: dict[AttackName, Summed]) -> str:
    """Name the worst attack: the trigger that works most often, or else the largest loss of accuracy."""
    attacked = {
        attack: each for attack, each in row.items() if attack is not AttackName.NONE and not each.not_tested
    }
    if not attacked:
        return "-"
    by_trigger = {attack: each for attack, each in attacked.items() if attack in BACKDOORS}
    if by_trigger:
        attack = max(by_trigger, key=lambda name: by_trigger[name].success)
        if by_trigger[attack].success > MAX_SUCCESS:
            return f"{attack}: trigger works {by_trigger[attack].success:.0%}"
    attack = max(attacked, key=lambda name: attacked[name].loss)
    return f"{attack}: {attacked[attack].loss * 100:+.1f} points lost"
