"""One trial: a stage in which the daemon is killed at a chosen point, and the check of what the last one left."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lxcfleet.host.lxc import monitor

from .kill_stages import STAGES, Stage
from .killing import Points, Survivor

WITNESS = "witness"
"""A container that none of this is about."""
_SECONDS = 60.0
"""What a kill leaves has to become as it was within so long."""
_LOOKS = 10


def end_all(directory: Path) -> None:
    """End all containers of a daemon that run. Of others there may be a process id still, which another process may have."""
    for name in monitor.claimed(str(directory / "lxc")):
        with contextlib.suppress(OSError, ValueError):
            os.killpg(int((directory / "run/cgroup" / name / "cgroup.procs").read_text()), signal.SIGKILL)


def trial(top: Path, name: str, fatal: int) -> None:
    """Check what the last trial left, have all as before, and do it again in a process that is killed at that point; 0: in
    none. Files in ``top`` say whether it was ``killed``, came ``through`` or ``failed``; in ``fleet`` is all else."""
    directory = top / "fleet"
    directory.mkdir(exist_ok=True)
    sys.stdout = sys.stderr = open(top / "said", "w", buffering=1)  # noqa: SIM115 - as long as this process lives
    try:
        points = Points(directory)
        for source in ("pw", "other"):
            if not (directory / source).exists():
                (directory / source).write_text(source)
        daemon = Survivor(directory, points)
        with daemon:
            _trial(top, STAGES[name](daemon, directory), points, fatal)
    except BaseException:
        (top / "failed").write_text(f"{(top / 'said').read_text()[-2000:]}\n{traceback.format_exc()}")
        raise


def _trial(top: Path, stage: Stage, points: Points, fatal: int) -> None:
    daemon = stage.daemon
    if not (top / "before").exists():
        daemon.ok("create", WITNESS, "--network", "none", "--", "sleep", "infinity")
    witness = daemon.call(lambda: daemon.parts.registry[WITNESS].running)
    daemon.rest()
    if (top / "after").exists():
        assert witness is not None, "another container has ended"
        stage.go_on()
        daemon.rest()
        _same(top / "after", stage.there)
    stage.ready()
    daemon.rest()
    _same(top / "before", stage.there)
    points.arm(fatal, daemon.paths)
    stage.act()
    daemon.rest()
    points.disarm()
    _same(top / "after", stage.there)
    (top / "through").write_text(str(points.count))


def _same(file: Path, look: Callable[[], Any]) -> None:
    """Fail unless it becomes in a while as it was at the first time: a new process 1 is not yet the program."""
    if not file.exists():
        file.write_text(json.dumps(_settled(look)))
        return
    wanted = set(_flat(json.loads(file.read_text())))
    end = time.monotonic() + _SECONDS
    while (found := set(_flat(look()))) != wanted:
        assert time.monotonic() < end, f"{file.name}: lacks {sorted(wanted - found)}, has {sorted(found - wanted)}"
        time.sleep(0.02)


def _settled(look: Callable[[], Any]) -> Any:
    """What is there once it is the same for a second and many looks: on a slow host these take longer, too."""
    end = time.monotonic() + _SECONDS
    found, since, same = look(), time.monotonic(), 0
    while same < _LOOKS or time.monotonic() - since < 1:
        assert time.monotonic() < end, f"it does not come to rest: {sorted(_flat(found))}"
        time.sleep(0.05)
        now = look()
        if now == found:
            same += 1
        else:
            found, since, same = now, time.monotonic(), 0
    return found


def _flat(value: Any, name: str = "") -> list[str]:
    if isinstance(value, dict):
        return [line for key, each in value.items() for line in _flat(each, f"{name} {key}")]
    if isinstance(value, list):
        return [f"{name} {each}" for each in value]
    return [f"{name} {value}"]
