"""Releases that are a layer of their containers: what may be in one, what of the host it would hide, and its image.

Such a release lies over the base and its mask, so its files appear among the host's. It may add files to directories that the
host has; a file of the host is hidden by one only if the release is allowed to cover it, as patches do not reach the copy.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from lxcfleet.data.apps.manifest import ReleaseEntry
from lxcfleet.errors import InvalidInput
from lxcfleet.host.kernel import packing, tree
from lxcfleet.host.packages import database
from lxcfleet.paths import ReleasePaths
from lxcfleet.spec.container.volumes import within

PLACES = ("etc", "opt", "srv", "usr")
"""Where a layer may have files: elsewhere are links, state, and what is mounted at each start."""
BUILT = ("/opt", "/srv", "/usr")
"""The places whose files in a clone's delta become a layer, if nobody names one. In /etc are files that each start writes."""
_OURS = frozenset((
    "etc/fstab", "etc/group", "etc/group-", "etc/gshadow", "etc/gshadow-", "etc/hostname", "etc/hosts", "etc/machine-id",
    "etc/mtab", "etc/passwd", "etc/passwd-", "etc/resolv.conf", "etc/shadow", "etc/shadow-", "etc/subgid", "etc/subuid",
))  # fmt: skip
"""Files that lxcfleet writes or merges for each container."""
_WHITEOUT = ".wh."
"""With this the names of files begin by which layers of OCI images remove what is below them."""
_NAMED = 5


def check(
    entries: Iterable[ReleaseEntry], covers: Sequence[str], replaced: Collection[str] = (), root: Path = Path("/")
) -> None:
    """Raise InvalidInput for a release that can't be a layer, or that hides files of the host which ``covers`` does not name.

    ``replaced``: the files that the mask has in place of the host's; ``root``: the host's root.
    """
    hidden = []
    for entry in entries:
        if entry.path == ".":
            continue
        path = f"/{entry.path}"
        _check_place(entry, path, replaced)
        status = _lstat(root, entry.path)
        if status is None or (entry.kind == "d" and stat.S_ISDIR(status.st_mode)):
            continue
        if entry.kind == "d" or stat.S_ISDIR(status.st_mode):
            what = "a directory" if stat.S_ISDIR(status.st_mode) else "a link" if stat.S_ISLNK(status.st_mode) else "a file"
            raise InvalidInput(
                f"{path} can't be in a layer", why=f"the host has {what} there, and the layer would hide all of it",
                hint="put it where the host's link leads" if what == "a link" else "choose another place",
            )  # fmt: skip
        if not any(within(path, each) for each in covers):
            hidden.append(path)
    if hidden:
        _refuse(hidden)


def _check_place(entry: ReleaseEntry, path: str, replaced: Collection[str]) -> None:
    first, _, name = entry.path.partition("/")[0], "", os.path.basename(entry.path)
    if first not in PLACES or (entry.path == first and entry.kind != "d"):
        raise InvalidInput(
            f"{path} can't be in a layer",
            why=f"a layer has directories {', '.join(f'/{each}' for each in PLACES)}, and no more",
            hint="an app that is one directory is mounted: leave out --form layer",
        )  # fmt: skip
    if entry.path in _OURS or path in replaced:
        raise InvalidInput(f"{path} can't be in a layer", why="lxcfleet gives each container a file of its own there")
    if name.startswith(_WHITEOUT):
        raise InvalidInput(f"{path} can't be in a layer", why="it would remove a file, and a layer of an app only adds files")


def _lstat(root: Path, path: str) -> os.stat_result | None:
    try:
        return os.lstat(root / path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _refuse(hidden: Sequence[str]) -> None:
    owners = database.owners(hidden)
    told = [f"{path} of {owners[path].package}" if path in owners else path for path in hidden[:_NAMED]]
    more = f" and {len(hidden) - _NAMED} more" if len(hidden) > _NAMED else ""
    raise InvalidInput(
        "that would hide files of the host, which its patches would not reach any more", why=f"{', '.join(told)}{more}",
        hint=f"if that is meant, name them: --covers {hidden[0]}; else install it elsewhere, such as below /usr/local",
    )  # fmt: skip


def pack(own: ReleasePaths, entries: Iterable[ReleaseEntry], root: Path = Path("/")) -> str:
    """Make the image of a release that is being sealed; gives why it is ext4, or nothing if it is erofs. Raises HostError,
    Unsupported, OSError.

    A directory that the host has gets its owner and mode in the image: that of the topmost layer is what a container sees.
    """
    stage = own.directory / "stage"
    stage.mkdir(mode=0o700)
    directories = []
    for entry in sorted(entries, key=lambda entry: entry.path):
        place = stage / entry.path
        if entry.kind != "d":
            os.link(own.tree / entry.path, place, follow_symlinks=False)
        elif entry.path != ".":
            place.mkdir(mode=0o700)
            directories.append((entry, place))
    for entry, place in reversed(directories):
        status = _lstat(root, entry.path)
        if status is not None:
            os.chown(place, status.st_uid, status.st_gid)
        os.chmod(place, entry.mode if status is None else stat.S_IMODE(status.st_mode))
    stage.chmod(0o755)
    why = packing.pack(stage, own.image)
    tree.remove(stage)
    return why
