"""Start the daemon on hosts without systemd. Many clients that ask at the same moment start only one daemon."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lxcfleet
from lxcfleet.api.client import answers
from lxcfleet.errors import HostError, Unreachable
from lxcfleet.paths import Paths

PATIENCE = 60.0
"""Seconds that a new daemon may take until it answers. It tidies up first if an earlier daemon crashed."""

PROGRAM = ["-P", "-m", "lxcfleet.daemon.main"]
"""The arguments for Python. -P: no module is imported from the current directory, which can be anybody's."""

_POLL = 0.02
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def start(paths: Paths) -> None:
    """Return once the daemon answers. Raises Unreachable, with the end of the daemon's log, if it does not."""
    try:
        paths.run.mkdir(mode=0o755, parents=True, exist_ok=True)
        with _locked(paths.run / "start.lock"):
            if not answers(paths):
                log = paths.run / "daemon.log"
                old = log.stat().st_size if log.exists() else 0
                _await(paths, _spawn(paths, log), log, old)
    except OSError as error:
        raise HostError.from_os_error("can't start the daemon lxcfleetd", error) from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _spawn(paths: Paths, log: Path) -> int:
    return os.posix_spawn(
        sys.executable,
        [sys.executable, *PROGRAM],
        _environment(paths),
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640),
            (os.POSIX_SPAWN_DUP2, 1, 2),
            # The daemon must not keep a lock or a pipe of the client's caller. A descriptor that is closed already does
            # no harm.
            *((os.POSIX_SPAWN_CLOSE, int(number)) for number in os.listdir("/proc/self/fd") if int(number) > 2),
        ],
        setsid=True,
        setsigmask=[],
        setsigdef=[signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE],
    )


def _environment(paths: Paths) -> dict[str, str]:
    """A clean environment for the daemon, not that of the calling shell; only lxcfleet's own variables are passed on."""
    environment = {name: value for name, value in os.environ.items() if name.startswith("LXCFLEET_")}
    environment.update(paths.environment(), PATH=_PATH, LANG="C.UTF-8", HOME="/root")
    parent = Path(lxcfleet.__file__).resolve().parent.parent
    # Python finds an installed package anyway; its directory in PYTHONPATH could hide modules of the standard library.
    places = [] if parent.name in ("dist-packages", "site-packages") else [str(parent)]
    places += [place for place in os.environ.get("PYTHONPATH", "").split(os.pathsep) if place]
    if places:
        environment["PYTHONPATH"] = os.pathsep.join(places)
    return environment


def _await(paths: Paths, pid: int, log: Path, old: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while not answers(paths):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended and not answers(paths):
            how = os.waitstatus_to_exitcode(status)
            raise _silent(f"it ended with status {how}" if how >= 0 else f"signal {-how} ended it", log, old)
        if time.monotonic() > deadline:
            raise _silent(f"process {pid} runs but did not answer within {PATIENCE:.0f} s", log, old)
        time.sleep(_POLL)


def _silent(reason: str, log: Path, old: int) -> Unreachable:
    """``old``: the size of the log before the daemon was started."""
    with log.open("rb") as stream:
        stream.seek(max(old, log.stat().st_size - 4096))
        last = stream.read().decode(errors="replace").splitlines()[-3:]
    return Unreachable(
        "the daemon lxcfleetd did not come up",
        why="\n".join([reason, *last]),
        hint=f"{log} has the rest",
    )
