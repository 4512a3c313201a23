"""Notices to systemd."""

from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lxcfleet.cli.ui import notify
from lxcfleet.daemon import systemd
from lxcfleet.errors import FleetError, NotFound


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


def test_a_start_asks_for_more_time_until_it_has_taken_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before, on a busy host, each start was broken off after 200 s, and the next one began."""
    told: list[str] = []
    monkeypatch.setattr(systemd, "notify", told.append)
    monkeypatch.setattr(systemd, "MORE_SECONDS", 0)
    asyncio.run(asyncio.wait_for(systemd.ask_for_time(longest=0.05), 60))
    assert len(told) > 1
    assert set(told) == {"EXTEND_TIMEOUT_USEC=0"}
    assert systemd.START_SECONDS > 200


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


class _Runs:
    """A client of `lxcfleet run`, what its daemon answers, and what systemd is told of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answer: dict[str, Any] | FleetError = NotFound("no container named web")
        self.now = 1000.0
        self._told: list[str] = []
        monkeypatch.delenv("WATCHDOG_USEC", raising=False)
        monkeypatch.setattr(notify, "tell", self._told.append)
        monkeypatch.setattr(notify, "time", SimpleNamespace(monotonic=lambda: self.now))
        client: Any = SimpleNamespace(info=self._info)
        self.teller = notify.Teller(client, "web")

    def _info(self, _name: str) -> dict[str, Any]:
        if isinstance(self.answer, FleetError):
            raise self.answer
        return self.answer

    def told(self, state: str | FleetError, health: str | None = None) -> list[str]:
        """What systemd is told if the daemon gives this answer, a while later."""
        self.answer = state if isinstance(state, FleetError) else {"state": state, "health": health, "health_reason": None}
        self.now += 60
        self._told.clear()
        self.teller._look()
        return list(self._told)


MORE = ["EXTEND_TIMEOUT_USEC=30000000"]


def test_a_start_that_the_daemon_is_at_gets_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before, systemd ended a first start that took longer than its limit, and began it anew."""
    runs = _Runs(monkeypatch)
    assert runs.told(NotFound("no container named web")) == MORE, "it is being made"
    assert runs.told("starting") == MORE
    assert runs.told("blocked") == [], "what it waits for may never come"
    assert runs.told(FleetError("lxcfleetd does not answer")) == []
    assert runs.told("running", "healthy") == MORE, "of a former run: this one has not begun"
    runs.teller.begin()
    assert runs.told("running", "starting") == ["STATUS=running, starting", *MORE]
    assert runs.told("running", "unhealthy") == ["STATUS=running, unhealthy"]
    assert runs.told("running", "healthy") == ["STATUS=running, healthy", "READY=1"]
    assert runs.told("running", "starting") == ["STATUS=running, starting"], "it is up since long"


def test_the_thread_hears_at_once_that_it_begins_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = _Runs(monkeypatch)
    monkeypatch.setattr(notify, "_CALM_SECONDS", 1000.0)
    runs.teller.start()
    runs.answer = {"state": "running", "health": "healthy", "health_reason": None}
    runs.teller.begin()
    while "READY=1" not in runs._told:
        time.sleep(0.01)
    runs.teller.end()
    runs.teller.join(60)
    assert not runs.teller.is_alive()
