"""A check that is run inside a container, with a stand-in for entering it."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from lxcfleet.host.lxc import attach

pytestmark = pytest.mark.reaches("processes", reason="a check runs in a child")


@pytest.fixture
def entered(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The processes that were begun."""
    begun: list[int] = []

    def enter(_name: str, _path: str, callback: Callable[[], int]) -> int:
        pid = os.fork()
        if pid == 0:
            os._exit(callback())
        begun.append(pid)
        return pid

    monkeypatch.setattr(attach, "_attach", enter)
    return begun


def check(command: str, seconds: float) -> tuple[int | None, str]:
    return attach.check("web", "/none", ("/bin/sh", "-c", command), {}, seconds)


def test_a_check_gives_its_status_and_its_output(entered: list[int]) -> None:
    assert check("echo no; exit 3", 10) == (3, "no")
    status, text = check("head -c 5000000 /dev/zero | tr '\\0' x; echo; echo end", 20)
    assert (status, text[-5:], len(text) <= 4096) == (0, "x\nend", True)


def test_a_check_that_is_not_done_in_time_is_killed(entered: list[int]) -> None:
    for seconds in (0.2, 2.0, 20.0):  # a busy machine may not get to the first word in time
        if (said := check("echo begun; sleep 100", seconds)) != (None, ""):
            break
    assert said == (None, "begun")
    for pid in entered:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_check_that_can_not_be_killed_holds_up_nobody(entered: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """The check waits for a disk that is gone, or was frozen with its container (cgroup v1)."""
    kill = os.killpg
    monkeypatch.setattr(os, "killpg", lambda *_: None)
    assert check("sleep 100", 0.2) == (None, "")
    assert os.waitpid(entered[0], os.WNOHANG) == (0, 0), "nobody has waited for its end"
    kill(entered[0], 9)
    os.waitpid(entered[0], 0)
