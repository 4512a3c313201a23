"""Snapshots of deltas on disk: a directory for each, with its record and its files. The file system is the database.

They lie beside the containers, in ``paths.snapshots``: on the file system of the deltas, so that blocks can be shared, and
not in a container's directory, so that they outlive it. A snapshot is put together under another name, and gets its own by
one rename; it loses its name by one rename before it is removed. So whenever that is broken off, there is the whole snapshot,
or a directory whose name says that it is left over.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from lxcfleet.data import records
from lxcfleet.errors import AlreadyExists, Broken, Busy, HostError, InvalidInput, NotFound
from lxcfleet.host.kernel import mounts, syscalls, tree
from lxcfleet.host.process import copying
from lxcfleet.paths import ContainerPaths, Paths, SnapshotPaths
from lxcfleet.spec.container.snapshots import check_snapshot
from lxcfleet.spec.reading import ondisk
from lxcfleet.spec.reading.names import check_name

_VERSION = 1
_TRIES = 1000
_LARGEST = 65536
"""Bytes of a record."""

ASKED, SCHEDULE, RESTORE = "asked", "schedule", "restore"
"""The possible causes of a snapshot."""


@dataclass(frozen=True)
class Snapshot:
    """A snapshot of a container's delta."""

    container: str
    name: str
    created: str
    """When it was made, ISO 8601 in UTC."""
    why: str
    """The reason for which it was made; may be empty."""
    made_by: str
    """asked: somebody asked for it; schedule; restore: it was the container's delta before another one was restored."""
    first_id: int
    """The first of the ids that its files have; 0: those of the host, as the container was privileged."""
    born: str
    """When the container was created: another one of that name is not the same."""
    bytes: int
    """The disk space that the delta took then."""
    shared: bool
    """Whether it shared the blocks with the delta then, and took next to no space of its own."""
    frozen_ms: int | None
    """For how many milliseconds the container was frozen for it; None: it was not."""


_DATA: dict[str, tuple[type, ...]] = {
    "container": (str,), "name": (str,), "created": (str,), "why": (str,), "made_by": (str,), "first_id": (int,),
    "born": (str,), "bytes": (int,), "shared": (bool,), "frozen_ms": (int, type(None)),
}  # fmt: skip


def dump(snapshot: Snapshot) -> str:
    """The text of the record."""
    return json.dumps({"version": _VERSION, **asdict(snapshot)}, indent=1) + "\n"


def parse(text: bytes, where: str) -> Snapshot:
    """The record that ``text`` is; ``where``: its path, for errors. Raises Broken."""
    try:
        data = ondisk.parse(text)
        _check(data)
    except ValueError as error:
        raise Broken("the record of a snapshot can't be used", why=f"{where}: {error}") from error
    del data["version"]
    return Snapshot(**data)


def _check(data: Any) -> None:
    """Raises ValueError for the first mistake."""
    if not isinstance(data, dict) or data.get("version") != _VERSION:
        raise ValueError("it is no JSON object of a version that is known")
    for key in (each.name for each in fields(Snapshot)):
        if key not in data:
            raise ValueError(f"{key} is missing; the file may have been cut off")
        if type(data[key]) not in _DATA[key]:
            raise ValueError(f"{key} is {data[key]!r}")
    if extra := data.keys() - {*_DATA, "version"}:
        raise ValueError(f"{min(extra)!r} is not known")
    datetime.fromisoformat(data["created"])


# -- what there is -----------------------------------------------------------------------------------------------


def containers(paths: Paths) -> list[str]:
    """The names of containers that have snapshots, also of those that no longer exist."""
    return [name for name in _listed(paths.snapshots) if _is(check_name, name) and names(paths, name)]


def names(paths: Paths, container: str) -> list[str]:
    """The names of a container's snapshots."""
    return [name for name in _listed(paths.snapshots_of(container)) if _is(check_snapshot, name)]


def _is(check: Any, name: str) -> bool:
    with contextlib.suppress(InvalidInput):
        check(name)
        return True
    return False


def _listed(directory: Path) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []


def load(paths: Paths, container: str, name: str) -> Snapshot | Broken | None:
    """The snapshot; Broken if its record can't be used; None if there is no such snapshot."""
    own = paths.snapshot(container, name)
    what = f"the snapshot {name} of {container}"
    found = records.load(own.record, what, lambda text: parse(text, str(own.record)), _LARGEST)
    if isinstance(found, Snapshot) and (found.container, found.name) != (container, name):
        return Broken(f"{own.directory} is broken", why=f"its record is that of {found.container}: {found.name}")
    return found


def all_of(paths: Paths, container: str) -> Iterator[tuple[str, Snapshot | Broken]]:
    """A container's snapshots, the oldest first; those that are broken come last."""
    found = [(name, load(paths, container, name)) for name in names(paths, container)]
    there = [(name, each) for name, each in found if each is not None]
    yield from sorted(there, key=lambda pair: (isinstance(pair[1], Broken), getattr(pair[1], "created", ""), pair[0]))


def get(paths: Paths, container: str, name: str) -> Snapshot:
    """The snapshot, if it can be used. Raises NotFound, Broken."""
    found = load(paths, container, name)
    if found is None:
        raise NotFound(
            f"{container} has no snapshot {name}", hint=f"`lxcfleet snapshot list {container}` shows those that exist"
        )
    if isinstance(found, Broken):
        raise found
    return found


def leftovers(paths: Paths) -> list[tuple[str, str]]:
    """Containers and names of directories that are half made or half removed."""
    return [
        (container, name)
        for container in _listed(paths.snapshots)
        for name in _listed(paths.snapshots / container)
        if name.startswith((Paths.NEW_PREFIX, Paths.GONE_PREFIX))
    ]


def new(paths: Paths, container: str, name: str) -> SnapshotPaths:
    """Where it is put together before it gets its own name."""
    return paths.snapshot(container, f"{Paths.NEW_PREFIX}{name}")


# -- what the launcher's children do ----------------------------------------------------------------------------------


def _make_place(paths: Paths, made: SnapshotPaths) -> None:
    """Make a directory for a snapshot, and those above. Raises OSError."""
    for left in reversed(range(_TRIES)):
        try:
            for directory in (paths.snapshots, made.directory.parent):
                directory.mkdir(mode=0o700, exist_ok=True)
                os.chmod(directory, 0o700)
            made.directory.mkdir(mode=0o700)
        except FileNotFoundError:
            if not left:  # whoever removes another snapshot removes empty directories
                raise
        else:
            return


def copy(paths: Paths, container: str, source: Path, made: SnapshotPaths, asker: int) -> None:
    """Copy a delta to ``made``, a new directory. Raises FleetError, OSError; then nothing of it is there."""
    tree.remove(made.directory)
    try:
        _make_place(paths, made)
        made.delta.mkdir(mode=0o700)
        copying.copy(source, made.delta, asker)
    except BaseException:
        remove(paths, container, made.directory.name)
        raise


def take(paths: Paths, container: str, name: str, asker: int) -> None:
    """Copy a container's delta and what goes with it, under another name; ``seal`` gives it its own. Raises FleetError,
    OSError; then nothing of it is there."""
    own, made = paths.container(container), new(paths, container, name)
    copy(paths, container, own.delta, made, asker)
    try:
        keep_base(own, made)
    except BaseException:
        remove(paths, container, made.directory.name)
        raise


def keep_base(source: ContainerPaths | SnapshotPaths, target: ContainerPaths | SnapshotPaths) -> None:
    """Give ``target`` the record of what the base was like, with the file that it names. Raises OSError."""
    try:
        text = ondisk.text(source.base_record)
    except FileNotFoundError:
        target.base_record.unlink(missing_ok=True)  # the delta is one of a container that has never run
        return
    for file in source.directory.glob(source.base_snapshot("*").name):
        beside = target.directory / file.name
        if not beside.exists():
            try:
                os.link(file, beside)
            except OSError:
                shutil.copyfile(file, beside)
    tree.write(target.base_record, text, sync=True)


def seal(paths: Paths, snapshot: Snapshot) -> None:
    """Give a snapshot that was taken its record and its name; it is on disk then. Raises FleetError, OSError."""
    made = new(paths, snapshot.container, snapshot.name)
    own = paths.snapshot(snapshot.container, snapshot.name)
    if not made.directory.is_dir() and load(paths, snapshot.container, snapshot.name) == snapshot:
        return  # it is asked for once more, as the answer got lost
    tree.write(made.record, dump(snapshot), sync=True)
    tree.sync_file_system(made.directory)
    try:
        tree.give_name(made.directory, own.directory)
    except FileExistsError as error:
        raise exists(snapshot.container, snapshot.name) from error


def exists(container: str, name: str) -> AlreadyExists:
    """The error for a snapshot that is to be made and exists."""
    return AlreadyExists(f"{container} has a snapshot {name} already", hint="give it another --name")


def keep_for_reading(paths: Paths, container: str, name: str) -> int:
    """A lock, which keeps a snapshot from being removed until no process has this descriptor any more. Raises NotFound,
    HostError, OSError."""
    own = paths.snapshot(container, name)
    get(paths, container, name)
    descriptor = os.open(own.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    get(paths, container, name)  # it may have been removed just before
    return descriptor


@contextlib.contextmanager
def unread(paths: Paths, container: str, name: str) -> Iterator[None]:
    """See that nobody reads a snapshot that is to be removed, and begins to. Raises Busy."""
    with contextlib.ExitStack() as held:
        with contextlib.suppress(FileNotFoundError):
            own = paths.snapshot(container, name)
            descriptor = os.open(own.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            held.callback(os.close, descriptor)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise Busy(
                    f"the snapshot {name} of {container} is in use", why="a program of `lxcfleet backup run` reads it",
                    hint="wait until that has ended",
                ) from error  # fmt: skip
        yield


def retire(paths: Paths, container: str, name: str) -> str:
    """Take a snapshot's name away, by one rename; the new name of its directory, empty: there is none. Raises HostError,
    Busy."""
    with unread(paths, container, name):
        return _retire(paths, container, name)


def _retire(paths: Paths, container: str, name: str) -> str:
    own = paths.snapshot(container, name)
    mounts.refuse_removal(f"the snapshot {name} of {container}", [own.directory])
    return _rename_away(paths, container, own.directory, name)


def set_aside(paths: Paths, container: str, directory: str) -> str:
    """Give a directory that is half made a name under which it waits to be removed; gives that. Raises HostError."""
    if directory.startswith(Paths.GONE_PREFIX):
        return directory
    name = directory.removeprefix(Paths.NEW_PREFIX)
    return _rename_away(paths, container, paths.snapshot(container, directory).directory, name)


def _rename_away(paths: Paths, container: str, directory: Path, name: str) -> str:
    for number in range(_TRIES):
        gone = f"{Paths.GONE_PREFIX}{name}.{number}"
        try:
            syscalls.rename_new(directory, paths.snapshot(container, gone).directory)
        except FileExistsError:
            continue
        except FileNotFoundError:
            return ""
        except OSError as error:
            raise HostError.from_os_error(f"the snapshot {name} of {container} can't be removed", error) from error
        return gone
    raise HostError(f"the snapshot {name} of {container} can't be removed", why="too many like it are left over")


def remove(paths: Paths, container: str, directory: str) -> None:
    """Remove what is left of a snapshot, by its directory's name; neither links nor mounts are followed. Raises FleetError,
    OSError."""
    tree.remove(paths.snapshot(container, directory).directory)
    remove_empty(paths, container)


def remove_empty(paths: Paths, container: str = "") -> None:
    """Remove the directory for a container's snapshots if there is none in it, and the one for all. Whoever makes a snapshot
    makes them anew. ``container``: of this one; empty: of each."""
    each = [container] if container else _listed(paths.snapshots)
    for directory in (*map(paths.snapshots_of, each), paths.snapshots):
        with contextlib.suppress(OSError):  # something is in it, or it is gone
            directory.rmdir()
