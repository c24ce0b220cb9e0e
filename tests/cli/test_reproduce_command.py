"""`reproduce`: what it prints, as JSON and as the page of the documentation."""

from pathlib import Path

import pytest

import nonn_plan as package

PAGE = Path(package.__file__).parents[1] / "docs" / "reproduction.md"
KEYS = {"table", "row", "quantity", "published", "simulated", "error_pct", "used_for_fit"}


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    from nonn_plan.cli.commands.published import reproduction_page
    from nonn_plan.reproduction import reproduced_figures

    return reproduction_page(reproduced_figures())


def test_json_has_a_row_per_figure(nonn_plan):
    rows = nonn_plan("reproduce", "--json").document
    assert all(row.keys() >= KEYS for row in rows)
    names = [(row["table"], row["row"], row["quantity"]) for row in rows]
    assert len(set(names)) == len(names)


def test_the_page_is_what_the_command_writes(nonn_plan, tmp_path, document):
    page = tmp_path / "page.md"
    assert nonn_plan("reproduce", "-o", page).code == 0
    assert page.read_text() == document
    assert PAGE.read_text() == document, "run: nonn-plan reproduce -o docs/reproduction.md"


def test_people_see_tables_and_the_largest_errors(nonn_plan):
    said = nonn_plan("reproduce")
    for words in ("Tables 6 and 7", "Table 8", "section 3", "Figure 7", "withheld"):
        assert words in said.out
    assert "Largest error of figures used to fit" in said.out
    assert "Errors are simulated less published" in said.out
