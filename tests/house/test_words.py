"""The sentences of the code: docstrings that a stranger understands at the first reading."""

import ast
import re
from itertools import pairwise
from pathlib import Path

import pytest
from test_layout import FILES, ROOT

MOST_WORDS = 15
RIDDLE = re.compile(r"(Return what|What |That which|Who |Whoever |Where )")
"""A first line that begins so has no noun."""
CHECKED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def first_lines(path: Path):
    """First line of each docstring, with where it stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, CHECKED) and (text := ast.get_docstring(node)):
            yield getattr(node, "lineno", 1), text.split("\n", 1)[0]


def below_names(path: Path):
    """Text that stands under a constant, a field or a type, with where it stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        for above, below in pairwise(node.body if isinstance(node, CHECKED) else []):
            text = getattr(getattr(below, "value", None), "value", None)
            named = isinstance(above, ast.Assign | ast.AnnAssign) and isinstance(below, ast.Expr)
            if named and isinstance(text, str):
                yield below.lineno, text


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_docstring_begins_with_one_short_sentence_that_has_a_noun(path):
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text}"
        for line, text in first_lines(path)
        if len(text.split()) > MOST_WORDS or RIDDLE.match(text)
    ]
    assert found == []


@pytest.mark.parametrize("folder", ["tests", "benchmarks", "examples"])
def test_docstrings_beside_the_rooms_have_a_noun(folder):
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for line, text in first_lines(path)
        if RIDDLE.match(text)
    ]
    assert found == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_text_below_a_name_begins_with_a_noun(path):
    assert [(line, text) for line, text in below_names(path) if RIDDLE.match(text)] == []


def test_the_text_below_names_is_found():
    assert sum(1 for path in FILES for _ in below_names(path)) > 100
