"""Signal, time-out and user of app containers: stop_signal, stop_timeout, user."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .harness import Fleet, until

pytestmark = pytest.mark.system

WAITS_FOR_INT = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
def end(*_):
    open("/var/ended", "w").write("well")
    os._exit(0)
signal.signal(signal.SIGINT, end)
open("/var/ready", "w").close()
while True: time.sleep(100)
"""
OWN = {"passwd": "seven:x:4321:4321::/var/seven:/bin/sh\n", "group": "seven:x:4321:\nextra:x:4322:seven\n"}
SAYS_WHO = 'echo "$(id -u) $(id -g) $(id -Gn | tr " " ,) $HOME $USER $LOGNAME $1"; exec sleep 1000'


def ready(fleet: Fleet, name: str) -> None:
    until((fleet.delta(name) / "var/ready").exists, 10, f"{name} is ready")


def test_a_stop_begins_with_the_signal_that_the_command_wants(fleet: Fleet) -> None:
    name = fleet.name("s")
    fleet.ok("create", name, "--stop-signal", "SIGINT", "--", "/usr/bin/python3", "-c", WAITS_FOR_INT)
    ready(fleet, name)
    fleet.ok("stop", name, "--timeout", "60")
    assert (fleet.delta(name) / "var/ended").read_text() == "well"
    assert f"killed {name}" not in [f"{event['what']} {event['container']}" for event in fleet.events("killed")]


def test_a_stop_that_became_a_kill_is_an_event_and_counted_by_the_rollout(fleet: Fleet) -> None:
    name = fleet.name("s")
    fleet.ok("create", name, "--", "/usr/bin/python3", "-c", WAITS_FOR_INT)
    ready(fleet, name)
    fleet.ok("stop", name, "--timeout", "0.5")
    (event,) = [event for event in fleet.events("killed") if event["container"] == name]
    assert event["message"] == "it did not end within 0.5 s"
    (fleet.delta(name) / "var/ready").unlink()
    fleet.ok("set", name, "stop_timeout=0.5")
    fleet.ok("start", name)
    ready(fleet, name)
    fleet.ok("restart", "--rolling", "--min-healthy-time", "0", name)
    assert json.loads(fleet.ok("rollout", "status", "-f", "json"))["killed"] == 1
    assert "killed, as they did not end in time: 1" in fleet.ok("rollout", "status")


def test_a_container_may_have_a_stop_timeout_of_its_own(fleet: Fleet) -> None:
    name = fleet.name("own")
    fleet.ok("create", name, "--stop-timeout", "0.25", "--", "/usr/bin/python3", "-c", WAITS_FOR_INT)
    ready(fleet, name)
    fleet.ok("stop", name)
    (event,) = [event for event in fleet.events("killed") if event["container"] == name]
    assert event["message"] == "it did not end within 0.25 s"


def test_a_system_container_takes_neither_a_stop_signal_nor_a_user(fleet: Fleet) -> None:
    for option, value in (("--stop-signal", "INT"), ("--user", "daemon")):
        ran = fleet.run("create", fleet.name("s"), option, value)
        assert ran.status == 2
        assert "is for app containers" in ran.err


@pytest.mark.parametrize(
    ("user", "told"),
    [
        ("seven", "4321 4321 extra,seven /var/seven seven seven"),
        ("4321", "4321 4321 extra,seven /var/seven seven seven"),
        ("seven:extra", "4321 4322 extra,seven /var/seven seven seven"),
        ("7777:8888", "7777 8888 8888 / 7777 7777"),
    ],
)
def test_a_command_runs_as_a_user_of_the_container(fleet: Fleet, user: str, told: str) -> None:
    name = fleet.name(f"u{user.replace(':', '-')}")
    fleet.ok("create", name, "--no-start", "--user", user, "--", "sh", "-c", SAYS_WHO, "sh", "two  words")
    etc = fleet.delta(name) / "etc"
    etc.mkdir(mode=0o755, exist_ok=True)
    for file, lines in OWN.items():
        (etc / file).write_text(Path("/etc", file).read_text() + lines)
    fleet.ok("start", name)
    until(lambda: fleet.ok("logs", name).endswith("words\n"), 10, "the command printed its user")
    uid, gid, groups, *rest = fleet.ok("logs", name).splitlines()[-1].split(" ")
    assert [uid, gid, ",".join(sorted(groups.split(","))), *rest] == [*told.split(), "two", "", "words"]
    # A command of exec runs as root all the same, and the container ends without a kill.
    assert fleet.inside(name, "id -u").strip() == "0"
    fleet.ok("stop", name, "--timeout", "60")
    assert not [event for event in fleet.events("killed") if event["container"] == name]


def test_the_log_tells_of_a_user_that_the_container_does_not_have(fleet: Fleet) -> None:
    name = fleet.name("nobody")
    refused = fleet.run("create", name, "--user", "no-such-user", "--", "sleep", "1000")
    assert (refused.status, "the host has no user no-such-user" in refused.err) == (2, True)
    fleet.ok("create", name, "--no-start", "--user", "no-such-user", "--", "sleep", "1000")
    fleet.run("start", name)
    until(lambda: "no such user" in fleet.ok("logs", name), 10, "the log tells of the missing user")
