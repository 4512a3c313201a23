"""Changes of the specs of containers: live where possible, else by a restart, and for all of them or for none."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from lxcfleet.host.kernel import disks
from lxcfleet.host.process import cgroup

from .harness import SLEEP, Fleet, until

pytestmark = pytest.mark.system

EAT = ("--", "python3", "-c", "import time; data = bytearray(96 << 20); time.sleep(10 ** 6)")


def limit(fleet: Fleet, name: str, controller: str, legacy: str, modern: str) -> str:
    """The limit that the kernel has for a container."""
    directories = cgroup.payload(fleet.pid(name), name).directories
    top, own = (directories[controller], legacy) if controller in directories else (directories[""], modern)
    return Path(top, own).read_text().strip()


def memory(fleet: Fleet, name: str) -> str:
    return limit(fleet, name, "memory", "memory.limit_in_bytes", "memory.max")


def spec(fleet: Fleet, name: str) -> str:
    return fleet.paths.container(name).spec.read_text()


def test_swap_and_weights_of_a_container_that_runs_change_at_once(fleet: Fleet) -> None:
    """Each as this kernel has it: what it can't keep is refused, with the reason."""
    name, has = fleet.name("a"), cgroup.optional()
    fleet.create(name)
    pid = fleet.pid(name)
    fleet.ok("set", name, "cpu_weight=50")
    assert limit(fleet, name, "cpu", "cpu.shares", "cpu.weight") == ("50" if cgroup.unified() else "512")
    done = fleet.run("set", name, "memory=256M", "swap=64M")
    if {cgroup.SWAP, cgroup.SWAP_LEGACY} & has:
        assert done.status == 0, done.err
        files = ("memory", cgroup.SWAP_LEGACY, cgroup.SWAP)
        assert limit(fleet, name, *files) == str((64 if cgroup.unified() else 320) << 20)
        fleet.ok("set", name, "memory=512M", "swap=0")
        assert limit(fleet, name, *files) == ("0" if cgroup.unified() else str(512 << 20))
        fleet.ok("set", name, "memory=1G")
        fleet.ok("set", name, "memory=", "swap=")
        assert int(limit(fleet, name, *files).replace("max", str(1 << 62))) > 1 << 40
    else:
        assert (done.status, "swap" in done.err) == (1, True), done.err
    done = fleet.run("set", name, "io_weight=200")
    if (files_of_io := sorted(cgroup.IO_WEIGHTS & has)) and not cgroup.unified():
        assert done.status == 0, done.err
        assert limit(fleet, name, "blkio", files_of_io[0], files_of_io[0]) == "109"
    elif not files_of_io:
        assert (done.status, "io_weight" in done.err) == (1, True), done.err
    assert fleet.pid(name) == pid
    if {cgroup.SWAP, cgroup.SWAP_LEGACY} & has:
        fleet.ok("set", name, "memory=512M", "swap=0")
    fleet.ok("restart", name)
    assert limit(fleet, name, "cpu", "cpu.shares", "cpu.weight") == ("50" if cgroup.unified() else "512")
    if {cgroup.SWAP, cgroup.SWAP_LEGACY} & has:
        assert limit(fleet, name, *files) == ("0" if cgroup.unified() else str(512 << 20))
    if files_of_io and not cgroup.unified():
        assert limit(fleet, name, "blkio", files_of_io[0], files_of_io[0]) == "109"


def test_limits_of_disks_change_at_once(fleet: Fleet) -> None:
    name = fleet.name("a")
    if not {cgroup.IO_MAX, cgroup.IO_MAX_LEGACY["read"]} & cgroup.optional():
        done = fleet.run("create", name, "--io", "read=64K", "--", "sleep", "infinity")
        assert (done.status, "does not limit what a cgroup reads" in done.err) == (1, True), done.err
        return
    disk, *_ = disks.of_directory(fleet.paths.lxc) or ("",)
    fleet.create(name, options=("--io", "read=8M,write_ops=100"))
    pid = fleet.pid(name)

    def reads() -> list[str]:
        lines = limit(fleet, name, "blkio", cgroup.IO_MAX_LEGACY["read"], cgroup.IO_MAX).splitlines()
        return [line.replace("rbps=", "").split()[1] for line in lines if line.split()[0] == disk]

    assert reads() == [str(8 << 20)]
    fleet.ok("set", name, "io.delta=read=64K")
    assert reads() == [str(64 << 10)]
    assert "delta" in fleet.ok("info", name)
    fleet.ok("restart", name)
    assert reads() == [str(64 << 10)]
    pid = fleet.pid(name)
    fleet.ok("set", name, "io=")
    assert reads() in ([], ["max"])
    done = fleet.run("set", name, "io.lfnone=read=1M")
    assert (done.status, "no disk lfnone" in done.err) == (1, True), done.err
    assert fleet.pid(name) == pid
    fleet.inside(name, "dd if=/dev/zero of=/srv/x bs=64k count=4 oflag=direct,sync")


def test_all_figures_of_a_disk_are_in_one_line_on_cgroup_v2(fleet: Fleet) -> None:
    if not cgroup.unified():
        pytest.skip("this host has cgroup v1: a file for each figure")
    name, disk = fleet.name("a"), disks.of_directory(fleet.paths.lxc)
    fleet.create(name, options=("--io", "read=8M,write=4M,read_ops=200,write_ops=100"))
    before = limit(fleet, name, "blkio", "", cgroup.IO_MAX)
    assert before.split() == [disk, f"rbps={8 << 20}", f"wbps={4 << 20}", "riops=200", "wiops=100"]
    fleet.ok("restart", name)
    assert limit(fleet, name, "blkio", "", cgroup.IO_MAX) == before
    fleet.ok("set", name, "io.delta=write=1M")
    after = limit(fleet, name, "blkio", "", cgroup.IO_MAX)
    assert after.split() == [disk, "rbps=max", f"wbps={1 << 20}", "riops=max", "wiops=max"]


def test_info_tells_for_how_long_limits_held_a_container_up(fleet: Fleet) -> None:
    name = fleet.name("a")
    fleet.create(name, command=("--", "sh", "-c", "while :; do :; done"), options=("--cpus", "0.01"))
    until(lambda: fleet.record(name)["throttled_seconds"] > 0, what="its limit has kept it from processors")
    assert "throttled" in fleet.ok("info", name)
    if cgroup.unified() and Path("/proc/pressure").exists():
        until(lambda: fleet.record(name)["pressure"]["cpu"] > 0, what="it has waited for processors")
        assert set(fleet.record(name)["pressure"]) == {"cpu", "memory", "io"}
        assert "cpu" in next(line for line in fleet.ok("info", name).splitlines() if "waited for" in line)


def test_limits_of_a_container_that_runs_change_at_once(fleet: Fleet) -> None:
    name, other = fleet.name("a"), fleet.name("b")
    fleet.create(name, other)
    pids = {each: fleet.pid(each) for each in (name, other)}
    done = fleet.json("set", name, other, "memory=256M", "cpus=0.5", "pids=321", "labels.tier=front", "drain=2")
    assert done["changed"]
    assert {result["name"]: result["status"] for result in done["results"]} == {name: "changed", other: "changed"}
    assert done["results"][0]["differs"]["memory"] == ["0", "256M"]
    for each in (name, other):
        assert memory(fleet, each) == str(256 << 20)
        assert limit(fleet, each, "cpu", "cpu.cfs_quota_us", "cpu.max").split()[0] == "50000"
        assert limit(fleet, each, "pids", "pids.max", "pids.max") == "321"
        assert fleet.pid(each) == pids[each]
        record = fleet.record(each)
        assert (record["labels"], record["restart_needed"]) == ({"tier": "front"}, [])
        assert "lxc.cgroup" in fleet.paths.container(each).config.read_text()
    again = fleet.json("set", name, "memory=256M")
    assert (again["changed"], again["results"][0]["status"]) == (False, "unchanged")
    fleet.ok("set", name, "memory=0", "labels.tier=")
    assert int(memory(fleet, name).replace("max", str(1 << 62))) > 1 << 40
    assert fleet.record(name)["labels"] == {}
    fleet.stop_daemon()
    fleet.start_daemon()
    assert fleet.record(other)["labels"] == {"tier": "front"}
    assert fleet.events("resumed") == []


def test_a_change_that_needs_a_restart_goes_in_waves_or_waits(fleet: Fleet) -> None:
    names = [fleet.name(letter) for letter in "abc"]
    fleet.create(*names)
    fleet.ok("stop", names[2])
    before = {name: fleet.pid(name) for name in names[:2]}
    later = fleet.json("set", *names, "environment.MODE=day", "--no-restart")
    assert later["restart_needed"] == names[:2]
    assert {name: fleet.pid(name) for name in names[:2]} == before
    assert fleet.record(names[0])["restart_needed"] == ["environment"]
    assert "restart needed" in fleet.ok("info", names[0])
    fleet.stop_daemon(signal.SIGKILL)
    fleet.start_daemon()
    assert fleet.record(names[0])["restart_needed"] == ["environment"]  # the next daemon knows it as well
    done = fleet.json("set", *names, "environment.MODE=night", "--max-unavailable", "1", "--min-healthy-time", "0")
    assert (done["restarts"], done["rollout"]["status"]) == (names[:2], "done")
    for name in names[:2]:
        assert fleet.inside(name, "tr '\\0' '\\n' </proc/1/environ | grep MODE") == "MODE=night"
        assert fleet.record(name)["restart_needed"] == []
    fleet.ok("start", names[2])
    assert fleet.inside(names[2], "tr '\\0' '\\n' </proc/1/environ | grep MODE") == "MODE=night"


def test_a_bad_value_that_takes_a_restart_reaches_the_canary_alone_and_can_be_taken_back(fleet: Fleet) -> None:
    names = [fleet.name(letter) for letter in "abc"]
    fleet.create(*names, command=("--", "sh", "-c", 'test "$BAD" = 1 && exit 3; exec sleep infinity'))
    fleet.ok("wait", *names, "--for", "healthy")
    pids = {name: fleet.pid(name) for name in names}
    bad = fleet.run("set", *names, "environment.BAD=1", "--canaries", "1", "--min-healthy-time", "5")
    assert bad.status == 1, bad
    given = [name for name in names if fleet.record(name)["environment"] == {"BAD": "1"}]
    others = [name for name in names if name not in given]
    assert len(given) == 1, "whom the halt kept from its restart has its former value at a boot, too"
    assert {name: fleet.pid(name) for name in others} == {name: pids[name] for name in others}
    fleet.ok("rollout", "undo")
    assert [fleet.record(name)["environment"] for name in names] == [{}, {}, {}]
    assert {name: fleet.pid(name) for name in others} == {name: pids[name] for name in others}
    assert fleet.pid(given[0]) != pids[given[0]]


def test_a_memory_limit_below_the_use_is_refused_and_no_container_is_changed(fleet: Fleet) -> None:
    small, large = fleet.name("a"), fleet.name("b")
    fleet.create(small)
    fleet.create(large, command=EAT)
    until(lambda: (fleet.record(large)["memory_bytes"] or 0) > 96 << 20, 20, "the container uses the memory")
    specs = {name: spec(fleet, name) for name in (small, large)}
    refused = fleet.run("set", small, large, "memory=32M")
    assert refused.status == 1, refused
    assert large in refused.err
    assert "bytes) in use" in refused.err or "in use (" in refused.err
    assert {name: spec(fleet, name) for name in (small, large)} == specs
    assert fleet.state(large) == "running"
    fleet.ok("set", large, "memory=512M")
    assert memory(fleet, large) == str(512 << 20)


def test_bad_input_changes_nothing(fleet: Fleet) -> None:
    names = [fleet.name(n) for n in range(5)]
    fleet.ok("create", fleet.name("c"), "-n", "5", *SLEEP)
    names = sorted(fleet.states())
    broken = names[2]
    specs = {name: spec(fleet, name) for name in names}
    unknown = fleet.run("set", "--all", "memroy=1G", "pids=0x", "first_id=100000", "name=x")
    assert unknown.status == 2
    assert all(word in unknown.err for word in ("did you mean 'memory'", "pids", "first_id", "name")), unknown.err
    out_of_bounds = fleet.run("set", "--all", "boot_order=100000", "cpus=-1")
    assert (out_of_bounds.status, "boot_order" in out_of_bounds.err, "cpus" in out_of_bounds.err) == (2, True, True)
    none = fleet.run("set", "memory=1G")
    assert none.status == 2
    system_only = fleet.run("set", "--all", "init=system")
    assert system_only.status == 2, system_only
    command = fleet.run("set", "--all", "command=/no/such/program")
    assert (command.status, "/no/such/program" in command.err) == (2, True)
    host_port = fleet.run("set", "--all", "publish=8080:80")
    assert host_port.status == 2, host_port
    fleet.stop_daemon()
    fleet.paths.container(broken).spec.write_text("version: 1\nwhatever: 3\n")
    fleet.start_daemon()
    one_broken = fleet.run("set", "--all", "labels.a=b")
    assert one_broken.status == 1
    assert broken in one_broken.err
    assert {name: spec(fleet, name) for name in names if name != broken} == {
        name: specs[name] for name in names if name != broken
    }
    assert fleet.half_done() == []


def test_a_busy_container_keeps_all_from_being_changed(fleet: Fleet) -> None:
    stubborn, other = fleet.name("a"), fleet.name("b")
    fleet.create(other)
    fleet.create(stubborn, command=("--", "sh", "-c", "trap '' TERM; while :; do sleep 1; done"))
    pid = fleet.pid(stubborn)
    with fleet.spawn("stop", stubborn, "--timeout", "600") as client:
        until(lambda: fleet.record(stubborn)["busy"] == "stop", 10)
        refused = fleet.run("set", stubborn, other, "pids=100")
        os.kill(pid, signal.SIGKILL)  # else the stop goes on for ten minutes
        assert (refused.status, "busy" in refused.err) == (1, True), refused
        client.wait(60)
    assert "pids: 4096" in spec(fleet, other)


@pytest.mark.parametrize("step", ["write", "putinforce"])
def test_the_specs_on_disk_are_in_force_after_the_daemon_is_killed_while_they_change(fleet: Fleet, step: str) -> None:
    names = [fleet.name(letter) for letter in "abc"]
    fleet.create(*names)
    before = {name: fleet.pid(name) for name in names}
    fleet.stop_daemon()
    daemon = fleet.start_daemon(kill=f"daemon:{names[1]}:{step}")
    assert fleet.run("set", *names, "memory=256M").status == 1
    assert daemon.wait(60) == -signal.SIGKILL
    fleet.start_daemon()
    wanted = [name for name in names if f"memory: {256 << 20}" in spec(fleet, name)]
    assert wanted == (names[:1] if step == "write" else names)  # the daemon carries out the specs on disk
    for name in names:
        until(lambda name=name: (memory(fleet, name) == str(256 << 20)) == (name in wanted), 10, name)  # type: ignore[misc]
    assert {name: fleet.pid(name) for name in names} == before
    assert not [path for name in names for path in fleet.paths.container(name).directory.glob("*.new")]


def test_create_ensure_update_changes_containers_that_exist(fleet: Fleet) -> None:
    prefix = fleet.name("web")
    fleet.ok("create", prefix, "-n", "2", "--memory", "128M", *SLEEP)
    first = f"{prefix}1"
    pid = fleet.pid(first)
    left = fleet.json("create", prefix, "-n", "2", "--ensure", "--memory", "256M", *SLEEP)
    assert (left["changed"], memory(fleet, first)) == (False, str(128 << 20))
    planned = fleet.json("create", prefix, "-n", "3", "--ensure", "--update", "--memory", "256M", "--dry-run", *SLEEP)
    assert (planned["changed"], memory(fleet, first)) == (True, str(128 << 20))
    done = fleet.json("create", prefix, "-n", "3", "--ensure", "--update", "--memory", "256M", *SLEEP)
    assert [result["status"] for result in done["results"]] == ["changed", "changed", "created"]
    assert (memory(fleet, first), fleet.pid(first)) == (str(256 << 20), pid)
    again = fleet.json("create", prefix, "-n", "3", "--ensure", "--update", "--memory", "256M", *SLEEP)
    assert not again["changed"]
    other = ("--", "sleep", "100000")
    restarting = fleet.run("create", prefix, "-n", "3", "--ensure", "--update", "--memory", "256M", *other)
    assert (restarting.status, "3 of them restarted in waves: rollout" in restarting.err) == (0, True), restarting
    assert json.loads(fleet.ok("rollout", "status", "-f", "json"))["status"] == "done"
    assert fleet.pid(first) != pid
    never = fleet.run("create", prefix, "-n", "3", "--ensure", "--update", "--privileged", *other)
    assert (never.status, "privileged" in never.err) == (2, True), never


def test_names_follow_labels_and_ports_follow_publications(fleet: Fleet) -> None:
    name, other = fleet.name("a"), fleet.name("b")
    fleet.create(name, other, options=("--network", "bridge"))
    fleet.ok("set", name, other, "labels.tier=front", "ports=http=80")
    hosts = fleet.paths.hosts / name
    assert "front" in hosts.read_text()
    fleet.ok("set", name, "labels.tier=")
    assert "front" not in hosts.read_text()
    assert "front" in (fleet.paths.hosts / other).read_text()
    fleet.ok("set", name, "network=none", "ports=", "labels.x=y")
    until(lambda: fleet.record(name)["network"] == "none" and fleet.record(name)["restart_needed"] == [], 30)
    assert fleet.record(name)["addresses"] == []
    fleet.ok("set", name, "network=bridge")
    assert len(fleet.record(name)["addresses"]) >= 1
    assert fleet.record(name)["addresses"][0] != fleet.record(other)["addresses"][0]


def test_a_health_check_is_changed_while_it_runs(fleet: Fleet) -> None:
    name = fleet.name("a")
    fleet.create(name)
    until(lambda: fleet.record(name)["health"] == "healthy", 20)
    pid = fleet.pid(name)
    flag = os.path.join("/", "var", "lib", "well")
    fleet.inside(name, f"touch {flag}")
    fleet.ok("set", name, f"health=exec test -e {flag}")
    assert fleet.record(name)["health"] in ("healthy", "starting")
    assert fleet.record(name)["check"]["interval"] == 10
    often = ("--health-exec", f"test -e {flag}", "--health-interval", "0.2")
    fleet.ok("create", name, "--ensure", "--update", *often, *SLEEP)
    fleet.inside(name, f"rm {flag}")
    until(lambda: fleet.record(name)["health"] == "unhealthy", 60)
    fleet.ok("set", name, "health=")
    assert (fleet.record(name)["health"], fleet.record(name)["check"], fleet.pid(name)) == ("healthy", None, pid)


def test_a_memory_limit_that_is_too_low_reaches_the_canary_alone_and_restarts_no_other(fleet: Fleet) -> None:
    """The check takes more than the limit leaves, so the kernel ends the canary; its former limit brings it back."""
    names = [fleet.name(letter) for letter in "abc"]
    check = ("--health-exec", "python3 -c 'bytearray(96<<20)'", "--health-interval", "30")
    fleet.ok("create", *names[:1], *check, *SLEEP)
    for name in names[1:]:
        fleet.ok("create", name, *check, *SLEEP)
    fleet.ok("wait", *names, "--for", "healthy")
    pids = {name: fleet.pid(name) for name in names}
    often = ("--canaries", "1", "--max-unavailable", "2", "--min-healthy-time", "1")
    fleet.ok("set", *names, "memory=512M", *often)
    assert {name: fleet.pid(name) for name in names} == pids
    assert [memory(fleet, name) for name in names] == [str(512 << 20)] * 3
    bad = fleet.run("set", *names, "memory=48M", *often)
    assert (bad.status, "it ended after its change" in bad.err) == (1, True), bad
    assert [memory(fleet, name) for name in names[1:]] == [str(512 << 20)] * 2
    fleet.ok("rollout", "undo")
    assert [memory(fleet, name) for name in names] == [str(512 << 20)] * 3
    assert {name: fleet.pid(name) for name in names[1:]} == {name: pids[name] for name in names[1:]}
    assert fleet.pid(names[0]) != pids[names[0]]
