"""Mounting a container's layers, always in a mount namespace of its own: base, mask, delta.

What is mounted here the host's own mount table never shows, and it goes when the last process of the
namespace does. So every start has a fresh overlay, and a crash leaves nothing to clean up.
"""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

from lxcfleet.errors import HostError, Unsupported
from lxcfleet.host import kernel
from lxcfleet.model import RANGE_SIZE
from lxcfleet.names import Paths

OPTIONS = "index=off,metacopy=off,redirect_dir=off,xino=off"
"""With these the kernel allows lower layers to change while nothing has the overlay mounted
(Documentation/filesystems/overlayfs.rst, "Changes to underlying filesystems")."""

BUSY_SECONDS = 5.0
"""How long the kernel may take to let go of the delta after the last process of an earlier mount is gone."""


def mount(paths: Paths, name: str, first_id: int | None) -> None:
    """Mount the container's root in the mount namespace of this process, at ``paths.root_mount``.

    Base and mask are shifted into the container's id range; the delta is not: its files already have the
    range's owners, and a shifted upper layer fails with EOVERFLOW (kernel 6.1 to 6.18).
    """
    if not os.path.ismount(paths.mask_mount):
        raise HostError(f"{name} can't be mounted", why="the mask is not: all of the host's files would show")
    namespace = None if first_id is None else kernel.user_namespace(first_id, RANGE_SIZE)
    try:
        kernel.clone_read_only(Path("/"), paths.base_mount, namespace)
        kernel.clone_read_only(paths.mask_mount, paths.mask_mount, namespace)
        if namespace is not None:
            # For liblxc, which is told to use this one (lxc.namespace.share.user) and makes none.
            kernel.mount(f"/proc/self/fd/{namespace}", paths.user_namespace, "none", kernel.MS_BIND, "")
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
    own = paths.container(name)
    options = (
        f"lowerdir={paths.mask_mount}:{paths.base_mount},upperdir={own.delta},workdir={own.work},{OPTIONS}"
    )
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            kernel.mount("lxcfleet", paths.root_mount, "overlay", kernel.MS_NODEV, options)
            return
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise HostError.from_os_error(
                    f"{name}: its overlay can't be mounted", error, hint="`dmesg | tail` has the kernel's reason"
                ) from error
            time.sleep(0.02)
