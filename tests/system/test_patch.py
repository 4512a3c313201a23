"""dpkg replaces a library of the host while containers run programs that map it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .debs import HOOK, Package, create_mapping, wait_until_mapped
from .harness import Fleet, until

pytestmark = pytest.mark.system

QUIET = 1
ROLLOUT = "rollout: {min_healthy_time: 0, max_unavailable: 50%}\n"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Package]:
    """A package with version 1 on the host and version 2 built."""
    if os.geteuid() != 0 or shutil.which("dpkg-deb") is None:
        pytest.skip("needs root and dpkg")
    made = Package(f"lxcfleet-test-{os.getpid()}", tmp_path_factory.mktemp("packages"))
    try:
        made.dpkg("--install", made.build("1"))
        made.build("2")
        yield made
    finally:
        made.purge()


@pytest.fixture
def one(package: Package) -> Package:
    """The package, with version 1 on the host."""
    assert package.dpkg("--install", package.deb("1")) == 0
    return package


def policy(fleet: Fleet, text: str) -> None:
    """Change the patch settings, and start the daemon anew with them."""
    fleet.stop_daemon()
    fleet.settings(f"{fleet.usual}{ROLLOUT}patch: {{{text}}}\n")
    for file in (fleet.paths.notice, fleet.paths.notice_done):
        file.unlink(missing_ok=True)
    fleet.start_daemon()


def change_policy(fleet: Fleet, text: str) -> None:
    """Change the patch settings under the daemon that runs."""
    fleet.settings(f"{fleet.usual}{ROLLOUT}patch: {{{text}}}\n")
    pid = fleet.daemon_pid()
    assert pid is not None
    os.kill(pid, signal.SIGHUP)


def pids(fleet: Fleet) -> dict[str, int]:
    return {record["name"]: record["pid"] for record in fleet.records()}


def is_dealt_with(fleet: Fleet) -> bool:
    """Whether the daemon has acted on the hook's last notice."""
    notice, done = fleet.paths.notice.stat(), fleet.paths.notice_done
    return done.exists() and done.read_text() == f"{notice.st_ino} {notice.st_mtime_ns}"


def test_an_upgrade_by_apt_restarts_exactly_the_stale_containers(fleet: Fleet, one: Package) -> None:
    policy(fleet, "policy: auto, quiet: 600")
    mapping, others = create_mapping(fleet, one, 10, 10)
    assert fleet.run("stale").status == 0
    before = pids(fleet)
    ran = one.apt(one.deb("2"), fleet.paths.run)
    assert ran.returncode == 0, ran
    stale = fleet.json_any("stale")
    found = {record["name"] for record in stale if record["stale"]}
    assert found == set(mapping)
    for record in stale:
        for file in record["files"]:
            assert (file["path"], file["package"], file["version"]) == (str(one.library), one.name, "2")
    change_policy(fleet, f"policy: auto, quiet: {QUIET}")
    until(lambda: is_dealt_with(fleet), 30, "the daemon has acted")
    until(lambda: fleet.run("stale", "-q").status == 0, 60, "no container is stale any more")
    fleet.ok("rollout", "status", "--follow")  # a container in the middle of its restart runs nothing, so it is not stale
    after = pids(fleet)
    assert {name for name in before if before[name] != after[name]} == set(mapping)
    assert {name for name in others if before[name] == after[name]} == set(others)
    # The containers map the new library.
    wait_until_mapped(fleet, mapping)
    assert "version 2" in fleet.inside(mapping[0], f"tail -n1 {one.library}")


def test_many_calls_of_the_hook_are_one_patch(fleet: Fleet, one: Package) -> None:
    policy(fleet, "policy: auto, quiet: 6")  # on a busy host a call may come seconds after the one before
    create_mapping(fleet, one, 1, 0)
    one.dpkg("--install", one.deb("2"))
    calls = 200
    line = HOOK.read_text().split('"')[1].replace("/run/lxcfleet", str(fleet.paths.run))
    for _ in range(calls):
        assert subprocess.run(["sh", "-c", line], check=False).returncode == 0
    until(lambda: is_dealt_with(fleet), 30, "the daemon has acted")
    until(lambda: fleet.run("stale", "-q").status == 0, 30, "no container is stale any more")
    fleet.ok("rollout", "status", "--follow")  # a container in the middle of its restart runs nothing, so it is not stale
    assert len(fleet.events("patched")) == 1
    assert len(fleet.events("restarted")) == 1


def test_no_container_is_restarted_while_dpkg_is_half_way(fleet: Fleet, one: Package) -> None:
    policy(fleet, f"policy: auto, quiet: {QUIET}")
    mapping, _ = create_mapping(fleet, one, 1, 0)
    before = pids(fleet)
    broken = one.build("3", scripts={"postinst": "test -e /run/lxcfleet-test-mend"})
    assert one.dpkg("--install", broken) != 0
    fleet.ok("patch", "notify", "-q")
    until(lambda: fleet.client().notice()["phase"] == "broken", 30, "the daemon sees that dpkg is half-way")
    assert "dpkg left packages in the middle" in fleet.run("patch", "status").out
    assert f"{one.name} is half-configured" in fleet.events("patch-waits")[0]["message"]
    assert fleet.run("stale", "-q").out == f"{mapping[0]}\n"
    time.sleep(2 * QUIET)
    assert pids(fleet) == before
    mend = Path("/run/lxcfleet-test-mend")
    mend.touch()
    try:
        assert one.dpkg("--configure", one.name) == 0
    finally:
        mend.unlink()
    until(lambda: fleet.events("restarted"), 30, "the container is restarted once dpkg is done")
    assert pids(fleet) != before


def test_a_patch_made_while_the_daemon_was_down_is_acted_on_at_its_start(fleet: Fleet, one: Package) -> None:
    policy(fleet, f"policy: auto, quiet: {QUIET}")
    create_mapping(fleet, one, 1, 1)
    before = pids(fleet)
    fleet.stop_daemon()
    assert one.apt(one.deb("2"), fleet.paths.run).returncode == 0
    fleet.start_daemon()
    until(lambda: fleet.events("restarted"), 30, "the daemon acts on the patch")
    after = until(lambda: None if None in pids(fleet).values() else pids(fleet), 30)
    assert [name for name in before if before[name] != after[name]] == [fleet.name("map1")]


def test_policies_that_restart_nothing(fleet: Fleet, one: Package) -> None:
    policy(fleet, "policy: notify, quiet: 0")
    create_mapping(fleet, one, 1, 0)
    before = pids(fleet)
    one.dpkg("--install", one.deb("2"))
    fleet.ok("patch", "notify")
    (event,) = until(lambda: fleet.events("patched"), 20, "an event tells the patch")
    assert event["message"] == f"the host was patched; old code runs in 1 container: {fleet.name('map1')}"
    policy(fleet, "policy: manual, quiet: 0")
    fleet.ok("patch", "notify")
    until(lambda: is_dealt_with(fleet), 20, "the daemon has dealt with the notice")
    assert fleet.events("patched") == []
    now = time.gmtime(time.time() + 7200)
    later = f"{now.tm_hour:02}:00-{now.tm_hour:02}:30"
    policy(fleet, f'policy: window, quiet: 0, windows: ["{later}"], time_zone: UTC')
    fleet.ok("patch", "notify")
    until(lambda: fleet.events("patch-waits"), 20, "the daemon waits for the window")
    assert pids(fleet) == before
    always = 'policy: window, quiet: 0, windows: ["00:00-24:00"], time_zone: UTC'
    change_policy(fleet, always)
    until(lambda: fleet.events("restarted"), 20, "the window has opened")
    assert pids(fleet) != before


def test_a_fleet_whose_checks_break_with_the_patch_is_rolled_by_canary(fleet: Fleet, one: Package, tmp_path: Path) -> None:
    """Exec checks may fail in all containers between patch and restart. The rollout knows that none was unhealthy before."""
    policy(fleet, f"policy: auto, quiet: {QUIET}")
    check = ("--health-exec", "test ! -e /bad", "--health-interval", "0.2", "--health-retries", "1")
    mend = "import ctypes, os, time; os.path.exists('/bad') and os.unlink('/bad')"
    code = f"{mend}; ctypes.CDLL({str(one.library)!r}); time.sleep(1e6)"
    fleet.ok("create", fleet.name("map"), "-n", "5", *check, "--health-start-period", "0", "--", "python3", "-c", code)
    fleet.ok("wait", "--all", "--for", "healthy")
    broken = tmp_path / "broken"
    deb = one.build("4", scripts={"postinst": f"until test -e {broken}; do sleep 0.1; done"})
    with ThreadPoolExecutor() as pool:
        upgrade = pool.submit(one.apt, deb, fleet.paths.run)
        until(lambda: fleet.client().notice()["phase"] == "busy", 30, "the daemon sees dpkg at work before the hook calls")
        assert "holds dpkg's lock" in fleet.run("patch", "status").out
        fleet.ok("exec", "--all", "--", "touch", "/bad")
        until(lambda: {record["health"] for record in fleet.records()} == {"unhealthy"}, 30)
        broken.touch()
        assert upgrade.result().returncode == 0
    until(lambda: is_dealt_with(fleet), 30, "the daemon has acted")
    fleet.ok("rollout", "status", "--follow")
    record = fleet.client().rollout()
    assert record is not None
    waves = sorted(each["wave"] or 0 for each in record["containers"])
    assert (record["status"], waves) == ("done", [1, 2, 2, 3, 3])
    assert {each["note"] for each in record["containers"]} == {""}
    until(lambda: {each["health"] for each in fleet.records()} == {"healthy"}, what="no check fails any more")


def test_the_hook_succeeds_where_no_daemon_can_be_told(fleet: Fleet, one: Package, tmp_path: Path) -> None:
    """lxcfleet has not run since the boot, its directory can't be written, or the daemon is down."""
    assert one.apt(one.deb("2"), tmp_path / "none").returncode == 0
    assert not (tmp_path / "none").exists()
    (tmp_path / "file" / "patched").mkdir(parents=True)
    assert one.apt(one.deb("1"), tmp_path / "file").returncode == 0
    fleet.stop_daemon()
    assert fleet.run("patch", "notify").err == "lxcfleet: noted; the daemon is down, and acts once it is started\n"
