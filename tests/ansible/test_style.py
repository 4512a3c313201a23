"""The collection as Ansible's own tools judge it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from system.harness import ROOT

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
        timeout=2400, check=False,
    )  # fmt: skip


@pytest.mark.limit(2700)
def test_ansible_lint(collections: Path) -> None:
    """Newer ones than Debian 12's complain that ansible-core 2.14, which Debian 12 has, is old."""
    command = ("ansible-lint", "--offline", "--nocolor", "--profile", "production", "--skip-list", "meta-runtime")
    done = run(collections, *command)
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_can_be_installed(collections: Path, tmp_path: Path) -> None:
    done = run(collections, "ansible-galaxy", "collection", "install", ".", "-p", str(tmp_path), HOME=str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "ansible_collections/lxcfleet/fleet/plugins/modules/containers.py").exists()
    assert not (tmp_path / "ansible_collections/lxcfleet/fleet/tests/output").exists()


def test_vagrantfile(tmp_path: Path) -> None:
    """Without a provider, as on a build machine, its own settings are left out of it."""
    if shutil.which("vagrant") is None:
        pytest.skip("needs vagrant")
    shutil.copytree(ROOT / "vagrant", tmp_path / "vagrant", ignore=shutil.ignore_patterns(".vagrant"))
    done = subprocess.run(
        ["vagrant", "validate", "--ignore-provider"], cwd=tmp_path / "vagrant", capture_output=True, text=True, check=False,
        env={**os.environ, "VAGRANT_HOME": str(tmp_path / "home"), "HOME": str(tmp_path)}, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    # The control node, which is the last one, finds hosts that are ready.
    look = "module Vagrant; def self.configure(_) = nil; end; load ARGV[0]; puts ENV['VAGRANT_NO_PARALLEL']; p HOSTS.keys"
    done = subprocess.run(["ruby", "-e", look, ROOT / "vagrant/Vagrantfile"], capture_output=True, text=True, check=True)
    assert done.stdout == 'yes\n["h12", "h13"]\n'
    for script in (ROOT / "vagrant").glob("*.sh"):
        subprocess.run(["sh", "-n", script], check=True)


@pytest.mark.limit(2700)
def test_ansible_test_sanity(collections: Path) -> None:
    script = CACHE / ".ansible/test/cache/get_pip_21_3_1.py"
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(BOOTSTRAP)
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    done = run(collections, "ansible-test", "sanity", "--python", python, "--color", "no", HOME=str(CACHE))
    if "No matching distribution found" in done.stdout + done.stderr:
        pytest.skip("ansible-test's own requirements can't be had: no package index answers")
    assert done.returncode == 0, done.stdout + done.stderr
