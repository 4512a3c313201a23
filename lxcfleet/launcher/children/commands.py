"""Commands in containers: those of users, and checks of health. Only the attacher's children do these.

The attacher copies itself for each, so this module imports little.
"""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from lxcfleet.errors import FleetError
from lxcfleet.host.lxc import attach
from lxcfleet.host.process import sessions
from lxcfleet.launcher.children.answer import Reply, answer, say
from lxcfleet.launcher.items.containers import CheckAnswer, CheckItem
from lxcfleet.launcher.operations import ATTACH, CHECK, OF_ATTACHER
from lxcfleet.paths import Paths


def run(message: bytes, descriptors: Sequence[int], paths: Paths, held: Sequence[int]) -> None:
    """Do what ``message`` asks for. ``held``: the descriptors of the attacher itself; a command may outlive the daemon, and
    must not hold its lock."""
    for descriptor in held:
        os.close(descriptor)
    operation, _, argument = message.partition(b" ")
    _OPERATIONS[operation.decode()](json.loads(argument), descriptors, paths)


def _attach(request: Any, descriptors: Sequence[int], paths: Paths) -> None:
    signal.alarm(0)
    with sessions.noted(paths.sessions, request["name"]):
        attach.run(request, descriptors, str(paths.lxc))


def _check(item: CheckItem, descriptors: Sequence[int], paths: Paths) -> None:
    with suppress(BrokenPipeError):  # the daemon went away: nobody is there for the answer
        check_health(item, socket.socket(fileno=descriptors[0]), paths)


def check_health(item: CheckItem, reply: Reply, paths: Paths) -> None:
    """Run a command inside; answer with its exit status (null: it took too long) and its output."""
    name = item["name"]
    try:
        status, output = attach.check(name, str(paths.lxc), item["command"], item["environment"], item["timeout"])
    except FleetError as error:
        answer(reply, name, error)
    else:
        say(reply, CHECK, CheckAnswer(name=name, error=None, status=status, output=output))


_WORK: dict[str, Callable[[Any, Sequence[int], Paths], None]] = {ATTACH: _attach, CHECK: _check}
_OPERATIONS = {str(operation): _WORK[operation] for operation in OF_ATTACHER}
