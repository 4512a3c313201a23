"""The collection as Ansible's own tools judge it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CACHE = Path.home() / ".cache/lxcfleet/ansible"
"""Where ansible-test keeps its virtual environments."""

BOOTSTRAP = """\
import ensurepip
ensurepip.bootstrap(default_pip=True)
"""
"""ansible-test would download a program that installs pip; Debian's python3-venv has one."""


def run(collections: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """One of Ansible's tools in the collection."""
    if shutil.which(words[0]) is None:
        pytest.skip(f"needs {words[0]}")
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(collections), "LC_ALL": "C.UTF-8", **variables}
    return subprocess.run(
        words, cwd=collections / "ansible_collections/lxcfleet/fleet", env=environment, capture_output=True, text=True,
        timeout=600, check=False,
    )  # fmt: skip


def test_ansible_lint(collections: Path) -> None:
    done = run(collections, "ansible-lint", "--offline", "--nocolor", "--profile", "production")
    assert done.returncode == 0, done.stdout + done.stderr


def test_ansible_test_sanity(collections: Path) -> None:
    script = CACHE / ".ansible/test/cache/get_pip_21_3_1.py"
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(BOOTSTRAP)
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    done = run(collections, "ansible-test", "sanity", "--python", python, "--color", "no", HOME=str(CACHE))
    if "No matching distribution found" in done.stdout + done.stderr:
        pytest.skip("ansible-test's own requirements can't be had: no package index answers")
    assert done.returncode == 0, done.stdout + done.stderr
