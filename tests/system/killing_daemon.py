"""A daemon that kills itself or its launcher when it is about to do a chosen step to a chosen container.

daemon:NAME:STEP or launcher:NAME:STEP in the file kill-at, beside the daemon's socket, chooses the process, the container
and the step. STEP is the name of a class in containers.reconciling.steps in small letters. The file may come at any time.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

from lxcfleet.containers.reconciling.steps import Step
from lxcfleet.daemon.main import main
from lxcfleet.paths import Paths

from .harness import command_lines, parent_of


class KillAt:
    """Watches the steps. Only the first time that the chosen one is reached counts, in this daemon or in the next."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __call__(self, name: str, step: Step) -> None:
        """Kill the chosen process if this is the chosen step."""
        if not self._file.exists():
            return
        process, *chosen = self._file.read_text().split(":")
        if [name, step.name] != chosen:
            return
        self._file.unlink()
        if process == "daemon":
            os.kill(os.getpid(), signal.SIGKILL)
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
    main([KillAt(Paths.from_environment().run / "kill-at")])
