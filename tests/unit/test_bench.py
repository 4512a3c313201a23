"""What the benchmarks share."""

from __future__ import annotations

import select
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_HOLD = "import sys; from pathlib import Path; from bench import alone; alone.hold(Path(sys.argv[1])); print('mine', flush=True); input()"
_TIMEOUT = 60.0


def hold(lock: Path) -> subprocess.Popen[bytes]:
    """A process that measures until its standard input ends."""
    argv = [sys.executable, "-c", _HOLD, str(lock)]
    return subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def line_of(process: subprocess.Popen[bytes], stream: str) -> str:
    """The next line that a process writes."""
    found = getattr(process, stream)
    assert select.select([found], [], [], _TIMEOUT)[0], f"nothing on {stream} for {_TIMEOUT:.0f} s"
    return str(found.readline().decode())


def test_a_second_benchmark_tells_whom_it_waits_for(tmp_path: Path) -> None:
    first = hold(tmp_path / "lock")
    assert line_of(first, "stdout") == "mine\n"
    second = hold(tmp_path / "lock")
    assert f"(pid {first.pid}) measures on this host" in line_of(second, "stderr")
    first.kill()  # a killed one is in nobody's way
    first.communicate()
    assert line_of(second, "stdout") == "mine\n"
    second.communicate(b"\n", timeout=_TIMEOUT)
