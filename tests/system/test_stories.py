"""An administrator patches: a patch makes a program unhealthy, ends it or hangs it; the way back; a patch of the kernel.

The machine is patched by apt with the package manager's hook, and the daemon acts by itself. tests/vm runs these tests once
more on hosts with the suites' own kernels.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from .debs import Package
from .harness import PATIENCE, Fleet, until

pytestmark = pytest.mark.system

PATCHED = "policy: auto, quiet: 1"
ROLLOUT = f"rollout: {{min_healthy_time: 0, canaries: 1, healthy_deadline: {12 * PATIENCE}}}\n"
ANSWER = "/run/answer"
ILL = {
    "answers 500": f"echo 500 >{ANSWER}; exec sleep infinity",
    "exits": "sleep 1; echo cannot load plugin; exit 3",
    "hangs": f"mkfifo {ANSWER}; exec sleep infinity",
}
"""Bodies of the program. A check reads its answer: of the one that hangs none ever comes."""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Package]:
    """A package whose version 1 serves."""
    if os.geteuid() != 0 or shutil.which("dpkg-deb") is None:
        pytest.skip("needs root and dpkg")
    made = Package(f"lxcfleet-story-{os.getpid()}", tmp_path_factory.mktemp("packages"))
    try:
        build(made, "1", f"echo 200 >{ANSWER}; exec sleep infinity")
        yield made
    finally:
        made.purge()


def build(package: Package, version: str, body: str) -> None:
    """Build a version whose program has this body."""
    package.build(version, texts={str(package.home / "serve"): f"#!/bin/sh\n# {version}\n{body}\n"})


def version_of(fleet: Fleet, name: str, package: Package) -> str:
    """The version of the program that a container has started."""
    return fleet.inside(name, f"sed -n 's/^# //p' {package.home}/serve")


def serving(fleet: Fleet, package: Package) -> list[str]:
    """Three containers that run the good version; the daemon acts on patches by itself."""
    assert package.dpkg("--install", package.deb("1")) == 0
    fleet.stop_daemon()
    fleet.settings(f"{fleet.usual}{ROLLOUT}patch: {{{PATCHED}}}\n")
    fleet.start_daemon()
    names = [fleet.name(f"g{number}") for number in range(1, 4)]
    check = ["--health-exec", f"grep -q 200 {ANSWER}", "--health-interval", "1", "--health-timeout", "3"]
    start = ["--health-start-period", "1", "--health-retries", "2"]
    fleet.ok("create", fleet.name("g"), "-n", "3", *check, *start, "--", "sh", f"{package.home}/serve")
    fleet.ok("wait", *names, "--for", "healthy", "--timeout", "60")
    return names


@pytest.mark.parametrize("how", ILL)
def test_a_bad_patch_halts_at_its_canary_and_the_way_back_mends_the_fleet(fleet: Fleet, package: Package, how: str) -> None:
    bad = str(2 + [*ILL].index(how))
    build(package, bad, ILL[how])
    names = serving(fleet, package)
    before = {record["name"]: record["pid"] for record in fleet.records()}

    assert package.apt(package.deb(bad), fleet.paths.run).returncode == 0
    until(lambda: fleet.run("rollout", "status").status == 4, 60, "the rollout halts")
    halted = fleet.run("rollout", "status", "-f", "json").json["halted"]
    assert halted["container"] in names
    assert f"{package.name}=1" in " ".join(halted["commands"])
    untouched = [record["name"] for record in fleet.records() if record["pid"] == before[record["name"]]]
    assert len(untouched) == 2, "only the canary was restarted"
    assert fleet.run("verify").status == 4

    assert package.apt(package.deb("1"), fleet.paths.run).returncode == 0
    until(lambda: fleet.run("rollout", "status").status == 0, 60, "the rollout goes on, and ends")
    fleet.ok("wait", *names, "--for", "healthy", "--timeout", "60")
    assert {version_of(fleet, name, package) for name in names} == {"1"}
    assert (fleet.run("stale").status, fleet.run("verify", "--package", package.name).status) == (0, 0)
    now = {record["name"]: record["pid"] for record in fleet.records()}
    assert all(now[name] == before[name] for name in untouched), "containers that never ran the bad version run on"


def test_what_a_bad_patch_takes_down_at_a_reboot_of_the_host_comes_back_with_the_good_version(
    fleet: Fleet, package: Package
) -> None:
    """The rollout was halted. With the boot all containers get the bad version, and nothing of it is a rollout's wave."""
    build(package, "5", ILL["exits"])
    names = serving(fleet, package)
    assert package.apt(package.deb("5"), fleet.paths.run).returncode == 0
    until(lambda: fleet.run("rollout", "status").status == 4, 60, "the rollout halts")

    fleet.ok("stop", "--all", "--until-boot")
    fleet.stop_daemon()
    fleet.paths.rollout.unlink()  # as all of /run
    record = json.loads(fleet.paths.running_record.read_text())
    fleet.paths.running_record.write_text(json.dumps({**record, "boot": "another"}))
    fleet.start_daemon()

    def down() -> list[str]:
        return [each["name"] for each in json.loads(fleet.run("patch", "status", "-f", "json").out)["notice"]["down"]]

    until(lambda: down() == names, 60, "each counts as taken down by the patch")
    assert fleet.run("verify").status == 4
    assert package.apt(package.deb("1"), fleet.paths.run).returncode == 0
    until(lambda: set(fleet.states().values()) == {"running"}, 60, "all are started again")
    fleet.ok("wait", *names, "--for", "healthy", "--timeout", "60")
    assert {version_of(fleet, name, package) for name in names} == {"1"}


def test_a_kernel_is_not_proven_before_the_reboot(fleet: Fleet, tmp_path: Path) -> None:
    marks = (Path("/run/reboot-required"), Path("/run/reboot-required.pkgs"))
    if any(mark.exists() for mark in marks):
        pytest.skip("this host has to be rebooted as it is")
    kernel = Package(f"linux-image-9.9.{os.getpid()}-test", tmp_path)
    kernel.build("1", scripts={"postinst": f"touch {marks[0]}; echo {kernel.name} >>{marks[1]}"})
    fleet.create(fleet.name("a"))
    try:
        assert kernel.dpkg("--install", kernel.deb("1")) == 0
        ran = fleet.run("verify", "--package", kernel.name)
        assert (ran.status, "takes effect with a reboot of the host" in ran.out) == (4, True)
        assert f"the host has to be rebooted for {kernel.name}" in fleet.run("patch", "status").out
        proof = json.loads(fleet.ok("verify", "-f", "json"))
        assert (proof["proven"], proof["reboot"]) == (True, [kernel.name])
    finally:
        kernel.purge()
        for mark in marks:
            mark.unlink(missing_ok=True)
