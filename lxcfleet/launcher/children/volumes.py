"""Volumes: making and removing them, and trying whether containers can mount what they are to have."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

from lxcfleet.base.present import Bottom, Present, Shelf
from lxcfleet.base.stack import Stack
from lxcfleet.data import mounting, volumes
from lxcfleet.errors import FleetError, HostError
from lxcfleet.host.kernel import syscalls
from lxcfleet.host.packages import database
from lxcfleet.launcher.children.answer import Reply, answer
from lxcfleet.launcher.items.data import MountsItem, VolumeItem
from lxcfleet.paths import Paths
from lxcfleet.spec.container.volumes import Volume, parse_mount, volumes_of
from lxcfleet.units import some

_ANY_ID = 65536
"""A container that is not made yet has no ids; whether something can be mounted does not depend on them."""
_NAMED = 3
"""So many packages are named in a note; the others are counted."""


def make(item: VolumeItem, reply: Reply, paths: Paths) -> None:
    """Make a volume."""
    _do(volumes.make, item, reply, paths, "created")


def change(item: VolumeItem, reply: Reply, paths: Paths) -> None:
    """Give a volume another size or other labels."""
    _do(volumes.change, item, reply, paths, "changed")


def _do(act: Callable[[Paths, Volume], None], item: VolumeItem, reply: Reply, paths: Paths, word: str) -> None:
    name = item["name"]
    try:
        act(paths, volumes.parse(name, item["record"].encode(), str(paths.volume(name).record)))
    except OSError as error:
        answer(reply, name, HostError.from_os_error(f"the volume {name} can't be {word}", error, path=paths.volumes))
    except FleetError as error:
        answer(reply, name, error)
    else:
        answer(reply, name)


def remove(directory: str, reply: Reply, paths: Paths) -> None:
    """Remove what is left of a volume that has lost its name."""
    with syscalls.unhurried():
        try:
            volumes.remove(paths, directory)
        except OSError as error:
            message = f"not all of {paths.volumes / directory} can be removed"
            answer(reply, directory, HostError.from_os_error(message, error))
        except FleetError as error:
            answer(reply, directory, error)
        else:
            answer(reply, directory)


def check_mounts(item: MountsItem, reply: Reply, paths: Paths) -> None:
    """Try whether containers could mount all that; the notes tell what would be hidden."""
    try:
        there = [text for text in item["volumes"] if not {*volumes_of([parse_mount(text)])} & {*item["coming"]}]
        mounting.check(paths, there, None if item["privileged"] else _ANY_ID)
        *shared, bottom = Stack.from_json(item["stack"]).lower
        shelf = Shelf()
        try:
            uppers = [shelf.upper(layer, bottom) for layer in shared if os.path.ismount(layer.source)]
            look = Present(uppers, Bottom(bottom)).mode if uppers else _on_host
            mounting.check_places(look, item["volumes"])
            notes = [note for text in item["volumes"] if (note := _hidden(parse_mount(text).target))]
        finally:
            shelf.close()
    except (OSError, FleetError) as error:
        answer(reply, "mounts", error)
    else:
        answer(reply, "mounts", notes=notes)


def _on_host(path: str) -> int | None:
    with contextlib.suppress(OSError):
        return os.lstat(path).st_mode
    return None


def _hidden(target: str) -> str:
    """The packages of the host of which a mount at ``target`` hides files, in words; empty: none."""
    try:
        with os.scandir(target) as entries:
            if next(entries, None) is None:
                return ""
        found = database.owners_below(target)
    except (OSError, HostError):
        return ""
    if not found:
        return ""
    names = sorted(found, key=lambda package: (-found[package], package))
    return (
        f"the mount at {target} hides files of {some(names, _NAMED)}: patches of these do not reach the container"
    )
