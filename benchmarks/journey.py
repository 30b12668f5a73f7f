"""How many functions a reader passes through to see what two everyday calls do, now and at an earlier commit.

    python benchmarks/journey.py [--baseline COMMIT] [--names]

The calls, on the default configuration:

- ``check_config``: what the commands do to refuse or accept a configuration before a model is built;
- ``Plan.build``: the same, and what follows once the layout of the model is known;
- ``run_round``: one round of the default job's plan with sums in the clear, on the server alone, and with its ten clients. Its
  clients train on nothing (they add a fixed change), since local training is the same in every version. The plan is new: what it
  works out when it is first asked is counted here, and what it works out when it is built under `Plan.build`.

What is counted: Python functions, methods and properties that are defined in the packages `protocols` and `rbla_secure`, one for
each code object (`sys.setprofile`). Generated methods of dataclasses, which have no line in these packages, and the bodies of
lambdas and of comprehensions, which stand inside a function that is counted, are left out. "Distinct" is how many such functions
were called at least once, "calls" how often all of them together.
"""

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLACES = ("check_config", "Plan.build", "run_round, server", "run_round, server and clients")
# Runs inside a version's own process, against that version's own code: only what all versions have.
DRIVER = r"""
import json, sys
from collections import Counter
from pathlib import Path
import numpy as np
from protocols.plain import Plain
from rbla_secure.config import Config
from rbla_secure.federation import round as rounds
from rbla_secure.federation.client.participant import Participant
from rbla_secure.federation.exchange import Answer, Exchange, Parcel
from rbla_secure.federation.server import session_server
from rbla_secure.lora.peft_io import find_linear
from rbla_secure.planning.checks import check_config
from rbla_secure.planning.plan import Plan
from rbla_secure.tasks.base_model import build_mlp

code = Path(sys.argv[1]).resolve()
packages = tuple(f"{code / name}/" for name in ("protocols", "rbla_secure"))
session_server_class = getattr(session_server, "SessionServer", None) or session_server.Conversation


class Count:
    def __init__(self):
        self.calls = Counter()

    def __call__(self, frame, event, _):
        body = frame.f_code
        if event == "call" and body.co_filename.startswith(packages) and not body.co_name.startswith("<"):
            self.calls[body] += 1

    def __enter__(self):
        sys.setprofile(self)
        return self

    def __exit__(self, *_):
        sys.setprofile(None)


class Direct(Exchange):
    # Calls each client in turn, counted or not.
    def __init__(self, participants, count):
        self.participants, self.count = participants, count

    def send(self, messages):
        found = []
        counting = sys.getprofile()
        sys.setprofile(counting if self.count else None)
        for client, parcels in messages.items():
            for parcel in parcels:
                data = self.participants[client].handle(parcel.data)
                found.append((client, parcel, data))
        sys.setprofile(counting)
        return [Answer(client=c, parcel=Parcel(round=p.round, stage=p.stage, data=d)) for c, p, d in found]


def train(adapter, seed):
    return (adapter.rows + np.float32(1e-3)).astype(np.float32)


def plan_of(config):
    layout = find_linear(build_mlp(), scaling=config.lora.scaling)
    with Count() as count:
        plan = Plan.build(config, layout=layout, base_digest=bytes(32))
    return plan, count


def round_of(with_clients):
    plan, _ = plan_of(Config(secure_sum="plain"))
    participants = {
        name: Participant(name, plan=plan, secure_sum=Plain(), train=train, examples=100) for name in plan.ranks
    }
    exchange = Direct(participants, with_clients)
    adapter = plan.initial_adapter
    session = plan.session(run=bytes(16), round_number=1, attempt=1)
    conversation = session_server_class(plan, session, Plain())
    rounds.prepare_round(conversation, exchange)
    with Count() as count:
        outcome = rounds.run_round(plan, conversation, adapter, exchange)
    assert len(outcome.survivors) == 10 and not outcome.refused_bands, outcome
    return count


def checked():
    config = Config()
    with Count() as count:
        check_config(config)
    return count


# Once before anything is counted: imports at a first call are not the calls that are meant.
checked(), round_of(True)
found = [checked(), plan_of(Config())[1], round_of(False), round_of(True)]


def named(body):
    return f"{Path(body.co_filename).relative_to(code)}:{body.co_firstlineno} {getattr(body, 'co_qualname', body.co_name)}"


print(json.dumps([{named(body): calls for body, calls in each.calls.items()} for each in found]))
"""


def measure(code: Path) -> list[dict[str, int]]:
    """For each place, by function: how often it was called."""
    environment = os.environ | {"PYTHONPATH": str(code), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(  # noqa: S603 - this interpreter, on this project's own code
        [sys.executable, "-c", DRIVER, str(code)],
        capture_output=True,
        text=True,
        env=environment,
        # An interpreter that is given its program on the command line looks for packages here first.
        cwd=code,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    found: list[dict[str, int]] = json.loads(done.stdout.splitlines()[-1])
    return found


def _unpacked(commit: str, folder: Path) -> Path:
    """The files of an earlier commit, in a folder of their own."""
    git = shutil.which("git") or "git"
    command = [git, "archive", commit, "protocols", "rbla_secure"]
    archive = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout  # noqa: S603 - nothing of others
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(folder, filter="data")
    return folder


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table of both versions."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--baseline", metavar="COMMIT", help="an earlier commit, to print beside this one")
    parser.add_argument("--names", action="store_true", help="name the functions, with the calls of each")
    options = parser.parse_args(arguments)
    versions = {"here": measure(ROOT)}
    if options.baseline:
        with tempfile.TemporaryDirectory() as folder:
            versions = {options.baseline: measure(_unpacked(options.baseline, Path(folder))), **versions}
    for index, place in enumerate(PLACES):
        for version, counted in versions.items():
            calls = counted[index]
            print(f"{place:30} {version:12} {len(calls):4} distinct {sum(calls.values()):6} calls")
            for name, count in sorted(calls.items()) if options.names else ():
                print(f"    {count:5} {name}")


if __name__ == "__main__":
    main()
