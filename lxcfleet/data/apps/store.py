"""Releases of apps on disk: a directory for each, with its record, the list of its files, and the files themselves.

A release is put together under another name, and gets its own by one rename; it is never changed afterwards. It loses its
name by one rename before it is removed. So whenever that is broken off, there is the whole release, or a directory whose
name says that it is left over.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import time
from pathlib import Path

from lxcfleet.base.stack import Stack
from lxcfleet.data import records
from lxcfleet.data.apps import manifest
from lxcfleet.data.volumes import clone
from lxcfleet.errors import Broken, FleetError, HostError, InvalidInput
from lxcfleet.host.kernel import mounts, syscalls, tree
from lxcfleet.paths import Paths, ReleasePaths
from lxcfleet.spec.container.apps import AppForm, Release, check_app, check_version, parse_release
from lxcfleet.spec.reading import ondisk, strict_yaml
from lxcfleet.spec.reading.reader import Fields
from lxcfleet.spec.reading.rows import read_said, rows_of
from lxcfleet.spec.reading.terms import RANGE_SIZE
from lxcfleet.units import some

_VERSION = 1
_TRIES = 1000
_NAMED = 5
_TRUSTED_SECONDS = 2.0
_TREE = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_looked_at: dict[tuple[str, str], float] = {}
"""When this process found a release as it was sealed. Many containers start at once with the same one."""


def render(release: Release) -> str:
    """The text of ``app.yaml``."""
    values = {key: row.render(getattr(release, key)) for key, row in rows_of(Release).items()}
    lines = [f"{key}: {strict_yaml.inline(value)}" for key, value in {"format": _VERSION, **values}.items()]
    return "\n".join(["# Written by lxcfleet when it sealed this release.", *lines, ""])


def parse(name: str, version: str, text: bytes, where: str) -> Release:
    """The record of a release; raises Broken with every mistake in ``text``."""
    try:
        fields = Fields(strict_yaml.load(text), where)
        for key in ("format", "digest"):
            if not fields.has(key):
                fields.complain(key, "is missing; the file may have been cut off")
        fields.integer("format", _VERSION, _VERSION, _VERSION)
        release = Release(name, version, **read_said(rows_of(Release).values(), fields))
        fields.finish("")
    except (InvalidInput, ValueError) as error:
        why = error.why if isinstance(error, InvalidInput) else f"{where}: {error}"
        raise Broken(
            f"the app {name}@{version} is broken: its record can't be used", why=why, hint=_mend(name, version)
        ) from error
    return release


def _mend(name: str, version: str) -> str:
    return f"restore {name}@{version} from a backup, or give its containers another: lxcfleet app use SEL {name}@VERSION"


def load(paths: Paths, name: str, version: str) -> Release | Broken | None:
    """The release; Broken if its record can't be used; None if there is no such release."""
    record = paths.release(name, version).record
    return records.load(record, f"the app {name}@{version}", lambda text: parse(name, version, text, str(record)))


def check(paths: Paths, name: str, version: str) -> Release:
    """The release, if there is one. Raises FleetError."""
    release = load(paths, name, version)
    if release is None:
        others = versions(paths, name)
        raise InvalidInput(
            f"there is no app {name}@{version}",
            why=f"{name} has {', '.join(others[-_NAMED:])}" if others else f"there is no release of {name}",
            hint=f"lxcfleet app add {name} DIR --version {version}",
        )
    if isinstance(release, FleetError):
        raise release
    return release


def names(paths: Paths) -> list[str]:
    """The names of all apps that have a release."""
    return [name for name in sorted(_listed(paths.apps)) if _is(check_app, name) and versions(paths, name)]


def versions(paths: Paths, name: str) -> list[str]:
    """The versions of an app, in the order in which they were sealed."""
    found = []
    for version in _listed(paths.app(name)):
        if _is(check_version, version):
            release = load(paths, name, version)
            found.append((release.created if isinstance(release, Release) else "", version))
    return [version for _, version in sorted(found)]


def leftovers(paths: Paths) -> list[str]:
    """The directories that are half made or half removed, as APP/NAME."""
    return [
        f"{name}/{each}"
        for name in _listed(paths.apps) if _is(check_app, name)
        for each in _listed(paths.app(name)) if each.startswith((Paths.NEW_PREFIX, Paths.GONE_PREFIX))
    ]  # fmt: skip


def _is(rule: object, name: str) -> bool:
    with contextlib.suppress(InvalidInput):
        rule(name)  # type: ignore[operator]
        return True
    return False


def _listed(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []


# -- whether it is what was sealed ----------------------------------------------------------------------------


def examine(paths: Paths, name: str, version: str, *, contents: bool = False) -> Release:
    """The release, if its files are those that were sealed. Raises FleetError that names those that are not, OSError.

    ``contents``: read all files, whatever their change times say.
    """
    release = check(paths, name, version)
    own = paths.release(name, version)
    key = (str(own.directory), release.digest)
    if not contents and time.monotonic() - _looked_at.get(key, -_TRUSTED_SECONDS) < _TRUSTED_SECONDS:
        return release
    _looked_at.pop(key, None)
    try:
        top = os.open(own.tree, _TREE)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
        raise _altered(release, [f"{own.tree} is gone"]) from error
    try:
        present = manifest.stamp(top, release.digest) + stamp_of_image(own, release)
        if contents or _text(own.stamp) != present:
            _compare(own, release, top)
            with contextlib.suppress(OSError):
                tree.write(own.stamp, present)
    finally:
        os.close(top)
    _looked_at[key] = time.monotonic()
    return release


def _compare(own: ReleasePaths, release: Release, top: int) -> None:
    text = _text(own.manifest)
    if manifest.digest_of(text) != release.digest:
        raise _altered(release, [f"{own.manifest} or {own.record} was changed"])
    found = manifest.differences(manifest.parse(text), manifest.entries(top))
    if release.form is AppForm.LAYER and _digest(own.image) != release.image:
        found.append(f"{own.image} {'has other contents' if own.image.is_file() else 'is gone'}")
    if found:
        raise _altered(release, found)


def stamp_of_image(own: ReleasePaths, release: Release) -> str:
    """The addition to the stamp of a release that has an image."""
    if release.form is not AppForm.LAYER:
        return ""
    with contextlib.suppress(OSError):
        status = os.lstat(own.image)
        return f" {status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
    return " gone"


def digest_of_image(image: Path) -> str:
    """The SHA-256 of an image. Raises OSError."""
    handle = os.open(image, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(handle, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(image: Path) -> str:
    try:
        return digest_of_image(image)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ELOOP, errno.EISDIR):
            raise
        return ""


def examine_layers(paths: Paths, stack: Stack) -> None:
    """Raise FleetError if a layer of a container is a release that is missing, or was altered."""
    for layer in stack.lower:
        if layer.app:
            examine(paths, *parse_release(layer.app))


def _altered(release: Release, found: list[str]) -> Broken:
    return Broken(
        f"the app {release.release} was altered since it was sealed",
        why=some(found, _NAMED).encode(errors="replace").decode(),
        hint=_mend(release.name, release.version),
    )


def _text(file: Path) -> str:
    try:
        return ondisk.text(file, errors="surrogateescape", most=ondisk.LARGE)
    except FileNotFoundError:
        return ""


# -- mounting and removing ------------------------------------------------------------------------------------


def show(paths: Paths, name: str, version: str, first_id: int | None, flags: int) -> int:
    """A descriptor of a new mount of a release's files, with the owners of a container whose ids begin at ``first_id``.

    None: it is privileged. Raises FleetError if the release is missing or was altered, OSError.
    """
    examine(paths, name, version)
    return show_tree(paths.release(name, version).tree, first_id, flags)


def show_tree(directory: Path, first_id: int | None = RANGE_SIZE, flags: int = 0) -> int:
    """A descriptor of a new mount of a directory whose files belong to the host's root, see ``show``."""
    handle = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not first_id:
            return syscalls.clone_apart(handle, flags, None, str(directory))
        return clone(handle, str(directory), flags, 0, first_id)
    finally:
        os.close(handle)


def retire(paths: Paths, name: str, version: str) -> None:
    """Take the release's name away, by one rename. Raises HostError."""
    mounts.refuse_removal(f"the app {name}@{version}", [paths.release(name, version).directory])
    for number in range(_TRIES):
        gone = paths.gone_release(name, f"{version}.{number}").directory
        try:
            syscalls.rename_new(paths.release(name, version).directory, gone)
        except FileExistsError:
            continue
        except FileNotFoundError:
            return
        except OSError as error:
            raise HostError.from_os_error(f"the app {name}@{version} can't be removed", error) from error
        records.have_name_gone(paths.app(name), f"the app {name}@{version}")
        return


def remove(paths: Paths, leftover: str) -> None:
    """Remove what is left of a release, by the name that ``leftovers`` gives. Nothing is followed out of it, neither links
    nor mounts. Raises HostError."""
    name, _, directory = leftover.partition("/")
    if not _is(check_app, name) or "/" in directory or not directory.startswith((Paths.NEW_PREFIX, Paths.GONE_PREFIX)):
        raise InvalidInput(f"{leftover!r} is not left of a release")
    tree.remove(paths.app(name) / directory)
    with contextlib.suppress(OSError):  # other releases are there
        os.rmdir(paths.app(name))
