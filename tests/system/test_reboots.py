"""The daemon reboots the host in a maintenance window. A stand-in for systemctl is called in these tests."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from .harness import SLEEP, Fleet, until

pytestmark = pytest.mark.system

WINDOW = "patch: {policy: manual, reboot: window, windows: ['00:00-24:00']}\n"


class Host:
    """The surroundings of a daemon that may reboot its host."""

    def __init__(self, fleet: Fleet, directory: Path) -> None:
        self.fleet = fleet
        self.calls, self.due, self._program = directory / "calls", directory / "due", directory / "systemctl"
        self.answer("exit 0")

    def answer(self, then: str) -> None:
        """Set what systemctl does when it is called."""
        self._program.write_text(f'#!/bin/sh\necho "$@" >>{self.calls}\n{then}\n')
        self._program.chmod(0o755)

    def start(self) -> None:
        self.fleet.start_daemon(
            module="tests.system.rebooting_daemon", SYSTEMCTL=str(self._program), DUE=str(self.due)
        )  # fmt: skip

    def called(self) -> list[str]:
        return self.calls.read_text().splitlines() if self.calls.exists() else []


@pytest.fixture
def host(fleet: Fleet, tmp_path: Path) -> Iterator[Host]:
    fleet.stop_daemon()
    fleet.settings(fleet.usual + WINDOW)
    host = Host(fleet, tmp_path)
    host.start()
    yield host
    fleet.ok("destroy", "--all", "--force", "-q")
    fleet.stop_daemon()
    fleet.paths.rebooted.unlink(missing_ok=True)
    fleet.paths.rebooting.unlink(missing_ok=True)
    fleet.settings(fleet.usual)


def create(fleet: Fleet) -> list[str]:
    """Create three containers that run, of which the second starts first, and one that is stopped."""
    for name, order in (("a", 2), ("b", 1), ("c", 2), ("d", 2)):
        autostart = "--no-autostart" if name == "c" else "--autostart"
        fleet.ok("create", fleet.name(name), "--boot-order", str(order), autostart, *SLEEP)
    fleet.ok("stop", fleet.name("d"))
    return [fleet.name(name) for name in "abc"]


def running(fleet: Fleet) -> set[str]:
    return {name for name, state in fleet.states().items() if state == "running"}


def test_the_fleet_is_stopped_and_the_host_rebooted_once(host: Host) -> None:
    fleet = host.fleet
    names = create(fleet)
    assert fleet.events("reboot") == []
    host.due.touch()
    until(host.called, 30, "the host is rebooted")
    assert (host.called(), running(fleet)) == (["reboot"], set())
    assert "linux-image-test" in fleet.events("reboot")[0]["message"]
    stopped = [event["container"] for event in fleet.events("stopped")]
    assert stopped.index(fleet.name("b")) > max(stopped.index(fleet.name("a")), stopped.index(fleet.name("c")))
    # The next daemon finds a note in /run: this boot is not over. So it starts the containers that the reboot stopped.
    fleet.stop_daemon(signal.SIGKILL)
    host.start()
    until(lambda: running(fleet) == set(names), 30, "the containers that ran run again")
    assert "lxcfleetd ended before it" in fleet.events("reboot-failed")[0]["message"]
    until(lambda: "it was rebooted, or that was tried" in fleet.run("patch", "status").out, 10)
    assert host.called() == ["reboot"]


def test_a_host_that_refuses_to_reboot_has_its_containers_back(host: Host) -> None:
    fleet = host.fleet
    names = create(fleet)
    host.answer("echo 'Access denied' >&2; exit 1")
    host.due.touch()
    until(lambda: fleet.events("reboot-failed"), 30, "the reboot fails")
    assert "Access denied" in fleet.events("reboot-failed")[0]["message"]
    until(lambda: running(fleet) == set(names), 30, "the containers that ran run again, and no others")
    assert host.called() == ["reboot"]


def test_the_reboot_waits_for_a_halted_rollout(host: Host) -> None:
    fleet = host.fleet
    name = fleet.name("h")
    fleet.ok("create", name, "--", "sh", "-c", "test ! -e /bad && exec sleep infinity; exit 1")
    fleet.inside(name, "touch /bad")
    assert fleet.run("restart", name, "--rolling", "--min-healthy-time", "20").status == 1  # it may take a while to end
    host.due.touch()
    until(lambda: "waits for the end of the rollout, which is halted" in fleet.run("patch", "status").out, 10)
    assert host.called() == []
    fleet.ok("rollout", "abort")
    until(host.called, 30, "the host is rebooted")

