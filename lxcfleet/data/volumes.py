"""Volumes on disk: a directory for each, with its record and its data. The file system is the database.

A volume is put together under another name, and gets its own by one rename. It loses its name by one rename before it is
removed. So whenever that is broken off, there is the whole volume, or a directory whose name says that it is left over.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from lxcfleet.data import records
from lxcfleet.errors import AlreadyExists, Broken, FleetError, HostError, InvalidInput, Unsupported, WrongState
from lxcfleet.host.kernel import mounts, quota, syscalls, tree
from lxcfleet.paths import Paths, VolumePaths
from lxcfleet.spec.container.volumes import Volume, check_volume
from lxcfleet.spec.reading import strict_yaml
from lxcfleet.spec.reading.reader import Fields
from lxcfleet.spec.reading.rows import read_said, rows_of
from lxcfleet.spec.reading.terms import RANGE_SIZE
from lxcfleet.units import as_size

log = logging.getLogger(__name__)

_VERSION = 1
_TRIES = 1000


def render(volume: Volume) -> str:
    """The text of ``volume.yaml``."""
    values = {key: row.render(getattr(volume, key)) for key, row in rows_of(Volume).items()}
    lines = [f"{key}: {strict_yaml.inline(value)}" for key, value in {"version": _VERSION, **values}.items()]
    return "\n".join(["# Written by lxcfleet when it created this volume.", *lines, ""])


def parse(name: str, text: bytes, where: str) -> Volume:
    """The record of the volume ``name``; raises Broken with every mistake in ``text``."""
    try:
        fields = Fields(strict_yaml.load(text), where)
        for key in ("version", "first_id"):
            if not fields.has(key):
                fields.complain(key, "is missing; the file may have been cut off")
        fields.integer("version", _VERSION, _VERSION, _VERSION)
        volume = Volume(name, **read_said(rows_of(Volume).values(), fields))
        fields.finish("")
    except (InvalidInput, ValueError) as error:
        why = error.why if isinstance(error, InvalidInput) else f"{where}: {error}"
        raise Broken(
            f"the volume {name} is broken: its record can't be used", why=why,
            hint=f"write the record anew: its files are in {Path(where).parent / 'data'}",
        ) from error  # fmt: skip
    return volume


def load(paths: Paths, name: str) -> Volume | Broken | None:
    """The volume; Broken if its record can't be used; None if there is no such volume."""
    record = paths.volume(name).record
    return records.load(record, f"the volume {name}", lambda text: parse(name, text, str(record)))


def names(paths: Paths) -> list[str]:
    """The names of all volumes. A directory under a name that no volume can have is left alone."""
    found = []
    for name in sorted(_directories(paths)):
        with contextlib.suppress(InvalidInput):
            found.append(check_volume(name))
    return found


def leftovers(paths: Paths) -> list[str]:
    """The names of directories that are half made or half removed."""
    return [name for name in _directories(paths) if name.startswith((Paths.NEW_PREFIX, Paths.GONE_PREFIX))]


def _directories(paths: Paths) -> list[str]:
    try:
        return os.listdir(paths.volumes)
    except FileNotFoundError:
        return []


def ids(paths: Paths) -> Iterator[int]:
    """The first ids of the ranges that volumes have, also those that are half made or half removed: they may have files."""
    for name in _directories(paths):
        volume = load(paths, name)
        if isinstance(volume, Volume):
            yield volume.first_id
            continue
        with contextlib.suppress(OSError):
            # Root of a container may have given the directory to any id of its range.
            owner = os.lstat(paths.volume(name).data).st_uid
            if owner >= RANGE_SIZE:
                yield owner
                yield owner - RANGE_SIZE + 1


def used(paths: Paths, volume: Volume) -> int | None:
    """The bytes on it, without a look at its files; None if its file system does not count them."""
    return quota.counted(paths.volume(volume.name).data, volume.first_id)


def make(paths: Paths, volume: Volume) -> None:
    """Make the volume. Raises FleetError, OSError; then nothing of it is there."""
    new, own = paths.new_volume(volume.name), paths.volume(volume.name)
    paths.volumes.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.chmod(paths.volumes, 0o700)
    tree.remove(new.directory)
    try:
        new.directory.mkdir(mode=0o700)
        new.data.mkdir(mode=0o755)
        os.chown(new.data, volume.first_id, volume.first_id)
        if volume.size:
            limit(new.data, volume)
        try_mount(new, volume)
        tree.write(new.record, render(volume), sync=True)
        tree.give_name(new.directory, own.directory)
    except BaseException as error:
        tree.remove(new.directory)
        if volume.size:
            with contextlib.suppress(OSError):
                quota.forget(paths.volumes, volume.first_id)
        if isinstance(error, FileExistsError):
            raise exists(volume.name) from error
        raise


def change(paths: Paths, volume: Volume) -> None:
    """Give a volume that exists another size or other labels. Raises FleetError, OSError.

    The limit comes first, then the record: if that is broken off in between, the record differs still, and the next change
    has both.
    """
    own, former = paths.volume(volume.name), check(paths, volume.name)
    if volume.first_id != former.first_id:
        raise Broken(f"the volume {volume.name} can't be changed: it was made anew meanwhile")
    if volume.size != former.size:
        refuse_too_small(paths, former, volume.size)
        if volume.size or quota.project_of(own.data) == volume.first_id:
            limit(own.data, volume)
    tree.write(own.record, render(volume), sync=True)


def refuse_too_small(paths: Paths, volume: Volume, size: int) -> None:
    """Raise WrongState if a volume has more on it than ``size`` bytes; 0: no limit."""
    if not size:
        return
    has = used(paths, volume)
    if has is None:
        has = tree.disk_usage(paths.volume(volume.name).data)
    if has > size:
        raise WrongState(
            f"the volume {volume.name} can't get the size {as_size(size)}", why=f"{-(-has >> 20)} MiB are on it",
            hint="remove files first, or give it more",
        )  # fmt: skip


def check_limit(paths: Paths, name: str) -> None:
    """Raise Unsupported if this host could not limit the size of a volume."""
    place = paths.volumes if paths.volumes.is_dir() else paths.volumes.parent
    _refuse_unlimited(place if place.is_dir() else paths.lxc, name)


def limit(data: Path, volume: Volume) -> None:
    """Have the size of a volume kept. Raises FleetError, OSError."""
    _refuse_unlimited(data.parent.parent, volume.name)  # the volume may be under another name yet
    quota.keep([data], volume.first_id, volume.size)


def _refuse_unlimited(place: Path, name: str) -> None:
    if not quota.enforced(place):
        raise Unsupported(
            f"the size of the volume {name} can't be limited",
            why=f"the file system of {place} has no project quotas in force",
            hint="leave --size out, or get them: resources.md of the documentation tells how (/usr/share/doc/lxcfleet)",
        )


def exists(name: str) -> AlreadyExists:
    """The error for a volume that is to be made and exists."""
    return AlreadyExists(f"a volume named {name} exists already", hint="use --ensure if it only has to be there")


def was(directory: str, name: str) -> bool:
    """Whether the directory that is left over was that of the volume ``name``."""
    return directory == f"{Paths.NEW_PREFIX}{name}" or directory.rpartition(".")[0] == f"{Paths.GONE_PREFIX}{name}"


def try_mount(own: VolumePaths, volume: Volume) -> None:
    """Make sure that its files can be shown with other owners. Raises Unsupported."""
    os.close(show(own, volume, volume.first_id - RANGE_SIZE, 0))


def show(own: VolumePaths, volume: Volume, first_id: int, flags: int) -> int:
    """A descriptor of a new mount of its data, with the owners of a container whose ids begin at ``first_id``.

    Raises FleetError if the directory is not the one that lxcfleet made, or can't be shown so.
    """
    try:
        handle = os.open(own.data, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise HostError.from_os_error(f"the volume {volume.name} can't be mounted", error) from error
    try:
        owner = os.fstat(handle).st_uid
        if not 0 <= owner - volume.first_id < RANGE_SIZE:
            raise Broken(
                f"the volume {volume.name} can't be mounted: {own.data} is not the directory that lxcfleet made",
                why=f"its owner should be one of the {RANGE_SIZE} ids from {volume.first_id} on, and is {owner}",
                hint=f"if you are sure of its contents: chown {volume.first_id}:{volume.first_id} {own.data}",
            )
        return clone(handle, str(own.data), flags, volume.first_id, first_id)
    finally:
        os.close(handle)


def clone(source: int, path: str, flags: int, first_id: int, shown: int) -> int:
    """A descriptor of a new mount of the directory ``source``, which shows the owners ``first_id``… as ``shown``….

    ``path``: the directory's name, for errors. Raises Unsupported, OSError.
    """
    namespace = syscalls.user_namespace(shown, RANGE_SIZE, first_id)
    try:
        return syscalls.clone_apart(source, flags, namespace, path)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise Unsupported(
            f"{path} can't be mounted in a container", why="its file system can't be mounted with other owners than it has",
            hint="ext4, xfs and btrfs can, on any kernel that lxcfleet runs on; network file systems and overlays can't",
        ) from error  # fmt: skip
    finally:
        os.close(namespace)


def retire(paths: Paths, name: str) -> None:
    """Take the volume's name away, by one rename. Raises HostError."""
    mounts.refuse_removal(f"the volume {name}", [paths.volume(name).directory])
    for number in range(_TRIES):
        gone = paths.gone_volume(f"{name}.{number}").directory
        try:
            syscalls.rename_new(paths.volume(name).directory, gone)
        except FileExistsError:
            continue
        except FileNotFoundError:
            return
        except OSError as error:
            raise HostError.from_os_error(f"the volume {name} can't be removed", error) from error
        records.have_name_gone(paths.volumes, f"the volume {name}")
        return


def remove(paths: Paths, directory: str) -> None:
    """Remove what is left of a volume, by its directory's name. Raises FleetError, OSError.

    Nothing is followed out of it: neither links, nor mounts.
    """
    own = VolumePaths(paths.volumes / directory)
    project = quota.project_of(own.data)
    if project:
        quota.forget(paths.volumes, project)
    # The record goes last: it says which ids the files have.
    tree.remove(own.data)
    tree.remove(own.directory)


def check(paths: Paths, name: str) -> Volume:
    """The volume, if it can be mounted. Raises FleetError."""
    volume = load(paths, name)
    if volume is None:
        raise InvalidInput(f"there is no volume {name}", hint=f"lxcfleet volume create {name}")
    if isinstance(volume, FleetError):
        raise volume
    return volume
