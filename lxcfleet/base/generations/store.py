"""Generations on disk: a record for each, and the sheets that they are made of. The file system is the database.

A sheet is made under another name, and gets its own by one rename, before the record that names it is written. A generation
ends with its record; then its sheets lose their names, each by one rename, unless another record names them. So whenever that
is broken off, there is the whole generation, or directories of which it can be told that they are left over.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from lxcfleet.base.generations import manifest, places
from lxcfleet.base.generations.manifest import Manifest
from lxcfleet.base.generations.record import SHEET, Generation, dump, parse
from lxcfleet.base.generations.sheets import Sheets
from lxcfleet.errors import Broken, FleetError, HostError, NotFound
from lxcfleet.host.kernel import locks, mounts, syscalls, tree
from lxcfleet.paths import Paths
from lxcfleet.spec.reading import ondisk

NEW, GONE = ".new-", ".gone-"
"""The beginnings of the names of directories that are half made, and half removed."""
LOCK = "generations"
_RECORD = re.compile(r"([1-9][0-9]{0,8})\.json")


@contextlib.contextmanager
def locked(paths: Paths) -> Iterator[None]:
    """Be the only one that makes or removes generations; their directories are there then. Raises HostError."""
    try:
        for directory in (paths.generations, paths.sheets):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.chmod(directory, 0o700)
        with locks.held(paths.lock_of(LOCK)):
            places.tag(paths.generations)
            yield
    except OSError as error:
        raise HostError.from_os_error("the generations can't be changed", error, path=paths.generations) from error


def numbers(paths: Paths) -> list[int]:
    """The numbers of all generations, also of those whose record can't be read, the oldest first."""
    return sorted(int(match[1]) for name in _names(paths.generations) if (match := _RECORD.fullmatch(name)))


def load(paths: Paths, number: int) -> Generation:
    """The generation. Raises NotFound, Broken."""
    file = paths.generation_record(number)
    try:
        generation = parse(ondisk.content(file), str(file))
    except FileNotFoundError:
        raise _missing(number) from None
    except OSError as error:
        raise Broken(f"generation {number} can't be read", why=f"{file}: {error.strerror}") from error
    if generation.number != number:
        why = f"{file}: it says that its number is {generation.number}"
        raise Broken("the record of a generation can't be used", why=why)
    return generation


def _missing(number: int) -> NotFound:
    return NotFound(f"there is no generation {number}", hint="`lxcfleet generation list` shows those that there are")


def save(paths: Paths, generation: Generation) -> None:
    """Write its record, in one step and so that it lasts. Raises HostError."""
    file = paths.generation_record(generation.number)
    try:
        tree.write(file, dump(generation), sync=True)
    except OSError as error:
        told = f"the record of generation {generation.number} can't be written"
        raise HostError.from_os_error(told, error, path=file) from error


def sheet(paths: Paths, name: str) -> Path:
    """The directory that is a layer of containers. Raises Broken if it is not known where that is."""
    return places.directory_of(paths, name) / name / "tree"


def manifest_file(paths: Paths, name: str) -> Path:
    """The list of the files of a sheet. Raises Broken if it is not known where that is."""
    return places.directory_of(paths, name) / name / "manifest"


def view(paths: Paths, generation: Generation) -> Sheets:
    """The files of the generation."""
    return Sheets(str(sheet(paths, name)) for name in generation.sheets)


def listed(paths: Paths, name: str, *, stamps: bool = False) -> Manifest:
    """The content of the sheet when it was made; ``stamps``: with those of linked files. Raises Broken if the sheet is not
    the one that was made."""
    file = manifest_file(paths, name)
    try:
        found = manifest.decode(ondisk.content(file, ondisk.LARGE), str(file), stamps=stamps)
        top = os.lstat(sheet(paths, name)).st_ino
    except OSError as error:
        raise Broken(f"the sheet {name} is gone, or can't be read", why=f"{error.filename}: {error.strerror}") from error
    if found.top != top:
        raise Broken(
            f"the sheet {name} is not the one that was made",
            why=f"{sheet(paths, name)} is another directory: it was restored or copied, so its links lead to other files",
        )
    return found


def next_number(paths: Paths) -> int:
    """A number that no generation has or had."""
    given = [int(match[2]) for name in _names(paths.sheets) if (match := SHEET.search(name))]
    with contextlib.suppress(OSError, ValueError):
        given.append(int(ondisk.text(_last(paths), "ascii")))
    return max([0, *given, *numbers(paths)]) + 1


def give(paths: Paths, number: int) -> None:
    """Note that the number is taken, for ever. Raises OSError."""
    tree.write(_last(paths), f"{number}\n", sync=True)


def _last(paths: Paths) -> Path:
    return paths.generations / "last"


def leftovers(paths: Paths) -> list[str]:
    """The names of directories of sheets that are half made or half removed, or that no generation has.

    While a record can't be read, none that has a sheet's name counts: it may be that generation's. One that is being made
    counts as well; ``tidy`` waits for that.
    """
    names = [name for directory in places.directories(paths) for name in _names(directory)]
    half = [name for name in names if name.startswith((NEW, GONE))]
    used = _used(paths)
    return sorted(half + [name for name in names if used is not None and SHEET.fullmatch(name) and name not in used])


def _used(paths: Paths) -> set[str] | None:
    """The sheets that generations have; None: that is not known of all."""
    try:
        return {name for number in numbers(paths) for name in load(paths, number).sheets}
    except FleetError:
        return None


def tidy(paths: Paths) -> list[str]:
    """Remove what is left over; returns the names. Raises FleetError."""
    with locked(paths):
        return _tidy(paths)


def _tidy(paths: Paths) -> list[str]:
    found = leftovers(paths)
    for name in found:
        _discard(paths, name)
    places.forget_empty(paths)
    return found


def remove(paths: Paths, number: int) -> None:
    """Remove the generation, and the sheets that no other one has. The host's own files stay: they lose a link.

    Raises NotFound, HostError.
    """
    with locked(paths):
        file = paths.generation_record(number)
        if not file.exists():
            raise _missing(number)
        mounts.refuse_removal(f"generation {number}", places.directories(paths), tops=False)
        file.unlink()
        tree.sync_directory(paths.generations)
        _tidy(paths)


def take_back(paths: Paths, number: int, names: Iterable[str]) -> None:
    """Remove a generation whose making was broken off at its record, and these sheets, which it alone has, or was to have.

    What can't be removed is left for ``tidy``.
    """
    with contextlib.suppress(OSError, FleetError):
        paths.generation_record(number).unlink(missing_ok=True)
        for name in names:
            for each in (name, f"{NEW}{name}"):
                if (places.directory_of(paths, each) / each).exists():
                    _discard(paths, each)


def _discard(paths: Paths, name: str) -> None:
    """Remove a directory of a sheet: it loses its name first, as without some of its files it is no sheet."""
    directory = places.directory_of(paths, name)
    gone = directory / (name if name.startswith(GONE) else f"{GONE}{name.removeprefix(NEW)}")
    if gone.name != name:
        tree.remove(gone)
        syscalls.rename_new(directory / name, gone)
    tree.remove(gone)


def _names(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []
