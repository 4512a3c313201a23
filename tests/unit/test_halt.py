"""The error for a container that was killed and has not stopped."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from lxcfleet.containers.container import Running
from lxcfleet.containers.reconciling import lifecycle
from lxcfleet.host.process import cgroup, proc

pytestmark = pytest.mark.reaches("processes", reason="the end of a real process is waited for")


@pytest.fixture
def init() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "infinity"]) as process:
        yield process
        process.kill()


def test_the_error_says_if_init_is_still_there(init: subprocess.Popen[bytes]) -> None:
    assert not proc.has_ended(init.pid, os.getpid())
    assert "still there" in lifecycle._stays("web", running(init.pid)).why


def test_the_error_says_if_the_monitor_has_not_tidied_up_yet(init: subprocess.Popen[bytes]) -> None:
    """On a slow host, 28 monitors took minutes to unload an AppArmor profile each, while no process of the containers ran."""
    os.kill(init.pid, signal.SIGKILL)
    os.waitid(os.P_PID, init.pid, os.WEXITED | os.WNOWAIT)
    for _ in ("a zombie", "gone"):
        assert proc.has_ended(init.pid, os.getpid())
        error = lifecycle._stays("web", running(init.pid))
        assert f"monitor (pid {os.getpid()}) is still at it" in error.why
        init.wait()


def test_the_error_says_if_another_process_has_the_pid_now(init: subprocess.Popen[bytes]) -> None:
    assert proc.has_ended(init.pid, parent=1)


def running(pid: int) -> Running:
    return Running(pid, os.getpid(), -1, cgroup.Payload({}), 0.0, 0.0)
