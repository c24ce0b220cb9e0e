"""Published figures that the project's own copies are compared with."""

from pathlib import Path
from typing import Any

import yaml

_DATA = Path(__file__).parent / "data"

PAPER: dict[str, Any] = yaml.safe_load((_DATA / "nonn-paper.yaml").read_text())
"""Tables and set-up of arXiv:1907.11804; rows of the blind test are withheld."""
BOARD_MEASUREMENTS: dict[str, Any] = yaml.safe_load((_DATA / "board-measurements.yaml").read_text())
"""Measurements of other boards, each with its source."""
