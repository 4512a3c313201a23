"""Commands in containers: those of users, and checks of health. Only the attacher's children do these.

The attacher copies itself for each, so this module imports little.
"""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Sequence
from contextlib import suppress

from lxcfleet.errors import FleetError
from lxcfleet.host.lxc import attach
from lxcfleet.host.process import sessions
from lxcfleet.launcher.children.answer import Reply, answer, say
from lxcfleet.launcher.items.containers import Checked, CheckItem
from lxcfleet.launcher.operations import ATTACH, CHECK
from lxcfleet.paths import Paths


def run(message: bytes, descriptors: Sequence[int], paths: Paths, held: Sequence[int]) -> None:
    """Do what ``message`` asks for. ``held``: the descriptors of the attacher itself; a command may outlive the daemon, and
    must not hold its lock."""
    for descriptor in held:
        os.close(descriptor)
    operation, _, argument = message.partition(b" ")
    if operation == ATTACH.encode():
        signal.alarm(0)
        request = json.loads(argument)
        with sessions.noted(paths.sessions, request["name"]):
            attach.run(request, descriptors, str(paths.lxc))
    elif operation == CHECK.encode():
        with suppress(BrokenPipeError):  # the daemon went away: nobody is there for the answer
            check_health(json.loads(argument), socket.socket(fileno=descriptors[0]), paths)
    else:
        raise AssertionError(f"{operation!r} is for the launcher")


def check_health(item: CheckItem, reply: Reply, paths: Paths) -> None:
    """Run a command inside; answer with its exit status (null: it took too long) and its output."""
    name = item["name"]
    try:
        status, output = attach.check(name, str(paths.lxc), item["command"], item["environment"], item["timeout"])
    except FleetError as error:
        answer(reply, name, error)
    else:
        say(reply, CHECK, Checked(name=name, error=None, status=status, output=output))
