"""Flower's SecAgg+ played in one process: its public client mod and workflow; needs flwr 1.41.

The workflow's state and the identity that messages ask for have no public name, which is why one series of versions is
pinned.
"""

import copy
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from logging import ERROR, getLogger
from random import Random
from statistics import fmean
from types import SimpleNamespace
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.client.mod import secaggplus_mod
from flwr.common import Code, FitIns, FitRes, Status, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS
from flwr.common.serde import recorddict_to_proto
from flwr.compat.common.recorddict_compat import fitres_to_recorddict, parameters_to_arrayrecord
from flwr.server import LegacyContext
from flwr.server.strategy import FedAvg
from flwr.server.workflow import SecAggPlusWorkflow
from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD
from flwr.server.workflow.secure_aggregation.secaggplus_workflow import WorkflowState
from flwr.supercore.task_identity import TaskIdentity
from parties import Floats, dropped_of, peak_since, plain_mean, restart_peak, traced_peak, values_of

from protocols.profiles import SEMI_HONEST

Cell = dict[str, Any]

STAGES = ("setup", "share_keys", "collect_masked_vectors", "unmask")
WEIGHT = 1000  # the workflow's default max_weight: its most precise setting

getLogger("flwr").setLevel(ERROR)


class PeerCohort:
    """Flower's clients and workflow, around a grid that is this object: it hands messages over and times the clients."""

    def __init__(self, clients: int) -> None:
        random = Random(clients)  # noqa: S311  # node ids are no secrets
        self.clients = clients
        self.nodes = [random.getrandbits(63) for _ in range(clients)]
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
        self.contexts = {node: self._context(node) for node in self.nodes}
        self.absent: frozenset[int] = frozenset()
        self.length = 0
        self.uploads: dict[int, Any] = {}
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.in_grid = 0.0
        self.bytes_up: dict[str, int] = {}
        self.client_peak = 0
        self.aggregate: Any = None

    def cells(self, lengths: Sequence[int], dropped_shares: Sequence[float]) -> list[Cell]:
        """Share keys once; then mask once per length, and open once per share of drop-outs."""
        workflow = SecAggPlusWorkflow(self.clients, SEMI_HONEST.threshold(self.clients))
        context = LegacyContext(context=self._context(0), strategy=Strategy(self))
        context.state.config_records[MAIN_CONFIGS_RECORD] = ConfigRecord({"current_round": 1})
        # The model that the workflow sends along is no part of the protocol: one number stands for it.
        model = ndarrays_to_parameters([np.zeros(1)])
        context.state.array_records[MAIN_PARAMS_RECORD] = parameters_to_arrayrecord(model, True)
        shared = WorkflowState()
        server = {
            "setup": self._run(workflow.setup_stage, context, shared),
            "share_keys": self._run(workflow.share_keys_stage, context, shared),
        }
        after_sharing, cells = self.contexts, []
        for length in lengths:
            self.length, self.uploads, self.seconds["collect_masked_vectors"] = length, {}, []
            after_masking = None
            for share in dropped_shares:
                dropped = dropped_of(self.clients, share)
                self.absent = frozenset(self.nodes[position - 1] for position in dropped)
                self.contexts = copy.deepcopy(after_masking or after_sharing)
                self.seconds["unmask"] = []
                state, before = copy.deepcopy(shared), restart_peak()
                server["collect_masked_vectors"] = self._run(
                    workflow.collect_masked_vectors_stage, context, state
                )
                after_masking = after_masking or copy.deepcopy(self.contexts)
                server["unmask"] = self._run(workflow.unmask_stage, context, state)
                # Later cells of a length find the uploads in memory.
                peak = None if dropped else peak_since(before)
                cells.append(self._cell(dropped, server) | {"server_peak_bytes": peak})
        return cells

    def _cell(self, dropped: frozenset[int], server: dict[str, float]) -> Cell:
        client = {stage: fmean(self.seconds[stage]) for stage in STAGES}
        (aggregate,) = parameters_to_ndarrays(self.aggregate)
        mean = plain_mean(self.clients, self.length, dropped)
        return {
            "side": "flwr",
            "clients": self.clients,
            "length": self.length,
            "dropped": len(dropped),
            "client_seconds": client,
            "client_mask_seconds": client["collect_masked_vectors"],
            "client_peak_bytes": self.client_peak,
            "server_seconds": dict(server),
            "server_unmask_seconds": server["unmask"],
            "bytes_up": dict(self.bytes_up),
            "bytes_up_total": sum(self.bytes_up.values()),
            "max_error": float(np.abs(aggregate - mean).max()),
            "repeats": 1,
        }

    def _context(self, node: int) -> Any:
        return Context(run_id=1, node_id=node, node_config={}, state=RecordDict(), run_config={})

    def _run(self, stage: Callable[..., bool], context: Any, state: Any) -> float:
        """Run one stage of the workflow: its processor seconds without those of the grid."""
        self.in_grid, began = 0.0, time.process_time()
        if not stage(self, context, state):
            raise RuntimeError(f"flwr: {stage.__name__} has halted")
        return time.process_time() - began - self.in_grid

    def send_and_receive(self, messages: Iterable[Any], *, timeout: float | None = None) -> list[Any]:  # noqa: ARG002
        """The grid: the clients that are there answer."""
        began = time.process_time()
        replies = [self._deliver(m) for m in messages if m.metadata.dst_node_id not in self.absent]
        self.in_grid += time.process_time() - began
        return replies

    def _deliver(self, message: Any) -> Any:
        node = message.metadata.dst_node_id
        stage = message.content.config_records[RECORD_KEY_CONFIGS]["stage"]
        masking = stage == "collect_masked_vectors"
        if masking and node in self.uploads:
            return self.uploads[node]
        trained = None
        if masking:
            values = values_of(1 + self.nodes.index(node), self.length)
            trained = Message(_trained(values), reply_to=message)

        def answer(context: Any, own: Any) -> Any:
            return secaggplus_mod(own, context, lambda _message, _context: trained)

        def own_message() -> Any:
            # Messages of a stage share their content, and the mod takes records out of it.
            return Message(content=copy.deepcopy(message.content), metadata=message.metadata)

        context, own = self.contexts[node], own_message()
        if masking and node == self.nodes[0]:
            spare, kept = (copy.deepcopy(context), own_message()), copy.deepcopy(trained)
            self.client_peak = traced_peak(lambda: answer(*spare))
            trained = kept  # the mod empties what it was given
        began = time.process_time()
        reply = answer(context, own)
        self.seconds[stage].append(time.process_time() - began)
        if node == self.nodes[0]:
            self.bytes_up[stage] = len(recorddict_to_proto(reply.content).SerializeToString())
        if masking:
            self.uploads[node] = reply
        return reply


class Strategy(FedAvg):
    """Takes every node and keeps the workflow's mean as it is."""

    def __init__(self, cohort: PeerCohort) -> None:
        super().__init__()
        self._cohort = cohort

    def configure_fit(self, server_round: int, parameters: Any, client_manager: Any) -> Any:  # noqa: ARG002
        """The same instructions to all."""
        instructions = FitIns(parameters, {})
        return [(SimpleNamespace(node_id=node), instructions) for node in self._cohort.nodes]

    def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> Any:  # noqa: ARG002
        """Every result holds the mean already."""
        self._cohort.aggregate = results[0][1].parameters
        return None, {}


def _trained(values: Floats) -> RecordDict:
    """What a client's training gives."""
    parameters = ndarrays_to_parameters([values])
    status = Status(Code.OK, "")
    result = FitRes(status=status, parameters=parameters, num_examples=WEIGHT, metrics={})
    return fitres_to_recorddict(result, keep_input=False)
