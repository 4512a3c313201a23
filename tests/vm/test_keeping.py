"""A fleet that keeps itself, on hosts with systemd as process 1, journald and cgroup v2.

`lxcfleet run` by systemd's unit, lines and events in the host's journal, ends by memory, restart policies, and what comes up
after a reboot in which order. Each suite is booted once; each test goes on with what the tests before it left.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .guest import Guest
from .image import PRODUCT_PACKAGES, SUITES
from .product import DEB, HERE, INSTALL, LONG, SLEEP, data, fleet, pids, states, until

THERE = (*PRODUCT_PACKAGES, "apparmor", "python3-dnspython")
UNIT = "lxcfleet-run@web.service"
SERVICE = "/usr/local/bin/kept"
SCRIPT = """#!/bin/sh
# Ready after some seconds. It ends with 0 if it is asked to, and with 7 after SIGUSR1.
rm -f /run/ready
trap 'echo was asked to end; exit 0' TERM
trap 'echo has failed; exit 7' USR1
echo up
sleep 5
touch /run/ready
while :; do sleep 1000 & wait $!; done
"""
ARGUMENTS = f"--update -l tag=v7 --health-exec 'test -e /run/ready' -- {SERVICE} 'one word'"
CHECK = ("--health-exec", "test -e /run/ready")
TALKERS = 10
LINES = 1000
TALK = f"""import time
begin = time.monotonic()
for number in range({LINES}):
    time.sleep(max(0.0, begin + number / 100 - time.monotonic()))
    print("line", number, flush=True)
time.sleep(1e9)
"""
"""A program that prints 100 lines a second for ten seconds."""
HOG = "held = [bytearray(1 << 20) for _ in range(200)]"
BESIDE = f'sleep 1000 & python3 -c "{HOG}"; sleep 1000'
"""A program that takes 200 MiB, and another one beside it."""


@pytest.fixture(scope="module", params=SUITES)
def guest(request: pytest.FixtureRequest, package: Path) -> Iterator[Guest]:
    """A host with the package, and with a program that containers run."""
    with Guest.boot(request.param, packages=THERE) as booted:
        booted.push(package, HERE)
        booted.run(f"apt-get -qq update && {INSTALL} {HERE}/{DEB} 2>&1", timeout=LONG)
        booted.run(["tee", SERVICE], input=SCRIPT)
        booted.run(f"chmod 755 {SERVICE} && mkdir -p /etc/lxcfleet/run")
        booted.run(["tee", "/etc/lxcfleet/run/web.conf"], input=f'ARGUMENTS="{ARGUMENTS}"\n')
        yield booted


def show(guest: Guest, what: str, unit: str = UNIT) -> str:
    """A property of a unit."""
    return guest.run(["systemctl", "show", "-p", what, "--value", unit]).stdout.strip()


def journal(guest: Guest, *matches: str) -> list[dict[str, Any]]:
    """The entries that match."""
    lines = guest.run(["journalctl", "-q", "-o", "json", "--all", *matches]).stdout.splitlines()
    return [json.loads(line) for line in lines]


def messages(guest: Guest, *matches: str) -> list[str]:
    """What these entries say."""
    return [str(entry["MESSAGE"]) for entry in journal(guest, *matches)]


def info(guest: Guest, name: str) -> dict[str, Any]:
    found: dict[str, Any] = data(guest, "info", name)
    return found


def anew(guest: Guest, before: int) -> bool:
    """Whether the unit runs its container again."""
    pid = pids(guest).get("web")
    return show(guest, "ActiveState") == "active" and pid not in (None, before)


def test_a_unit_has_started_once_its_container_is_healthy(guest: Guest) -> None:
    guest.run(["systemctl", "enable", "--now", UNIT], timeout=LONG)
    record = info(guest, "web")
    assert record["health"] == "healthy"
    assert record["command"] == [SERVICE, "one word"]
    assert "running, healthy" in show(guest, "StatusText")
    assert show(guest, "NRestarts") == "0"


def test_systemd_starts_it_again_after_a_failure_a_restart_and_a_kill_of_the_client(guest: Guest) -> None:
    before = pids(guest)["web"]
    guest.run("systemctl kill -s USR1 " + UNIT)
    until(lambda: anew(guest, before), LONG, "systemd starts it again")
    before = pids(guest)["web"]
    fleet(guest, "restart", "web")
    until(lambda: anew(guest, before), LONG, "it is ended for a restart, and started again")
    before = pids(guest)["web"]
    guest.run(f"systemctl kill -s KILL --kill-whom=main {UNIT}")
    until(lambda: anew(guest, before), LONG, "the container ends with its client, and both are started again")
    assert show(guest, "NRestarts") == "3"
    said = "\n".join(messages(guest, "-u", UNIT, "_PID=1"))
    assert "status=7/" in said
    assert "status=9/KILL" in said
    # systemd names a status that the unit calls a success to nobody; but no other one lets it start the unit again.
    assert said.count("Deactivated successfully") == 1
    assert said.count("Failed with result") == 2, "an end for a restart is no failure"
    before, daemon = pids(guest)["web"], show(guest, "MainPID", "lxcfleet.service")
    guest.run("systemctl kill -s KILL --kill-whom=main lxcfleet.service")
    until(lambda: show(guest, "MainPID", "lxcfleet.service") not in (daemon, "0"), LONG, "systemd starts a new daemon")
    assert pids(guest)["web"] == before
    assert show(guest, "ActiveState") == "active"


def test_a_stop_of_the_unit_asks_the_command_to_end(guest: Guest) -> None:
    guest.run(["systemctl", "stop", UNIT], timeout=100)
    assert show(guest, "ActiveState") == "inactive"
    assert show(guest, "ExecMainStatus") == "0"
    assert messages(guest, "-u", UNIT, "_TRANSPORT=stdout")[-1] == "was asked to end"
    assert states(guest)["web"] in ("stopped", "exited")
    guest.run(["systemctl", "start", "--no-block", UNIT])
    until(lambda: show(guest, "StatusText") == "starting web", LONG, "it begins to start")
    guest.run(["systemctl", "stop", UNIT], timeout=100)
    assert show(guest, "Result") == "success", "a stop during the start is heard"
    guest.run(["systemctl", "start", UNIT], timeout=LONG)
    assert states(guest)["web"] == "running"


def test_lines_and_events_are_in_the_journal_with_their_fields(guest: Guest) -> None:
    script = "echo begin; head -c 40000 /dev/zero | tr '\\0' x; echo; exec sleep 1e9"
    fleet(guest, "create", "lines", "-l", "tag=v8", "--", "sh", "-c", script)
    until(lambda: len(journal(guest, "SYSLOG_IDENTIFIER=lines")) == 4, LONG, "each line is passed on")
    first, *parts = journal(guest, "SYSLOG_IDENTIFIER=lines")
    wanted = {
        "MESSAGE": "begin", "CONTAINER_NAME": "lines", "CONTAINER_TAG": "v8", "PRIORITY": "6", "SYSLOG_FACILITY": "3",
        "OBJECT_PID": str(pids(guest)["lines"]), "OBJECT_SYSTEMD_SLICE": "lxcfleet.slice",
        "_SYSTEMD_UNIT": "lxcfleet.service",
    }  # fmt: skip
    assert {key: first.get(key) for key in wanted} == wanted
    assert [each.get("CONTAINER_PARTIAL_MESSAGE") for each in parts] == ["true", "true", None]
    assert "".join(each["MESSAGE"] for each in parts) == "x" * 40000
    assert messages(guest, "CONTAINER_NAME=web", "SYSLOG_IDENTIFIER=web")[:1] == ["up"]
    [created] = journal(guest, "CONTAINER_NAME=lines", "LXCFLEET_EVENT=created")
    assert created["SYSLOG_IDENTIFIER"] == "lxcfleet"
    assert "Container lines was created" in guest.run("journalctl -x -t lxcfleet CONTAINER_NAME=lines").stdout
    guest.run("systemctl restart systemd-journald")
    fleet(guest, "exec", "lines", "--", "sh", "-c", "echo more >/dev/console")
    until(lambda: messages(guest, "SYSLOG_IDENTIFIER=lines")[-1] == "more", LONG, "a new journald is found")


def test_of_lines_from_many_containers_none_is_lost_and_none_comes_twice(guest: Guest) -> None:
    """A tenth of what the benchmark has on a real processor. journald is restarted meanwhile, and the daemon."""
    fleet(guest, "create", "talk", "-n", str(TALKERS), "--", "python3", "-c", TALK)
    for unit in ("systemd-journald", "lxcfleet"):
        time.sleep(3)
        guest.run(["systemctl", "restart", unit], timeout=LONG)
    names = [f"talk{number}" for number in range(1, TALKERS + 1)]
    wanted = [f"line {number}" for number in range(LINES)]

    def wrong() -> list[str]:
        return [each for each in names if messages(guest, f"SYSLOG_IDENTIFIER={each}") != wanted]

    until(lambda: not wrong(), LONG, "each line is there once, in its order")
    fleet(guest, "destroy", "--force", *names)


def test_the_journal_of_a_system_container_comes_along(guest: Guest) -> None:
    fleet(guest, "create", "sys")
    fleet(guest, "wait", "sys", "--for", "healthy", "--timeout", "600")
    fleet(guest, "exec", "sys", "--", "logger", "-t", "inner", "hello from inside")
    until(
        lambda: any("inner" in each and "hello from inside" in each for each in messages(guest, "SYSLOG_IDENTIFIER=sys")),
        LONG, "the entry is in the host's journal",
    )  # fmt: skip
    fleet(guest, "destroy", "--force", "sys")


def test_an_app_container_that_reaches_its_limit_of_memory_ends_as_a_whole_and_is_told(guest: Guest) -> None:
    fleet(guest, "create", "pig", "--memory", "64M", "--", "sh", "-c", f"sleep 10; {BESIDE}")
    file = guest.run("find /sys/fs/cgroup -path '*lxc.payload.pig/memory.oom.group'").stdout.strip()
    assert guest.run(["cat", file]).stdout == "1\n"
    fleet(guest, "wait", "pig", "--for", "stopped", "--timeout", "300")
    record = info(guest, "pig")
    assert record["state"] == "failed"
    assert record["exit"]["status"] == 137
    told = "killed for memory: limit 64M, process python3"
    assert told in json.dumps(record["exit"])
    [event] = journal(guest, "CONTAINER_NAME=pig", "LXCFLEET_EVENT=oom")
    assert event["MESSAGE"].startswith(f"pig: oom: {told}"), event
    assert event["PRIORITY"] == "4"
    fleet(guest, "set", "pig", "oom=process")
    fleet(guest, "start", "pig")
    until(lambda: len(journal(guest, "CONTAINER_NAME=pig", "LXCFLEET_EVENT=oom")) == 2, LONG, "the second kill is told")
    record = info(guest, "pig")
    assert (record["state"], record["memory_kills"] > 0) == ("running", True)
    fleet(guest, "destroy", "--force", "pig")


def test_restart_policies(guest: Guest) -> None:
    fleet(guest, "create", "always", "--restart", "always", *SLEEP)
    fleet(guest, "create", "job", "--restart", "on-failure", "--depends-on", "always=started", "--", "sh", "-c", "exit 0")
    fleet(guest, "create", "loop", "--restart", "on-failure delay=600 max_delay=600", "--", "sh", "-c", "sleep 10; exit 3")
    before = pids(guest)["always"]
    guest.run(f"kill -9 {before}")
    until(lambda: pids(guest).get("always", before) != before, LONG, "it is started again")
    until(lambda: states(guest)["loop"] == "backoff", LONG, "it waits after its second failure")
    assert info(guest, "loop")["exit"]["status"] == 3
    assert states(guest)["job"] == "exited"


def test_a_reboot_brings_up_what_ran_in_order(guest: Guest) -> None:
    fleet(guest, "create", "zdb", *CHECK, "--", SERVICE)
    fleet(guest, "create", "aweb", "--depends-on", "zdb=healthy", "--depends-on", "job=completed", *SLEEP)
    fleet(guest, "create", "down", "--restart", "unless-stopped", *SLEEP)
    fleet(guest, "stop", "down", "always", "loop")
    until(lambda: states(guest)["aweb"] == "running", LONG, "what it depends on is there")
    guest.reboot()
    expected = {"web": "running", "lines": "running", "zdb": "running", "aweb": "running", "always": "running",
                "down": "stopped", "job": "exited", "loop": "stopped"}  # fmt: skip
    until(lambda: states(guest) == expected, LONG, f"{expected}")
    until(lambda: show(guest, "ActiveState") == "active", LONG, "the unit has started")
    assert info(guest, "job")["exit"]["status"] == 0
    healthy, *_ = journal(guest, "-b", "CONTAINER_NAME=zdb", "LXCFLEET_EVENT=healthy")
    started, *_ = journal(guest, "-b", "CONTAINER_NAME=aweb", "LXCFLEET_EVENT=resumed")
    assert int(healthy["__REALTIME_TIMESTAMP"]) <= int(started["__REALTIME_TIMESTAMP"])
    ended = [each["CONTAINER_NAME"] for each in journal(guest, "-b", "-1", "LXCFLEET_EVENT=stopped")]
    assert ended.index("aweb") < ended.index("zdb"), "it ended before what it depends on"
    assert "was asked to end" in messages(guest, "-b", "-1", "-u", UNIT, "_TRANSPORT=stdout")
    events = fleet(guest, "events", "--since", "yesterday")
    assert "killed for memory: limit 64M" in events, "events outlive the host's reboot"
