"""The resources that the host has left: memory, disk, and the kernel's tables that containers share.

``read`` is called before each creation, so it takes only a few milliseconds. Facts that never change while the daemon
runs are in features.py.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from lxcfleet.errors import HostError
from lxcfleet.host.facts import memory
from lxcfleet.paths import Paths

_SYSCTL = Path("/proc/sys")
_ID_FILES = ("/etc/subuid", "/etc/subgid", "/etc/passwd", "/etc/group")
_FIRST_FOREIGN_ID = 65536
"""Processes with uids from here on count as those of root's user namespaces. If users of the host have such uids (Active
Directory), that counts some too many, never too few."""


@dataclass(frozen=True)
class Table:
    """A kernel table with a limit. ``sysctl`` is the name of the limit as sysctl(8) takes it."""

    sysctl: str
    limit: int
    used: int
    reserved: int = 0
    """Entries that containers may not use."""
    exact: bool = True
    """False: ``used`` was estimated from some of the processes, as looking at all would take too long."""

    @property
    def free(self) -> int:
        """How many entries are left for containers."""
        return max(0, self.limit - self.reserved - self.used)


@dataclass(frozen=True)
class HostLimits:
    """The host's present resources. Sizes in bytes."""

    memory_total: int
    memory_available: int
    """Including free swap."""
    disk_free: int
    """Free space under the deltas, for users other than root."""
    inodes_free: int | None
    """None: the file system makes inodes as it needs them (btrfs)."""
    disk_path: str
    """The directory of the two values above."""
    tables: Mapping[str, Table]
    """By the name that capacity gives the check. A table that this kernel does not have is missing."""


def read(paths: Paths, *, budget: float = 0.006) -> HostLimits:
    """Look at the host. At most ``budget`` seconds go into counting inotify instances.

    Raises HostError if the containers' directory or /proc can't be read.
    """
    try:
        found = memory.read()
        disk = os.statvfs(paths.lxc)
    except OSError as error:
        raise HostError.from_os_error("can't find out what this host has left", error) from error
    return HostLimits(
        memory_total=found.total,
        memory_available=found.available + found.swap_free,
        disk_free=disk.f_bavail * disk.f_frsize,
        inodes_free=disk.f_favail if disk.f_files else None,
        disk_path=str(paths.lxc),
        tables=_tables(_inotify(budget)),
    )


def id_files() -> tuple[str, str, str, str]:
    """The texts of /etc/subuid, subgid, passwd and group, as capacity.ids takes them; empty where missing."""
    subuid, subgid, passwd, group = (_text(Path(file)) for file in _ID_FILES)
    return subuid, subgid, passwd, group


def apply(values: Mapping[str, int], file: Path) -> None:
    """Raise kernel settings (sysctl names to values), now and, by ``file`` in /etc/sysctl.d, at each boot.

    Nothing is ever lowered: neither the kernel's value nor the file's. Raises HostError.
    """
    try:
        _replace(file, render(values, _text(file)))
        for name, value in values.items():
            entry = _entry(name)
            if int(entry.read_text(encoding="ascii")) < value:
                entry.write_text(f"{value}\n", encoding="ascii")
    except OSError as error:
        hint = "run as root, on the host itself rather than in a container"
        raise HostError.from_os_error("can't raise the kernel's limits", error, hint=hint) from error


def render(values: Mapping[str, int], present: str) -> str:
    """The text of the sysctl.d file: ``values`` and those in ``present``, the higher one of each."""
    merged = dict(values)
    for line in present.splitlines():
        name, equals, value = (part.strip() for part in line.partition("="))
        if equals and value.isascii() and value.isdigit() and not name.startswith(("#", ";")):
            merged[name] = max(merged.get(name, 0), int(value))
    head = (
        "# Written by `lxcfleet doctor --fix`: limits that all containers of this host share; sysctl.d(5).\n"
    )
    return head + "".join(f"{name} = {value}\n" for name, value in sorted(merged.items()))


def _entry(name: str) -> Path:
    return _SYSCTL / name.replace(".", "/")


def _replace(file: Path, text: str) -> None:
    """Write the file so that a crash leaves the old or the new one."""
    file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    new = file.with_name(f".{file.name}.new")
    with new.open("w", encoding="utf-8") as stream:
        os.fchmod(stream.fileno(), 0o644)
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    new.replace(file)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""


def _number(name: str) -> int | None:
    """The value of a sysctl, or None where this kernel or namespace lacks it."""
    text = _text(_entry(name)).split()
    return int(text[0]) if text and text[0].lstrip("-").isdigit() else None


class _Inotify(NamedTuple):
    instances: int
    watches: int
    exact: bool


def _tables(inotify: _Inotify) -> dict[str, Table]:
    """The tables whose limit can be read."""
    tasks = _tasks()
    users = _key_users()
    root_keys, root_bytes = users.pop("0", (0, 0))
    keys, key_bytes = (max(column, default=0) for column in zip((0, 0), *users.values(), strict=False))
    rows = (
        ("inotify-instances", "fs.inotify.max_user_instances", inotify.instances, inotify.exact),
        ("inotify-watches", "fs.inotify.max_user_watches", inotify.watches, inotify.exact),
        ("processes", "kernel.pid_max", tasks, True),
        ("threads", "kernel.threads-max", tasks, True),
        ("open-files", "fs.file-max", _number("fs.file-nr") or 0, True),
        ("ptys", "kernel.pty.max", _number("kernel.pty.nr") or 0, True),
        ("root-keys", "kernel.keys.root_maxkeys", root_keys, True),
        ("root-key-bytes", "kernel.keys.root_maxbytes", root_bytes, True),
        ("keys", "kernel.keys.maxkeys", keys, True),
        ("key-bytes", "kernel.keys.maxbytes", key_bytes, True),
        ("neighbours", "net.ipv4.neigh.default.gc_thresh3", _neighbours("arp_cache"), True),
        ("neighbours6", "net.ipv6.neigh.default.gc_thresh3", _neighbours("ndisc_cache"), True),
        ("connections", "net.netfilter.nf_conntrack_max", _number("net.netfilter.nf_conntrack_count") or 0, True),
        # No file tells this number. Each task is in one namespace of each kind, and few namespaces have no task.
        ("mount-namespaces", "user.max_mnt_namespaces", tasks, False),
        ("user-namespaces", "user.max_user_namespaces", tasks, False),
    )
    tables = {}
    for check, sysctl, used, exact in rows:
        limit = _number(sysctl)
        if limit is not None:
            # Only the first devpts mount may use the last kernel.pty.reserve terminals; fs/devpts/inode.c.
            reserved = (_number("kernel.pty.reserve") or 0) if check == "ptys" else 0
            tables[check] = Table(sysctl, limit, used, reserved, exact)
    return tables


def _tasks() -> int:
    """Threads of all processes and of the kernel: the part after the slash in /proc/loadavg; proc(5)."""
    fields = _text(Path("/proc/loadavg")).split()
    return int(fields[3].partition("/")[2]) if len(fields) > 3 else 0


def _key_users() -> dict[str, tuple[int, int]]:
    """Keys and their bytes that count against each user's quota, by uid; keyrings(7), /proc/key-users."""
    users = {}
    for line in _text(Path("/proc/key-users")).splitlines():
        fields = line.replace(":", " ").split()
        if len(fields) >= 5:
            users[fields[0]] = (int(fields[3].partition("/")[0]), int(fields[4].partition("/")[0]))
    return users


def _neighbours(table: str) -> int:
    """Entries of a neighbour table, which all network namespaces share; ``arp_cache`` or ``ndisc_cache``."""
    lines = _text(Path("/proc/net/stat") / table).splitlines()
    return int(lines[1].split()[0], 16) if len(lines) > 1 else 0


def _inotify(budget: float) -> _Inotify:
    """Inotify instances and watches that count against root, those of all containers among them.

    The kernel charges an instance made in a user namespace to the owner of that namespace as well (kernel/ucount.c),
    and shows no total. So the descriptors of processes are looked at, in random order. When the time is up, the rest is
    estimated from the processes that were looked at.
    """
    deadline = time.monotonic() + budget
    pids = [entry for entry in os.listdir("/proc") if entry.isdigit()]
    random.shuffle(pids)
    instances = watches = seen = 0
    for pid in pids:
        if seen and time.monotonic() > deadline:  # at least one process, however slow the host is
            break
        seen += 1
        try:
            if not 0 < os.stat(f"/proc/{pid}").st_uid < _FIRST_FOREIGN_ID:
                for marks in _watches(pid):
                    instances += 1
                    watches += marks
        except OSError:
            continue  # the process has ended meanwhile
    if seen == len(pids):
        return _Inotify(instances, watches, True)
    share = len(pids) / seen
    return _Inotify(round(instances * share), round(watches * share), False)


def _watches(pid: str) -> Iterator[int]:
    """How many watches each inotify descriptor of the process has; proc(5), /proc/PID/fdinfo."""
    directory = os.open(f"/proc/{pid}/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for number in os.listdir(directory):
            with contextlib.suppress(FileNotFoundError):  # the descriptor was closed meanwhile
                if os.readlink(number, dir_fd=directory) == "anon_inode:inotify":
                    yield _text(Path(f"/proc/{pid}/fdinfo/{number}")).count("inotify wd:")
    finally:
        os.close(directory)
