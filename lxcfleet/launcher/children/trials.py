"""Tests of containers: each is run to its end, or until its time is up, and nothing that it started is left."""

from __future__ import annotations

import math
import secrets
import signal
from collections.abc import Collection

from lxcfleet.errors import FleetError, HostError
from lxcfleet.host.kernel import home
from lxcfleet.host.lxc import attach
from lxcfleet.host.process import cgroup, supervised
from lxcfleet.launcher.children.answer import Reply, answer, say
from lxcfleet.launcher.items.containers import Checked, TrialItem
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
        say(reply, TRY, Checked(name=name, error=None, status=status, output=output))


def _inside(item: TrialItem, paths: Paths) -> tuple[int | None, str]:
    token = secrets.token_hex(8)
    variables = {**item["environment"], _MARK: token}

    def processes() -> Collection[int]:
        directory = cgroup.payload(item["pid"], item["name"]).directory
        return [] if directory is None else cgroup.members(str(directory))[0]

    with supervised.none_left(f"{_MARK}={token}", processes):
        return attach.check(item["name"], str(paths.lxc), item["command"], variables, item["timeout"])


def _on_host(item: TrialItem) -> tuple[int | None, str]:
    with home.entered():
        return supervised.run(
            item["command"], {**_ENVIRONMENT, **item["environment"]}, seconds=item["timeout"], most=_KEPT
        )
