"""Snapshots: taken, named, restored and removed. That may take long; it ends with the launcher, or with who asked for it."""

from __future__ import annotations

import os
from collections.abc import Callable

from lxcfleet.data import doubles, restoring, snapshots
from lxcfleet.errors import FleetError, HostError
from lxcfleet.host.kernel import syscalls, tree
from lxcfleet.host.process import copying
from lxcfleet.launcher.children.answer import Reply, answer, say
from lxcfleet.launcher.items.snapshots import DoubleItem, RestoreItem, SealItem, SnapshotItem, SnapshotPlace
from lxcfleet.launcher.operations import SNAPSHOT_PLACE
from lxcfleet.paths import Paths


def place(_: None, reply: Reply, paths: Paths) -> None:
    """Look at the file system that snapshots lie on."""
    found = SnapshotPlace(error=None, shares=False, free=0)
    try:
        free, shares = os.statvfs(paths.lxc), copying.shares_blocks(paths.lxc)
        if shares:
            _flush(paths)
        found = SnapshotPlace(error=None, shares=shares, free=free.f_bavail * free.f_frsize)
    except OSError as error:
        found["error"] = HostError.from_os_error("the file system of the containers can't be looked at", error).body()
    say(reply, SNAPSHOT_PLACE, found)


def _flush(paths: Paths) -> None:
    """Have on the disk what was written until now: the kernel does that for each file whose blocks are to be shared, and a
    container would be frozen for so long."""
    tree.sync_file_system(paths.lxc)


def take(item: SnapshotItem, reply: Reply, paths: Paths) -> None:
    """Copy a container's delta; the snapshot has no name yet."""
    container, name = item["container"], item["name"]
    _do(container, reply, lambda: snapshots.take(paths, container, name, reply.fileno()), f"{container} can't be copied")


def seal(item: SealItem, reply: Reply, paths: Paths) -> None:
    """Give a snapshot that was taken its name."""

    def work() -> None:
        snapshots.seal(paths, snapshots.parse(item["record"].encode(), "the request"))

    _do(item["container"], reply, work, f"the snapshot of {item['container']} can't be kept")


def remove(item: SnapshotItem, reply: Reply, paths: Paths) -> None:
    """Remove what is left of a snapshot."""
    container, directory = item["container"], item["name"]
    message = f"not all of a snapshot of {container} can be removed"
    _do(container, reply, lambda: snapshots.remove(paths, container, directory), message)


def double(item: DoubleItem, reply: Reply, paths: Paths) -> None:
    """Give a container that has never run a copy of another one's delta."""
    source, to = item["container"], item["to"]

    def work() -> None:
        doubles.make(paths, (source, item["first_id"]), (to, item["to_first_id"]), reply.fileno())

    _do(source, reply, work, f"the delta of {source} can't be copied")


def restore(item: RestoreItem, reply: Reply, paths: Paths) -> None:
    """Give a container the delta of a snapshot."""
    container = item["container"]

    def work() -> None:
        kept = None if item["kept"] is None else snapshots.parse(item["kept"].encode(), "the request")
        restoring.restore(paths, container, item["name"], kept, reply.fileno())

    _do(container, reply, work, f"the snapshot {item['name']} of {container} can't be restored")


def finish(container: str, reply: Reply, paths: Paths) -> None:
    """Do the rest of a restoration that was broken off; the note names the snapshot that the container got by it."""
    found: list[str] = []

    def work() -> None:
        if name := restoring.finish(paths, container):
            found.append(name)

    _do(container, reply, work, f"{container}: its restoration can't be finished", found)


def _do(container: str, reply: Reply, work: Callable[[], None], message: str, notes: list[str] | None = None) -> None:
    with syscalls.unhurried():
        try:
            work()
        except OSError as error:
            answer(reply, container, HostError.from_os_error(message, error))
        except FleetError as error:
            answer(reply, container, error)
        else:
            answer(reply, container, notes=notes or ())
