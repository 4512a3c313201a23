"""Obstacles that a container's root may have left where something is mounted at each start.

liblxc opens such a place as a file, and would wait for ever for the other end of a FIFO; the errors of mount(2) name neither
the container nor the place inside. So the places are looked at before liblxc is asked. Nobody is inside then.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from lxcfleet.errors import WrongState
from lxcfleet.paths import ContainerPaths

_ALWAYS = ("proc", "sys", "dev")
"""Where something is mounted in each container."""
_ENTRY = "lxc.mount.entry"
_PLAIN = (stat.S_IFDIR, stat.S_IFREG, stat.S_IFLNK)
"""The types of files that liblxc can open without waiting; it refuses links itself."""


Look = Callable[[str], int | None]
"""Gives the mode of what a container has at a path, a link not followed; None: it has nothing there."""


def mounted_at(root: Path) -> Look:
    """How to look at the layers of a container that are mounted at ``root``."""

    def look(path: str) -> int | None:
        try:
            return os.lstat(f"{root}{path}").st_mode
        except (FileNotFoundError, NotADirectoryError):
            return None

    return look


def refuse(own: ContainerPaths, config: str, look: Look, *, run: bool) -> None:
    """Raise WrongState if something that can't be mounted over is in the place of a mount. ``config``: the text of its
    configuration of LXC's; ``run``: /run is mounted, too."""
    places = [*_ALWAYS, *(["run"] if run else [])]
    for place in places:
        mode = look(f"/{place}")
        if mode is None and place != "run":
            continue  # liblxc makes it
        if mode is None or not stat.S_ISDIR(mode):
            raise _refusal(own, place, "is no directory" if mode is not None else "is not there")
    for place in _entries(config):
        parts = place.split("/")
        if parts[0] in places:
            continue  # below what is mounted by then
        for number in range(1, len(parts) + 1):
            mode = look("/" + "/".join(parts[:number]))
            if mode is None or stat.S_ISLNK(mode):
                break
            if stat.S_IFMT(mode) not in _PLAIN:
                raise _refusal(own, "/".join(parts[:number]), "is neither a directory nor a file")


def _entries(config: str) -> Iterator[str]:
    """The places of the mounts that a configuration of LXC's has, relative to the root; lxc.container.conf(5), fstab(5)."""
    for line in config.splitlines():
        if _ENTRY in line:
            key, _, value = line.partition("=")
            fields = value.split()
            if key.strip() == _ENTRY and len(fields) > 1:
                yield fields[1].strip("/")


def _refusal(own: ContainerPaths, place: str, what: str) -> WrongState:
    return WrongState(
        f"{own.directory.name} can't start", why=f"/{place} {what} in it, and something is mounted there at each start",
        hint=f"put that right from outside, in {own.delta}",
    )  # fmt: skip
