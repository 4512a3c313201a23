"""Seals a release: copies a directory, or unpacks an archive, into a directory that nothing changes afterwards.

Whoever made the archive is not trusted. Each name is taken apart, each directory is opened by its name in the one above, and
no link is followed; what may be in a release is bounded. All of it belongs to root, nobody may write to it, and no program
in it has rights of its own: setuid bits, capabilities and access lists are not taken over.
"""

from __future__ import annotations

import contextlib
import errno
import lzma
import os
import resource
import shutil
import stat
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Protocol, Self

from lxcfleet.base.mask import build
from lxcfleet.data.apps import compressed, libraries, manifest, merged, store
from lxcfleet.errors import AlreadyExists, FleetError, HostError, InvalidInput
from lxcfleet.host.kernel import mounts, syscalls, tree
from lxcfleet.host.kernel.entries import is_whiteout
from lxcfleet.paths import Paths
from lxcfleet.spec.container.apps import MAX_FILES, ROOT, AppForm, Release
from lxcfleet.spec.container.volumes import within

MOST_BYTES = 16 << 30
"""The most bytes of a release."""
LEFT_SHARE = 20
"""One part in so many of the file system stays free."""
_MEMORY = 1 << 30
"""An archive's own headers may ask for any amount of memory: the child that reads it has this much."""
_LONGEST_NAME, _LONGEST_LINK = 255, 4095
_PIECE = 1 << 20
_READ = 0o555
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LEADS = ("/bin", "/dev", "/lib", "/lib64", "/opt", "/run", "/sbin", "/srv", "/tmp", "/usr", "/var")
"""Where a link of a release may lead: to programs of the base, and to places for data. Only containers follow it."""


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


@dataclass
class _Bounds:
    """The bounds of a release, and its use of them so far."""

    room: int
    files: int = 0
    size: int = 0

    def count(self, path: str, size: int = 0) -> None:
        """Take account of a file. Raises InvalidInput, HostError."""
        self.files += 1
        self.size += size
        if self.files > MAX_FILES:
            raise InvalidInput("that is too much for a release", why=f"it has more than {MAX_FILES} files")
        if self.size > MOST_BYTES:
            raise InvalidInput("that is too much for a release", why=f"it has more than {MOST_BYTES >> 30} GiB, at {path}")
        if self.size > self.room:
            raise HostError(
                "there is no room for this release", why=f"{self.room >> 20} MiB may be used, and it has more, at {path}",
                hint="make room on the file system; lxcfleet app rm removes a release that nobody has",
            )  # fmt: skip


class Sealer:
    """Writes the files of one release below a directory."""

    def __init__(self, top: int, room: int) -> None:
        """``top``: has the empty directory open; ``room``: bytes that may be used."""
        self._top = top
        self._bounds = _Bounds(room)
        self._modes: dict[str, tuple[int, float | None]] = {"": (_READ, None)}
        """Of directories, by path: these stay writable until all is there."""

    def directory(self, path: str, mode: int, changed: float | None = None) -> None:
        """Make a directory; one that is there gets the mode."""
        clean = _clean(path)
        if clean:
            os.close(self._reach(clean))
        self._modes[clean] = (mode & _READ | 0o500, changed)

    def file(self, path: str, mode: int, size: int, content: _Readable, changed: float) -> None:
        """Write a file of ``size`` bytes."""
        above, name, clean = self._place(path)
        try:
            self._bounds.count(clean, size)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with self._only_once(clean), open(os.open(name, flags, 0o600, dir_fd=above), "wb") as made:
                left = size
                while left:
                    piece = content.read(min(left, _PIECE))
                    if not piece:
                        raise InvalidInput(f"{_told(clean)} is cut off", why=f"{left} bytes of it are missing")
                    left -= len(piece)
                    if piece.count(0) == len(piece):  # a hole, or as good as one: it takes no room on the disk
                        made.seek(len(piece), os.SEEK_CUR)
                    else:
                        made.write(piece)
                made.truncate(size)
                os.fchmod(made.fileno(), mode & _READ | 0o400)
                with contextlib.suppress(OSError, OverflowError):
                    os.utime(made.fileno(), (changed, changed))
        finally:
            os.close(above)

    def link(self, path: str, target: str) -> None:
        """Make a symbolic link. Raises InvalidInput for one that leads out of the release, to anything but programs and data
        of the container."""
        above, name, clean = self._place(path)
        try:
            self._bounds.count(clean)
            _check_link(clean, target)
            with self._only_once(clean):
                os.symlink(target, name, dir_fd=above)
        finally:
            os.close(above)

    def same(self, path: str, other: str) -> None:
        """Give a file that was written another name."""
        above, name, clean = self._place(path)
        try:
            self._bounds.count(clean)
            try:
                source = syscalls.look_beneath(self._top, _clean(other))
            except OSError as error:
                message = f"{_told(clean)}: this link leads to nothing that came before"
                raise InvalidInput(message, why=_told(other)) from error
            try:
                if not stat.S_ISREG(os.fstat(source).st_mode):
                    raise InvalidInput(f"{_told(clean)}: this link leads to no file", why=_told(other))
                with self._only_once(clean):
                    os.link(f"/proc/self/fd/{source}", name, dst_dir_fd=above, follow_symlinks=True)
            finally:
                os.close(source)
        finally:
            os.close(above)

    def finish(self) -> tuple[int, int]:
        """Give directories their modes. Gives how many files there are, and their bytes."""
        for path in sorted(self._modes, reverse=True):
            mode, changed = self._modes[path]
            handle = syscalls.open_beneath(self._top, path or ".")
            try:
                os.fchmod(handle, mode)
                if changed is not None:
                    with contextlib.suppress(OSError, OverflowError):
                        os.utime(handle, (changed, changed))
            finally:
                os.close(handle)
        return self._bounds.files, self._bounds.size

    def _place(self, path: str) -> tuple[int, str, str]:
        clean = _clean(path)
        above, _, name = clean.rpartition("/")
        if not name:
            raise InvalidInput(f"{_told(path)} is no name of a file")
        return self._reach(above), name, clean

    def _reach(self, path: str) -> int:
        """A descriptor of a directory, which is made if it is missing."""
        if not path:
            return os.dup(self._top)
        try:
            return syscalls.open_beneath(self._top, path)
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise InvalidInput(f"{_told(path)} stands for a directory and for something else") from error
            raise
        above, _, name = path.rpartition("/")
        handle = self._reach(above)
        try:
            self._bounds.count(path)
            os.mkdir(name, 0o700, dir_fd=handle)
        finally:
            os.close(handle)
        self._modes.setdefault(path, (_READ, None))
        return syscalls.open_beneath(self._top, path)

    @contextlib.contextmanager
    def _only_once(self, path: str) -> Iterator[None]:
        try:
            yield
        except FileExistsError as error:
            raise InvalidInput(f"{_told(path)} is there twice") from error


def _clean(path: str) -> str:
    """The path without ``.``; raises InvalidInput if it leads out, or can't be in a release."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if path.startswith("/") or ".." in parts:
        raise InvalidInput(f"{_told(path)} leads out of the release")
    if len(parts) > manifest.DEEPEST:
        raise InvalidInput(f"{_told(path)} is too deep", why=f"a release has up to {manifest.DEEPEST} levels of directories")
    if "\0" in path or any(len(os.fsencode(part)) > _LONGEST_NAME for part in parts):
        raise InvalidInput(f"{_told(path)} can't be a file's name")
    return "/".join(parts)


def _check_link(path: str, target: str) -> None:
    level = path.count("/")
    parts = target.split("/")
    if not target or "\0" in target or len(os.fsencode(target)) > _LONGEST_LINK:
        raise InvalidInput(f"{_told(path)} can't be a link")
    for part in parts:
        level += {"..": -1, ".": 0, "": 0}.get(part, 1)
        if level < 0:
            raise InvalidInput(f"{_told(path)} leads out of the release", why=f"it is a link to {_told(target)}")
    if target.startswith("/") and (".." in parts or not any(within(target, directory) for directory in _LEADS)):
        raise InvalidInput(
            f"{_told(path)} leads out of the release", why=f"it is a link to {_told(target)}",
            hint=f"a link of a release may lead to {', '.join(_LEADS)}",
        )  # fmt: skip


def _told(path: str) -> str:
    """A name as it may stand in a message."""
    text = path.encode(errors="replace").decode()
    return repr(text if len(text) <= _LONGEST_NAME else f"{text[:_LONGEST_NAME]}…")


# -- from a directory -----------------------------------------------------------------------------------------


def copy(source: int, sealer: Sealer, place: str = "", hides: Callable[[str], bool] | None = None) -> None:
    """Copy what is in the directory ``source`` to ``place`` of the release. Raises InvalidInput, OSError.

    ``hides``: tells whether an opaque directory there hides anything: a container's own directories are marked so, even
    where nothing is below them. None: any such mark is refused.
    """
    _copy(source, place, os.fstat(source).st_dev, sealer, hides or (lambda _: True))


def _copy(directory: int, prefix: str, device: int, sealer: Sealer, hides: Callable[[str], bool]) -> None:
    status = os.fstat(directory)
    if _is_opaque(directory) and hides(prefix):
        raise InvalidInput(
            f"{_told(prefix)} can't be in a release", why="it is marked to hide what lies below it (trusted.overlay.opaque),"
            " and a release only adds files",
        )  # fmt: skip
    sealer.directory(prefix, status.st_mode, status.st_mtime)
    for name in sorted(os.listdir(directory)):
        path = f"{prefix}/{name}" if prefix else name
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if status.st_dev != device:
            raise InvalidInput(f"{_told(path)} is on another file system", why="what is mounted there would be copied, too")
        if stat.S_ISLNK(status.st_mode):
            sealer.link(path, os.readlink(name, dir_fd=directory))
        elif stat.S_ISDIR(status.st_mode):
            below = os.open(name, _DIRECTORY, dir_fd=directory)
            try:
                _copy(below, path, device, sealer, hides)
            finally:
                os.close(below)
        elif stat.S_ISREG(status.st_mode):
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            with open(os.open(name, flags, dir_fd=directory), "rb", buffering=0) as file:
                status = os.fstat(file.fileno())
                sealer.file(path, status.st_mode, status.st_size, file, status.st_mtime)
        else:
            why = "it is a device, a pipe or a socket"
            if is_whiteout(status):
                why = "it removes what lies below it (a whiteout), and a release only adds files"
            raise InvalidInput(f"{_told(path)} can't be in a release", why=why)


def _is_opaque(directory: int) -> bool:
    try:
        return os.getxattr(directory, mounts.OPAQUE) == b"y"
    except OSError:
        return False


# -- from an archive ------------------------------------------------------------------------------------------


class _Member(tarfile.TarInfo):
    """Takes note of an archive's end: one that was cut off between two files would else look whole."""

    whole = False

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> Self:
        """See tarfile.TarInfo."""
        try:
            return super().fromtarfile(tar)
        except tarfile.HeaderError as error:
            if type(error).__name__ == "EOFHeaderError":
                _Member.whole = True
            raise


def unpack(source: IO[bytes], sealer: Sealer, strip: int) -> None:
    """Unpack an archive, plain or compressed by gzip, bzip2 or xz. Raises InvalidInput, OSError.

    ``strip``: so many directories are taken off each name.
    """
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    _Member.whole = False
    plain = compressed.opened(source)
    try:
        with tarfile.open(fileobj=plain, mode="r|", tarinfo=_Member, errors="surrogateescape") as archive:
            for member in archive:
                _unpack_one(archive, member, sealer, strip)
                vars(archive)["members"] = []  # it would remember all of them
        compressed.read_out(plain, MOST_BYTES)
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, ValueError, OverflowError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # without a number it is gzip's or bzip2's
            raise
        raise InvalidInput("this archive can't be read", why=str(error) or type(error).__name__) from error
    except MemoryError:
        raise InvalidInput("this archive can't be read", why="a header in it asks for too much memory") from None
    if not _Member.whole:
        raise InvalidInput("this archive is cut off", why="its end is missing")


def _unpack_one(archive: tarfile.TarFile, member: tarfile.TarInfo, sealer: Sealer, strip: int) -> None:
    clean = _clean(member.name)
    if any(key.endswith(mounts.OPAQUE) for key in member.pax_headers):
        raise InvalidInput(f"{_told(clean)} can't be in a release", why="it is marked to hide what lies below it")
    path = "/".join(clean.split("/")[strip:])
    if not path:
        if not member.isdir():
            raise InvalidInput(f"{_told(clean)} has no directory that could be taken off its name")
        if strip == len(clean.split("/")) or not clean:
            sealer.directory("", member.mode, member.mtime)
    elif member.isdir():
        sealer.directory(path, member.mode, member.mtime)
    elif member.issym():
        sealer.link(path, member.linkname)
    elif member.islnk():
        sealer.same(path, "/".join(_clean(member.linkname).split("/")[strip:]))
    elif member.isreg():
        content = archive.extractfile(member)
        if content is None or member.size < 0:
            raise InvalidInput(f"{_told(path)} can't be read")
        sealer.file(path, member.mode, member.size, content, member.mtime)
    else:
        raise InvalidInput(f"{_told(path)} can't be in a release", why="it is a device, a pipe, or of an unknown kind")


# -- sealing --------------------------------------------------------------------------------------------------


def seal(paths: Paths, release: Release, source: Path, strip: int = 0, inside: str = "") -> Release:
    """Make a release of a directory or an archive. Raises FleetError, OSError; then nothing of it is there.

    ``inside``: a path below ``source``, which is the delta of a container that built it; the packages of the host whose
    libraries the release needs are written down then.
    """
    name, version = release.name, release.version
    new, own = paths.new_release(name, version), paths.release(name, version)
    for directory in (paths.apps, paths.app(name)):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.chmod(directory, 0o700)
    tree.remove(new.directory)
    try:
        if os.path.lexists(own.directory):
            raise exists(release)
        new.directory.mkdir(mode=0o700)
        new.tree.mkdir(mode=0o700)
        made = _fill(paths, new.tree, source, strip, _built(release, inside), 2 if release.form is AppForm.LAYER else 1)
        top = os.open(new.tree, _DIRECTORY)
        try:
            entries = [*manifest.entries(top)]
            text = manifest.render(entries)
            sealed = replace(release, digest=manifest.digest_of(text), files=made[0], size=made[1])
            if release.form is AppForm.LAYER:
                merged.check(entries, release.covers, build.replaced(paths))
                why = merged.pack(new, entries)
                sealed = replace(sealed, image=store.digest_of_image(new.image), no_erofs=why)
            if inside:
                sealed = replace(sealed, packages=libraries.packages_of(top, entries))
            with new.manifest.open("w", encoding="utf-8", errors="surrogateescape") as file:
                file.write(text)
            new.record.write_text(store.render(sealed), encoding="utf-8")
            os.close(store.show_tree(new.tree))
            stamp = manifest.stamp(top, sealed.digest) + store.stamp_of_image(new, sealed)
            new.stamp.write_text(stamp, encoding="utf-8")
            syscalls.sync_file_system(top)
        finally:
            os.close(top)
        tree.give_name(new.directory, own.directory)
    except BaseException as error:
        tree.remove(new.directory)
        with contextlib.suppress(OSError):  # other releases are there
            os.rmdir(paths.app(name))
        if isinstance(error, FileExistsError):
            raise exists(release) from error
        raise
    return sealed


def _built(release: Release, inside: str) -> dict[str, str]:
    """The paths below a delta that become the release, each with its path there; none: it is no delta."""
    if not inside:
        return {}
    if release.form is AppForm.MOUNT:
        return {inside: ""}
    return {each: each.strip("/") for each in ([*merged.BUILT] if inside == ROOT else [inside])}


def _fill(
    paths: Paths, target: Path, source: Path, strip: int, built: Mapping[str, str], copies: int
) -> tuple[int, int]:
    """Write the files of a release. ``copies``: so many of them there are to be on the disk; the image of a layer is one."""
    top = os.open(target, _DIRECTORY)
    try:
        usage = shutil.disk_usage(target)
        sealer = Sealer(top, max(0, usage.free - usage.total // LEFT_SHARE) // copies)
        with contextlib.ExitStack() as held:
            if built:
                _copy_built(source, built, sealer)
                return sealer.finish()
            handle = os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            held.callback(os.close, handle)
            mode = os.fstat(handle).st_mode
            if stat.S_ISDIR(mode):
                _refuse_own(paths, source)
                copy(handle, sealer)
            elif stat.S_ISREG(mode):
                unpack(held.enter_context(open(handle, "rb", closefd=False)), sealer, strip)
            else:
                raise InvalidInput(f"{source} is neither a directory nor an archive")
        return sealer.finish()
    finally:
        os.close(top)


def _copy_built(delta: Path, built: Mapping[str, str], sealer: Sealer) -> None:
    """Copy what a command left below some paths of a delta."""
    missing: InvalidInput | None = None
    found = 0
    for inside, place in built.items():
        try:
            handle = _below(delta, inside)
        except InvalidInput as error:
            missing = missing or error
            continue
        try:
            copy(handle, sealer, place, (lambda path: os.path.isdir(f"/{path}")) if place else None)
            found += 1
        finally:
            os.close(handle)
    if missing is not None and not found:
        raise missing


def _below(delta: Path, inside: str) -> int:
    """A descriptor of a directory that a container made. Its root may have put a link or a file anywhere."""
    above = os.open(delta, _DIRECTORY)
    try:
        handle = syscalls.open_beneath(above, inside.strip("/"))
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV):
            raise
        raise InvalidInput(
            f"the command left nothing at {inside}", why="no directory is there that it made" if error.errno == errno.ENOENT
            else "a link or a file is in the way", hint="have it install there, or name the place: --path",
        ) from error  # fmt: skip
    finally:
        os.close(above)
    if not os.listdir(handle):
        os.close(handle)
        raise InvalidInput(f"the command left nothing at {inside}", why="the directory is empty")
    return handle


def _refuse_own(paths: Paths, source: Path) -> None:
    real = os.path.realpath(source)
    for own in (paths.lxc, paths.state, paths.run, paths.etc):
        if within(real, str(own)) or within(str(own), real):
            raise InvalidInput(f"{source} can't be sealed", why=f"lxcfleet's own files are there, in {own}")


def exists(release: Release) -> FleetError:
    """The error for a release that is to be sealed and exists."""
    return AlreadyExists(
        f"the app {release.release} exists already", why="a release is never changed", hint="give it another --version"
    )
