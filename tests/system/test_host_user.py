"""A user of the host without any rights locks all files that he can open. The fleet works all the same."""

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
                fcntl.flock(kept[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
                if stat.S_ISREG(os.fstat(kept[-1]).st_mode):
                    fcntl.lockf(kept[-1], fcntl.LOCK_SH | fcntl.LOCK_NB)
                print(path, flush=True)
    print("ready", flush=True)
    time.sleep(600)


@contextmanager
def held(*directories: str) -> Iterator[list[str]]:
    """A user of the host holds locks on all that he can open below these directories. Gives the locked paths."""
    with subprocess.Popen(
        [sys.executable, "-c", source(hold, directories)], stdout=subprocess.PIPE, text=True, cwd="/"
    ) as holding:
        try:
            assert holding.stdout is not None
            yield [line.strip() for line in iter(holding.stdout.readline, "ready\n")]
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
