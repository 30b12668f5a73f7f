"""MkDocs hook: pages outside docs/ become part of the site, so that one source serves the repository and the site.

The repository's own pages (README, threat model, changelog and so on) and the tables of `benchmarks/results` stay where
readers of the repository look for them. Links are written as they are right there, relative to the file; here they are
rewritten to where the pages lie in the site, which has the repository's layout with docs/ laid over its root.
"""

import os
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
DOCS = "docs/"
PAGES = ("threat_model.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
RESULTS = "benchmarks/results"
# README.md is the repository's front page and docs/index.md the site's: MkDocs would take either for index.html.
RENAMED = {"README.md": "introduction.md"}
LINK = re.compile(r"(\]\()([^)\s:#]+)((?:#[^)\s]*)?\))")
# Docstrings name other parts as Sphinx does, which editors understand; MkDocs leaves the roles standing.
ROLE = re.compile(r":(?:mod|class|meth|func|attr):(?=<code>)")


def published() -> Iterator[str]:
    """Paths, relative to the repository, of the files outside docs/ that the site shows."""
    yield from PAGES
    yield from RENAMED
    for path in sorted((ROOT / RESULTS).iterdir()):
        if path.suffix in {".md", ".svg"}:
            yield f"{RESULTS}/{path.name}"


def site_path(path: str) -> str:
    """Where a file of the repository lies among the site's sources."""
    return RENAMED.get(path, path.removeprefix(DOCS))


def rewritten(text: str, path: str) -> str:
    """The text of a page with its links to other pages as the site needs them.

    Args:
        text: Markdown.
        path: Of the page, relative to the repository.
    """
    folder, here = posixpath.dirname(path), posixpath.dirname(site_path(path))

    def moved(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, link[2]))
        if not target.startswith(DOCS) and target not in shown:
            return link[0]
        return f"{link[1]}{os.path.relpath(site_path(target), here or '.')}{link[3]}"

    shown = set(published())
    return LINK.sub(moved, text)


def on_files(files: Any, config: Any) -> Any:  # MkDocs calls it with its own types
    """Add the pages and pictures outside docs/ to those of the site."""
    from mkdocs.structure.files import File  # noqa: PLC0415  # the tests read this file without MkDocs

    for path in published():
        source = ROOT / path
        if source.suffix == ".md":
            content = rewritten(source.read_text(encoding="utf-8"), path)
            files.append(File.generated(config, site_path(path), content=content))
        else:
            files.append(File.generated(config, site_path(path), abs_src_path=str(source)))
    return files


def on_page_markdown(markdown: str, page: Any, **_others: Any) -> str:
    """Rewrite the links of the pages in docs/; those of the others were rewritten when they were read."""
    if page.file.generated_by is not None:
        return markdown
    return rewritten(markdown, DOCS + page.file.src_uri)


def on_page_content(html: str, **_others: Any) -> str:
    """Drop the names of Sphinx roles before names in code."""
    return ROLE.sub("", html)
