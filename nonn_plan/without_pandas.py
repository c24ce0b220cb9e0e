"""Loading the solver without pandas, for a process that is ours alone.

OR-Tools loads pandas for methods that take and give its series, which the planner does not call;
that is a quarter of the time of `nonn-plan plan`.  While the planner is loaded, a stand-in has the
two names that OR-Tools then looks up; after that `import pandas` loads the real one.  Library users
are not concerned: only the command line does this.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


@contextmanager
def without_pandas() -> Iterator[None]:
    """Let modules be loaded with a stand-in for pandas; nothing changes where it is loaded."""
    if "pandas" in sys.modules:
        yield
        return
    stand_in = ModuleType("pandas")
    stand_in.__dict__.update(Index=type("Index", (), {}), Series=type("Series", (), {}))
    sys.modules["pandas"] = stand_in
    try:
        yield
    finally:
        del sys.modules["pandas"]
