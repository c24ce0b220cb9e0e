"""Pages of the site that lie outside `docs/`, links to them, and equations.

A hook of MkDocs.  Pages link to files of the repository by relative paths, so that they also work
where the repository is browsed; here each such file becomes a file of the site, under
`repository/`, and the link follows it.
"""

import posixpath
import re
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
OUTSIDE = "repository"
LINK = re.compile(r"\[([^\]]*)\]\((?!https?:|mailto:|#)([^)#\s]+)((?:#[^)]*)?)\)")
EQUATION = re.compile(r"^```math\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add each file outside that a page links to, and what those pages link to in turn."""
    todo = [one.src_uri for one in files.documentation_pages()]
    todo += [page for page in _pages_of(config.nav) if page.startswith(OUTSIDE)]
    seen = set(todo)
    while todo:
        uri = todo.pop()
        if uri.startswith(OUTSIDE):
            place = str(ROOT / _repository_path(uri))
            files.append(File.generated(config, uri, abs_src_path=place))
        if not uri.endswith(".md"):
            continue
        for match in LINK.finditer((ROOT / _repository_path(uri)).read_text()):
            target = _site_uri(uri, match[2])
            outside = target.startswith(OUTSIDE) and (ROOT / _repository_path(target)).is_file()
            if outside and target not in seen:
                seen.add(target)
                todo.append(target)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links to places on the site, and write equations as MathML, which browsers draw."""
    here = page.file.src_uri

    def relinked(match: re.Match[str]) -> str:
        target = _site_uri(here, match[2])
        if (ROOT / _repository_path(target)).is_dir():
            return match[1]  # a folder without a page is no page of the site
        place = posixpath.relpath(target, posixpath.dirname(here) or ".")
        return f"[{match[1]}]({place}{match[3]})"

    text = LINK.sub(relinked, markdown)
    return EQUATION.sub(lambda match: convert(match[1].strip(), display="block"), text)


def _pages_of(nav: object) -> list[str]:
    """All paths in a navigation."""
    if isinstance(nav, str):
        return [nav]
    parts = nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else ()
    return [page for part in parts for page in _pages_of(part)]


def _repository_path(uri: str) -> str:
    """Path in the repository of a file of the site."""
    return uri.removeprefix(f"{OUTSIDE}/") if uri.startswith(OUTSIDE) else f"docs/{uri}"


def _site_uri(page: str, link: str) -> str:
    """Place on the site of what a page links to; a folder outside is its README."""
    place = posixpath.normpath(posixpath.join(posixpath.dirname(_repository_path(page)), link))
    if (ROOT / place).is_dir() and (ROOT / place / "README.md").exists():
        place = f"{place}/README.md"
    return place.removeprefix("docs/") if place.startswith("docs/") else f"{OUTSIDE}/{place}"
