"""Pairs of neighbouring federations for an audit: for each relation the worst ones that apply to a configuration.

Within a pair one client, the canary, differs: it sends the largest possible change, or zeros (zero-out), or is absent
(add-or-remove). The behaviour of the others is part of the worst case: they change nothing; they send the same largest
change; or they fall silent, so that the least possible noise is left, or the canary's absence alone decides whether a
sum opens.

**Several canaries in one round.** Under zero-out, where the case prescribes nothing for the others, several clients of
a round are canaries at once, each with a change in columns of its own, included or not by a coin of its own. The
columns of one of them hold the sum of its own integers, or none, and of noise that no other column shares: the same
distribution as in a round of its own, and independent of the others. For each canary, the others are part of the
surroundings that both neighbours share.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np

from protocols.session import ClientId, Session
from rbla_secure.config.choices import Adjacency, Upload
from rbla_secure.evaluation.privacy_audit.small_federation import Side, block_count
from rbla_secure.lora.bands import Band
from rbla_secure.lora.update import UpdateRows
from rbla_secure.planning.plan import Plan

# Length of a change that must be clipped, over the clip norm: a missing clip, or one to more than the norm, shows.
_TOO_LONG: Final = 5.0
# Length of one that must not be clipped, over the clip norm: rounding to float32 must not lengthen it beyond.
_SHORT: Final = 1 - 1e-4

ZERO_OUT: Final = "zero-out: one client sends zeros"
ADD_OR_REMOVE: Final = "add-or-remove: one client is not there"


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Neighbours:
    """Federations that differ only in a canary, and how it differs.

    Args:
        name: Name of the case.
        canaries: By client that may differ, the direction of its clipped change, shape (rank, row_length), L2 norm 1.
        length: L2 norm of its change before the clip, in the units of an update.
        others: By client, the others' changes with and without the canary, shape (rank, row_length).
        silent: Clients that are absent with and without the canary.
        absent: Whether a canary that differs is absent, rather than sending zeros.
        vote: A canary's vote on clipping with its change: 1 not clipped, -1 clipped, 0 where nobody votes.
        colluders: Clients that may collude with the observer, in order of preference; always present.
    """

    name: str
    canaries: Mapping[ClientId, UpdateRows]
    length: float
    others: Mapping[ClientId, UpdateRows]
    silent: frozenset[ClientId]
    absent: bool
    vote: int
    colluders: Sequence[ClientId]

    @property
    def relation(self) -> str:
        """How the neighbours differ."""
        return ADD_OR_REMOVE if self.absent else ZERO_OUT

    def side(self, there: Collection[ClientId]) -> Side:
        """Return the federation with these canaries included."""
        missing = frozenset(self.canaries.keys() - set(there))
        changes = {client: self.length * self.canaries[client] for client in there}
        return Side(
            changes={**self.others, **changes},
            silent=self.silent | missing if self.absent else self.silent,
            before_keys=self.absent,
        )


_COMMON_ROWS = "largest change, in the rows of all clients"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A case that does not apply, and why."""

    name: str
    reason: str


def neighbours(plan: Plan, session: Session) -> tuple[list[Neighbours], list[Skipped]]:
    """Return the cases of one round of a plan with client-level noise, and those that do not apply to it."""
    cases = _Cases(plan, session)
    absent = plan.config.privacy.adjacency is Adjacency.ADD_OR_REMOVE
    return _parted(cases.absent() if absent else cases.zeroed())


def neighbours_over_rounds(plan: Plan, session: Session) -> tuple[list[Neighbours], list[Skipped]]:
    """Return the cases of dependent rounds. Drop-outs and the like are left out: they change no noise of a server.

    Args:
        plan: A plan whose noise cancels over rounds, or whose clients take part by secret draws.
        session: Session of the first round, in which canaries take part.
    """
    cases = _Cases(plan, session)
    absent = plan.config.privacy.adjacency is Adjacency.ADD_OR_REMOVE
    return _parted(cases.drawn() if absent else cases.in_turns())


def _parted(found: Iterable[Neighbours | Skipped]) -> tuple[list[Neighbours], list[Skipped]]:
    found = list(found)
    skipped = [each for each in found if isinstance(each, Skipped)]
    return [each for each in found if isinstance(each, Neighbours)], skipped


@final
class _Cases:
    """Builds cases; the cohort of the session is the federation."""

    def __init__(self, plan: Plan, session: Session) -> None:
        self._plan = plan
        self._session = session
        self._open = plan.bands_that_open
        self._thin = self._open[-1]

    def zeroed(self) -> Iterator[Neighbours | Skipped]:
        """Yield the cases in which one client sends zeros."""
        plan = self._plan
        yield from self.in_turns()
        yield from self._with_drop_outs()
        if plan.promises.adaptive:
            yield self._pair("a change that is just not clipped", self._open, length=_SHORT)
        else:
            reason = "privacy.clipping is not adaptive: nobody counts who is clipped"
            yield Skipped(name="a change that is just not clipped", reason=reason)
        yield Skipped(name="one client is not there", reason="privacy.adjacency=zero-out does not claim it")

    def in_turns(self) -> Iterator[Neighbours | Skipped]:
        """Yield the cases in which one client sends zeros whenever it takes part."""
        yield self._pair("largest change, in the rarest rows", [self._thin])
        yield self._pair("the same beside the same change of everybody else", [self._thin], others=True)
        if len(self._open) > 1:
            yield self._pair("largest change, in all rows", self._open)
        else:
            yield Skipped(name="largest change, in all rows", reason="all clients hold the same rows")
        yield from self._in_each_other_band()

    def drawn(self) -> Iterator[Neighbours | Skipped]:
        """Yield the cases in which one client is absent, whether it is drawn or not."""
        yield self._pair("nobody else changes anything", [self._thin])
        yield self._pair("everybody else sends the same change", [self._thin], others=True)
        yield from self._in_each_other_band()
        yield self._fewest("nobody else is there", [self._thin], self._session.members, 1)

    def absent(self) -> Iterator[Neighbours | Skipped]:
        """Yield the cases in which one client is absent."""
        promises, everybody = self._plan.promises, self._session.members
        yield self._pair("nobody else changes anything", [self._thin])
        yield self._pair("everybody else sends the same change", [self._thin], others=True)
        yield from self._in_each_other_band()
        # No band may close and no round end because of these numbers; if one does, it shows here.
        name = "exactly min-holders clients hold the rarest rows"
        yield self._fewest(name, [self._thin], self._holders(self._thin), promises.row_quorum)
        name = "exactly so many clients as a threshold would ask for"
        yield self._fewest(name, [self._open[0]], everybody, promises.threshold)
        yield self._fewest("nobody else is there", [self._thin], everybody, 1)
        reason = "privacy.adjacency=add-or-remove: it looks as if it was not there"
        yield Skipped(name="one client sends zeros", reason=reason)

    def _in_each_other_band(self) -> Iterator[Neighbours | Skipped]:
        """Yield a case per other band, with a change in it alone: noise of other bands would hide a band without noise.

        Where single uploads are read, the rows of all clients matter most: a share of noise is smaller with more
        uploaders.
        """
        if len(self._open) == 1:
            yield Skipped(name=_COMMON_ROWS, reason="all clients hold the same rows")
        for band in self._open[:-1]:
            common = band is self._open[0]
            yield self._pair(_COMMON_ROWS if common else f"largest change, in {band}", [band])

    def _with_drop_outs(self) -> Iterator[Neighbours | Skipped]:
        """Yield cases with drop-outs in the rarest rows: as many as provided for, one more, and the most possible."""
        plan, band = self._plan, self._thin
        shares = plan.mechanism.bands[band.index] if plan.mechanism is not None else None
        if shares is None or plan.promises.noise_by_server:
            reason = f"privacy.mechanism={plan.config.privacy.mechanism}: drop-outs take no noise along"
            yield Skipped(name="drop-outs", reason=reason)
            return
        expected = int(shares.uploaders * plan.config.privacy.expected_dropout)
        provided = max(shares.recovered, expected)
        counts = {
            provided: "with as many drop-outs as are made good",
            provided + 1: "with one drop-out more than is provided for",
        }
        if not provided:
            del counts[0]
        most = self._most_missing(band)
        counts.setdefault(most, "with as many drop-outs as the rarest rows open over")
        for count, name in sorted(counts.items()):
            if not 0 < count <= most:
                yield Skipped(name=name, reason=f"{band} would not open without {count} clients")
            else:
                yield self._pair(name, [band], missing=count)

    def _most_missing(self, band: Band) -> int:
        """Return how many uploaders of a band may be missing while it still opens."""
        allowed = len(self._session.members) - self._plan.promises.threshold
        return min(allowed, self._plan.segmentation.spare(self._session, band))

    def _pair(
        self,
        name: str,
        bands: Sequence[Band],
        *,
        length: float = _TOO_LONG,
        others: bool = False,
        missing: int = 0,
    ) -> Neighbours:
        """Return neighbours whose canaries hold all of the bands, with this number of other uploaders missing."""
        canary = self._canary(bands[-1])
        uploading = [client for client in self._uploaders(bands[-1]) if client != canary]
        strangers = [client for client in self._session.members if client not in {canary, *uploading}]
        padded = self._plan.config.upload is Upload.PADDED
        silent = frozenset((strangers + uploading if padded else uploading + strangers)[:missing])
        return self._neighbours(name, bands, silent=silent, length=length, others=others)

    def _fewest(
        self, name: str, bands: Sequence[Band], among: Sequence[ClientId], left: int
    ) -> Neighbours | Skipped:
        """Return neighbours with only `left` of some clients, canary included, all sending the same change."""
        if len(among) < left:
            return Skipped(name=name, reason=f"there are only {len(among)} such clients")
        canary = self._canary(bands[-1])
        silent = frozenset([client for client in among if client != canary][: len(among) - left])
        return self._neighbours(name, bands, silent=silent, length=_TOO_LONG, others=True)

    def _neighbours(
        self, name: str, bands: Sequence[Band], *, silent: frozenset[ClientId], length: float, others: bool
    ) -> Neighbours:
        config = self._plan.config
        absent = config.privacy.adjacency is Adjacency.ADD_OR_REMOVE
        # Votes of several would be in one count, and an absent client changes more than its columns.
        alone = absent or self._plan.promises.adaptive
        most = 1 if alone else block_count(config)
        chosen = self._canaries(bands[-1], silent, most=max(1, most // 2) if others else most)
        largest = length * self._plan.clip_norm_of(self._session)
        canaries = {
            client: self._direction(client, bands, block=None if alone else number)
            for number, client in enumerate(chosen)
        }
        present = [
            client for client in self._session.members if client not in silent and client not in canaries
        ]
        # Including clients whose turn is another round.
        enrolled = [client for client in self._plan.ranks if client not in silent and client not in canaries]
        change = largest * self._direction(chosen[0], bands, block=None)
        return Neighbours(
            name=name,
            canaries=canaries,
            length=largest,
            # The same rows, as far as somebody holds them.
            others={each: _cut(change, self._plan.ranks[each]) for each in enrolled} if others else {},
            silent=silent,
            absent=absent,
            vote=(1 if length < 1 else -1) if self._plan.promises.adaptive else 0,
            colluders=self._last_first(bands[-1], present),
        )

    def _direction(self, client: ClientId, bands: Sequence[Band], *, block: int | None) -> UpdateRows:
        """Return a direction with equal parts in all bands and values: no clip of a part and no grid shortens it.

        A block has columns at a fixed interval among the uploaded ones, so it covers every layer.
        """
        columns = np.flatnonzero(self._plan.columns)
        if block is not None:
            columns = columns[block :: block_count(self._plan.config)]
        rows = np.zeros((self._plan.ranks[client], self._plan.layout.row_length))
        for band in bands:
            rows[band.start : band.stop, columns] = (band.height * len(bands) * len(columns)) ** -0.5
        return rows

    def _canary(self, band: Band) -> ClientId:
        return self._uploaders(band)[0]

    def _canaries(self, band: Band, silent: Collection[ClientId], *, most: int) -> list[ClientId]:
        """Return the first uploaders that are present, without those that an observer may need as colluders."""
        there = [client for client in self._uploaders(band) if client not in silent]
        return there[: max(1, min(most, len(there) - max(1, self._plan.promises.colluders)))]

    def _holders(self, band: Band) -> list[ClientId]:
        return [client for client in self._session.members if self._plan.ranks[client] >= band.stop]

    def _uploaders(self, band: Band) -> list[ClientId]:
        return list(self._plan.segmentation.smallest_sum(self._session, band))

    def _last_first(self, band: Band, present: Collection[ClientId]) -> list[ClientId]:
        """Return those present, the last of the band's uploaders first: their noise is part of the canary's cover."""
        own = [client for client in self._uploaders(band) if client in present]
        return own[::-1] + [client for client in present if client not in own]


def _cut(rows: UpdateRows, rank: int) -> UpdateRows:
    """Return the part of a change that a client of this rank holds."""
    return (
        rows[:rank] if len(rows) >= rank else np.vstack([rows, np.zeros((rank - len(rows), rows.shape[1]))])
    )
