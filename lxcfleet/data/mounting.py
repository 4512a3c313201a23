"""Mounts what a container has beside its layers, in the mount namespace of this process: volumes, directories of the host,
file systems in memory, and the release of its app.

Root of a container may have left anything at the places where they are mounted, and a volume may be in use by another
container at that moment. So each place is reached directory by directory, no link is followed, and what is mounted goes to
the directory that was reached, whatever its name is by then.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

from lxcfleet.data import volumes
from lxcfleet.data.apps import store
from lxcfleet.errors import HostError, InvalidInput, Unsupported
from lxcfleet.host.kernel import mounts, syscalls
from lxcfleet.paths import Paths
from lxcfleet.spec.container.apps import parse_release
from lxcfleet.spec.container.volumes import IdsOwner, MountKind, VolumeMount, parse_mount

_PATH = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OTHERS = stat.S_IXGRP | stat.S_IXOTH
_KERNELS = frozenset((
    "autofs", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "devtmpfs", "efivarfs", "fusectl",
    "mqueue", "nsfs", "proc", "pstore", "securityfs", "selinuxfs", "sysfs", "tracefs",
))  # fmt: skip
"""File systems that show the kernel's own state, the host's processes among it."""


def in_order(mounted: Sequence[VolumeMount]) -> list[VolumeMount]:
    """The mounts so that what lies below another one comes after it."""
    return sorted(mounted, key=lambda mount: mount.target.count("/"))


def mount(paths: Paths, name: str, wanted: Sequence[str], first_id: int | None) -> None:
    """Mount what the container ``name`` wants, below its root at ``paths.root_mount``. Raises FleetError.

    ``wanted``: as texts; ``first_id``: where the container's ids begin on this host; None: it is privileged.
    """
    for each in in_order([parse_mount(text) for text in wanted]):
        try:
            place = reach(paths.root_mount, each.target, first_id or 0)
            try:
                _mount_at(paths, each, place, first_id)
            finally:
                os.close(place)
        except OSError as error:
            raise HostError.from_os_error(f"{each} can't be mounted in {name}", error) from error


def _mount_at(paths: Paths, each: VolumeMount, place: int, first_id: int | None) -> None:
    if each.source is MountKind.TMPFS:
        owner = first_id or 0
        options = f"mode={each.mode:o},size={each.size},uid={owner},gid={owner}"
        syscalls.mount("tmpfs", f"/proc/self/fd/{place}", "tmpfs", _flags(each), options)
        return
    tree = open_source(paths, each, first_id)
    try:
        syscalls.attach_at(tree, place, each.target)
    finally:
        os.close(tree)


def open_source(paths: Paths, each: VolumeMount, first_id: int | None) -> int:
    """A descriptor of a new mount of a volume or of a directory of the host, for a container with these ids.

    Raises FleetError, OSError.
    """
    if each.source is MountKind.VOLUME:
        volume = volumes.check(paths, each.what)
        return volumes.show(paths.volume(each.what), volume, first_id or 0, _flags(each))
    if each.source is MountKind.APP:
        return store.show(paths, *parse_release(each.what), first_id, _flags(each))
    handle = open_host(paths, each)
    try:
        if each.owner is IdsOwner.HOST or first_id is None:
            return syscalls.clone_apart(handle, _flags(each), None, each.what)
        return volumes.clone(handle, each.what, _flags(each), 0, first_id)
    finally:
        os.close(handle)


def _flags(each: VolumeMount) -> int:
    flags = {
        syscalls.MS_RDONLY: each.read_only, syscalls.MS_NOSUID: not each.suid, syscalls.MS_NODEV: not each.dev,
        syscalls.MS_NOEXEC: each.noexec,
    }  # fmt: skip
    return sum(flag for flag, wanted in flags.items() if wanted)


# -- the place inside ---------------------------------------------------------------------------------------------


def reach(root: Path, target: str, owner: int) -> int:
    """A descriptor of the directory ``target`` below ``root``; it is made if it is missing, as the container's root would.

    ``owner``: root of the container, as this host numbers it. Raises InvalidInput if a link or a file is in the way.
    """
    handle, done = os.open(root, _PATH), ""
    for name in target.split("/")[1:]:
        above, done = handle, f"{done}/{name}"
        try:
            handle = _open_or_make(above, name, owner)
        finally:
            os.close(above)
        mode = os.fstat(handle).st_mode
        if not stat.S_ISDIR(mode):
            os.close(handle)
            refuse_place(target, done, link=stat.S_ISLNK(mode))
    return handle


def refuse_place(target: str, path: str, *, link: bool) -> None:
    """Raise InvalidInput, as no directory is at ``path``."""
    raise InvalidInput(
        f"nothing can be mounted at {target}", why=f"{path} is {'a link' if link else 'no directory'} in the container",
        hint="name the directory that it leads to" if link else "choose another place, or remove what is there",
    )  # fmt: skip


def _open_or_make(above: int, name: str, owner: int) -> int:
    try:
        return syscalls.look_across(above, name)
    except FileNotFoundError:
        pass
    with syscalls.acting_as(owner, owner), contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o755, dir_fd=above)
    return syscalls.look_across(above, name)


# -- directories of the host --------------------------------------------------------------------------------------


def open_host(paths: Paths, each: VolumeMount) -> int:
    """A descriptor of a directory of the host that a container may have. Raises InvalidInput, Unsupported, OSError."""
    path = each.what
    try:
        handle = _walk(path)
    except FileNotFoundError:
        raise InvalidInput(f"{path} can't be mounted", why="this host has no such directory") from None
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR):
            raise
        link = error.errno == errno.ELOOP
        raise InvalidInput(
            f"{path} can't be mounted", why="there is a link in this path" if link else "it is no directory",
            hint=f"the directory that it leads to: {os.path.realpath(path)}" if link else "mount the directory that has it",
        ) from error  # fmt: skip
    try:
        _check_host(paths, each, handle)
    except BaseException:
        os.close(handle)
        raise
    return handle


def _walk(path: str) -> int:
    root = os.open("/", _PATH)
    try:
        handle = syscalls.look_across(root, path.lstrip("/"))
    finally:
        os.close(root)
    mode = os.fstat(handle).st_mode
    if not stat.S_ISDIR(mode):
        os.close(handle)
        number = errno.ELOOP if stat.S_ISLNK(mode) else errno.ENOTDIR
        raise OSError(number, os.strerror(number), path)
    return handle


def _check_host(paths: Paths, each: VolumeMount, handle: int) -> None:
    path = each.what
    above = _way_up(handle)
    for own in (paths.lxc, paths.state, paths.run, paths.etc):
        with contextlib.suppress(FileNotFoundError):
            held = _way_up_of(own)
            if held[0] in above or above[0] in held:
                raise InvalidInput(
                    f"{path} can't be mounted", why=f"a container could reach lxcfleet's own files there, in {own}",
                    hint="mount a directory that has nothing of lxcfleet's in it",
                )  # fmt: skip
    filesystem = {mount.number: mount.filesystem for mount in mounts.table()}.get(syscalls.mount_number(path) or 0, "")
    if filesystem in _KERNELS:
        raise InvalidInput(f"{path} can't be mounted", why=f"it is of the kernel's {filesystem}, with the host's own state")
    if each.owner is IdsOwner.CONTAINER and not each.read_only and _within_reach(path):
        raise InvalidInput(
            f"{path} can't be given to a container to write with the host's own ids",
            why="a container could leave a setuid program of root's there, which any user of the host could run",
            hint=f"keep other users out of it: chmod 0700 {path}; or use a volume",
        )


def _way_up_of(path: Path) -> list[tuple[int, int]]:
    handle = os.open(path, _PATH & ~os.O_NOFOLLOW)
    try:
        return _way_up(handle)
    finally:
        os.close(handle)


def _way_up(handle: int) -> list[tuple[int, int]]:
    """The directory and all those above it, up to the root: their devices and inodes."""
    found: list[tuple[int, int]] = []
    current = os.dup(handle)
    try:
        while True:
            status = os.fstat(current)
            identity = (status.st_dev, status.st_ino)
            if found and identity == found[-1]:
                return found
            found.append(identity)
            upper = os.open("..", _PATH, dir_fd=current)
            os.close(current)
            current = upper
    finally:
        os.close(current)


def _within_reach(path: str) -> bool:
    """Whether users of the host other than root can run what is at ``path``."""
    if os.statvfs(path).f_flag & os.ST_NOSUID:
        return False
    parts = path.split("/")
    ways = ["/".join(parts[: number + 1]) or "/" for number in range(1, len(parts))]
    return all(os.stat(way).st_mode & _OTHERS or os.stat(way).st_uid for way in ways)


# -- before anything is mounted -----------------------------------------------------------------------------------


def check(paths: Paths, wanted: Sequence[str], first_id: int | None) -> None:
    """Raise FleetError if anything of what a container wants can't be mounted. Nothing is mounted.

    ``first_id``: where the container's ids begin, or any other range, if that is not known yet.
    """
    for each in in_order([parse_mount(text) for text in wanted]):
        if each.source is MountKind.TMPFS:
            continue
        try:
            os.close(open_source(paths, each, first_id))
        except OSError as error:
            if error.errno == errno.EINVAL and each.source is MountKind.HOST:
                raise Unsupported(f"{each.what} can't be mounted", why="its file system does not allow it") from error
            raise HostError.from_os_error(f"{each} can't be mounted", error) from error


def check_places(look: Callable[[str], int | None], wanted: Sequence[str]) -> None:
    """Raise InvalidInput if a link or a file is in the way to a place where something is to be mounted.

    ``look``: gives the mode of what a container has at a path, without following links; None if it has nothing there.
    """
    covered: list[str] = []
    for each in in_order([parse_mount(text) for text in wanted]):
        parts = each.target.split("/")
        for number in range(2, len(parts) + 1):
            path = "/".join(parts[:number])
            if path in covered or (mode := look(path)) is None:
                break
            if not stat.S_ISDIR(mode):
                refuse_place(each.target, path, link=stat.S_ISLNK(mode))
        covered.append(each.target)
