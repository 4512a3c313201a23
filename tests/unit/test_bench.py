"""What the benchmarks share."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from bench import alone


def test_a_second_benchmark_tells_whom_it_waits_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alone, "_held", [])
    other = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(other, fcntl.LOCK_EX)
    os.write(other, b"run.py (pid 7)\n")
    told = []

    def tell(message: str, **_: object) -> None:
        told.append(message)
        os.close(other)  # the other one ends, however it does

    monkeypatch.setattr("builtins.print", tell)
    alone.hold(tmp_path / "lock")
    alone.hold(tmp_path / "lock")  # again, in the same process
    assert told == ["run.py (pid 7) measures on this host; two at once would break each other: waiting for its end"]
    assert f"(pid {os.getpid()})" in (tmp_path / "lock").read_text()
