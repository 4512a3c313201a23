"""The command lxcfleetd: its arguments, its lock, its start."""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import fcntl
import gc
import logging
import os
import resource
import sys
import time
from collections.abc import Sequence

from lxcfleet import __version__
from lxcfleet.api.client import answers
from lxcfleet.base.mask import mount
from lxcfleet.containers.reconciling.steps import Observer
from lxcfleet.daemon import systemd
from lxcfleet.daemon.serving import Daemon
from lxcfleet.errors import FleetError, HostError, Unsupported
from lxcfleet.host.kernel import tree
from lxcfleet.host.process import heap
from lxcfleet.paths import Paths
from lxcfleet.runtime.log_format import Plain
from lxcfleet.runtime.pulse import MeasuredLoop
from lxcfleet.runtime.repeats import Repeats

ORPHAN_SECONDS = 150.0
"""Seconds for which children of an earlier daemon may go on: more than launcher.forking.CHILD_SECONDS."""
OPEN_FILES = 65536
_NAMES = 20_000
"""More places than the table has left: it has 43,690, of which the modules' names take more than half."""


def _take_lock(paths: Paths) -> int:
    """Be the only daemon, and wait until no process works for an earlier daemon any more.

    The launcher and its children inherit the lock, so it is free only when the last of them has ended.
    """
    paths.run.mkdir(mode=0o755, parents=True, exist_ok=True)
    descriptor = os.open(paths.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + ORPHAN_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not systemd.activated() and answers(paths):
                raise FleetError("lxcfleetd runs already", why=f"{paths.socket} answers") from None
            if time.monotonic() > deadline:
                raise HostError(
                    "an earlier lxcfleetd still holds its lock", why=str(paths.lock),
                    hint=f"`fuser -v {paths.lock}` shows who; end it",
                ) from None  # fmt: skip
            time.sleep(0.05)
        else:
            return descriptor


def _check_rights() -> None:
    if os.geteuid() != 0:
        raise Unsupported("lxcfleetd must be started by root", hint="sudo lxcfleetd, or systemctl start lxcfleet")


def _raise_open_files() -> None:
    """Each running container takes a descriptor of the daemon, and each starting container two more."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def _have_names_fit() -> None:
    """Have Python's table of names take the size now that it gets in any daemon after some thousand requests.

    Each part of a path takes a place in it (pathlib interns them) that is not free again before the table is made anew, twice
    as large. That took 1.8 MiB at some moment: now all that the daemon grows by is what it keeps.
    """
    for number in range(_NAMES):
        sys.intern(f"name {number}")


async def _serve(paths: Paths, lock: int, observers: Sequence[Observer]) -> Sequence[int]:
    daemon = Daemon(paths, lock, observers)
    # What is there now stays as long as the daemon does: modules, classes, the wiring. Garbage is looked for elsewhere, and
    # less often than after each 700 new objects: a restart of a hundred containers makes many that live on.
    _have_names_fit()
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    return await daemon.run()


def main(observers: Sequence[Observer] = ()) -> None:
    """The command lxcfleetd. ``observers`` are called before each step that changes a container."""
    parser = argparse.ArgumentParser(prog="lxcfleetd", description="The daemon that runs a fleet of containers.")
    parser.add_argument("--version", action="version", version=f"lxcfleetd {__version__}")
    parser.add_argument("--debug", action="store_true", help="tracebacks of errors")
    arguments = parser.parse_args()
    heap.have_one()
    faulthandler.enable()  # after the watchdog's SIGABRT the traceback says where the daemon hung
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    # Nobody sees in which thread or at which line a message was made: see "Optimization" in Python's HOWTO of logging.
    logging.logThreads = logging.logMultiprocessing = logging.logProcesses = False
    for handler in logging.getLogger().handlers:
        handler.setFormatter(Plain("%(levelname)s %(name)s: %(message)s"))
        handler.addFilter(Repeats())
    # aiohttp would log a traceback for each request that is not HTTP. daemon.http.server logs the errors of our own code.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    paths = Paths.from_environment()
    try:
        _check_rights()
        os.chdir("/")
        os.umask(0o022)
        lock = _take_lock(paths)
        _raise_open_files()
        paths.lxc.mkdir(mode=0o755, parents=True, exist_ok=True)
        tree.spread(paths.lxc)
        mount.make_mount_points(paths)
        with asyncio.Runner(loop_factory=MeasuredLoop) as runner:
            sockets = runner.run(_serve(paths, lock, observers))
        if sockets:
            systemd.run_anew(sockets)
    except FleetError as error:
        if arguments.debug:
            raise
        print(f"lxcfleetd: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
    except OSError as error:
        if arguments.debug:
            raise
        print(f"lxcfleetd: {HostError.from_os_error('can not start', error)}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
