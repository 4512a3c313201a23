"""Ansible's own programs, with the collection of this checkout, in front of a fleet of their own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from system.harness import ROOT, Fleet

COLLECTION = ROOT / "ansible"

TIMEOUT = 120.0


@pytest.fixture(scope="session")
def collections(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which Ansible finds the collection: a copy, as Ansible writes beside what it tests."""
    top = tmp_path_factory.mktemp("collections")
    shutil.copytree(COLLECTION, top / "ansible_collections/lxcfleet/fleet", ignore=shutil.ignore_patterns("__pycache__"))
    return top


@pytest.fixture(scope="module")
def own_fleet() -> Iterator[Fleet]:
    """A fleet with a daemon; at the end nothing of it is left on the host."""
    if os.geteuid() != 0 or shutil.which("lxc-start") is None:
        pytest.skip("needs root and LXC")
    if shutil.which("ansible-playbook") is None:
        pytest.skip("needs ansible-core")
    fleet = Fleet()
    try:
        fleet.start_daemon()
        yield fleet
        fleet.clean()
    finally:
        fleet.run("destroy", "--all", "--force", "-q")
        fleet.remove()
    assert fleet.traces() == []


@dataclass
class Ran:
    """What one program of Ansible's did."""

    status: int
    out: str
    err: str

    @property
    def tasks(self) -> list[dict[str, Any]]:
        """Each task's results by host, in the order of the playbook."""
        return [task["hosts"] for task in json.loads(self.out)["tasks"]]

    @property
    def stats(self) -> dict[str, dict[str, int]]:
        """Ansible's counts by host."""
        return dict(json.loads(self.out)["stats"])


@dataclass
class Ansible:
    """Runs playbooks and programs."""

    fleet: Fleet
    directory: Path
    collections: Path
    path: list[Path] = field(default_factory=lambda: [ROOT / "bin"])
    """What comes first when programs are looked for."""

    def run(self, *words: str, **variables: str) -> Ran:
        """One program, whatever comes of it."""
        environment = {
            **self.fleet.environment(),
            "PATH": ":".join([*map(str, self.path), os.environ["PATH"]]),
            "HOME": str(self.directory),
            "ANSIBLE_COLLECTIONS_PATH": str(self.collections),
            "ANSIBLE_STDOUT_CALLBACK": "results",
            "ANSIBLE_CALLBACK_PLUGINS": str(Path(__file__).parent / "callbacks"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_RETRY_FILES_ENABLED": "0",
            "PYTHONDONTWRITEBYTECODE": "1",
            **variables,
        }
        done = subprocess.run(
            words, env=environment, cwd=self.directory, capture_output=True, text=True, timeout=TIMEOUT, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return Ran(done.returncode, done.stdout, done.stderr)

    def play(self, *tasks: Mapping[str, Any], hosts: str = "localhost", options: tuple[str, ...] = ()) -> Ran:
        """A playbook of these tasks."""
        play = {"hosts": hosts, "gather_facts": False, "tasks": [dict(task) for task in tasks]}
        (self.directory / "playbook.yml").write_text(json.dumps([play]))
        return self.run("ansible-playbook", "playbook.yml", *options)

    def task(self, module: str, *options: str, **parameters: Any) -> dict[str, Any]:
        """The result of one module on this machine."""
        ran = self.play({f"lxcfleet.fleet.{module}": parameters}, options=options)
        ((result,),) = ([*task.values()] for task in ran.tasks)
        return dict(result)


@pytest.fixture
def ansible(own_fleet: Fleet, collections: Path, tmp_path: Path) -> Iterator[Ansible]:
    """Ansible in front of the module's fleet; the test's containers go with the test."""
    yield Ansible(own_fleet, tmp_path, collections)
    own_fleet.clean()
