"""Cases of single examples: one noisy training step of a client, as a run puts it together, on neighbouring data.

The model is small, and the optimizer is plain descent at rate 1, which hides nothing of a step; everything else that a
run does with a step is post-processing. Everyone outside of the client is one observer, whose view is at most the step.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from rbla_secure.config import Config
from rbla_secure.errors import PrivacyError
from rbla_secure.evaluation.privacy_audit.case import Case, Trial
from rbla_secure.evaluation.privacy_audit.neighbours import Skipped
from rbla_secure.planning.parameters import sample_level
from rbla_secure.privacy.sample_ledger import SampleLedger, SampleTerms, Trained
from rbla_secure.privacy.sampled_gaussian import UNITS, SampledGaussian
from rbla_secure.tasks.configured_training import private_descent
from rbla_secure.tasks.training import Losses

EVERYONE: Final = "everyone outside"
COUNTS_AS_ZERO: Final = "one example counts as zero"
NOT_THERE: Final = "one example is not there"

Values = npt.NDArray[np.float64]
# Examples beside the canary, and the values of a linear model.
_OTHERS: Final = 3
_FEATURES: Final = 400
_PIXELS: Final = 784
_HIDDEN: Final = 16
_TRIES: Final = 200
_LARGE: Final = 1e3


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A model and the examples of one of two neighbours."""

    model: nn.Module
    losses: Losses


# Whether the canary is present -> a fresh stage; the change of the trained values by a step -> a score.
Build = Callable[[bool], Stage]
Score = Callable[[Values], float]


@final
class StepCase(Case):
    """One step on two neighbouring sets of examples."""

    def __init__(self, name: str, relation: str, config: Config, build: Build, score: Score) -> None:
        self._name = name
        self._relation = relation
        self._config = config
        self._build = build
        self._score = score

    @property
    def gaussian(self) -> bool:
        """Whether every example is in every step: sampled steps are no Gaussian mechanism."""
        return self._config.sample_level.sample_rate == 1

    @property
    def name(self) -> str:
        """Name of the case."""
        return self._name

    @property
    def relation(self) -> str:
        """How the neighbours differ."""
        return self._relation

    @property
    def delta(self) -> float:
        """The configured delta."""
        return self._config.sample_level.delta

    @cached_property
    def claims(self) -> Mapping[str, float]:
        """Epsilon in privacy-samples.json after a round of one step."""
        with TemporaryDirectory(prefix="rbla-secure-audit-") as folder:
            terms = SampleTerms(run=bytes(16).hex(), delta=self.delta, max_epsilon=0.0, simulation=False)
            ledger = SampleLedger.open(Path(folder), terms)
            ledger.record(Trained.of(_mechanism(self._config), round_number=1, attempt=1, clients=["client"]))
            return {EVERYONE: ledger.epsilon()}

    def play(self) -> Sequence[Trial]:
        """Run one step on each of the neighbours."""
        return [Trial(there=there, scores={EVERYONE: self._step(there)}) for there in (True, False)]

    def _step(self, there: bool) -> float:  # noqa: FBT001  # the one thing that neighbours differ in
        descent = private_descent(self._config, _mechanism(self._config))
        if descent is None:
            raise AssertionError("only configurations with noise inside clients have these cases")
        stage = self._build(there)
        values = [value for value in stage.model.parameters() if value.requires_grad]
        before = _flat(values)
        descent(stage.model, torch.optim.SGD(values, lr=1.0), stage.losses, 0)
        return self._score(before - _flat(values))


def step_cases(config: Config) -> tuple[list[StepCase], list[Skipped]]:
    """Return the cases of a configuration with noise inside clients, and why others do not apply.

    Raises:
        PrivacyError: Batches and noise are not secret, so that there is nothing to audit.
    """
    if config.privacy.simulation:
        raise PrivacyError(
            "privacy.simulation=true must be false: batches and noise that follow from the seed are the same in every trial, "
            "and their epsilon is worthless anyway"
        )
    rate = config.sample_level.sample_rate
    sampled, drawn = _one_step(config, rate), _one_step(config, 1.0)
    cases = [
        StepCase("largest gradient, every example drawn", COUNTS_AS_ZERO, drawn, _largest, _first_value),
        StepCase("the divisor of a step", NOT_THERE, sampled, _counted, _divided_by(sampled)),
    ]
    skipped = []
    if rate < 1:
        name = f"largest gradient, drawn with probability {rate:g}"
        cases.insert(0, StepCase(name, COUNTS_AS_ZERO, sampled, _largest, _first_value))
    found = _switch()
    name = "others' gradients that the example could switch on"
    if found is None:
        reason = f"of {_TRIES} made-up examples none is rounded otherwise beside another one on this machine"
        skipped.append(Skipped(name=name, reason=reason))
    else:
        cases.append(StepCase(name, NOT_THERE, drawn, found.stage, found.score))
    return cases, skipped


def _one_step(config: Config, rate: float) -> Config:
    wanted = config.sample_level.model_copy(update={"sample_rate": rate})
    training = config.training.model_copy(update={"steps": 1})
    return config.model_copy(update={"sample_level": wanted, "training": training})


def _mechanism(config: Config) -> SampledGaussian:
    found = sample_level(config)
    if found is None:
        raise AssertionError("only configurations with noise inside clients have these cases")
    return found


def _flat(values: list[nn.Parameter]) -> Values:
    flat: Values = torch.cat([value.detach().reshape(-1).double() for value in values]).numpy()
    return flat


def _linear(data: torch.Tensor) -> Stage:
    """Return a linear model at zero, for which the gradient of an example is the example itself."""
    model = nn.Linear(_FEATURES, 1, bias=False).double()
    nn.init.zeros_(model.weight)

    def loss(chosen: torch.Tensor) -> torch.Tensor:
        total: torch.Tensor = model(data[chosen]).sum()
        return total

    made_up = torch.ones(1, _FEATURES, dtype=torch.float64)
    return Stage(model=model, losses=Losses(of=loss, made_up=lambda: model(made_up).sum(), count=len(data)))


def _largest(there: bool) -> Stage:  # noqa: FBT001  # as above
    data = torch.zeros(1 + _OTHERS, _FEATURES, dtype=torch.float64)
    data[0, 0] = _LARGE if there else 0.0
    return _linear(data)


def _first_value(moved: Values) -> float:
    return float(moved[0])


def _counted(there: bool) -> Stage:  # noqa: FBT001  # as above
    return _linear(torch.zeros(there + _OTHERS, _FEATURES, dtype=torch.float64))


def _divided_by(config: Config) -> Score:
    """Return a score that exposes a client that divides by the expected batch of its own number of examples.

    Noise is in whole units, so a step multiplied by its divisor lies on the integers.
    """
    rate, unit = config.sample_level.sample_rate, config.sample_level.clip_norm / UNITS

    def off_the_grid(moved: Values, count: int) -> float:
        units = moved * (rate * count / unit)
        return float(np.abs(units - np.rint(units)).mean())

    def score(moved: Values) -> float:
        return off_the_grid(moved, _OTHERS) - off_the_grid(moved, 1 + _OTHERS)

    return score


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class _Switch:
    """A model with one unit, and an example whose input to it rounds above zero only in a batch with a newcomer."""

    model: nn.Module
    images: torch.Tensor
    direction: Values

    def stage(self, there: bool) -> Stage:  # noqa: FBT001  # as above
        """Return the stage of the victim, and of the newcomer if it is included."""
        images = self.images[: 1 + there]
        start = {name: value.clone() for name, value in self.model.state_dict().items()}
        model = _network()
        model.load_state_dict(start)

        def loss(chosen: torch.Tensor) -> torch.Tensor:
            labels = torch.zeros(len(chosen), dtype=torch.int64)
            return functional.cross_entropy(model(images[chosen]), labels, reduction="sum")

        blank = torch.zeros(1, _PIXELS)
        made_up = lambda: functional.cross_entropy(model(blank), torch.zeros(1, dtype=torch.int64))  # noqa: E731
        return Stage(model=model, losses=Losses(of=loss, made_up=made_up, count=len(images)))

    def score(self, moved: Values) -> float:
        """Return the step's component along the gradient that both examples have where the unit is active."""
        return float(moved @ self.direction)


def _network() -> nn.Sequential:
    first, head = nn.Linear(_PIXELS, _HIDDEN), nn.Linear(_HIDDEN, 10).requires_grad_(False)
    return nn.Sequential(OrderedDict(first=first, bend=nn.ReLU(), head=head))


def _switch() -> _Switch | None:
    """Search random examples for one; None if rounding does not depend on the rest of the batch on this machine."""
    generator = torch.Generator().manual_seed(0)
    model = _network()
    weight, bias = model.get_parameter("first.weight"), model.get_parameter("first.bias")
    with torch.no_grad():
        for value in model.parameters():
            value.copy_(torch.rand(value.shape, generator=generator) - 0.5)
        # The unit lowers the score of label 0: both examples' gradients lower its input, along the same direction.
        for name in ("head.weight", "head.bias"):
            model.get_parameter(name).zero_()
        model.get_parameter("head.weight")[0] = -_LARGE
        for _ in range(_TRIES):
            victim = torch.rand(1, _PIXELS, generator=generator)
            images = torch.cat([victim, 1.05 * victim])
            alone, beside = functional.linear(victim, weight)[0], functional.linear(images, weight)[0]
            for shift in (-alone, -beside):
                off = functional.linear(victim, weight, shift)[0] <= 0
                on = (functional.linear(images, weight, shift) > 0).all(dim=0)
                if units := torch.nonzero(off & on)[:, 0].tolist():
                    bias.fill_(-_LARGE * _PIXELS)
                    bias[units[0]] = shift[units[0]]
                    return _Switch(model=model, images=images, direction=_gradient(model, images[1:]))
    return None


@torch.enable_grad()
def _gradient(model: nn.Module, image: torch.Tensor) -> Values:
    """Return the gradient of one example, scaled to L2 norm 1."""
    loss = functional.cross_entropy(model(image), torch.zeros(1, dtype=torch.int64))
    values = [value for value in model.parameters() if value.requires_grad]
    parts = torch.autograd.grad(loss, values)
    flat: Values = torch.cat([part.reshape(-1).double() for part in parts]).numpy()
    return flat / max(float(np.linalg.norm(flat)), 1e-300)
