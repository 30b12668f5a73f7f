"""Every figure that a run prints is recomputed from who survived, in every mode, by an accountant of the tests' own.

With drop-outs: whoever was silent left no noise in the sum, and what is printed must count that, against every observer.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from protocols.session import ClientId, Session
from rbla_secure.cli import main
from rbla_secure.federation.server.spending import Spending
from rbla_secure.privacy.ledger import Shown
from tests.support.own_epsilon import composed, faced
from tests.support.tiny_job import job, metrics, write_images

Z, COLLUDERS = 3.0, 1
GROUPS = {f"tiers__{tier}__clients": 4 for tier in ("phone", "laptop", "workstation", "datacenter")}

MODES: dict[str, dict[str, object]] = {
    "plain": {"secure_sum": "plain"},
    "semi-honest": {"masking__profile": "semi-honest"},
    "consistency": {"masking__profile": "consistency"},
    "one-answer": {"masking__profile": "one-answer"},
    "padded": {"masking__profile": "semi-honest", "upload": "padded"},
    "homomorphic": {"secure_sum": "homomorphic"},
    "homomorphic with a verifier": {"secure_sum": "homomorphic", "homomorphic__verifier": "true"},
    "groups": {"robustness__group_size": 4, **GROUPS},
    "groups in the clear": {"secure_sum": "plain", "robustness__group_size": 4, **GROUPS},
    "recovered, consistency": {"masking__profile": "consistency", "privacy__recovered_dropout": 0.25},
    "recovered, semi-honest": {"masking__profile": "semi-honest", "privacy__recovered_dropout": 0.25},
    "central": {"privacy__mechanism": "central"},
    "central in the clear": {"secure_sum": "plain", "privacy__mechanism": "central"},
    "add-or-remove": {
        "secure_sum": "plain",
        "privacy__mechanism": "central",
        "privacy__adjacency": "add-or-remove",
    },
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set."""
    return write_images(tmp_path_factory.mktemp("data"))


def run(folder: Path, images: Path, capsys: pytest.CaptureFixture[str], **changes: object) -> dict[str, Any]:
    """What `account` tells of a run with drop-outs."""
    keys = job(images, noise_multiplier=Z, privacy__colluders=COLLUDERS, **{"dropout_rate": 0.15} | changes)
    assert main(["run", "--out", str(folder), *keys]) == 0
    capsys.readouterr()
    assert main(["account", str(folder), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


def recomputed(records: list[dict[str, Any]], mode: str, *, known: int) -> float:
    """Epsilon of an observer of sums that knows the noise of so many clients."""
    options = MODES[mode]
    if options.get("privacy__adjacency") == "add-or-remove":
        return composed([(record["cohort"], Z) for record in records])
    if "privacy__mechanism" in options:
        return composed([(record["survivors"], Z) for record in records if record["holders"]])
    made_good = float(str(options.get("privacy__recovered_dropout", 0.0)))
    padded = options.get("upload") == "padded"
    law: dict[str, Any] = {"colluders": COLLUDERS, "known": known, "made_good": made_good, "padded": padded}
    return composed([(record["survivors"], faced(record, Z, **law)) for record in records])


def of_uploads(records: list[dict[str, Any]]) -> float:
    """Epsilon of a server that reads uploads, of everybody who was asked, under one share of those that make up a target."""
    return composed(
        [(record["cohort"], Z * (len(record["cohort"]) - COLLUDERS) ** -0.5) for record in records]
    )


@pytest.mark.parametrize("mode", MODES)
def test_what_is_printed_is_what_the_survivors_left(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str], mode: str
) -> None:
    """All four views to 1e-3, from metrics.jsonl; a few clients are missing, so that it makes a difference."""
    found = run(tmp_path / "run", images, capsys, **MODES[mode])

    records: list[dict[str, Any]] = metrics(tmp_path / "run")
    assert sum(len(record["cohort"]) - len(record["survivors"]) for record in records) >= 2
    views = found["views"]
    assert views["public-reader"] == pytest.approx(recomputed(records, mode, known=0), rel=1e-3)
    assert views["participant"] == pytest.approx(recomputed(records, mode, known=1), rel=1e-3)
    if "privacy__mechanism" in MODES[mode]:
        assert views["server"] is views["server-with-clients"] is None
    elif MODES[mode].get("secure_sum") == "plain":
        assert views["server"] == views["server-with-clients"] == pytest.approx(of_uploads(records), rel=1e-3)
    else:
        assert views["server"] == views["public-reader"]
        assert views["server-with-clients"] == views["participant"]


@pytest.mark.parametrize("mode", ["plain", "groups in the clear"])
def test_a_ledger_written_before_anybody_drops_out_is_refuted(
    tmp_path: Path,
    images: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
) -> None:
    """The control: counted over everybody who was asked, in the clear, the printed figure is too small."""
    spend = Spending.before_reveal

    def careless(self: Spending, session: Session, part: Shown, contributors: tuple[ClientId, ...]) -> None:
        spend(self, session, part, session.members if part is Shown.SUMS else contributors)

    monkeypatch.setattr(Spending, "before_reveal", careless)

    found = run(tmp_path / "run", images, capsys, **MODES[mode])

    records: list[dict[str, Any]] = metrics(tmp_path / "run")
    for observer, known in (("public-reader", 0), ("participant", 1)):
        assert found["views"][observer] < 0.97 * recomputed(records, mode, known=known)


def test_under_add_or_remove_no_drop_out_changes_what_is_printed(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither one nor nearly all: the ledger is the same to the byte but for the run's name, and so is what is said of it."""
    ledgers, told = [], []
    for name, rate in (("all", 0.0), ("some", 0.15), ("few", 0.9)):
        told.append(run(tmp_path / name, images, capsys, **MODES["add-or-remove"], dropout_rate=rate))
        ledger = json.loads((tmp_path / name / "privacy.json").read_text())
        ledgers.append({**ledger, "terms": {**ledger["terms"], "run": ""}})

    survivors = [[len(record["survivors"]) for record in metrics(tmp_path / name)] for name in ("all", "few")]  # type: ignore[arg-type]
    assert min(survivors[0]) == 10
    assert max(survivors[1]) < 6  # the threshold of ten
    assert ledgers[0] == ledgers[1] == ledgers[2]
    assert told[0] == told[1] == told[2]
