"""Hypothesis without clocks: no example may fail for being slow; CI draws the same every time."""

import os

from forked_python import end_templates
from hypothesis import settings

settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


def pytest_unconfigure():
    end_templates()
