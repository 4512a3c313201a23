"""What the benchmarks share."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from bench import alone, endurance


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


def test_what_the_packet_filter_forgets_by_itself_does_not_count_as_growth() -> None:
    """A container asked for a name within the last minute: that was told as a line of rules more."""
    def listed(*elements: str) -> str:
        others = "table inet lxcfleet_other {\n}\n"
        return "\n".join([f"{others}table inet lxcfleet_bench0 {{", "\tset asked {", *elements, "\t}", "}", ""])

    noted = "\t\telements = { 02:4c:0a:c9:00:02 limit rate over 1000/second burst 200 packets expires 34s468ms }"
    kept = "\t\telements = { 10.201.0.2 }"
    before = endurance.of_table(listed(), "lxcfleet_bench0")
    assert endurance.of_table(listed(noted), "lxcfleet_bench0") == before
    assert endurance.of_table(listed(kept), "lxcfleet_bench0") == [*before[:2], kept, *before[2:]]
