"""Mounting a container's layers, always in a mount namespace of its own: base, mask, delta.

What is mounted here the host's own mount table never shows, and it goes when the last process of the
namespace does. So every start has a fresh overlay, and a crash leaves nothing to clean up.

An overlay shows one file system of the host. Each part (see host.kernel.mounts) has one of its own, over the same three
layers: the part, the mask's directory for it, and the delta's.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from lxcfleet.errors import HostError, Unsupported
from lxcfleet.host.kernel import mounts, quota, syscalls
from lxcfleet.paths import ContainerPaths, Paths
from lxcfleet.spec.terms import RANGE_SIZE

OPTIONS = "index=off,metacopy=off,redirect_dir=off,xino=off"
"""With these the kernel allows lower layers to change while nothing has the overlay mounted
(Documentation/filesystems/overlayfs.rst, "Changes to underlying filesystems")."""

BUSY_SECONDS = 5.0
"""How long the kernel may take to let go of the delta after the last process of an earlier mount is gone."""


class _Part(NamedTuple):
    """A part that the container sees."""

    point: str
    upper: int
    """A descriptor of the delta's directory for it."""
    flags: int


@contextlib.contextmanager
def mask_stays(paths: Paths, *, change: bool = False) -> Iterator[None]:
    """Meanwhile nobody exchanges the mask; with ``change``, nobody takes it along who could find none.

    Between two system calls there is none in the launcher's mount namespace. Who copies that gets the one before or the
    one after, and keeps it.
    """
    directory = os.open(paths.run, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX if change else fcntl.LOCK_SH)
        yield
    finally:
        os.close(directory)


def mount(paths: Paths, name: str, first_id: int | None, disk: int) -> None:
    """Mount the container's root in the mount namespace of this process, at ``paths.root_mount``.

    ``disk``: how many bytes its delta may take; 0: no limit.

    Base and mask are shifted into the container's id range; the delta is not: its files already have the
    range's owners, and a shifted upper layer fails with EOVERFLOW (kernel 6.1 to 6.18).
    """
    if not os.path.ismount(paths.mask_mount):
        raise HostError(f"{name} can't be mounted", why="the mask is not: all of the host's files would show")
    # The mask says which: of a part that it was not made for all files would show.
    marked = mounts.marked(str(paths.mask_mount))
    _mount_lower(paths, name, first_id, marked)
    own = paths.container(name)
    works = sorted(own.directory.glob("work*"))
    project = 0 if first_id is None else quota.keep([*works, own.delta], first_id, disk)
    seen: list[_Part] = []
    try:
        seen.extend(_seen(paths, own, marked, project))
        # The deepest first, and below the root's last: the kernel's log would have a line for each overlay whose upper
        # directory is inside that of another that is mounted already (fs/overlayfs/super.c, ovl_check_layer).
        for part in reversed(seen):
            work = own.part_work(part.point)
            work.mkdir(mode=0o700, exist_ok=True)
            quota.mark(work, project)
            upper = Path(f"/proc/self/fd/{part.upper}")
            _overlay(paths, name, first_id, part.point, upper, work, paths.part_mount, part.flags)
        _overlay(paths, name, first_id, "", own.delta, own.work, paths.root_mount)
        for part in seen:
            syscalls.move(paths.part_mount, Path(f"{paths.root_mount}{part.point}"))
    finally:
        for part in seen:
            os.close(part.upper)


def _mount_lower(paths: Paths, name: str, first_id: int | None, marked: dict[str, str]) -> None:
    """Mount base, its parts and mask, read-only, with the container's owners."""
    namespace = None if first_id is None else syscalls.user_namespace(first_id, RANGE_SIZE)
    try:
        syscalls.clone_read_only(Path("/"), paths.base_mount, namespace)
        for point, identity in marked.items():
            clone = f"{paths.base_mount}{point}"
            syscalls.clone_read_only(Path(point), Path(clone), namespace)
            if mounts.identify(clone) != identity:
                raise HostError(
                    f"{name} can't be mounted",
                    why=f"on {point} is not what was there when the mask was made",
                    hint="try again: the next start looks at it",
                )
        syscalls.clone_read_only(paths.mask_mount, paths.mask_mount, namespace)
        if namespace is not None:
            # For liblxc, which is told to use this one (lxc.namespace.share.user) and makes none.
            syscalls.mount(f"/proc/self/fd/{namespace}", paths.user_namespace, "none", syscalls.MS_BIND, "")
    except OSError as error:
        if error.errno == errno.EINVAL and namespace is not None:
            raise Unsupported(
                f"{name} can't be unprivileged on this host",
                why=f"{error.filename}: its file system can't be mounted with shifted owners (errno {error.errno})",
                hint="`lxcfleet doctor` tells what is missing; --privileged does without, and is less safe",
            ) from error
        raise
    finally:
        if namespace is not None:
            os.close(namespace)


def _seen(paths: Paths, own: ContainerPaths, marked: dict[str, str], project: int) -> Iterator[_Part]:
    """The parts that the container has not put something else in the place of, those further up first."""
    for point in marked:
        upper = _upper(own, point, paths.mask_mount, project)
        if upper is not None:
            # As on the host: what may not be run there, or not with other rights, may not be here.
            flags = os.statvfs(f"{paths.base_mount}{point}").f_flag
            kept = (syscalls.MS_NOSUID if flags & os.ST_NOSUID else 0) | (syscalls.MS_NOEXEC if flags & os.ST_NOEXEC else 0)
            yield _Part(point, upper, kept)


def _upper(own: ContainerPaths, point: str, mask: Path, project: int) -> int | None:
    """Open the delta's directory for a part, and make it if it is missing, with owner and mode that the mask has for it.

    None where a container that ran when this was no part yet has removed or replaced the directory (a directory made
    anew is opaque, which the top of an overlay can't be): the root's overlay shows what it wants then. Follows no
    link that it may have left.
    """
    handle = os.open(own.delta, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    done = str(mask)
    for name in point.split("/")[1:]:
        above, done = handle, f"{done}/{name}"
        try:
            handle = _open_or_make(above, name, own, os.stat(done), project)
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                return None
            raise
        finally:
            os.close(above)
        if _is_opaque(handle):
            os.close(handle)
            return None
    return handle


def _open_or_make(above: int, name: str, own: ContainerPaths, like: os.stat_result, project: int) -> int:
    flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(name, flags, dir_fd=above)
    except FileNotFoundError:
        pass
    # Elsewhere first: whatever ends us, the container never finds it without its owner and mode.
    new = own.directory / "part.new"
    new.mkdir(mode=0o700, exist_ok=True)
    os.chown(new, like.st_uid, like.st_gid)
    os.chmod(new, stat.S_IMODE(like.st_mode))
    quota.mark(new, project)
    os.rename(new, name, dst_dir_fd=above)
    return os.open(name, flags, dir_fd=above)


def _is_opaque(handle: int) -> bool:
    try:
        return os.getxattr(f"/proc/self/fd/{handle}", mounts.OPAQUE) == b"y"
    except OSError:
        return False


def _overlay(
    paths: Paths, name: str, first_id: int | None, point: str, upper: Path, work: Path, target: Path, flags: int = 0
) -> None:
    """Mount the overlay of the directory ``point`` (empty: of the root) of mask and base.

    The kernel writes to the delta as who mounted it (fs/overlayfs/super.c, creator_cred), and root may have the blocks
    that ext4 keeps for root when all others are taken. So it is mounted as the container's first id.
    """
    options = f"lowerdir={paths.mask_mount}{point}:{paths.base_mount}{point},upperdir={upper},workdir={work},{OPTIONS}"
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            with syscalls.acting_as(first_id or 0):
                syscalls.mount("lxcfleet", target, "overlay", syscalls.MS_NODEV | flags, options)
            return
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                what = f"its overlay of {point}" if point else "its overlay"
                raise HostError.from_os_error(
                    f"{name}: {what} can't be mounted", error, hint="`dmesg | tail` has the kernel's reason"
                ) from error
            time.sleep(0.02)
