"""The pairs of neighbouring federations that an audit tries: for each relation the worst ones that apply to a configuration.

Within a pair one client, the canary, differs: it sends the largest change that there is, or zeros (zero-out), or is not there at
all (add-or-remove). What everybody else does is part of the worst case: nothing; the same largest change; falling silent, so
that as little noise is left as there can be, or that the canary's absence alone decides whether something opens.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from protocols.session import ClientId
from rbla_secure.choices import Adjacency, SecureSumMode, Upload
from rbla_secure.evaluation.privacy_audit.small_federation import Side
from rbla_secure.federation.derived import band_quorum, group_quorum, threshold
from rbla_secure.federation.plan import Plan
from rbla_secure.federation.protection import adaptive
from rbla_secure.lora.bands import Band, held_bands
from rbla_secure.lora.update import UpdateRows

# How much longer than the clip norm a change is that must be clipped: a clip to more than the norm, or none, shows.
_TOO_LONG = 5.0
# How much shorter one is that must pass, so that float32 does not lengthen it beyond.
_SHORT = 1 - 1e-4

ZERO_OUT = "zero-out: one client sends zeros"
ADD_OR_REMOVE = "add-or-remove: one client is not there"


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Neighbours:
    """Two federations that differ in the canary alone, and what tells them apart.

    Args:
        name: Of the case.
        relation: In which way they differ.
        canary: Who differs.
        with_canary: The federation in which it sends its change.
        without: The one in which it does not.
        direction: Shape (rank of the canary, row_length), of length 1: what its clipped change points to.
        vote: Its vote on clipping with its change: 1 not clipped, -1 clipped, 0 where nobody votes.
        colluders: Who may be on the observer's side, likeliest first: they are there in both federations.
    """

    name: str
    relation: str
    canary: ClientId
    with_canary: Side
    without: Side
    direction: UpdateRows
    vote: int
    colluders: Sequence[ClientId]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A case that does not apply, and why."""

    name: str
    reason: str


def neighbours(plan: Plan) -> tuple[list[Neighbours], list[Skipped]]:
    """The cases of a plan with noise of client level, and those that do not apply to it."""
    if plan.config.privacy.adjacency is Adjacency.ADD_OR_REMOVE:
        found = _Cases(plan).absent()
    else:
        found = _Cases(plan).zeroed()
    cases, skipped = list[Neighbours](), list[Skipped]()
    for each in found:
        if isinstance(each, Skipped):
            skipped.append(each)
        else:
            cases.append(each)
    return cases, skipped


@final
class _Cases:
    """Puts cases together; the first round's cohort is the federation."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._session = plan.session(run=bytes(16), round_number=1, attempt=1)
        self._open = plan.bands_that_open
        self._thin = self._open[-1]

    def zeroed(self) -> Iterator[Neighbours | Skipped]:
        """One client sends zeros."""
        plan = self._plan
        several = len(self._open) > 1
        yield self._pair("largest change, in the rarest rows", [self._thin])
        yield self._pair("the same beside the same change of everybody else", [self._thin], others=True)
        if several:
            yield self._pair("largest change, in all rows", self._open)
        else:
            yield Skipped(name="largest change, in all rows", reason="all clients hold the same rows")
        yield self._in_most_shares(several=several)
        yield from self._with_drop_outs()
        if adaptive(plan.config):
            yield self._pair("a change that is just not clipped", self._open, length=_SHORT)
        else:
            reason = "privacy.clipping is not adaptive: nobody counts who is clipped"
            yield Skipped(name="a change that is just not clipped", reason=reason)
        yield Skipped(name="one client is not there", reason="privacy.adjacency=zero-out does not claim it")

    def absent(self) -> Iterator[Neighbours | Skipped]:
        """One client is not there."""
        config, holders = self._plan.config, self._holders(self._thin)
        yield self._pair("nobody else changes anything", [self._thin])
        yield self._pair("everybody else sends the same change", [self._thin], others=True)
        quorum = band_quorum(config, len(holders))
        yield self._fewest("at exactly the quorum of the rarest rows", [self._thin], holders, quorum)
        everybody = self._session.members
        yield self._fewest(
            "at exactly the threshold of the round", [self._open[0]], everybody, threshold(config)
        )
        yield self._fewest("as the only client that is there", [self._thin], everybody, 1)
        yield Skipped(
            name="one client sends zeros", reason="privacy.adjacency=add-or-remove: as when it is not there"
        )

    def _in_most_shares(self, *, several: bool) -> Neighbours | Skipped:
        """A share of a band that many upload is smaller: where single uploads are read, it hides less."""
        name = "largest change, in the rows of all clients"
        if self._plan.config.secure_sum is not SecureSumMode.PLAIN:
            return Skipped(name=name, reason="the server does not read single uploads")
        if not several:
            return Skipped(name=name, reason="all clients hold the same rows")
        return self._pair(name, [self._open[0]])

    def _with_drop_outs(self) -> Iterator[Neighbours | Skipped]:
        """With so many uploaders of the rarest rows missing as is provided for, one more, and as many as there can be."""
        plan, band = self._plan, self._thin
        shares = plan.mechanism.bands[band.index] if plan.mechanism is not None else None
        if shares is None or plan.config.privacy.mechanism.value == "central":
            yield Skipped(name="drop-outs", reason="privacy.mechanism=central: drop-outs take no noise along")
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
        """How many uploaders of a band may be missing with it still opening."""
        config, members = self._plan.config, len(self._session.members)
        allowed = members - threshold(config)
        if self._plan.grouped:
            size = len(self._smallest_group(band))
            return min(allowed, size - group_quorum(config, size))
        holders = len(self._holders(band))
        if config.upload is Upload.PADDED:
            return allowed
        return min(allowed, holders - band_quorum(config, holders))

    def _pair(
        self,
        name: str,
        bands: Sequence[Band],
        *,
        length: float = _TOO_LONG,
        others: bool = False,
        missing: int = 0,
    ) -> Neighbours:
        """The canary holds all of the bands; of their other uploaders so many are missing."""
        group = self._uploaders(bands[-1])
        canary, rest = (
            self._canary(bands[-1]),
            [client for client in group if client != self._canary(bands[-1])],
        )
        # Drop-outs where most is taken along; those of other tiers only where there are not enough.
        silent = frozenset(
            (rest + [client for client in self._session.members if client not in group])[:missing]
        )
        return self._sides(name, bands, canary, silent=silent, length=length, others=others)

    def _fewest(
        self, name: str, bands: Sequence[Band], among: Sequence[ClientId], left: int
    ) -> Neighbours | Skipped:
        """Of some clients only so many are there, the canary among them, and all that are there send the same change."""
        canary = self._canary(bands[-1])
        if len(among) < left:
            return Skipped(name=name, reason=f"there are only {len(among)} such clients")
        silent = [client for client in among if client != canary][: len(among) - left]
        return self._sides(name, bands, canary, silent=frozenset(silent), length=_TOO_LONG, others=True)

    def _sides(
        self,
        name: str,
        bands: Sequence[Band],
        canary: ClientId,
        *,
        silent: frozenset[ClientId],
        length: float,
        others: bool,
    ) -> Neighbours:
        config, zero_out = self._plan.config, self._plan.config.privacy.adjacency is Adjacency.ZERO_OUT
        present = [client for client in self._session.members if client not in silent and client != canary]
        largest = length * self._plan.clip_norm_of(self._session)
        direction = self._direction(canary, bands)
        changes = {canary: largest * direction}
        if others:
            # The same rows, as far as somebody holds them.
            changes |= {each: _cut(largest * direction, self._plan.ranks[each]) for each in present}
        without = {client: change for client, change in changes.items() if client != canary}
        early = not zero_out
        return Neighbours(
            name=name,
            relation=ZERO_OUT if zero_out else ADD_OR_REMOVE,
            canary=canary,
            with_canary=Side(changes=changes, silent=silent, before_keys=early),
            without=Side(
                changes=without,
                silent=silent if zero_out else silent | {canary},
                zeroed=canary if zero_out else "",
                before_keys=early,
            ),
            direction=direction,
            vote=(1 if length < 1 else -1) if adaptive(config) else 0,
            colluders=self._colluders(bands[-1], present),
        )

    def _direction(self, client: ClientId, bands: Sequence[Band]) -> UpdateRows:
        """Each band an equal part, each value of it: no clip of a part shortens it, and no grid cuts it off."""
        rows = np.zeros((self._plan.ranks[client], self._plan.layout.row_length))
        for band in bands:
            rows[band.start : band.stop, self._plan.columns] = (band.height * len(bands)) ** -0.5
        rows /= float(self._plan.columns.sum()) ** 0.5
        return rows

    def _canary(self, band: Band) -> ClientId:
        return self._smallest_group(band)[0] if self._plan.grouped else self._holders(band)[0]

    def _holders(self, band: Band) -> list[ClientId]:
        return [client for client in self._session.members if self._plan.ranks[client] >= band.stop]

    def _uploaders(self, band: Band) -> list[ClientId]:
        if self._plan.grouped:
            return list(self._smallest_group(band))
        return self._holders(band)

    def _smallest_group(self, band: Band) -> tuple[ClientId, ...]:
        holding = [group.members for group in self._plan.groups_of(self._session) if group.rank >= band.stop]
        return min(holding, key=len)

    def _colluders(self, band: Band, present: Collection[ClientId]) -> list[ClientId]:
        """The last of the band's uploaders first: their noise is in what the canary hides in."""
        own = [client for client in self._uploaders(band) if client in present]
        return own[::-1] + [client for client in present if client not in own]


def _cut(rows: UpdateRows, rank: int) -> UpdateRows:
    """The part of a change that somebody of this rank holds."""
    return (
        rows[:rank] if len(rows) >= rank else np.vstack([rows, np.zeros((rank - len(rows), rows.shape[1]))])
    )


def rows_of(plan: Plan, case: Neighbours) -> Mapping[int, UpdateRows]:
    """By band that the canary holds, shape (values,): the canary's direction in the columns that travel."""
    return {
        band.index: case.direction[band.start : band.stop, plan.columns].ravel()
        for band in held_bands(plan.bands, len(case.direction))
    }
