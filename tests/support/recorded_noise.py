"""The noise of a run as it was really drawn, and an accountant that computes its epsilons from that. Shares no code with ours.

While a run goes on, :class:`Recorder` notes the standard deviation of every draw of noise: whose, for which band of which
attempt, and which of it the server took off again. What was opened over whom is read from metrics.jsonl. From these alone, and
the norm that rounding may have, the accountant computes what each observer's view has cost: per band the variance that the
observer does not know, per attempt the least of them over the bands, per client the sum over the attempts that summed it.
"""

import json
import math
import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from rbla_secure.federation import noise_components
from rbla_secure.federation.client import contribution, participant
from rbla_secure.federation.server import opened_totals
from rbla_secure.privacy import sample_level
from rbla_secure.privacy.noise import GaussianMechanism
from rbla_secure.privacy.noise import mechanism as noise_mechanism
from tests.support import privacy_loss
from tests.support.own_epsilon import of_gaussian

# A round, and the attempt at it.
Attempt = tuple[int, int]
SERVER = "the server"


@dataclass
class Recorder:
    """Variances of the noise that was drawn, in squared integer units.

    `drawn` is by attempt, band and party: of the noise on one coordinate. `removed` the same, of what the server took off.
    `lengths` has the coordinates of each band, `grids` by attempt the bits of an integer and the clip norm, `steps` by client the
    standard deviation and dimension of every noisy step of its training.
    """

    drawn: dict[Attempt, dict[int, dict[str, float]]] = field(default_factory=dict)
    removed: dict[Attempt, dict[int, dict[str, float]]] = field(default_factory=dict)
    lengths: dict[int, int] = field(default_factory=dict)
    grids: dict[Attempt, tuple[int, float]] = field(default_factory=dict)
    steps: dict[str, list[tuple[float, int]]] = field(default_factory=lambda: defaultdict(list))
    _party: str = SERVER
    _attempt: Attempt = (0, 0)
    _bands: list[int] = field(default_factory=list)

    def note(self, where: dict[Attempt, dict[int, dict[str, float]]], band: int, sigma: float) -> None:
        """One draw more."""
        by_party = where.setdefault(self._attempt, {}).setdefault(band, defaultdict(float))
        by_party[self._party] += sigma**2


@contextmanager
def recording(patch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    """Note every draw of noise on sums while a run goes on."""
    yield _patched(Recorder(), patch)


def _patched(record: Recorder, patch: pytest.MonkeyPatch) -> Recorder:
    _patch_parties(record, patch)
    _patch_draws(record, patch)
    return record


def _patch_parties(record: Recorder, patch: pytest.MonkeyPatch) -> None:
    """Who draws, and in which attempt."""
    inputs, released = participant.Participant._inputs, opened_totals.release

    def of_client(self: Any, session: Any, *arguments: Any, **keywords: Any) -> Any:
        record._party, record._attempt = self._name, (session.round, session.attempt)
        try:
            return inputs(self, session, *arguments, **keywords)
        finally:
            record._party = SERVER

    def of_server(plan: Any, session: Any, *arguments: Any, **keywords: Any) -> Any:
        record._party, record._attempt = SERVER, (session.round, session.attempt)
        return released(plan, session, *arguments, **keywords)

    patch.setattr(participant.Participant, "_inputs", of_client)
    patch.setattr("rbla_secure.federation.round.release", of_server)


def _patch_draws(record: Recorder, patch: pytest.MonkeyPatch) -> None:
    """What is drawn, band by band."""
    draw, add, remove = (
        noise_mechanism.discrete_gaussian,
        GaussianMechanism.add_noise,
        noise_components.remove_components,
    )
    add_removable, component = noise_components.add_components, noise_components._component

    def drawn(sigma: float, count: int, stream: Any) -> Any:
        band = record._bands.pop(0)
        record.lengths[band] = count
        record.note(record.drawn, band, sigma)
        return draw(sigma, count, stream)

    def stepped(sigma: float, count: int, stream: Any) -> Any:
        record.steps[record._party].append((sigma, count))
        return draw(sigma, count, stream)

    def added(mechanism: Any, integers: Mapping[int, Any], stream: Any) -> Any:
        record._bands = sorted(integers)
        record.grids[record._attempt] = (mechanism.quantizer.bits, mechanism.clip_norm)
        return add(mechanism, integers, stream)

    def removable(integers: Any, mechanism: Any, seeds: Any) -> Any:
        record._bands = [index for index in integers for _ in seeds.get(index, ())]
        return _with_components(record.drawn, lambda: add_removable(integers, mechanism, seeds))

    def removed(sums: Any, mechanism: Any, revealed: Mapping[tuple[str, int, int], bytes]) -> Any:
        order = sorted(revealed)
        record._bands = [index for _, index, _ in order]
        clients = [client for client, _, _ in order]

        def call() -> Any:
            return remove(sums, mechanism, revealed)

        return _with_components(record.removed, call, clients)

    def _with_components(
        where: dict[Attempt, dict[int, dict[str, float]]],
        call: Callable[[], Any],
        clients: list[str] | None = None,
    ) -> Any:
        def noted(std: float, length: int, seed: Any) -> Any:
            if clients is not None:
                record._party = clients.pop(0)
            record.note(where, record._bands.pop(0), std)
            return component(std, length, seed)

        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(noise_components, "_component", noted)
            return call()

    patch.setattr(noise_mechanism, "discrete_gaussian", drawn)
    patch.setattr(sample_level, "discrete_gaussian", stepped)
    patch.setattr(GaussianMechanism, "add_noise", added)
    patch.setattr(contribution, "add_components", removable)
    patch.setattr(opened_totals, "remove_components", removed)


def longest(clip_norm: float, scale: float, dimension: int) -> float:
    """What a vector of norm C can have after conditional rounding (Kairouz, Liu, Steinke 2021, Proposition 22), in units."""
    length, root = scale * clip_norm, math.sqrt(dimension)
    return min(length + root, math.sqrt(length**2 + dimension / 4 + length + root / 2))


@dataclass(frozen=True)
class Run:
    """A run folder and what was recorded while it was made."""

    folder: Path
    record: Recorder

    @property
    def config(self) -> dict[str, Any]:
        """The keys of the run."""
        return tomllib.loads((self.folder / "config.toml").read_text())

    @property
    def rounds(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, with the attempt that each line is of."""
        lines = [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]
        attempts = [json.loads(line) for line in (self.folder / "attempts.jsonl").read_text().splitlines()]
        last = {each["round"]: each["attempt"] for each in attempts}
        return [line | {"attempt": last[line["round"]]} for line in lines]

    def epsilons(self, colluders: int) -> dict[str, float]:
        """By observer, with the names that the ledger has for them."""
        config = self.config
        central, plain = config["privacy"]["mechanism"] == "central", config["secure-sum"] == "plain"
        known = {
            "public-reader": 0,
            "participant": max(1, colluders),
            "server": 0,
            "server-with-clients": colluders,
        }
        found = {}
        for observer, many in known.items():
            if central and observer.startswith("server"):
                continue
            alone = plain and observer.startswith("server")
            spent: dict[str, float] = defaultdict(float)
            for line in self.rounds:
                for client, loss in self._round(line, known=0 if central else many, alone=alone).items():
                    spent[client] += loss
            mu = math.sqrt(max(spent.values(), default=0.0))
            found[observer] = of_gaussian(mu, config["privacy"]["delta"])
        return found

    def epsilon_of_examples(self) -> float:
        """Of single examples, of the client that took most steps."""
        wanted = self.config["sample-level"]
        found = [0.0]
        for steps in self.record.steps.values():
            ((sigma, dimension),) = set(steps)
            multiplier = sigma / (2**22 + math.sqrt(dimension) / 2)
            rate = wanted["sample-rate"]
            if rate == 1:
                found.append(of_gaussian(math.sqrt(len(steps)) / multiplier, wanted["delta"]))
            else:
                found.append(privacy_loss.epsilon(multiplier, rate, len(steps), wanted["delta"]))
        return max(found)

    def _round(self, line: dict[str, Any], *, known: int, alone: bool) -> dict[str, float]:
        """By client: the square of mu of one round in a view."""
        attempt = (line["round"], line["attempt"])
        moved = self._sensitivity(attempt) if attempt in self.record.drawn else 0.0
        if alone:
            # Each upload is read, under the client's own noise.
            return {
                client: moved**2
                / min(by[client] for by in self.record.drawn[attempt].values() if client in by)
                for client in line["survivors"]
            }
        variances = [self._unknown(attempt, band, over, known) for band, over in self._opened(line)]
        if not variances:
            return {}
        least = min(variances)
        return dict.fromkeys(line["survivors"], moved**2 / least if least > 0 else math.inf)

    def _opened(self, line: dict[str, Any]) -> list[tuple[int, list[str]]]:
        """The bands that were opened, over whom each; of groups, those that had their quorum."""
        names = sorted(set(self._ranks().values()))
        bands = {
            f"rows {low + 1}-{high}": i for i, (low, high) in enumerate(zip([0, *names], names, strict=False))
        }
        bands |= {
            f"row {low + 1}": i
            for i, (low, high) in enumerate(zip([0, *names], names, strict=False))
            if high == low + 1
        }
        if self.config["robustness"]["group-size"]:
            return [
                (band, over)
                for members in line["groups"].values()
                if len(over := [c for c in members if c in line["survivors"]]) >= self.config["min-holders"]
                for band in range(names.index(self._ranks()[members[0]]) + 1)
            ]
        attempt = (line["round"], line["attempt"])
        return [
            (
                bands[name],
                [c for c in line["survivors"] if c in self.record.drawn[attempt].get(bands[name], {})],
            )
            for name in line["holders"]
        ]

    def _unknown(self, attempt: Attempt, band: int, over: list[str], known: int) -> float:
        """The variance on one coordinate that an observer does not know, who knows the noise of so many of them."""
        drawn = self.record.drawn[attempt][band]
        if SERVER in drawn:
            return drawn[SERVER]
        removed = self.record.removed.get(attempt, {}).get(band, {})
        each = sorted(drawn[client] - removed.get(client, 0.0) for client in over)
        return sum(each[: len(each) - known])

    def _sensitivity(self, attempt: Attempt) -> float:
        """What one client moves the vector of all sums by, in integer units."""
        config, (bits, clip_norm) = self.config, self.record.grids[attempt]
        scale = (2 ** (bits - 1) - 1) / config["quantization"]["bound"]
        adaptive = config["privacy"]["clipping"] == "adaptive"
        lengths = [self.record.lengths[band] for band in sorted(self.record.lengths)]
        lengths[0] -= adaptive
        if config["training"]["rows"] == "in-turns":
            part = clip_norm / math.sqrt(len(lengths))
            return math.hypot(*(longest(part, scale, length) for length in lengths))
        update = longest(clip_norm, scale, sum(lengths))
        if not adaptive:
            return update
        # The count of n clients has noise of n / 20, and a client that was clipped and now sends zeros moves it by 1.
        count_noise = config["privacy"]["count-noise"] or len(self._ranks()) / 20
        planned = config["noise-multiplier"]
        return update / math.sqrt(1 - (planned / count_noise) ** 2)

    def _ranks(self) -> dict[str, int]:
        return {
            f"{name}-{number:02d}": tier["rank"]
            for name, tier in self.config["tiers"].items()
            for number in range(1, tier["clients"] + 1)
        }
