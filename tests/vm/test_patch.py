"""The life of one patch: unattended-upgrade puts a new OpenSSL on the host, and soon every container that used the old one
runs the new one, without another command.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .guest import Guest
from .image import PRODUCT_PACKAGES, SUITES
from .product import DEB, HERE, INSTALL, LONG, SLEEP, data, fleet, pids, states, until

LIBRARY = {"bookworm": "libssl3", "trixie": "libssl3t64"}
USES_IT = ("--", "python3", "-c", "import ssl, time; time.sleep(1e9)")
USERS = ["tls1", "tls2", "tls3"]
OTHERS = ["idle1", "idle2"]
THERE = (*PRODUCT_PACKAGES, "apparmor", "python3-dnspython", "unattended-upgrades")
"""What the image has already, as this is not about the installation."""


@pytest.fixture(scope="module", params=SUITES)
def guest(request: pytest.FixtureRequest, package: Path) -> Iterator[Guest]:
    """A host with the package, and with an OpenSSL that a security update is due for."""
    with Guest.boot(request.param, packages=THERE) as booted:
        booted.push(package, HERE)
        booted.run(f"apt-get -qq update && {INSTALL} {HERE}/{DEB} 2>&1", timeout=LONG)
        _downgrade(booted, LIBRARY[booted.suite])
        yield booted


def _downgrade(guest: Guest, library: str) -> None:
    """Install the newest version but one that the archive has, which changes with time."""
    lines = guest.run(["apt-cache", "madison", library]).stdout.splitlines()
    known = list(dict.fromkeys(line.split("|")[1].strip() for line in lines))
    assert len(known) > 1, f"the archive has one version only of {library}: {known}"
    guest.run(f"{INSTALL} --allow-downgrades {library}={known[1]} 2>&1", timeout=LONG)


def installed(guest: Guest) -> str:
    return guest.run(["dpkg-query", "-W", "-f", "${Version}", LIBRARY[guest.suite]]).stdout


def test_a_patch_arrives_by_itself(guest: Guest) -> None:
    fleet(guest, "create", "tls", "-n", "3", *USES_IT)
    fleet(guest, "create", "idle", "-n", "2", *SLEEP)
    fleet(guest, "create", "sys", "-n", "2")
    fleet(guest, "wait", "--all", "--for", "healthy", "--timeout", "300")
    old, before = installed(guest), pids(guest)
    assert guest.run("lxcfleet stale", check=False, timeout=LONG).returncode == 0

    guest.run("unattended-upgrade -v 2>&1", timeout=1800)

    assert installed(guest) != old
    until(
        lambda: all(pids(guest).get(name, before[name]) != before[name] for name in USERS),
        LONG, "all containers that use the library run anew",
    )  # fmt: skip
    fleet(guest, "rollout", "status", "--follow")
    assert guest.run("lxcfleet stale", check=False, timeout=LONG).returncode == 0
    fleet(guest, "wait", "--all", "--for", "healthy", "--timeout", "300")
    assert set(states(guest).values()) == {"running"}
    now = pids(guest)
    assert {name: now[name] for name in OTHERS} == {name: before[name] for name in OTHERS}


def test_the_patch_is_proven(guest: Guest) -> None:
    assert guest.run(["lxcfleet", "verify", "--package", LIBRARY[guest.suite]], timeout=LONG).returncode == 0
    assert not any(each["stale"] for each in data(guest, "stale"))
