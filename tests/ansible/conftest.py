"""Ansible's own programs, with the collection of this checkout, in front of a fleet of their own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from system.harness import ROOT, Fleet

from .programs import Programs, copy_collection


@pytest.fixture(scope="session")
def collections(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which Ansible finds the collection: a copy, as Ansible writes beside what it tests."""
    return copy_collection(tmp_path_factory.mktemp("collections"))


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


class Ansible(Programs):
    """Runs playbooks and programs in front of a fleet on this machine."""

    def __init__(self, fleet: Fleet, directory: Path, collections: Path) -> None:
        super().__init__(directory, collections)
        self.fleet = fleet
        self.path.insert(0, ROOT / "bin")

    def environment(self) -> dict[str, str]:
        """With the fleet that is meant."""
        return self.fleet.environment()

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
