"""Where sheets are. A hard link leads to no other file system, so each file system of the base has a directory for them.

The one that is beside the records serves the file system that they are on. Each other has its own at its top, which only
root can enter. Which there are is on disk before anything is put there.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lxcfleet.base.tree import parents
from lxcfleet.errors import Broken, HostError, Unsupported
from lxcfleet.host.kernel import mounts, syscalls, tree
from lxcfleet.paths import Paths
from lxcfleet.spec.reading import ondisk

TAG = "CACHEDIR.TAG"
_SIGNATURE = (
    "Signature: 8a477f597d28d172789f06886806bc55\n# Hard links to the host's own files; lxcfleet makes them anew.\n"
)
"""Programs for backups leave a directory with such a file out if they are told to: bford.info/cachedir."""
_OTHERS = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True)
class SheetPlace:
    """A directory with sheets."""

    word: str
    """The word that the names of its sheets end with; empty: the place is the one beside the records."""
    point: str
    """The path in the base at which its file system is mounted."""
    directory: Path

    def sheet(self, stem: str) -> str:
        """The name that a sheet has here, of a generation whose sheets begin with ``stem``."""
        return f"{stem}.{self.word}" if self.word else stem


def word_of(point: str) -> str:
    """The word for the file system that is mounted at ``point``."""
    return point.strip("/").replace("/", "-") or "root"


_POINTS = {word_of(point): point for point in ("/", *mounts.CANDIDATES)}
WORDS = tuple(_POINTS)


def point_of(name: str) -> str:
    """Where the file system of the sheet ``name`` is mounted in the base; empty: it is beside the records."""
    return _POINTS.get(name.partition(".")[2], "")


def present(paths: Paths, root: Path) -> tuple[SheetPlace, ...]:
    """The places of the file systems that the base at ``root`` is on now; the one beside the records first."""
    top = os.fspath(root).rstrip("/")
    points = ["/", *mounts.parts(top)]
    # By mounts, and not by devices: no link leads from one mount to another, even of the same file system; link(2), EXDEV.
    here = syscalls.mount_number(os.fspath(paths.sheets))
    home = next((point for point in points if syscalls.mount_number(f"{top}{point}") == here), "")
    others = (
        SheetPlace(word_of(point), point, Path(f"{top}{point}", paths.sheets_elsewhere)) for point in points if point != home
    )
    return SheetPlace("", home, paths.sheets), *others


def of(path: str, places: Iterable[SheetPlace]) -> SheetPlace:
    """The place for what is at ``path`` in the base: that of its file system."""
    by_point = {place.point: place for place in places}
    return next(by_point[each] for each in (path, *reversed(parents(path))) if each in by_point)


def check(place: SheetPlace) -> None:
    """Raises Unsupported if no sheet can be made there."""
    top = place.directory.parent
    status, system = os.stat(top), os.statvfs(top)
    why = ""
    if system.f_flag & os.ST_RDONLY:
        why = f"{place.point} is a file system of its own, which is mounted read-only, and its sheets have to be on it"
        hint = f"have it writable while a base is frozen and while apt is at work: mount -o remount,rw {place.point}"
    elif status.st_uid != os.geteuid() or (status.st_mode & _OTHERS and not status.st_mode & stat.S_ISVTX):
        why = f"others than root may change names in {place.point}, so that what is frozen there would not be safe"
        hint = f"chown root {place.point}; chmod go-w {place.point}"
    if why:
        raise Unsupported("the base can't be frozen", why=why, hint=hint)


def make(paths: Paths, chosen: Iterable[SheetPlace]) -> None:
    """Make the directories of these places, once it is on disk that they exist. Raises HostError, OSError."""
    others = [place for place in chosen if place.word]
    before = known(paths)
    after = {**before, **{place.word: place.directory for place in others}}
    if after != before:
        tree.write(_file(paths), json.dumps({word: os.fspath(path) for word, path in after.items()}), sync=True)
    for place in others:
        with contextlib.suppress(FileExistsError):
            os.mkdir(place.directory, 0o700)
        status = os.lstat(place.directory)
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) != 0o700:
            raise HostError(
                "the base can't be frozen", why=f"{place.directory} is no directory that only root can enter",
                hint="lxcfleet keeps sheets there, and did not make this; move it away",
            )  # fmt: skip
        tag(place.directory)


def tag(directory: Path) -> None:
    """Mark it as what can be made anew. Raises OSError."""
    if not (directory / TAG).exists():
        tree.write(directory / TAG, _SIGNATURE)


def known(paths: Paths) -> Mapping[str, Path]:
    """All places that were ever made, but for the one beside the records: by word. Raises Broken."""
    file = _file(paths)
    try:
        found = ondisk.record(file)
        return {word: Path(path) for word, path in found.items() if word in WORDS and path.startswith("/")}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError) as error:
        raise Broken(
            "it is not known where sheets are", why=f"{file}: {error}",
            hint=f"write it anew: {{\"usr\": \"/usr/{paths.sheets_elsewhere}\"}} for a /usr on a file system of its own",
        ) from error  # fmt: skip


def directories(paths: Paths) -> list[Path]:
    """The directories of all places that were ever made. Raises Broken."""
    return [paths.sheets, *known(paths).values()]


def directory_of(paths: Paths, name: str) -> Path:
    """Where the sheet ``name`` is, or is made or removed under another name. Raises Broken."""
    word = name.rpartition(".")[2] if name.endswith(tuple(f".{word}" for word in WORDS)) else ""
    if not word:
        return paths.sheets
    found = known(paths).get(word)
    if found is None:
        raise Broken(f"it is not known where the sheet {name} is", why=f"{_file(paths)} does not say")
    return found


def forget_empty(paths: Paths) -> None:
    """Remove the directories on other file systems that have no sheet any more."""
    for directory in known(paths).values():
        with contextlib.suppress(OSError):
            if os.listdir(directory) in ([], [TAG]):
                (directory / TAG).unlink(missing_ok=True)
                directory.rmdir()


def _file(paths: Paths) -> Path:
    return paths.generations / "places.json"
