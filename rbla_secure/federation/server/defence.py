"""The defence: turns the sums of a round into totals that a few hostile clients cannot steer. Run by the server.

In the clear a filter looks at every single update, after validity and clip (`client_updates.py`). Where the sum shows groups, a
rule of bounded influence stands between the groups' averages. Reasons go to metrics, events and output.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import final

import numpy as np

from protocols.interface import SumResult
from protocols.ring import IntegerVector
from protocols.session import ClientId, Session
from rbla_secure.federation.server.average_check import impossible
from rbla_secure.federation.server.client_updates import decoded, updates_of
from rbla_secure.federation.server.previous_step import PreviousStep
from rbla_secure.federation.server.weight_claims import refused_claims
from rbla_secure.federation.step_bound import single_limits
from rbla_secure.lora.adapter import Adapter, Rows
from rbla_secure.lora.update import BandTotal, RealVector
from rbla_secure.planning.plan import Plan
from rbla_secure.privacy.quantize import dequantize, dequantize_public, dequantize_weighted
from rbla_secure.robustness.across_groups import GroupTotals, filter_groups
from rbla_secure.robustness.filter import FilterOptions
from rbla_secure.robustness.grouping import Group
from rbla_secure.robustness.registry import build, filter_of
from rbla_secure.robustness.rules.directional import cosines
from rbla_secure.robustness.tiers import tier_scores
from rbla_secure.robustness.updates import Updates
from rbla_secure.robustness.verdicts import Filtered, Verdict

# Training on public examples, for filters that compare with it: (adapter, round) -> rows.
Reference = Callable[[Adapter, int], Rows]
# Why a band that nobody uploads stays closed.
NEVER = "fewer clients hold it than its quorum"


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judged:
    """The part of a round that the defence kept.

    Args:
        totals: The kept totals, by band.
        closed: By band, why it is not among them.
        verdicts: By client, or by group of clients, the verdict on it.
        voters: By band of the totals: how many clients they cover.
        groups: By name, the clients of each group that was summed.
        flags: By name of a group: 1 where it is among the f most suspicious of the round or its sum is impossible, else 0.
    """

    totals: Mapping[int, BandTotal]
    closed: Mapping[int, str]
    verdicts: Mapping[str, Verdict]
    voters: Mapping[int, int]
    groups: Mapping[str, tuple[ClientId, ...]] = field(default_factory=dict)
    flags: Mapping[str, float] = field(default_factory=dict)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Defence:
    """The defence of a plan between the sum and the average.

    Args:
        plan: A plan with a filter or groups.
        previous_step: The last change of the global adapter.
        reference: Trains on public examples, for a filter that compares with such an update.
    """

    plan: Plan
    previous_step: PreviousStep
    reference: Reference | None = None

    @classmethod
    def of(
        cls, plan: Plan, previous_step: PreviousStep, reference: Reference | None = None
    ) -> "Defence | None":
        """Make the defence of the plan; None if it averages everybody."""
        if not plan.config.robustness.has_filter and plan.segmentation.rule_across is None:
            return None
        return cls(plan=plan, previous_step=previous_step, reference=reference)

    @property
    def judges_clients(self) -> bool:
        """Whether the defence filters single updates, and not the sums of groups."""
        return self.plan.config.robustness.has_filter

    def judge(self, session: Session, sums: SumResult, adapter: Adapter) -> Judged:
        """Judge one round's sums over groups, or its single inputs."""
        if not self.judges_clients:
            return self._judge_groups(session, sums)
        inputs = {client: sums.inputs[client] for client in sums.survivors}
        return self.judge_inputs(session, inputs, adapter)

    def judge_inputs(
        self, session: Session, inputs: Mapping[ClientId, Mapping[int, IntegerVector]], adapter: Adapter
    ) -> Judged:
        """Apply the filter to single inputs.

        The only path from integers to verdicts: the server calls it with the inputs that clients sent, and an attacker
        that knows the rule with those that they would send, so that its forecast is exact.

        Args:
            session: The session of the round.
            inputs: By client and segment, the integers of :func:`rbla_secure.federation.client.contribution.contribution`.
            adapter: The global adapter at the start of the round.
        """
        config, refused = self.plan.config, {}
        valid = {}
        for client in sorted(inputs):
            found = decoded(self.plan, session, client, inputs[client])
            if isinstance(found, Verdict):
                refused[client] = found
            else:
                valid[client] = found
        if not valid:
            closed = dict.fromkeys(range(len(self.plan.bands)), "no valid update")
            return Judged(totals={}, closed=closed, verdicts=refused, voters={})
        updates = updates_of(self.plan, valid)
        reference = self._reference(session, adapter)
        if reference is not None and not _has_direction(reference):
            closed = dict.fromkeys(
                updates.bands, f"the reference of {config.robustness.filter} has no direction"
            )
            return Judged(totals={}, closed=closed, verdicts=refused, voters={})
        wanted = build(
            config.robustness.filter,
            f=config.robustness.f,
            privacy_quorum=config.min_holders,
            pre_step=config.robustness.pre_step,
            options=FilterOptions.of(config, reference=reference),
        )
        filtered = wanted.apply(updates, previous=self._previous(), seed=_seed(session, inputs))
        never = range(len(session.segments), len(self.plan.bands))
        return _judged(filtered, updates, refused, dict.fromkeys(never, NEVER))

    def _judge_groups(self, session: Session, sums: SumResult) -> Judged:
        groups = self.plan.segmentation.groups(session)
        found, refused = [], {}
        for index, group in enumerate(groups):
            if index not in sums.sums:
                continue
            bands, reason = _group_totals(self.plan, session, index, group, sums)
            if reason:
                refused[group.name] = Verdict(accepted=False, score=None, reason=reason)
            else:
                found.append(GroupTotals(group=group, bands=bands))
        wanted = self.plan.config.robustness
        filtered = filter_groups(found, f=wanted.f, rule=wanted.group_rule)
        names = {group.name: group.members for group in groups}
        closed = {band.index: "no group that holds it was opened" for band in self.plan.bands}
        closed = {i: filtered.closed.get(i, text) for i, text in closed.items() if i not in filtered.totals}
        voters = {
            index: sum(
                len(set(each.group.members).intersection(sums.survivors))
                for each in found
                if index in each.bands and filtered.verdicts[each.group.name].accepted
            )
            for index in filtered.totals
        }
        return Judged(
            totals=filtered.totals,
            closed=closed,
            verdicts={**filtered.verdicts, **refused},
            voters=voters,
            groups=names,
            flags={
                **_flags(found, self._previous(), filtered, f=wanted.f),
                **dict.fromkeys(refused, 1.0),
            },
        )

    def _previous(self) -> dict[int, RealVector] | None:
        """Return the average of the last round that moved the adapter, by band."""
        steps = self.previous_step.by_band()
        if steps is None:
            return None
        rate = self.plan.config.server_learning_rate
        return {index: step[: len(step) - self.plan.statistics] / rate for index, step in steps.items()}

    def _reference(self, session: Session, adapter: Adapter) -> dict[int, RealVector] | None:
        if not filter_of(self.plan.config.robustness.filter).needs_reference or self.reference is None:
            return None
        rows = self.reference(adapter, session.round).astype(np.float64) - adapter.rows
        return {
            band.index: rows[band.start : band.stop, self.plan.columns].ravel() for band in self.plan.bands
        }


def _has_direction(vectors: Mapping[int, RealVector]) -> bool:
    """Return whether vectors can serve as a direction to compare with: finite and not zero."""
    return all(np.isfinite(each).all() for each in vectors.values()) and any(
        each.any() for each in vectors.values()
    )


def _judged(
    filtered: Filtered, updates: Updates, refused: Mapping[ClientId, Verdict], never: Mapping[int, str]
) -> Judged:
    kept = {name for name, verdict in filtered.verdicts.items() if verdict.accepted}
    voters = {
        index: sum(updates.clients[i] in kept for i in updates.bands[index].holders)
        for index in filtered.totals
    }
    return Judged(
        totals=filtered.totals,
        closed={**never, **filtered.closed},
        verdicts={**filtered.verdicts, **refused},
        voters=voters,
    )


def _group_totals(
    plan: Plan, session: Session, index: int, group: Group, sums: SumResult
) -> tuple[Mapping[int, BandTotal], str]:
    """Return one group's sum, cut into its bands, and why no honest members could have it; empty if they could.

    All members hold all of its bands, so whoever spoils one of them could have spoilt any: the group is refused as a whole.
    """
    cut = plan.segmentation.by_band(session, index, sums.sums[index])
    members = len(set(group.members).intersection(sums.survivors))
    counts = dict.fromkeys(cut, members)
    if refused := refused_claims(plan, cut, counts):
        return {}, _first(plan, refused)
    if plan.mechanism_of(session) is not None:
        totals = dequantize_public(cut, plan.quantizer, weights=dict.fromkeys(cut, float(members)))
    else:
        to_real = dequantize_weighted if plan.weighted else dequantize
        totals = to_real(cut, plan.quantizer, holders=counts)
    return totals, _first(plan, impossible(totals, single_limits(plan)))


def _first(plan: Plan, refused: Mapping[int, str]) -> str:
    """Return one reason for a group, that of its lowest refused band; empty if there is none."""
    return next((f"group sum: {plan.bands[i]}: {refused[i]}" for i in sorted(refused)), "")


def _flags(
    found: list[GroupTotals], previous: Mapping[int, RealVector] | None, filtered: Filtered, *, f: int
) -> dict[str, float]:
    """Flag the f groups most suspicious inside their tiers: too long, or pointing away from the previous step."""
    if not found:
        return {}
    ranks = np.array([each.group.rank for each in found], dtype=np.int64)
    lengths = np.array([filtered.verdicts[each.group.name].score or 0.0 for each in found])
    suspicion = tier_scores(lengths, ranks)
    if previous is not None:
        away = np.array([-_cosine(each, previous) for each in found])
        suspicion = np.maximum(suspicion, tier_scores(away, ranks))
    worst = set(np.argsort(-suspicion, kind="stable")[:f].tolist())
    return {each.group.name: float(i in worst) for i, each in enumerate(found)}


def _cosine(each: GroupTotals, previous: Mapping[int, RealVector]) -> float:
    shared = sorted(set(each.bands) & set(previous))
    if not shared:
        return 0.0
    own = np.concatenate([each.bands[index].weighted_sum for index in shared])
    step = np.concatenate([previous[index] for index in shared])
    return float(cosines(own[None, :], reference=step)[0]) if step.any() else 0.0


def _seed(session: Session, inputs: Mapping[ClientId, Mapping[int, IntegerVector]]) -> int:
    """Return the seed of a filter: it depends on every input, so that no client knows it when it sends its own.

    It depends on nothing that differs between repetitions or attempts, or a resumed run would decide differently.
    """
    digest = hashlib.sha256(
        b"rbla-secure filter\x00" + session.config_digest + session.round.to_bytes(8, "big")
    )
    for client in sorted(inputs):
        digest.update(client.encode() + b"\x00")
        for index in sorted(inputs[client]):
            digest.update(inputs[client][index].tobytes())
    return int.from_bytes(digest.digest()[:7], "big")
