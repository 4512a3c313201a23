"""The resources that containers use: counters from open files, rates, the order of rows, the table."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Any, cast

import pytest

from lxcfleet.api.records import ContainerUsageRecord, UsageRecord
from lxcfleet.cli.ui import usage
from lxcfleet.cli.ui.usage import UsageRow
from lxcfleet.host.process import counters
from lxcfleet.host.process.cgroup import Payload
from lxcfleet.host.process.counters import Counters, Counts


def put(directory: Path, **files: str) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (directory / name.replace("__", ".")).write_text(text)
    return directory


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(counters, "_NET", tmp_path / "net")
    return put(tmp_path / "net/lx1/statistics", rx_bytes="7\n", tx_bytes="9\n")


def test_counters_of_cgroup_v2(tmp_path: Path, net: Path) -> None:
    own = put(
        tmp_path / "own", cpu__stat="usage_usec 1500000\nuser_usec 1\n", memory__current="4096\n", pids__current="3\n",
        io__stat="8:0 rbytes=10 wbytes=20 rios=1\n",
    )  # fmt: skip
    found = Counters(Payload({"": str(own)}), "lx1")
    assert found.read() == Counts(1.5, 4096, 3, (10, 20), (9, 7))  # the container received what the host's end sent
    (own / "memory.current").write_text("8192\n")
    (net / "rx_bytes").write_text("100\n")
    assert found.read() == Counts(1.5, 8192, 3, (10, 20), (9, 100))
    found.close()


def test_counters_of_cgroup_v1(tmp_path: Path) -> None:
    own = put(
        tmp_path / "own", cpuacct__usage="1500000000\n", memory__usage_in_bytes="4096\n", pids__current="3\n",
        blkio__throttle__io_service_bytes_recursive="8:0 Read 10\n8:0 Write 20\nTotal 30\n",
    )  # fmt: skip
    found = Counters(Payload(dict.fromkeys(("cpuacct", "memory", "pids", "blkio"), str(own))), "")
    assert found.read() == Counts(1.5, 4096, 3, (10, 20), None)
    found.close()


def test_throttling_and_pressure_are_counted_where_the_host_has_them(tmp_path: Path) -> None:
    some = "some avg10=0.00 avg60=0.00 avg300=0.00 total={}\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n"
    own = put(
        tmp_path / "own", cpu__stat="usage_usec 1500000\nthrottled_usec 250000\n", cpu__pressure=some.format(2_000_000),
        io__pressure=some.format(500_000), memory__pressure="hostile\n",
    )  # fmt: skip
    modern = Counters(Payload({"": str(own)}), "")
    assert modern.read() == Counts(1.5, throttled_seconds=0.25, pressure={"cpu": 2.0, "io": 0.5})
    modern.close()
    own = put(tmp_path / "legacy", cpuacct__usage="1500000000\n", cpu__stat="nr_periods 3\nthrottled_time 250000000\n")
    legacy = Counters(Payload({"cpu": str(own), "cpuacct": str(own)}), "")
    assert legacy.read() == Counts(1.5, throttled_seconds=0.25)
    legacy.close()


def test_throttling_and_pressure_are_rates_that_rows_are_sorted_by() -> None:
    before = reading(10, record("a", throttled_seconds=1.0, pressure={"cpu": 1.0, "memory": 0.0}), record("b"))
    now = reading(12, record("a", throttled_seconds=1.5, pressure={"cpu": 1.1, "memory": 1.0}), record("b"))
    found = usage.rows(before, now)
    first = found[0]
    assert (first["throttled_percent"], first["cpu_waited_percent"], first["memory_waited_percent"]) == (25.0, 5.0, 50.0)
    assert (found[0]["io_waited_percent"], found[1]["throttled_percent"]) == (None, None)
    assert [row["name"] for row in usage.in_order(found[::-1], "throttled")] == ["a", "b"]
    assert [row["name"] for row in usage.in_order(found[::-1], "waited")] == ["a", "b"]
    heading, line, _ = usage.table(found)
    assert heading.endswith("THROTTLED %  WAITED: CPU %  MEMORY %"), "nobody has a value for the last column"
    assert line.endswith("25.0            5.0      50.0")
    assert "THROTTLED" not in usage.table(usage.rows(None, now))[0]


def test_a_missing_counter_is_none_and_no_file_stays_open(tmp_path: Path, net: Path) -> None:
    gc.collect()  # what tests before this one left is not closed during it
    before = set(os.listdir("/proc/self/fd"))
    own = put(tmp_path / "own", pids__current="3\n")
    found = Counters(Payload({"": str(own)}), "gone")
    assert found.read() == Counts(processes=3)
    found.close()
    assert found.read() == Counts()
    assert set(os.listdir("/proc/self/fd")) == before


# rates


def record(name: str = "a", **fields: Any) -> ContainerUsageRecord:
    whole = {
        "name": name, "state": "running", "health": "healthy", "run": "1@2", "cpu_seconds": 1.0, "memory_bytes": 4096,
        "processes": 2, "io_read_bytes": 0, "io_written_bytes": 0, "net_received_bytes": None, "net_sent_bytes": None,
        "throttled_seconds": None, "pressure": {},
        "cpus_limit": None, "memory_limit_bytes": None, "processes_limit": 100,
    }  # fmt: skip
    return cast(ContainerUsageRecord, {**whole, **fields})


def reading(time: float, *containers: ContainerUsageRecord) -> UsageRecord:
    gib = 1 << 30
    return {
        "time": time, "cost": 0.0, "containers": [*containers],
        "host": {
            "processors": 2, "memory_total_bytes": 8 * gib, "memory_available_bytes": 5 * gib, "swap_total_bytes": gib,
            "swap_free_bytes": gib // 2,
        },
    }  # fmt: skip


def test_rates_are_per_second() -> None:
    before = reading(10.0, record())
    now = reading(12.0, record(cpu_seconds=2.0, io_written_bytes=8192, net_sent_bytes=5))
    (row,) = usage.rows(before, now)
    assert (row["cpu_percent"], row["io_written_per_second"], row["io_read_per_second"]) == (50.0, 4096, 0)
    assert row["net_sent_per_second"] is None  # the counter was unknown before


@pytest.mark.parametrize(
    "before",
    [None, reading(10.0), reading(10.0, record(run="0@1", cpu_seconds=99.0)), reading(12.0, record())],
    ids=["first look", "it is new", "it was started anew", "no time went by"],
)
def test_without_two_readings_of_one_run_there_is_no_rate(before: UsageRecord | None) -> None:
    (row,) = usage.rows(before, reading(12.0, record()))
    assert (row["cpu_percent"], row["io_read_per_second"], row["memory_bytes"]) == (None, None, 4096)


def test_a_counter_that_went_back_gives_no_negative_rate() -> None:
    (row,) = usage.rows(reading(1.0, record(cpu_seconds=5.0)), reading(2.0, record(cpu_seconds=4.0)))
    assert row["cpu_percent"] == 0.0


# order


def rows() -> list[UsageRow]:
    before = reading(0.0, *(record(name, cpu_seconds=0.0) for name in ("c10", "c2", "c1", "new")[:3]))
    now = reading(
        1.0, record("c10", cpu_seconds=0.5, memory_bytes=1), record("c2", cpu_seconds=0.1, memory_bytes=3),
        record("c1", cpu_seconds=0.3, state="frozen", memory_bytes=2), record("new", memory_bytes=None, io_read_bytes=None),
    )  # fmt: skip
    return usage.rows(before, now)


@pytest.mark.parametrize(
    ("order", "reverse", "names"),
    [
        ("cpu", False, "c10 c1 c2 new"),
        ("cpu", True, "c2 c1 c10 new"),
        ("memory", False, "c2 c1 c10 new"),
        ("name", False, "c1 c2 c10 new"),
        ("name", True, "new c10 c2 c1"),
        ("state", False, "c1 c2 c10 new"),
        ("io", False, "c1 c2 c10 new"),
        ("net", True, "c1 c2 c10 new"),
        ("processes", False, "c1 c2 c10 new"),
    ],
)
def test_the_largest_value_is_first_and_unknown_values_are_last(order: str, reverse: bool, names: str) -> None:
    assert " ".join(row["name"] for row in usage.in_order(rows(), order, reverse=reverse)) == names


# the table


def test_the_table_is_aligned_and_steers_no_terminal() -> None:
    before = reading(0.0, record("a", health="\x1b[2J"), record("long-name"))
    now = reading(1.0, record("a", health="\x1b[2J", cpu_seconds=2.5), record("long-name", memory_limit_bytes=64 << 20))
    heading, first, second = usage.table(usage.rows(before, now))
    assert heading.split() == [
        "NAME", "STATE", "HEALTH", "CPU", "%", "OF", "MEMORY", "LIMIT", "PROCS", "MAX", "READ/S", "WRITTEN/S", "RECEIVED/S",
        "SENT/S",
    ]  # fmt: skip
    assert "\x1b" not in first
    assert first[: heading.index("CPU %") + 5].endswith("150.0")
    assert second[: heading.index("LIMIT") + 5].endswith("64.0 MiB")
    assert second.rstrip().endswith("-")


def test_the_summary_includes_the_host() -> None:
    now = reading(1.0, record(cpu_seconds=1.5), record("b", memory_bytes=None))
    text = usage.summary(now, usage.rows(reading(0.0, record()), now))
    assert text == (
        "1 of 2 running  cpu 50.0 of 200 %  memory 4.0 KiB; host has 5.0 GiB of 8.0 GiB free, swap 512 MiB of 1.0 GiB"
    )
