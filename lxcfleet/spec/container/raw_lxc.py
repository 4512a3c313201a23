"""Raw keys of LXC's configuration: those that can't take any of a container's walls away. Pure.

An allow-list: a key that is not in it is refused, whatever LXC may make of it in another version. What lxcfleet writes itself
(the root, ids, mounts, hooks, devices, limits that have a field) can't be overwritten.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from lxcfleet.errors import InvalidInput
from lxcfleet.spec.reading.reader import Fields
from lxcfleet.spec.reading.types import Pairs

PREFIX = "lxc."
MOST = 64
"""The most keys of one container."""
LONGEST = 1024
"""The most characters of a value."""
CGROUP1, CGROUP2, SYSCTL, PRLIMIT = "lxc.cgroup.", "lxc.cgroup2.", "lxc.sysctl.", "lxc.prlimit."
RUNTIME = "lxc.environment.runtime"
_HINT = f"allowed are {PRLIMIT}*, {SYSCTL}*, {CGROUP1}* and {CGROUP2}*, but for some of each, and {RUNTIME}"

_MAX_FILES = 1 << 20
"""The kernel's usual fs.nr_open: a container with more does not start."""
_PRLIMITS = frozenset(
    "as core cpu data fsize locks memlock msgqueue nofile nproc rss sigpending stack".split()  # noqa: SIM905
)
_LIMIT = re.compile(r"([0-9]{1,19}|unlimited)(:([0-9]{1,19}|unlimited))?")

_OF_NAMESPACES = re.compile(
    r"net\.[a-zA-Z0-9_.@/-]+|fs\.mqueue\.[a-z_]+|kernel\.(shmall|shmmax|shmmni|shm_rmid_forced|msgmax|msgmnb|msgmni|sem)"
)
"""The sysctls that each network or IPC namespace has for itself. All others are the whole host's: a container's root can't
write to them, and a privileged one's would write to the host's."""

_HUGE = r"hugetlb\.[0-9]+[KMG]B\.(rsvd\.)?"
_FILES = {
    CGROUP2: re.compile(
        r"cpu\.(weight|weight\.nice|idle|max\.burst)|cpuset\.(cpus|mems)|io\.(weight|bfq\.weight|max|latency)"
        rf"|memory\.(high|low|min|swap\.max|swap\.high|zswap\.max|oom\.group)|{_HUGE}max|misc\.max|rdma\.max|cgroup\.max\.depth"
    ),
    CGROUP1: re.compile(
        r"cpu\.shares|cpuset\.(cpus|mems)|blkio\.(weight|weight_device|bfq\.weight)"
        r"|blkio\.throttle\.(read|write)_(bps|iops)_device|memory\.(soft_limit_in_bytes|memsw\.limit_in_bytes|swappiness)"
        rf"|net_cls\.classid|net_prio\.ifpriomap|{_HUGE}limit_in_bytes|rdma\.max"
    ),
}
"""Files that say how much a container gets of something."""
_FIELDS = {
    "memory.max": "memory", "memory.limit_in_bytes": "memory", "cpu.max": "cpus", "cpu.cfs_quota_us": "cpus",
    "cpu.cfs_period_us": "cpus", "pids.max": "pids",
}  # fmt: skip
"""Files that a field of the spec is for."""

FILES_OF = {
    "swap": ("memory.swap.max", "memory.memsw.limit_in_bytes"), "cpu_weight": ("cpu.weight", "cpu.weight.nice", "cpu.shares"),
    "io_weight": ("io.weight", "io.bfq.weight", "blkio.weight", "blkio.bfq.weight"),
    "io": ("io.max", *(f"blkio.throttle.{way}_{what}_device" for way in ("read", "write") for what in ("bps", "iops"))),
}  # fmt: skip
"""Files that a field of the spec is for, and that keys may be for instead: containers had them before there were fields."""

_REASONS = {
    "lxc.rootfs": "lxcfleet mounts the root", "lxc.idmap": "lxcfleet gives ids", "lxc.id_map": "lxcfleet gives ids",
    "lxc.hook": "a hook runs as root of the host", "lxc.include": "a file could have any other key",
    "lxc.apparmor": "it confines the container", "lxc.selinux": "it confines the container",
    "lxc.seccomp": "it confines the container", "lxc.cap": "it confines the container",
    "lxc.no_new_privs": "there is a field for it: no_new_privs", "lxc.namespace": "it is one of the container's walls",
    "lxc.mount": "there is a field for mounts: volumes", "lxc.net": "there is a field for it: network",
    "lxc.init": "there is a field for it: command", "lxc.execute": "there is a field for it: command",
    "lxc.environment": f"there is a field for it: environment; systemd of a system container takes {RUNTIME}",
    "lxc.start": "there is a field for it: autostart", "lxc.uts": "the name is lxcfleet's",
    "lxc.signal": "there is a field for it: stop_signal", "lxc.group": "there is a field for it: group",
}  # fmt: skip
"""Why keys that begin so are refused."""


def check(key: str, value: str) -> tuple[str, str]:
    """The pair itself, if a container may have it; raises InvalidInput with the reason."""
    if not key.startswith(PREFIX):
        raise _refused(key, f"it is no key of LXC's: these begin with {PREFIX}")
    _check_value(key, value)
    if key.startswith(PRLIMIT):
        _check_prlimit(key, value)
    elif key.startswith(SYSCTL):
        _check_sysctl(key)
    elif key.startswith((CGROUP1, CGROUP2)):
        _check_cgroup(key)
    elif key == RUNTIME:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*=[^\"']*", value):
            raise _refused(key, f"{value[:80]!r} is no variable: write it as NAME=VALUE, without quotes")
    else:
        whys = (why for start, why in _REASONS.items() if key.startswith(start))
        raise _refused(key, next(whys, "it is not known to be harmless"))
    return key, value


def _refused(key: str, why: str) -> InvalidInput:
    # One line, as complaints about files show no other.
    return InvalidInput(f"{key[:80]!r} can't be set: {why}", hint=_HINT)


def _check_value(key: str, value: str) -> None:
    if not value or value != value.strip() or len(value) > LONGEST or not value.isascii() or not value.isprintable():
        what = f"1 to {LONGEST} printable ASCII characters on one line, without blanks at its ends"
        raise _refused(key, f"a value has {what}, unlike {value[:80]!r}")


def _check_prlimit(key: str, value: str) -> None:
    name = key.removeprefix(PRLIMIT)
    if name in ("nice", "rtprio", "rttime"):
        raise _refused(key, "it could take processor time from all other containers, whatever its share is")
    if name not in _PRLIMITS:
        raise _refused(key, f"it is no limit of processes; such limits are {', '.join(sorted(_PRLIMITS))}")
    if not _LIMIT.fullmatch(value):
        raise _refused(key, f"{value[:80]!r} is no limit: write it as SOFT or SOFT:HARD, each a number or unlimited")
    parts = [float("inf") if part == "unlimited" else int(part) for part in value.split(":")]
    soft, hard = parts[0], parts[-1]
    if name == "nofile" and max(soft, hard) > _MAX_FILES:
        raise _refused(key, f"{value!r} is too much: the kernel gives no more than {_MAX_FILES} (fs.nr_open)")
    if soft > hard:
        raise _refused(key, f"{value!r}: the soft limit is above the hard one")


def _check_sysctl(key: str) -> None:
    name = key.removeprefix(SYSCTL)
    if not _OF_NAMESPACES.fullmatch(name) or ".." in name or "//" in name:
        why = "only what each container has for itself can be: net.*, fs.mqueue.*, kernel.shm*, kernel.msg* and kernel.sem"
        raise _refused(key, f"{why}; all else is the whole host's")


def _check_cgroup(key: str) -> None:
    prefix = CGROUP2 if key.startswith(CGROUP2) else CGROUP1
    file = key.removeprefix(prefix)
    if _FILES[prefix].fullmatch(file):
        return
    if file in _FIELDS:
        raise _refused(key, f"there is a field for it: {_FIELDS[file]}")
    if file.startswith("devices"):
        raise _refused(key, "it says which of the host's devices the container can use")
    raise _refused(key, "it is no file that only says how much of something a container gets")


def of_host(pairs: Mapping[str, str], *, cgroup2: bool) -> Iterator[tuple[str, str]]:
    """The keys that have an effect on a host with this version of cgroups, with their values."""
    other = CGROUP1 if cgroup2 else CGROUP2
    return ((key, value) for key, value in sorted(pairs.items()) if not key.startswith(other))


def controller(key: str) -> str:
    """The cgroup controller that a key is for; empty: none."""
    if not key.startswith((CGROUP1, CGROUP2)):
        return ""
    name = key.removeprefix(CGROUP1).removeprefix(CGROUP2).partition(".")[0]
    return "" if name == "cgroup" else name


class RawType(Pairs):
    """Keys of LXC's configuration with their values. On the command line they may go without ``lxc.`` in front."""

    def __init__(self) -> None:
        super().__init__(check)

    def read(self, fields: Fields, key: str) -> Mapping[str, str]:
        """See ValueType."""
        found = super().read(fields, key)
        if len(found) > MOST:
            fields.complain(key, f"these are {len(found)} keys, and a container has {MOST} at most")
        return found

    def parse(self, text: str) -> Mapping[str, str]:
        """See Pairs."""
        key, equals, value = text.partition("=")
        return super().parse(f"{self.key(key)}{equals}{value}")

    def key(self, inner: str) -> str:
        """See Pairs."""
        return inner if inner.startswith(PREFIX) else f"{PREFIX}{inner}"

    @property
    def form(self) -> str:
        """See ValueType."""
        return f"a mapping of LXC's keys to text; {_HINT}"

    def schema(self) -> dict[str, Any]:
        """See ValueType."""
        return {**super().schema(), "propertyNames": {"pattern": r"^lxc\."}, "maxProperties": MOST}
