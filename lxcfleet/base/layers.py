"""Mounting a container's layers, always in a mount namespace of its own.

The host's own mount table never shows these mounts, and they go when the last process of the namespace does.
So every start has a fresh overlay, and a crash leaves nothing to clean up.

The stack and the state of the host's parts decide beforehand what is mounted where (see mount_plan).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from lxcfleet.base import mount_plan
from lxcfleet.base.generations import places
from lxcfleet.base.mount_plan import Image, MountPlan, Overlay, Part, Restricted
from lxcfleet.base.present import Shelf, part_layers
from lxcfleet.base.stack import Stack
from lxcfleet.errors import HostError, Unsupported
from lxcfleet.host.kernel import locks, loops, mounts, packing, quota, syscalls
from lxcfleet.paths import ContainerPaths, Paths
from lxcfleet.spec.reading.terms import RANGE_SIZE

DEVICE = "lxcfleet"
"""The device that mount tables give for our overlays."""

BUSY_SECONDS = 5.0
"""How long the kernel may take to let go of the delta after the last process of an earlier mount is gone."""

_FLAGS = {"nosuid": syscalls.MS_NOSUID, "nodev": syscalls.MS_NODEV, "noexec": syscalls.MS_NOEXEC}


@contextlib.contextmanager
def mask_stays(paths: Paths, *, change: bool = False) -> Iterator[None]:
    """Keep others from exchanging the mask; with ``change``, from copying the mount namespace while it has no mask.

    During an exchange the launcher's mount namespace has no mask between two system calls. A process that copies the
    namespace before or after that gets the old mask or the new one, and keeps it.
    """
    with locks.held(paths.lock_of("exchange"), shared=not change):
        yield


def marked(stack: Stack) -> dict[str, str]:
    """The host's parts for which the layers that hide things were made, mount point to identity."""
    return {point: found for layer in stack.standing if layer.neutral for point, found in mounts.marked(layer.source).items()}


def mount(paths: Paths, stack: Stack, name: str, first_id: int | None, disk: int) -> None:
    """Mount the container's root in the mount namespace of this process, at ``paths.root_mount``.

    ``first_id``: where the container's id range begins; None: the container is privileged. ``disk``: how many bytes its own
    layer may take; 0: no limit. Raises FleetError, OSError.
    """
    for layer in stack.standing[:-1]:
        if not layer.image and not os.path.ismount(layer.source):
            shown = ": all of the host's files would show" if layer.neutral else ""
            raise HostError(f"{name} can't be mounted", why=f"the {layer.name} is not{shown}")
    # The mask says which parts there are: in a part that it was not made for, it would hide nothing.
    made = mount_plan.plan(paths, stack, name, first_id, survey(stack), restrictions(stack))
    perform(made, paths.container(name), disk, paths.lock_of("loops"))


def survey(stack: Stack) -> list[Part]:
    """The parts that a container with these layers has, unless its own layer removes them; the topmost first."""
    found = []
    shelf = Shelf()
    try:
        for point, identity in marked(stack).items():
            having = part_layers(shelf, stack, point)
            if having is not None:
                found.append(Part(point, identity, having, _kept_options(stack.bottom.outside(point))))
    finally:
        shelf.close()
    return found


def restrictions(stack: Stack) -> list[Restricted]:
    """The directories in which a container on a generation may do less, as the host's file systems there say; the topmost
    first. On the host's root, parts have such options."""
    found = {}
    for place in stack.bottom.sheets:
        point = places.point_of(Path(place).parent.name)
        options = _kept_options(place) if point.strip("/") else ()
        if options:
            found[point] = Restricted(point, options)
    return [found[point] for point in sorted(found)]


def _kept_options(place: str) -> tuple[str, ...]:
    """The host's restrictions on programs and set-id bits there, which hold in a container, too."""
    flags = os.statvfs(place).f_flag
    kept = {"nosuid": flags & os.ST_NOSUID, "noexec": flags & os.ST_NOEXEC}
    return tuple(option for option, has in kept.items() if has)


def perform(plan: MountPlan, own: ContainerPaths, disk: int, lock: Path) -> None:
    """Make the mounts of ``plan`` in the mount namespace of this process. ``lock``: the one for loop devices. Raises
    FleetError, OSError."""
    for image in plan.images:
        _show_image(image, lock)
    _show_lower(plan)
    for fresh in plan.fresh:
        # Most containers do without.
        from lxcfleet.base.services import layer  # noqa: PLC0415

        layer.make(Path(fresh.target), layer.present(fresh.services, plan.name, fresh.base), plan.first_id, fresh.base)
    works = sorted(own.directory / name for name in os.listdir(own.directory) if name.startswith("work"))
    root, *parts = plan.overlays
    project = 0 if plan.first_id is None else quota.keep([*works, Path(root.upper)], plan.first_id, disk)
    uppers: list[tuple[Overlay, int]] = []
    """The parts whose directory the container has neither removed nor replaced."""
    try:
        for overlay in parts:
            upper = _upper(own, Path(root.upper), overlay.point, root.lower, project)
            if upper is not None:
                uppers.append((overlay, upper))
        # The deepest overlay goes first, the root's last. In another order the kernel logs a line for each overlay whose
        # upper directory is inside that of a mounted one (fs/overlayfs/super.c, ovl_check_layer).
        for overlay, upper in reversed(uppers):
            work = Path(overlay.work)
            work.mkdir(mode=0o700, exist_ok=True)
            quota.mark(work, project)
            _mount_overlay(plan, overlay, f"/proc/self/fd/{upper}", plan.staging)
        _mount_overlay(plan, root, root.upper, plan.root)
        for overlay, _ in uppers:
            syscalls.move(plan.staging, f"{plan.root}{overlay.point}")
        _restrict(plan)
    finally:
        for _, upper in uppers:
            os.close(upper)


def _restrict(plan: MountPlan) -> None:
    """Give directories of the root's overlay mounts of their own. Follows no link that the container may have left, and does
    without where it has removed the directory, or has something else there."""
    root = os.open(plan.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for point, options in plan.restricted:
            try:
                handle = syscalls.look_across(root, point.lstrip("/"))
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                    continue
                raise
            try:
                if stat.S_ISDIR(os.fstat(handle).st_mode):
                    flags = sum(_FLAGS[option] for option in ("nodev", *options))
                    tree = syscalls.clone_apart(handle, flags, None, point)
                    try:
                        syscalls.attach_at(tree, handle, point)
                    finally:
                        os.close(tree)
            finally:
                os.close(handle)
    finally:
        os.close(root)


def _show_image(image: Image, lock: Path) -> None:
    """Mount an image, without shifted owners. All mounts of its loop device are of one file system in memory."""
    source, flags = Path(image.source), syscalls.MS_RDONLY | syscalls.MS_NOSUID | syscalls.MS_NODEV
    with loops.attached(source, lock) as device:
        syscalls.mount(device, image.target, packing.filesystem(source), flags, "")


def _show_lower(plan: MountPlan) -> None:
    """Mount the lower layers, read-only, with the container's owners."""
    namespace = None if plan.first_id is None else syscalls.user_namespace(plan.first_id, RANGE_SIZE)
    try:
        for image in plan.images:
            if image.shifted:  # this mount lies over the one that is not shifted
                syscalls.clone_read_only(image.target, image.target, namespace)
        for clone in plan.clones:
            syscalls.clone_read_only(clone.source, clone.target, namespace if clone.shifted else None)
            if clone.identity is not None and mounts.identify(clone.target) != clone.identity:
                raise HostError(
                    f"{plan.name} can't be mounted",
                    why=f"on {clone.source} is not what was there when the mask was made",
                    hint="try again: the next start looks at it",
                )
        if namespace is not None:
            # liblxc is told to use this user namespace (lxc.namespace.share.user), and makes none.
            syscalls.mount(f"/proc/self/fd/{namespace}", plan.users, "none", syscalls.MS_BIND, "")
    except OSError as error:
        if error.errno == errno.EINVAL and namespace is not None:
            raise Unsupported(
                f"{plan.name} can't be unprivileged on this host",
                why=f"{error.filename}: its file system can't be mounted with shifted owners (errno {error.errno})",
                hint="`lxcfleet doctor` tells what is missing; --privileged does without, and is less safe",
            ) from error
        raise
    finally:
        if namespace is not None:
            os.close(namespace)


def _upper(own: ContainerPaths, top: Path, point: str, lower: Sequence[str], project: int) -> int | None:
    """Open the directory of the container's own layer for a part, and make it if it is missing, with the owner and mode
    that it has in the topmost of the ``lower`` layers, as they are mounted.

    None if the container has removed or replaced the directory, in a run when this was no part yet: then the root's overlay
    shows what the container made of it. (A directory made anew is opaque, which the top of an overlay can't be.) Follows no
    link that the container may have left.
    """
    handle = os.open(top, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    done = ""
    for name in point.split("/")[1:]:
        above, done = handle, f"{done}/{name}"
        try:
            handle = _open_or_make(above, name, own, _first(lower, done), project)
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


def _first(lower: Sequence[str], path: str) -> os.stat_result:
    """The status of ``path`` in the topmost layer that has it."""
    for place in lower[:-1]:
        with contextlib.suppress(FileNotFoundError):
            return os.stat(place + path, follow_symlinks=False)
    return os.stat(lower[-1] + path)


def _open_or_make(above: int, name: str, own: ContainerPaths, like: os.stat_result, project: int) -> int:
    flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(name, flags, dir_fd=above)
    except FileNotFoundError:
        pass
    # The directory is made elsewhere first: even if we are killed, the container never finds it without its owner and mode.
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


def _mount_overlay(plan: MountPlan, overlay: Overlay, upper: str, target: str) -> None:
    """Mount one overlay at ``target``. ``upper``: a name of its upper directory.

    The kernel writes to the upper directory as the user that mounted the overlay (fs/overlayfs/super.c, creator_cred), and
    root may have the blocks that ext4 keeps for root when all others are taken. So it is mounted as the container's first id.
    """
    flags = sum(_FLAGS[option] for option in overlay.options)
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            with syscalls.acting_as(plan.first_id or 0):
                syscalls.mount(DEVICE, target, "overlay", flags, overlay.data(upper))
            return
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                what = f"its overlay of {overlay.point}" if overlay.point else "its overlay"
                raise HostError.from_os_error(
                    f"{plan.name}: {what} can't be mounted", error, hint="`dmesg | tail` has the kernel's reason"
                ) from error
            time.sleep(0.02)
