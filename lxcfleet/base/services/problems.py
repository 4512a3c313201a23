"""The problems that keep the host's services from running in a container, in words. Pure, but for reading the host.

These are warnings: whether a service runs is seen only when it does, and the container's own files count, too.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

from lxcfleet.base.services.planner import ServicePlan
from lxcfleet.base.services.units import Unit, UnitLine, is_template
from lxcfleet.base.tree import Tree

_BINARIES = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin")
"""Where systemd looks for a program that is named without its directory; systemd.exec(5)."""
_STARTS = ("ExecStart", "ExecStartPre", "ExecCondition")
_PREFIXES = "@-:+!|"
_KERNEL = {
    "modprobe": "loads kernel modules", "insmod": "loads kernel modules", "hwclock": "sets the host's clock",
    "mount": "mounts file systems", "losetup": "makes loop devices", "swapon": "sets up swap", "sysctl": "sets the kernel up",
    "udevadm": "manages devices", "systemd-udevd": "manages devices",
}  # fmt: skip
"""Programs whose work an unprivileged container can't do."""
_HOLDS = ("yes", "true", "1", "container", "lxc", "private-users")
"""The values of ConditionVirtualization= that hold in a container of ours."""
_READ_ONLY, _WRITABLE = ("/sys", "/proc/sys"), ("/proc/sys/net",)
"""The directories that a container can't write to, and those in them that it can write to all the same."""

_PLACES = ("WorkingDirectory", "RootDirectory", "RootImage", "LoadCredential", "LoadCredentialEncrypted")
"""Settings that name one path, without which the program is not started; systemd.exec(5)."""
_LISTS = ("ReadWritePaths", "ReadOnlyPaths", "InaccessiblePaths", "ExecPaths", "NoExecPaths", "BindPaths",
          "BindReadOnlyPaths")  # fmt: skip
"""Settings with a list of such paths."""
_MADE_LATER = ("/run", "/proc", "/sys", "/dev", "/tmp", "/var/tmp")
"""Directories that are made anew at each boot: what is there on the host says nothing."""
_INNER = tuple(f"{each}/" for each in _MADE_LATER)
_REAL_TIME = {"CPUSchedulingPolicy": ("fifo", "rr", "1", "2"), "IOSchedulingClass": ("realtime", "1")}
"""Settings, and their values that the kernel grants to root of the host alone."""
_DOES = {
    "service": ("Service", ("ExecStart", "ExecStop"), "SuccessAction"), "timer": ("Timer", ("On",), ""),
    "socket": ("Socket", ("Listen",), ""), "path": ("Path", ("Path", "Directory"), ""),
}  # fmt: skip
"""By kind: the settings, by how they begin, of which a unit needs one, or systemd refuses it."""

_PORTS = {
    "apache2": 80, "nginx": 80, "lighttpd": 80, "caddy": 80, "ssh": 22, "dropbear": 22, "postfix": 25, "exim4": 25,
    "opensmtpd": 25, "mariadb": 3306, "mysql": 3306, "redis-server": 6379, "valkey-server": 6379, "named": 53, "unbound": 53,
    "dnsmasq": 53, "squid": 3128, "dovecot": 143, "cyrus-imapd": 143, "proftpd": 21, "vsftpd": 21, "pure-ftpd": 21,
}  # fmt: skip
"""The usual ports of well-known services that take no socket from systemd, by the name of the unit."""


class Problem(NamedTuple):
    """Something that may keep a service from running."""

    unit: str
    text: str


def problems(tree: Tree, plan: ServicePlan, hidden: Callable[[str], bool]) -> list[Problem]:
    """The problems that may keep the units of ``plan`` from running. ``hidden``: whether a container lacks a path that
    the host has."""
    found, seen = [], _Seen(tree, plan.entries, hidden)
    for unit in plan.units.values():
        if is_template(unit.name):
            continue  # only an instance has all settings
        found += [Problem(unit.name, text) for text in dict.fromkeys(_of_unit(unit, seen))]
    found += [Problem(name, _missing(key, other)) for name, key, other in plan.missing]
    first = next(iter(plan.units), "")
    found += [
        Problem(first, f"its settings in {path} stay hidden: other users of the host can't read them, and they were changed")
        for path in plan.withheld
    ]
    return [*found, *_ports(plan), *_conflicts(plan)]


class _Seen(NamedTuple):
    """The host's files, as far as a container has them."""

    tree: Tree
    given: Collection[str]
    hidden: Callable[[str], bool]

    def lacks(self, path: str) -> str:
        """Why a container does not have the file at ``path``, in words; empty: it has, as far as is known."""
        if "%" in path or path in self.given or any(c in path for c in "*?["):
            return ""
        if not self.tree.exists(self.tree.real(path, last=True)):
            return "is not there"
        return "is hidden by the mask" if self.hidden(path) else ""


def _of_unit(unit: Unit, seen: _Seen) -> Iterator[str]:
    for path in unit.private:
        yield f"its settings in {path} stay hidden, as other users of the host can't read them"
    for line in unit.lines("Service", *_STARTS):
        yield from _program(line, seen)
    for line in unit.lines("Service", "EnvironmentFile"):
        optional, path = line.value.startswith("-"), line.value.lstrip("-")
        lacks = seen.lacks(path)
        if lacks and not (optional and lacks == "is not there"):
            yield f"the file of its variables {path} {lacks}{_by(line, unit)}"
    for line in unit.lines("Unit", "ConditionPathExists", "AssertPathExists", "ConditionFileNotEmpty"):
        path = line.value  # one with "|" is an alternative to others, and one with "!" must not be there
        if path.startswith("/") and not path.startswith(("/run", "/var", "/proc", "/sys", "/dev")) and seen.lacks(path):
            yield f"it is passed over, as {path} {seen.lacks(path)} ({line.key}=)"
    yield from _conditions(unit)
    yield from _useless(unit)
    yield from _places(unit, seen)
    yield from _accounts(unit, seen.tree)
    for line in unit.lines("Service", *_REAL_TIME):
        if line.value in _REAL_TIME[line.key]:
            yield f"it can't be started in an unprivileged container ({line.key}={line.value}){_by(line, unit)}"


def _useless(unit: Unit) -> Iterator[str]:
    """That the unit does nothing."""
    section, begins, other = _DOES[unit.kind]
    keys = {each.key for each in unit.settings if each.section == section and each.value}
    if not any(key.startswith(begins) for key in keys) and not (other and unit.values("Unit", other)):
        yield f"systemd does not load it: [{section}] has no {'… or '.join(begins)}{'' if unit.kind == 'service' else '…'}="


def _places(unit: Unit, seen: _Seen) -> Iterator[str]:
    """Paths that have to be there before its program is started. One with a ``-`` before it need not."""
    for line in unit.lines("Service", *_PLACES, *_LISTS):
        credential = line.key.startswith("LoadCredential")
        whole = line.value.partition(":")[2] if credential else line.value
        for word in whole.split() if line.key in _LISTS else [whole]:
            path = word.strip('"').lstrip("+").partition(":")[0]
            lacks = seen.lacks(path) if path.startswith("/") and not f"{path}/".startswith(_INNER) else ""
            if lacks and not (lacks == "is not there" and path.startswith("/var/")):  # it may be made before that
                yield f"{path} {lacks} ({line.key}=){_by(line, unit)}"


def _accounts(unit: Unit, tree: Tree) -> Iterator[str]:
    """Accounts under which it runs, and which nobody has or makes."""
    if unit.values("Service", "DynamicUser")[-1:] not in ([], ["no"], ["false"]):
        return
    for key, file, letters in (("User", "/etc/passwd", "u"), ("Group", "/etc/group", "ug")):
        for line in unit.lines("Service", key)[-1:]:
            name = line.value
            if name and "%" not in name and not name.isdecimal() and name not in _named(tree, file, letters):
                yield f"the host has no {key.lower()} {name} ({key}=){_by(line, unit)}"


def _named(tree: Tree, file: str, letters: str) -> set[str]:
    """The names in passwd(5) or group(5), and those that sysusers.d(5) has made at boot."""
    found = {line.partition(":")[0] for line in _lines(tree, file)}
    for directory in ("/usr/lib/sysusers.d", "/etc/sysusers.d"):
        for each in tree.names(directory):
            words = [line.split() for line in _lines(tree, f"{directory}/{each}")]
            found |= {word[1] for word in words if len(word) > 1 and word[0].rstrip("!") in letters}
    return found


def _lines(tree: Tree, path: str) -> list[str]:
    return (tree.read(tree.real(path, last=True)) or b"").decode("utf-8", "surrogateescape").splitlines()


def _by(line: UnitLine, unit: Unit) -> str:
    """Which file says so, if that is not the unit's own."""
    return "" if line.file == unit.source else f" ({line.file})"


def _program(line: UnitLine, seen: _Seen) -> Iterator[str]:
    prefix = line.value[: len(line.value) - len(line.value.lstrip(_PREFIXES))]
    try:
        words = shlex.split(line.value[len(prefix) :])
    except ValueError:
        words = line.value[len(prefix) :].split()
    if not words:
        return
    name = words[0].rpartition("/")[2]
    if name in _KERNEL and "-" not in prefix:
        yield f"it can't do its work in an unprivileged container: it {_KERNEL[name]} ({words[0]})"
    places = [words[0]] if words[0].startswith("/") else [f"{directory}/{words[0]}" for directory in _BINARIES]
    lacks = [seen.lacks(place) for place in places]
    if all(lacks) and "-" not in prefix:
        yield f"its program {words[0]} {next((why for why in lacks if 'hidden' in why), lacks[0])}"


def _conditions(unit: Unit) -> Iterator[str]:
    for line in unit.lines("Unit", "ConditionVirtualization", "AssertVirtualization"):
        if line.value.startswith("|"):
            continue  # an alternative to others
        if (line.value.lstrip("! ") in _HOLDS) == line.value.startswith("!"):
            yield f"it is passed over in containers ({line.key}={line.value})"
    for line in unit.lines("Unit", "ConditionPathIsReadWrite", "AssertPathIsReadWrite"):
        if line.value.startswith(_READ_ONLY) and not line.value.startswith(_WRITABLE):
            yield f"it is passed over, as containers can't write to {line.value} ({line.key}=)"


def _missing(key: str, name: str) -> str:
    if name.endswith(".device"):
        return f"it waits for {name}, and containers have no devices of the host's ({key}=)"
    if name.endswith(".mount"):
        return f"it needs {name}, and containers have no mounts of the host's ({key}=)"
    return f"it needs {name}, which the host does not have ({key}=)"


class _Listens(NamedTuple):
    """The address and port that a unit listens on."""

    unit: str
    protocol: str
    address: str
    port: str

    def meets(self, other: _Listens) -> bool:
        """Whether not both can listen."""
        same = (self.protocol, self.port) == (other.protocol, other.port) and self.unit != other.unit
        return same and (self.address == other.address or not self.address or not other.address)


def _ports(plan: ServicePlan) -> Iterator[Problem]:
    """Units that want the same port, as far as can be told."""
    wanted = [each for name in sorted(plan.enabled) for each in _listens(plan.units[name])]
    for number, one in enumerate(wanted):
        if any(one.meets(earlier) and one.port == earlier.port for earlier in wanted[:number]):
            continue  # it was told there
        others = list(dict.fromkeys(each.unit for each in wanted[number + 1 :] if one.meets(each)))
        if others:
            port = one.port if one.protocol == "tcp" else f"{one.port}/{one.protocol}"
            yield Problem(one.unit, f"it wants port {port}, and so {_do(others)}: one of them has to be set to another one")


def _listens(unit: Unit) -> Iterator[_Listens]:
    for line in unit.lines("Socket", "ListenStream", "ListenDatagram"):
        address, _, port = line.value.rpartition(":")
        if port.isdigit():
            protocol = "tcp" if line.key == "ListenStream" else "udp"
            # One of all IPv6 addresses has all of IPv4, too, unless BindIPv6Only= says otherwise.
            yield _Listens(unit.name, protocol, "" if address in ("0.0.0.0", "[::]") else address.strip("[]"), port)
    usual = _PORTS.get(unit.name.removesuffix(".service"))
    if usual:
        yield _Listens(unit.name, "tcp", "", str(usual))


def _do(names: Sequence[str]) -> str:
    return f"does {names[0]}" if len(names) == 1 else f"do {', '.join(names)}"


def _conflicts(plan: ServicePlan) -> Iterator[Problem]:
    for one, other in combinations(sorted(plan.enabled), 2):
        for name, foe in ((one, other), (other, one)):
            if foe in plan.units[name].names("Unit", "Conflicts"):
                yield Problem(name, f"it can't run together with {foe} (Conflicts=)")
