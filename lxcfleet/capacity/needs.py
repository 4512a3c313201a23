"""Whether a given number of further containers fits on the host. Pure: what the host has comes in, findings go out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from lxcfleet.errors import NoCapacity, Unsupported
from lxcfleet.host.facts.features import Features
from lxcfleet.host.facts.limits import HostLimits, Table
from lxcfleet.spec.reading.terms import RANGE_SIZE, Init
from lxcfleet.units import counted, words_of_size

Level = Literal["ok", "warning", "fail"]

_KIB = 1 << 10
_MIB = 1 << 20


@dataclass(frozen=True)
class Finding:
    """One line of ``doctor``. ``have`` is what is left, ``need`` what the new containers will take; both in bytes
    for memory and disk."""

    check: str
    level: Level
    message: str
    have: int | None = None
    need: int | None = None
    hint: str = ""
    fixes: tuple[tuple[str, int], ...] = ()
    """Kernel settings with the values that make room."""
    feature: bool = False
    """The finding is about something that the host has or lacks, not about an amount."""

    @property
    def fixable(self) -> bool:
        """Whether ``doctor --fix`` can repair it."""
        return bool(self.fixes) or (self.check == "uid-ranges" and self.level != "ok")

    def to_json(self) -> dict[str, Any]:
        """The finding as the API sends it (api.records.FindingRecord)."""
        return {
            "check": self.check,
            "level": self.level,
            "message": self.message,
            "have": self.have,
            "need": self.need,
            "hint": self.hint,
            "fixable": self.fixable,
        }


class Need(NamedTuple):
    """How much of one resource a further container takes."""

    check: str
    words: str
    app: int
    system: int
    ceiling: int = 0
    """The highest value that --fix sets; 0: it sets none, as more would be unsafe or impossible."""

    def times(self, count: int, init: Init) -> int:
        """How much ``count`` containers take."""
        return count * (self.app if init is Init.APP else self.system)


# Measured on Debian 12 (LXC 5.0.2, kernel 6.18, 24 GiB, cgroup v1) with bench/measure.py: the growth of the host's totals
# from 1 running container to 21, divided by 20. app: `sleep infinity`. system: as it boots, with systemd and journald
# only; "in use" is the same with dbus, logind and a login on the console.
MEMORY = Need("memory", "memory", 2 * _MIB, 14 * _MIB)
"""app: 0.8 MiB of processes (PSS, bench/run.py) and 0.4 of the kernel; the command's own memory is not known.
system: MemAvailable fell by 4 to 8 MiB; in use 9 of processes and 3 of the kernel."""
DISK = Need("disk", "disk space", 64 * _KIB, 1024 * _KIB)
"""du -s of a fresh container's directory: 24 and 620 KiB, of which 512 are the journal; rounded up, as logs grow."""
INODES = Need("inodes", "inodes", 10, 50)
"""du -s --inodes: 8 and 28, in use 40."""
TABLES = (
    # 3 (monitor, init, command) and 3, in use 6; rounded up for services. The ceiling is PID_MAX_LIMIT.
    Need("processes", "process numbers", 4, 24, 1 << 22),
    # The kernel derives threads-max from its memory, so --fix leaves that one alone.
    Need("threads", "threads", 4, 24),
    # fs.file-nr: 40 to 47 and 78 to 107, in use 112; rounded up.
    Need("open-files", "open files", 64, 256, 1 << 24),
    # kernel.pty.nr: 1, the console; and one for a shell or exec.
    Need("ptys", "pseudo terminals", 2, 2, 1 << 16),
    # The host's entry for the container and the container's for the gateway.
    Need("neighbours", "entries of the neighbour table", 2, 2, 1 << 16),
    # The same two, and those for link-local addresses.
    Need("neighbours6", "entries of the IPv6 neighbour table", 4, 4, 1 << 16),
    # Not measured: clients of published ports and what containers ask elsewhere, 16 at a time. An entry takes 320 bytes.
    Need("connections", "connections that the packet filter follows (conntrack)", 16, 16, 1 << 20),
)
PER_USER = (
    # The kernel counts these by user. An unprivileged container is a user of its own (see kernel.user_namespace) and has
    # the whole limit for itself; only privileged containers share root's.
    # Open descriptors of all processes: 0 and 3 instances, in use 6; 0 and 5 watches, in use 19.
    Need("inotify-instances", "inotify instances", 0, 6, 1 << 20),
    Need("inotify-watches", "inotify watches", 0, 20, 1 << 22),
    # 2, in use 3; systemd gives one more to each service with PrivateTmp= and its like.
    Need("mount-namespaces", "mount namespaces", 3, 16, 1 << 20),
    Need("user-namespaces", "user namespaces", 1, 1, 1 << 20),
)
ROOT_KEYS = (
    # A privileged container's keys count against root. /proc/key-users: 2 keys of 10 bytes and 5 of 54 bytes,
    # in use 9 of 161.
    Need("root-keys", "root's keys", 2, 16, 1 << 22),
    Need("root-key-bytes", "bytes of root's keys", 64, 512, 1 << 28),
)
OWN_KEYS = (
    # An unprivileged container's root has a quota of its own. systemd takes a key for each service.
    Need("keys", "keys of one container", 2, 64, 1 << 14),
    Need("key-bytes", "bytes of one container's keys", 64, 2048, 1 << 21),
)
_ONLY_WARN = frozenset(("neighbours", "neighbours6", "connections"))
"""If these run short, containers start, but work badly: packets are dropped."""

_APP_ONLY = frozenset(("tini",))
_SYSTEM_ONLY = frozenset(("systemd",))
_UNPRIVILEGED_ONLY = frozenset(("user-namespace-support", "idmapped-root"))


def assess(
    count: int, init: Init, limits: HostLimits, features: Features, ids_free: int | None
) -> tuple[Finding, ...]:
    """Findings for and against ``count`` more running containers of that kind; the failures first.

    ``ids_free``: how many uid ranges the pool has left; None for privileged containers.
    """
    findings = [
        *_features(init, features, ids_free is None),
        _memory(count, init, limits),
        *_disk(count, init, limits),
        *_tables(count, init, limits, ids_free is None),
    ]
    if ids_free is not None:
        findings.append(_id_ranges(count, ids_free))
    order = {"fail": 0, "warning": 1, "ok": 2}
    return tuple(sorted(findings, key=lambda finding: order[finding.level]))


def fits(init: Init, limits: HostLimits, features: Features, ids_free: int | None) -> int:
    """How many more containers of that kind the host has room for: 0 if it can't run any."""
    return _room(assess(1, init, limits, features, ids_free), 1)


def refuse(findings: Sequence[Finding], count: int, init: Init) -> None:
    """Raise Unsupported or NoCapacity if ``assess(count, init, …)`` found anything against it."""
    failures = [finding for finding in findings if finding.level == "fail"]
    missing = [finding for finding in failures if finding.feature]
    if missing:
        raise Unsupported(
            f"this host can't run {init} containers",
            why="\n".join(finding.message for finding in missing),
            hint="; ".join(finding.hint for finding in missing if finding.hint),
        )
    if failures:
        raise NoCapacity(
            f"no room for {_containers(count, init)}",
            why="\n".join(finding.message for finding in failures),
            hint=_next_step(failures, count, init),
        )


def fixes(findings: Sequence[Finding]) -> dict[str, int]:
    """The kernel settings that ``doctor --fix`` raises, with their new values; for host.facts.limits.apply."""
    raised: dict[str, int] = {}
    for finding in findings:
        for name, value in finding.fixes:
            raised[name] = max(value, raised.get(name, 0))
    return raised


def _containers(count: int, init: Init) -> str:
    return counted(count, f"more {init} container")


def _next_step(failures: Sequence[Finding], count: int, init: Init) -> str:
    stubborn = [finding for finding in failures if not finding.fixable]
    command = f"`lxcfleet doctor --fix -n {count}{' --init app' if init is Init.APP else ''}`"
    room = _room(stubborn, count)
    if not stubborn:
        return f"{command} makes room"
    if len(stubborn) < len(failures):
        return f"{command} raises what can be raised; even so there is room for {room}"
    return f"there is room for {room}; `lxcfleet doctor -n {count}` tells more"


def _room(findings: Sequence[Finding], count: int) -> int:
    """For how many containers the scarcest resource is enough, if ``findings`` are about ``count``."""
    shares = [f.have * count // f.need for f in findings if f.need and f.have and f.check not in _ONLY_WARN]
    exhausted = any(f.level == "fail" and not f.have for f in findings)
    return 0 if exhausted else min(shares, default=0)


def _features(init: Init, features: Features, privileged: bool) -> Iterator[Finding]:
    skip = _SYSTEM_ONLY if init is Init.APP else _APP_ONLY
    if privileged:
        skip |= _UNPRIVILEGED_ONLY
    for probe in features.probes:
        if probe.check not in skip:
            level: Level = (
                "fail" if probe.level == "fail" else "warning" if probe.level == "warning" else "ok"
            )
            yield Finding(probe.check, level, probe.message, hint=probe.hint, feature=True)


def _memory(count: int, init: Init, limits: HostLimits) -> Finding:
    # Without a reserve for the host's own work the last container would bring the out-of-memory killer.
    rest = min(limits.memory_total // 20, 512 * _MIB)
    have = max(0, limits.memory_available - rest)
    hint = "stop what is not needed, add memory, or create fewer"
    return _compare(MEMORY, MEMORY.times(count, init), have, hint)


def _disk(count: int, init: Init, limits: HostLimits) -> Iterator[Finding]:
    hint = f"free some on the file system of {limits.disk_path}, or create fewer"
    yield _compare(DISK, DISK.times(count, init), max(0, limits.disk_free - 64 * _MIB), hint)
    if limits.inodes_free is not None:
        yield _compare(INODES, INODES.times(count, init), max(0, limits.inodes_free - 1000), hint)


def _id_ranges(count: int, free: int) -> Finding:
    words = f"uid ranges of {RANGE_SIZE} ids in root's lines of /etc/subuid and /etc/subgid"
    hint = "give root more ids there, or remove containers; see subuid(5)"
    return _compare(Need("uid-ranges", words, 1, 1), count, free, hint)


def _tables(count: int, init: Init, limits: HostLimits, privileged: bool) -> Iterator[Finding]:
    for need in (*TABLES, *((*PER_USER, *ROOT_KEYS) if privileged else ())):
        table = limits.tables.get(need.check)
        wanted = need.times(count, init)
        if table is not None and wanted:
            yield _table(need, wanted, table)
    for need in () if privileged else PER_USER:
        table = limits.tables.get(need.check)
        wanted = need.times(1, init)
        if table is not None and wanted:
            yield _own(need, wanted, replace(table, used=0))
    for need in () if privileged else OWN_KEYS:
        table = limits.tables.get(need.check)
        if table is not None:
            yield _own(need, need.times(1, init), table)


def _rest(limit: int) -> int:
    """The part of a table that is left for the host's own programs."""
    return limit // 32


def _table(need: Need, wanted: int, table: Table) -> Finding:
    have = max(0, table.free - _rest(table.limit))
    about = "" if table.exact else "about "
    detail = f" ({table.sysctl} is {table.limit})"
    if wanted <= have:
        return _compare(need, wanted, have, "", about=about)
    target = _raised(table.used + table.reserved + 2 * wanted)
    if need.ceiling and target > need.ceiling:
        target = need.ceiling
    enough = target - _rest(target) - table.used - table.reserved >= wanted
    if not need.ceiling or not enough:
        hint = "stop what is not needed, or create fewer"
        return _compare(need, wanted, have, hint, about=about, detail=detail)
    hint = f"raise {table.sysctl} from {table.limit} to {target}"
    settings = _settings(table.sysctl, target)
    return _compare(need, wanted, have, hint, about=about, detail=detail, settings=settings)


def _own(need: Need, wanted: int, table: Table) -> Finding:
    """Compare a quota that each container has for itself, however many containers there are."""
    message = f"{need.words}: {wanted} needed by each, {table.limit} allowed"
    if table.used:
        message += f", {table.used} at most used by one now"
    if max(wanted, table.used * 5 // 4) <= table.limit:
        return Finding(need.check, "ok", message)
    target = min(need.ceiling, _raised(2 * max(wanted, table.used)))
    hint = f"raise {table.sysctl} from {table.limit} to {target}"
    level: Level = "fail" if wanted > table.limit else "warning"
    return Finding(need.check, level, message, hint=hint, fixes=((table.sysctl, target),))


def _raised(entries: int) -> int:
    """A limit with room for ``entries`` besides the host's reserve: the next power of two."""
    return 1 << (entries * 32 // 31).bit_length()


def _settings(sysctl: str, value: int) -> tuple[tuple[str, int], ...]:
    """The setting, and the settings that belong with it."""
    if not sysctl.endswith("gc_thresh3"):
        return ((sysctl, value),)
    # The kernel begins to drop entries at gc_thresh2, and drops none up to gc_thresh1; arp(7).
    stem = sysctl[:-1]
    return ((f"{stem}1", value // 8), (f"{stem}2", value // 2), (f"{stem}3", value))


def _compare(
    need: Need,
    wanted: int,
    have: int,
    hint: str,
    *,
    about: str = "",
    detail: str = "",
    settings: tuple[tuple[str, int], ...] = (),
) -> Finding:
    show: Callable[[int], str] = str
    if need in (MEMORY, DISK):
        show = words_of_size
    # The kernel's usual limit of open files is 2^63 - 1, which nobody can read.
    left = "practically no limit" if show is str and have >> 48 else f"{about}{show(have)} left"
    message = f"{need.words}: {show(wanted)} needed, {left}{detail}"
    if wanted <= have:
        return Finding(need.check, "ok", message, have, wanted)
    level: Level = "warning" if need.check in _ONLY_WARN else "fail"
    return Finding(need.check, level, message, have, wanted, hint, settings)
