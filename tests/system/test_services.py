"""Containers that run services of the host's, by the names of their units."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from .harness import Fleet, until

pytestmark = pytest.mark.system

NAME = f"lxcfleet-test-{os.getpid()}"
UNITS = Path("/usr/local/lib/systemd/system")
SERVICE = """\
[Unit]
Description=A service of the host's
[Service]
ExecStart=/bin/sh -c 'echo "$WORD" >/tmp/word; exec sleep infinity'
Environment=WORD=unit
[Install]
WantedBy=graphical.target
"""
TIMER = f"[Timer]\nOnActiveSec=1d\nUnit={NAME}.service\n[Install]\nWantedBy=timers.target\n"


@pytest.fixture
def host() -> Iterator[Path]:
    """The directory of units of the host, with a service and a timer that nothing on the host enables."""
    missing = [each for each in (UNITS, *UNITS.parents) if not each.exists()]
    UNITS.mkdir(parents=True, exist_ok=True)
    (UNITS / f"{NAME}.service").write_text(SERVICE)
    (UNITS / f"{NAME}.timer").write_text(TIMER)
    (UNITS / f"{NAME}.service.d").mkdir()
    (UNITS / f"{NAME}.service.d/word.conf").write_text("[Service]\nEnvironment=WORD=drop-in\n")
    yield UNITS
    for file in UNITS.glob(f"{NAME}.*"):
        shutil.rmtree(file) if file.is_dir() else file.unlink()
    for each in missing:
        each.rmdir()


def wait_for(fleet: Fleet, name: str, word: str) -> None:
    """Wait until the service has written this word. What an earlier run wrote is still there at first."""
    read = ("exec", name, "--", "cat", "/tmp/word")
    until(lambda: fleet.run(*read).out.strip() == word, 30, f"the service has written {word}")


def test_a_container_runs_a_service_of_the_hosts_as_it_is_at_each_start(fleet: Fleet, host: Path) -> None:
    """Its unit, drop-ins and timer come from the host. If they are gone, a run is not given up for one that can't begin."""
    name, other = fleet.name("with"), fleet.name("without")
    fleet.create(name, command=(), options=("--unit", NAME, "--unit", f"{NAME}.timer"))
    wait_for(fleet, name, "drop-in")
    look = f"systemctl is-active {NAME}.timer; systemctl is-enabled {NAME}; stat -c %u {host}/{NAME}.service"
    # No order is said of timers and services: the timer may come a moment later.
    until(lambda: fleet.inside(name, look).split() == ["active", "enabled", "0"], what="the timer is active")
    assert fleet.mounts() == []

    fleet.create(other, command=())
    fleet.ok("wait", other, "--for", "healthy", "-q")  # its systemd answers
    refused = fleet.run("exec", other, "--", "systemctl", "start", NAME)
    said = f"Unit not-in-this-container:see-lxcfleet-create---unit-{NAME}.service not found."
    assert (refused.status, refused.err) == (5, f"Failed to start {NAME}.service: {said}\n")
    told = fleet.run("exec", other, "--", "systemctl", "status", NAME)
    assert f"lxcfleet create --unit {NAME}.service gives it" in told.out
    assert fleet.inside(other, "systemctl --failed --no-legend") == ""

    (host / f"{NAME}.service.d/word.conf").write_text("[Service]\nEnvironment=WORD=changed\n")
    fleet.ok("restart", name)
    wait_for(fleet, name, "changed")

    (host / f"{NAME}.service").unlink()
    pid = fleet.pid(name)
    refused = fleet.run("restart", name)
    assert (refused.status, f"the host has no unit {NAME}.service" in refused.err) == (1, True), refused
    assert fleet.pid(name) == pid, "it runs on"
    lost = f"the host has no unit {NAME}.service"
    assert f"{name}: it can't start again: {lost}" in fleet.run("verify", name).out
    assert f"{name}: {lost}" in fleet.run("doctor").out
    fleet.ok("set", name, "units=")
    assert fleet.pid(name) != pid
    assert fleet.run("exec", name, "--", "systemctl", "is-active", NAME).status != 0


def test_a_service_that_another_unit_keeps_from_beginning_leaves_its_container_unhealthy(fleet: Fleet, host: Path) -> None:
    """A patch that changes the unit so is what a rollout has to stop at. A condition of its own is no failure."""
    other = f"{NAME}.other.service"
    (host / other).write_text("[Unit]\nAssertPathExists=/not/there\n[Service]\nExecStart=/bin/true\n")
    name = fleet.name("s")
    fleet.create(name, command=(), options=("--unit", NAME))
    fleet.ok("wait", name, "--for", "healthy")
    change = host / f"{NAME}.service.d/word.conf"
    change.write_text(f"[Unit]\nRequires={other}\nAfter={other}\n")
    ran = fleet.run("restart", name, "--rolling", "--healthy-deadline", "20")
    assert (ran.status, f"{NAME}.service did not begin" in ran.err) == (1, True), ran.err
    fleet.ok("rollout", "abort")
    for kind in ("Condition", "Assert"):
        change.write_text(f"[Unit]\n{kind}PathExists=/not/there\n")
        fleet.ok("restart", name)
        fleet.ok("wait", name, "--for", "healthy")

    change.write_text(f"[Unit]\nRequires={other}\nAfter={other}\n")
    # It was disabled in the container, and is wanted by a unit that does not run, as PostgreSQL's clusters may be.
    idle = f"printf '[Unit]\\nWants={NAME}.service\\n[Service]\\nExecStart=/bin/true\\n' >idle.service"
    loaded = "mkdir multi-user.target.d && printf '[Unit]\\nAfter=idle.service\\n' >multi-user.target.d/idle.conf"
    fleet.inside(name, f"cd /etc/systemd/system && {idle} && {loaded} && systemctl -q disable {NAME}")
    fleet.ok("restart", name)
    fleet.ok("wait", name, "--for", "healthy")


def test_a_service_that_the_host_does_not_have_is_refused_before_anything_is_made(fleet: Fleet) -> None:
    refused = fleet.run("create", fleet.name("x"), "--unit", f"{NAME}-gone")
    assert (refused.status, f"the host has no unit {NAME}-gone.service" in refused.err) == (2, True)
    assert fleet.directories() == []
