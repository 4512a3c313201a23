"""top: a single table, its data as JSON and YAML, and the live table on a terminal."""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import re
import signal
import struct
import subprocess
import termios
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from lxcfleet.api.records import ContainerUsageRecord, HostUsageRecord, UsageRecord
from lxcfleet.cli.ui import output
from lxcfleet.cli.ui.usage import FIELDS
from lxcfleet.spec.reading.terms import NetworkMode

from .conftest import Cli, Fleet, Spawn
from .real_daemon import Daemon

ENTER, LEAVE = b"\x1b[?1049h", b"\x1b[?1049l"


# the call, over a fake launcher and over real LXC


def test_readings_of_the_resources_that_containers_use(fleet: Fleet) -> None:
    fleet.create("", count=2)
    first, second = fleet.client.usage(fleet.all), fleet.client.usage(fleet.all)
    assert set(first) == set(UsageRecord.__annotations__)
    assert set(first["host"]) == set(HostUsageRecord.__annotations__)
    assert [record["name"] for record in first["containers"]] == [fleet.name(1), fleet.name(2)]
    assert all(set(record) == set(ContainerUsageRecord.__annotations__) for record in first["containers"])
    assert second["time"] > first["time"]
    for old, new in zip(first["containers"], second["containers"], strict=True):
        assert old["run"] == new["run"]
        assert old["cpu_seconds"] is not None
        assert new["cpu_seconds"] is not None
        assert new["cpu_seconds"] >= old["cpu_seconds"]
        assert new["net_sent_bytes"] is None  # it is on no bridge


# --once


@pytest.fixture(autouse=True)
def _three(daemon: Daemon) -> None:
    daemon.fleet.add("web1", "web2", "db10", network=NetworkMode.NONE, memory=64 << 20)
    daemon.model.loads = {"db10": 0.05, "web1": 0.1, "web2": 0.2}


def test_once_prints_one_table(cli: Cli) -> None:
    ran = cli("top", "--once", "-i", "0.1")
    assert (ran.status, ran.err) == (0, "")
    heading, *lines = ran.out.splitlines()
    assert heading.startswith("NAME  STATE    HEALTH   CPU %  OF   MEMORY     LIMIT  PROCS   MAX  READ/S  WRITTEN/S")
    assert [line.split()[0] for line in lines] == ["web2", "web1", "db10"]  # the busiest first
    assert re.search(r"^web2 +running +healthy +\d\d\.\d +- +1\.4 MiB +64\.0 MiB +2 +4096 +0 +4\.0 KiB +- +-$", lines[0])


def test_once_fits_a_terminal(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of 147 columns was two lines for each container on most terminals."""
    assert max(map(len, cli("top", "--once", "-i", "0.1").out.splitlines())) > 80
    monkeypatch.setattr(output, "terminal_width", lambda: 80)
    lines = cli("top", "--once", "-i", "0.1").out.splitlines()
    assert {len(line) for line in lines} == {80}
    assert all(line.endswith("…") for line in lines)


def test_once_in_other_formats(cli: Cli) -> None:
    data = json.loads(cli("top", "--once", "-i", "0.1", "-f", "json", "--sort", "name", "web*").out)
    assert [(each["name"], each["state"]) for each in data] == [("web1", "running"), ("web2", "running")]
    assert all(tuple(each) == FIELDS for each in data)
    assert [round(each["cpu_percent"]) for each in data] == [10, 20]
    again = yaml.safe_load(cli("top", "--once", "-i", "0.1", "-f", "yaml", "--sort", "name", "web*").out)
    assert [{**each, "cpu_percent": 0, "io_written_per_second": 0} for each in again] == [
        {**each, "cpu_percent": 0, "io_written_per_second": 0} for each in data
    ]
    header, *rows = csv.reader(io.StringIO(cli("top", "--once", "-i", "0.1", "-f", "csv").out))
    assert tuple(header) == FIELDS
    assert sorted(row[0] for row in rows) == ["db10", "web1", "web2"]


def test_once_with_no_container_chosen(cli: Cli) -> None:
    ran = cli("top", "--once", "-i", "0.1", "nix*")
    assert (ran.status, ran.out, ran.err) == (0, "", "lxcfleet: no container is chosen by that\n")
    assert json.loads(cli("top", "--once", "-i", "0.1", "-f", "json", "nix*").out) == []


@pytest.mark.parametrize("more", [(), ("-f", "json")])
def test_without_a_terminal_top_suggests_once(cli: Cli, daemon: Daemon, more: tuple[str, ...]) -> None:
    ran = cli("top", *more)
    assert (ran.status, ran.out) == (2, "")
    assert "--once" in ran.err
    assert not any(line.endswith("/usage") for line in daemon.requests)


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "1e9", "x"])
def test_an_interval_that_makes_no_sense_is_refused(cli: Cli, seconds: str) -> None:
    assert cli("top", "--once", "-i", seconds).status == 2


# the live table


class Terminal:
    """A terminal with a person in front of it."""

    def __init__(self) -> None:
        self.master, self.slave = os.openpty()
        self.before: list[Any] = termios.tcgetattr(self.slave)
        self.resize(12, 100)
        self.seen = b""

    def resize(self, lines: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def await_(self, text: bytes) -> None:
        while text not in self.seen:
            self.seen += os.read(self.master, 65536)
        self.seen = self.seen.split(text, 1)[1]

    def type(self, text: bytes) -> None:
        os.write(self.master, text)

    def is_as_before(self) -> bool:
        return bool(termios.tcgetattr(self.slave) == self.before)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    made = Terminal()
    yield made
    os.close(made.master)
    os.close(made.slave)


@pytest.fixture
def live(spawn: Spawn, terminal: Terminal) -> subprocess.Popen[bytes]:
    """top, once it has shown rates."""
    process = spawn("top", "-i", "0.1", stdin=terminal.slave, stdout=terminal.slave, stderr=terminal.slave)
    terminal.await_(ENTER)
    terminal.await_(b"NAME  STATE")
    terminal.await_(b"\r\nweb2")  # the busiest comes first as soon as there are rates
    assert not terminal.is_as_before()
    return process


def ended(process: subprocess.Popen[bytes], terminal: Terminal) -> int:
    status = process.wait(60)
    terminal.await_(LEAVE)
    assert terminal.is_as_before()
    return status


def test_q_ends_it(live: subprocess.Popen[bytes], terminal: Terminal) -> None:
    terminal.type(b"q")
    assert ended(live, terminal) == 0


def test_ctrl_c_ends_it(live: subprocess.Popen[bytes], terminal: Terminal) -> None:
    live.send_signal(signal.SIGINT)
    assert ended(live, terminal) == 130


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it(live: subprocess.Popen[bytes], terminal: Terminal, number: signal.Signals) -> None:
    live.send_signal(number)
    assert ended(live, terminal) == 128 + number


def test_keys_sort(live: subprocess.Popen[bytes], terminal: Terminal) -> None:
    terminal.type(b"n")
    terminal.await_(b"\x1b[0m\x1b[K\r\r\ndb10")
    terminal.type(b"r")
    terminal.await_(b"\x1b[0m\x1b[K\r\r\nweb2")
    terminal.type(b"x\x1b[A\x1b[5~\x1bOP")  # unknown keys change nothing
    terminal.await_(b"\x1b[0m\x1b[K\r\r\nweb2")
    terminal.type(b"q")
    assert ended(live, terminal) == 0


def test_the_table_follows_the_terminal_s_size_and_scrolls(live: subprocess.Popen[bytes], terminal: Terminal) -> None:
    terminal.type(b"n")
    terminal.await_(b"\r\ndb10")
    terminal.resize(4, 30)  # one row fits
    live.send_signal(signal.SIGWINCH)
    terminal.await_(b"\x1b[4;1Hq quit  sort by: c cpu  m memo\x1b[K")
    terminal.type(b"j")
    terminal.await_(b"\x1b[0m\x1b[K\r\r\nweb1")
    terminal.resize(1, 5)
    live.send_signal(signal.SIGWINCH)
    terminal.await_(b"\x1b[1;1Hq qui\x1b[K")
    terminal.type(b"q")
    assert ended(live, terminal) == 0


def test_ctrl_z_gives_the_terminal_back_for_a_while(live: subprocess.Popen[bytes], terminal: Terminal) -> None:
    live.send_signal(signal.SIGTSTP)
    terminal.await_(LEAVE)
    assert os.WIFSTOPPED(os.waitpid(live.pid, os.WUNTRACED)[1])
    assert terminal.is_as_before()
    live.send_signal(signal.SIGCONT)
    terminal.await_(ENTER)
    terminal.await_(b"web2")
    terminal.type(b"q")
    assert ended(live, terminal) == 0


def test_each_picture_is_one_write_that_erases_no_more_than_it_must(
    live: subprocess.Popen[bytes], terminal: Terminal
) -> None:
    terminal.await_(b"\x1b[H")
    terminal.await_(b"\x1b[H")
    terminal.type(b"q")
    ended(live, terminal)
    assert b"\x1b[2J" not in terminal.seen


def test_if_the_daemon_is_away_top_says_so_and_waits(
    live: subprocess.Popen[bytes], terminal: Terminal, daemon: Daemon
) -> None:
    daemon.paths.socket.rename(daemon.paths.socket.with_name("away"))
    terminal.await_(b"the daemon lxcfleetd does not answer")
    daemon.paths.socket.with_name("away").rename(daemon.paths.socket)
    terminal.await_(b"3 of 3 running")
    terminal.type(b"q")
    assert ended(live, terminal) == 0


def test_control_characters_of_a_container_do_not_reach_the_terminal(
    live: subprocess.Popen[bytes], terminal: Terminal, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon.parts.fleet.usages, "_health", lambda _: "\x1b]0;x\x07")
    terminal.await_(b"\\x1b]0;x\\x07")
    terminal.type(b"q")
    assert ended(live, terminal) == 0
