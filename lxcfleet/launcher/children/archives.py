"""Writing containers to archives, and making containers of archives.

Both happen in a mount namespace of this process, where the files have the owners that the container itself sees: so the ids
in an archive are from 0 to 65535, whichever range the container has on this host.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from lxcfleet.base.merge import reconcile
from lxcfleet.base.stack import Stack
from lxcfleet.data import arrivals, volumes
from lxcfleet.data.archives import head as heads
from lxcfleet.data.archives.entries import ATTRIBUTES, ArchiveEntry, ArchiveLimits, Reader, refused
from lxcfleet.data.archives.head import BASE, DELTA, HEAD, MOST_HEAD, VOLUMES, ArchiveHead
from lxcfleet.data.archives.unpacking import Comparing, Unpacking
from lxcfleet.errors import AlreadyExists, FleetError, HostError, InvalidInput, NoCapacity
from lxcfleet.host.facts import system
from lxcfleet.host.kernel import syscalls, tree
from lxcfleet.host.process import archiver, passing
from lxcfleet.launcher.children.answer import Reply
from lxcfleet.launcher.forking import MAX_DATAGRAM
from lxcfleet.launcher.items.archives import ArrivalItem, ExportItem, ImportItem, Packed
from lxcfleet.paths import ContainerPaths, Paths, VolumePaths
from lxcfleet.spec.container.volumes import Volume

_OS_RELEASE, _STATUS = "/usr/lib/os-release", "/var/lib/dpkg/status"
_SYSTEM = ("ID", "VERSION_ID", "PRETTY_NAME")
_MOST_SNAPSHOT = 64 << 20
_TELL_SECONDS = 0.25
_SPARE = 20
"""One part of so many of the file system's free space is left free."""
_FLAGS = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC


def serve(work: Callable[[Reply, int, Paths], None], descriptors: Sequence[int], paths: Paths) -> None:
    """Do one of the two, and answer errors. ``descriptors``: for the answers, and the archive's."""
    reply, archive = socket.socket(fileno=descriptors[0]), descriptors[1]
    with syscalls.unhurried():
        try:
            work(reply, archive, paths)
        except FleetError as error:
            _say(reply, error=error)
        except BrokenPipeError:
            pass  # the daemon or its client went away
        except OSError as error:
            _say(reply, error=HostError.from_os_error("the archive can't be read or written", error))


def _say(
    reply: Reply, *, error: FleetError | None = None, done: bool = False, size: int = 0, read: bool = False,
    entries: int = 0, differences: Sequence[str] = (), differing: int = 0,
) -> None:  # fmt: skip
    body: Packed = {
        "error": None if error is None else error.body(), "done": done, "bytes": size, "read": read, "entries": entries,
        "differences": list(differences), "differing": differing,
    }  # fmt: skip
    reply.send(json.dumps(body).encode())


def _say_head(reply: Reply, head: str) -> None:
    body: Packed = {
        "error": None, "done": False, "bytes": 0, "read": False, "entries": 0, "differences": [], "differing": 0,
    }  # fmt: skip
    memory = os.memfd_create("head", os.MFD_CLOEXEC)  # it may be larger than a datagram
    with open(memory, "wb") as file:
        file.write(head.encode())
        file.flush()
        os.lseek(memory, 0, os.SEEK_SET)
        socket.send_fds(reply, [json.dumps(body).encode()], [memory])


# -- to an archive ------------------------------------------------------------------------------------------------


def export(item: ExportItem, reply: Reply, archive: int, paths: Paths) -> None:
    """Write a container to an archive. Raises FleetError, OSError."""
    own, name = paths.container(item["name"]), item["name"]
    bottom = Stack.from_json(item["stack"]).bottom.tree()
    snapshot, content = _snapshot(paths, own, name)
    head = ArchiveHead(
        name, item["version"], item["created"], item["still"], item["spec"], _system(bottom.read(_OS_RELEASE) or b""),
        hashlib.sha256(bottom.read(_STATUS) or b"").hexdigest(), snapshot,
        tuple(volumes.check(paths, volume) for volume in item["volumes"]),
    )  # fmt: skip
    place = _private(paths)
    (place / HEAD).write_text(heads.render(head), encoding="utf-8")
    members = [HEAD]
    if snapshot:
        (place / BASE).write_bytes(content)
        members.append(BASE)
    _show(own.delta, item["first_id"], 0, place / DELTA, syscalls.MS_RDONLY)
    members.append(DELTA)
    for each in head.volumes:
        _show_volume(paths.volume(each.name), each, place / VOLUMES / each.name, syscalls.MS_RDONLY)
        members.append(f"{VOLUMES}/{each.name}")
    before = os.lstat(own.delta).st_ino

    def read() -> None:
        if os.lstat(own.delta).st_ino != before:
            raise HostError(f"{name} was destroyed meanwhile", why="another container has its name by now")
        _say(reply, read=True)

    size = archiver.pack(
        place, members, ATTRIBUTES, archive, item["level"], item["seconds"],
        archiver.Heard(lambda size: _say(reply, size=size), read), changing=bool(item["volumes"]),
    )  # fmt: skip
    _say(reply, done=True, read=True, size=size)


def _private(paths: Paths) -> Path:
    """An empty directory that only this process sees, in memory."""
    place = paths.archive_mount
    with contextlib.suppress(FileExistsError):
        place.mkdir(mode=0o700)
    syscalls.unshare_mounts()
    syscalls.mount("tmpfs", place, "tmpfs", _FLAGS, "mode=0700")
    return place


def _attach(handle: int, target: Path) -> None:
    place = os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        syscalls.attach_at(handle, place, str(target))
    finally:
        os.close(place)
        os.close(handle)


def _show(source: Path, first_id: int | None, shown: int, target: Path, flags: int) -> None:
    """Mount ``source``, with the container's own ids, at a new directory. ``first_id``: of its range; None: privileged."""
    target.mkdir()
    handle = os.open(source, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if first_id is None:
            _attach(syscalls.clone_apart(handle, flags | _FLAGS, None, str(source)), target)
        else:
            _attach(volumes.clone(handle, str(source), flags | _FLAGS, first_id, shown), target)
    finally:
        os.close(handle)


def _show_volume(own: VolumePaths, volume: Volume, target: Path, flags: int) -> None:
    """Mount a volume's files at a new directory, with the ids from 0 on."""
    target.mkdir(parents=True)
    _attach(volumes.show(own, volume, 0, flags | _FLAGS), target)


def _snapshot(paths: Paths, own: ContainerPaths, name: str) -> tuple[str, bytes]:
    """The name and the content of the base's records at the container's last start; empty if they are not known, or the
    container has no records of its own that they would be merged with."""
    known = reconcile.last_base(paths, name) if reconcile.has_records(own.delta) else ""
    for file in (own.base_snapshot(known), paths.base_snapshot(known)) if known else ():
        with contextlib.suppress(OSError, InvalidInput):
            content = file.read_bytes()
            reconcile.check_snapshot(known, content)
            return known, content
    return "", b""


def _system(text: bytes) -> dict[str, str]:
    """The keys and values of a system's os-release; os-release(5)."""
    found = system.parse(text.decode("utf-8", "replace"))
    return {key: "".join(c for c in found[key] if c.isprintable())[:100] for key in _SYSTEM if key in found}


# -- from an archive ----------------------------------------------------------------------------------------------


def unpack(reply: Reply, archive: int, paths: Paths) -> None:
    """Tell the head of an archive; then, if the daemon says so, make a container of it. Raises FleetError, OSError."""
    new: ContainerPaths | None = None
    item: ImportItem | None = None
    try:
        with archiver.unpacked(archive, reply.fileno()) as stream:
            reader = Reader(stream, ArchiveLimits())
            _say_head(reply, _head(reader))
            item = _hear(reply)
            if item is None:
                raise BrokenPipeError  # the daemon wants nothing of it
            new = ContainerPaths(paths.lxc / item["beside"])
            snapshot = _fill(item, reader, new, paths, reply)
        differences, count = _compare(item, archive, new, paths, reply) if item["compare"] else ([], 0)
        if item["keep"]:
            _keep(item, new, snapshot, paths)
    except BaseException:
        if new is not None and item is not None:
            _remove(item, new, paths)
        raise
    if not item["keep"]:
        _remove(item, new, paths)
    _say(reply, done=True, size=reader.data, entries=reader.count, differences=differences, differing=count)


def _remove(item: ImportItem, new: ContainerPaths, paths: Paths) -> None:
    """Remove what was unpacked."""
    tree.remove(new.directory)
    for each in item["volumes"]:
        volumes.remove(paths, each["directory"])


def _head(reader: Reader) -> str:
    first = reader.next()
    if first is None or first.path != (HEAD.encode(),):
        raise refused(f"its first member is not {HEAD}")
    text = reader.whole(first, MOST_HEAD)
    with contextlib.suppress(FleetError):  # the daemon reads it, too, and says what is wrong
        first_id = heads.parse(text).spec.get("first_id")
        reader.first_id = first_id if isinstance(first_id, int) else None
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise refused(f"{HEAD} is no text in UTF-8") from error


def _hear(reply: Reply) -> ImportItem | None:
    message, descriptors = passing.received(reply, MAX_DATAGRAM, 1)
    if descriptors:
        with open(descriptors[0], "rb") as file:
            message = file.read()
    found: ImportItem | None = json.loads(message) if message else None
    return found


def _fill(item: ImportItem, reader: Reader, new: ContainerPaths, paths: Paths, reply: Reply) -> bytes:
    """Make its directories, and unpack all entries after the head. Gives the content of the member ``base``."""
    owner = item["first_id"] or 0
    new.directory.mkdir(mode=0o700)
    new.delta.mkdir(mode=0o755)
    os.chown(new.delta, owner, owner)
    new.work.mkdir(mode=0o700)
    for each in item["volumes"]:
        arrivals.begin(paths, _volume(each), each["directory"])
    room = _Room({_DELTA: new.directory, **{_top(each): paths.volumes for each in item["volumes"]}})
    reader.limit(room.limits(item["data"]))
    reader.taken = {each["archived"].encode(): each["had"] for each in item["volumes"]}
    with _confined(item, new, paths) as tops:
        return _take_all(item, reader, tops, reply, room)


_DELTA = (DELTA.encode(),)


def _top(item: ArrivalItem) -> tuple[bytes, ...]:
    return VOLUMES.encode(), item["archived"].encode()


def _volume(item: ArrivalItem) -> Volume:
    return volumes.parse(item["name"], item["record"].encode(), item["directory"])


def _keep(item: ImportItem, new: ContainerPaths, snapshot: bytes, paths: Paths) -> None:
    """Make it a container, in one step."""
    for file, text in item["files"].items():
        (new.directory / file).write_text(text, encoding="utf-8")
    if item["volumes"]:
        new.arrivals.write_text(arrivals.note({each["directory"]: each["name"] for each in item["volumes"]}), "utf-8")
        tree.sync_file_system(paths.volumes)
    for each in item["volumes"]:
        arrivals.refuse_present(paths, each["name"])
    if item["snapshot"]:
        new.base_snapshot(item["snapshot"]).write_bytes(snapshot)
        new.base_record.write_text(json.dumps({"base": item["snapshot"], "conflicts": []}) + "\n", encoding="ascii")
    tree.sync_file_system(new.directory)
    try:
        tree.give_name(new.directory, paths.container(item["name"]).directory)
    except FileExistsError as error:
        raise AlreadyExists(f"{item['name']} can't be made", why=f"{error.filename} is in the way") from error


class _Room:
    """The room on the file systems of the new directories."""

    def __init__(self, places: Mapping[tuple[bytes, ...], Path]) -> None:
        """``places``: a directory of the file system that each top is on."""
        self._devices = {top: os.stat(place).st_dev for top, place in places.items()}
        found = {self._devices[top]: os.statvfs(place) for top, place in places.items()}
        free = {device: each.f_bavail * each.f_frsize for device, each in found.items()}
        self._left = {device: each - each // _SPARE for device, each in free.items()}
        self._entries = sum(e.f_favail - e.f_favail // _SPARE if e.f_files else 10_000_000 for e in found.values())

    def limits(self, most: int | None) -> ArchiveLimits:
        """The room on all of them together, or ``most`` if that is less."""
        free = sum(self._left.values())
        return ArchiveLimits(self._entries, free if most is None else min(free, most))

    def take(self, entry: ArchiveEntry) -> None:
        """An entry is to be made. Raises NoCapacity."""
        device = self._devices.get(entry.path[:2], self._devices[_DELTA])
        self._left[device] -= sum(length for _, length in entry.pieces)
        if self._left[device] < 0:
            raise NoCapacity(
                "this archive is refused", why=f"the file system of {entry.shown} has no room for it",
                hint="nothing of it was kept; make room",
            )  # fmt: skip


@contextlib.contextmanager
def _confined(item: ImportItem, new: ContainerPaths, paths: Paths) -> Iterator[dict[tuple[bytes, ...], int]]:
    """Descriptors of the new layer and the new volumes, as the container sees them, by their paths in the archive. This
    process can't name anything outside the layer meanwhile."""
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    home = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        place = _private(paths)
        _show(new.delta, item["first_id"], 0, place / DELTA, 0)
        for each in item["volumes"]:
            _show_volume(VolumePaths(paths.volumes / each["directory"]), _volume(each), place / VOLUMES / each["archived"], 0)
        with contextlib.ExitStack() as opened:
            tops = {}
            for top in (_DELTA, *map(_top, item["volumes"])):
                tops[top] = os.open(place / os.fsdecode(b"/".join(top)), _TOP)
                opened.callback(os.close, tops[top])
            try:
                os.fchdir(tops[_DELTA])
                os.chroot(".")
                yield tops
            finally:
                os.fchdir(root)
                os.chroot(".")
    finally:
        syscalls.enter_mounts(home)
        os.close(home)
        os.close(root)


_TOP = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def _take_all(
    item: ImportItem, reader: Reader, tops: Mapping[tuple[bytes, ...], int], reply: Reply, room: _Room
) -> bytes:
    """Unpack all entries after the head; gives the content of the member ``base``."""
    snapshot, last = b"", time.monotonic()

    def told(size: int) -> None:
        nonlocal last
        if time.monotonic() - last > _TELL_SECONDS:
            last = time.monotonic()
            _say(reply, size=size, entries=reader.count)

    unpacking = Unpacking(tops, told)
    try:
        while (entry := reader.next()) is not None:
            if entry.path == (BASE.encode(),):
                if not item["snapshot"] or snapshot:
                    raise refused("it has a member base that its head does not name")
                snapshot = reader.whole(entry, _MOST_SNAPSHOT)
                reconcile.check_snapshot(item["snapshot"], snapshot)
            elif not _passed_over(item, entry):
                room.take(entry)
                unpacking.take(reader, entry)
            told(unpacking.bytes)
        unpacking.finish()
    finally:
        unpacking.close()
    if item["snapshot"] and not snapshot:
        raise refused("it has no member base, and its head names one")
    return snapshot


def _passed_over(item: ImportItem, entry: ArchiveEntry) -> bool:
    """Whether it is of a volume that the head names, and that is not made."""
    names = {name.encode() for name in item["passed_over"]}
    return entry.path[0] == VOLUMES.encode() and len(entry.path) > 1 and entry.path[1] in names


def _compare(
    item: ImportItem, archive: int, new: ContainerPaths, paths: Paths, reply: Reply
) -> tuple[list[str], int]:
    """Read the archive once more, and hold what was unpacked against it."""
    if not stat.S_ISREG(os.fstat(archive).st_mode):
        raise InvalidInput("this archive can't be checked", why="it is read twice, so it has to be a file")
    os.lseek(archive, 0, os.SEEK_SET)
    with archiver.unpacked(archive, reply.fileno()) as stream, _confined(item, new, paths) as tops:
        ranges: dict[tuple[bytes, ...], int | None] = {_top(each): _volume(each).first_id for each in item["volumes"]}
        reader, comparing = Reader(stream, ArchiveLimits()), Comparing(tops, first_ids={_DELTA: item["first_id"], **ranges})
        reader.taken = {each["archived"].encode(): each["had"] for each in item["volumes"]}
        try:
            _head(reader)
            while (entry := reader.next()) is not None:
                if entry.path[0] in (DELTA.encode(), VOLUMES.encode()) and not _passed_over(item, entry):
                    comparing.take(reader, entry)
            comparing.finish()
        finally:
            comparing.close()
    return comparing.differences, comparing.count
