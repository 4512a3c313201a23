"""What a user of the host without any rights can get hold of, and what comes of it when he holds it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from .harness import Fleet, source

pytestmark = pytest.mark.system


def hold(*directories: str) -> None:
    """Lock everything below these directories that can be opened at all, and say what that is."""
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
    """Somebody holds locks on everything there that he can open, for the time being."""
    with subprocess.Popen(
        [sys.executable, "-c", source(hold, directories)], stdout=subprocess.PIPE, text=True, cwd="/"
    ) as holding:
        try:
            assert holding.stdout is not None
            yield [line.strip() for line in iter(holding.stdout.readline, "ready\n")]
        finally:
            holding.kill()


def test_locks_of_a_host_user_keep_no_container_from_starting(fleet: Fleet) -> None:
    """A lock on the directory of the daemon's files, or on the lock of the mask, kept all containers from starting."""
    first, second = fleet.name("a"), fleet.name("b")
    fleet.create(first)
    with held(str(fleet.paths.run), str(fleet.paths.lxc), "/run/lxc") as locked:
        assert str(fleet.paths.run) in locked
        fleet.create(second)
        fleet.ok("restart", first)
        # The mask is built anew and exchanged: also with the locks of a former version in the way.
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
