"""The notebooks run from top to bottom, and show what is committed."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

EXAMPLES = Path(__file__).parents[2] / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
MOST_BYTES = 120_000


def texts(notebook):
    """Text that each code cell prints or shows; pictures differ by fonts."""
    return [
        [
            output["text"] if output.output_type == "stream" else output["data"].get("text/plain")
            for output in cell.outputs
        ]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_what_is_committed(path, monkeypatch):
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    committed = nbformat.read(path, as_version=4)
    executed = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(EXAMPLES)}}
    NotebookClient(executed, timeout=120, kernel_name="python3", resources=where).execute()
    assert texts(executed) == texts(committed)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_small_and_names_no_machine(path):
    assert path.stat().st_size <= MOST_BYTES
    assert "/home/" not in path.read_text() and "/work/" not in path.read_text()


def test_there_are_notebooks():
    assert len(NOTEBOOKS) >= 2
