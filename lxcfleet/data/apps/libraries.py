"""The host's libraries: which there are, and which packages a release needs of them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from lxcfleet.data.apps import elf
from lxcfleet.data.apps.manifest import ReleaseEntry
from lxcfleet.host.packages import database

DIRECTORIES = (Path("/usr/lib"), Path("/usr/lib64"))
LIBRARY = re.compile(r".+\.so(\.[0-9]+)*")


def on_host() -> dict[str, str]:
    """The paths of all libraries that the host's programs find by name, by that name."""
    found: dict[str, str] = {}
    for directory in DIRECTORIES:
        try:
            with os.scandir(directory) as entries:
                listed = list(entries)
        except OSError:
            continue
        places = [directory, *(Path(each.path) for each in listed if "-linux-" in each.name and each.is_dir())]
        for place in places:
            try:
                found.update({name: f"{place}/{name}" for name in os.listdir(place) if LIBRARY.fullmatch(name)})
            except OSError:
                continue
    return found


def packages_of(top: int, entries: Iterable[ReleaseEntry]) -> dict[str, str]:
    """The host's packages, with their versions, whose libraries the ELF files of a release ask for and it does not bring.

    ``top``: has the release's directory open. Raises HostError.
    """
    files = [entry.path for entry in entries if entry.kind == "f"]
    own = {os.path.basename(path) for path in files}
    wanted: set[str] = set()
    for path in files:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=top)
        try:
            wanted.update(elf.needed(handle))
        finally:
            os.close(handle)
    present = on_host()
    paths = [present[name] for name in wanted - own if name in present]
    if not paths:
        return {}
    return {owner.package: owner.version for _, owner in sorted(database.owners(paths).items())}
