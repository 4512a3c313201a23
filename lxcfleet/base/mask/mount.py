"""The mask where ``layers.mount`` looks for it: up to date and mounted, in the launcher's mount namespace only.

Apart from layers, as it takes modules along (subprocess, threading) that the launcher must not carry: what they
do at each fork would be memory that each container keeps.
"""

from __future__ import annotations

import os
from pathlib import Path

from lxcfleet.base import layers
from lxcfleet.base.mask import build
from lxcfleet.host.kernel import syscalls
from lxcfleet.host.process import command
from lxcfleet.paths import Paths


def make_mount_points(paths: Paths) -> None:
    """The directories that all private mounts go to. Containers' root must be able to pass through."""
    for directory in (
        paths.run, paths.base_mount, paths.mask_mount, paths.next_mask_mount, paths.part_mount, paths.root_mount,
    ):
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    paths.user_namespace.touch(mode=0o600)


def refresh(paths: Paths, force: bool) -> None:
    """Build the mask anew if the host changed since, and mount it where ``mount`` looks for it."""
    make_mount_points(paths)
    mounted = os.path.ismount(paths.mask_mount) and not _replaced(paths)
    if not force and mounted and build.is_current(paths):
        return
    rebuilt = build.ensure(paths, force=force)
    if not mounted or rebuilt:
        _mount(paths)


def _replaced(paths: Paths) -> bool:
    """Whether there is a newer image than the mounted one: somebody else, as plain lxc-start does, had it built."""
    device = os.stat(paths.mask_mount).st_dev
    file = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/loop/backing_file")
    try:
        return file.read_text(encoding="utf-8", errors="surrogateescape").rstrip("\n").endswith(" (deleted)")
    except OSError:
        return True


def _mount(paths: Paths) -> None:
    """Mount the mask's image in the mount namespace of this process; mount(8) finds a loop device for it.

    That takes a while, and others may be about to mount layers: elsewhere first, then in the place of the one before.
    """
    new = paths.next_mask_mount
    _unmount(new)  # of one who was killed
    command.run(["/usr/bin/mount", "-t", "ext4", "-o", "loop,ro,nodev", str(paths.mask_image), str(new)])
    with layers.mask_stays(paths, change=True):
        _unmount(paths.mask_mount)
        syscalls.move(new, paths.mask_mount)


def release(paths: Paths) -> None:
    """Unmount the mask, if it is mounted."""
    for place in (paths.next_mask_mount, paths.mask_mount):
        _unmount(place)


def _unmount(place: Path) -> None:
    while os.path.ismount(place):
        syscalls.unmount(place)
