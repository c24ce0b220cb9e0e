"""The examples run as they stand, with the base part alone, and are as short as they promise."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))
MOST_LINES = 60
WITHOUT = ("torch", "onnx", "onnxruntime", "grpc", "cryptography", "pyarrow")
"""Packages of other parts than the base."""

RUN = (
    "import runpy, sys\n"
    "sys.modules.update(dict.fromkeys(sys.argv[2].split(',')))\n"  # their import fails
    "runpy.run_path(sys.argv[1], run_name='__main__')\n"
)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_runs_with_the_base_part_alone(script, tmp_path):
    command = [sys.executable, "-W", "error", "-c", RUN, script, ",".join(WITHOUT)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_is_short(script):
    assert len(script.read_text().splitlines()) <= MOST_LINES
