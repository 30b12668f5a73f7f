"""Every numbered claim of threat_model.md has a test of its number, and every such test a claim."""

import re
from pathlib import Path

from tests.threat_model.six_clients import ROOT


def claims() -> dict[int, str]:
    """The numbered claims of the document."""
    text = (ROOT / "threat_model.md").read_text(encoding="utf-8")
    section = text.split("## Claims")[1].split("\n## ")[0]
    return {
        int(number): claim for number, claim in re.findall(r"^(\d+)\. (.+)$", section, flags=re.MULTILINE)
    }


def test_every_claim_has_a_test_and_every_test_a_claim() -> None:
    """A claim without a test is a promise; a test without a claim is a surprise."""
    files = sorted(Path(__file__).parent.glob("test_*.py"))
    tested = {
        int(number)
        for path in files
        for number in re.findall(
            r"^def test_claim_(\d+)_", path.read_text(encoding="utf-8"), flags=re.MULTILINE
        )
    }

    assert sorted(claims()) == list(range(1, len(claims()) + 1))
    assert tested == set(claims())
