"""Fixtures: each module has a fleet of its own, and each test begins without containers."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

from .harness import Fleet


@pytest.fixture(scope="module")
def own_fleet() -> Iterator[Fleet]:
    """A fleet with a daemon. At the end nothing of the fleet is left on the host."""
    if os.geteuid() != 0 or shutil.which("lxc-start") is None:
        pytest.skip("needs root and LXC")
    fleet = Fleet()
    try:
        fleet.start_daemon()
        yield fleet
        fleet.clean()
    finally:
        fleet.run("destroy", "--all", "--force", "--with-snapshots", "-q")
        fleet.remove()
    assert fleet.traces() == []
    assert fleet.helpers() == []


@pytest.fixture
def fleet(own_fleet: Fleet) -> Iterator[Fleet]:
    """The module's fleet. The test's containers are destroyed after the test."""
    if own_fleet.daemon_pid() is None:
        own_fleet.start_daemon()
    yield own_fleet
    own_fleet.clean()
