"""Containers that are hard to look at or to stop: nested cgroups, frozen processes, deep paths, links, and a failing disk."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from .harness import PATIENCE, SLEEP, Fleet, fleet_on_disk, source, until

pytestmark = pytest.mark.system

STOP_SECONDS = 60 * PATIENCE


def inside(fleet: Fleet, name: str, attack: Callable[[], None]) -> str:
    return fleet.ok("exec", name, "--", "python3", "-c", source(attack))


@contextmanager
def container(fleet: Fleet, rest: str) -> Iterator[str]:
    name = fleet.name(rest)
    fleet.ok("create", name, *SLEEP)
    yield name


def stop(fleet: Fleet, name: str) -> None:
    """Stop a container. Check that this was done in time, and that no cgroup is left."""
    began = time.monotonic()
    fleet.ok("stop", name, "--timeout", "1")
    assert time.monotonic() - began < STOP_SECONDS
    until(lambda: not [path for path in fleet.cgroups() if path.endswith(name)], 20, "the container's cgroups are gone")


def nest() -> None:
    """Start a process in a cgroup that is nested deeper than any path can be."""
    import ctypes
    import os
    import subprocess

    libc = ctypes.CDLL(None, use_errno=True)
    os.makedirs("/tmp/c", exist_ok=True)
    assert libc.mount(b"x", b"/tmp/c", b"cgroup2", 0, None) == 0
    os.chdir("/tmp/c")
    for _ in range(30):
        os.mkdir("a" * 200)
        os.chdir("a" * 200)
    none = subprocess.DEVNULL
    process = subprocess.Popen(["sleep", "1000"], stdin=none, stdout=none, stderr=none, start_new_session=True)
    with open("cgroup.procs", "w") as file:
        file.write(str(process.pid))


def test_a_process_in_a_cgroup_deeper_than_any_path_is_seen_and_stopped(fleet: Fleet) -> None:
    with container(fleet, "deep") as name:
        (before,) = fleet.json("stale", name)
        inside(fleet, name, nest)
        (after,) = fleet.json("stale", name)
        assert after["processes"] == before["processes"] + 1
        assert after["problem"] is None
        stop(fleet, name)


def freeze() -> None:
    """Start a process, and freeze it in a cgroup below the container's own."""
    import ctypes
    import os
    import subprocess
    import time

    libc = ctypes.CDLL(None, use_errno=True)
    os.makedirs("/tmp/f", exist_ok=True)
    first = libc.mount(b"x", b"/tmp/f", b"cgroup", 0, b"freezer") == 0
    if not first:
        assert libc.mount(b"x", b"/tmp/f", b"cgroup2", 0, None) == 0
    os.mkdir("/tmp/f/x")
    none = subprocess.DEVNULL
    process = subprocess.Popen(["sleep", "1000"], stdin=none, stdout=none, stderr=none, start_new_session=True)
    with open("/tmp/f/x/cgroup.procs", "w") as file:
        file.write(str(process.pid))
    with open("/tmp/f/x/freezer.state" if first else "/tmp/f/x/cgroup.freeze", "w") as file:
        file.write("FROZEN" if first else "1")
    time.sleep(0.3)


def test_a_container_with_a_process_that_it_froze_itself_is_stopped(fleet: Fleet) -> None:
    """On cgroup v1 a frozen process does not die of SIGKILL."""
    with container(fleet, "frozen") as name:
        inside(fleet, name, freeze)
        stop(fleet, name)


def fill_deep() -> None:
    """Make a file below a path that is too long, and another file with many names."""
    import os

    os.makedirs("/var/links")
    with open("/var/links/0", "wb") as file:
        file.write(os.urandom(20 << 20))
    for number in range(1, 200):
        os.link("/var/links/0", f"/var/links/{number}")
    os.makedirs("/var/deep")
    os.chdir("/var/deep")
    for _ in range(20):
        os.mkdir("a" * 250)
        os.chdir("a" * 250)
    with open("big", "wb") as file:
        file.write(os.urandom(20 << 20))
        os.fsync(file.fileno())


def test_the_size_of_a_delta_is_right_with_deep_paths_and_links(fleet: Fleet) -> None:
    with container(fleet, "size") as name:
        inside(fleet, name, fill_deep)
        subprocess.run(["sync", "-f", str(fleet.paths.lxc)], check=True)
        assert 40 <= fleet.record(name)["delta_bytes"] >> 20 <= 45


@contextmanager
def failing_disk(fleet: Fleet) -> Iterator[None]:
    """The disk turns read-only, as after an error. At the end it is repaired, and mounted anew to be writable."""
    subprocess.run(["mount", "-o", "remount,abort", str(fleet.paths.lxc)], check=True)
    try:
        yield
    finally:
        fleet.stop_daemon()
        until(lambda: subprocess.run(["umount", str(fleet.paths.lxc)], capture_output=True).returncode == 0, 15)
        image = str(fleet.paths.etc / "disk.ext4")
        attached = ["losetup", "-j", image]
        until(lambda: not subprocess.run(attached, capture_output=True, check=True).stdout, 15, "the disk is not mounted")
        subprocess.run(["fsck.ext4", "-fy", image], capture_output=True, check=False)
        subprocess.run(["mount", "-o", "loop", image, str(fleet.paths.lxc)], check=True)
        fleet.start_daemon()


def test_running_containers_on_a_disk_that_turned_read_only_are_known_and_served() -> None:
    """Before, a new daemon called them stopped, `exec` told of a lost daemon, and `stop` did nothing."""
    with fleet_on_disk() as fleet:
        one, two = fleet.name(1), fleet.name(2)
        fleet.ok("create", one, *SLEEP)
        fleet.ok("create", two, *SLEEP)
        fleet.ok("snapshot", "create", one, "--name", "before")
        with failing_disk(fleet):
            fleet.ok("exec", one, "--", "true")
            refused = fleet.run("snapshot", "restore", one, "before", "--stop")
            assert (refused.status, "is not stopped" in refused.err) == (1, True), refused
            fleet.ok("exec", one, "--", "true")  # nothing is stopped for what can't be done
            fleet.ok("freeze", two)
            fleet.ok("unfreeze", two)
            fleet.stop_daemon()
            fleet.start_daemon()
            assert fleet.states() == {one: "running", two: "running"}
            fleet.ok("exec", one, "--", "true")
            for name in (one, two):
                fleet.run("stop", name, "--timeout", "1")
            assert fleet.states() == {one: "stopped", two: "stopped"}
        fleet.ok("snapshot", "rm", one, "--all")


@pytest.mark.parametrize("place", ["proc", "sys", "dev", "tmp", "run"])
def test_a_fifo_where_something_is_mounted_keeps_nothing_waiting(fleet: Fleet, place: str) -> None:
    """liblxc opens the place as a file, and would wait for the other end for ever, and so would whoever starts it."""
    name = fleet.name(f"fifo-{place}")
    fleet.ok("create", name, *SLEEP)
    fifo = fleet.delta(name) / place
    if fifo.is_dir():
        fifo.rmdir()
    os.mkfifo(fifo)
    began = time.monotonic()
    refused = fleet.run("restart", name, "--timeout", "1")
    assert refused.status == 1
    assert f"/{place} is" in refused.err
    assert fleet.states()[name] == "running"  # what could not start again is not stopped
    fleet.ok("stop", name, "--timeout", "1")
    assert f"/{place} is" in fleet.run("start", name).err
    assert time.monotonic() - began < STOP_SECONDS
    fifo.unlink()
    fleet.ok("start", name)
