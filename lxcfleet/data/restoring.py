"""Gives a container that does not run the delta of a snapshot.

The snapshot is copied first, beside the other snapshots. Then container and copy exchange their deltas, in one step of the
kernel's: at each moment the container has the one or the other, whole. The former delta is then where the copy was, under the
name of a snapshot of its own, or as a directory to be removed.

From before that step until all that goes with it is done, the container has a journal. ``finish`` reads it, and does the
rest, or takes back what was prepared: a new daemon calls it, the next try, and the container's next start.
"""

from __future__ import annotations

import json
import logging
import os
from typing import Any

from lxcfleet.data import snapshots
from lxcfleet.data.snapshots import Snapshot
from lxcfleet.errors import Broken, WrongState
from lxcfleet.host.kernel import mounts, syscalls, tree
from lxcfleet.host.lxc import monitor
from lxcfleet.paths import Paths
from lxcfleet.spec.reading import ondisk

log = logging.getLogger(__name__)

_STAGE = "restore"
"""The name under which the copy is made if the former delta is not kept."""


def restore(paths: Paths, container: str, name: str, kept: Snapshot | None, asker: int) -> None:
    """Give the container the delta of its snapshot ``name``. ``kept``: the snapshot that its present delta becomes; None:
    that is removed. Raises FleetError, OSError; then the container has the delta that it had."""
    found = finish(paths, container)
    if found == name or (kept is not None and snapshots.load(paths, container, kept.name) == kept):
        return  # it is asked for once more, as the answer got lost
    snapshots.get(paths, container, name)
    own = paths.container(container)
    mounts.refuse_removal(f"the present delta of {container}", [own.delta])
    staged = snapshots.new(paths, container, _STAGE if kept is None else kept.name)
    snapshots.copy(paths, container, paths.snapshot(container, name).delta, staged, asker)
    try:
        if kept is not None:
            snapshots.keep_base(own, staged)
            tree.write(staged.record, snapshots.dump(kept))
        tree.sync_file_system(staged.directory)
        _refuse_running(paths, container)
        journal = {
            "from": name, "kept": None if kept is None else kept.name, "inode": os.lstat(staged.delta).st_ino,
        }  # fmt: skip
        tree.write(own.restoring, json.dumps(journal) + "\n", sync=True)
    except BaseException:
        tree.remove(staged.directory)
        raise
    try:
        if kept is not None:
            there = paths.snapshot(container, kept.name)
            syscalls.rename_new(staged.directory, there.directory)
            staged = there
        syscalls.exchange(own.delta, staged.delta)
    finally:
        finish(paths, container)


def finish(paths: Paths, container: str) -> str:
    """Do the rest of an exchange that was broken off, or take back what was prepared for it. Gives the snapshot that the
    container has got; empty: none. Raises FleetError, OSError."""
    own = paths.container(container)
    try:
        journal: dict[str, Any] = ondisk.record(own.restoring, ondisk.SMALL)
        name, kept, inode = str(journal["from"]), journal["kept"], int(journal["inode"])
    except FileNotFoundError:
        return ""
    except (ValueError, KeyError, TypeError) as error:
        raise Broken(
            f"{container}: whether its delta was exchanged is not known", why=f"{own.restoring}: {error}",
            hint=f"if its files are the right ones: rm {own.restoring}",
        ) from error  # fmt: skip
    done = os.lstat(own.delta).st_ino == inode
    if done:
        _have_base(paths, container, name)
    elif kept is not None:
        _take_back(paths, container, str(kept), inode)
    tree.sync_file_system(own.directory)
    own.restoring.unlink(missing_ok=True)
    if kept is None:
        staged = snapshots.new(paths, container, _STAGE).directory
        tree.remove(staged)
    return name if done else ""


def _have_base(paths: Paths, container: str, name: str) -> None:
    """Give the container the record of the base that belongs to its delta."""
    source = paths.snapshot(container, name)
    if source.directory.is_dir():
        snapshots.keep_base(source, paths.container(container))
    else:
        log.error("%s: the snapshot %s is gone, so what its base was like is not known", container, name)


def _take_back(paths: Paths, container: str, kept: str, inode: int) -> None:
    """Remove the copy that was to change places with the delta, and did not: it has nothing that the snapshot has not."""
    there = paths.snapshot(container, kept)
    try:
        is_copy = os.lstat(there.delta).st_ino == inode
    except FileNotFoundError:
        is_copy = False
    if is_copy:
        gone = snapshots.retire(paths, container, kept)
        if gone:
            snapshots.remove(paths, container, gone)


def _refuse_running(paths: Paths, container: str) -> None:
    if monitor.runs(container, str(paths.lxc)):
        raise WrongState(
            f"{container} runs, so its delta can't be exchanged", why="somebody started it meanwhile",
            hint=f"stop it first: lxcfleet stop {container}",
        )  # fmt: skip
