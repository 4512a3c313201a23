"""The resources that one container has used so far. They are read again and again, so its files in /sys stay open.

Opening a file costs several times as much as reading it, and a container has up to ten of them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from lxcfleet.host.process import cgroup
from lxcfleet.host.process.cgroup import Payload

_NET = Path("/sys/class/net")
_SIZE = 16384


_PRESSURES = {what: f"{what}.pressure" for what in cgroup.PRESSED}
NOTHING: Mapping[str, float] = {}


class Counts(NamedTuple):
    """Totals since the container started; None: the host does not count it, or the container is gone."""

    cpu_seconds: float | None = None
    memory_bytes: int | None = None
    """Present bytes of memory."""
    processes: int | None = None
    io_bytes: tuple[int, int] | None = None
    """Read from block devices, and written."""
    net_bytes: tuple[int, int] | None = None
    """Received by the container, and sent."""
    throttled_seconds: float | None = None
    """For so long its limit kept it from processors that it wanted."""
    pressure: Mapping[str, float] = NOTHING
    """For how many seconds some of its processes waited for cpu, memory or io; empty: the host does not count that."""


class Counters:
    """The counters of one running container."""

    def __init__(self, payload: Payload, port: str) -> None:
        """``port``: the host's end of its veth; empty if the container is on no bridge."""
        self._payload = payload
        statistics = _NET / port / "statistics" if port else None
        files = {
            "cpu": payload.file("cpuacct", "cpuacct.usage", "cpu.stat"),
            "memory": payload.file("memory", "memory.usage_in_bytes", "memory.current"),
            "processes": payload.file("pids", "pids.current", "pids.current"),
            "io": payload.file("blkio", "blkio.throttle.io_service_bytes_recursive", "io.stat"),
            # With v2 the time for which it was throttled is in the file of the processor time.
            "throttled": payload.file("cpu", "cpu.stat", "") if "cpu" in payload.directories else None,
            **{file: payload.file("", file, file) for file in _PRESSURES.values()},
            # The bytes received at this end are those sent at the other.
            "received": statistics / "tx_bytes" if statistics else None,
            "sent": statistics / "rx_bytes" if statistics else None,
        }
        self._open: dict[str, int] = {}
        for name, file in files.items():
            if file is not None:
                with contextlib.suppress(OSError):
                    self._open[name] = os.open(file, os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        """Close the files."""
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open = {}

    def read(self) -> Counts:
        """The present counts."""
        cpu, io = self._text("cpu"), self._text("io")
        throttled = self._text("throttled") if "throttled" in self._open else cpu
        pressed = {what: self._text(file) for what, file in _PRESSURES.items()}
        return Counts(
            None if cpu is None else cgroup.cpu_v1(cpu) if "cpuacct" in self._payload.directories else cgroup.cpu_v2(cpu),
            cgroup.number(self._text("memory")),
            cgroup.number(self._text("processes")),
            None if io is None else cgroup.io_v1(io) if "blkio" in self._payload.directories else cgroup.io_v2(io),
            _pair(cgroup.number(self._text("received")), cgroup.number(self._text("sent"))),
            None if throttled is None else cgroup.throttled(throttled),
            {what: some for what, text in pressed.items() if text is not None and (some := cgroup.stalled(text)) is not None},
        )

    def _text(self, name: str) -> str | None:
        descriptor = self._open.get(name)
        if descriptor is None:
            return None
        try:
            return os.pread(descriptor, _SIZE, 0).decode("ascii", "replace")
        except OSError:  # ENODEV: the container has ended
            return None


def _pair(first: int | None, second: int | None) -> tuple[int, int] | None:
    return None if first is None or second is None else (first, second)
