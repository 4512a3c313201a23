"""The work of the launcher's children: one operation each, then exit.

Requests and replies are JSON. The booter starts containers: see host.lxc.booter. The attacher's
children run commands in them: see commands.
"""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NoReturn, TypeVar

from lxcfleet.host.lxc import foreground
from lxcfleet.host.process import proc, sessions
from lxcfleet.launcher import forking, operations
from lxcfleet.launcher.children import (
    apps,
    archives,
    containers,
    disk,
    generations,
    host,
    looking,
    networks,
    preparing,
    secrets,
    snapshots,
    trials,
    volumes,
)
from lxcfleet.launcher.children.answer import Reply
from lxcfleet.launcher.operations import LauncherOperation
from lxcfleet.paths import Paths

A = TypeVar("A")


def run(message: bytes, descriptors: Sequence[int], paths: Paths, held: tuple[int, int]) -> NoReturn:
    """Do what ``message`` asks for and exit. ``held``: the launcher's request socket and the daemon's lock."""
    proc.finish(lambda: _do(message, descriptors, paths, held))


def _do(message: bytes, descriptors: Sequence[int], paths: Paths, held: tuple[int, int]) -> None:
    message, descriptors = forking.whole(message, descriptors)
    operation, _, argument = message.partition(b" ")
    if operation.decode() in (operations.FOREGROUND, operations.TRY):
        for descriptor in held:  # a command may outlive the daemon, and must not hold its lock
            os.close(descriptor)
    if operation.decode() == operations.FOREGROUND:
        signal.alarm(0)
        request = json.loads(argument)
        # Among the sessions, too, as a patch of the host may make it old.
        with sessions.noted(paths.keepers, request["name"]), sessions.noted(paths.sessions, request["name"]):
            foreground.serve(request, descriptors, str(paths.lxc))
    elif operation.decode() == operations.EXPORT:
        archives.serve(partial(archives.export, json.loads(argument)), descriptors, paths)
    elif operation.decode() == operations.IMPORT:
        archives.serve(archives.unpack, descriptors, paths)
    else:
        with suppress(BrokenPipeError):  # the daemon went away: nobody is there for the answer
            _OPERATIONS[operation.decode()](json.loads(argument), socket.socket(fileno=descriptors[0]), paths)


_OPERATIONS: dict[str, Callable[[Any, Reply, Paths], None]] = {}


def _bind(operation: LauncherOperation[A, Any], work: Callable[[A, Reply, Paths], None]) -> None:
    """Have ``work`` do that operation; it gets the argument and the socket for answers."""
    _OPERATIONS[operation] = work


_bind(operations.REMOVE, containers.remove)
_bind(operations.INSPECT, containers.inspect)
_bind(operations.FREEZE, containers.freeze)
_bind(operations.UNFREEZE, containers.unfreeze)
_bind(operations.LIMIT, containers.limit)
_bind(operations.CHECK_KEYS, containers.check_keys)
_bind(operations.TRY, trials.run)
_bind(operations.STALE, looking.stale)
_bind(operations.SHADOWS, looking.shadows)
_bind(operations.CVES, looking.cves)
_bind(operations.UNSHADOW, looking.unshadow)
_bind(operations.EXPOSURE, looking.exposure)
_bind(operations.USED, disk.used)
_bind(operations.DIFF, disk.diff)
_bind(operations.FEATURES, host.features)
_bind(operations.ROOT_IDS, host.root_ids)
_bind(operations.MASK, looking.mask)
_bind(operations.UNMASK, looking.unmask)
_bind(operations.RELEASE, looking.release)
_bind(operations.FREEZE_BASE, generations.freeze)
_bind(operations.CHECK_GENERATION, generations.check)
_bind(operations.FIT, generations.fit)
_bind(operations.REMOVE_GENERATION, generations.remove)
_bind(operations.TIDY_GENERATIONS, generations.tidy)
_bind(operations.MAKE_VOLUME, volumes.make)
_bind(operations.CHANGE_VOLUME, volumes.change)
_bind(operations.REMOVE_VOLUME, volumes.remove)
_bind(operations.SEAL_APP, apps.seal)
_bind(operations.VERIFY_APP, apps.verify)
_bind(operations.REMOVE_APP, apps.remove)
_bind(operations.CHECK_MOUNTS, volumes.check_mounts)
_bind(operations.SNAPSHOT_PLACE, snapshots.place)
_bind(operations.TAKE_SNAPSHOT, snapshots.take)
_bind(operations.SEAL_SNAPSHOT, snapshots.seal)
_bind(operations.REMOVE_SNAPSHOT, snapshots.remove)
_bind(operations.DOUBLE_DELTA, snapshots.double)
_bind(operations.RESTORE_SNAPSHOT, snapshots.restore)
_bind(operations.FINISH_RESTORE, snapshots.finish)
_bind(operations.FETCH_SECRET, secrets.fetch)
_bind(operations.DELIVER_SECRETS, secrets.deliver)
_bind(operations.TIDY_SECRETS, secrets.tidy)
_bind(operations.ROUTES, networks.routes)
_bind(operations.NETWORK, networks.network)
_bind(operations.BRIDGE, networks.bridge)
_bind(operations.JOIN, networks.join)
_bind(operations.DHCP, networks.dhcp)
_bind(operations.UPLINK, networks.uplink)
_bind(operations.LEAVE_UPLINK, networks.leave_uplink)
_bind(operations.REJOIN, networks.rejoin)
_bind(operations.LEASED, networks.leased)
_bind(operations.PUBLISHED, networks.published)
_bind(operations.FORWARD, networks.forward)
_bind(operations.PUBLISH, networks.publish)
_bind(operations.RULES, networks.load_rules)
_bind(operations.LOOKUP, networks.lookup)
_bind(operations.DISCONNECT, networks.disconnect)
_OPERATIONS[operations.PREPARE] = preparing.prepare  # the argument comes later, piece by piece
