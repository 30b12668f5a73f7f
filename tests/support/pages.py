"""The pages of the repository as tests read them: their links, anchors, code blocks and tables."""

import re
import runpy
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
# Written from the code by a script; whoever has not written them yet has no such file.
GENERATED = frozenset({"docs/configuration.md", "docs/commands.md"})
_FENCE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def page_paths() -> list[str]:
    """Every Markdown page that people read, relative to the repository."""
    found = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
    return sorted(str(path.relative_to(ROOT)) for path in found)


def read(path: str) -> str:
    """The text of a page."""
    return (ROOT / path).read_text(encoding="utf-8")


def links(text: str) -> list[str]:
    """Targets of the links and pictures of a page; code blocks have none."""
    return _LINK.findall(_FENCE.sub("", text))


def anchors(text: str) -> set[str]:
    """The anchors of the headings of a page, as the site and the hosts of repositories make them."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", text), re.MULTILINE)
    plain = (unicodedata.normalize("NFKD", heading).replace("`", "") for heading in headings)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in plain}


def broken_links(path: str, text: str) -> list[str]:
    """The links of a page that lead nowhere inside the repository.

    Args:
        path: Of the page, relative to the repository.
        text: Of the page.
    """
    return [target for target in links(text) if not _leads_somewhere(path, text, target)]


def _leads_somewhere(path: str, text: str, target: str) -> bool:
    if re.match(r"[a-z]+:", target):
        return True
    name, _, anchor = target.partition("#")
    if not name:
        return anchor in anchors(text)
    file = (ROOT / path).parent / name
    if not file.exists():
        return any(file.resolve() == ROOT / page for page in GENERATED)
    return not anchor or anchor in anchors(file.read_text(encoding="utf-8"))


def named_files(text: str) -> Iterator[str]:
    """Files and folders of the repository that a page names in code, without what stands behind a blank or "::"."""
    for code in re.findall(r"`([^`\n]+)`", _FENCE.sub("", text)):
        if re.match(r"(protocols|rbla_secure|tests|benchmarks|docs)/", code):
            yield re.split(r"[ :]", code)[0]


def exists(path: str) -> bool:
    """Whether there is such a file, folder or module (`rbla_secure/cli` may be a file or a folder), or one of that pattern."""
    return path in GENERATED or any(ROOT.glob(path.rstrip("/"))) or (ROOT / f"{path}.py").exists()


def blocks(text: str, kind: str) -> list[str]:
    """The code blocks of one kind, in their order."""
    return re.findall(rf"^```{kind}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def tool(name: str) -> Mapping[str, Any]:
    """What a script of docs/tools defines."""
    return runpy.run_path(str(ROOT / "docs" / "tools" / f"{name}.py"))
