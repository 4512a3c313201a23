"""Observes the host: readiness, memory, processor time. No code of lxcfleet is used here,
so that it can't be wrong in the same way."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
PATIENCE = 180.0
"""Seconds until containers that do not come up count as failed."""


class Late(Exception):
    """Containers that should be up are not."""


def wait_written(files: Mapping[str, Path], since: float) -> None:
    """Return once each container has written its file at or after ``since`` (time.time()); raises Late."""
    # The clock of file times stands still between the kernel's ticks, 10 ms at most.
    earliest = (since - 0.01) * 1e9
    _wait({name: lambda file=file: _mtime(file) >= earliest for name, file in files.items()}, 0.002)


def wait_booted(pids: Mapping[str, int]) -> None:
    """Return once each container's systemd has noted "Startup finished" in its journal; raises Late.

    The journal is in memory (the mask says so) and reached through process 1's root.
    """
    _wait({name: lambda pid=pid: _booted(pid) for name, pid in pids.items()}, 0.2)


def _wait(tests: dict[str, object], pause: float) -> None:
    deadline = time.monotonic() + PATIENCE
    while tests:
        tests = {name: test for name, test in tests.items() if not test()}  # type: ignore[operator]
        if tests and time.monotonic() > deadline:
            raise Late(f"{len(tests)} not up after {PATIENCE:.0f} s: {', '.join(sorted(tests)[:5])}")
        if tests:
            time.sleep(pause)


def _mtime(file: Path) -> int:
    try:
        status = file.stat()
    except OSError:
        return 0
    return status.st_mtime_ns if status.st_size else 0


def _booted(pid: int) -> bool:
    try:
        journals = list(Path(f"/proc/{pid}/root/run/log/journal").glob("*/system*.journal"))
        return any(b"Startup finished in" in journal.read_bytes() for journal in journals)
    except OSError:
        return False


def meminfo(field: str) -> int:
    """A field of /proc/meminfo in bytes."""
    text = Path("/proc/meminfo").read_text(encoding="ascii")
    match = re.search(rf"^{field}:\s+(\d+)", text, re.MULTILINE)
    assert match is not None, field
    return int(match[1]) * 1024


def kernel_memory() -> int:
    """Bytes that the kernel uses itself and can't reclaim. Processes cost these besides their own pages."""
    return sum(meminfo(field) for field in ("SUnreclaim", "KernelStack", "PageTables", "Percpu"))


def pss(pids: Iterable[int]) -> int:
    """Proportional set size of the processes in bytes: shared pages count by their share; proc(5)."""
    total = 0
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
        except OSError:
            continue
        match = re.search(r"^Pss:\s+(\d+)", text, re.MULTILINE)
        total += int(match[1]) * 1024 if match else 0
    return total


def processes() -> Iterator[tuple[int, str]]:
    """Every process with its command line."""
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                line = Path(f"/proc/{entry}/cmdline").read_bytes()
            except OSError:
                continue
            yield int(entry), line.replace(b"\0", b" ").decode(errors="replace").strip()


def parent(pid: int) -> int:
    """The pid of a process's parent; 0 if the process is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])
    except OSError:
        return 0


def cgroup_of(pid: int) -> str:
    """The text of /proc/PID/cgroup; empty if the process is gone."""
    try:
        return Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def members(prefix: str) -> list[int]:
    """All processes in cgroups of LXC containers whose names begin with ``prefix``, and their monitors."""
    pattern = re.compile(rf"/lxc\.(payload|monitor)\.{re.escape(prefix)}\d")
    return [pid for pid, _ in processes() if pattern.search(cgroup_of(pid))]


def cgroup_directories(prefix: str) -> list[Path]:
    """Cgroups, in any hierarchy, of LXC containers whose names begin with ``prefix``."""
    tops = [CGROUPS, *(path for path in CGROUPS.iterdir() if path.is_dir())]
    return [path for top in tops for path in top.glob(f"lxc.*.{prefix}*") if path.is_dir()]


def payload(name: str) -> tuple[int, float]:
    """Bytes of memory charged to a running container, and the seconds of processor time that it has used."""
    modern = CGROUPS / f"lxc.payload.{name}"
    if (modern / "memory.current").exists():
        usage = re.search(r"usage_usec (\d+)", (modern / "cpu.stat").read_text(encoding="ascii"))
        return _number(modern / "memory.current"), int(usage[1]) / 1e6 if usage else 0.0
    memory = _number(CGROUPS / f"memory/lxc.payload.{name}/memory.usage_in_bytes")
    return memory, _number(CGROUPS / f"cpuacct/lxc.payload.{name}/cpuacct.usage") / 1e9


def _number(file: Path) -> int:
    return int(file.read_text(encoding="ascii"))
