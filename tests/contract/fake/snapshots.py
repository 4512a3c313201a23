"""The launcher's operations on snapshots over the fake launcher: the real code, as deltas are real directories there, too."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lxcfleet.data import doubles, restoring, snapshots
from lxcfleet.errors import FleetError, HostError
from lxcfleet.launcher import operations
from lxcfleet.launcher.children.answer import answer
from lxcfleet.launcher.items.snapshots import DoubleItem, RestoreItem, SealItem, SnapshotItem
from lxcfleet.paths import Paths


@dataclass
class Place:
    """The file system of the model."""

    shares: bool = True
    free: int = 1 << 40


def bound(
    paths: Paths, place: Place, work: Callable[[str], None]
) -> dict[str, Callable[[Any, socket.socket], None]]:
    """The operations. ``work`` is called in the middle of each; it may raise FleetError."""

    def do(container: str, reply: socket.socket, act: Callable[[], object]) -> None:
        try:
            work(container)
            done = act()
        except FleetError as error:
            answer(reply, container, error)
        except OSError as error:
            answer(reply, container, HostError.from_os_error("the snapshot failed", error))
        else:
            answer(reply, container, notes=[done] if isinstance(done, str) and done else ())

    def look(_: None, reply: socket.socket) -> None:
        reply.send(json.dumps({"error": None, "shares": place.shares, "free": place.free}).encode())

    def take(item: SnapshotItem, reply: socket.socket) -> None:
        do(item["container"], reply, lambda: snapshots.take(paths, item["container"], item["name"], reply.fileno()))

    def seal(item: SealItem, reply: socket.socket) -> None:
        do(item["container"], reply, lambda: snapshots.seal(paths, snapshots.parse(item["record"].encode(), "")))

    def remove(item: SnapshotItem, reply: socket.socket) -> None:
        do(item["container"], reply, lambda: snapshots.remove(paths, item["container"], item["name"]))

    def restore(item: RestoreItem, reply: socket.socket) -> None:
        kept = None if item["kept"] is None else snapshots.parse(item["kept"].encode(), "")
        container = item["container"]
        do(container, reply, lambda: restoring.restore(paths, container, item["name"], kept, reply.fileno()))

    def double(item: DoubleItem, reply: socket.socket) -> None:
        # Not with other ids, which takes a mount.
        do(item["container"], reply, lambda: doubles.make(paths, (item["container"], 0), (item["to"], 0), reply.fileno()))

    def finish(container: str, reply: socket.socket) -> None:
        do(container, reply, lambda: restoring.finish(paths, container))

    return {
        operations.SNAPSHOT_PLACE: look,
        operations.TAKE_SNAPSHOT: take,
        operations.SEAL_SNAPSHOT: seal,
        operations.REMOVE_SNAPSHOT: remove,
        operations.RESTORE_SNAPSHOT: restore,
        operations.DOUBLE_DELTA: double,
        operations.FINISH_RESTORE: finish,
    }
