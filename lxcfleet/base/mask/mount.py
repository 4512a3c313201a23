"""Keeps the mask up to date and mounted where ``layers.mount`` looks for it, in the launcher's mount namespace only.

This is apart from layers because it imports subprocess and threading, which the launcher must not load: what these modules
do at each fork would cost memory in each container.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from lxcfleet.base import layers
from lxcfleet.base.generations.roots import sheets_of
from lxcfleet.base.mask import build
from lxcfleet.host.kernel import syscalls
from lxcfleet.host.process import command
from lxcfleet.paths import Paths


def make_mount_points(paths: Paths) -> None:
    """Make the directories that all private mounts go to. The containers' root must be able to pass through them."""
    count = len(sheets_of(paths, paths.generation)) if paths.generation else 0
    for directory in (
        paths.run, paths.base_mount, paths.mask_mount, paths.next_mask_mount, paths.services_mount, paths.app_mount,
        paths.part_mount, paths.root_mount, *map(paths.sheet_mount, range(count)),
    ):
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    paths.user_namespace.touch(mode=0o600)


def refresh(paths: Paths, force: bool, since: build.Since | None = None) -> None:
    """Build the mask anew if the host changed since, and mount it where ``mount`` looks for it; ``since``: see ``build``."""
    make_mount_points(paths)
    mounted = os.path.ismount(paths.mask_mount) and not _replaced(paths)
    if not force and mounted and build.is_current(paths):
        return
    rebuilt = build.ensure(paths, force=force, since=since)
    if not mounted or rebuilt:
        _mount(paths)


def _replaced(paths: Paths) -> bool:
    """Whether the image is newer than the mounted one: plain lxc-start, for instance, may have had it built."""
    device = os.stat(paths.mask_mount).st_dev
    file = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/loop/backing_file")
    try:
        return file.read_text(encoding="utf-8", errors="surrogateescape").rstrip("\n").endswith(" (deleted)")
    except OSError:
        return True


def _mount(paths: Paths) -> None:
    """Mount the mask's image in the mount namespace of this process; mount(8) finds a loop device for it.

    Mounting takes a while, and others may be about to mount layers. So the image is mounted elsewhere first, and then moved
    over the former one.
    """
    new = paths.next_mask_mount
    _unmount(new)  # left by a process that was killed
    command.run(["/usr/bin/mount", "-t", "ext4", "-o", "loop,ro,nodev", str(paths.mask_image), str(new)])
    with layers.mask_stays(paths, change=True):
        _unmount(paths.mask_mount)
        syscalls.move(new, paths.mask_mount)


def release(paths: Paths) -> None:
    """Unmount the mask, if it is mounted."""
    for place in (*paths.run.glob("mask-*"), paths.next_mask_mount, paths.mask_mount):
        _unmount(place)


def forget(paths: Paths) -> None:
    """Unmount the mask of a generation that nobody uses, and remove its image."""
    for place in (paths.next_mask_mount, paths.mask_mount):
        _unmount(place)
        with contextlib.suppress(FileNotFoundError):
            place.rmdir()
    for file in (paths.mask_image, paths.mask_record):
        file.unlink(missing_ok=True)


def _unmount(place: Path) -> None:
    while os.path.ismount(place):
        syscalls.unmount(place)
