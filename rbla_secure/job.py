"""The main job, top to bottom: data, base, plan, participants, rounds, adapter.

Everything that a run computes is here or below; the command line only parses and prints. A killed job is run again by
the same function on the same folder: what is already durable is read and held against the audit log, and only then is
anything written and the rest done.
"""

import hashlib
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path

from torch import nn

from protocols.clock import SYSTEM_CLOCK
from protocols.identity.trust import YEAR_SECONDS, ThrowawayAuthority, TrustStore
from rbla_secure.assembly import guard_of, reference_of, trainer_of
from rbla_secure.atomic_files import replace_folder, write_atomic
from rbla_secure.config import Config
from rbla_secure.engines.in_process import Faults, InProcess
from rbla_secure.errors import RunFolderError
from rbla_secure.federation.client.participant import BeforeTraining, Participant
from rbla_secure.federation.coordinator import Coordinator
from rbla_secure.federation.secret_cohorts import SecretCohorts
from rbla_secure.federation.server.defence import Filtering
from rbla_secure.federation.server.previous_step import LastStep
from rbla_secure.federation.server.services import HomomorphicRoles
from rbla_secure.federation.server.spending import check_spent
from rbla_secure.federation.step_bound import WINDOW
from rbla_secure.lora.adapter import Adapter, Rows
from rbla_secure.lora.peft_io import WEIGHTS_FILE, adapter_files, find_linear
from rbla_secure.planning.band_weights import band_weights, weights_used
from rbla_secure.planning.opening import opening_rule
from rbla_secure.planning.plan import Plan
from rbla_secure.planning.promises import Promises
from rbla_secure.report.console import ConsoleReport
from rbla_secure.report.disclosure import what_each_party_learned
from rbla_secure.report.privacy import PrivacySummary, SamplePrivacySummary, spent_in
from rbla_secure.report.summary import ServiceCost, Summary
from rbla_secure.run_folder.audit_log import FILE_NAME, Entry, EventKind
from rbla_secure.run_folder.budget_settings import Wanted
from rbla_secure.run_folder.folder import Progress, RunFolder
from rbla_secure.run_folder.verify import ADAPTER, BASE
from rbla_secure.seeding import derive_seed
from rbla_secure.stopwatch import Stopwatch
from rbla_secure.tasks.base_model import (
    base_digest,
    base_files,
    build_mlp,
    chain_digest,
    load_base,
    model_card,
    save_base,
    train_base,
)
from rbla_secure.tasks.datasets import LabelledImages
from rbla_secure.tasks.scoring import Scorer
from rbla_secure.tasks.splits import Data, load_data
from rbla_secure.tasks.training import use_one_thread


def run_job(folder: RunFolder, report: ConsoleReport) -> Summary:
    """Run or resume the job of a folder.

    Raises:
        RblaSecureError: Named for what was wrong; what was durable stays.
    """
    use_one_thread()
    stopwatch = Stopwatch()
    with ExitStack() as ending, stopwatch.measure("total"):
        # Data: held-out for the server, public for the base, private for the clients.
        config = folder.config
        data = load_data(config)

        # The frozen base, and the plan that server and clients share. A folder that is gone on with is compared with both
        # to its last file before the first one is written.
        base = _base(folder, data.public)
        layout = find_linear(base, scaling=config.lora.scaling)
        plan = Plan.build(config, layout=layout, base_digest=base_digest(base))
        progress = folder.load(plan)
        check_spent(plan, folder, progress)
        count = _count_in_budgets(plan, folder, progress, ending)
        if folder.history.exported:
            _check_exported(folder, _exported_files(folder, progress, spent_in(folder.path)))
        base = _on_disk(folder, base)
        scorer = Scorer(base, layout, data.held_out)
        base_score = scorer.score(None)
        report.base(base_score.accuracy, base_score.loss, examples=len(data.held_out))

        # Everyone's identity: certified by an authority that lives as long as this process. Decryptor, verifier and
        # worker live in processes of their own.
        services = _services(plan)
        if services is not None:
            ending.callback(services.close)
        authority, trust = _enrol(plan, services)
        last_step = LastStep(plan)
        roles = services.set_up(trust, last_step) if services is not None and trust is not None else None

        # The rounds.
        cohorts = SecretCohorts.of(plan)
        exchange = _exchange(plan, base, data, stopwatch, authority, cohorts=cohorts, count=count)
        ending.callback(exchange.end)
        coordinator = Coordinator(
            plan=plan,
            secure_sum=plan.secure_sum(trust, roles=roles),
            folder=folder,
            exchange=exchange,
            evaluate=lambda adapter: _pair(scorer, adapter),
            stopwatch=stopwatch,
            observe=report.round,
            filtering=Filtering.of(plan, last_step, reference_of(plan, base, data)),
            guard=guard_of(plan, base, data, folder.last_adapters(plan, WINDOW)),
            moved=last_step.took,
            cohorts=cohorts,
            direction=services.direction if services is not None else lambda: b"",
        )
        if plan.screening is not None or coordinator.filtering is not None:
            last_step.recall(chain([coordinator.initial_adapter()], folder.adapters(plan)))
        if services is not None:
            services.recall(folder.direction())
        if progress.round:
            report.resumed(progress.round)
        done_before = len(progress.timings)
        progress = coordinator.run(progress)

        # The result, in PEFT's format.
        privacy, sample_privacy = spent_in(folder.path)
        digest = _export(folder, _exported_files(folder, progress, (privacy, sample_privacy)))
        folder.log.append(Entry.of_run(EventKind.RUN_FINISHED, rounds=progress.round, adapter_file=digest))

    here = progress.timings[done_before:]
    in_rounds = sum((line.training or 0.0) + (line.protocol or 0.0) + line.evaluation for line in here)
    summary = Summary.of(
        progress,
        run=str(folder.path),
        base_accuracy=base_score.accuracy,
        other_seconds=stopwatch.seconds("total") - in_rounds,
        adapter_sha256=digest,
        privacy=privacy,
        sample_privacy=sample_privacy,
        services=_costs(services, rounds=len(here)),
    )
    report.end(summary, what_each_party_learned(plan, progress.records))
    return summary


def planned(config: Config) -> Plan:
    """The plan of a configuration on a base of the right shape but of no training: enough to forecast what it spends."""
    layout = find_linear(build_mlp(), scaling=config.lora.scaling)
    return Plan.build(config, layout=layout, base_digest=bytes(32))


def check_budgets(config: Config, wanted: Wanted) -> None:
    """Refuse a run that would exceed the lifetime budget of a client; asked before there is a run folder.

    Raises:
        BudgetError: It would; names the client, its data, what was spent, what it would come to, and what would do.
        PrivacyError: A client's folder or ledger cannot be used.
    """
    # The accountant takes a second to import: only where budgets are kept.
    from rbla_secure.federation.client.lifetime import join_all  # noqa: PLC0415

    for each in join_all(planned(config), wanted).values():
        each.close()


def _count_in_budgets(
    plan: Plan, folder: RunFolder, progress: Progress, ending: ExitStack
) -> Mapping[str, BeforeTraining]:
    """By client, what writes a session down in its lifetime budget; nothing where none are kept."""
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


def _base(folder: RunFolder, public: LabelledImages) -> nn.Sequential:
    """The base of a run, read where it is there and the audit log names it, else trained. Nothing is written.

    One that the log does not name yet, as a crash leaves it, is not believed. One that was lost comes back if it comes out
    the same.

    Raises:
        RunFolderError: It is not the one that the log names, or its files say so in other bytes than a run writes.
    """
    path = folder.path / BASE
    if not folder.history.base or not path.exists():
        trained = train_base(public, seed=derive_seed(folder.config.seed, "base"))
        folder.check_base(chain_digest(trained))
        return trained
    base = load_base(path)
    folder.check_base(chain_digest(base))
    for name, data in base_files(base).items():
        if (path / name).read_bytes() != data:
            raise RunFolderError(
                f"{path / name} is not spelt as a run writes it, so something in it may be read otherwise: restore it from a "
                "copy, or move base/ away to have it trained again"
            )
    return base


def _on_disk(folder: RunFolder, base: nn.Sequential) -> nn.Sequential:
    """The base as its files have it, which are written first where they are not believed or not there."""
    path = folder.path / BASE
    if not folder.history.base or not path.exists():
        replace_folder(path, lambda empty: save_base(empty, base))
    folder.hold_base(chain_digest(base))
    return load_base(path)


def _services(plan: Plan) -> HomomorphicRoles | None:
    """The services that the plan's secure sum needs."""
    return HomomorphicRoles(plan) if plan.mode.needs_services else None


def _costs(services: HomomorphicRoles | None, *, rounds: int) -> list[ServiceCost]:
    """What each service was sent in so many rounds, and how long it took; nothing if there were none."""
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


def _enrol(
    plan: Plan, services: HomomorphicRoles | None
) -> tuple[ThrowawayAuthority | None, TrustStore | None]:
    """Certificates for all clients and services, where the plan's secure sum works with identities."""
    if not plan.needs_identities:
        return None, None
    now = int(time.time())
    keys = services.public_keys() if services is not None else {}
    authority = ThrowawayAuthority.create(
        plan.ranks, now=now, valid_for=YEAR_SECONDS, clock=SYSTEM_CLOCK, services=keys
    )
    return authority, authority.trust(now)


def _exchange(
    plan: Plan,
    base: nn.Sequential,
    data: Data,
    stopwatch: Stopwatch,
    authority: ThrowawayAuthority | None,
    *,
    cohorts: SecretCohorts | None,
    count: Mapping[str, BeforeTraining],
) -> InProcess:
    """Everyone enrolled, each with its own examples; they share one trainer, which keeps nothing between calls."""
    trainer = trainer_of(plan, base)

    def participant(name: str, examples: LabelledImages) -> Participant:
        def train(adapter: Adapter, seed: int) -> Rows:
            with stopwatch.measure("training"):
                return trainer.train(adapter, examples, seed=seed)

        identity = authority.identity(name) if authority is not None else None
        trust = authority.view if authority is not None else None
        secure_sum = plan.secure_sum(trust, identity)
        return Participant(
            name,
            plan=plan,
            secure_sum=secure_sum,
            train=train,
            examples=len(examples),
            draws=cohorts.draws_of(name) if cohorts is not None else None,
            before_training=count.get(name, lambda _session: None),
        )

    participants = {
        name: participant(name, examples) for name, examples in zip(plan.ranks, data.clients, strict=True)
    }
    secure_sum = plan.secure_sum(authority.view if authority is not None else None)
    faults = Faults(
        rate=plan.config.dropout_rate,
        seed=plan.config.seed,
        stages=secure_sum.stages,
        input_stage=secure_sum.upload_stage,
    )
    return InProcess(
        participants,
        faults=faults,
        stopwatch=stopwatch,
        stage_seconds=plan.config.stage_seconds,
    )


def _pair(scorer: Scorer, adapter: Adapter) -> tuple[float, float]:
    score = scorer.score(adapter)
    return score.accuracy, score.loss


def _exported_files(
    folder: RunFolder, progress: Progress, spent: tuple[PrivacySummary | None, SamplePrivacySummary | None]
) -> dict[str, bytes]:
    """By name, what adapter/ must hold once all rounds are over: it follows from checkpoint, metrics, ledgers and plan."""
    adapter = progress.adapter
    if adapter is None:  # a run has at least one round, and every round leaves an adapter
        raise AssertionError("a finished run has an adapter")
    claims = [text for summary in spent if summary for text in summary.lines()]
    return adapter_files(adapter, card=model_card(_facts(adapter, progress, folder.config, claims)))


def _check_exported(folder: RunFolder, files: Mapping[str, bytes]) -> None:
    """Compare the result of a finished run with what it exports: weights, configuration and card, each to the byte.

    A file that is missing is none that differs: it is written again. Files of other names are not compared.

    Raises:
        RunFolderError: A file is another one, or the log names another result than the last checkpoint gives.
    """
    if folder.history.adapter_file != hashlib.sha256(files[WEIGHTS_FILE]).hexdigest():
        raise RunFolderError(
            f"{folder.path / FILE_NAME} names an adapter_file that the checkpoint of the last round does not give: restore it "
            "from a copy, or go on with the version of rbla-secure that exported it"
        )
    for name, data in files.items():
        path = folder.path / ADAPTER / name
        if path.exists() and path.read_bytes() != data:
            raise RunFolderError(
                f"{path} is not the one that the run exports: restore it from a copy, or move it away to have it written again"
            )


def _export(folder: RunFolder, files: Mapping[str, bytes]) -> str:
    """Write adapter/, as far as it is not there from before, and return the SHA-256 of its tensors' file.

    What lies there although the log does not name it is not believed and makes way as a whole.
    """
    path = folder.path / ADAPTER
    if not folder.history.exported or not path.exists():
        replace_folder(path, lambda empty: _write(empty, files))
    else:
        _write(path, {name: data for name, data in files.items() if not (path / name).exists()})
    return hashlib.sha256(files[WEIGHTS_FILE]).hexdigest()


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, data in files.items():
        write_atomic(folder / name, data)


def _facts(adapter: Adapter, progress: Progress, config: Config, claims: Sequence[str]) -> dict[str, object]:
    """What the model card says of the adapter."""
    clients = sum(tier.clients for tier in config.tiers.values())
    ranks = sorted({tier.rank for tier in config.tiers.values()})
    promises = Promises.build(config)
    weights = weights_used(promises, band_weights(promises, adapter.layout))
    return {
        "rank": f"{adapter.rank}; any smaller prefix of the rows is a valid adapter too",
        "alpha / r": f"{config.lora.scaling:g}, at every rank",
        "rounds": progress.round,
        "clients": f"{clients}, of ranks {', '.join(map(str, ranks))}",
        "data": f"{config.task.data}, {config.task.partition} partition",
        "average": f"{config.average}, gamma {config.gamma:g}; {opening_rule(promises)}",
        "secure sum": str(config.secure_sum),
        "clip norm": f"{config.clip_norm:g}" + (f", rank bands weighted: {weights}" if weights else ""),
        "differential privacy": " ".join(claims) or "none: no noise was added",
        "accuracy on held-out examples": f"{progress.records[-1].accuracy:.3f}",
    }
