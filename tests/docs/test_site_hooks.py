"""One source for the repository and the site: links are right in the former and rewritten for the latter."""

import pytest

from tests.support.pages import ROOT, read, tool

HOOKS = tool("site_hooks")


@pytest.mark.parametrize(
    ("path", "link", "expected"),
    [
        ("docs/privacy.md", "../threat_model.md#claims", "threat_model.md#claims"),
        ("docs/privacy.md", "robustness.md", "robustness.md"),
        ("docs/index.md", "../README.md", "introduction.md"),
        ("README.md", "docs/privacy.md", "privacy.md"),
        ("README.md", "docs/data-way.svg", "data-way.svg"),
        ("threat_model.md", "docs/privacy-analysis.md#audit", "privacy-analysis.md#audit"),
        ("docs/costs.md", "../benchmarks/results/aes_limit.md", "benchmarks/results/aes_limit.md"),
        ("benchmarks/results/robustness.md", "../../docs/robustness.md", "../../robustness.md"),
        # What the site does not show stays as it is, so that the strict build ends with an error.
        ("docs/costs.md", "../benchmarks/aes_limit.py", "../benchmarks/aes_limit.py"),
        ("docs/costs.md", "https://example.org/docs/a.md", "https://example.org/docs/a.md"),
        ("docs/costs.md", "#here", "#here"),
    ],
)
def test_a_link_is_rewritten_to_where_the_page_lies(path: str, link: str, expected: str) -> None:
    """Also between pages that are both outside of docs/, and with their anchors."""
    assert HOOKS["rewritten"](f"see [it]({link}).", path) == f"see [it]({expected})."


def test_everything_that_is_published_is_there() -> None:
    """The pages at the root of the repository, and what was measured."""
    published = list(HOOKS["published"]())

    assert all((ROOT / path).is_file() for path in published)
    assert {"threat_model.md", "README.md", "benchmarks/results/secagg_peer.md"} <= set(published)


def test_no_two_pages_have_one_place() -> None:
    """docs/ is laid over the root of the repository: a name that is in both would hide one of them."""
    published = [HOOKS["site_path"](path) for path in HOOKS["published"]()]
    own = [str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*") if path.is_file()]

    assert len(set(published)) == len(published)
    assert not set(published) & set(own)


def test_the_theme_needs_nothing_from_elsewhere() -> None:
    """Its default colours code by a script from a content delivery network; .ci/run searches the built pages too."""
    assert "  highlightjs: false" in read("mkdocs.yml")
    assert "must not load anything from elsewhere" in read(".ci/run")


def test_roles_of_docstrings_do_not_show() -> None:
    """Before code alone: a colon elsewhere stays."""
    html = "see :meth:<code>whole</code> and :mod:<code>protocols.run</code>; the word :meth: stays"

    assert HOOKS["on_page_content"](html) == (
        "see <code>whole</code> and <code>protocols.run</code>; the word :meth: stays"
    )
