"""One toolchain, build and set of vectors for all Android checks. A missing tool fails, with what installs it."""

from __future__ import annotations

from pathlib import Path

import pytest
from androidkit.build import Build
from androidkit.golden import write_vectors
from androidkit.toolchain import Toolchain, prepare


@pytest.fixture(scope="session")
def toolchain() -> Toolchain:
    """Fetched and verified, or from the cache."""
    return prepare()


@pytest.fixture(scope="session")
def build(toolchain: Toolchain, tmp_path_factory: pytest.TempPathFactory) -> Build:
    """The app, built part by part as tests ask for it."""
    return Build(toolchain, tmp_path_factory.mktemp("build"))


@pytest.fixture(scope="session")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden vectors."""
    folder = tmp_path_factory.mktemp("vectors")
    write_vectors(folder)
    return folder
