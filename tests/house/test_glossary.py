"""Each term of the glossary is used, and each class of the Python API is in it."""

import re
from functools import cache

import pytest
from test_layout import FILES, ROOT

import nonn_plan

GLOSSARY = ROOT / "docs/glossary.md"
TERMS = sorted(set(re.findall(r"\*\*(.+?)\*\*", GLOSSARY.read_text())) - {"term"})
ENTRY = re.compile(r"^- \*\*(.+?)\*\*(?:.|\n(?!- |\n))*", re.MULTILINE)
ENDING = r"(?:s|es)?(?![A-Za-z0-9])"


@cache
def written():
    """Code, documentation and README as one text with single spaces, without the glossary."""
    pages = [ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("docs/decisions/*.md")]
    texts = [path.read_text() for path in [*FILES, *pages] if path != GLOSSARY]
    return re.sub(r"\s+", " ", " ".join(texts))


def spellings(term):
    """A term of several words may be one name in code: `drop step`, `drop_step`, `DropStep`."""
    plural = re.sub(r"y$", "(?:y|ies)", re.escape(term.replace("-", " ")))
    return plural.replace(r"\ ", "[ _-]?")


@pytest.mark.parametrize("term", TERMS)
def test_a_term_of_the_glossary_is_used(term):
    symbol = len(term) < 3 or not term.islower()
    pattern = rf"(?<![A-Za-z0-9]){spellings(term)}{ENDING}"
    name = rf"{spellings(term)}"
    flags = 0 if symbol else re.IGNORECASE
    assert re.search(pattern, written(), flags) or (
        not symbol and " " in term and re.search(name, written(), flags)
    )


def test_terms_are_defined_once():
    heads = [match[1] for match in ENTRY.finditer(GLOSSARY.read_text())]
    assert sorted(heads) == sorted(set(heads))


def test_each_class_of_the_python_interface_is_in_the_glossary():
    classes = [name for name in nonn_plan.__all__ if name[0].isupper()]
    text = GLOSSARY.read_text()
    assert classes
    assert [name for name in classes if not re.search(rf"\b{name}\b", text)] == []
