"""A user of the host without any rights locks all files that he can open, and tries to write to all there is. The fleet works
all the same."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from .harness import Fleet, source

pytestmark = pytest.mark.system


def hold(*directories: str) -> None:
    """Lock all files and directories below these directories that can be opened. Print their paths."""
    import fcntl
    import os
    import stat
    import time

    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    kept = []
    for directory in directories:
        for above, _, files in os.walk(directory):
            for path in (above, *(os.path.join(above, file) for file in files)):
                try:
                    kept.append(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW))
                except OSError:
                    continue
                try:
                    fcntl.flock(kept[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if stat.S_ISREG(os.fstat(kept[-1]).st_mode):
                        fcntl.lockf(kept[-1], fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue  # its owner, or another test's user, holds it at this moment
                print(path, flush=True)
    print("ready", flush=True)
    time.sleep(600)


def write(*directories: str) -> None:
    """Try to write to all files and pipes below these directories, to make files, and to connect to sockets. Print the paths
    where that is not refused."""
    import os
    import socket
    import stat

    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)

    def reach(path: str) -> None:
        mode = os.lstat(path).st_mode
        if stat.S_ISSOCK(mode):
            with socket.socket(socket.AF_UNIX) as asks:
                asks.connect(path)
        elif stat.S_ISDIR(mode):
            os.close(os.open(f"{path}/planted", os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW))
        elif stat.S_ISREG(mode) or stat.S_ISFIFO(mode):
            os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW))
        else:
            raise PermissionError(path)

    for directory in directories:
        for above, _, files in os.walk(directory):
            for path in (above, *(os.path.join(above, file) for file in files)):
                try:
                    reach(path)
                except (PermissionError, FileNotFoundError):
                    continue
                except OSError:  # another error than that it is forbidden
                    pass
                print(path)


@contextmanager
def held(*directories: str) -> Iterator[list[str]]:
    """A user of the host holds locks on all that he can open below these directories. Gives the locked paths."""
    with subprocess.Popen(
        [sys.executable, "-c", source(hold, directories)], stdout=subprocess.PIPE, text=True, cwd="/"
    ) as holding:
        try:
            assert holding.stdout is not None
            locked = []
            for line in holding.stdout:
                if line == "ready\n":
                    break
                locked.append(line.strip())
            else:
                raise AssertionError("it has ended")
            yield locked
        finally:
            holding.kill()


def test_locks_of_a_host_user_keep_no_container_from_starting(fleet: Fleet) -> None:
    """Before, a lock on the directory of the daemon's files, or on the mask's lock file, kept containers from starting."""
    first, second = fleet.name("a"), fleet.name("b")
    fleet.create(first)
    with held(str(fleet.paths.run), str(fleet.paths.lxc), "/run/lxc") as locked:
        assert str(fleet.paths.run) in locked
        fleet.create(second)
        fleet.ok("restart", first)
        # A new mask is built and replaces the old one, also while the user locks the files of a former version.
        fleet.stop_daemon()
        fleet.paths.mask_rules.mkdir(exist_ok=True)
        rule = fleet.paths.mask_rules / "more.yaml"
        rule.write_text("hide: [/usr/share/common-licenses]\n")
        try:
            fleet.start_daemon()
            fleet.ok("restart", first)
            assert fleet.inside(first, "ls /usr/share/common-licenses 2>&1 || true").endswith("No such file or directory")
        finally:
            rule.unlink()
        fleet.ok("stop", first)
        fleet.ok("destroy", second, "--force")


def test_a_host_user_reaches_nothing_of_the_fleet_for_writing(fleet: Fleet) -> None:
    fleet.create(fleet.name("a"), options=("--network", "bridge"))
    fleet.ok("snapshot", "create", fleet.name("a"), "-q")
    own = fleet.paths
    ran = subprocess.run(
        [sys.executable, "-c", source(write, (str(own.run), str(own.lxc), str(own.state), str(own.etc), "/run/lxc"))],
        capture_output=True, text=True, check=True, cwd="/",
    )  # fmt: skip
    assert ran.stdout.split() == []
