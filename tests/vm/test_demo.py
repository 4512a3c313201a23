"""The README's promise: `make demo` works on a Debian host as installed, without any of lxcfleet's dependencies.

Each suite is booted once; each test goes on with what the tests before it left.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .guest import Guest
from .image import SUITES

ROOT = Path(__file__).resolve().parents[2]
HERE = "/srv/lxcfleet"
MESSAGE = "/usr/local/share/lxcfleet-demo/message"
NAMES = [f"demo{number}" for number in range(1, 11)]


@pytest.fixture(scope="module", params=SUITES)
def guest(request: pytest.FixtureRequest) -> Iterator[Guest]:
    """A host without any package that lxcfleet needs."""
    with Guest.boot(request.param, packages=()) as booted:
        booted.push(ROOT, HERE)
        yield booted


def make(guest: Guest, target: str, timeout: float = 900) -> str:
    """Make a target, which must succeed; returns its output."""
    return guest.run(f"make -C {HERE} --no-print-directory {target} 2>&1", timeout=timeout).stdout


def lxcfleet(guest: Guest, *arguments: str) -> Any:
    """The parsed output of a verb."""
    return json.loads(guest.run(["lxcfleet", arguments[0], "-f", "json", *arguments[1:]]).stdout)


def states(guest: Guest) -> dict[str, str]:
    return {each["name"]: each["state"] for each in lxcfleet(guest, "list")}


def contents(guest: Guest, *names: str) -> dict[str, str]:
    """The demo's file as each container has it, or as each of the named ones has it."""
    lines = guest.run(["lxcfleet", "exec", *(names or ["demo*"]), "--", "cat", MESSAGE]).stdout.splitlines()
    return {name: text.strip() for name, _, text in (line.partition(":") for line in lines)}


def traces(guest: Guest) -> str:
    """All that a fleet leaves on the host: mounts, files, cgroups, devices, tables. (lxc.pivot is LXC's own, and stays.)"""
    return guest.run(
        "grep lxcfleet /proc/self/mountinfo; losetup --list --noheadings; ls -A /var/lib/lxc;"
        "find /sys/fs/cgroup -name 'lxc.payload*' -o -name 'lxc.monitor*'; ip -o link | grep -E 'lxcfleet|lf0';"
        "nft list tables | grep lxcfleet",
        check=False,
    ).stdout


def test_make_demo_starts_the_demo(guest: Guest) -> None:
    said = make(guest, "demo")
    assert "installing from Debian's packages:" in said
    assert states(guest) == dict.fromkeys(NAMES, "running")
    assert contents(guest) == dict.fromkeys(NAMES, guest.run(["cat", MESSAGE]).stdout.strip())
    assert guest.run("systemctl is-active lxcfleet.service lxcfleet.socket").stdout.split() == ["active"] * 2
    assert guest.run("systemctl is-system-running", check=False).stdout == "running\n"


def test_a_second_make_demo_changes_nothing(guest: Guest) -> None:
    said = make(guest, "demo")
    assert "installing" not in said
    assert [line.split()[1] for line in said.splitlines() if line.split()[:1] == ["demo1"]].count("unchanged") == 1
    assert states(guest) == dict.fromkeys(NAMES, "running")


def test_containers_and_commands_outlive_the_daemon(guest: Guest) -> None:
    guest.run("lxcfleet exec demo1 -- sh -c 'sleep 40; echo survived' >/root/exec 2>&1 & sleep 5")
    guest.run("systemctl restart lxcfleet.service")
    guest.run("kill -9 $(systemctl show -p MainPID --value lxcfleet.service)")
    assert states(guest) == dict.fromkeys(NAMES, "running")
    deadline = time.monotonic() + 90
    while guest.run("cat /root/exec").stdout != "survived\n":
        assert time.monotonic() < deadline, guest.run("cat /root/exec; journalctl -u lxcfleet -n 30").stdout
        time.sleep(2)


def test_the_socket_starts_the_daemon_for_the_group(guest: Guest) -> None:
    guest.run("systemctl stop lxcfleet.service")
    guest.run("useradd --create-home ann && useradd --create-home --groups lxcfleet bob")
    assert guest.run("su ann -c 'lxcfleet list -q'", check=False).returncode == 1
    assert guest.run("su bob -c 'lxcfleet list -q'").stdout.split() == NAMES


def test_lxc_itself_starts_the_containers_under_apparmor(guest: Guest) -> None:
    guest.run("lxcfleet stop demo1 demo2")
    guest.run("lxc-start -n demo1")
    guest.run("systemctl start lxc@demo2.service")
    guest.run("lxcfleet wait demo1 demo2 --for healthy --timeout 120")
    assert contents(guest)["demo2"] == guest.run(["cat", MESSAGE]).stdout.strip()
    label = guest.run("cat /proc/$(lxc-info -pHn demo1)/attr/current").stdout
    assert "lxc" in label
    assert label.strip() != "unconfined"
    guest.run("systemctl stop lxc@demo2.service")
    assert states(guest)["demo2"] == "stopped"


def test_containers_that_ran_come_back_after_a_reboot_of_the_host(guest: Guest) -> None:
    before = guest.run(["cat", MESSAGE]).stdout.strip()
    guest.reboot()
    ran = [name for name in NAMES if name != "demo2"]  # an earlier test stopped demo2
    guest.run(["lxcfleet", "wait", *ran, "--for", "healthy", "--timeout", "240"])
    assert states(guest) == {**dict.fromkeys(ran, "running"), "demo2": "stopped"}
    assert contents(guest, *ran) == dict.fromkeys(ran, before)


def test_make_clean_demo_leaves_nothing_of_the_demo(guest: Guest) -> None:
    make(guest, "clean-demo")
    assert states(guest) == {}
    assert guest.run(f"test -e {MESSAGE}", check=False).returncode == 1
    assert traces(guest) == ""


def test_unit_and_contract_tests_pass(guest: Guest) -> None:
    """They run with this suite's Python, mypy and libraries. tests/system has no patience for an emulated CPU."""
    said = make(guest, "test ARGS='-q tests/unit tests/contract'", timeout=3600)
    assert "passed" in said


def test_make_uninstall_leaves_the_containers_running(guest: Guest) -> None:
    guest.run("lxcfleet create stays -- sleep infinity")
    make(guest, "uninstall")
    assert guest.run("command -v lxcfleet", check=False).stdout == ""
    assert guest.run("systemctl list-unit-files --no-legend 'lxcfleet*'", check=False).stdout == ""
    assert guest.run("lxc-info -sHn stays").stdout == "RUNNING\n"
    make(guest, "install")
    assert states(guest) == {"stays": "running"}
    guest.run("lxcfleet destroy stays --force")
