"""The main job, top to bottom: data, base, plan, federation, rounds, adapter.

Everything that a run computes is here or below; the command line only parses and prints. A killed job is resumed by
the same function on the same folder: what is already durable is read and compared with the audit log, and only then is
anything written and the rest done.
"""

from collections.abc import Mapping
from contextlib import ExitStack

from torch import nn

from protocols.homomorphic.services.operated import HomomorphicServices
from rbla_secure.config import Config
from rbla_secure.engines.in_process import InProcess
from rbla_secure.exported_adapter import check_exported, export, exported_files
from rbla_secure.federation.build import Enrolment, LocalClient, Wiring, federation
from rbla_secure.federation.client.participant import BeforeTraining
from rbla_secure.federation.server.spending import check_spent
from rbla_secure.federation.server.step_checks import PublicTests
from rbla_secure.frozen_base import base_on_disk, believed_base
from rbla_secure.lora.adapter import Adapter, Rows
from rbla_secure.lora.peft_io import find_linear
from rbla_secure.planning.plan import Plan
from rbla_secure.report.console import ConsoleReport
from rbla_secure.report.disclosure import what_each_party_learned
from rbla_secure.report.privacy import spent_in
from rbla_secure.report.summary import ServiceCost, Summary
from rbla_secure.run_folder.audit_log import EventKind, LogEntry
from rbla_secure.run_folder.budget_settings import BudgetSettings
from rbla_secure.run_folder.folder import Progress, RunFolder
from rbla_secure.stopwatch import Stopwatch
from rbla_secure.tasks.base_model import base_digest, build_mlp
from rbla_secure.tasks.configured_training import configured_trainer
from rbla_secure.tasks.datasets import LabelledImages
from rbla_secure.tasks.public_examples import PublicExamples
from rbla_secure.tasks.scoring import Scorer
from rbla_secure.tasks.splits import Data, load_data
from rbla_secure.tasks.training import use_one_thread


def run_job(folder: RunFolder, report: ConsoleReport) -> Summary:
    """Run or resume the job of a folder.

    Raises:
        RblaSecureError: The subclass says what was wrong; what was durable stays.
    """
    use_one_thread()
    stopwatch = Stopwatch()
    with ExitStack() as ending, stopwatch.measure("total"):
        # Data: held-out for the server, public for the base, private for the clients.
        data = load_data(folder.config)

        # The frozen base, and the plan that server and clients share. A resumed folder is compared with both
        # to its last file before the first one is written.
        base = believed_base(folder, data.public)
        plan = _plan(folder.config, base, base_digest(base))
        progress = folder.load(plan)
        check_spent(plan, folder, progress)
        count = _count_in_budgets(plan, folder, progress, ending)
        if folder.history.exported:
            check_exported(folder, exported_files(folder, progress, spent_in(folder.path)))
        base = base_on_disk(folder, base)
        scorer = Scorer(base, plan.layout, data.held_out)
        base_score = scorer.score(None)
        report.base(base_score.accuracy, base_score.loss, examples=len(data.held_out))

        # The federation: everyone enrolled, and the server's services in processes of their own.
        clients = _clients(plan, base, data, count=count, stopwatch=stopwatch)
        wiring = _wiring(plan, base, data, clients, folder=folder, report=report, stopwatch=stopwatch)
        built = ending.enter_context(federation(wiring))

        # The rounds.
        if progress.round:
            report.resumed(progress.round)
        done_before = len(progress.timings)
        coordinator = built.coordinator(
            folder, evaluate=lambda adapter: _pair(scorer, adapter), stopwatch=stopwatch
        )
        progress = coordinator.run(progress)

        # The result, in PEFT's format.
        spent = spent_in(folder.path)
        digest = export(folder, exported_files(folder, progress, spent))
        folder.log.append(LogEntry.of_run(EventKind.RUN_FINISHED, rounds=progress.round, adapter_file=digest))

    here = progress.timings[done_before:]
    in_rounds = sum((line.training or 0.0) + (line.protocol or 0.0) + line.evaluation for line in here)
    summary = Summary.of(
        progress,
        run=str(folder.path),
        base_accuracy=base_score.accuracy,
        other_seconds=stopwatch.seconds("total") - in_rounds,
        adapter_sha256=digest,
        privacy=spent[0],
        sample_privacy=spent[1],
        services=_costs(built.services, rounds=len(here)),
    )
    report.end(summary, what_each_party_learned(plan, progress.records))
    return summary


def planned(config: Config) -> Plan:
    """Plan a configuration on an untrained base of the right shape: enough to forecast what it spends."""
    return _plan(config, build_mlp(), bytes(32))


def _plan(config: Config, base: nn.Module, digest: bytes) -> Plan:
    layout = find_linear(base, scaling=config.lora.scaling)
    return Plan.build(config, layout=layout, base_digest=digest)


def check_budgets(config: Config, wanted: BudgetSettings) -> None:
    """Refuse a run that would exceed the lifetime budget of a client; called before the run folder exists.

    Raises:
        BudgetError: It would; names the client, its data, what was spent, the new total, and what would fit.
        PrivacyError: A client's folder or ledger cannot be used.
    """
    # The accountant takes a second to import: only where budgets are kept.
    from rbla_secure.federation.client.lifetime import join_all  # noqa: PLC0415

    for each in join_all(planned(config), wanted).values():
        each.close()


def _count_in_budgets(
    plan: Plan, folder: RunFolder, progress: Progress, ending: ExitStack
) -> Mapping[str, BeforeTraining]:
    """Return, by client, the function that records a session in its lifetime budget; empty where none are kept."""
    if folder.budgets is None:
        return {}
    from rbla_secure.federation.client.lifetime import join_all  # noqa: PLC0415

    joined = join_all(
        plan,
        folder.budgets,
        run=folder.run_id.hex(),
        done=progress.round,
        survivors=[record.survivors for record in progress.records],
    )
    for each in joined.values():
        ending.callback(each.close)
    return {client: each.spend for client, each in joined.items()}


def _clients(
    plan: Plan,
    base: nn.Module,
    data: Data,
    *,
    count: Mapping[str, BeforeTraining],
    stopwatch: Stopwatch,
) -> dict[str, LocalClient]:
    """Return every client with its examples and training; all share one trainer, which keeps no state between calls."""
    trainer = configured_trainer(
        plan.config, base, plan.layout, noise=plan.sample_level, band_ends=[band.stop for band in plan.bands]
    )

    def client(name: str, examples: LabelledImages) -> LocalClient:
        def train(adapter: Adapter, seed: int) -> Rows:
            with stopwatch.measure("training"):
                return trainer.train(adapter, examples, seed=seed)

        before_training = count.get(name, lambda _session: None)
        return LocalClient(train=train, examples=len(examples), before_training=before_training)

    return {name: client(name, examples) for name, examples in zip(plan.ranks, data.clients, strict=True)}


def _wiring(
    plan: Plan,
    base: nn.Module,
    data: Data,
    clients: Mapping[str, LocalClient],
    *,
    folder: RunFolder,
    report: ConsoleReport,
    stopwatch: Stopwatch,
) -> Wiring:
    """Return the wiring of a federation whose clients all run in this process, with the server's public examples."""
    public = PublicExamples(plan.config, base, plan.layout, data.public)

    def connect(enrolment: Enrolment) -> InProcess:
        return InProcess.of(enrolment, clients, stopwatch=stopwatch)

    return Wiring(
        plan=plan,
        connect=connect,
        reference=public.reference,
        public_tests=PublicTests(accuracy=public.accuracy, triggers=public.triggers),
        observers=[report],
        folder=folder,
    )


def _costs(services: HomomorphicServices | None, *, rounds: int) -> list[ServiceCost]:
    """Return, per service, its bytes to and from and its seconds over so many rounds; empty without services."""
    channels = services.channels() if services is not None and rounds else {}
    return [
        ServiceCost(
            service=name,
            rounds=rounds,
            seconds=channel.seconds,
            bytes_to=channel.bytes_to,
            bytes_from=channel.bytes_from,
        )
        for name, channel in channels.items()
    ]


def _pair(scorer: Scorer, adapter: Adapter) -> tuple[float, float]:
    score = scorer.score(adapter)
    return score.accuracy, score.loss
