"""One check of one container, carried out: a connection to it, or a command inside of it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

from lxcfleet.containers.container import Container, Running
from lxcfleet.errors import FleetError
from lxcfleet.health import judge
from lxcfleet.health.judge import CheckResult, HealthCourse, Systemd
from lxcfleet.host.net import reach
from lxcfleet.launcher.client import Launcher
from lxcfleet.launcher.items.containers import CheckAnswer, CheckItem
from lxcfleet.launcher.operations import CHECK
from lxcfleet.spec.container.health import CheckKind, HealthCheck

ENTERED_AT_ONCE = 8
"""How many commands run inside containers at the same moment: each takes a process of the launcher."""
ASKED_AGAIN_AT_ONCE = 4
"""How many systemds that did not answer in time are asked at the same moment, besides. Such a question waits longer, and so
takes no turn of the other commands: a container that answers none makes no other wait."""
CONNECTED_AT_ONCE = 128
SLOW_SECONDS = 2.0
"""Checks of containers whose last ones took longer than that have as many turns of their own: where they hang, they make no
other wait."""
_ASK_SYSTEMD = """
word=$(systemctl is-system-running --wait)
case $word in running|degraded)
    systemctl list-units --all --plain --no-legend --no-pager --state=failed,auto-restart,auto-restart-queued
    systemctl show --no-pager --property=Id,NRestarts '*.service' |
    awk 'BEGIN { RS = ""; FS = "\\n" } /NRestarts=[1-9]/ { for (i = 1; i <= NF; i++) { split($i, part, "=")
        if (part[1] == "Id") id = part[2]; else if (part[1] == "NRestarts") n = part[2] } print id, "restarts", n }'
    [ $# = 0 ] || systemctl show --all --no-pager --property=Id,LoadState,ActiveState,WantedBy,RequiredBy \
        --property=ConditionResult,ConditionTimestampMonotonic,AssertResult,AssertTimestampMonotonic \
        --property=InactiveExitTimestampMonotonic -- "$@" |
    awk 'BEGIN { RS = ""; FS = "\\n" } { split("", v)
        for (i = 1; i <= NF; i++) { at = index($i, "="); v[substr($i, 1, at - 1)] = substr($i, at + 1) }
        if (v["ActiveState"] == "inactive" && v["InactiveExitTimestampMonotonic"] == 0 && v["LoadState"] != "masked" &&
            v["WantedBy"] " " v["RequiredBy"] ~ /(multi-user|default|basic|sysinit|sockets|timers|paths)\\.target/ &&
            (v["ConditionTimestampMonotonic"] == 0 || v["ConditionResult"] != "no") &&
            (v["AssertTimestampMonotonic"] == 0 || v["AssertResult"] != "no"))
            print v["Id"], "never", v["LoadState"] }'
esac
echo "systemd is $word"
"""
"""Asks systemd inside for its state, for the units that failed or wait for their next start, for the restarts of each
service, and which of its arguments, the units that the container was asked to run, it was to start at boot and never did: a
unit that another one keeps from starting is left as if nobody had wanted it. An assertion or a condition of its own is no
failure (PostgreSQL's clusters have one, and the container may make its own later), nor is what was disabled or masked in the
container; what was disabled may still be wanted by a unit that does not run. One command does all of it, as it costs a
process of the launcher. ``judge.read_systemd`` reads the answer."""
_LONGEST_REASON = 200


class Checks:
    """Carries checks out, a bounded number of them at the same moment."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher
        self._entered = asyncio.Semaphore(ENTERED_AT_ONCE)
        self._asked_again = asyncio.Semaphore(ASKED_AGAIN_AT_ONCE)
        self._entered_slowly = asyncio.Semaphore(ENTERED_AT_ONCE)
        self._connected = asyncio.Semaphore(CONNECTED_AT_ONCE)
        self._connected_slowly = asyncio.Semaphore(CONNECTED_AT_ONCE)

    async def check(self, container: Container, running: Running, check: HealthCheck, *, slow: bool) -> CheckResult:
        """Do the check once. Whatever keeps it from passing is its result. ``slow``: its last ones took long."""
        if running.payload.frozen:
            return CheckResult(False, "it is frozen")
        by_command = check.kind is CheckKind.EXEC
        if not by_command and not container.addresses:
            return CheckResult(False, "it has no address")
        if by_command:
            turn = self._entered_slowly if slow else self._entered
        else:
            turn = self._connected_slowly if slow else self._connected
        async with turn:
            began = time.monotonic()
            result = await (self._run(container, check) if by_command else _connect(container, check))
        return replace(result, slow=time.monotonic() - began > SLOW_SECONDS)

    async def systemd(self, container: Container, course: HealthCourse) -> Systemd:
        """The answer of its systemd about itself and its units; empty if it could not be asked. ``course``: until now."""
        turn = self._asked_again if course.failures else self._entered
        asked = [unit for unit in container.spec.units if "@." not in unit] if container.spec is not None else []
        try:
            async with turn:
                command = ("/bin/sh", "-c", _ASK_SYSTEMD, "sh", *asked)
                said = await self._enter(container, command, judge.patience(course))
        except (FleetError, OSError):
            return Systemd()
        return judge.read_systemd(str(said["output"]))

    async def _run(self, container: Container, check: HealthCheck) -> CheckResult:
        try:
            answer = await self._enter(container, check.command, check.timeout)
        except FleetError as error:
            return CheckResult(False, error.message)
        except OSError as error:  # as where the daemon has no file descriptor left
            return CheckResult(False, f"the check can't be done: {error.strerror}")
        if answer["status"] == 0:
            return CheckResult(True)
        problem = f"not done after {check.timeout:g} s"
        if answer["status"] is not None:
            problem = f"exit status {answer['status']}"
        last = (str(answer["output"]).splitlines() or [""])[-1]
        reason = f"{check.command[0]}: {problem}{': ' if last else ''}{last}"[:_LONGEST_REASON]
        return CheckResult(False, reason + judge.cause_of(str(answer["output"])))

    async def _enter(self, container: Container, command: tuple[str, ...], timeout: float) -> CheckAnswer:
        """Run a command in the container; its status (None: it was not done in time) and output. Raises as ``ask``."""
        assert container.spec is not None
        item: CheckItem = {
            "name": container.name,
            "command": list(command),
            "environment": dict(container.spec.environment),
            "timeout": timeout,
        }
        answer = await self._launcher.ask(CHECK, item)
        if answer["error"]:
            raise FleetError(answer["error"]["message"])
        return answer


async def _connect(container: Container, check: HealthCheck) -> CheckResult:
    address = str(container.addresses[0])
    if check.kind is CheckKind.TCP:
        problem = await reach.tcp(address, check.port, check.timeout)
    else:
        problem = await reach.http(address, check.port, check.host or container.name, check.path, check.timeout)
    return CheckResult(not problem, problem)
