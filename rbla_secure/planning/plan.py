"""The plan: everything that a round needs, validated once, frozen, and the same for server and clients.

Both sides derive a round's session from the plan and the cohort; a client that is offered another session refuses.
A plan that could not keep its promises is refused here, before anything is trained: a band that can never open, a
threshold above the cohort, a sum that could wrap.
"""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Final, Self, TypeVar

import numpy as np
import numpy.typing as npt

from protocols.session import ClientId, Session
from rbla_secure.config import Config
from rbla_secure.config.choices import (
    Adjacency,
    Factors,
    Rest,
    Upload,
    Weighting,
)
from rbla_secure.errors import RefusalError
from rbla_secure.lora.adapter import Adapter, AdapterLayout
from rbla_secure.lora.bands import Band, held_bands
from rbla_secure.planning.band_weights import band_weights
from rbla_secure.planning.budget import check_planned_budget
from rbla_secure.planning.checks import check_config
from rbla_secure.planning.cohort import planned_cohort, roster
from rbla_secure.planning.modes.mode import Mode
from rbla_secure.planning.noise import build_mechanism
from rbla_secure.planning.parameters import sample_level
from rbla_secure.planning.promises import Promises
from rbla_secure.planning.segmentation import segmentation_of
from rbla_secure.planning.segmentation.segmentation import Segmentation
from rbla_secure.privacy.clipping import nearest_norm, rounded_norm
from rbla_secure.privacy.noise import CorrelatedNoise, GaussianMechanism
from rbla_secure.privacy.quantize import Quantizer, statistics
from rbla_secure.privacy.sampled_gaussian import SampledGaussian
from rbla_secure.seeding import derive_seed

Key = TypeVar("Key")
Value = TypeVar("Value")
_KEPT: Final = 8


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The terms of a whole run: what its configuration promises, and what follows from that on a model of this layout.

    Args:
        config: The configuration, already well formed.
        layout: The adapted layers of the base model.
        base_digest: SHA-256 of the frozen base.

    Attributes:
        promises: Everything that the configuration fixes whatever the layout.
        bands: The rank bands.
        max_rank: Rank of the global adapter.
        bands_that_open: The bands with enough holders in a whole cohort; those of the highest ranks may lack them.
        columns: Shape (row_length,): which values of a rank row are trained and sent.
        width: Number of these values.
        weighted: Whether clients claim weights of their own, which are added up; without, each surviving holder counts one.
        mechanism: The noise of client-level differential privacy, at the largest clip norm; None without noise.
        sample_level: The noise inside each client's training; None without.
        quantizer: The grid: the configured one, or where clients add noise the finest with room for it.
        least_weight: The smallest weight that a client can have, on the grid.
        statistics: Number of integers that follow the values of a band: 0 with noise, as nothing else may depend on
            data then.
        band_weights: By index of a band: what its rows are multiplied by before the clip, and their average is divided by; public.
        row_weights: Shape (max_rank, 1): the weight of its band for every row.
        clip_norms: Every L2 norm that a round may clip to, decreasing.
        first_clip_norm: The norm of the rounds before the first known count; the only one without adaptive clipping.
        digest: SHA-256 of configuration, adapted layers and base: the session's `config_digest`, where no clip norm changes it.

    Raises:
        PlanError: The run could not keep its promises.
    """

    config: Config
    layout: AdapterLayout
    base_digest: bytes
    promises: Promises = field(init=False, repr=False, compare=False)
    bands: tuple[Band, ...] = field(init=False, repr=False, compare=False)
    max_rank: int = field(init=False, repr=False, compare=False)
    bands_that_open: tuple[Band, ...] = field(init=False, repr=False, compare=False)
    columns: npt.NDArray[np.bool_] = field(init=False, repr=False, compare=False)
    width: int = field(init=False, repr=False, compare=False)
    weighted: bool = field(init=False, repr=False, compare=False)
    mechanism: GaussianMechanism | None = field(init=False, repr=False, compare=False)
    sample_level: SampledGaussian | None = field(init=False, repr=False, compare=False)
    quantizer: Quantizer = field(init=False, repr=False, compare=False)
    least_weight: float = field(init=False, repr=False, compare=False)
    statistics: int = field(init=False, repr=False, compare=False)
    band_weights: tuple[float, ...] = field(init=False, repr=False, compare=False)
    row_weights: npt.NDArray[np.float64] = field(init=False, repr=False, compare=False)
    clip_norms: tuple[float, ...] = field(init=False, repr=False, compare=False)
    first_clip_norm: float = field(init=False, repr=False, compare=False)
    digest: bytes = field(init=False, repr=False, compare=False)
    _norms: Mapping[bytes, float] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        config, promises = self.config, check_config(self.config)
        columns, bands = _columns(config, self.layout), tuple(each.band for each in promises.bands)
        self._keep(
            promises=promises,
            bands=bands,
            max_rank=bands[-1].stop,
            bands_that_open=tuple(each.band for each in promises.bands if each.opens),
            columns=columns,
            width=int(columns.sum()),
            weighted=config.weights is Weighting.EXAMPLES,
            sample_level=sample_level(config),
            clip_norms=promises.clip_norms,
            first_clip_norm=nearest_norm(config.clip_norm, promises.clip_norms),
        )
        # Building it refuses a grid without room for the noise.
        mechanism = self.mechanism_with(config.noise_multiplier) if promises.noisy else None
        if mechanism is not None:
            check_planned_budget(promises, mechanism, self.mechanism_with)
        quantizer = promises.grid if mechanism is None else mechanism.quantizer
        weights, digest = band_weights(promises, self.layout), self._digest()
        self._keep(
            mechanism=mechanism,
            quantizer=quantizer,
            least_weight=quantizer.round_weight(config.least_weight) if self.weighted else 1.0,
            statistics=0 if mechanism is not None else statistics(weighted=self.weighted),
            band_weights=weights,
            row_weights=_by_row(weights, bands),
            digest=digest,
            _norms={_round_digest(promises, digest, norm): norm for norm in promises.clip_norms},
        )

    def _keep(self, **facts: object) -> None:
        """Set computed attributes, once: nothing of a plan changes after that."""
        for name, value in facts.items():
            object.__setattr__(self, name, value)

    @classmethod
    def build(cls, config: Config, *, layout: AdapterLayout, base_digest: bytes) -> Self:
        """Build the plan of a configuration on a base model."""
        return cls(config=config, layout=layout, base_digest=base_digest)

    @cached_property
    def ranks(self) -> Mapping[ClientId, int]:
        """Every enrolled client and its rank; public."""
        return roster(self.config.tiers)

    @cached_property
    def initial_adapter(self) -> Adapter:
        """Return the adapter before round 1: it follows from the seed, so that everybody can check it to the bit."""
        seed = derive_seed(self.config.seed, "initial adapter")
        return Adapter.initial(self.layout, rank=self.max_rank, seed=seed)

    def cohort(self, round_number: int) -> tuple[ClientId, ...]:
        """Return the clients of a round, increasing: they follow from tiers, seed and round, and nobody chooses them.

        A client of the cohort that is absent has dropped out: thresholds, quorums and the number of colluders are those
        of the whole cohort.

        Raises:
            RefusalError: The plan has no such round. (A server that could name any number could try rounds until it
                likes the cohort and its groups.)
        """
        if not 1 <= round_number <= self.config.rounds:
            raise RefusalError(
                f"round {round_number} must lie in 1..{self.config.rounds}, the rounds of the plan"
            )
        if round_number not in self._cohorts:
            _make_room(self._cohorts)
            self._cohorts[round_number] = planned_cohort(self.config, round_number)
        return self._cohorts[round_number]

    @cached_property
    def _cohorts(self) -> dict[int, tuple[ClientId, ...]]:
        """Cache of the cohorts of the last requested rounds, by round."""
        return {}

    def mechanism_with(self, noise_multiplier: float) -> GaussianMechanism:
        """Return the plan's mechanism with another noise multiplier, above 0.

        Raises:
            PlanError: There is no room for it, or the grid is too coarse for so little.
        """
        return build_mechanism(self.promises, noise_multiplier=noise_multiplier, width=self.width)

    def rounded_norm(self, clip_norm: float) -> float:
        """Return the L2 norm, in integer units, that an update of a given norm never exceeds after rounding."""
        heights = [band.height for band in self.bands] if self.promises.bands_alone else [self.max_rank]
        return rounded_norm(self.quantizer, clip_norm, [height * self.width for height in heights])

    def mechanism_of(self, session: Session) -> GaussianMechanism | None:
        """Return the noise of one round, at its own clip norm; None without noise."""
        return self.mechanism_at(self.clip_norm_of(session))

    def mechanism_at(self, clip_norm: float) -> GaussianMechanism | None:
        """Return the noise of rounds with this clip norm; None without noise."""
        if self.mechanism is None or clip_norm == self.mechanism.clip_norm:
            return self.mechanism
        return replace(self.mechanism, clip_norm=clip_norm)

    def clip_norm_of(self, session: Session) -> float:
        """Return the norm that a round clips to: the one whose digest the session carries.

        Raises:
            RefusalError: The session was made under another plan.
        """
        norm = self._norms.get(session.config_digest)
        if norm is not None:
            return norm
        raise RefusalError(
            "the session's terms (threshold, quorums, segments, bound or plan) are not the plan's"
        )

    def denominator(self, session: Session, index: int, survivors: Collection[ClientId]) -> float:
        """Return the public weight of a band: its surviving holders, or all holders where absence must not show.

        Under secret draws it is the expected number of drawn holders.
        """
        holders = session.segments[index].holders
        if self.config.privacy.adjacency is Adjacency.ADD_OR_REMOVE:
            return self.config.privacy.sample_rate * len(holders)
        return float(len(set(holders).intersection(survivors)))

    @property
    def mode(self) -> Mode:
        """The secure sum, with what it reveals, needs and promises."""
        return self.promises.mode

    @property
    def needs_identities(self) -> bool:
        """Whether messages are signed: where the server may lie, and where a decryptor is accountable for its keys."""
        return self.mode.server_may_lie(self.config)

    def _digest(self) -> bytes:
        layers = repr([(layer.name, layer.in_features, layer.out_features) for layer in self.layout.layers])
        text = b"rbla-secure plan\x00" + self.config.digest() + self.base_digest + layers.encode()
        return hashlib.sha256(text).digest()

    def held_bands(self, client: ClientId) -> tuple[Band, ...]:
        """Return the bands that a client holds."""
        return held_bands(self.bands, self.ranks[client])

    def session(
        self,
        *,
        run: bytes,
        round_number: int,
        attempt: int,
        cohort: tuple[ClientId, ...] | None = None,
        clip_norm: float | None = None,
    ) -> Session:
        """Return the terms of one round's secure sum, cut into the segments of :attr:`segmentation`.

        Args:
            run: Identity of the run.
            round_number: Number of the round, from 1.
            attempt: Number of the attempt at the round, from 1.
            cohort: A claimed cohort, to be compared with the plan's own; None claims nothing.
            clip_norm: One of the plan's clip norms; by default the first round's. It is part of the session's digest.

        Raises:
            RefusalError: The cohort is not the one that the plan gives for this round, or there is no such round.
        """
        planned = self.cohort(round_number)
        if cohort is not None and cohort != planned:
            raise RefusalError(_other_cohort(cohort, planned, round_number))
        norm = self.first_clip_norm if clip_norm is None else clip_norm
        key = (run, round_number, attempt, norm)
        if key not in self._sessions:
            _make_room(self._sessions)
            self._sessions[key] = self._session(run, round_number, attempt, norm)
        return self._sessions[key]

    @cached_property
    def _sessions(self) -> dict[tuple[bytes, int, int, float], Session]:
        """Cache of the last requested sessions."""
        return {}

    def _session(self, run: bytes, round_number: int, attempt: int, clip_norm: float) -> Session:
        cohort = self.cohort(round_number)
        return Session(
            run=run,
            round=round_number,
            attempt=attempt,
            members=cohort,
            threshold=self.promises.threshold,
            input_bound=self._input_bound,
            segments=self.segmentation.segments(round_number, cohort),
            config_digest=self.round_digest(clip_norm),
            ring_bits=self.config.quantization.ring_bits,
            ranks=tuple(self.ranks[client] for client in cohort),
            class_quorum=self.promises.class_quorum,
        )

    @cached_property
    def segmentation(self) -> Segmentation:
        """The segmentation of uploads: by rank band, or by group."""
        mechanism = self.mechanism
        return segmentation_of(
            self.promises,
            ranks=self.ranks,
            lengths=tuple(map(self.band_length, self.bands)),
            recovered=tuple(
                mechanism.bands[band.index].recovered if mechanism is not None else 0 for band in self.bands
            ),
        )

    def correlated_noise(self) -> CorrelatedNoise | None:
        """Make the state of correlated noise that a server keeps between rounds; None where rounds are independent."""
        return self.mechanism.correlated() if self.mechanism is not None else None

    def round_digest(self, clip_norm: float) -> bytes:
        """Return the digest that a round's session is bound to: of the plan, and of a clip norm that varies."""
        return _round_digest(self.promises, self.digest, clip_norm)

    def broadcast_rank(self, client: ClientId) -> int:
        """Return how many rows of the global adapter a client is sent: all, or its own where rows beyond are dropped.

        Where uploads are padded, so that ranks do not show, everybody is sent all rows even so.
        """
        if self.config.lora.rest is Rest.FOLDED or self.config.upload is Upload.PADDED:
            return self.max_rank
        return self.ranks[client]

    def trained_rank(self, client: ClientId) -> int:
        """Return how many rows a client trains: its own, but none of bands that can never open."""
        return min(self.ranks[client], self.bands_that_open[-1].stop)

    def band_length(self, band: Band) -> int:
        """Return the length of a band: values and statistics; with noise the only statistic is the count of band 0."""
        if self.mechanism is not None:
            return self.mechanism.bands[band.index].length
        return band.height * self.width + self.statistics

    @property
    def _input_bound(self) -> int:
        return self.quantizer.levels if self.mechanism is None else self.mechanism.input_bound


def _columns(config: Config, layout: AdapterLayout) -> npt.NDArray[np.bool_]:
    """Return a mask of shape (row_length,): which values of a rank row are trained and sent."""
    if config.lora.factors is Factors.LORA_B:
        return layout.lora_B_columns
    return np.ones(layout.row_length, dtype=np.bool_)


def _by_row(weights: tuple[float, ...], bands: tuple[Band, ...]) -> npt.NDArray[np.float64]:
    """Return an array of shape (max_rank, 1): the weight of its band for every row."""
    found = np.repeat(weights, [band.height for band in bands])[:, None]
    found.setflags(write=False)
    return found


def _round_digest(promises: Promises, digest: bytes, clip_norm: float) -> bytes:
    """Return the digest that a round's session is bound to: of the plan, and of the clip norm where that changes."""
    if not promises.adaptive:
        return digest
    return hashlib.sha256(b"rbla-secure round\x00" + digest + clip_norm.hex().encode()).digest()


def _make_room(kept: dict[Key, Value]) -> None:
    """Drop the oldest entries, so that a cache holds no more than the sessions that are open at once."""
    while len(kept) >= _KEPT:
        del kept[next(iter(kept))]


def _other_cohort(named: tuple[ClientId, ...], planned: tuple[ClientId, ...], round_number: int) -> str:
    """Say what is wrong with a cohort."""
    missing, strangers = set(planned) - set(named), set(named) - set(planned)
    found = [f"it lacks {min(missing)}"] if missing else []
    found += [f"{min(strangers)} is not in it"] if strangers else []
    return (
        f"the cohort of round {round_number} is not the plan's ({' and '.join(found) or 'another order'}): it follows from "
        "tiers, seed and round; whoever is not there has dropped out"
    )
