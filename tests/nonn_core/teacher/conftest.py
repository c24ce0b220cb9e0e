"""The package `strange` of a user's networks, and images that they are shown."""

from pathlib import Path

import foreign_networks
import pytest


@pytest.fixture(scope="session")
def strange(tmp_path_factory):
    """A folder with the package `strange`, which nothing else imports."""
    folder = tmp_path_factory.mktemp("package")
    (folder / "strange").mkdir()
    (folder / "strange" / "__init__.py").touch()
    source = Path(foreign_networks.__file__).read_text()
    (folder / "strange" / "nets.py").write_text(source)
    (folder / "strange" / "broken.py").write_text("import nothing_of_that_name\n")
    return folder


@pytest.fixture
def beside_strange(strange, monkeypatch):
    """Work in the folder that holds the package."""
    monkeypatch.chdir(strange)


@pytest.fixture
def probe(tiny):
    return tiny.normalised(tiny.train.pixels[:4])


@pytest.fixture
def images(tiny):
    """Seven images: as many as no probe and no fixed batch."""
    return tiny.normalised(tiny.train.pixels[10:17])
