"""A daemon that kills itself or its launcher when it is about to do a chosen step to a chosen container.

KILL_AT=daemon:NAME:STEP or KILL_AT=launcher:NAME:STEP in the daemon's environment chooses the process, the container and the
step. STEP is the name of a class in containers.reconciling.steps in small letters.
"""

from __future__ import annotations

import contextlib
import os
import signal

from lxcfleet.containers.reconciling.steps import Step
from lxcfleet.daemon.main import main

from .harness import command_lines, parent_of


class KillAt:
    """Watches the daemon's steps. Only the first time that the chosen step is reached counts."""

    def __init__(self, where: str) -> None:
        self._process, self._name, self._step = where.split(":")

    def __call__(self, name: str, step: Step) -> None:
        """Kill the chosen process if this is the chosen step."""
        if (name, step.name) != (self._name, self._step):
            return
        if self._process == "daemon":
            os.kill(os.getpid(), signal.SIGKILL)
        self._name = ""
        for pid in servants():
            os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):  # the code that started it waits for it as well
                os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def servants() -> list[int]:
    """This daemon's launcher and booter."""
    marks = ("lxcfleet.launcher", "booter.py")
    own = os.getpid()
    return [pid for pid, line in command_lines() if any(mark in line for mark in marks) and parent_of(pid) == own]


if __name__ == "__main__":
    main([KillAt(os.environ["KILL_AT"])])
