"""The spec of a container's run and the wanted spec: two specs, as long as they differ."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lxcfleet.containers import lxc_config, store, weights
from lxcfleet.containers.container import Container
from lxcfleet.containers.lxc_config import Platform
from lxcfleet.containers.reconciling import changes
from lxcfleet.containers.reconciling.specs import Specs
from lxcfleet.containers.registry import Registry
from lxcfleet.errors import HostError
from lxcfleet.host.kernel import disks, mounts, tree
from lxcfleet.host.process import cgroup
from lxcfleet.host.process.cgroup import SWAP, SWAP_LEGACY, Payload
from lxcfleet.launcher.children import containers as children
from lxcfleet.paths import Paths
from lxcfleet.runtime.bus import Bus
from lxcfleet.spec.container.io import IoLimit
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.reading.swap import NO_LIMIT
from lxcfleet.spec.reading.terms import Victim

SPEC = Spec("web", first_id=1879048192, created="2026-01-01T00:00:00Z")
OTHER = replace(SPEC, memory=1 << 29)
RUNNING: Any = object()


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = Paths(lxc=tmp_path, run=tmp_path, etc=tmp_path)
    paths.container("web").directory.mkdir()
    paths.container("web").spec.write_text(store.render(OTHER))
    return paths


def test_the_spec_wanted_of_a_running_container_is_in_force_after_its_end() -> None:
    container = Container("web", SPEC, running=RUNNING)
    container.want(OTHER)
    assert (container.spec, container.wanted) == (SPEC, OTHER)
    container.running = None
    container.take_effect()
    assert (container.spec, container.desired) == (OTHER, None)


def test_a_wanted_spec_holds_at_once_if_the_container_does_not_run_or_the_run_has_it() -> None:
    stopped = Container("web", SPEC)
    stopped.want(OTHER)
    assert (stopped.spec, stopped.desired) == (OTHER, None)
    back = Container("web", SPEC, running=RUNNING, desired=OTHER)
    back.want(SPEC)
    assert (back.spec, back.desired) == (SPEC, None)


def test_a_daemon_finds_out_which_spec_a_run_was_started_with(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    paths.container("web").started.write_text(store.render(SPEC))
    told = []
    nobody: Any = None
    registry = Registry(paths, nobody, nobody)

    def watch(container: Container, _pid: int) -> bool:
        told.append(container.spec)
        return True

    monkeypatch.setattr(registry, "watch", watch)
    container = Container("web", OTHER, running=RUNNING)
    registry.take_up(container, 1)
    assert told == [SPEC]  # subscribers that hear of the run see the spec of the run
    assert (container.spec, container.wanted) == (SPEC, OTHER)


@pytest.mark.parametrize("text", [None, "nonsense: [", store.render(OTHER)])
def test_without_a_usable_record_a_run_counts_as_started_with_the_spec_on_disk(paths: Paths, text: str | None) -> None:
    """A container that a former version started has no record."""
    if text is not None:
        paths.container("web").started.write_text(text)
    assert store.started(paths, "web") is None


def test_a_full_disk_keeps_no_container_from_starting(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    own = paths.container("web")
    tree.keep_copy(own.spec, own.started)
    assert own.started.read_text() == store.render(OTHER)
    own.spec.write_text(store.render(SPEC))

    def write(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tree, "write", write)
    tree.keep_copy(own.spec, own.started)
    assert not own.started.exists()


# -- limits of a run -----------------------------------------------------------------------------------------------

MODERN_FILES = frozenset({SWAP, "io.weight", "io.bfq.weight", "io.max"})
LEGACY_FILES = frozenset({SWAP_LEGACY, "blkio.bfq.weight", "blkio.throttle.read_bps_device"})
MODERN = Platform(True, frozenset({"memory", "cpu", "pids"}), False, False, "lxcfleet0", "", Path("/hook.py"))


@pytest.mark.parametrize("unified", [True, False])
def test_each_limit_that_configurations_have_can_be_set_and_taken_away_while_it_runs(unified: bool) -> None:
    platform = replace(MODERN, cgroup2=unified)
    platform = replace(platform, limit_files=MODERN_FILES if unified else LEGACY_FILES)
    limited = lxc_config.cgroup_limits(
        replace(SPEC, memory=1 << 29, cpus=0.5, pids=100, oom=Victim.CONTAINER, swap=0, cpu_weight=5, io_weight=2), platform
    )
    free = lxc_config.cgroup_limits(replace(SPEC, pids=0), platform)
    assert [each.file for each in limited] == [each.file for each in free]
    assert all(each.limits for each in limited)
    assert not any(each.limits for each in free)
    values = {each.file: each.value for each in free}
    assert values["pids.max"] == "max"
    assert values["memory.max" if unified else "memory.limit_in_bytes"] == ("max" if unified else "-1")


def test_swap_and_weights_in_the_files_of_both_versions() -> None:
    spec = replace(SPEC, memory=1 << 29, swap=1 << 28, cpu_weight=50, io_weight=10_000)
    modern = lxc_config.cgroup_limits(spec, replace(MODERN, limit_files=MODERN_FILES))
    values = {each.file: each.value for each in modern}
    assert values["memory.swap.max"] == str(1 << 28)
    assert (values["cpu.weight"], values["io.weight"], values["io.bfq.weight"]) == ("50", "10000", "1000")
    platform = replace(MODERN, cgroup2=False, limit_files=LEGACY_FILES)
    legacy = {each.file: (each.controller, each.value) for each in lxc_config.cgroup_limits(spec, platform)}
    assert legacy["memory.memsw.limit_in_bytes"] == ("memory", str((1 << 29) + (1 << 28)))
    assert (legacy["cpu.shares"], legacy["blkio.bfq.weight"]) == (("cpu", "512"), ("blkio", "1000"))
    assert [weights.shares(each) for each in (None, 1, 100, 10_000)] == [1024, 10, 1024, 102400]
    assert [weights.io_weight("blkio.weight", each) for each in (None, 1, 10_000)] == [500, 10, 1000]
    assert [weights.io_weight("io.bfq.weight", each) for each in (None, 1, 100, 200)] == [100, 1, 100, 109]
    unset = lxc_config.cgroup_limits(replace(SPEC, swap=NO_LIMIT), MODERN)
    assert not [each for each in unset if "swap" in each.file or "io" in each.file]


@pytest.mark.parametrize(("former", "wanted"), [
    ((1 << 29, 0), (1 << 30, 0)), ((1 << 30, 0), (1 << 29, 0)), ((0, None), (1 << 29, 0)), ((1 << 29, 0), (0, None)),
    ((1 << 29, 0), (1 << 30, None)), ((1 << 30, 10 << 30), (2 << 30, 0)), ((2 << 30, 0), (1 << 30, 10 << 30)),
])  # fmt: skip
def test_v1_never_has_a_limit_of_memory_above_the_one_of_memory_and_swap(
    former: tuple[int, int | None], wanted: tuple[int, int | None]
) -> None:
    """The kernel refuses such a write."""
    platform = replace(MODERN, cgroup2=False, limit_files=LEGACY_FILES)
    one, other = (replace(SPEC, memory=memory, swap=swap) for memory, swap in (former, wanted))
    for start, end in ((one, other), (other, one)):
        now = {each.file: each.value for each in lxc_config.cgroup_limits(start, platform)}
        for each in lxc_config.changed_limits(start, end, platform):
            now[each.file] = each.value
            low, high = (int(now[f"memory.{file}"]) for file in ("limit_in_bytes", "memsw.limit_in_bytes"))
            assert high == -1 or -1 < low <= high
        assert now == {each.file: each.value for each in lxc_config.cgroup_limits(end, platform)}


def test_a_write_that_fails_puts_memory_and_swap_back_in_the_kernel_s_order(paths: Paths) -> None:
    platform = replace(MODERN, cgroup2=False, limit_files=LEGACY_FILES)
    nothing: Any = None
    specs = Specs(paths, platform, nothing, nothing, Bus(), 4)
    asked: list[list[tuple[str, str]]] = []

    async def refuse(item: Any) -> None:
        asked.append([(file, value) for _, file, value in item["limits"]])
        if len(asked) == 1:
            raise HostError("web: a limit can't be changed while it runs", why="Device or resource busy")

    limits: Any = type("Limits", (), {"set": staticmethod(refuse)})()
    specs._limits = limits
    former = replace(SPEC, memory=1 << 30, swap=0, cpu_weight=50)
    container = Container("web", former)
    running: Any = type("Running", (), {"pid": 1})()
    container.running = running
    with pytest.raises(HostError, match="can't be changed"):
        asyncio.run(specs.put_in_force(container, replace(former, memory=1 << 29, cpu_weight=None)))
    memory, both = "memory.limit_in_bytes", SWAP_LEGACY
    assert asked == [
        [(memory, str(1 << 29)), (both, str(1 << 29)), ("cpu.shares", "1024")],
        [(both, str(1 << 30)), (memory, str(1 << 30)), ("cpu.shares", "512")],
    ]
    assert container.spec == former


def test_what_a_kernel_can_t_keep_is_told() -> None:
    both = replace(SPEC, memory=1 << 29, swap=0, io_weight=200)

    def missing(spec: Spec, files: frozenset[str], *, cgroup2: bool) -> str:
        return weights.missing(spec, spec, files, cgroup2=cgroup2)

    assert missing(both, MODERN_FILES, cgroup2=True) == missing(both, LEGACY_FILES, cgroup2=False) == ""
    assert "memory.swap.max" in missing(both, frozenset(), cgroup2=True)
    assert "memory.memsw" in missing(both, frozenset(), cgroup2=False)
    assert "limit of memory, too" in missing(replace(both, memory=0), LEGACY_FILES, cgroup2=False)
    assert "bfq" in missing(replace(both, swap=None), frozenset({SWAP}), cgroup2=True)
    assert missing(replace(SPEC, swap=NO_LIMIT, cpu_weight=5), frozenset(), cgroup2=True) == ""


def test_the_files_of_this_kernel_are_found(tmp_path: Path) -> None:
    for name in ("old/memory", "old/blkio", "new/system.slice", "proc", "sys/module/bfq"):
        (tmp_path / name).mkdir(parents=True)
    old, new = tmp_path / "old", tmp_path / "new"
    assert cgroup.optional(old, tmp_path) == frozenset()
    for name in (
        "memory/memory.memsw.limit_in_bytes", "blkio/blkio.bfq.io_service_bytes", "blkio/blkio.throttle.read_bps_device"
    ):  # fmt: skip
        (old / name).touch()
    assert cgroup.optional(old, tmp_path) == LEGACY_FILES
    (new / "cgroup.controllers").write_text("cpu memory pids\n")
    (tmp_path / "proc/swaps").touch()
    (new / "io.cost.qos").touch()
    assert cgroup.optional(new, tmp_path) == {SWAP}
    (new / "system.slice/memory.current").touch()
    assert cgroup.optional(new, tmp_path) == frozenset()  # swap accounting is off
    (new / f"system.slice/{SWAP}").touch()
    (new / "cgroup.controllers").write_text("cpu io memory pids\n")
    assert cgroup.optional(new, tmp_path) == MODERN_FILES
    (new / "system.slice/io.stat").touch()
    assert cgroup.optional(new, tmp_path) == MODERN_FILES - {"io.max"}  # the kernel was built without throttling
    (new / "system.slice/io.max").touch()
    assert cgroup.optional(new, tmp_path) == MODERN_FILES


DISKS = {"sda": ["8:0"], "delta": ["8:16"], "/dev/disk/by-id/two": ["8:16"]}


@pytest.mark.parametrize("unified", [True, False])
def test_limits_of_disks_in_the_files_of_both_versions(unified: bool) -> None:
    platform = replace(MODERN, cgroup2=unified, disks=lambda name: DISKS.get(name, ()))
    both = {"sda": IoLimit(read=1 << 20, write_ops=7), "delta": IoLimit(write=5), "gone": IoLimit(read=1)}
    former = replace(SPEC, io=both)
    wanted = replace(SPEC, io={"delta": IoLimit(write=9), "/dev/disk/by-id/two": IoLimit(write=4)})

    def lines(limits: list[lxc_config.CgroupLimit]) -> list[tuple[str, str, bool]]:
        ours = [each for each in limits if each.file == "io.max" or each.controller == "blkio"]
        return [(each.file.rpartition(".")[2], each.value, each.limits) for each in ours]

    begun = lines(lxc_config.cgroup_limits(former, platform))
    changed = lines(lxc_config.changed_limits(former, wanted, platform))
    undone = lines(lxc_config.changed_limits(wanted, former, platform))
    if unified:
        one, two = "8:0 rbps=1048576 wbps=max riops=max wiops=7", "8:16 rbps=max wbps={} riops=max wiops=max"
        assert begun == [("max", one, True), ("max", two.format(5), True)]
        # A disk that is not limited any more is told so, and of two names of a disk the lower limit counts.
        none = "8:0 rbps=max wbps=max riops=max wiops=max"
        assert sorted(changed) == [("max", none, False), ("max", two.format(4), True)]
        assert sorted(undone) == begun
    else:
        limits = {("read_bps_device", "8:0 1048576"), ("write_iops_device", "8:0 7"), ("write_bps_device", "8:16 5")}
        assert {each[:2] for each in begun if each[2]} == limits
        taken = {("read_bps_device", "8:0 0", False), ("write_iops_device", "8:0 0", False)}
        assert {*changed} == {*taken, ("write_bps_device", "8:16 4", True)}
        assert {each for each in undone if each[2]} == {each for each in begun if each[2]}
    assert lxc_config.changed_limits(former, former, platform) == []


def test_a_lower_limit_of_a_disk_may_harm() -> None:
    def risky(one: dict[str, IoLimit], other: dict[str, IoLimit]) -> tuple[str, ...]:
        return changes.risky(replace(SPEC, io=one), replace(SPEC, io=other))

    low, high = {"sda": IoLimit(read=5)}, {"sda": IoLimit(read=6, write=1)}
    assert (risky({}, low), risky(low, {}), risky(low, low)) == (("io",), (), ())
    assert (risky(high, low), risky(low, high)) == (("io",), ("io",))


def test_disks_are_found_by_name_partition_and_directory(tmp_path: Path) -> None:
    disk = tmp_path / "devices/sda"
    (disk / "sda1").mkdir(parents=True)
    for place, number in ((disk, "8:0"), (disk / "sda1", "8:1")):
        (place / "dev").write_text(f"{number}\n")
        for link in (f"class/block/{place.name}", f"dev/block/{number}"):
            (tmp_path / link).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / link).symlink_to(place)
    (disk / "sda1/partition").write_text("1\n")
    found = [disks.number(name, tmp_path) for name in ("lfnone", "../x")]
    assert found == ["", ""]
    assert disks._whole(os.makedev(8, 1), tmp_path) == disks._whole(os.makedev(8, 0), tmp_path) == "8:0"
    assert disks._whole(os.makedev(9, 1), tmp_path) == ""
    assert disks.number("/dev/null") == ""


def test_a_file_system_on_several_disks_has_the_limit_on_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounts, "source_of", lambda _: "/dev/lfone")
    monkeypatch.setattr(os, "major", lambda _: 0)
    for name, number in (("lfone", "8:0"), ("lftwo", "8:16"), ("lfother", "8:32")):
        (tmp_path / f"class/block/{name}").mkdir(parents=True)
        (tmp_path / f"class/block/{name}/dev").write_text(f"{number}\n")
    for fs, names in (("a", ["lfother"]), ("b", ["lfone", "lftwo"])):
        for name in names:
            (tmp_path / f"fs/btrfs/{fs}/devices/{name}").mkdir(parents=True)
    monkeypatch.setattr(disks, "number", lambda name, system: disks._number(system / "class/block" / name))
    assert disks.of_directory(tmp_path, tmp_path) == ("8:0", "8:16")
    limit = IoLimit(read=1 << 20)
    assert weights.io_limits(replace(SPEC, io={"delta": limit}), lambda _: ("8:0", "8:16")) == {"8:0": limit, "8:16": limit}


def test_less_swap_may_harm_and_weights_may_not() -> None:
    def risky(one: int | None, other: int | None) -> tuple[str, ...]:
        return changes.risky(replace(SPEC, swap=one, cpu_weight=100), replace(SPEC, swap=other, cpu_weight=1, io_weight=1))

    assert [risky(*each) for each in ((None, 0), (5, 4), (NO_LIMIT, 9))] == [("swap",)] * 3
    assert [risky(*each) for each in ((0, None), (4, 5), (None, NO_LIMIT), (0, 0))] == [()] * 4


def limited(item: dict[str, Any], paths: Paths) -> dict[str, Any]:
    """The answer of the launcher's child."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        whole: Any = {"name": "web", "pid": 1, "disk": None, "memory": None, **item}
        children.limit([whole], theirs, paths)
        answer: dict[str, Any] = json.loads(ours.recv(65536))
        return answer


def test_memory_in_use_is_not_taken_away(paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "memory.current").write_text("104857600\n")
    monkeypatch.setattr(cgroup, "payload", lambda *_: Payload({"": str(tmp_path)}))
    lower = {"memory": 50 << 20, "limits": [["memory", "memory.max", str(50 << 20)]]}
    error = limited(lower, paths)["error"]
    assert "104857600 bytes" in error["why"]
    assert not (tmp_path / "memory.max").exists()
    enough = {"memory": 200 << 20, "limits": [["memory", "memory.max", str(200 << 20)]]}
    assert limited(enough, paths)["error"] is None
    assert (tmp_path / "memory.max").read_text() == str(200 << 20)


def test_a_limit_whose_cgroup_is_missing_is_told(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "payload", lambda *_: Payload({}))
    assert "can't be changed" in limited({"limits": [["cpu", "cpu.max", "max"]]}, paths)["error"]["message"]
