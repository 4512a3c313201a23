"""What containers print reaches the host's log: each line once, whole, with its fields, whoever is killed meanwhile."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from lxcfleet.logs.messages import message_id

from .harness import TIMEOUT, Fleet, python, until
from .journald import Journal, journald

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def journal() -> Iterator[Journal]:
    with journald() as running:
        yield running


@pytest.fixture
def fleet(own_fleet: Fleet, journal: Journal) -> Iterator[Fleet]:
    """The module's fleet, with that journal."""
    own_fleet.settings(f"{own_fleet.usual}logs: {{to: journal, socket: {journal.socket}, burst: 2000}}\n")
    own_fleet.stop_daemon()
    own_fleet.start_daemon()
    yield own_fleet
    own_fleet.clean()


def of(name: str) -> str:
    """The lines of a container. What happened to it has its CONTAINER_NAME, too."""
    return f"SYSLOG_IDENTIFIER={name}"


COUNT = "import time\nfor n in range({count}):\n    print('line', n, flush=True)\n    time.sleep({pause})\ntime.sleep(9999)"


def test_lines_have_fields_and_nothing_from_inside_does_harm(fleet: Fleet, journal: Journal) -> None:
    name = fleet.name("a")
    script = r"""
printf 'plain\n\033[31mred\033[0m \033]0;title\007end\nCONTAINER_NAME=forged\n\001\377\302\233x\tä\n'
printf 'MESSAGE\n\004\0\0\0\0\0\0\0evil\n'
head -c 900000 /dev/zero | tr '\0' x
printf '\nlast without end'
"""
    fleet.ok("create", name, "-l", "tag=v7", "--", "sh", "-c", script)
    whole = until(lambda: (found := journal.entries(of(name))) and found[-1]["MESSAGE"] == "last without end" and found)
    assert [entry["MESSAGE"] for entry in whole[:3]] == ["plain", "red end", "CONTAINER_NAME=forged"]
    assert whole[3]["MESSAGE"] == "\\x01\\xff\\x9bx\tä"
    assert whole[4]["MESSAGE"] == "MESSAGE"
    assert whole[5]["MESSAGE"] == "\\x04" + "\\x00" * 7 + "evil"
    first = whole[0]
    assert {key: first[key] for key in ("CONTAINER_TAG", "SYSLOG_IDENTIFIER", "PRIORITY", "SYSLOG_FACILITY")} == {
        "CONTAINER_TAG": "v7", "SYSLOG_IDENTIFIER": name, "PRIORITY": "6", "SYSLOG_FACILITY": "3",
    }  # fmt: skip
    assert first["LXCFLEET_RUN"].partition("@")[0] == first["OBJECT_PID"]
    long = whole[6:-1]
    assert all(entry.get("CONTAINER_PARTIAL_MESSAGE") == "true" for entry in long[:-1])
    assert "CONTAINER_PARTIAL_MESSAGE" not in long[-1]
    assert "".join(entry["MESSAGE"] for entry in long) == "x" * 900_000
    assert all(len(entry["MESSAGE"]) <= 16384 for entry in long)


def test_a_line_of_ten_megabytes_does_no_harm(fleet: Fleet, journal: Journal) -> None:
    """It is longer than the burst, and its console's file is overwritten while it is read. What is missing is told.

    Where the file is read quickly, the burst is used up, and lines are kept again only after a while."""
    name = fleet.name("m")
    script = "head -c 10000000 /dev/zero | tr '\\0' x; echo; while echo last; do sleep 0.5; done"
    fleet.ok("create", name, "--", "sh", "-c", script)
    until(lambda: "last" in journal.messages(of(name)), 20)
    entries = [entry for entry in journal.entries(of(name)) if "x" * 9 in entry["MESSAGE"]]
    assert all(len(entry["MESSAGE"]) <= 16384 and entry["CONTAINER_PARTIAL_MESSAGE"] for entry in entries[:-1])
    total = sum(len(entry["MESSAGE"]) for entry in entries)
    assert total == 10_000_000 or any("LXCFLEET_LOST" in entry for entry in journal.entries(of(name))), total


def test_no_line_is_lost_or_doubled_when_the_daemon_is_killed_again_and_again(fleet: Fleet, journal: Journal) -> None:
    names = [fleet.name(f"k{number}") for number in range(3)]
    fleet.create(*names, command=("--", *python(COUNT.format(count=600, pause=0.005))))
    for _ in range(2):
        time.sleep(0.2)  # some of the lines come meanwhile
        fleet.stop_daemon(signal.SIGKILL)
        fleet.start_daemon()
    for name in names:
        until(partial(ends_with, journal, name, "line 599"), 20, f"{name} was read")
        assert journal.messages(of(name)) == [f"line {number}" for number in range(600)]
    ((forwarder, _),) = until(lambda: len(found := forwarders(fleet)) == 1 and found, 20, "one forwarder runs")
    os.kill(forwarder, signal.SIGKILL)
    late = fleet.name("late")
    fleet.create(late, command=("--", "sh", "-c", "echo late; sleep 9999"))
    until(partial(ends_with, journal, late, "late"), 20, "another forwarder goes on")
    assert [len(journal.messages(of(name))) for name in names] == [600, 600, 600]
    runs = {entry["LXCFLEET_RUN"] for entry in journal.entries(of(names[0]))}
    assert len(runs) == 1


def test_events_are_messages_of_the_journal_and_outlive_the_daemon(fleet: Fleet, journal: Journal) -> None:
    one, other = fleet.name("e1"), fleet.name("e2")
    script = "echo first; until [ -e /tmp/go ]; do sleep 0.05; done; echo third; sleep 9999"
    fleet.create(one, command=("--", "sh", "-c", script))
    until(lambda: "first" in fleet.ok("logs", one))
    fleet.create(other, command=("--", "sh", "-c", "echo second; sleep 9999"))
    until(lambda: "second" in fleet.ok("logs", other))
    fleet.inside(one, "touch /tmp/go")
    entry = until(lambda: journal.entries(f"CONTAINER_NAME={one}", f"MESSAGE_ID={message_id('created')}"))[0]
    assert entry["MESSAGE"] == f"{one}: created"
    assert {key: entry[key] for key in ("LXCFLEET_EVENT", "SYSLOG_IDENTIFIER", "PRIORITY")} == {
        "LXCFLEET_EVENT": "created", "SYSLOG_IDENTIFIER": "lxcfleet", "PRIORITY": "6",
    }  # fmt: skip
    until(lambda: "third" in fleet.ok("logs", one))
    fleet.stop_daemon(signal.SIGKILL)
    fleet.start_daemon()
    events = [json.loads(line) for line in fleet.ok("events", "--since", "1h", "--format", "json").splitlines()]
    assert [event["what"] for event in events if event["container"] == one] == ["created"]
    texts = [line.partition(" | ")[2] for line in fleet.ok("logs", one, other).splitlines()]
    assert texts == ["first", "second", "third"]
    assert fleet.ok("logs", "--all", "--since", "1h").count("\n") >= 3
    client = fleet.spawn("logs", "--all", "-f", "-n", "1", "--format", "json")
    assert client.stdout is not None
    fleet.create(fleet.name("e3"), command=("--", "sh", "-c", "echo late; sleep 9999"))
    assert any(json.loads(line)["text"] == "late" for line in client.stdout)
    client.send_signal(signal.SIGINT)
    client.communicate(timeout=TIMEOUT)


def test_a_journald_that_does_not_answer_blocks_nobody(fleet: Fleet, journal: Journal) -> None:
    name = fleet.name("b")
    journal.pause()
    try:
        fleet.ok("create", name, "--", *python(COUNT.format(count=1500, pause=0)))
        until(lambda: "line 1499" in fleet.ok("logs", name, "-n", "1"), 10, "the container has printed all of it")
        ((pid, _),) = until(lambda: len(found := forwarders(fleet)) == 1 and found, 20, "one forwarder runs")
        # At first it may have to read all of it.
        until(lambda: all(cpu_in_a_second(pid) < 0.2 for _ in range(3)), 20, "it waits, and does not turn round and round")
    finally:
        journal.resume()
    until(lambda: "line 1499" in journal.messages(of(name), "-n", "1"), 20)
    assert journal.messages(of(name)) == [f"line {number}" for number in range(1500)]


def test_the_journal_of_a_system_container_comes_along(fleet: Fleet, journal: Journal) -> None:
    name = fleet.name("s")
    fleet.create(name, command=())
    # What is said before its journald listens is lost: it is said again.
    script = "logger -t teller -p user.err told inside && sleep 0.2 && journalctl -q -t teller | grep -q told"
    until(lambda: fleet.run("exec", name, "--", "sh", "-c", script).status == 0, 30, "its journald runs")
    until(lambda: any("] teller[" in text and "told inside" in text for text in journal.messages(of(name))), 10)
    assert "told inside" in fleet.ok("logs", name)
    own = fleet.delta(name) / "var/log/journal"
    until(lambda: list(own.glob("*/*.journal")), what="it has its own on disk: all is written there late in its boot")


def test_rsyslog_takes_lines_without_journald(fleet: Fleet, tmp_path: Path) -> None:
    name, out = fleet.name("r"), tmp_path / "out"
    with rsyslog(tmp_path / "log", out):
        fleet.settings(f"{fleet.usual}logs: {{to: syslog, socket: {tmp_path / 'log'}}}\n")
        os.kill(fleet.daemon_pid() or 0, signal.SIGHUP)
        fleet.create(name, command=("--", "sh", "-c", "echo 'a [line] \"of it\"'; sleep 9999"))
        until(lambda: out.exists() and 'a [line] "of it"' in out.read_text(), 10, "rsyslog has written the line")
    (line,) = [line for line in out.read_text().splitlines() if "of it" in line]
    pid = fleet.pid(name)
    assert line.startswith(f"daemon.info {name} {pid} ")
    assert f'[lxcfleet@32473 container="{name}" tag="{name}" run="{pid}@' in line
    created = f'daemon.info lxcfleet .*container="{name}".* event="created"'
    until(lambda: re.search(created, out.read_text()), what="events come, too")


UNPACKED = Path.home() / ".cache/lxcfleet/packages"


@contextmanager
def rsyslog(socket: Path, out: Path) -> Iterator[None]:
    """An rsyslogd that takes RFC 5424 on a socket, as docs/logs.md has it."""
    if not (UNPACKED / "rsyslog").exists():
        pytest.skip("no rsyslog; `make test` unpacks Debian's package")
    libraries = next((UNPACKED / "rsyslog/usr/lib").glob("*/rsyslog"))
    lines = (Path(__file__).parents[2] / "docs/logs.md").read_text().splitlines()
    config = [line.strip() for line in lines if line.startswith(("    module(load", "    input(type"))]
    text = "%pri-text% %app-name% %procid% %structured-data% %msg%\\n"
    config += [f'template(name="all" type="string" string="{text}")', f'action(type="omfile" file="{out}" template="all")']
    file = out.with_name("rsyslog.conf")
    file.write_text("\n".join(config).replace("/run/lxcfleet-log", str(socket)) + "\n")
    paths = ":".join(str(each.parent) for name in ("libestr0", "libfastjson4") for each in (UNPACKED / name).rglob("*.so.*"))
    program = [str(UNPACKED / "rsyslog/usr/sbin/rsyslogd"), "-n", "-f", str(file), "-i", f"{out}.pid", "-M", str(libraries)]
    running = subprocess.Popen(program, env={"LD_LIBRARY_PATH": paths})
    try:
        until(socket.exists, 10, "rsyslog listens")
        yield
    finally:
        running.terminate()
        running.wait()


def test_a_flood_is_cut_and_told_and_others_go_on(fleet: Fleet, journal: Journal) -> None:
    flood, calm = fleet.name("f"), fleet.name("c")
    fleet.ok("create", calm, "--", *python(COUNT.format(count=20, pause=0.05)))
    fleet.ok("create", flood, "--", "sh", "-c", "seq 20000; sleep 9999")
    until(lambda: "line 19" in journal.messages(of(calm), "-n", "1"), 10)
    lost = until(lambda: journal.entries(of(flood), "MESSAGE_ID=6d3a4bd20f1c4fd2a1fb9c0c9a2e51b7"), 10)
    until(
        lambda: sum(int(each["LXCFLEET_LOST"]) for each in journal.entries(of(flood), "MESSAGE_ID=" + lost[0]["MESSAGE_ID"]))
        + len([text for text in journal.messages(of(flood)) if text.isdigit()]) == 20_000,
        10, "every line came or was counted",
    )  # fmt: skip
    assert "more than 1000 lines a second, and 2000 at once" in lost[0]["MESSAGE"]
    numbers = [int(text) for text in journal.messages(of(flood)) if text.isdigit()]
    assert all(one < other for one, other in pairwise(numbers))
    assert numbers[:2000] == list(range(1, 2001))


def ends_with(journal: Journal, name: str, text: str) -> bool:
    """Whether that is the container's last line in the journal."""
    return journal.messages(of(name), "-n", "1") == [text]


def forwarders(fleet: Fleet) -> list[tuple[int, str]]:
    """The processes that pass lines on."""
    return [(int(line.split(":")[0]), line) for line in fleet.helpers() if "lxcfleet.logs.servant" in line]


def cpu(pid: int) -> float:
    """Seconds of processor time that a process has had."""
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        words = file.read().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def cpu_in_a_second(pid: int) -> float:
    """The same for the next second."""
    before = cpu(pid)
    time.sleep(1)
    return cpu(pid) - before
