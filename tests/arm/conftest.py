"""The suites of tests/boards, which an emulated board has to pass, too."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "boards"))
