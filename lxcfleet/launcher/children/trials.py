"""Tests of containers: each is run to its end, or until its time is up, and nothing that it started is left."""

from __future__ import annotations

import math
import secrets
import signal
from collections.abc import Collection

from lxcfleet.errors import FleetError, HostError
from lxcfleet.host.kernel import home
from lxcfleet.host.lxc import attach
from lxcfleet.host.process import cgroup, enclosure, supervised
from lxcfleet.launcher.children.answer import Reply, answer, say
from lxcfleet.launcher.items.containers import CheckAnswer, TrialItem
from lxcfleet.launcher.operations import TRY
from lxcfleet.paths import Paths

_MARK = "LXCFLEET_TEST"
_MORE_SECONDS = 30
"""The time that this process has beyond the test's own."""
_ENVIRONMENT = {"PATH": attach.PATH, "HOME": "/root", "LC_ALL": "C.UTF-8"}
_KEPT = 4096


def run(item: TrialItem, reply: Reply, paths: Paths) -> None:
    """Run one test; answer with its exit status (null: it took too long) and the end of its output."""
    signal.alarm(math.ceil(item["timeout"]) + _MORE_SECONDS)
    name = item["name"]
    try:
        status, output = _inside(item, paths) if item["inside"] else _on_host(item)
    except FleetError as error:
        answer(reply, name, error)
    except OSError as error:
        answer(reply, name, HostError.from_os_error(f"a test of {name} can't be run", error))
    else:
        say(reply, TRY, CheckAnswer(name=name, error=None, status=status, output=output))


def _inside(item: TrialItem, paths: Paths) -> tuple[int | None, str]:
    token = secrets.token_hex(8)
    variables = {**item["environment"], _MARK: token}

    payload = cgroup.payload(item["pid"], item["name"])

    def processes() -> Collection[int]:
        return [] if payload.directory is None else cgroup.members(str(payload.directory))[0]

    # By the mark, too: root inside may take a process out of its cgroup again.
    marked = supervised.none_left(f"{_MARK}={token}", processes)
    with marked, enclosure.made(enclosure.place_inside(payload)) as within:
        return attach.check(item["name"], str(paths.lxc), item["command"], variables, item["timeout"], within)


def _on_host(item: TrialItem) -> tuple[int | None, str]:
    variables = {**_ENVIRONMENT, **item["environment"]}
    with home.entered(), enclosure.made(enclosure.place_on_host()) as within:
        return supervised.run(item["command"], variables, seconds=item["timeout"], most=_KEPT, within=within)
