"""Fixtures: each module has a fleet of its own, and each test begins without containers."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from .harness import Fleet

CHANGE_THE_HOST = {
    "app", "bad_input", "clone", "confinement", "cve", "exposure", "generations", "group_tests", "haproxy", "layers", "mask",
    "own_parts", "parts", "patch", "reconcile", "reload", "rollout", "services", "stack", "stale", "stories", "verify",
}  # fmt: skip
"""Modules that change files of the host below /etc, /opt, /usr and /var, or look whether somebody did."""

if find_spec("xdist") is not None:
    from xdist.scheduler.loadfile import LoadFileScheduling

    class Scheduling(LoadFileScheduling):  # type: ignore[misc]
        """Where several processes share the tests, one of them has all modules that change the host, one after the other."""

        def _split_scope(self, nodeid: str) -> str:
            file: str = super()._split_scope(nodeid)
            module = file.rpartition("/")[2].removeprefix("test_").removesuffix(".py")
            return "the host" if module in CHANGE_THE_HOST else file

    def pytest_xdist_make_scheduler(config: object, log: object) -> Scheduling:
        """See pytest-xdist."""
        return Scheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Modules that change the host come first: they take the longest, as no two of them run at once."""
    items.sort(key=lambda item: item.path.stem.removeprefix("test_") not in CHANGE_THE_HOST)


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
    fleet.assert_no_traces()
    assert fleet.helpers() == []


@pytest.fixture
def fleet(own_fleet: Fleet) -> Iterator[Fleet]:
    """The module's fleet. The test's containers are destroyed after the test."""
    if own_fleet.daemon_pid() is None:
        own_fleet.start_daemon()
    yield own_fleet
    own_fleet.clean()
