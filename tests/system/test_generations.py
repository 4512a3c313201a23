"""Containers on generations. What is frozen is a small root, so that the host's own files stay as they are."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from lxcfleet.base.generations import build, store

from . import small_root
from .debs import Package
from .harness import Fleet, until

pytestmark = pytest.mark.system

@pytest.fixture(scope="module")
def root(own_fleet: Fleet) -> Path:
    """The small root: on the file system of the fleet's own files, as a host's is."""
    place = own_fleet.paths.state / "root"
    place.mkdir(parents=True)
    small_root.make(place, greet="1", other="1")
    return place


@pytest.fixture(scope="module")
def first(own_fleet: Fleet, root: Path) -> int:
    """A generation with version 1 of the package."""
    made = build.freeze(own_fleet.paths, "before the patch", root=root, now=time.time())
    assert made is not None
    return made.number


def on(fleet: Fleet, name: str) -> int:
    """The generation that a container stands on by its spec."""
    return int(fleet.json("info", name)["spec"].get("generation", 0))


def test_containers_go_to_a_generation_and_back(fleet: Fleet, root: Path, first: int) -> None:
    one, two, still = (fleet.name(word) for word in ("one", "two", "still"))
    fleet.create(one, two)
    fleet.create(still, options=("--no-start",))
    pids = {name: fleet.pid(name) for name in (one, two)}
    dry = fleet.json("rollback", one, two, still, "--to", str(first), "--dry-run")
    assert (sorted(dry["containers"]), sorted(dry["restarts"])) == (sorted((one, two, still)), sorted((one, two)))
    assert dry["packages"]["greet"] == [None, "1"]
    assert {name: fleet.pid(name) for name in (one, two)} == pids
    ran = fleet.run("rollback", one, two, still, "--to", str(first))
    assert ran.status == 0, ran
    for name in (one, two):
        assert fleet.pid(name) != pids[name]
        assert fleet.inside(name, "cat /usr/lib/greet") == "greet 1"
        assert on(fleet, name) == first
    # The host is patched. Neither those that run nor those that start see any of it.
    small_root.install(root, greet="2", other="1", new="1")
    assert fleet.inside(one, "cat /usr/lib/greet; cat /usr/lib/new || echo none").splitlines()[0] == "greet 1"
    fleet.ok("restart", two)
    fleet.ok("start", still)
    for name in (two, still):
        assert fleet.inside(name, "cat /usr/lib/greet") == "greet 1"
        assert fleet.run("exec", name, "--", "cat", "/usr/lib/new").status != 0
    # Such a container is not proven, and says why.
    record = next(each for each in fleet.json_any("verify", one)["containers"])
    assert not record["proven"]
    assert any(f"generation {first}" in reason for reason in record["reasons"]), record
    # One more generation has only what differs.
    second = build.freeze(fleet.paths, "after", root=root, now=time.time())
    assert second is not None
    assert len(second.sheets) == 2
    assert fleet.run("rollback", one, "--to", str(second.number)).status == 0
    assert fleet.inside(one, "cat /usr/lib/greet; cat /usr/lib/new") == "greet 2\nnew 1"
    listed = {each["number"]: each for each in json.loads(fleet.ok("generation", "list", "-f", "json"))}
    assert listed[second.number]["containers"] == [one]
    assert sorted(listed[first]["containers"]) == sorted((two, still))
    refused = fleet.run("generation", "rm", str(first))
    assert refused.status == 1
    assert two in refused.err
    # A daemon that is killed finds them as they are.
    fleet.stop_daemon(9)
    half = fleet.paths.sheets / ".new-s9"
    (half / "tree").mkdir(parents=True)
    fleet.start_daemon()
    until(lambda: not half.exists(), 10, "what a freeze left that was killed is removed")
    fleet.ok("restart", two)
    assert fleet.inside(two, "cat /usr/lib/greet") == "greet 1"
    # `rollout undo` is the way back of the way back.
    assert fleet.run("rollout", "undo").status == 0
    assert on(fleet, one) == first
    assert fleet.run("rollback", one, two, still, "--to", "host").status == 0
    assert [on(fleet, name) for name in (one, two, still)] == [0, 0, 0]
    assert fleet.run("exec", one, "--", "cat", "/usr/lib/greet").status != 0
    assert fleet.ok("generation", "rm", str(second.number)).strip() == f"removed generation {second.number}"
    assert store.numbers(fleet.paths) == [first]


def test_a_container_whose_own_package_needs_more_than_a_generation_has_is_left_alone(
    fleet: Fleet, root: Path, first: int
) -> None:
    name = fleet.name("one")
    fleet.create(name)
    pid = fleet.pid(name)
    stanza = "Package: tool\\nStatus: install ok installed\\nArchitecture: amd64\\nVersion: 1\\nDepends: libc6 (>= 2.36)\\n"
    fleet.inside(name, f"printf '\\n{stanza}' >>/var/lib/dpkg/status")
    for options in (("--dry-run",), ()):
        ran = fleet.run("rollback", name, "--to", str(first), *options)
        assert ran.status == 1, ran
        assert f"tool 1 needs libc6 (>= 2.36), and with generation {first} it has none" in ran.err
    assert (fleet.pid(name), on(fleet, name)) == (pid, 0)
    assert fleet.run("rollback", name, "--to", str(first), "--ignore-depends").status == 0
    assert on(fleet, name) == first
    assert fleet.run("rollback", name, "--to", "host").status == 0
    assert fleet.inside(name, "dpkg-query -W -f '${Version}' tool libc6 | grep -c .") == "1"


def test_nothing_is_stopped_for_a_base_that_is_not_there(fleet: Fleet) -> None:
    name = fleet.name("one")
    fleet.create(name)
    pid = fleet.pid(name)
    for wrong in ("99", "0", "x", "1.5"):
        ran = fleet.run("rollback", name, "--to", wrong)
        assert ran.status in (1, 2), ran
    assert fleet.run("set", name, "generation=99").status == 1
    assert fleet.pid(name) == pid


def test_a_container_whose_generation_is_gone_says_so(fleet: Fleet, root: Path, first: int) -> None:
    name = fleet.name("one")
    fleet.create(name)
    made = build.freeze(fleet.paths, "to be lost", root=root, now=time.time())
    number = made.number if made else max(store.numbers(fleet.paths))
    assert fleet.run("rollback", name, "--to", str(number)).status == 0
    record = fleet.paths.generation_record(number)
    text = record.read_bytes()
    record.unlink()
    try:
        pid = fleet.pid(name)
        ran = fleet.run("restart", name)
        assert ran.status == 1, ran
        assert f"generation {number}" in ran.err
        assert fleet.pid(name) == pid, "it is not stopped, as it could not start again"
        assert fleet.run("generation", "list").status == 0
    finally:
        record.write_bytes(text)
    fleet.ok("restart", name)
    until(lambda: fleet.state(name) == "running", 10)


def test_a_sheet_that_is_removed_under_a_container_is_told_before_that_is_stopped(
    fleet: Fleet, root: Path, first: int
) -> None:
    one, other = fleet.name("one"), fleet.name("other")
    fleet.create(one, other)
    small_root.install(root, greet=str(time.time()), other="1")
    made = build.freeze(fleet.paths, "its sheet is to be lost", root=root, now=time.time())
    assert made is not None
    assert fleet.run("rollback", one, "--to", str(made.number)).status == 0
    assert fleet.run("rollback", other, "--to", str(first)).status == 0
    pids = {name: fleet.pid(name) for name in (one, other)}
    shutil.rmtree(store.sheet(fleet.paths, made.sheets[0]).parent)
    ran = fleet.run("restart", one)
    assert (ran.status, f"generation {made.number} is not all there" in ran.err) == (1, True), ran
    assert {name: fleet.pid(name) for name in (one, other)} == pids
    assert fleet.run("generation", "verify", str(made.number)).status == 4
    assert fleet.run("generation", "list").status == 0
    fleet.stop_daemon(signal.SIGKILL)
    fleet.start_daemon()
    assert {name: fleet.pid(name) for name in (one, other)} == pids
    fleet.ok("restart", other)
    assert fleet.run("rollback", one, "--to", str(first)).status == 0, "the way out of it"
    assert fleet.inside(one, "cat /usr/lib/greet") == fleet.inside(other, "cat /usr/lib/greet")
    fleet.ok("generation", "rm", str(made.number))


def test_what_a_bad_patch_breaks_gets_its_base_back_by_itself(
    fleet: Fleet, root: Path, first: int, tmp_path: Path
) -> None:
    del first
    package = Package(f"lxcfleet-test-{os.getpid()}-back", tmp_path)
    try:
        package.dpkg("--install", package.build("1"))
        shutil.copytree(package.home, root / str(package.home)[1:])
        assert build.freeze(fleet.paths, "with the package", root=root, now=time.time()) is not None
        fleet.stop_daemon()
        fleet.settings(f"{fleet.usual}patch: {{quiet: 1, freeze: true}}\nrollout: {{min_healthy_time: 0, canaries: 1}}\n")
        fleet.start_daemon()
        names = [fleet.name(f"job{number}") for number in range(20)]
        fleet.create(*names, command=("--", str(package.script)))
        before = {name: fleet.pid(name) for name in names}
        bad = package.build("2", texts={str(package.script): "#!/bin/sh\nexit 3\n"})
        assert package.dpkg("--install", bad) == 0
        fleet.ok("patch", "notify")
        until(lambda: any(on(fleet, name) for name in names), 60, "one gets its base back")
        assert fleet.run("rollout", "status", "--follow").status == 0
        [rescued] = [name for name in names if on(fleet, name)]
        assert {name for name in names if fleet.pid(name) != before[name]} == {rescued}
        assert fleet.state(rescued) == "running"
        # The hook once more, with the same packages: the patch is rejected, and nothing is restarted for it.
        fleet.ok("patch", "notify")
        until(lambda: "nothing is restarted" in fleet.ok("events"), 30, "the patch is passed over")
        status = fleet.json_any("patch", "status")
        assert status["notice"]["rejected"]["container"] == rescued
        assert {name for name in names if fleet.pid(name) != before[name]} == {rescued}
        assert fleet.run("patch", "apply").status == 1
        mended = package.build("3")
        assert package.dpkg("--install", mended) == 0
        fleet.ok("patch", "notify")
        until(lambda: not any(on(fleet, name) for name in names), 60, "it goes along with the mended version")
        assert fleet.run("rollout", "status", "--follow").status == 0
        assert all("# 3" in fleet.inside(name, f"cat {package.script}") for name in names)
        assert set(fleet.states().values()) == {"running"}
        # A daemon that is killed as soon as the patch is rejected leaves the rest to the next one.
        before = {name: fleet.pid(name) for name in names}
        noted = fleet.paths.rejected.read_bytes()
        again = package.build("4", texts={str(package.script): "#!/bin/sh\nexit 4\n"})
        assert package.dpkg("--install", again) == 0
        fleet.ok("patch", "notify")
        until(lambda: fleet.paths.rejected.read_bytes() != noted, 60, "the patch is rejected")
        fleet.stop_daemon(signal.SIGKILL)
        fleet.start_daemon()
        until(lambda: len([name for name in names if on(fleet, name)]) == 1, 60, "one gets its base back")
        until(lambda: set(fleet.states().values()) == {"running"}, 60, "it runs again")
        assert {name for name in names if fleet.pid(name) != before[name]} == {name for name in names if on(fleet, name)}
    finally:
        package.purge()


def test_what_starts_while_dpkg_is_at_work_gets_the_base_from_before_and_goes_along_after_that(
    fleet: Fleet, root: Path, first: int
) -> None:
    del root
    one, two = fleet.name("one"), fleet.name("two")
    fleet.create(one)
    fleet.stop_daemon()
    fleet.settings(f"{fleet.usual}patch: {{quiet: 1, freeze: true}}\nrollout: {{min_healthy_time: 0, canaries: 0}}\n")
    # As `patch prepare` notes it, which would freeze this machine's own root.
    done = fleet.paths.notice_done.read_text() if fleet.paths.notice_done.exists() else ""
    fleet.paths.patch_base.write_text(json.dumps({"generation": first, "done": done}))
    fleet.start_daemon()
    with Path("/var/lib/dpkg/lock").open("r+b") as held:
        fcntl.lockf(held, fcntl.LOCK_EX)  # as dpkg does
        fleet.ok("restart", one)
        fleet.create(two)
        for name in (one, two):
            assert fleet.inside(name, "cat /usr/lib/greet") == "greet 1"
            assert on(fleet, name) == 0, "its spec is as it was"
        fleet.stop_daemon(9)
        fleet.start_daemon()
        assert {each["base"] for each in json.loads(fleet.run("stale", one, two, "-f", "json").out)} == {first}
    fleet.ok("patch", "notify")
    # One that is down for its restart is not stale.
    until(
        lambda: set(fleet.states().values()) == {"running"} and fleet.run("stale", one, two).status == 0,
        60, "the rollout moves them to the host's root",
    )  # fmt: skip
    assert fleet.run("rollout", "status", "--follow").status == 0
    for name in (one, two):
        assert fleet.run("exec", name, "--", "cat", "/usr/lib/greet").status != 0
