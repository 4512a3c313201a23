"""The way back on whole hosts: bad versions of a package, by apt, with the base frozen before each patch, and without."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .guest import Guest
from .image import PRODUCT_PACKAGES, SUITES
from .product import DEB, HERE, INSTALL, LONG, data, fleet, pids, until

SETTINGS = (
    "patch: {quiet: 5, freeze: FREEZE}\n"
    "rollout: {min_healthy_time: 20, max_unavailable: 50%, canaries: 1, healthy_deadline: 900}\n"
)
THERE = (*PRODUCT_PACKAGES, "apparmor", "python3-dnspython")
MANY = 10
PROGRAM = "/usr/bin/greetd"
DEBS = "/srv/greetd"
GOOD, BAD, MENDED, BAD_AGAIN, INTERRUPTED, LAST = VERSIONS = ("1", "2", "3", "4", "5", "6")
"""Of the service's package. dpkg is killed while it configures one of them."""
KILLS = "#!/bin/sh\ntest -e /root/mended || kill -9 $PPID\n"
"""A script that kills dpkg, which has unpacked the package."""
HOST = r"find /usr /etc /opt -xdev -name __pycache__ -prune -o ! -type d -printf '%p %i %s %m %U %G %T@\n' | sort"
"""All files that a patch or the way back could touch. What Python compiles is written by whatever runs first."""
SCRIPT = """#!/bin/sh
# version {version}
{body}
while sleep 1000; do :; done
"""
"""A shell, as on an emulated processor others take half a minute to come to the line where a bad version ends."""


@pytest.fixture(scope="module", params=SUITES)
def guest(request: pytest.FixtureRequest, package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """A host with the package, and with the good version of a service's package."""
    debs = tmp_path_factory.mktemp("greetd")
    for version in VERSIONS:
        build(debs, version)
    with Guest.boot(request.param, packages=THERE) as booted:
        booted.push(package, HERE)
        booted.push(debs, DEBS)
        booted.run(f"apt-get -qq update && {INSTALL} {HERE}/{DEB} 2>&1", timeout=LONG)
        install(booted, GOOD)
        settings(booted, freeze=True)
        # apt gives up a freeze after a minute, and the first one takes longest.
        fleet(booted, "generation", "freeze")
        yield booted


def settings(guest: Guest, *, freeze: bool) -> None:
    """Write the settings, and have the daemon read them."""
    guest.run(["tee", "/etc/lxcfleet/lxcfleet.yaml"], input=SETTINGS.replace("FREEZE", str(freeze).lower()))
    guest.run("systemctl reload lxcfleet", timeout=LONG)


def build(debs: Path, version: str) -> None:
    """Build a version of the service's package."""
    files = {
        "DEBIAN/control": f"Package: greetd\nVersion: {version}\nArchitecture: all\nMaintainer: nobody <n@localhost>\n"
                          "Description: a service\n",
        "DEBIAN/postinst": KILLS if version == INTERRUPTED else "#!/bin/sh\n",
        "usr/bin/greetd": SCRIPT.format(version=version, body="exit 3" if version in (BAD, BAD_AGAIN) else ""),
    }  # fmt: skip
    tree = debs / version
    for path, text in files.items():
        file = tree / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(0o755 if text.startswith("#!") else 0o644)
    command = ["dpkg-deb", "--root-owner-group", "--build", str(tree), f"{debs}/greetd-{version}.deb"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(tree)


def install(guest: Guest, version: str) -> str:
    """Install it by apt, which calls the hooks; returns what it prints."""
    return guest.run(f"{INSTALL} --allow-downgrades {DEBS}/greetd-{version}.deb 2>&1", timeout=LONG).stdout


def on_host(guest: Guest) -> str:
    """The version that the host has."""
    return guest.run(["sed", "-n", "s/^# version //p", PROGRAM]).stdout.strip()


def generations(guest: Guest) -> list[dict[str, Any]]:
    """All generations, the newest first."""
    found: list[dict[str, Any]] = json.loads(fleet(guest, "generation", "list", "-f", "json"))
    return found


def bases(guest: Guest) -> dict[str, int]:
    """The containers that stand on a generation, and on which one."""
    return {name: each["number"] for each in generations(guest) for name in each["containers"]}


def changed(guest: Guest, before: dict[str, int]) -> set[str]:
    """The containers that do not run as they did before."""
    now = pids(guest)
    return {name for name, pid in before.items() if now.get(name) != pid}


def follow(guest: Guest) -> None:
    """Wait for the end of the rollout, and for the health of all."""
    fleet(guest, "rollout", "status", "--follow", timeout=2 * LONG)
    fleet(guest, "wait", "--all", "--for", "healthy", "--timeout", "600")


def all_have(guest: Guest, version: str) -> None:
    """All containers have this version, from the host, and run nothing older."""
    assert fleet(guest, "exec", "web*", "--", "grep", "version", PROGRAM).count(f"# version {version}") == MANY
    assert not any(each["stale"] for each in data(guest, "stale"))
    assert bases(guest) == {}


def all_get(guest: Guest, version: str, before: dict[str, int]) -> None:
    """A patch goes through: all containers are restarted, and have this version."""
    until(lambda: changed(guest, before) == set(before), 2 * LONG, f"all are restarted for version {version}")
    follow(guest)
    all_have(guest, version)


def test_a_bad_patch_reaches_the_canary_alone_and_that_gets_its_base_back(guest: Guest) -> None:
    fleet(guest, "create", "web", "-n", str(MANY), "--", PROGRAM)
    fleet(guest, "wait", "--all", "--for", "healthy", "--timeout", "600")
    before = pids(guest)
    install(guest, BAD)
    guest.run(f"{HOST} >/root/host", timeout=LONG)
    assert generations(guest)[0]["packages"]["greetd"] == [GOOD, BAD], "the base was frozen before dpkg began"

    until(lambda: len(bases(guest)) == 1, LONG, "one container gets its base back")
    follow(guest)
    [canary] = bases(guest)
    assert changed(guest, before) == {canary}, "the others never saw the patch"
    assert on_host(guest) == BAD
    compared = guest.run(f"{HOST} | diff /root/host -", check=False, timeout=LONG)
    assert (compared.returncode, compared.stdout) == (0, ""), "the host is as apt left it"
    assert f"version {GOOD}" in fleet(guest, "exec", canary, "--", "grep", "version", PROGRAM)
    status = guest.run("lxcfleet patch status", check=False, timeout=LONG)
    assert (status.returncode, canary in status.stdout, "greetd" in status.stdout) == (4, True, True), status
    said = guest.run(["lxcfleet", "verify", canary, "-f", "json"], check=False, timeout=LONG).stdout
    [proof] = json.loads(said)["containers"]
    assert any("greetd" in reason for reason in proof["reasons"]), proof

    before = pids(guest)
    install(guest, MENDED)
    until(lambda: not bases(guest), 2 * LONG, "the canary goes along with the mended version, once the others have it")
    all_get(guest, MENDED, before)


def test_containers_go_back_by_hand_and_forth(guest: Guest) -> None:
    # The newest one has the bad version.
    number = next(str(each["number"]) for each in generations(guest) if each["packages"].get("greetd", [""])[0] == GOOD)
    assert guest.run(["lxcfleet", "generation", "verify", number], timeout=LONG).returncode == 0
    fleet(guest, "create", "sys")
    fleet(guest, "wait", "sys", "--for", "healthy", "--timeout", "600")
    fleet(guest, "rollback", "sys", "web1", "--to", number, timeout=2 * LONG)
    follow(guest)
    assert f"version {GOOD}" in fleet(guest, "exec", "sys", "--", "grep", "version", PROGRAM)
    fleet(guest, "rollback", "--all", "--to", "host", timeout=2 * LONG)
    follow(guest)
    all_have(guest, MENDED)
    fleet(guest, "destroy", "sys", "--force")
    fleet(guest, "generation", "rm", "--last", number)
    assert on_host(guest) == MENDED, "the host keeps its files"


def test_without_freeze_a_bad_patch_stays_halted_at_its_canary_and_a_downgrade_mends_it(guest: Guest) -> None:
    settings(guest, freeze=False)
    before, frozen = pids(guest), [each["number"] for each in generations(guest)]
    install(guest, BAD_AGAIN)
    until(lambda: guest.run("lxcfleet rollout status", check=False, timeout=LONG).returncode == 4, LONG, "it halts")
    said = json.loads(guest.run("lxcfleet rollout status -f json", check=False, timeout=LONG).stdout)
    canary = said["halted"]["container"]
    assert changed(guest, before) == {canary}, "the others never saw the patch"
    assert "greetd" in said["halted"]["packages"]
    assert any(f"greetd={MENDED}" in command for command in said["halted"]["commands"]), "the way back is told"
    assert not said["rejected"]
    assert [each["number"] for each in generations(guest)] == frozen
    assert bases(guest) == {}
    status = guest.run("lxcfleet patch status", check=False, timeout=LONG)
    assert (status.returncode, canary in status.stdout) == (4, True), status

    install(guest, MENDED)  # a downgrade is a patch like any other
    until(lambda: canary in pids(guest), LONG, "the canary is restarted")
    follow(guest)
    assert changed(guest, before) == {canary}, "those that never ran the bad version run on"
    all_have(guest, MENDED)


def test_no_container_sees_a_patch_that_dpkg_left_half_done(guest: Guest) -> None:
    settings(guest, freeze=True)
    before = pids(guest)
    ran = guest.run(f"{INSTALL} {DEBS}/greetd-{INTERRUPTED}.deb 2>&1", check=False, timeout=LONG)
    assert ran.returncode != 0, ran.stdout
    assert on_host(guest) == INTERRUPTED, "dpkg has unpacked it"
    refused = guest.run("lxcfleet generation freeze 2>&1", check=False, timeout=LONG)
    assert (refused.returncode, "dpkg --configure -a" in refused.stdout) == (1, True), refused
    fleet(guest, "restart", "web2")
    assert f"version {MENDED}" in fleet(guest, "exec", "web2", "--", "grep", "version", PROGRAM), "it is on the frozen base"
    assert changed(guest, before) == {"web2"}
    guest.run("touch /root/mended && dpkg --configure -a 2>&1", timeout=LONG)
    all_get(guest, INTERRUPTED, before)


def test_a_disk_without_room_for_a_generation_holds_up_no_patch(guest: Guest) -> None:
    before, frozen = pids(guest), [each["number"] for each in generations(guest)]
    # A freeze leaves 5 % of a small file system free; apt needs less than half of that.
    guest.run("set -- $(stat -f -c '%a %b %S' /var) && fallocate -l $((($1 - $2 / 40) * $3)) /var/full")
    try:
        said = install(guest, LAST)
        assert "no room" in said, said
        assert "must stay free" in said, said
        assert [each["number"] for each in generations(guest)] == frozen
    finally:
        guest.run("rm -f /var/full")
    all_get(guest, LAST, before)
