"""What the launcher's children do: one operation each, then exit.

Requests and replies are JSON. Starting containers is the booter's: see host.lxc.booter.
"""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from lxcfleet.host.lxc import attach
from lxcfleet.host.process import proc
from lxcfleet.launcher.children import containers, looking, networks, preparing
from lxcfleet.launcher.children.answer import Reply
from lxcfleet.paths import Paths


def run(message: bytes, descriptors: Sequence[int], paths: Paths, held: tuple[int, int]) -> NoReturn:
    """Do what ``message`` asks for and exit. ``held``: the launcher's request socket and the daemon's lock."""
    proc.finish(lambda: _do(message, descriptors, paths, held))


def _do(message: bytes, descriptors: Sequence[int], paths: Paths, held: tuple[int, int]) -> None:
    if not message:
        answers, memory, *others = descriptors
        with open(memory, "rb") as file:
            message = file.read()
        descriptors = [answers, *others]  # as they come with a request that fits into a datagram
    operation, _, argument = message.partition(b" ")
    if operation in (b"attach", b"check"):
        for descriptor in held:  # a command may outlive the daemon, and must not hold its lock
            os.close(descriptor)
    if operation == b"attach":
        signal.alarm(0)
        attach.run(json.loads(argument), descriptors, str(paths.lxc))
    else:
        _OPERATIONS[operation.decode()](json.loads(argument), socket.socket(fileno=descriptors[0]), paths)


_OPERATIONS: dict[str, Callable[[Any, Reply, Paths], None]] = {
    "prepare": preparing.prepare,
    "remove": containers.remove,
    "inspect": containers.inspect,
    "freeze": containers.freeze,
    "unfreeze": containers.unfreeze,
    "check": containers.check_health,
    "stale": looking.stale,
    "shadows": looking.shadows,
    "unshadow": looking.unshadow,
    "exposure": looking.exposure,
    "mask": looking.mask,
    "release": looking.release,
    "routes": networks.routes,
    "network": networks.network,
    "bridge": networks.bridge,
    "join": networks.join,
    "dhcp": networks.dhcp,
    "leased": networks.leased,
    "publish": networks.publish,
    "rules": networks.rules,
    "datagrams": networks.forget_datagrams,
    "disconnect": networks.disconnect,
}
