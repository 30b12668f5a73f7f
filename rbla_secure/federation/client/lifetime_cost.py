"""The privacy cost of a round for one client, as known before its input leaves. Run by the client.

**The fewest clients that count.** How much noise is in a sum depends on who is in it, and that is settled after a client's input
has left: the server says who dropped out, t of n clients are enough to open the sum, and no client alone can keep it closed. What the
client knows is a lower bound on every list that it and the other honest clients accept: a band opens over its quorum or
more, and where everybody holds one list (`consistency`, `semi-honest`, encryption) over the session's threshold, less
the members outside of the band and less those that are left out for being too few of their rank. So that is what a
round costs. A later correction to what really happened would take a list that the client can trust, which it cannot
under `one-answer`, and a budget that is checked before training must hold whatever follows. The price: with fewer
clients than the quorum's worth of noise counted, the figure is above that of the run's own ledger; a plan whose bands
may open over `privacy.colluders` clients has no bound at all. What the round costs if no more drop out than the plan
provides for is computed beside it.

**Its own bands.** The noise of a band hides those who upload it. Bands that a client does not hold do not depend on it.

**The strongest observer.** Of all observers against whom something is claimed the least noise counts, and the largest of every
other figure: no observer has more (`privacy.recovered-dropout` that covers n - t members makes both figures one).

**Secret draws are not counted as noise.** A client records the rounds for which it is drawn, in full: what they spend
against whoever learns its draws. A limit on that holds against everybody else, who sees no more. Only the run's own
ledger has the lower figure for readers who do not learn the draws. That covers all attempts, also those in which the
client is not asked and of which it is not informed; and for sampled releases whose settings follow from earlier runs
the sum is no bound. To join, all rounds of the plan must fit in full, drawn or not: a client that joined by its own
draws would let others infer them from who joins, and they would no longer be a Poisson sample.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import final

from protocols.session import ClientId
from rbla_secure.planning.budget import expected_present
from rbla_secure.planning.noise import EXPOSED, views
from rbla_secure.planning.plan import Plan
from rbla_secure.privacy.accounting import SampledSteps
from rbla_secure.privacy.noise import NOTHING, GaussianMechanism, Release

# A round of training without noise, or with noise that follows from a seed.
BARE_STEPS = SampledSteps(noise_multiplier=0.0, sample_rate=1.0, steps=1)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RoundCost:
    """The privacy cost of one attempt at a round for one client.

    Args:
        counted: The cost at client level, over the fewest clients.
        expected: The cost at client level, if no more drop out than the plan provides for.
        samples: The cost at the level of single examples.
    """

    counted: Release
    expected: Release
    samples: SampledSteps


def cost_of_round(plan: Plan, client: ClientId, mechanism: GaussianMechanism | None) -> RoundCost:
    """Return the cost of a round of a plan.

    Args:
        plan: The client's own plan.
        client: The client's name.
        mechanism: The noise mechanism of the round, at its clip norm; None without noise on sums.
    """
    if plan.config.privacy.simulation:
        return RoundCost(counted=EXPOSED, expected=EXPOSED, samples=BARE_STEPS)
    return RoundCost(
        counted=EXPOSED if mechanism is None else _strongest(plan, mechanism, fewest(plan, client)),
        expected=EXPOSED if mechanism is None else _strongest(plan, mechanism, _provided(plan, client)),
        samples=_steps(plan),
    )


def fewest(plan: Plan, client: ClientId) -> Mapping[int, int]:
    """Return, by band held that may open, the fewest uploaders over which it opens, whatever the server does."""
    absent = plan.promises.members - _least_list(plan)
    segmentation = plan.segmentation
    return {band.index: segmentation.least_present(band, absent) for band in segmentation.bands_of(client)}


def _least_list(plan: Plan) -> int:
    """Return the least members of a session that are in all sums they may be in; 0 where lists may differ."""
    promises = plan.promises
    if promises.mode.lists_may_differ(promises.config):
        return 0
    left_out = len(plan.bands) * max(0, promises.class_quorum - 1)
    return max(0, promises.threshold - left_out)


def _provided(plan: Plan, client: ClientId) -> Mapping[int, int]:
    """Return, by band, the uploaders left if no more drop out than the plan provides for."""
    expected = expected_present(plan.promises)
    return {band.index: expected[band.index] for band in plan.segmentation.bands_of(client)}


def _strongest(plan: Plan, mechanism: GaussianMechanism, least: Mapping[int, int]) -> Release:
    """Return a release that bounds what any observer claimed against sees, over at least `least` uploaders.

    Noise is least over the fewest. What approximates it by a Gaussian grows with the components that are summed, so it is
    taken over as many as there can be.
    """
    if not least:
        return NOTHING
    most = {
        index: max(
            range(count, mechanism.bands[index].uploaders + 1), key=partial(_components, mechanism, index)
        )
        for index, count in least.items()
    }
    against = [
        views(plan.promises, mechanism, present=present, colluding=plan.promises.colluders)[observer]
        for present in (least, most)
        for observer in plan.promises.claimed
    ]
    # Whatever else a release has, the most of it counts; a sampling rate is left at 1, for whoever takes part pays in full.
    others = [each.name for each in fields(Release) if each.name not in {"noise_multiplier", "sample_rate"}]
    return Release(
        noise_multiplier=min(release.noise_multiplier for release in against),
        **{name: max(getattr(release, name) for release in against) for name in others},
    )


def _components(mechanism: GaussianMechanism, index: int, count: int) -> int:
    """Return how many noise components stay in the sum of a band over `count` uploaders."""
    band = mechanism.bands[index]
    return count * len(band.kept(band.uploaders - count))


def _steps(plan: Plan) -> SampledSteps:
    if plan.sample_level is None:
        return BARE_STEPS
    return SampledSteps(**{each.name: getattr(plan.sample_level, each.name) for each in fields(SampledSteps)})
