"""Fixtures of tests that install the package."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from .product import DEB

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the package and nothing else."""
    subprocess.run(["make", "-C", str(ROOT), "--no-print-directory", "deb"], check=True, timeout=600)
    directory = tmp_path_factory.mktemp("package")
    shutil.copy(ROOT / "build" / DEB, directory)
    return directory
