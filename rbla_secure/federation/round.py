"""One round, top to bottom: the data flow from the broadcast adapter to the next one. Run by the server.

    broadcast -> [clients: train, clip, pack, quantize, add noise] -> secure sum -> dequantize -> average -> server step

The steps in brackets are the participants' (`participant.py`); the server sees only what the secure sum reveals.
The stages before the input (keys, shares) need no adapter: they travel with the messages of the round before.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import zip_longest

from protocols.interface import SumResult
from protocols.session import ClientId, Session
from protocols.transcript import Transcript
from rbla_secure.config.choices import Adjacency
from rbla_secure.federation.exchange import Exchange
from rbla_secure.federation.observer import NOBODY, RoundObserver
from rbla_secure.federation.server.average_check import check_average
from rbla_secure.federation.server.defence import NEVER, Defence, Judged
from rbla_secure.federation.server.opened_totals import Released, nothing_opened, release
from rbla_secure.federation.server.session_server import SessionServer, StageOfSession, exchange_stages
from rbla_secure.federation.server.step_checks import StepChecks
from rbla_secure.federation.server.weight_claims import refused_claims
from rbla_secure.lora.adapter import Adapter
from rbla_secure.lora.average import (
    GroupAverage,
    Totals,
    apply_average,
    averaging_rule,
)
from rbla_secure.lora.bands import spread
from rbla_secure.planning.plan import Plan
from rbla_secure.privacy.ledger import Shown
from rbla_secure.privacy.noise import CorrelatedNoise
from rbla_secure.privacy.quantize import dequantize, dequantize_weighted
from rbla_secure.robustness.step_decisions import Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundOutcome:
    """The outcome of a round.

    Args:
        adapter: The next global adapter; after an abort, the one the round began with.
        survivors: The clients whose inputs were summed, or judged by a filter: `judged` says which are averaged.
        dropped: By client that fell silent or was rejected, the stage at which that happened.
        refusals: By client, why it declined or why its answer was rejected.
        refused_bands: By band, why it stayed closed, or why its sum cannot be that of honest clients; its rows are unchanged.
        holders: By opened band, how many clients its sum covers.
        cut_off: Mean share of coordinates beyond the per-coordinate bound, over clients and bands, as they claim it: a number
            for people, in [0, 1]. None if aborted, if noise hides it, or if no band's claim is possible.
        remarks: Impossible claims of clients, which have no effect.
        unclipped: Noisy share of clients whose updates were not clipped; None where they are not counted.
        judged: A filter's verdict on the clients, or on their groups; None where everybody is averaged.
        checks: The decisions of the step checks.
        transcript: The bytes that were exchanged.
        aborted: Why the round ended without a result; empty if it did not.
    """

    adapter: Adapter
    survivors: tuple[ClientId, ...] = ()
    dropped: Mapping[ClientId, str] = field(default_factory=dict)
    refusals: Mapping[ClientId, str] = field(default_factory=dict)
    refused_bands: Mapping[int, str] = field(default_factory=dict)
    holders: Mapping[int, int] = field(default_factory=dict)
    cut_off: float | None = None
    unclipped: float | None = None
    judged: Judged | None = None
    checks: tuple[Decision, ...] = ()
    remarks: tuple[str, ...] = ()
    transcript: Transcript = field(default_factory=Transcript)
    aborted: str = ""


def prepare_round(session_server: SessionServer, exchange: Exchange) -> None:
    """Run the stages before the input on their own, when no round before can carry them."""
    for stage in _before_input(session_server):
        exchange_stages(exchange, [StageOfSession(session_server=session_server, stage=stage)])


def run_round(
    plan: Plan,
    session_server: SessionServer,
    adapter: Adapter,
    exchange: Exchange,
    *,
    upcoming: SessionServer | None = None,
    defence: Defence | None = None,
    step_checks: StepChecks | None = None,
    correlated: CorrelatedNoise | None = None,
    observer: RoundObserver = NOBODY,
) -> RoundOutcome:
    """Take the global adapter through one prepared round, and prepare the upcoming one on the way.

    An aborted round is an outcome, not an error: the adapter it returns is the one it was given.

    Args:
        plan: The terms.
        session_server: The server's side of the round's session, its stages before the input done.
        adapter: The global adapter.
        exchange: Carries the messages.
        upcoming: The server's side of the next round's session; None after the last round.
        defence: The defence between the sum and the average, if the plan has one.
        step_checks: The checks of the step, if the plan has any.
        correlated: State from earlier rounds of noise that is correlated over rounds; None without such noise.
        observer: Notified before training and before inputs are revealed (:mod:`rbla_secure.federation.observer`); an
            exception from it stops the round.
    """
    # Clients train, clip, pack and quantize; the secure sum adds their integers band by band.
    stages = session_server.stages
    rest = stages[stages.index(session_server.input_stage) :]
    early_stages = _before_input(upcoming) if upcoming is not None else ()
    at_once = [part for part in plan.promises.shown if part in plan.promises.shown_at_once]
    session = session_server.session
    for part in at_once:
        observer.before_reveal(session, part, session.members)
    announced = Shown.SUMS in at_once
    if not session_server.aborted:
        observer.before_training(session, session.members)
    for stage, early in zip_longest(rest, early_stages):
        due = []
        if stage is not None:
            broadcast = adapter if stage == session_server.input_stage else None
            due.append(StageOfSession(session_server=session_server, stage=stage, adapter=broadcast))
        if early is not None and upcoming is not None:
            due.append(StageOfSession(session_server=upcoming, stage=early))
        exchange_stages(exchange, due)
        if not announced and session_server.contributors is not None:
            observer.before_reveal(session, Shown.SUMS, session_server.contributors)
            announced = True
    sums = session_server.result(adapter)
    if sums is None:
        if plan.config.privacy.adjacency is Adjacency.ZERO_OUT:
            return _outcome(session_server, adapter)
        sums = nothing_opened(session, session_server.aborted)

    # The integers of what opened become totals of bands; a filter judges what they are made of first.
    released, judged = _totals(plan, session, sums, adapter, defence=defence, correlated=correlated)

    # Totals become one average over exactly the holders of each row; what honest clients cannot have made stays out of it.
    averaged = average(plan, spread(released.totals, plan.bands, plan.columns))
    checked = check_average(plan, session, released.totals, averaged)
    totals = {i: total for i, total in released.totals.items() if i not in checked.refused}
    holders = {
        i: count for i, count in (judged.voters if judged else _holders(session, sums)).items() if i in totals
    }

    # The average moves the adapter.
    moved = apply_average(adapter, checked.average, learning_rate=plan.config.server_learning_rate)
    kept, checks = step_checks.judge(adapter, moved) if step_checks is not None else (moved, [])

    return _outcome(
        session_server,
        kept,
        survivors=sums.survivors,
        refused_bands={
            **_refused_bands(plan, session, sums, judged),
            **released.refused,
            **checked.refused,
        },
        holders=holders,
        cut_off=_mean_cut_off(totals, holders),
        unclipped=released.unclipped,
        judged=judged,
        checks=tuple(checks),
        remarks=_impossible_shares(plan, totals),
    )


def _totals(
    plan: Plan,
    session: Session,
    sums: SumResult,
    adapter: Adapter,
    *,
    defence: Defence | None,
    correlated: CorrelatedNoise | None,
) -> tuple[Released, Judged | None]:
    """Return the totals of a round, and the verdict of the filter before them; None without a filter."""
    mechanism = plan.mechanism_of(session)
    if defence is not None:
        judged = defence.judge(session, sums, adapter)
        return Released(totals=judged.totals, unclipped=None), judged
    if mechanism is not None:
        return release(plan, session, mechanism, sums, correlated), None
    holders = _holders(session, sums)
    refused = refused_claims(plan, sums.sums, holders)
    left = {index: summed for index, summed in sums.sums.items() if index not in refused}
    to_real = dequantize_weighted if plan.weighted else dequantize
    return Released(
        totals=to_real(left, plan.quantizer, holders=holders), unclipped=None, refused=refused
    ), None


def _holders(session: Session, sums: SumResult) -> dict[int, int]:
    """Return, by opened segment, how many clients its sum covers."""
    segments = session.segments
    return {index: len(set(segments[index].holders).intersection(sums.survivors)) for index in sums.sums}


def _refused_bands(plan: Plan, session: Session, sums: SumResult, judged: Judged | None) -> dict[int, str]:
    """Return, by band, why the secure sum, or the filter if there is one, left it closed; groups are no bands."""
    if judged is not None:
        found = {**plan.segmentation.refused_bands(sums.refused), **judged.closed}
        return {index: reason for index, reason in found.items() if index not in judged.totals}
    never = dict.fromkeys(range(len(session.segments), len(plan.bands)), NEVER)
    return {**sums.refused, **never}


def average(plan: Plan, totals: Totals) -> GroupAverage:
    """Return the plan's average, in units of an update: totals are weighted by band, the average is not."""
    totals = {
        index: replace(total, weighted_sum=total.weighted_sum / plan.band_weights[index])
        for index, total in totals.items()
    }
    rule = averaging_rule(plan.config.average)
    return rule.average(totals, plan.bands, plan.layout, gamma=plan.config.gamma)


def _before_input(session_server: SessionServer) -> tuple[str, ...]:
    return session_server.stages[: session_server.stages.index(session_server.input_stage)]


def _outcome(
    session_server: SessionServer,
    adapter: Adapter,
    *,
    survivors: tuple[ClientId, ...] = (),
    refused_bands: Mapping[int, str] | None = None,
    holders: Mapping[int, int] | None = None,
    cut_off: float | None = None,
    unclipped: float | None = None,
    judged: Judged | None = None,
    checks: tuple[Decision, ...] = (),
    remarks: tuple[str, ...] = (),
) -> RoundOutcome:
    return RoundOutcome(
        adapter=adapter,
        survivors=survivors,
        dropped=session_server.dropped,
        refusals=session_server.refusals,
        refused_bands=refused_bands or {},
        holders=holders or {},
        cut_off=cut_off,
        unclipped=unclipped,
        judged=judged,
        checks=checks,
        remarks=remarks,
        transcript=session_server.transcript,
        aborted="" if survivors or refused_bands else session_server.aborted,
    )


def _mean_cut_off(totals: Totals, holders: Mapping[int, int]) -> float | None:
    """Return the mean share cut off over all summed coordinates: a band is weighted by its values and holders.

    Claims outside [0, 1] are impossible and do not count.
    """
    told = {index: total.cut_off for index, total in totals.items() if total.cut_off is not None}
    shares = {index: share for index, share in told.items() if 0.0 <= share <= 1.0}
    if len(told) < len(totals) or (told and not shares):
        return None
    weights = {index: len(totals[index].weighted_sum) * holders[index] for index in shares}
    everything = sum(weights.values())
    return sum(share * weights[index] for index, share in shares.items()) / everything if everything else 0.0


def _impossible_shares(plan: Plan, totals: Totals) -> tuple[str, ...]:
    """Describe the impossible claims of coordinates cut off, which are not reported."""
    return tuple(
        f"{plan.bands[index]}: its holders claim that {total.cut_off:.6g} of their values were cut off, which must be in "
        "[0, 1]: one of them lies, and the share is not told"
        for index, total in sorted(totals.items())
        if total.cut_off is not None and not 0.0 <= total.cut_off <= 1.0
    )
