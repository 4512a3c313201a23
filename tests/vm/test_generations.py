"""The way back on whole hosts: a bad version of a package, by apt, with the base frozen before each patch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .guest import Guest
from .image import PRODUCT_PACKAGES, SUITES
from .product import DEB, HERE, INSTALL, LONG, data, fleet, pids, until

SETTINGS = (
    "patch: {quiet: 5, freeze: true}\n"
    "rollout: {min_healthy_time: 60, max_unavailable: 50%, canaries: 1, healthy_deadline: 900}\n"
)
"""On an emulated processor Python takes half a minute to come to the line where version 2 ends."""
THERE = (*PRODUCT_PACKAGES, "apparmor", "python3-dnspython")
MANY = 7
PROGRAM = "/usr/bin/greetd"
SCRIPT = """#!/usr/bin/python3
# version {version}
import sys, time
import greetlib
{body}
time.sleep(1e9)
"""


@pytest.fixture(scope="module", params=SUITES)
def guest(request: pytest.FixtureRequest, package: Path) -> Iterator[Guest]:
    """A host with the package, and with version 1 of a service's package."""
    with Guest.boot(request.param, packages=THERE) as booted:
        booted.push(package, HERE)
        booted.run(f"apt-get -qq update && {INSTALL} {HERE}/{DEB} 2>&1", timeout=LONG)
        booted.run(["tee", "/etc/lxcfleet/lxcfleet.yaml"], input=SETTINGS)
        booted.run("systemctl reload lxcfleet", timeout=LONG)
        for version, body in (("1", ""), ("2", "sys.exit(3)"), ("3", "")):
            build(booted, version, body)
        install(booted, "1")
        yield booted


def build(guest: Guest, version: str, body: str) -> None:
    """Build a version of the service's package."""
    files = {
        "DEBIAN/control": f"Package: greetd\nVersion: {version}\nArchitecture: all\nMaintainer: nobody <n@localhost>\n"
                          "Description: a service\n",
        "usr/bin/greetd": SCRIPT.format(version=version, body=body),
        "usr/lib/python3/dist-packages/greetlib.py": f"VERSION = {version!r}\n",
    }  # fmt: skip
    for path, text in files.items():
        guest.run(f"mkdir -p /root/greetd-{version}/{path.rpartition('/')[0]}")
        guest.run(["tee", f"/root/greetd-{version}/{path}"], input=text)
    guest.run(f"cd /root && chmod 755 greetd-{version}/usr/bin/greetd && dpkg-deb -b greetd-{version} greetd-{version}.deb")


def install(guest: Guest, version: str) -> str:
    """Install it by apt, which calls the hooks."""
    return guest.run(f"{INSTALL} --allow-downgrades /root/greetd-{version}.deb 2>&1", timeout=LONG).stdout


def generations(guest: Guest) -> list[dict[str, Any]]:
    """All generations, the newest first."""
    found: list[dict[str, Any]] = json.loads(fleet(guest, "generation", "list", "-f", "json"))
    return found


def bases(guest: Guest) -> dict[str, int]:
    """The containers that stand on a generation, and on which one."""
    return {name: each["number"] for each in generations(guest) for name in each["containers"]}


def test_a_bad_patch_reaches_the_canary_alone_and_that_gets_its_base_back(guest: Guest) -> None:
    fleet(guest, "create", "web", "-n", str(MANY), "--", PROGRAM)
    fleet(guest, "wait", "--all", "--for", "healthy", "--timeout", "300")
    before = pids(guest)
    install(guest, "2")
    assert generations(guest)[0]["packages"]["greetd"] == ["1", "2"], "the base was frozen before dpkg began"

    until(lambda: len(bases(guest)) == 1, LONG, "one container gets its base back")
    fleet(guest, "rollout", "status", "--follow")
    fleet(guest, "wait", "--all", "--for", "healthy", "--timeout", "300")
    [canary] = bases(guest)
    now = pids(guest)
    assert {name for name in now if now[name] != before[name]} == {canary}, "the others never saw the patch"
    assert guest.run(["grep", "version", PROGRAM]).stdout.strip() == "# version 2", "the host is as apt left it"
    assert "version 1" in fleet(guest, "exec", canary, "--", "grep", "version", PROGRAM)
    said = guest.run(["lxcfleet", "verify", canary, "-f", "json"], check=False, timeout=LONG).stdout
    [proof] = json.loads(said)["containers"]
    assert any("greetd" in reason for reason in proof["reasons"]), proof

    install(guest, "3")
    until(lambda: not bases(guest), LONG, "the canary goes along with the mended version")
    fleet(guest, "rollout", "status", "--follow")
    fleet(guest, "wait", "--all", "--for", "healthy", "--timeout", "300")
    assert fleet(guest, "exec", "web*", "--", "grep", "version", PROGRAM).count("# version 3") == MANY
    assert not any(each["stale"] for each in data(guest, "stale"))


def test_a_whole_host_goes_back_by_hand_and_forth(guest: Guest) -> None:
    # The newest one has version 2, which is the bad one.
    number = next(str(each["number"]) for each in generations(guest) if each["packages"].get("greetd", [""])[0] == "1")
    assert guest.run(["lxcfleet", "generation", "verify", number], timeout=LONG).returncode == 0
    fleet(guest, "create", "sys")
    fleet(guest, "wait", "sys", "--for", "healthy", "--timeout", "600")
    fleet(guest, "rollback", "sys", "web1", "--to", number)
    fleet(guest, "wait", "sys", "web1", "--for", "healthy", "--timeout", "600")
    assert "version 1" in fleet(guest, "exec", "sys", "--", "grep", "version", PROGRAM)
    fleet(guest, "rollback", "--all", "--to", "host")
    fleet(guest, "wait", "--all", "--for", "healthy", "--timeout", "600")
    assert not bases(guest)
    fleet(guest, "generation", "rm", "--last", number)
    assert guest.run(["grep", "version", PROGRAM]).stdout.strip() == "# version 3", "the host keeps its files"
