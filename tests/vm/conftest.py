"""Fixtures of the tests that install the package."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import leftovers
import pytest

from .product import DEB

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the package and nothing else."""
    subprocess.run(["make", "-C", str(ROOT), "--no-print-directory", "deb"], check=True, timeout=1800)
    directory = tmp_path_factory.mktemp("package")
    shutil.copy(ROOT / "build" / DEB, directory)
    return directory


@pytest.fixture(scope="session", autouse=True)
def _folders() -> Iterator[None]:
    """Keep the guests' folders in one folder, which is removed even if this run is killed."""
    with tempfile.TemporaryDirectory(prefix="lxcfleet-vms-", dir="/var/tmp") as directory:
        leftovers.note("directory", directory)
        os.environ["LXCFLEET_VM_FOLDERS"] = directory
        yield
