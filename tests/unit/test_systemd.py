"""Notices to systemd."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lxcfleet.daemon import systemd


def test_the_watchdog_is_fed_only_while_no_task_is_hopeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the notices, systemd ends the daemon and starts it again."""
    told: list[str] = []
    monkeypatch.setattr(systemd, "notify", told.append)
    looks = iter(list[list[str]](([], [], ["rollouts"], ["rollouts"], [])))
    looked = asyncio.Event()

    def hopeless() -> list[str]:
        found = next(looks, None)
        if found is None:
            looked.set()
            return ["over"]
        return found

    tasks: Any = SimpleNamespace(hopeless=hopeless)

    async def run() -> None:
        feeding = asyncio.ensure_future(systemd.feed_watchdog(0.0001, tasks))
        await asyncio.wait_for(looked.wait(), 60)
        feeding.cancel()

    asyncio.run(run())
    assert told == ["WATCHDOG=1"] * 3


def test_a_systemd_that_reads_nothing_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before, once the kernel's queue of messages was full, the daemon hung on the next one."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    kept = int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd_:
        systemd_.bind(str(tmp_path / "notify"))
        for _ in range(kept + 10):
            systemd.notify("WATCHDOG=1")
        assert systemd_.recv(100) == b"WATCHDOG=1"


@pytest.mark.parametrize(("text", "seconds"), [(None, None), ("", None), ("x", None), ("90000000", 30.0)])
def test_how_often_it_wants_to_hear_of_the_daemon(
    text: str | None, seconds: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    if text is not None:
        monkeypatch.setenv("WATCHDOG_USEC", text)
    assert systemd.watchdog_seconds() == seconds
