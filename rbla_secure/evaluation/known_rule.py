"""The server's rule as attackers can run it at home: for an attack that adapts to what it knows."""

from collections.abc import Callable, Mapping

import numpy as np

from protocols.session import ClientId
from rbla_secure.choices import FilterName
from rbla_secure.federation.last_step import LastStep
from rbla_secure.federation.plan import Plan
from rbla_secure.lora.update import UpdateRows
from rbla_secure.robustness.names import build
from rbla_secure.robustness.updates import BandUpdates, Updates


def accepted_by(
    plan: Plan, last_step: LastStep
) -> Callable[[Mapping[ClientId, UpdateRows]], Mapping[ClientId, bool]]:
    """The plan's rule as attackers can run it at home: on changes of a round that they make up.

    Where no rule judges single clients, everybody passes.
    """
    wanted = plan.config.robustness

    def accepts(changes: Mapping[ClientId, UpdateRows]) -> Mapping[ClientId, bool]:
        if wanted.filter in {FilterName.NONE, FilterName.FL_TRUST}:
            return dict.fromkeys(changes, True)
        clients = tuple(sorted(changes))
        ranks = np.array([len(changes[client]) for client in clients], dtype=np.int64)
        bands = {}
        for band in plan.bands:
            holders = np.flatnonzero(ranks >= band.stop)
            if len(holders):
                values = np.stack(
                    [changes[clients[i]][band.start : band.stop, plan.columns].ravel() for i in holders]
                )
                bands[band.index] = BandUpdates(holders=holders, values=values)
        updates = Updates(clients=clients, ranks=ranks, weights=np.ones(len(clients)), bands=bands)
        rule = build(
            wanted.filter, f=wanted.f, privacy_quorum=plan.config.min_holders, pre_step=wanted.pre_step
        )
        steps = last_step.by_band()
        previous = (
            None if steps is None else {i: step[: len(step) - plan.statistics] for i, step in steps.items()}
        )
        verdicts = rule.apply(updates, previous=previous, seed=0).verdicts
        return {client: verdicts[client].accepted for client in clients}

    return accepts
