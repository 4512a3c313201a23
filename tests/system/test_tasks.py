"""Each background task of the daemon ends with an unexpected error, and is started again."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from .failing_daemon import MARK
from .harness import SLEEP, Fleet, free_port, until

pytestmark = pytest.mark.system

LOOPS = {"attach", "observe", "delta-sizes", "boot-record", "patch-numbers", "rollouts", "patch-watcher", "watchdog"}
"""The tasks that run as long as the daemon does; the group may have more."""
OTHERS = {"cleanup", "reload", "health", "admission", "publishing"}
"""Tasks that are begun where something is to be done, and that this test has begun."""


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """A fleet with a daemon whose tasks fail."""
    own = Fleet()
    own.settings(f"network: {{bridge: {own.bridge}, ipv4: 10.213.7.0/24, domain: {own.tag}.test, drain: 0}}\n")
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
            systemd.bind(str(tmp_path / "notify"))
            own.start_daemon(
                module="tests.system.failing_daemon", FAIL_TASKS=str(tmp_path),
                NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="3000000",
            )  # fmt: skip
            yield own
            own.clean()
    finally:
        own.run("destroy", "--all", "--force", "-q")
        own.remove()


def read(fleet: Fleet) -> dict[str, tuple[int, bool]]:
    """How often each task failed, and whether it runs."""
    parse: Any = text_string_to_metric_families
    failures, up = {}, {}
    for family in parse(b"".join(fleet.client().metrics()).decode()):
        for sample in family.samples:
            if sample.name == "lxcfleet_task_failures_total":
                failures[sample.labels["task"]] = int(sample.value)
            elif sample.name == "lxcfleet_task_up":
                up[sample.labels["task"]] = bool(sample.value)
    assert failures.keys() == up.keys()
    return {name: (failures[name], up[name]) for name in failures}


def test_every_task_that_fails_is_counted_reported_and_started_again(fleet: Fleet, tmp_path: Path) -> None:
    checked = ("--health-exec", "true", "--health-interval", "0.2", "--publish", f"{free_port()}:80", "-l", "role=web")
    for number in (1, 2):
        fleet.create(fleet.name(number), options=checked, command=SLEEP)
    pid = fleet.daemon_pid()
    assert pid is not None
    os.kill(pid, signal.SIGHUP)
    fleet.ok("wait", "--all", "--for", "healthy")
    until(lambda: read(fleet).keys() >= LOOPS | OTHERS, 30, "all tasks were started")
    until(lambda: all(task == (1, True) or task[0] > 1 for task in read(fleet).values()), 30, "all tasks were started again")

    # Tasks that run for ever fail in the middle of their work as well.
    for name in [*LOOPS, "health"]:
        before, _ = read(fleet)[name]
        (tmp_path / name).touch()
        until(lambda: read(fleet)[name][0] > before, 30, f"{name} fails")  # noqa: B023
        until(lambda: read(fleet)[name][1], 30, f"{name} is started again")  # noqa: B023

    # The daemon still works: health checks, commands in containers, and doctor, which tells the failures.
    fleet.ok("wait", "--all", "--for", "healthy")
    assert fleet.ok("exec", fleet.name(1), "--", "echo", "yes").strip() == "yes"
    names = [*read(fleet)]  # others may begin meanwhile
    findings = fleet.run("doctor", "-f", "json").json["findings"]
    told = {finding["message"] for finding in findings if finding["check"] == "tasks"}
    for name in names:
        assert any(f"task {name} failed" in message and MARK in message for message in told), (name, told)
    log = fleet.log()
    assert all(f"the task {name} failed" in log or f"the task {name} of" in log for name in names)
    assert log.count(f"RuntimeError: {MARK}") >= len(names)
